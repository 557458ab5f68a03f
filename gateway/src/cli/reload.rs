//! The configuration file as the source of reloads: read again each time, its faults told as at the start.

use std::path::{Path, PathBuf};

use super::{Failure, report};
use crate::config::{self, Config, Loaded, Source};
use crate::server::{ConfigSource, StartError};

/// A configuration file that is read again at each reload.
pub struct ConfigFile {
    path: PathBuf,
    /// The text that was read last, for faults that show only when it is to run.
    source: Option<Source>,
}

impl ConfigFile {
    /// The file, not read yet.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            source: None,
        }
    }
}

impl ConfigSource for ConfigFile {
    fn load(&mut self) -> Option<Config> {
        match config::load(&self.path) {
            Ok(Loaded { config, source }) => {
                self.source = Some(source);
                Some(config)
            }
            Err(errors) => {
                report(Err(errors.into()));
                None
            }
        }
    }

    fn refused(&mut self, why: StartError) {
        // Said in the log already, in one line. A fault of the text is worth its picture.
        if let Some(source) = &self.source
            && let failure @ Failure::Config(_) = Failure::of_start(why, source)
        {
            report(Err(failure));
        }
    }
}
