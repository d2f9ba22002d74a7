//! A member in a scene: what it is told, and what it does.

use std::time::Duration;

use blip2_proto::v1::coordinator_message::Kind as FromCoordinator;
use blip2_proto::v1::worker_message::Kind as ToCoordinator;
use blip2_proto::v1::{
    Assignment, Commit, Hello, Ledger, Quarantined, RefusalCode, Refused, StepDone, Stop, StopKind, Welcome,
    assignment,
};

use crate::member::{MemberAction, MemberEnd, MemberEvent, MemberIdentity, MemberMachine, MemberSettings};

pub(super) struct Scene {
    pub(super) machine: MemberMachine,
    pub(super) now: Duration,
    pub(super) actions: Vec<MemberAction>,
}

impl Scene {
    pub(super) fn new(reconnect: u64) -> Self {
        let settings = MemberSettings {
            join_timeout: Duration::from_secs(20),
            reconnect_timeout: Duration::from_secs(reconnect),
        };
        let identity = MemberIdentity {
            token: "secret".into(),
            exchange_address: "10.0.0.1:7000".into(),
            ..MemberIdentity::default()
        };
        Self { machine: MemberMachine::new(identity, settings), now: Duration::ZERO, actions: Vec::new() }
    }

    /// Taken in by the coordinator of epoch 1, ready.
    pub(super) fn joined() -> Self {
        let mut scene = Self::new(60);
        scene.event(MemberEvent::Tick);
        scene.join(1);
        scene.event(MemberEvent::Prepared);
        scene.actions.clear();
        scene
    }

    /// In epoch 2, with step 0 reduced and reported.
    pub(super) fn reduced() -> Self {
        let mut scene = Self::joined();
        scene.say(FromCoordinator::Assignment(assignment(2, 0)));
        scene.entered(2, 0);
        scene.done(2, 0);
        scene.actions.clear();
        scene
    }

    /// What follows from an event.
    pub(super) fn event(&mut self, event: MemberEvent) -> Vec<MemberAction> {
        let actions = self.machine.step(self.now, event);
        self.actions.extend(actions.iter().cloned());
        actions
    }

    pub(super) fn say(&mut self, message: FromCoordinator) -> Vec<MemberAction> {
        self.event(MemberEvent::Received(message))
    }

    pub(super) fn join(&mut self, epoch: u64) -> Vec<MemberAction> {
        self.event(MemberEvent::Opened);
        self.say(FromCoordinator::Welcome(welcome(epoch)))
    }

    pub(super) fn entered(&mut self, epoch: u64, step: u64) -> Vec<MemberAction> {
        self.event(MemberEvent::Entered { epoch, step, result: Ok(()) })
    }

    pub(super) fn done(&mut self, epoch: u64, step: u64) -> Vec<MemberAction> {
        let result = Ok(StepDone { epoch, step, ..StepDone::default() });
        self.event(MemberEvent::Reduced { epoch, step, result })
    }

    pub(super) fn lose(&mut self) -> Vec<MemberAction> {
        self.event(MemberEvent::Closed { reason: "connection reset".into() })
    }

    pub(super) fn hello(&self) -> &Hello {
        let hello = self.actions.iter().rev().find_map(|action| match action {
            MemberAction::Send(ToCoordinator::Hello(hello)) => Some(hello),
            _ => None,
        });
        hello.expect("a greeting was sent")
    }

    /// Ticks for `time`, a tenth of a second apart.
    pub(super) fn pass(&mut self, time: Duration) -> Vec<MemberAction> {
        let end = self.now + time;
        let mut actions = Vec::new();
        while self.now < end {
            self.now += Duration::from_millis(100);
            actions.extend(self.event(MemberEvent::Tick));
        }
        actions
    }
}

pub(super) fn welcome(epoch: u64) -> Welcome {
    Welcome { member_id: 3, run_id: "run".into(), heartbeat_ms: 500, epoch, ..Welcome::default() }
}

pub(super) fn assignment(epoch: u64, step: u64) -> Assignment {
    let ledger = Some(Ledger { step, ..Ledger::default() });
    let state = Some(assignment::State::Peer("10.0.0.2:7000".into()));
    Assignment { epoch, step, state, ledger, ..Assignment::default() }
}

pub(super) fn commit(epoch: u64, step: u64) -> Commit {
    Commit { epoch, step, ..Commit::default() }
}

pub(super) fn saving(epoch: u64, step: u64, name: &str) -> Commit {
    Commit { save_checkpoint: name.into(), ..commit(epoch, step) }
}

pub(super) fn row(step: u64) -> Quarantined {
    Quarantined { step, ..Quarantined::default() }
}

pub(super) fn stop(kind: StopKind) -> FromCoordinator {
    FromCoordinator::Stop(Stop { kind: kind.into(), reason: "because".into(), exit_code: 7 })
}

pub(super) fn refused(code: RefusalCode) -> FromCoordinator {
    FromCoordinator::Refused(Refused {
        code: code.into(),
        reason: "no".into(),
        retry_after_ms: 30_000,
        ..Refused::default()
    })
}

pub(super) fn opens(actions: &[MemberAction]) -> Vec<(u32, u64)> {
    let open = |action: &MemberAction| match action {
        MemberAction::Open { attempt, after } => Some((*attempt, after.as_millis() as u64)),
        _ => None,
    };
    actions.iter().filter_map(open).collect()
}

pub(super) fn enters(actions: &[MemberAction]) -> Vec<(u64, u64, bool)> {
    let enter = |action: &MemberAction| match action {
        MemberAction::Enter { assignment, apply_pending } => {
            Some((assignment.epoch, assignment.step, *apply_pending))
        }
        _ => None,
    };
    actions.iter().filter_map(enter).collect()
}

pub(super) fn reduces(actions: &[MemberAction]) -> Vec<(u64, u64)> {
    let reduce = |action: &MemberAction| match action {
        MemberAction::Reduce { epoch, step } => Some((*epoch, *step)),
        _ => None,
    };
    actions.iter().filter_map(reduce).collect()
}

pub(super) fn end(actions: &[MemberAction]) -> Option<&MemberEnd> {
    actions.iter().find_map(|action| match action {
        MemberAction::Finish(end) => Some(end),
        _ => None,
    })
}
