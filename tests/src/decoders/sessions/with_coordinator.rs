//! A coordinator's machine whose workers and store are a script.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use blip2_coordinator::{
    Action, CheckpointSettings, CoordinatorSettings, Event, LossRise, Machine, NonFinitePolicy, RunSpec,
    Start, StoreFailure, check,
};
use blip2_proto::v1::WorkerMessage;
use blip2_proto::v1::worker_message::Kind as FromWorker;
use blip2_run::schedule::Stage;
use blip2_store::Location;
use prost::Message;

use crate::decoders::script::Record;

/// A worker's message.
pub(in crate::decoders) const MESSAGE: u8 = 0;
/// A connection ends.
pub(in crate::decoders) const END: u8 = 1;
/// Time passes: the number, in tenths of a second.
pub(in crate::decoders) const TIME: u8 = 2;
/// The store does what it was asked first.
pub(in crate::decoders) const STORED: u8 = 3;
/// The store fails at it.
const FAILED: u8 = 4;
/// Another coordinator leads.
const FENCED: u8 = 5;
/// The run shall stop.
pub(in crate::decoders) const STOP: u8 = 6;
const KINDS: u8 = 7;

/// The token that a worker must show.
pub(in crate::decoders) const TOKEN: &str = "secret";
/// The executable that it must be.
pub(in crate::decoders) const BINARY: &str = "1 f";

/// The machine and what is under way.
#[derive(Debug)]
pub(in crate::decoders) struct CoordinatorScene {
    machine: Machine,
    now: Duration,
    open: BTreeSet<u8>,
    store: VecDeque<Action>,
    committed: bool,
}

impl CoordinatorScene {
    /// Two workers, four slots, three steps in two stages, a checkpoint every two.
    pub(in crate::decoders) fn new() -> Self {
        let spec = RunSpec {
            run_id: "run".into(),
            run_root: Location::parse("/run").expect("a path"),
            config_toml: "[train]".into(),
            config_hash: "c".into(),
            manifest_hash: "m".into(),
            binary: BINARY.into(),
            token: TOKEN.into(),
            slots: 4,
            schedule: [("represent", "contrast", 2, 8), ("generate", "generate", 1, 4)]
                .map(|(name, task, steps, batch)| Stage {
                    name: name.into(),
                    task: task.into(),
                    steps,
                    batch,
                })
                .into_iter()
                .collect(),
            resume: None,
            max_quarantined_share: 0.5,
            not_downloaded: 0,
            non_finite: NonFinitePolicy::default(),
            loss_rise: LossRise::default(),
            earlier: Default::default(),
        };
        let settings = CoordinatorSettings { workers: 2, ..CoordinatorSettings::default() };
        let checkpoints = CheckpointSettings { every_steps: 2, ..CheckpointSettings::default() };
        Self {
            machine: Machine::new(spec, settings, checkpoints, Start { epoch: 1, ..Start::default() }),
            now: Duration::ZERO,
            open: BTreeSet::new(),
            store: VecDeque::new(),
            committed: false,
        }
    }

    /// Whether a step was committed.
    pub(in crate::decoders) fn has_committed(&self) -> bool {
        self.committed
    }

    /// Feeds what happens, as the shell would: what the machine does.
    ///
    /// # Panics
    /// What must always hold does not.
    pub(in crate::decoders) fn happens(&mut self, record: Record<'_>) -> Vec<Action> {
        let Some(event) = self.event(record) else { return Vec::new() };
        let actions = self.machine.step(self.now, event);
        if let Err(broken) = check(&self.machine) {
            panic!("{broken}");
        }
        for action in &actions {
            match action {
                Action::TakeEpoch { .. } | Action::ConfirmEpoch { .. } | Action::StoreCommit { .. } => {
                    self.store.push_back(action.clone());
                }
                Action::Close { session } => {
                    self.open.remove(&(*session as u8));
                }
                Action::Report(_) => self.committed = true,
                _ => {}
            }
        }
        actions
    }

    fn event(&mut self, record: Record<'_>) -> Option<Event> {
        let session = u64::from(record.number);
        match record.kind % KINDS {
            MESSAGE => self.message(record),
            END => self.open.remove(&record.number).then_some(Event::Disconnected { session }),
            TIME => {
                self.now += Duration::from_millis(100 * session);
                Some(Event::Tick)
            }
            STORED => self.answer(Ok(())),
            FAILED => self.answer(Err(StoreFailure::Failed("the store is away".into()))),
            FENCED => self.answer(Err(StoreFailure::Fenced("another leads".into()))),
            _ => Some(Event::StopRequested { reason: "asked to".into() }),
        }
    }

    /// A message of a connection: the first must be the introduction, and one that does not decode ends it.
    fn message(&mut self, record: Record<'_>) -> Option<Event> {
        let session = u64::from(record.number);
        let known = self.open.contains(&record.number);
        match (WorkerMessage::decode(record.payload).map(|message| message.kind), known) {
            (Ok(Some(FromWorker::Hello(hello))), false) => {
                self.open.insert(record.number);
                Some(Event::Joined { session, hello })
            }
            (Ok(Some(message)), true) => Some(Event::Message { session, message }),
            (Err(_), true) => {
                self.open.remove(&record.number);
                Some(Event::Disconnected { session })
            }
            _ => None,
        }
    }

    fn answer(&mut self, result: Result<(), StoreFailure>) -> Option<Event> {
        match self.store.pop_front()? {
            Action::TakeEpoch { epoch, .. } => Some(Event::EpochTaken { epoch, result }),
            Action::ConfirmEpoch { .. } => Some(Event::EpochConfirmed { result }),
            Action::StoreCommit { record, .. } => Some(Event::CommitStored { name: record.name, result }),
            _ => None,
        }
    }
}
