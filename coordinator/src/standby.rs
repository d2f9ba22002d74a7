//! A coordinator that stands by: it refuses workers, watches the one that leads, and says when to take over.

mod stranded;

pub use stranded::Stranded;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use blip2_proto::text::{MAX_TEXT, visible};
use blip2_proto::token::{same_token, with_token};
use blip2_proto::transport::{Connection, Transport, how_it_ended};
use blip2_proto::v1::coordinator_client::CoordinatorClient;
use blip2_proto::v1::coordinator_message::Kind as ToWorker;
use blip2_proto::v1::coordinator_server::Coordinator;
use blip2_proto::v1::worker_message::Kind as FromWorker;
use blip2_proto::v1::{
    CoordinatorMessage, RefusalCode, Refused, StatusReply, StatusRequest, StopReply, StopRequest,
    WorkerMessage,
};
use blip2_run::epoch::{EpochRecord, Epochs};
use blip2_store::Location;
use futures::Stream;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::introduction::{HELLO_DEADLINE, WRONG_TOKEN};
use crate::server::{SessionLimits, check_run, check_token, end_server, serve};
use crate::{CoordinatorError, CoordinatorSettings, Result};

/// Time between two questions to the coordinator that leads.
const PROBE_EVERY: Duration = Duration::from_millis(500);
/// How long it may take to answer.
const PROBE_DEADLINE: Duration = Duration::from_secs(1);
/// For the answer of one whose run is about to be taken away, on a machine that may be busy.
const LED_DEADLINE: Duration = Duration::from_secs(10);
/// Time between two looks at the newest epoch while the leader answers.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long the store may take to show it.
const LOOK_DEADLINE: Duration = Duration::from_secs(10);
/// When a refused worker may ask again.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// The state that the status of such a coordinator shows.
const STANDBY: &str = "standby";
/// The state of a leader that waits for workers.
const WAITING: &str = "waiting";

/// What a coordinator that stands by is started with.
#[derive(Debug)]
pub struct StandByOptions {
    /// Name of the run.
    pub run_id: String,
    /// The run's folder.
    pub run_root: Location,
    /// How long the leader may be silent.
    pub settings: CoordinatorSettings,
    /// URL under which workers and other coordinators reach this one.
    pub advertise: String,
    /// How it is reached, and reaches the leader.
    pub transport: Transport,
    /// The run's token.
    pub token: String,
    /// Always holds what the status page shows.
    pub status: watch::Sender<StatusReply>,
}

/// How standing by ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StandByEnd {
    /// The leader of this epoch is silent, reaches no worker, or was asked to go: it is time to take over
    /// from it.
    Lead {
        /// For [`CoordinatorOptions::after`](crate::CoordinatorOptions::after).
        after: u64,
    },
    /// The run has ended: done, interrupted or failed.
    Over {
        /// Which of them.
        how: String,
    },
    /// It was asked to go, and the run has not ended.
    Stopped,
}

/// Stands by until the coordinator that leads is silent for `takeover_after_s`, has had no worker for so long
/// though workers of the run keep coming here, or was asked to go; until the run has ended, or `shutdown`
/// comes.
///
/// A run that nobody has begun to lead is not taken over. `listener` is not used up: [`run`](crate::run)
/// serves on it next. Of several that stand by each may be told to lead; the epoch object decides.
///
/// # Errors
/// The settings do not fit, or the server cannot run. A store that fails is asked again: it proves nothing
/// about the leader.
pub async fn stand_by(
    listener: &std::net::TcpListener,
    shutdown: impl Future<Output = ()>,
    options: StandByOptions,
) -> Result<StandByEnd> {
    let listening = listener.try_clone().and_then(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    let listening = listening.map_err(|error| CoordinatorError::Server(error.to_string()))?;
    let (leader, known_leader) = watch::channel(String::new());
    let (came, coming) = watch::channel(());
    let service = Service {
        token: options.token.as_str().into(),
        run_id: options.run_id.clone(),
        came,
        leader: known_leader,
        limits: SessionLimits::default(),
        status: options.status.subscribe(),
    };
    let stop = CancellationToken::new();
    // The server ends with this function, however it is left.
    let _stops = stop.clone().drop_guard();
    let mut server = serve(listening, &options.transport, &options.token, service, stop.clone());
    let mut watcher = Watcher::new(options, leader, coming);
    let end = tokio::select! {
        end = watcher.watch() => Ok(Some(end)),
        () = shutdown => Ok(None),
        ended = &mut server => Err(CoordinatorError::Server(how_it_ended(ended))),
    };
    let end = match end? {
        Some(end) => end,
        None => watcher.leave().await,
    };
    end_server(&mut server, &stop).await;
    Ok(end)
}

/// Whether a coordinator answers at `address` that leads `run_id`, or one that does not say which run it
/// leads.
pub async fn is_led(address: &str, run_id: &str, transport: &Transport) -> bool {
    let asked = async {
        let channel = transport.connect(address, LED_DEADLINE).await.ok()?;
        Some(CoordinatorClient::new(channel).status(StatusRequest::default()).await)
    };
    match tokio::time::timeout(LED_DEADLINE, asked).await {
        Ok(Some(Ok(reply))) => {
            let StatusReply { run_id: theirs, state, .. } = reply.into_inner();
            theirs == run_id && matches!(state.as_str(), "waiting" | "running" | "saving")
        }
        // It answers, and its token is not known here.
        Ok(Some(Err(status))) => {
            matches!(status.code(), tonic::Code::Unauthenticated | tonic::Code::PermissionDenied)
        }
        Ok(None) | Err(_) => false,
    }
}

/// Watches the leader.
#[derive(Debug)]
struct Watcher {
    options: StandByOptions,
    epochs: Epochs,
    leader: watch::Sender<String>,
    newest: Option<EpochRecord>,
    looked: Option<Instant>,
    /// The connection to an address that answered.
    channel: Option<(String, Channel)>,
    /// When the leader last gave a sign of life.
    heard: Instant,
    /// Told of every worker of the run that came here.
    coming: watch::Receiver<()>,
    began: Instant,
    stranded: Stranded,
}

impl Watcher {
    fn new(options: StandByOptions, leader: watch::Sender<String>, coming: watch::Receiver<()>) -> Self {
        // It only reads epochs, so it needs no name among them.
        let epochs = Epochs::new(&options.run_root, String::new(), String::new());
        Self {
            options,
            epochs,
            leader,
            newest: None,
            looked: None,
            channel: None,
            heard: Instant::now(),
            coming,
            began: Instant::now(),
            stranded: Stranded::default(),
        }
    }

    async fn watch(&mut self) -> StandByEnd {
        let mut ticks = tokio::time::interval(PROBE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look().await;
            self.show();
            let Some(newest) = self.newest.clone() else {
                self.heard = Instant::now();
                continue;
            };
            if let Some(how) = newest.end {
                return StandByEnd::Over { how };
            }
            if let Some(status) = self.probe(&newest.address).await {
                self.heard = Instant::now();
                if status.hands_over {
                    // It may have taken further epochs since the last look.
                    self.read_newest().await;
                    let after = self.newest.as_ref().map_or(newest.epoch, |record| record.epoch);
                    tracing::info!(epoch = after, address = newest.address, "the leader hands over");
                    return StandByEnd::Lead { after };
                }
                if self.is_stranded(&status) {
                    tracing::warn!(
                        epoch = newest.epoch,
                        address = newest.address,
                        "the leader reaches no worker"
                    );
                    return StandByEnd::Lead { after: newest.epoch };
                }
            } else if self.is_silent() {
                // What is known of the epochs may be older than the silence.
                self.read_newest().await;
                if !self.is_silent() {
                    continue;
                }
                tracing::warn!(epoch = newest.epoch, address = newest.address, "the leader is silent");
                return StandByEnd::Lead { after: newest.epoch };
            }
        }
    }

    /// It was asked to go: tells the leader, which then counts on it no more, and looks whether the run is
    /// over by now.
    async fn leave(&mut self) -> StandByEnd {
        if let Some(address) = self.newest.as_ref().map(|newest| newest.address.clone()) {
            // A leader that does not answer counts on nobody before long.
            let _ = tokio::time::timeout(PROBE_DEADLINE, self.ask(&address, true)).await;
        }
        self.read_newest().await;
        match self.newest.take().and_then(|newest| newest.end) {
            Some(how) => StandByEnd::Over { how },
            None => StandByEnd::Stopped,
        }
    }

    /// Reads the newest epoch's record, often while the leader is silent.
    async fn look(&mut self) {
        let is_fresh = self.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY);
        if is_fresh && self.heard.elapsed() < PROBE_EVERY + PROBE_DEADLINE {
            return;
        }
        self.read_newest().await;
    }

    fn is_silent(&self) -> bool {
        self.heard.elapsed() >= self.options.settings.takeover_after()
    }

    async fn read_newest(&mut self) {
        self.looked = Some(Instant::now());
        match tokio::time::timeout(LOOK_DEADLINE, self.epochs.newest_record()).await {
            Ok(Ok(found)) => {
                let number = |record: &Option<EpochRecord>| record.as_ref().map_or(0, |record| record.epoch);
                if number(&found) != number(&self.newest) {
                    // Whoever took an epoch lives.
                    self.heard = Instant::now();
                }
                self.newest = found;
            }
            Ok(Err(error)) => tracing::warn!(%error, "the newest epoch cannot be read"),
            Err(_) => tracing::warn!("the store does not show the newest epoch in time"),
        }
    }

    fn show(&self) {
        let (epoch, step, leader) = match &self.newest {
            Some(record) => (record.epoch, record.step, record.address.clone()),
            None => (0, 0, String::new()),
        };
        self.leader.send_replace(leader);
        self.options.status.send_replace(StatusReply {
            run_id: self.options.run_id.clone(),
            state: STANDBY.into(),
            epoch,
            step,
            ..StatusReply::default()
        });
    }

    /// Whether the leader, which has answered with this status, has lost all workers to here.
    fn is_stranded(&mut self, status: &StatusReply) -> bool {
        let now = self.began.elapsed();
        self.stranded.leader_has(now, status.state == WAITING, status.members.len());
        // A watched value that was changed means that somebody came since the last look.
        if self.coming.has_changed().unwrap_or(false) {
            self.coming.mark_unchanged();
            self.stranded.worker_came(now);
        }
        self.stranded.is_certain(now, self.options.settings.takeover_after())
    }

    /// What a coordinator that does not stand by itself answers at the address.
    async fn probe(&mut self, address: &str) -> Option<StatusReply> {
        match tokio::time::timeout(PROBE_DEADLINE, self.ask(address, false)).await {
            Ok(Ok(reply)) => {
                Some(reply).filter(|reply| reply.run_id == self.options.run_id && reply.state != STANDBY)
            }
            Ok(Err(error)) => {
                tracing::debug!(address, error, "the leader does not answer");
                self.channel = None;
                None
            }
            Err(_) => {
                self.channel = None;
                None
            }
        }
    }

    async fn ask(&mut self, address: &str, withdraws: bool) -> std::result::Result<StatusReply, String> {
        let channel = match self.channel.take().filter(|(known, _)| known == address) {
            Some((_, channel)) => channel,
            None => self.options.transport.connect(address, PROBE_DEADLINE).await?,
        };
        self.channel = Some((address.to_owned(), channel.clone()));
        let StandByOptions { token, advertise, .. } = &self.options;
        let request = StatusRequest { token: token.clone(), standby: advertise.clone(), withdraws };
        let request = with_token(request, token);
        let reply = CoordinatorClient::new(channel).status(request).await;
        Ok(reply.map_err(|status| visible(status.message(), MAX_TEXT))?.into_inner())
    }
}

/// Shows the status and refuses workers.
#[derive(Debug)]
struct Service {
    token: Arc<str>,
    run_id: String,
    /// Told of every worker of the run.
    came: watch::Sender<()>,
    leader: watch::Receiver<String>,
    limits: SessionLimits,
    status: watch::Receiver<StatusReply>,
}

#[tonic::async_trait]
impl Coordinator for Service {
    type SessionStream = Pin<Box<dyn Stream<Item = std::result::Result<CoordinatorMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<WorkerMessage>>,
    ) -> std::result::Result<Response<Self::SessionStream>, Status> {
        let permit = self.limits.admit(&request)?;
        let (token, leader) = (self.token.clone(), self.leader.clone());
        let (run_id, came) = (self.run_id.clone(), self.came.clone());
        let connection = request.extensions().get::<Connection>().cloned();
        let refusal = async move {
            let (refused, its_run) = refuse(request.into_inner(), connection, &token, &leader).await?;
            if its_run == run_id {
                came.send_replace(());
            }
            drop(permit);
            Ok(CoordinatorMessage { kind: Some(ToWorker::Refused(refused)) })
        };
        Ok(Response::new(Box::pin(futures::stream::once(refusal))))
    }

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> std::result::Result<Response<StatusReply>, Status> {
        check_token(&request, &request.get_ref().token, &self.token)?;
        Ok(Response::new(self.status.borrow().clone()))
    }

    async fn stop(&self, request: Request<StopRequest>) -> std::result::Result<Response<StopReply>, Status> {
        check_token(&request, &request.get_ref().token, &self.token)?;
        check_run(request.get_ref(), &self.run_id)?;
        let leader = self.leader.borrow().clone();
        if leader.is_empty() {
            return Err(Status::unavailable("this coordinator stands by, and nobody leads the run yet"));
        }
        Ok(Response::new(StopReply { leader }))
    }
}

/// Hears who comes, and sends it to the leader; only one with the token is told where that is. Returns the
/// run that it says it is part of, too, if it has the token.
async fn refuse(
    mut incoming: Streaming<WorkerMessage>,
    connection: Option<Connection>,
    token: &str,
    leader: &watch::Receiver<String>,
) -> std::result::Result<(Refused, String), Status> {
    let first = tokio::time::timeout(HELLO_DEADLINE, incoming.message()).await;
    let hello = match first.map_err(|_| Status::deadline_exceeded("no introduction came"))?? {
        Some(WorkerMessage { kind: Some(FromWorker::Hello(hello)) }) => hello,
        _ => return Err(Status::invalid_argument("the first message must be the introduction")),
    };
    if !same_token(&hello.token, token) {
        let reason = WRONG_TOKEN.into();
        let refused = Refused { code: RefusalCode::RefusalToken.into(), reason, ..Refused::default() };
        return Ok((refused, String::new()));
    }
    if let Some(connection) = connection {
        connection.authenticate();
    }
    let refused = Refused {
        code: RefusalCode::RefusalStandby.into(),
        reason: "this coordinator stands by".into(),
        retry_after_ms: ASK_AGAIN.as_millis() as u32,
        leader: leader.borrow().clone(),
    };
    Ok((refused, hello.run_id))
}
