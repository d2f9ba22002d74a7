//! The shell of the machine: connections, the clock and the store.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use blip2_dataset::{Location, QuarantineList};
use blip2_proto::v1::worker_message::Kind as FromWorker;
use blip2_proto::v1::{CoordinatorMessage, StatusReply, WorkerMessage};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tonic::{Status, Streaming};

use crate::server::QUARANTINE;
use crate::{
    Action, Catalogue, CommittedStep, CoordinatorError, Epochs, Event, Machine, Outcome, Result, Schedule,
    SessionId, StoreFailure,
};

/// Time between two ticks of the machine.
const TICK: Duration = Duration::from_millis(100);
/// Reports of workers that wait to be taken in.
const WAITING_REPORTS: usize = 1024;
/// How long a connection may take to introduce itself.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// How long workers may take to hang up, and the store to finish, when the run is over.
const FAREWELL: Duration = Duration::from_secs(15);

/// A connection of a worker.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) incoming: Streaming<WorkerMessage>,
    pub(crate) outgoing: Outgoing,
}

type Outgoing = mpsc::Sender<std::result::Result<CoordinatorMessage, Status>>;

/// Owns the machine, and every task that feeds it.
#[derive(Debug)]
pub(crate) struct Actor {
    machine: Machine,
    catalogue: Catalogue,
    epochs: Epochs,
    schedule: Schedule,
    keep: u32,
    root: Location,
    status: watch::Sender<StatusReply>,
    commits: mpsc::Sender<CommittedStep>,
    started: Instant,
    sessions: BTreeMap<SessionId, Outgoing>,
    readers: JoinSet<()>,
    store: JoinSet<Option<Event>>,
    outcome: Option<Outcome>,
    /// Lists of quarantined rows handed out, and the newest of them that is written: the writes may overtake each other.
    quarantine_lists: u64,
    quarantine_written: Arc<Mutex<u64>>,
}

impl Actor {
    #[expect(clippy::too_many_arguments, reason = "called once, by the function that makes all of these")]
    pub(crate) fn new(
        machine: Machine,
        catalogue: Catalogue,
        epochs: Epochs,
        schedule: Schedule,
        keep: u32,
        root: Location,
        status: watch::Sender<StatusReply>,
        commits: mpsc::Sender<CommittedStep>,
    ) -> Self {
        Self {
            machine,
            catalogue,
            epochs,
            schedule,
            keep,
            root,
            status,
            commits,
            started: Instant::now(),
            sessions: BTreeMap::new(),
            readers: JoinSet::new(),
            store: JoinSet::new(),
            outcome: None,
            quarantine_lists: 0,
            quarantine_written: Arc::default(),
        }
    }

    /// Runs the machine to its end, and waits for what it started.
    pub(crate) async fn run(
        mut self,
        mut connections: mpsc::Receiver<Opened>,
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
                    Event::StopRequested { reason: "the coordinator was asked to stop".into() }
                }
                // Both ends of `reports` live in this function, and the service holds `connections`' other end.
                Some(event) = reported.recv() => event,
                Some(Opened { incoming, outgoing }) = connections.recv() => {
                    self.sessions.insert(next_session, outgoing);
                    self.readers.spawn(read(next_session, incoming, reports.clone()));
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

    async fn take_in(&mut self, event: Event) {
        let ended = match &event {
            Event::Disconnected { session } => Some(*session),
            _ => None,
        };
        let actions = self.machine.step(self.started.elapsed(), event);
        if let Some(session) = ended {
            self.sessions.remove(&session);
        }
        let mut unreachable = Vec::new();
        for action in actions {
            if let Some(session) = self.act(action).await {
                unreachable.push(session);
            }
        }
        self.status.send_replace(self.machine.status());
        for session in unreachable {
            // A worker that does not read what it is sent. Its reader ends with the connection.
            self.sessions.remove(&session);
            let actions = self.machine.step(self.started.elapsed(), Event::Disconnected { session });
            for action in actions {
                // Whoever cannot be reached now is noticed at the next message.
                let _ = self.act(action).await;
            }
        }
    }

    /// Does one action; returns the connection that did not take a message.
    async fn act(&mut self, action: Action) -> Option<SessionId> {
        match action {
            Action::Send { session, message } => {
                let outgoing = self.sessions.get(&session)?;
                let sent = outgoing.try_send(Ok(CoordinatorMessage { kind: Some(message) }));
                return sent.is_err().then_some(session);
            }
            // The stream ends when its sender is dropped, after what is in it.
            Action::Close { session } => drop(self.sessions.remove(&session)),
            Action::TakeEpoch { epoch, step, members } => {
                let epochs = self.epochs.clone();
                self.store.spawn(async move {
                    let result = epochs.take(epoch, step, members).await.map_err(failure);
                    Some(Event::EpochTaken { epoch, result })
                });
            }
            Action::StoreCommit { record, epoch, in_progress } => {
                let (catalogue, epochs) = (self.catalogue.clone(), self.epochs.clone());
                let (schedule, keep) = (self.schedule.clone(), self.keep);
                self.store.spawn(async move {
                    let name = record.name.clone();
                    let written = async {
                        epochs.confirm(epoch).await?;
                        catalogue.write_commit(&record).await
                    };
                    let result = written.await.map_err(failure);
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
            Action::StoreQuarantine(list) => {
                let location = self.root.join(QUARANTINE);
                self.quarantine_lists += 1;
                let (number, newest) = (self.quarantine_lists, self.quarantine_written.clone());
                self.store.spawn(async move {
                    let mut newest = newest.lock().await;
                    if number < *newest {
                        return None;
                    }
                    match store_quarantine(&location, &list).await {
                        Ok(()) => *newest = number,
                        Err(error) => tracing::warn!(%error, "the list of quarantined rows was not written"),
                    }
                    None
                });
            }
            Action::Report(step) => {
                // A receiver that is gone wants no more.
                let _ = self.commits.send(step).await;
            }
            Action::Finish(outcome) => self.outcome = Some(outcome),
        }
        None
    }

    /// Lets the store finish and the workers hang up, for a while.
    async fn say_farewell(&mut self, reported: &mut mpsc::Receiver<Event>) {
        let farewell = async {
            while self.store.join_next().await.is_some() {}
            while !self.sessions.is_empty() {
                match reported.recv().await {
                    Some(Event::Disconnected { session }) => drop(self.sessions.remove(&session)),
                    Some(Event::Joined { session, hello }) => {
                        for action in
                            self.machine.step(self.started.elapsed(), Event::Joined { session, hello })
                        {
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

async fn store_quarantine(location: &Location, list: &QuarantineList) -> Result<()> {
    Ok(location.put(list.to_parquet()?).await?)
}

fn failure(error: CoordinatorError) -> StoreFailure {
    match error {
        CoordinatorError::Fenced { .. } => StoreFailure::Fenced(error.to_string()),
        error => StoreFailure::Failed(error.to_string()),
    }
}

/// Reads a connection to its end. The first message must be the introduction.
async fn read(session: SessionId, mut incoming: Streaming<WorkerMessage>, reports: mpsc::Sender<Event>) {
    let first = tokio::time::timeout(HELLO_DEADLINE, incoming.message()).await;
    if let Ok(Ok(Some(WorkerMessage { kind: Some(FromWorker::Hello(hello)) }))) = first {
        if reports.send(Event::Joined { session, hello }).await.is_err() {
            return;
        }
        loop {
            match incoming.message().await {
                Ok(Some(WorkerMessage { kind: Some(message) })) => {
                    if reports.send(Event::Message { session, message }).await.is_err() {
                        return;
                    }
                }
                // A message of a later version.
                Ok(Some(WorkerMessage { kind: None })) => {}
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(session, %error, "a connection broke");
                    break;
                }
            }
        }
    }
    // The receiver is gone when the run is over.
    let _ = reports.send(Event::Disconnected { session }).await;
}
