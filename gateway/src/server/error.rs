//! Why the gateway cannot start, and why it ended otherwise than asked to.

use std::fmt;
use std::io;

use super::faults;
use super::identity::IdentityError;
use crate::config::{ConfigError, Log};
use crate::snapshot::BuildErrors;
use crate::worker::WorkerError;

/// Why the gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// This machine refuses what the configuration says.
    #[error(transparent)]
    Faults(Faults),
    /// Root cannot be given up.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The configuration cannot run here.
    #[error(transparent)]
    Build(#[from] BuildErrors),
    /// A worker does not start.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The system refused something else.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It was told to end before it served.
    #[error("told to end before it served")]
    Ended,
}

/// What this machine refuses, as faults of the configuration's text.
#[derive(Debug)]
pub struct Faults(pub Vec<ConfigError>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let messages: Vec<_> = self.0.iter().map(ConfigError::message).collect();
        f.write_str(&messages.join("\n"))
    }
}

impl std::error::Error for Faults {}

impl StartError {
    /// The log cannot be written to.
    pub fn log(log: &Log, error: &io::Error) -> Self {
        Self::Faults(Faults(vec![faults::of_log(log, error)]))
    }
}

/// Why the gateway ended otherwise than asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A worker ended by itself: a defect of the gateway.
    #[error("a worker ended unexpectedly; see the log above")]
    WorkerLost,
    /// The system refused signals.
    #[error("{0}")]
    Io(#[from] io::Error),
}
