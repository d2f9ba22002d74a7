//! The quick start's proof of survival: a short run in which a worker is killed ends with the bits of one
//! that nobody disturbed.

use std::path::Path;

use serde::Serialize;

use super::preparation::remove_earlier;
use crate::commands::checkpoint::{Target, read_state};
use crate::commands::train::train_disturbed;
use crate::config::RunConfig;
use crate::error::CliError;
use crate::progress::Audience;
use crate::run_folder::Purpose;
use crate::signals::Signals;

/// Steps of each stage at most: long enough that the run goes on well behind the kill.
const STEPS: u64 = 8;
/// Committed steps before a worker is killed.
const KILL_AFTER: u64 = 2;

/// What two runs of one configuration ended with.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Survival {
    /// Steps of either run.
    pub(crate) steps: u64,
    /// Membership epochs that the disturbed run took beyond those of the other.
    pub(crate) epochs_lost: u64,
    /// BLAKE3 of the parameters of the run that nobody disturbed.
    pub(crate) undisturbed: String,
    /// The same of the run whose worker was killed.
    pub(crate) killed: String,
}

/// Runs the first steps of `config` twice under `out`, anew where the quick start is continued, and kills a
/// worker with SIGKILL the second time.
///
/// # Errors
/// A run fails, or the two end with other bits.
pub(super) async fn proven(
    config: &RunConfig,
    out: &Path,
    is_continued: bool,
    audience: Audience,
    signals: &Signals,
) -> Result<Survival, CliError> {
    eprintln!("the proof of survival: a few steps twice, and a worker killed the second time");
    let folder = out.join("proof");
    if is_continued {
        remove_earlier(&folder)?;
    }
    let short = shortened(config);
    let (undisturbed, epochs) = ended(&short, &folder.join("undisturbed"), audience, signals, None).await?;
    let (killed, epochs_then) =
        ended(&short, &folder.join("killed"), audience, signals, Some(KILL_AFTER)).await?;
    let steps = short.stages.iter().map(|stage| stage.steps).sum();
    let proof = Survival { steps, epochs_lost: epochs_then.saturating_sub(epochs), undisturbed, killed };
    proof.tell();
    if proof.undisturbed != proof.killed {
        return Err(CliError::failed(format!(
            "the run whose worker was killed ended with other parameters; both are in {}: please report this",
            folder.display()
        )));
    }
    Ok(proof)
}

impl Survival {
    /// One line for the report.
    pub(crate) fn sentence(&self) -> String {
        let (steps, digest) = (self.steps, &self.killed);
        match self.was_disturbed() {
            true => format!("parameters after {steps} steps are the same, bit for bit: {digest}"),
            false => format!("the same after {steps} steps: {digest}"),
        }
    }

    /// Whether the worker was killed before the run was over.
    fn was_disturbed(&self) -> bool {
        self.epochs_lost > 0
    }

    fn tell(&self) {
        let was_killed = match self.was_disturbed() {
            true => "a worker killed on the way",
            false => "the run was over before the worker was killed",
        };
        eprintln!(
            "after {} steps, undisturbed   {}\nafter {} steps, disturbed     {}  ({was_killed})",
            self.steps, self.undisturbed, self.steps, self.killed
        );
    }
}

/// The same run with few steps, and two workers at least: somebody must be left.
fn shortened(config: &RunConfig) -> RunConfig {
    let mut short = config.clone();
    for stage in &mut short.stages {
        stage.steps = stage.steps.min(STEPS);
        stage.optimizer.warmup_steps = stage.optimizer.warmup_steps.min(stage.steps);
    }
    short.coordinator.workers = short.coordinator.workers.max(2);
    // One card is enough for a few steps of two.
    short.launch.share_devices = true;
    short
}

/// Digest of the parameters, and membership epochs, of a run that came to its end.
async fn ended(
    config: &RunConfig,
    root: &Path,
    audience: Audience,
    signals: &Signals,
    kill_after: Option<u64>,
) -> Result<(String, u64), CliError> {
    let mut config = config.clone();
    config.run.root = root.display().to_string();
    let purpose = Purpose::QuickStart;
    let finished = train_disturbed(config, false, purpose, audience, signals, kill_after).await?;
    let target = Target::resolve(&root.display().to_string()).await?;
    let digest = read_state(&target.root, &target.record().await?).await?.digest();
    Ok((digest, finished.status.epoch))
}
