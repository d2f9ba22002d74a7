//! A machine with its store and workers played by the test.

use std::ops::Range;
use std::time::Duration;

use blip2_dataset::coverage::Coverage;
use blip2_proto::v1::coordinator_message::Kind as ToWorker;
use blip2_proto::v1::worker_message::Kind as FromWorker;
use blip2_proto::v1::{
    Assignment, Commit, Heartbeat, Hello, Ledger, NamedValue, PartWritten, Ready, RefusalCode, StepDone,
    StepFailed, StopKind,
};
use blip2_run::commit::CheckpointRecord;
use blip2_run::coverage::StageCoverage;
use blip2_run::schedule::{Schedule, Stage};
use blip2_store::Location;

use crate::machine::invariants::check;
use crate::machine::{Action, Event, Machine, Outcome, SessionId, Start};
use crate::{CheckpointSettings, CoordinatorSettings, LossRise, NonFinitePolicy, RunSpec};

/// Stages of these steps, with a batch of 64.
fn stages(steps: &[u64]) -> Schedule {
    let stage = |(number, steps): (u32, &u64)| Stage {
        name: format!("stage {number}"),
        task: "contrast".into(),
        steps: *steps,
        batch: 64,
    };
    (1..).zip(steps).map(stage).collect()
}

pub(super) fn spec(steps: &[u64]) -> RunSpec {
    RunSpec {
        run_id: "run".into(),
        run_root: Location::parse("/runs/test").expect("a path"),
        config_toml: "[train]".into(),
        config_hash: "cafe".into(),
        manifest_hash: "beef".into(),
        binary: "0.1.0 abc".into(),
        token: "secret".into(),
        slots: 8,
        schedule: stages(steps),
        resume: None,
        max_quarantined_share: 0.05,
        not_downloaded: 0,
        non_finite: NonFinitePolicy::default(),
        loss_rise: LossRise::default(),
        earlier: Default::default(),
    }
}

pub(super) fn settings(workers: u32, min_workers: u32) -> CoordinatorSettings {
    CoordinatorSettings { workers, min_workers, ..CoordinatorSettings::default() }
}

pub(super) fn hello(session: SessionId) -> Hello {
    Hello {
        token: "secret".into(),
        binary: "0.1.0 abc".into(),
        exchange_address: format!("host-{session}:1"),
        name: format!("w{session}"),
        config_hash: "cafe".into(),
        ..Hello::default()
    }
}

/// What some slots use of a step with a batch of 64 in 8 slots.
pub(super) fn used(step: u64, slots: Range<u32>) -> Coverage {
    let digest = slots.clone().map(|slot| u128::from(1 + step) << (8 * slot)).sum();
    Coverage { samples: 8 * slots.len() as u64, digest }
}

/// The coverage of the first steps of a run with stages of these lengths.
pub(super) fn covered(stages: &[u64], committed: u64) -> StageCoverage {
    let schedule = self::stages(stages);
    let mut coverage = StageCoverage::default();
    (0..committed).for_each(|step| coverage.add(schedule.stage_of(step), used(step, 0..8)));
    coverage
}

/// The introduction of a worker that holds the state after `step` steps.
pub(super) fn hello_again(session: SessionId, stages: &[u64], step: u64) -> Hello {
    let coverage = covered(stages, step).to_messages();
    Hello {
        run_id: "run".into(),
        holds: Some(step),
        ledger: Some(Ledger { step, coverage, ..Ledger::default() }),
        ..hello(session)
    }
}

/// A checkpoint after `step` steps of a run with stages of these lengths.
pub(super) fn checkpoint(stages: &[u64], step: u64, epoch: u64) -> CheckpointRecord {
    CheckpointRecord {
        coverage: covered(stages, step),
        ..CheckpointRecord::new(&self::stages(stages), step, epoch)
    }
}

/// A machine, the time, and what it did. Session numbers are member ids: workers join in order.
pub(super) struct Scene {
    pub(super) machine: Machine,
    pub(super) now: Duration,
    pub(super) actions: Vec<Action>,
    /// Epochs are granted and COMMITs stored at once.
    pub(super) store_answers: bool,
}

impl Scene {
    pub(super) fn new(spec: RunSpec, settings: CoordinatorSettings, every_steps: u64) -> Self {
        Self::starting(spec, settings, every_steps, Start { epoch: 1, ..Start::default() })
    }

    pub(super) fn starting(
        spec: RunSpec,
        settings: CoordinatorSettings,
        every_steps: u64,
        start: Start,
    ) -> Self {
        let checkpoints = CheckpointSettings { every_steps, keep: 2, ..CheckpointSettings::default() };
        Self {
            machine: Machine::new(spec, settings, checkpoints, start),
            now: Duration::ZERO,
            actions: Vec::new(),
            store_answers: true,
        }
    }

    /// A scene in which `workers` have joined.
    pub(super) fn running(steps: &[u64], workers: u32, min_workers: u32, every_steps: u64) -> Self {
        let mut scene = Self::new(spec(steps), settings(workers, min_workers), every_steps);
        (0..u64::from(workers)).for_each(|session| scene.join(session));
        scene
    }

    pub(super) fn event(&mut self, event: Event) {
        self.now += Duration::from_millis(1);
        let actions = self.machine.step(self.now, event);
        assert_eq!(check(&self.machine), Ok(()));
        self.actions.extend(actions.iter().cloned());
        if !self.store_answers {
            return;
        }
        for action in actions {
            match action {
                Action::TakeEpoch { epoch, .. } => self.event(Event::EpochTaken { epoch, result: Ok(()) }),
                Action::ConfirmEpoch { .. } => self.event(Event::EpochConfirmed { result: Ok(()) }),
                Action::StoreCommit { record, .. } => {
                    self.event(Event::CommitStored { name: record.name, result: Ok(()) });
                }
                _ => {}
            }
        }
    }

    pub(super) fn join(&mut self, session: SessionId) {
        self.event(Event::Joined { session, hello: hello(session) });
        self.say(session, FromWorker::Ready(Ready::default()));
    }

    /// A worker comes back with the state after `step` steps.
    pub(super) fn rejoin(&mut self, session: SessionId, stages: &[u64], step: u64) {
        self.event(Event::Joined { session, hello: hello_again(session, stages, step) });
        self.say(session, FromWorker::Ready(Ready::default()));
    }

    /// A report of the step under way, as a member with the session's slots gives it.
    pub(super) fn report(&self, session: SessionId) -> StepDone {
        let (epoch, step) = (self.machine.epoch, self.machine.committed);
        let id = self.machine.member_of(session);
        let slots = self.machine.world.iter().find(|(member, _)| Some(*member) == id);
        let used = used(step, slots.map_or(0..0, |(_, slots)| slots.clone()));
        StepDone {
            epoch,
            step,
            values: vec![NamedValue { name: "loss".into(), value: step as f64 }],
            seconds: 2.0,
            data_wait_seconds: 0.5,
            samples: 8,
            quarantined: Vec::new(),
            coverage: Some(blip2_proto::v1::Coverage {
                stage: self.machine.schedule.stage_of(step),
                samples: used.samples,
                digest: used.digest.to_le_bytes().to_vec(),
            }),
            ..StepDone::default()
        }
    }

    pub(super) fn say(&mut self, session: SessionId, message: FromWorker) {
        self.event(Event::Message { session, message });
    }

    pub(super) fn done(&mut self, session: SessionId) {
        let done = self.report(session);
        self.say(session, FromWorker::StepDone(done));
    }

    pub(super) fn all_done(&mut self, sessions: &[SessionId]) {
        sessions.iter().for_each(|session| self.done(*session));
    }

    pub(super) fn failed(&mut self, session: SessionId, suspects: &[u32]) {
        let (epoch, step) = (self.machine.epoch, self.machine.committed);
        let failed = StepFailed { epoch, step, reason: "no answer".into(), suspects: suspects.to_vec() };
        self.say(session, FromWorker::StepFailed(failed));
    }

    pub(super) fn part(&mut self, session: SessionId, checkpoint: &str) {
        self.stored_part(session, checkpoint, 0.25 + session as f64);
    }

    /// A part that held the steps up for this long.
    pub(super) fn stored_part(&mut self, session: SessionId, checkpoint: &str, stall_seconds: f64) {
        let part = format!("part-{session:05}.safetensors");
        let written = PartWritten {
            checkpoint: checkpoint.into(),
            part,
            length: 9,
            blake3: "d".into(),
            stall_seconds,
            seconds: 3.0,
        };
        self.say(session, FromWorker::PartWritten(written));
    }

    /// Lets time pass while the workers show signs of life.
    pub(super) fn pass(&mut self, time: Duration, alive: &[SessionId]) {
        let until = self.now + time;
        while self.now < until {
            self.now += Duration::from_millis(500);
            alive.iter().for_each(|session| self.say(*session, FromWorker::Heartbeat(Heartbeat {})));
            self.event(Event::Tick);
        }
    }

    pub(super) fn sent(&self, session: SessionId) -> Vec<&ToWorker> {
        let to = |action| match action {
            &Action::Send { session: to, ref message } if to == session => Some(message),
            _ => None,
        };
        self.actions.iter().filter_map(to).collect()
    }

    pub(super) fn assignments(&self, session: SessionId) -> Vec<&Assignment> {
        let assignment = |message: &&'_ ToWorker| matches!(message, ToWorker::Assignment(_));
        let sent = self.sent(session).into_iter().filter(assignment);
        sent.filter_map(|message| if let ToWorker::Assignment(found) = message { Some(found) } else { None })
            .collect()
    }

    pub(super) fn commits(&self, session: SessionId) -> Vec<&Commit> {
        self.sent(session)
            .into_iter()
            .filter_map(|message| if let ToWorker::Commit(found) = message { Some(found) } else { None })
            .collect()
    }

    pub(super) fn stop(&self, session: SessionId) -> Option<(StopKind, String)> {
        self.sent(session).into_iter().find_map(|message| match message {
            ToWorker::Stop(stop) => Some((stop.kind(), stop.reason.clone())),
            _ => None,
        })
    }

    pub(super) fn outcome(&self) -> Option<&Outcome> {
        self.actions
            .iter()
            .find_map(|action| if let Action::Finish(outcome) = action { Some(outcome) } else { None })
    }

    /// How often it looked whether it still leads.
    pub(super) fn confirmations(&self) -> usize {
        self.actions.iter().filter(|action| matches!(action, Action::ConfirmEpoch { .. })).count()
    }

    pub(super) fn refusal(&self, session: SessionId) -> Option<(RefusalCode, String)> {
        self.sent(session).into_iter().find_map(|message| match message {
            ToWorker::Refused(refused) => Some((refused.code(), refused.reason.clone())),
            _ => None,
        })
    }

    pub(super) fn stored(&self) -> Vec<&CheckpointRecord> {
        self.actions
            .iter()
            .filter_map(
                |action| if let Action::StoreCommit { record, .. } = action { Some(&**record) } else { None },
            )
            .collect()
    }

    pub(super) fn reported(&self) -> Vec<u64> {
        self.actions
            .iter()
            .filter_map(|action| if let Action::Report(step) = action { Some(step.step) } else { None })
            .collect()
    }
}
