//! The shell of the machine: connections, the clock and the store.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use blip2_dataset::quarantine::QuarantineList;
use blip2_proto::bounds::bounded_from_worker;
use blip2_proto::drill::{Drill, DrillPhase};
use blip2_proto::token::same_token;
use blip2_proto::transport::Connection;
use blip2_proto::v1::coordinator_message::Kind as ToWorker;
use blip2_proto::v1::worker_message::Kind as FromWorker;
use blip2_proto::v1::{
    CommittedStep, CoordinatorMessage, Hello, RefusalCode, Refused, StatusReply, WorkerMessage,
};
use blip2_run::catalogue::Catalogue;
use blip2_run::commit::CheckpointRecord;
use blip2_run::epoch::Epochs;
use blip2_run::schedule::Schedule;
use blip2_run::{RunError, quarantine};
use blip2_store::Location;
use tokio::sync::{Mutex, OwnedSemaphorePermit, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tonic::{Status, Streaming};

use crate::introduction::{HELLO_DEADLINE, WRONG_TOKEN};
use crate::{Action, Event, Figures, Keeping, Machine, Outcome, SessionId, StoreFailure};

/// Time between two ticks of the machine.
const TICK: Duration = Duration::from_millis(100);
/// Reports of workers that wait to be taken in.
const WAITING_REPORTS: usize = 1024;
/// How long workers may take to hang up, and the store to finish, when the run is over.
const FAREWELL: Duration = Duration::from_secs(15);

/// A connection of a worker.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) incoming: Streaming<WorkerMessage>,
    pub(crate) outgoing: Outgoing,
    /// What it came over.
    pub(crate) connection: Option<Connection>,
    /// Its place among the connections that may be open.
    pub(crate) permit: OwnedSemaphorePermit,
}

/// What the machine is surrounded by.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) machine: Machine,
    pub(crate) catalogue: Catalogue,
    pub(crate) epochs: Epochs,
    pub(crate) schedule: Schedule,
    /// Checkpoints to keep.
    pub(crate) keep: u32,
    /// The run's folder.
    pub(crate) root: Location,
    pub(crate) drill: Drill,
    /// The run's token.
    pub(crate) token: Arc<str>,
    pub(crate) status: watch::Sender<StatusReply>,
    pub(crate) figures: watch::Sender<Figures>,
    pub(crate) commits: mpsc::Sender<CommittedStep>,
    pub(crate) keeping: Keeping,
}

type Outgoing = mpsc::Sender<std::result::Result<CoordinatorMessage, Status>>;

/// The coordinator's end of a connection.
#[derive(Debug)]
struct Session {
    outgoing: Outgoing,
    reader: AbortHandle,
    /// Whether it has introduced itself, with the run's token.
    is_known: bool,
}

/// Owns the machine, and every task that feeds it.
#[derive(Debug)]
pub(crate) struct Actor {
    around: Surroundings,
    started: Instant,
    sessions: BTreeMap<SessionId, Session>,
    readers: JoinSet<()>,
    store: JoinSet<Option<Event>>,
    outcome: Option<Outcome>,
    /// Lists of quarantined rows handed out, and the newest of them that is written: the writes may overtake
    /// each other.
    quarantine_lists: u64,
    quarantine_written: Arc<Mutex<u64>>,
}

impl Actor {
    pub(crate) fn new(around: Surroundings) -> Self {
        Self {
            around,
            started: Instant::now(),
            sessions: BTreeMap::new(),
            readers: JoinSet::new(),
            store: JoinSet::new(),
            outcome: None,
            quarantine_lists: 0,
            quarantine_written: Arc::default(),
        }
    }

    /// Runs the machine to its end, and waits for what it started. `asked` is what calls to the server come
    /// to.
    pub(crate) async fn run(
        mut self,
        mut connections: mpsc::Receiver<Opened>,
        mut asked: mpsc::Receiver<Event>,
        shutdown: impl Future<Output = ()>,
    ) -> Outcome {
        let mut shutdown = pin!(shutdown);
        let mut is_shut_down = false;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (reports, mut reported) = mpsc::channel(WAITING_REPORTS);
        let mut next_session: SessionId = 0;
        loop {
            let event = tokio::select! {
                () = &mut shutdown, if !is_shut_down => {
                    is_shut_down = true;
                    Event::DrainRequested { reason: "the coordinator was asked to go".into() }
                }
                // Both ends of `reports` live in this function, and the service holds `connections`' other
                // end.
                Some(event) = reported.recv() => event,
                Some(event) = asked.recv() => event,
                Some(opened) = connections.recv() => {
                    let outgoing = opened.outgoing.clone();
                    let reading = read(next_session, opened, self.around.token.clone(), reports.clone());
                    let reader = self.readers.spawn(reading);
                    self.sessions.insert(next_session, Session { outgoing, reader, is_known: false });
                    next_session += 1;
                    continue;
                }
                Some(stored) = self.store.join_next() => match stored {
                    Ok(Some(event)) => event,
                    Ok(None) => continue,
                    Err(error) => {
                        tracing::error!(%error, "a store task ended abnormally");
                        continue;
                    }
                },
                steps = self.around.keeping.next() => Event::Recorded { steps },
                Some(_) = self.readers.join_next() => continue,
                _ = ticks.tick() => Event::Tick,
            };
            self.take_in(event).await;
            if let Some(outcome) = self.outcome.take() {
                self.say_farewell(&mut reported).await;
                return outcome;
            }
        }
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        self.around.machine.step(self.started.elapsed(), event)
    }

    async fn take_in(&mut self, event: Event) {
        let ended = match &event {
            Event::Disconnected { session } => Some(*session),
            Event::Joined { session, .. } => {
                self.note_known(*session);
                None
            }
            _ => None,
        };
        let is_tick = matches!(event, Event::Tick);
        let actions = self.step(event);
        // Telling of all members at each one's report would take the square of their number. What changes
        // without an action is told at the next tick.
        let is_told = is_tick || !actions.is_empty();
        if let Some(session) = ended {
            self.sessions.remove(&session);
        }
        let mut unreachable = Vec::new();
        for action in actions {
            self.rehearse(&action).await;
            if let Some(session) = self.act(action).await {
                unreachable.push(session);
            }
        }
        if is_told {
            self.around.status.send_replace(self.around.machine.status());
            self.around.figures.send_replace(self.around.machine.figures());
        }
        for session in unreachable {
            // A worker that does not read what it is sent.
            self.close(session);
            for action in self.step(Event::Disconnected { session }) {
                // Whoever cannot be reached now is noticed at the next message.
                let _ = self.act(action).await;
            }
        }
    }

    fn note_known(&mut self, session: SessionId) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.is_known = true;
        }
    }

    /// Waits before an action if a drill says so, and everything else waits with it.
    async fn rehearse(&self, action: &Action) {
        let place = match action {
            Action::Send { message: ToWorker::Commit(commit), .. } => (DrillPhase::Commit, commit.step),
            Action::TakeEpoch { step, .. } => (DrillPhase::Election, *step),
            _ => return,
        };
        if let Some(wait) = self.around.drill.reached(place.0, place.1) {
            tokio::time::sleep(wait).await;
        }
    }

    /// Does one action; returns the connection that did not take a message.
    async fn act(&mut self, action: Action) -> Option<SessionId> {
        match action {
            Action::Send { session, message } => {
                let outgoing = &self.sessions.get(&session)?.outgoing;
                let sent = outgoing.try_send(Ok(CoordinatorMessage { kind: Some(message) }));
                return sent.is_err().then_some(session);
            }
            Action::Close { session } => self.close(session),
            Action::TakeEpoch { epoch, step, members, back_from } => {
                let epochs = self.around.epochs.clone();
                self.store.spawn(async move {
                    let result = epochs.take_back(epoch, step, members, back_from).await.map_err(failure);
                    Some(Event::EpochTaken { epoch, result })
                });
            }
            Action::ConfirmEpoch { epoch } => {
                let epochs = self.around.epochs.clone();
                self.store.spawn(async move {
                    let result = epochs.confirm(epoch).await.map_err(failure);
                    Some(Event::EpochConfirmed { result })
                });
            }
            Action::StoreCommit { record, quarantine, epoch, in_progress } => {
                self.store_commit(*record, quarantine, epoch, in_progress);
            }
            Action::StoreQuarantine(list) => self.store_quarantine(list),
            Action::Report(step) => {
                // A receiver that is gone wants no more.
                let _ = self.around.commits.send(step).await;
            }
            Action::Finish(outcome) => self.outcome = Some(outcome),
        }
        None
    }

    /// Ends a connection: the stream to the worker ends when its sender is dropped, after what is in it.
    fn close(&mut self, session: SessionId) {
        if let Some(session) = self.sessions.remove(&session) {
            session.reader.abort();
        }
    }

    fn store_commit(
        &mut self,
        record: CheckpointRecord,
        quarantine: QuarantineList,
        epoch: u64,
        in_progress: Vec<String>,
    ) {
        let (catalogue, epochs) = (self.around.catalogue.clone(), self.around.epochs.clone());
        let (schedule, keep) = (self.around.schedule.clone(), self.around.keep);
        let (drill, keeping) = (self.around.drill.clone(), self.around.keeping.clone());
        self.store.spawn(async move {
            keeping.until(record.step).await;
            if let Some(wait) = drill.reached(DrillPhase::Checkpoint, record.step) {
                tokio::time::sleep(wait).await;
            }
            let name = record.name.clone();
            let written = async {
                epochs.confirm(epoch).await?;
                catalogue.write_commit(&record, &quarantine).await
            };
            let result = written.await.map(drop).map_err(failure);
            if result.is_ok() {
                let is_kept = |step| schedule.is_stage_end(step);
                let in_progress = in_progress.into_iter().collect();
                match catalogue.retire(&name, keep, is_kept, &in_progress).await {
                    Ok(retired) => tracing::info!(?retired, "older checkpoints were deleted"),
                    Err(error) => tracing::warn!(%error, "older checkpoints were not deleted"),
                }
            }
            Some(Event::CommitStored { name, result })
        });
    }

    fn store_quarantine(&mut self, list: QuarantineList) {
        let root = self.around.root.clone();
        self.quarantine_lists += 1;
        let (number, newest) = (self.quarantine_lists, self.quarantine_written.clone());
        self.store.spawn(async move {
            let mut newest = newest.lock().await;
            if number < *newest {
                return None;
            }
            match quarantine::write(&root, &list).await {
                Ok(()) => *newest = number,
                Err(error) => tracing::warn!(%error, "the list of quarantined rows was not written"),
            }
            None
        });
    }

    /// Lets the store finish and the workers hang up, for a while.
    async fn say_farewell(&mut self, reported: &mut mpsc::Receiver<Event>) {
        let farewell = async {
            while self.store.join_next().await.is_some() {}
            // Nobody waits for those who never said who they are.
            while self.sessions.values().any(|session| session.is_known) {
                match reported.recv().await {
                    Some(Event::Disconnected { session }) => drop(self.sessions.remove(&session)),
                    Some(Event::Joined { session, hello }) => {
                        self.note_known(session);
                        for action in self.step(Event::Joined { session, hello }) {
                            let _ = self.act(action).await;
                        }
                    }
                    Some(_) => {}
                    None => return,
                }
            }
        };
        let farewell = Box::pin(farewell);
        if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
            tracing::warn!("some workers did not hang up in time");
        }
        self.sessions.clear();
        self.readers.shutdown().await;
        self.store.shutdown().await;
    }
}

fn failure(error: RunError) -> StoreFailure {
    match error {
        RunError::Fenced { .. } => StoreFailure::Fenced(error.to_string()),
        error => StoreFailure::Failed(error.to_string()),
    }
}

/// Reads a connection to its end. The first message must be the introduction, with the run's token.
async fn read(session: SessionId, opened: Opened, token: Arc<str>, reports: mpsc::Sender<Event>) {
    let Opened { mut incoming, outgoing, connection, permit } = opened;
    if let Some(hello) = introduction(session, &mut incoming, &outgoing, connection.as_ref(), &token).await {
        if reports.send(Event::Joined { session, hello }).await.is_err() {
            return;
        }
        // Only the machine's end of it keeps the stream open from here on.
        drop(outgoing);
        while let Some(message) = next_message(session, &mut incoming).await {
            let Some(message) = bounded(session, message) else { break };
            if reports.send(Event::Message { session, message }).await.is_err() {
                return;
            }
        }
    }
    drop(permit);
    // The receiver is gone when the run is over.
    let _ = reports.send(Event::Disconnected { session }).await;
}

/// Who it is; those who do not show the token are refused here, and nothing of what they say goes any
/// further.
async fn introduction(
    session: SessionId,
    incoming: &mut Streaming<WorkerMessage>,
    outgoing: &Outgoing,
    connection: Option<&Connection>,
    token: &str,
) -> Option<Hello> {
    let first = tokio::time::timeout(HELLO_DEADLINE, next_message(session, incoming)).await;
    let Ok(Some(FromWorker::Hello(hello))) = first else { return None };
    if !same_token(&hello.token, token) {
        let peer = connection.map(|connection| connection.peer().to_string()).unwrap_or_default();
        tracing::warn!(peer, "a worker was refused: {WRONG_TOKEN}");
        let refused = Refused {
            code: RefusalCode::RefusalToken.into(),
            reason: WRONG_TOKEN.into(),
            ..Refused::default()
        };
        // One that has hung up needs no answer.
        let _ = outgoing.try_send(Ok(CoordinatorMessage { kind: Some(ToWorker::Refused(refused)) }));
        return None;
    }
    if let Some(connection) = connection {
        connection.authenticate();
    }
    match bounded(session, FromWorker::Hello(hello)) {
        Some(FromWorker::Hello(hello)) => Some(hello),
        _ => None,
    }
}

/// A message with its texts within bounds; `None` if it cannot be brought there.
fn bounded(session: SessionId, message: FromWorker) -> Option<FromWorker> {
    match bounded_from_worker(message) {
        Ok(message) => Some(message),
        Err(error) => {
            tracing::warn!(session, %error, "a session is ended");
            None
        }
    }
}

/// The next message; `None` when the connection is at its end.
async fn next_message(session: SessionId, incoming: &mut Streaming<WorkerMessage>) -> Option<FromWorker> {
    loop {
        match incoming.message().await {
            Ok(Some(WorkerMessage { kind: Some(message) })) => return Some(message),
            // A message of a later version.
            Ok(Some(WorkerMessage { kind: None })) => {}
            Ok(None) => return None,
            Err(error) => {
                tracing::debug!(session, %error, "a connection broke");
                return None;
            }
        }
    }
}
