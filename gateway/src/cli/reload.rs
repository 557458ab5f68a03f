//! The configuration file as the source of starts and reloads: read each time, its faults told in pictures.

use std::path::{Path, PathBuf};

use super::{Failure, check, report};
use crate::config::{Config, ConfigErrors, LastGood, Loaded, Reading, Source};
use crate::server::{ConfigSource, StartError};
use crate::snapshot::BuildErrors;

/// A configuration file that is read at the start and again at each reload.
pub struct ConfigFile {
    path: PathBuf,
    /// The files that were read last.
    reading: Option<Reading>,
    /// The text of what was made of them, for faults that show only when it is to run.
    source: Option<Source>,
    /// What tenants are served by that have files of their own.
    last_good: LastGood,
}

impl ConfigFile {
    /// The file, not read yet.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            reading: None,
            source: None,
            last_good: LastGood::default(),
        }
    }

    /// Reads it, and what its tenants include. What is set aside of that is told.
    pub fn read(&mut self) -> Result<Config, ConfigErrors> {
        let mut reading = Reading::of_file(&self.path, &self.last_good)?;
        let loaded = reading.lower()?;
        self.reading = Some(reading);
        Ok(self.told(loaded))
    }

    /// What was read last cannot run.
    pub fn failure(&self, why: StartError) -> Failure {
        match &self.source {
            Some(source) => Failure::of_start(why, source),
            None => why.into(),
        }
    }

    fn told(&mut self, loaded: Loaded) -> Config {
        loaded.aside.iter().for_each(check::print);
        self.source = Some(loaded.source);
        loaded.config
    }
}

impl ConfigSource for ConfigFile {
    fn load(&mut self) -> Option<Config> {
        self.read().map_err(|errors| report(Err(errors.into()))).ok()
    }

    fn without(&mut self, errors: &BuildErrors) -> Option<Config> {
        let (reading, source) = (self.reading.as_mut()?, self.source.as_ref()?);
        let loaded = reading.without(source, errors.faults())?;
        Some(self.told(loaded))
    }

    fn taken_up(&mut self) {
        if let Some(reading) = self.reading.take() {
            self.last_good = reading.last_good();
        }
    }

    fn refused(&mut self, why: StartError) {
        // Said in the log already, in one line. A fault of the text is worth its picture.
        if let failure @ Failure::Config(_) = self.failure(why) {
            report(Err(failure));
        }
    }
}
