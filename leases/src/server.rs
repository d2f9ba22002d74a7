//! The gRPC server that hands out leases.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use blip2_proto::bounds::{MAX_IDENTIFIER, MAX_STRANGER_MESSAGE};
use blip2_proto::text::{MAX_TEXT, visible};
use blip2_proto::token::same_token;
use blip2_proto::transport::{Guarded, Transport, authenticate, how_it_ended, is_authenticated};
use blip2_proto::v1::leases_server::{Leases as LeasesService, LeasesServer};
use blip2_proto::v1::report_request::Outcome;
use blip2_proto::v1::{
    DescribeReply, DescribeRequest, LeaseReply, LeaseRequest, LeaseStatusReply, LeaseStatusRequest,
    LeasedTask, RenewReply, RenewRequest, ReportReply, ReportRequest, lease_reply,
};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Extensions, Request, Response, Status};

use crate::error::{LeaseError, Result};
use crate::tasks::{Leases, Offer};

/// How long a worker waits before it asks again.
const ASK_AGAIN: Duration = Duration::from_millis(300);
/// How long workers may take to hear that all is done.
const LAST_WORD: Duration = Duration::from_secs(2);
/// Longest message of a worker: the reason of a failure.
const MAX_MESSAGE: usize = 1 << 20;

/// Work in numbered tasks, whose records lie in a store.
#[tonic::async_trait]
pub trait LeasedWork: Send + Sync + 'static {
    /// The rows that a task's record in the store speaks of; `None` where there is no record.
    ///
    /// # Errors
    /// In words, a store that does not answer.
    async fn rows_done(&self, task: u64) -> std::result::Result<Option<u64>, String>;
}

/// Who is let in, how, and where the state is kept.
#[derive(Debug)]
pub struct Admission {
    /// What workers must know.
    pub token: String,
    /// What workers must be.
    pub binary: String,
    /// How it is reached.
    pub transport: Transport,
    /// Always holds the newest state.
    pub status: watch::Sender<LeaseStatusReply>,
}

/// What a coordinator is started with.
#[derive(Debug)]
pub struct LeaseOptions {
    /// What the work is called: `curation`.
    pub called: &'static str,
    /// What is done and how, as workers are told.
    pub work: String,
    /// Tasks.
    pub tasks: u64,
    /// Those that are done already.
    pub done: BTreeSet<u64>,
    /// First tasks of what needs all before it ([`Leases::with_barriers`]).
    pub barriers: Vec<u64>,
    /// How long a lease lasts unless it is renewed.
    pub lease: Duration,
    /// A task that fails so often ends the work.
    pub most_failures: u32,
    /// Its workers.
    pub admission: Admission,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseEnd {
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
/// The server cannot run.
pub async fn hand_out(
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
    records: impl LeasedWork,
    options: LeaseOptions,
) -> Result<LeaseEnd> {
    let LeaseOptions { called, work, tasks, done, barriers, lease, most_failures, admission } = options;
    let Admission { token, binary, transport, status } = admission;
    let leases = Leases::new(tasks, done, lease, most_failures).with_barriers(barriers);
    let leasing = Arc::new(LeaseServer {
        started: Instant::now(),
        records,
        lease,
        leases: Mutex::new(leases),
        rows: Mutex::new(0),
        over: OnceLock::new(),
        changed: Notify::new(),
        called,
        work,
        token,
        binary,
        status,
    });
    leasing.publish();
    let stop = CancellationToken::new();
    // The server ends with this function, however it is left.
    let _stops = stop.clone().drop_guard();
    let taking =
        |largest: usize| LeasesServer::from_arc(Arc::clone(&leasing)).max_decoding_message_size(largest);
    let guarded = Guarded::new(&leasing.token, taking(MAX_MESSAGE), taking(MAX_STRANGER_MESSAGE));
    let router = transport.control_server().add_service(guarded);
    let connections = transport.listen(listener);
    #[expect(clippy::disallowed_methods, reason = "joined below")]
    let mut server =
        tokio::spawn(router.serve_with_incoming_shutdown(connections, stop.clone().cancelled_owned()));
    let end = tokio::select! {
        end = leasing.end() => end,
        () = shutdown => LeaseEnd::Stopped,
        ended = &mut server => return Err(LeaseError::Server(how_it_ended(ended))),
    };
    // Workers that ask now hear that it is over.
    leasing.over.get_or_init(|| end.clone());
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
struct LeaseServer<W> {
    started: Instant,
    records: W,
    lease: Duration,
    leases: Mutex<Leases>,
    rows: Mutex<u64>,
    /// How it ended, once it has.
    over: OnceLock<LeaseEnd>,
    changed: Notify,
    called: &'static str,
    work: String,
    token: String,
    binary: String,
    status: watch::Sender<LeaseStatusReply>,
}

impl<W: LeasedWork> LeaseServer<W> {
    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits until there is nothing left to do.
    async fn end(&self) -> LeaseEnd {
        loop {
            // Made before the look, so that no change is missed.
            let changed = self.changed.notified();
            {
                let leases = self.leases();
                if let Some((task, reason)) = leases.given_up().cloned() {
                    return LeaseEnd::Failed { task, reason };
                }
                if leases.is_finished() {
                    return LeaseEnd::Done;
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
        self.status.send_replace(LeaseStatusReply { tasks, done, leased, workers, rows });
        self.changed.notify_waiters();
    }

    /// Believes that a task is done when its record is there.
    async fn take_done(&self, lease: u64, task: u64) -> std::result::Result<(), Status> {
        match self.records.rows_done(task).await.map_err(Status::unavailable)? {
            Some(rows) => {
                if self.leases().done(task) {
                    *self.rows.lock().unwrap_or_else(PoisonError::into_inner) += rows;
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
            return Err(Status::permission_denied(format!("the token is not this {}'s", self.called)));
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
                "this worker is {}, the {} runs {}; start the same program",
                visible(binary, MAX_IDENTIFIER),
                self.called,
                self.binary
            ))),
        }
    }
}

#[tonic::async_trait]
impl<W: LeasedWork> LeasesService for LeaseServer<W> {
    async fn describe(
        &self,
        request: Request<DescribeRequest>,
    ) -> std::result::Result<Response<DescribeReply>, Status> {
        let (_, extensions, DescribeRequest { token, binary }) = request.into_parts();
        self.admit_binary(&token, &binary, &extensions)?;
        Ok(Response::new(DescribeReply { work: self.work.clone() }))
    }

    async fn lease(
        &self,
        request: Request<LeaseRequest>,
    ) -> std::result::Result<Response<LeaseReply>, Status> {
        let (_, extensions, LeaseRequest { token, binary, worker }) = request.into_parts();
        self.admit_binary(&token, &binary, &extensions)?;
        if let Some(end) = self.over.get() {
            let finished = lease_reply::Kind::Finished(*end != LeaseEnd::Stopped);
            return Ok(Response::new(LeaseReply { kind: Some(finished) }));
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

    async fn lease_status(
        &self,
        request: Request<LeaseStatusRequest>,
    ) -> std::result::Result<Response<LeaseStatusReply>, Status> {
        if !is_authenticated(request.extensions()) {
            self.admit(&request.get_ref().token, request.extensions())?;
        }
        Ok(Response::new(self.status.borrow().clone()))
    }
}
