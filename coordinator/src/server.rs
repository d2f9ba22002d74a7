//! The gRPC server of a run.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use blip2_dataset::quarantine::QuarantineList;
use blip2_proto::bounds::{MAX_CONTROL_MESSAGE, MAX_STRANGER_MESSAGE, is_identifier};
use blip2_proto::drill::Drill;
use blip2_proto::token::same_token;
use blip2_proto::transport::{Connection, Guarded, Transport, authenticate, how_it_ended, is_authenticated};
use blip2_proto::v1::coordinator_server::{Coordinator, CoordinatorServer};
use blip2_proto::v1::{
    CommittedStep, CoordinatorMessage, StatusReply, StatusRequest, StopReply, StopRequest, WorkerMessage,
};
use blip2_run::quarantine;
use futures::Stream;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::actor::{Actor, Opened};
use crate::introduction::WRONG_TOKEN;
use crate::{
    CheckpointSettings, CoordinatorError, CoordinatorSettings, Event, Figures, Keeping, Machine, Outcome,
    Result, RunSpec, Start,
};
use blip2_run::catalogue::Catalogue;
use blip2_run::commit::CheckpointRecord;
use blip2_run::epoch::Epochs;
use blip2_run::layout::QUARANTINE;

/// Connections that wait to be taken in.
const WAITING_CONNECTIONS: usize = 64;
/// Questions and wishes of others that wait to be heard.
const WAITING_CALLS: usize = 64;
/// Sessions of workers open at a time, refused ones that have not hung up yet included.
const MOST_SESSIONS: usize = 1024;
/// Sessions that were opened without showing the token: workers never need these.
const MOST_STRANGERS: usize = 128;
/// Messages of one worker that may wait to be sent; one that lets more pile up is lost.
const WAITING_MESSAGES: usize = 256;
/// How long open calls may take to end when the run is over.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(2);
/// How long the epoch that closes the run may take to be written.
const LAST_WORD: Duration = Duration::from_secs(10);

/// What a coordinator is started with.
#[derive(Debug)]
pub struct CoordinatorOptions {
    /// The run.
    pub spec: RunSpec,
    /// Membership and deadlines.
    pub settings: CoordinatorSettings,
    /// When checkpoints are written and which are kept.
    pub checkpoints: CheckpointSettings,
    /// URL under which workers and coordinators that stand by reach this one.
    pub advertise: String,
    /// How it is reached.
    pub transport: Transport,
    /// Take over from the coordinator of this epoch, if it is still the newest; `None`: lead, whoever led
    /// before.
    pub after: Option<u64>,
    /// Always holds the newest state of the run.
    pub status: watch::Sender<StatusReply>,
    /// The same in numbers, for those who watch it.
    pub figures: watch::Sender<Figures>,
    /// Gets every committed step once, in order; a receiver that is slow slows the run down, one that is
    /// dropped does not matter.
    pub commits: mpsc::Sender<CommittedStep>,
    /// Which of them are kept for good.
    pub keeping: Keeping,
    /// All workers are processes of this machine, started in the same way.
    pub on_one_machine: bool,
}

/// Coordinates a run to its end: serves workers on `listener` until the run is done or failed; or until,
/// after `shutdown`, a coordinator that stands by leads it or, where none does, it is saved.
///
/// # Errors
/// The settings do not fit, the store fails before the first step, another coordinator takes over first
/// ([`RunError::Fenced`](blip2_run::RunError::Fenced)), or the server cannot run. How the run itself ended,
/// failures of workers included, is its [`Outcome`].
pub async fn run(
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
    options: CoordinatorOptions,
) -> Result<Outcome> {
    let CoordinatorOptions {
        spec,
        settings,
        checkpoints,
        advertise,
        transport,
        after,
        status,
        figures,
        commits,
        keeping,
        on_one_machine,
    } = options;
    spec.validate()?;
    settings.validate(spec.slots)?;
    checkpoints.validate()?;
    let drill = Drill::from_environment()?;
    let epochs = Epochs::new(&spec.run_root, coordinator_name(), advertise);
    let step = spec.resume.as_ref().map_or(0, |record| record.step);
    let epoch = match after {
        Some(led) => epochs.take(led + 1, step, Vec::new()).await.map(|()| led + 1)?,
        None => epochs.begin(step).await?,
    };
    tracing::info!(run = spec.run_id, epoch, step, "this coordinator leads the run");
    let catalogue = Catalogue::new(&spec.run_root);
    let resume = newest_checkpoint(&catalogue, spec.resume.clone()).await?;
    let spec = RunSpec { resume, ..spec };
    spec.validate()?;
    let start = Start {
        epoch,
        expected_members: epochs.expected_members(epoch).await?,
        quarantine: known_rows(&spec, &catalogue).await?,
        on_one_machine,
        began: since_1970(),
    };
    let token: Arc<str> = spec.token.as_str().into();
    let run_id = spec.run_id.clone();
    let (root, schedule, keep) = (spec.run_root.clone(), spec.schedule.clone(), checkpoints.keep);
    let machine = Machine::new(spec, settings, checkpoints, start);

    let (opened, connections) = mpsc::channel(WAITING_CONNECTIONS);
    let (calls, asked) = mpsc::channel(WAITING_CALLS);
    let service = Service {
        opened,
        calls,
        run_id,
        token: token.clone(),
        limits: SessionLimits::default(),
        status: status.subscribe(),
    };
    let stop = CancellationToken::new();
    // The server ends with this function, however it is left.
    let _stops = stop.clone().drop_guard();
    let mut server = serve(listener, &transport, &token, service, stop.clone());
    let actor = Actor::new(crate::actor::Surroundings {
        machine,
        catalogue,
        epochs: epochs.clone(),
        schedule,
        keep,
        root,
        drill,
        token,
        status: status.clone(),
        figures,
        commits,
        keeping,
    });
    let outcome = tokio::select! {
        outcome = actor.run(connections, asked, shutdown) => Ok(outcome),
        ended = &mut server => Err(CoordinatorError::Server(how_it_ended(ended))),
    };
    if let Ok(outcome) = &outcome {
        let last = status.borrow().clone();
        close_epochs(&epochs, &last, outcome).await;
        end_server(&mut server, &stop).await;
    }
    outcome
}

/// Unique to this process: no result depends on it, it only tells our own epoch objects from another's.
fn coordinator_name() -> String {
    format!("{}-{}", std::process::id(), since_1970().as_nanos())
}

fn since_1970() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "it names and is shown, and reaches no parameter")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The checkpoint to begin with. Between the choice of `chosen` and the epoch that fenced it off, the
/// coordinator before may have completed a newer one, and retired that one.
async fn newest_checkpoint(
    catalogue: &Catalogue,
    chosen: Option<CheckpointRecord>,
) -> Result<Option<CheckpointRecord>> {
    let newest = catalogue.list().await?.valid.pop();
    if newest == chosen {
        return Ok(chosen);
    }
    Ok(catalogue.latest_verified().await?.0)
}

/// All rows that are known to be unusable: from the checkpoint, and from the run's copy, which may know of
/// more.
async fn known_rows(spec: &RunSpec, catalogue: &Catalogue) -> Result<QuarantineList> {
    let mut rows = match &spec.resume {
        Some(record) => catalogue.read_quarantine(record).await?,
        None => QuarantineList::default(),
    };
    match quarantine::read(&spec.run_root).await {
        Ok(copy) => rows.extend(copy.iter().cloned()),
        // It is a convenience: the checkpoint's list is the one that counts.
        Err(error) => tracing::warn!(%error, "the run's {QUARANTINE} is not read"),
    }
    Ok(rows)
}

/// Tells those who stand by that there is nothing to take over. One that is fenced off has nothing to say.
async fn close_epochs(epochs: &Epochs, last: &StatusReply, outcome: &Outcome) {
    let how = match outcome {
        Outcome::Done { .. } => "done",
        Outcome::Interrupted { .. } => "interrupted",
        Outcome::HandedOver | Outcome::Failed { exit_code: 4, .. } => return,
        Outcome::Failed { .. } => "failed",
    };
    match tokio::time::timeout(LAST_WORD, epochs.end(last.epoch + 1, last.step, how)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the run's last epoch was not written"),
        Err(_) => tracing::warn!("the run's last epoch was not written in time"),
    }
}

/// A server that is running.
pub(crate) type Server = JoinHandle<std::result::Result<(), tonic::transport::Error>>;

/// Serves until `stop`.
#[expect(clippy::disallowed_methods, reason = "who serves ends the server: `end_server`")]
pub(crate) fn serve<S: Coordinator>(
    listener: TcpListener,
    transport: &Transport,
    token: &str,
    service: S,
    stop: CancellationToken,
) -> Server {
    let service = Arc::new(service);
    let taking = |largest: usize| {
        CoordinatorServer::from_arc(service.clone())
            .max_decoding_message_size(largest)
            .max_encoding_message_size(MAX_CONTROL_MESSAGE)
    };
    let guarded = Guarded::new(token, taking(MAX_CONTROL_MESSAGE), taking(MAX_STRANGER_MESSAGE));
    let router = transport.control_server().add_service(guarded);
    let connections = transport.listen(listener);
    tokio::spawn(router.serve_with_incoming_shutdown(connections, stop.cancelled_owned()))
}

/// How many sessions may be open: those who do not show the token at once take no place from those who do.
#[derive(Debug)]
pub(crate) struct SessionLimits {
    members: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            members: Arc::new(Semaphore::new(MOST_SESSIONS)),
            strangers: Arc::new(Semaphore::new(MOST_STRANGERS)),
        }
    }
}

impl SessionLimits {
    /// A place for one more session, given back when the permit is dropped.
    pub(crate) fn admit<T>(&self, request: &Request<T>) -> std::result::Result<OwnedSemaphorePermit, Status> {
        let places = if is_authenticated(request.extensions()) { &self.members } else { &self.strangers };
        places
            .clone()
            .try_acquire_owned()
            .map_err(|_| Status::resource_exhausted("too many sessions are open"))
    }
}

/// Whether a call shows the token, `shown` in its message or before it.
pub(crate) fn check_token<T>(
    request: &Request<T>,
    shown: &str,
    token: &str,
) -> std::result::Result<(), Status> {
    if !same_token(shown, token) && !is_authenticated(request.extensions()) {
        return Err(Status::unauthenticated(WRONG_TOKEN));
    }
    authenticate(request.extensions());
    Ok(())
}

/// Whether a call to end a run means this one.
pub(crate) fn check_run(request: &StopRequest, run_id: &str) -> std::result::Result<(), Status> {
    if request.run_id.is_empty() || request.run_id == run_id {
        return Ok(());
    }
    Err(Status::failed_precondition(format!("this coordinator is of run {run_id}, another one is meant")))
}

/// Ends a server; calls that are open may end by themselves for a while.
pub(crate) async fn end_server(server: &mut Server, stop: &CancellationToken) {
    stop.cancel();
    if tokio::time::timeout(SHUTDOWN_WAIT, &mut *server).await.is_err() {
        server.abort();
        // The task was aborted just now: its end carries no news.
        let _ = server.await;
    }
}

/// Hands connections to the actor and shows the status.
#[derive(Debug)]
struct Service {
    opened: mpsc::Sender<Opened>,
    /// To the machine.
    calls: mpsc::Sender<Event>,
    run_id: String,
    token: Arc<str>,
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
        let (outgoing, messages) = mpsc::channel(WAITING_MESSAGES);
        let connection = request.extensions().get::<Connection>().cloned();
        let opened = Opened { incoming: request.into_inner(), outgoing, connection, permit };
        self.opened.send(opened).await.map_err(|_| Status::unavailable("the run is over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> std::result::Result<Response<StatusReply>, Status> {
        check_token(&request, &request.get_ref().token, &self.token)?;
        let StatusRequest { standby, withdraws, .. } = request.into_inner();
        if !standby.is_empty() && is_identifier(&standby) {
            let event =
                if withdraws { Event::StandbyLeft { standby } } else { Event::StandbyAsked { standby } };
            // It asks again soon.
            let _ = self.calls.try_send(event);
        }
        Ok(Response::new(self.status.borrow().clone()))
    }

    async fn stop(&self, request: Request<StopRequest>) -> std::result::Result<Response<StopReply>, Status> {
        check_token(&request, &request.get_ref().token, &self.token)?;
        check_run(request.get_ref(), &self.run_id)?;
        let event = Event::StopRequested { reason: "the run was asked to stop".into() };
        self.calls.send(event).await.map_err(|_| Status::unavailable("the run is over"))?;
        Ok(Response::new(StopReply::default()))
    }
}
