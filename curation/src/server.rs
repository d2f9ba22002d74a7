//! The gRPC server of a curation.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use blip2_proto::bounds::{MAX_IDENTIFIER, MAX_STRANGER_MESSAGE};
use blip2_proto::text::{MAX_TEXT, visible};
use blip2_proto::token::same_token;
use blip2_proto::transport::{Guarded, Transport, authenticate, how_it_ended, is_authenticated};
use blip2_proto::v1::curation_server::{Curation, CurationServer};
use blip2_proto::v1::report_request::Outcome;
use blip2_proto::v1::{
    CurationStatusReply, CurationStatusRequest, DescribeReply, DescribeRequest, LeaseReply, LeaseRequest,
    LeasedTask, RenewReply, RenewRequest, ReportReply, ReportRequest, lease_reply,
};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Extensions, Request, Response, Status};

use crate::error::{CurationError, Result};
use crate::job::CurationJob;
use crate::leases::{Leases, Offer};

/// How long a worker waits before it asks again.
const ASK_AGAIN: Duration = Duration::from_millis(300);
/// How long workers may take to hear that all is done.
const LAST_WORD: Duration = Duration::from_secs(2);
/// Longest message of a worker: the reason of a failure.
const MAX_MESSAGE: usize = 1 << 20;

/// What a curation's coordinator is started with.
#[derive(Debug)]
pub struct CurationOptions {
    /// The job, whose records say which tasks are done.
    pub job: CurationJob,
    /// The configuration's section, as TOML.
    pub config_toml: String,
    /// What workers must know.
    pub token: String,
    /// What workers must be.
    pub binary: String,
    /// How long a lease lasts unless it is renewed.
    pub lease: Duration,
    /// A task that fails so often ends the curation.
    pub most_failures: u32,
    /// How it is reached.
    pub transport: Transport,
    /// Always holds the newest state.
    pub status: watch::Sender<CurationStatusReply>,
}

/// How a curation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CurationEnd {
    /// All tasks are done.
    Done,
    /// It was told to stop.
    Stopped,
    /// A task failed too often.
    Failed {
        /// The task.
        task: u64,
        /// Why it failed the last time.
        reason: String,
    },
}

/// Hands out tasks on `listener` until all are done, one has failed too often, or `shutdown`.
///
/// # Errors
/// The store fails before the first lease, or the server cannot run.
pub async fn coordinate_curation(
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
    options: CurationOptions,
) -> Result<CurationEnd> {
    let CurationOptions { job, config_toml, token, binary, lease, most_failures, transport, status } =
        options;
    let (tasks, done) = (job.tasks().len() as u64, job.tasks_done().await?);
    let leasing = Arc::new(LeaseServer {
        started: Instant::now(),
        job,
        lease,
        leases: Mutex::new(Leases::new(tasks, done, lease, most_failures)),
        rows: Mutex::new(0),
        stopping: CancellationToken::new(),
        changed: Notify::new(),
        config_toml,
        token,
        binary,
        status,
    });
    leasing.publish();
    let stop = CancellationToken::new();
    // The server ends with this function, however it is left.
    let _stops = stop.clone().drop_guard();
    let taking =
        |largest: usize| CurationServer::from_arc(Arc::clone(&leasing)).max_decoding_message_size(largest);
    let guarded = Guarded::new(&leasing.token, taking(MAX_MESSAGE), taking(MAX_STRANGER_MESSAGE));
    let router = transport.control_server().add_service(guarded);
    let connections = transport.listen(listener);
    #[expect(clippy::disallowed_methods, reason = "joined below")]
    let mut server =
        tokio::spawn(router.serve_with_incoming_shutdown(connections, stop.clone().cancelled_owned()));
    let end = tokio::select! {
        end = leasing.end() => end,
        () = shutdown => CurationEnd::Stopped,
        ended = &mut server => return Err(CurationError::Server(how_it_ended(ended))),
    };
    // Workers that ask now hear that it is over.
    leasing.stopping.cancel();
    tokio::time::sleep(LAST_WORD.min(2 * ASK_AGAIN)).await;
    stop.cancel();
    if tokio::time::timeout(LAST_WORD, &mut server).await.is_err() {
        server.abort();
        // The task was aborted just now: its end carries no news.
        let _ = server.await;
    }
    Ok(end)
}

/// What workers ask: leases in memory, and what is done in the store.
#[derive(Debug)]
struct LeaseServer {
    started: Instant,
    job: CurationJob,
    lease: Duration,
    leases: Mutex<Leases>,
    rows: Mutex<u64>,
    stopping: CancellationToken,
    changed: Notify,
    config_toml: String,
    token: String,
    binary: String,
    status: watch::Sender<CurationStatusReply>,
}

impl LeaseServer {
    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits until there is nothing left to do.
    async fn end(&self) -> CurationEnd {
        loop {
            // Made before the look, so that no change is missed.
            let changed = self.changed.notified();
            {
                let leases = self.leases();
                if let Some((task, reason)) = leases.given_up().cloned() {
                    return CurationEnd::Failed { task, reason };
                }
                if leases.is_finished() {
                    return CurationEnd::Done;
                }
            }
            changed.await;
        }
    }

    fn publish(&self) {
        let (counts, workers) = {
            let leases = self.leases();
            (leases.counts(), leases.workers())
        };
        let rows = *self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let [tasks, done, leased] = counts;
        let workers = workers.into_iter().collect();
        self.status.send_replace(CurationStatusReply { tasks, done, leased, workers, rows });
        self.changed.notify_waiters();
    }

    /// Believes that a task is done when its record is there.
    async fn take_done(&self, lease: u64, task: u64) -> std::result::Result<(), Status> {
        let record = self.job.task_done(task).await;
        match record.map_err(|error| Status::unavailable(error.to_string()))? {
            Some(done) => {
                if self.leases().done(task) {
                    *self.rows.lock().unwrap_or_else(PoisonError::into_inner) += done.rows_read;
                }
            }
            None => {
                let reason = "it was reported as done, and has no record in the store";
                self.leases().failed(self.now(), lease, task, reason);
            }
        }
        Ok(())
    }

    fn admit(&self, token: &str, extensions: &Extensions) -> std::result::Result<(), Status> {
        if !same_token(token, &self.token) {
            return Err(Status::permission_denied("the token is not this curation's"));
        }
        authenticate(extensions);
        Ok(())
    }

    fn admit_binary(
        &self,
        token: &str,
        binary: &str,
        extensions: &Extensions,
    ) -> std::result::Result<(), Status> {
        self.admit(token, extensions)?;
        match binary == self.binary {
            true => Ok(()),
            false => Err(Status::failed_precondition(format!(
                "this worker is {}, the curation runs {}; start the same program",
                visible(binary, MAX_IDENTIFIER),
                self.binary
            ))),
        }
    }
}

#[tonic::async_trait]
impl Curation for LeaseServer {
    async fn describe(
        &self,
        request: Request<DescribeRequest>,
    ) -> std::result::Result<Response<DescribeReply>, Status> {
        let (_, extensions, DescribeRequest { token, binary }) = request.into_parts();
        self.admit_binary(&token, &binary, &extensions)?;
        Ok(Response::new(DescribeReply { config_toml: self.config_toml.clone() }))
    }

    async fn lease(
        &self,
        request: Request<LeaseRequest>,
    ) -> std::result::Result<Response<LeaseReply>, Status> {
        let (_, extensions, LeaseRequest { token, binary, worker }) = request.into_parts();
        self.admit_binary(&token, &binary, &extensions)?;
        if self.stopping.is_cancelled() {
            return Ok(Response::new(LeaseReply { kind: Some(lease_reply::Kind::Finished(true)) }));
        }
        let name = visible(&worker, MAX_IDENTIFIER);
        let offer = self.leases().lease(self.now(), &name);
        self.publish();
        let millis = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        let kind = match offer {
            Offer::Task { task, lease } => {
                lease_reply::Kind::Task(LeasedTask { task, lease, lease_ms: millis(self.lease) })
            }
            Offer::Wait => lease_reply::Kind::WaitMs(millis(ASK_AGAIN)),
            Offer::Finished => lease_reply::Kind::Finished(true),
        };
        Ok(Response::new(LeaseReply { kind: Some(kind) }))
    }

    async fn renew(
        &self,
        request: Request<RenewRequest>,
    ) -> std::result::Result<Response<RenewReply>, Status> {
        let (_, extensions, RenewRequest { token, lease, task }) = request.into_parts();
        self.admit(&token, &extensions)?;
        Ok(Response::new(RenewReply { held: self.leases().renew(self.now(), lease, task) }))
    }

    async fn report(
        &self,
        request: Request<ReportRequest>,
    ) -> std::result::Result<Response<ReportReply>, Status> {
        let (_, extensions, ReportRequest { token, lease, task, outcome }) = request.into_parts();
        self.admit(&token, &extensions)?;
        match outcome {
            Some(Outcome::DoneRows(_)) => self.take_done(lease, task).await?,
            Some(Outcome::Failed(reason)) => {
                self.leases().failed(self.now(), lease, task, &visible(&reason, MAX_TEXT));
            }
            Some(Outcome::GivenBack(_)) => self.leases().give_back(lease, task),
            None => return Err(Status::invalid_argument("a report without an outcome")),
        }
        self.publish();
        Ok(Response::new(ReportReply {}))
    }

    async fn curation_status(
        &self,
        request: Request<CurationStatusRequest>,
    ) -> std::result::Result<Response<CurationStatusReply>, Status> {
        if !is_authenticated(request.extensions()) {
            self.admit(&request.get_ref().token, request.extensions())?;
        }
        Ok(Response::new(self.status.borrow().clone()))
    }
}
