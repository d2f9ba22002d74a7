//! The coordinator as its workers see it: asked again as long as it may come back.

use std::time::{Duration, Instant};

use blip2_proto::text::{MAX_TEXT, visible};
use blip2_proto::token::with_token;
use blip2_proto::transport::Transport;
use blip2_proto::v1::leases_client::LeasesClient;
use blip2_proto::v1::{
    DescribeReply, DescribeRequest, LeaseRequest, LeasedTask, RenewRequest, ReportRequest, lease_reply,
    report_request,
};
use blip2_telemetry::Telemetry;
use blip2_telemetry::metric::{TASK_ROWS_TOTAL, TASKS_TOTAL};
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::error::{LeaseError, Result};

/// For a connection and for each answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Between two tries to reach a coordinator.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// What a client is started with.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// URL of the coordinator.
    pub coordinator: String,
    /// The coordinator's token.
    pub token: String,
    /// Version and BLAKE3 of this program.
    pub binary: String,
    /// For logs and status.
    pub name: String,
    /// How the coordinator is reached.
    pub transport: Transport,
    /// A coordinator that cannot be reached for so long is gone.
    pub patience: Duration,
    /// Where it records what it does.
    pub telemetry: Telemetry,
}

/// The coordinator, as long as it can be reached.
pub struct LeaseClient {
    client: LeasesClient<Channel>,
    options: ClientOptions,
}

impl LeaseClient {
    /// Connects, however often that takes.
    ///
    /// # Errors
    /// [`LeaseError::Coordinator`] after the client's patience.
    pub async fn connect(options: &ClientOptions) -> Result<Self> {
        let began = Instant::now();
        options.telemetry.not_ready("no coordinator answers yet");
        loop {
            match options.transport.connect(&options.coordinator, ANSWER_WITHIN).await {
                Ok(channel) => {
                    options.telemetry.not_ready("the models are being loaded");
                    return Ok(Self { client: LeasesClient::new(channel), options: options.clone() });
                }
                Err(reason) if began.elapsed() >= options.patience => {
                    return Err(LeaseError::Coordinator { address: options.coordinator.clone(), reason });
                }
                Err(_) => tokio::time::sleep(TRY_AGAIN).await,
            }
        }
    }

    /// What is done.
    ///
    /// # Errors
    /// The coordinator refuses this worker or is gone.
    pub async fn describe(&self) -> Result<DescribeReply> {
        let request =
            DescribeRequest { token: self.options.token.clone(), binary: self.options.binary.clone() };
        self.call(|mut client| {
            let request = with_token(request.clone(), &request.token);
            async move { client.describe(request).await }
        })
        .await
    }

    /// Asks for a task.
    ///
    /// # Errors
    /// The coordinator refuses this worker or is gone.
    pub async fn lease(&self) -> Result<Option<lease_reply::Kind>> {
        let request = LeaseRequest {
            token: self.options.token.clone(),
            binary: self.options.binary.clone(),
            worker: self.options.name.clone(),
        };
        let reply = self.call(|mut client| {
            let request = with_token(request.clone(), &request.token);
            async move { client.lease(request).await }
        });
        let kind = reply.await?.kind;
        // Whoever asks for a task has what it does tasks with.
        self.options.telemetry.ready();
        Ok(kind)
    }

    /// Says how a task ended.
    ///
    /// # Errors
    /// The coordinator refuses this worker or is gone.
    pub async fn report(&self, leased: LeasedTask, outcome: report_request::Outcome) -> Result<()> {
        self.record(&outcome);
        let report = ReportRequest {
            token: self.options.token.clone(),
            lease: leased.lease,
            task: leased.task,
            outcome: Some(outcome),
        };
        let reported = self.call(|mut client| {
            let report = with_token(report.clone(), &report.token);
            async move { client.report(report).await }
        });
        reported.await.map(drop)
    }

    fn record(&self, outcome: &report_request::Outcome) {
        let telemetry = &self.options.telemetry;
        match outcome {
            report_request::Outcome::DoneRows(rows) => {
                telemetry.add(&TASKS_TOTAL, &["done"], 1.0);
                telemetry.add(&TASK_ROWS_TOTAL, &[], *rows as f64);
            }
            report_request::Outcome::Failed(_) => telemetry.add(&TASKS_TOTAL, &["failed"], 1.0),
            report_request::Outcome::GivenBack(_) => {}
        }
    }

    /// Keeps a lease until that is dropped. One that has ended is worked on all the same: whoever is first in
    /// the store was not in vain.
    pub fn renewing(&self, leased: LeasedTask) -> JoinSet<()> {
        let mut renewing = JoinSet::new();
        renewing.spawn(renew(self.client.clone(), self.options.token.clone(), leased));
        renewing
    }

    /// Calls, again while the coordinator cannot be reached.
    async fn call<T, F: Future<Output = std::result::Result<Response<T>, Status>>>(
        &self,
        request: impl Fn(LeasesClient<Channel>) -> F,
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
                    return Err(LeaseError::Refused { reason });
                }
                Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled
                    if began.elapsed() < self.options.patience =>
                {
                    tokio::time::sleep(TRY_AGAIN).await;
                }
                _ => {
                    let address = self.options.coordinator.clone();
                    return Err(LeaseError::Coordinator { address, reason });
                }
            }
        }
    }
}

async fn renew(mut client: LeasesClient<Channel>, token: String, leased: LeasedTask) {
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
