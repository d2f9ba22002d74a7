//! A curation worker's life: it asks for tasks until there are none.

mod options;

use std::time::Duration;

use blip2_evaluation::fault::Fault as _;
use blip2_leases::client::LeaseClient;
use blip2_proto::text::{MAX_TEXT, visible};
use blip2_proto::v1::report_request::Outcome;
use blip2_proto::v1::{LeasedTask, lease_reply};
use blip2_store::Location;
use blip2_store::secret_url::remember_credentials_of;
use tokio_util::sync::CancellationToken;

use crate::config::CurationConfig;
use crate::error::{CURATE_LESS, CurationError, Result};
use crate::job::CurationJob;
use crate::models;
use crate::scoring::{CurationModels, CurationTimes};
use crate::select::CurationMode;
use crate::settings::CurationModelSettings;
use crate::task_runner::TaskRunner;
pub use options::CurationWorkerOptions;

/// What a worker has done.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CurationWorked {
    /// Tasks.
    pub tasks: u64,
    /// Where the time went.
    pub times: CurationTimes,
    /// Whether it was told to leave.
    pub left: bool,
}

/// Does tasks until all are done, or `stop` is cancelled, which ends it after the task in hand.
///
/// # Errors
/// The coordinator refuses this worker or goes away; the models do not open.
pub async fn run_curation_worker(
    options: CurationWorkerOptions,
    stop: &CancellationToken,
) -> Result<CurationWorked> {
    work(options, stop, models::open).await
}

/// A worker's life with the models that `open` gives.
pub(crate) async fn work(
    options: CurationWorkerOptions,
    stop: &CancellationToken,
    open: impl FnOnce(&CurationModelSettings, CurationMode) -> Result<CurationModels> + Send + 'static,
) -> Result<CurationWorked> {
    let coordinator = LeaseClient::connect(&options.leases).await?;
    let mut config: CurationConfig = toml::from_str(&coordinator.describe().await?.work)
        .map_err(|error| CurationError::Configuration(format!("the coordinator's configuration: {error}")))?;
    let device = options.device.decide("curation.models.device", &config.models.device);
    let device = device.map_err(|error| CurationError::Configuration(error.to_string()))?;
    config.models.device = device.to_string();
    remember_credentials_of(&config);
    let job = CurationJob::open(&Location::parse(&config.output)?).await?;
    let (settings, mode) = (config.models.with_models_here().await?, config.selection.mode);
    let models = tokio::task::spawn_blocking(move || open(&settings, mode))
        .await
        .map_err(|error| CurationError::panicked(error.to_string(), &device, CURATE_LESS))?
        .map_err(|error| error.blamed_on(&device, CURATE_LESS))?;
    let mut runner = TaskRunner::new(job, models);
    let mut worked = CurationWorked::default();
    loop {
        if stop.is_cancelled() {
            worked.left = true;
            break;
        }
        match coordinator.lease().await? {
            Some(lease_reply::Kind::Task(leased)) => {
                do_task(&coordinator, &mut runner, leased).await?;
                worked.tasks += 1;
            }
            Some(lease_reply::Kind::WaitMs(millis)) => {
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(u64::from(millis))) => {}
                    () = stop.cancelled() => {}
                }
            }
            Some(lease_reply::Kind::Finished(true)) => break,
            // The coordinator was asked to go.
            Some(lease_reply::Kind::Finished(false)) | None => {
                worked.left = true;
                break;
            }
        }
    }
    worked.times = runner.times();
    Ok(worked)
}

/// Does a task and says how it ended. A task that fails is the coordinator's to give again.
async fn do_task(coordinator: &LeaseClient, runner: &mut TaskRunner, leased: LeasedTask) -> Result<()> {
    let renewing = coordinator.renewing(leased);
    let (outcome, end) = match runner.run(leased.task).await {
        Ok(done) => (Outcome::DoneRows(done.rows_read), Ok(())),
        Err(error) => {
            tracing::warn!(task = leased.task, %error, "a task failed");
            let outcome = Outcome::Failed(visible(&error.to_string(), MAX_TEXT));
            // Models that panicked are gone; after anything else the next task may do better.
            let is_over = matches!(error, CurationError::Panicked(_) | CurationError::Device(_));
            (outcome, if is_over { Err(error) } else { Ok(()) })
        }
    };
    drop(renewing);
    coordinator.report(leased, outcome).await?;
    end
}
