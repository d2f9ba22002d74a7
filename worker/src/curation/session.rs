//! A curation worker's life: it asks for tasks until there are none.

use std::future::Future;
use std::time::{Duration, Instant};

use blip2_collective::Transport;
use blip2_curation::job::CurationJob;
use blip2_dataset::store::Location;
use blip2_proto::v1::curation_client::CurationClient;
use blip2_proto::v1::report_request::Outcome;
use blip2_proto::v1::{DescribeRequest, LeaseRequest, LeasedTask, RenewRequest, ReportRequest, lease_reply};
use blip2_proto::{MAX_TEXT, visible, with_token};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::config::CurationConfig;
use super::tasks::TaskRunner;
use super::{CurationModels, CurationTimes};
use crate::error::{Result, WorkerError};
use crate::own_device::{DeviceChoice, OwnDevice, Work};
use crate::places::remember_credentials_of;

/// For a connection and for each answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Between two tries to reach a coordinator.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// What a curation worker is started with.
#[derive(Debug, Clone)]
pub struct CurationWorkerOptions {
    /// URL of the coordinator.
    pub coordinator: String,
    /// The curation's token.
    pub token: String,
    /// Version and BLAKE3 of this program.
    pub binary: String,
    /// For logs and status.
    pub name: String,
    /// Which device to compute on.
    pub device: DeviceChoice,
    /// How the coordinator is reached.
    pub transport: Transport,
    /// A coordinator that cannot be reached for so long is gone.
    pub patience: Duration,
}

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
    let mut desk = Desk::reach(&options).await?;
    let description = DescribeRequest { token: options.token.clone(), binary: options.binary.clone() };
    let described = desk.call(|mut client| {
        let description = with_token(description.clone(), &description.token);
        async move { client.describe(description).await }
    });
    let mut config: CurationConfig = toml::from_str(&described.await?.config_toml)
        .map_err(|error| WorkerError::Configuration(format!("the coordinator's configuration: {error}")))?;
    let device = options.device.decide("curation.models.device", &config.models.device)?;
    config.models.device = device.to_string();
    let own = OwnDevice::default();
    own.chosen(device);
    remember_credentials_of(&config);
    let job = CurationJob::open(&Location::parse(&config.output)?).await?;
    let (models, mode) = (config.models.with_models_here().await?, config.selection.mode);
    let opened = tokio::task::spawn_blocking(move || CurationModels::open(&models, mode)).await;
    let models = opened
        .map_err(|error| own.panicked(error.to_string(), Work::Curation))?
        .map_err(|error| own.blamed(error, Work::Curation))?;
    let mut runner = TaskRunner::new(job, models);
    let mut worked = CurationWorked::default();
    loop {
        if stop.is_cancelled() {
            worked.left = true;
            break;
        }
        let request = LeaseRequest {
            token: options.token.clone(),
            binary: options.binary.clone(),
            worker: options.name.clone(),
        };
        let reply = desk.call(|mut client| {
            let request = with_token(request.clone(), &request.token);
            async move { client.lease(request).await }
        });
        match reply.await?.kind {
            Some(lease_reply::Kind::Task(leased)) => {
                do_task(&mut desk, &options.token, &mut runner, leased).await?;
                worked.tasks += 1;
            }
            Some(lease_reply::Kind::WaitMs(millis)) => {
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(u64::from(millis))) => {}
                    () = stop.cancelled() => {}
                }
            }
            Some(lease_reply::Kind::Finished(_)) | None => break,
        }
    }
    worked.times = runner.times();
    Ok(worked)
}

/// Does a task and says how it ended. A task that fails is the coordinator's to give again.
async fn do_task(desk: &mut Desk, token: &str, runner: &mut TaskRunner, leased: LeasedTask) -> Result<()> {
    let renewing = AbortOnDrop(tokio::spawn(renew(desk.client.clone(), token.to_owned(), leased)));
    let (outcome, end) = match runner.run(leased.task).await {
        Ok(done) => (Outcome::DoneRows(done.rows_read), Ok(())),
        Err(error) => {
            tracing::warn!(task = leased.task, %error, "a task failed");
            let outcome = Outcome::Failed(visible(&error.to_string(), MAX_TEXT));
            // Models that panicked are gone; after anything else the next task may do better.
            let is_over = matches!(error, WorkerError::Panicked(_) | WorkerError::Device { .. });
            (outcome, if is_over { Err(error) } else { Ok(()) })
        }
    };
    drop(renewing);
    let report = ReportRequest {
        token: token.to_owned(),
        lease: leased.lease,
        task: leased.task,
        outcome: Some(outcome),
    };
    let reported = desk.call(|mut client| {
        let report = with_token(report.clone(), &report.token);
        async move { client.report(report).await }
    });
    reported.await?;
    end
}

/// Keeps a lease. One that has ended is worked on all the same: whoever is first in the store was not in vain.
async fn renew(mut client: CurationClient<Channel>, token: String, leased: LeasedTask) {
    let every = Duration::from_millis(u64::from(leased.lease_ms / 3).max(100));
    loop {
        tokio::time::sleep(every).await;
        let request = RenewRequest { token: token.clone(), lease: leased.lease, task: leased.task };
        let renewing = client.renew(with_token(request, &token));
        match tokio::time::timeout(ANSWER_WITHIN, renewing).await {
            Ok(Ok(reply)) if !reply.get_ref().held => {
                tracing::warn!(task = leased.task, "the lease of this task has ended");
                return;
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a lease was not renewed"),
            Err(_) => tracing::debug!("a lease was not renewed in time"),
        }
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The coordinator, as long as it can be reached.
struct Desk {
    client: CurationClient<Channel>,
    address: String,
    patience: Duration,
}

impl Desk {
    async fn reach(options: &CurationWorkerOptions) -> Result<Self> {
        let began = Instant::now();
        loop {
            match options.transport.connect(&options.coordinator, ANSWER_WITHIN).await {
                Ok(channel) => {
                    let client = CurationClient::new(channel);
                    let address = options.coordinator.clone();
                    return Ok(Self { client, address, patience: options.patience });
                }
                Err(reason) if began.elapsed() >= options.patience => {
                    return Err(WorkerError::Coordinator { address: options.coordinator.clone(), reason });
                }
                Err(_) => tokio::time::sleep(TRY_AGAIN).await,
            }
        }
    }

    /// Calls, again while the coordinator cannot be reached.
    async fn call<T, F: Future<Output = std::result::Result<Response<T>, Status>>>(
        &mut self,
        request: impl Fn(CurationClient<Channel>) -> F,
    ) -> Result<T> {
        let began = Instant::now();
        loop {
            let answer = tokio::time::timeout(ANSWER_WITHIN, request(self.client.clone())).await;
            let status = match answer {
                Ok(Ok(reply)) => return Ok(reply.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(format!("no answer within {ANSWER_WITHIN:?}")),
            };
            let reason = visible(status.message(), MAX_TEXT);
            match status.code() {
                Code::PermissionDenied | Code::FailedPrecondition => {
                    return Err(WorkerError::Refused { reason });
                }
                Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled
                    if began.elapsed() < self.patience =>
                {
                    tokio::time::sleep(TRY_AGAIN).await;
                }
                _ => return Err(WorkerError::Coordinator { address: self.address.clone(), reason }),
            }
        }
    }
}
