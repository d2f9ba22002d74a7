//! Where a member stands: with its coordinator, in its run, and with its compute thread.

use std::time::Duration;

use blip2_proto::v1::Welcome;

use crate::config::WorkerConfig;

/// Where the member stands with its coordinator.
#[derive(Debug)]
pub(super) enum Link {
    /// Nothing was tried yet.
    New,
    /// Lost while compute takes up a state: it is told first what that comes to.
    Lost,
    /// A session is being opened.
    Opening { until: Duration },
    /// It is open, and the greeting is sent.
    Greeting { until: Duration },
    /// Taken in.
    Joined { heartbeat: Duration, next: Duration },
    /// The coordinator was told that this member cannot go on.
    Failing { exit_code: u32, reason: String, until: Duration },
    /// Nothing follows.
    Over,
}

/// What tells a run from others.
#[derive(Debug)]
pub(super) struct RunIdentity {
    pub(super) run_id: String,
    pub(super) config_hash: String,
    pub(super) manifest_hash: String,
    /// Steps of all stages, if the configuration says.
    pub(super) total_steps: Option<u64>,
}

/// What compute was told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Enter { epoch: u64, step: u64 },
    Reduce { epoch: u64, step: u64 },
    Apply { step: u64, begins_next: bool },
}

/// An epoch and the step to do next in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WorldStep {
    pub(super) epoch: u64,
    pub(super) step: u64,
}

impl RunIdentity {
    pub(super) fn of(welcome: &Welcome) -> Self {
        // A configuration that cannot be read is compute's to refuse.
        let config: Option<WorkerConfig> = toml::from_str(&welcome.config_toml).ok();
        Self {
            run_id: welcome.run_id.clone(),
            config_hash: welcome.config_hash.clone(),
            manifest_hash: welcome.manifest_hash.clone(),
            total_steps: config.map(|config| config.total_steps()).filter(|steps| *steps > 0),
        }
    }

    /// Why the run of `welcome` is not this one.
    pub(super) fn differs(&self, welcome: &Welcome) -> Option<String> {
        let pairs = [
            ("run", &self.run_id, &welcome.run_id),
            ("configuration", &self.config_hash, &welcome.config_hash),
            ("manifest", &self.manifest_hash, &welcome.manifest_hash),
        ];
        let (what, ours, theirs) = pairs.into_iter().find(|(_, ours, theirs)| ours != theirs)?;
        Some(format!(
            "the coordinator's {what} is {theirs}, this worker is part of {ours}; check --coordinator"
        ))
    }
}
