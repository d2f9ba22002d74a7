//! A configuration that a run can be begun with: what leads and starts workers takes no other.

use std::ops::Deref;

use blip2_worker::config::valid::ValidConfig;

use super::run::RunConfig;
use crate::error::CliError;

/// A configuration whose values go together and whose folders are there; made by [`RunConfig::validate`]
/// alone.
#[derive(Debug, Clone)]
pub(crate) struct ValidRun {
    config: RunConfig,
    worker: ValidConfig,
}

impl RunConfig {
    /// The same as a configuration that a run can be begun with.
    ///
    /// # Errors
    /// The key of the first value that no run can have.
    pub(crate) fn validate(self) -> Result<ValidRun, CliError> {
        self.coordinator.validate(self.train.slots)?;
        self.checkpoint.validate()?;
        let worker = self.worker().validate()?;
        Ok(ValidRun { config: self, worker })
    }
}

impl ValidRun {
    /// The part that workers get.
    pub(crate) fn worker(&self) -> &ValidConfig {
        &self.worker
    }

    /// Names the run.
    pub(crate) fn set_id(&mut self, id: String) {
        self.config.run.id = id;
    }
}

impl Deref for ValidRun {
    type Target = RunConfig;

    fn deref(&self) -> &RunConfig {
        &self.config
    }
}
