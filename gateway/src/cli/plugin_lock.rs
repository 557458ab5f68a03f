//! What may be said of `gateway plugin lock`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::check;
use crate::config;
use crate::plugin_tools::lock::{self, Mode};

/// What `lock` is told.
#[derive(Debug, Args)]
pub struct LockArgs {
    /// The configuration.
    #[arg(value_name = "FILE", default_value = super::DEFAULT_CONFIG)]
    file: PathBuf,
    /// Write nothing; exit with 1 where something would be written.
    #[arg(long)]
    check: bool,
}

impl LockArgs {
    /// Does it.
    pub fn run(self) -> ExitCode {
        let mode = if self.check { Mode::Check } else { Mode::Write };
        let loaded = match config::load(&self.file) {
            Ok(loaded) => loaded,
            Err(errors) => {
                check::print(&errors);
                return ExitCode::FAILURE;
            }
        };
        match lock::lock(&self.file, &loaded.config, mode) {
            Ok(is_other) if is_other && mode == Mode::Check => ExitCode::FAILURE,
            Ok(_) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("gateway: {error:#}");
                ExitCode::FAILURE
            }
        }
    }
}
