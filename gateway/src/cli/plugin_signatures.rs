//! What may be said of `gateway plugin sign` and `verify`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::plugin_tools::sign::{Sign, Verify};

/// What `sign` is told.
#[derive(Debug, Args)]
pub struct SignArgs {
    /// A file with an Ed25519 private key in PEM, which nobody else may read. May be said several times: each signs.
    #[arg(
        short,
        long,
        value_name = "FILE",
        required_unless_present = "new_key",
        requires = "components"
    )]
    key: Vec<PathBuf>,
    /// Make a key first: the private one goes into this file, the public one into FILE.pub. Neither may be there yet.
    #[arg(long, value_name = "FILE")]
    new_key: Option<PathBuf>,
    /// The components. Signatures of each go into a file beside it, with `.sig` behind its name.
    #[arg(value_name = "COMPONENT")]
    components: Vec<PathBuf>,
}

/// What `verify` is told.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// A file with an Ed25519 public key in PEM. May be said several times: one of them has to have signed.
    #[arg(short, long, value_name = "FILE", required = true)]
    key: Vec<PathBuf>,
    /// The components.
    #[arg(value_name = "COMPONENT", required = true)]
    components: Vec<PathBuf>,
}

impl SignArgs {
    /// Does it.
    pub fn run(self) -> ExitCode {
        let Self {
            key: keys,
            new_key,
            components,
        } = self;
        Sign {
            keys,
            new_key,
            components,
        }
        .run()
    }
}

impl VerifyArgs {
    /// Does it.
    pub fn run(self) -> ExitCode {
        let Self { key: keys, components } = self;
        Verify { keys, components }.run()
    }
}
