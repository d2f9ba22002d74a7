//! Sessions as they go, recorded while they are played.

use std::collections::VecDeque;

use blip2_coordinator::Action;
use blip2_proto::v1::coordinator_message::Kind as ToWorker;
use blip2_proto::v1::worker_message::Kind as FromWorker;
use blip2_proto::v1::{self, CoordinatorMessage, Coverage, WorkerMessage};
use blip2_worker::member::MemberAction;
use prost::Message;

use super::seed::{Seed, refused, taken};
use crate::decoders::script::{Record, push};
use crate::decoders::sessions::with_coordinator::{self as ask, CoordinatorScene};
use crate::decoders::sessions::with_member::{self as tell, MemberScene};

/// Steps of both stages in the coordinator's scene.
const STEPS: u64 = 3;

pub(super) fn coordinator() -> Vec<Seed> {
    let mut whole = Workers::new();
    whole.join(0);
    whole.join(1);
    whole.time(5);

    let mut lost = Workers::new();
    lost.last_step = 1;
    lost.join(0);
    lost.join(1);
    lost.happens(ask::END, 1, &[]);
    lost.last_step = STEPS;
    lost.join(2);
    lost.time(30);

    let mut stopped = Workers::new();
    stopped.last_step = 1;
    stopped.join(0);
    stopped.join(1);
    stopped.happens(ask::STOP, 0, &[]);
    stopped.time(10);

    let mut strange = Workers::new();
    let hello = v1::Hello { token: "another".into(), ..hello(0) };
    strange.say(0, FromWorker::Hello(hello));
    strange.say(0, FromWorker::Heartbeat(v1::Heartbeat {}));
    strange.happens(ask::MESSAGE, 1, b"\xff\xff\xff");
    strange.time(255);
    vec![
        taken("whole-run", whole.script),
        taken("lost-worker", lost.script),
        taken("stopped", stopped.script),
        refused("strangers", strange.script),
    ]
}

fn hello(session: u8) -> v1::Hello {
    v1::Hello {
        token: ask::TOKEN.into(),
        binary: ask::BINARY.into(),
        exchange_address: format!("h{session}:1"),
        name: format!("w{session}"),
        ..v1::Hello::default()
    }
}

/// Workers that do as they are told, up to a step, and a store that works.
struct Workers {
    scene: CoordinatorScene,
    script: Vec<u8>,
    epoch: u64,
    /// Steps that are reported: those before this one.
    last_step: u64,
}

impl Workers {
    fn new() -> Self {
        Self { scene: CoordinatorScene::new(), script: Vec::new(), epoch: 0, last_step: STEPS }
    }

    fn join(&mut self, session: u8) {
        self.say(session, FromWorker::Hello(hello(session)));
    }

    fn time(&mut self, tenths: u8) {
        self.happens(ask::TIME, tenths, &[]);
    }

    fn say(&mut self, session: u8, message: FromWorker) {
        let message = WorkerMessage { kind: Some(message) };
        self.happens(ask::MESSAGE, session, &message.encode_to_vec());
    }

    fn happens(&mut self, kind: u8, number: u8, payload: &[u8]) {
        push(&mut self.script, kind, number, payload);
        let mut actions: VecDeque<Action> = self.scene.happens(Record { kind, number, payload }).into();
        while let Some(action) = actions.pop_front() {
            match action {
                Action::TakeEpoch { .. } | Action::ConfirmEpoch { .. } | Action::StoreCommit { .. } => {
                    self.happens(ask::STORED, 0, &[]);
                }
                Action::Send { session, message } => self.told(session as u8, message),
                _ => {}
            }
        }
    }

    fn told(&mut self, session: u8, message: ToWorker) {
        match message {
            ToWorker::Welcome(_) => self.say(session, FromWorker::Ready(v1::Ready::default())),
            ToWorker::Assignment(assignment) => {
                self.epoch = assignment.epoch;
                self.report(session, assignment.step);
            }
            ToWorker::Commit(commit) => {
                if !commit.save_checkpoint.is_empty() {
                    let part =
                        format!("part-{:05}-of-{:05}.safetensors", commit.part_index, commit.part_count);
                    let checkpoint = commit.save_checkpoint;
                    let blake3 = "d".repeat(64);
                    let written =
                        v1::PartWritten { checkpoint, part, length: 9, blake3, ..Default::default() };
                    self.say(session, FromWorker::PartWritten(written));
                }
                self.report(session, commit.step + 1);
            }
            _ => {}
        }
    }

    fn report(&mut self, session: u8, step: u64) {
        if step >= self.last_step {
            return;
        }
        let (stage, samples) = if step < 2 { (1, 4) } else { (2, 2) };
        let done = v1::StepDone {
            epoch: self.epoch,
            step,
            values: vec![v1::NamedValue { name: "loss".into(), value: 2.5 }],
            seconds: 0.5,
            samples,
            coverage: Some(Coverage { stage, samples, digest: vec![session; 16] }),
            ..v1::StepDone::default()
        };
        self.say(session, FromWorker::StepDone(done));
    }
}

pub(super) fn member() -> Vec<Seed> {
    let mut whole = Coordinator::new();
    whole.take_in(1);
    whole.assign(2, 0, "");
    whole.commit(2, 0, "");
    whole.commit(2, 1, "00000002-000002");
    whole.happens(tell::STORED, 0, &[]);
    whole.tell(ToWorker::Stop(v1::Stop { kind: v1::StopKind::StopDone.into(), ..v1::Stop::default() }));

    let mut followed = Coordinator::new();
    followed.take_in(1);
    followed.assign(2, 4, "a:1");
    followed.commit(2, 4, "");
    followed.happens(tell::CLOSED, 0, &[]);
    followed.happens(tell::TIME, 20, &[]);
    followed.take_in(3);
    followed.assign(4, 6, "a:1");
    followed.tell(ToWorker::Abort(v1::Abort { epoch: 4, reason: "a worker is lost".into() }));
    followed.assign(5, 6, "a:1");
    followed.commit(5, 6, "");

    let mut refusing = Coordinator::new();
    refusing.happens(tell::TIME, 1, &[]);
    let stand_by = v1::Refused { code: v1::RefusalCode::RefusalStandby.into(), ..v1::Refused::default() };
    refusing.tell(ToWorker::Refused(stand_by));
    refusing.happens(tell::TIME, 50, &[]);
    let wrong = v1::Refused { code: v1::RefusalCode::RefusalToken.into(), ..v1::Refused::default() };
    refusing.tell(ToWorker::Refused(wrong));
    vec![
        taken("whole-run", whole.script),
        taken("followed-another", followed.script),
        refused("turned-away", refusing.script),
    ]
}

/// A coordinator that says what it is told to, and compute that does as it is told.
struct Coordinator {
    scene: MemberScene,
    script: Vec<u8>,
}

impl Coordinator {
    fn new() -> Self {
        Self { scene: MemberScene::new(), script: Vec::new() }
    }

    fn take_in(&mut self, epoch: u64) {
        self.happens(tell::TIME, 1, &[]);
        self.tell(ToWorker::Welcome(v1::Welcome {
            member_id: 1,
            run_id: "run".into(),
            run_root: "/run".into(),
            config_toml: "[stage1]\nsteps = 9".into(),
            config_hash: "c".into(),
            manifest_hash: "m".into(),
            heartbeat_ms: 500,
            step_deadline_ms: 60_000,
            epoch,
        }));
    }

    fn assign(&mut self, epoch: u64, step: u64, peer: &str) {
        let member = |member_id: u32, address: &str| v1::MemberSlots {
            member_id,
            exchange_address: address.into(),
            first_slot: 2 * member_id,
            slot_count: 2,
        };
        let state = match peer {
            "" => v1::assignment::State::Fresh(v1::Fresh {}),
            peer => v1::assignment::State::Peer(peer.into()),
        };
        self.tell(ToWorker::Assignment(v1::Assignment {
            epoch,
            members: vec![member(0, "a:1"), member(1, "b:1")],
            step,
            state: Some(state),
            ledger: Some(v1::Ledger { step, ..v1::Ledger::default() }),
        }));
    }

    fn commit(&mut self, epoch: u64, step: u64, save: &str) {
        self.tell(ToWorker::Commit(v1::Commit {
            epoch,
            step,
            save_checkpoint: save.into(),
            part_index: 1,
            part_count: 2,
            coverage: vec![Coverage { stage: 1, samples: 8 * (step + 1), digest: vec![3; 16] }],
            ..v1::Commit::default()
        }));
    }

    fn tell(&mut self, message: ToWorker) {
        let message = CoordinatorMessage { kind: Some(message) };
        self.happens(tell::MESSAGE, 0, &message.encode_to_vec());
    }

    fn happens(&mut self, kind: u8, number: u8, payload: &[u8]) {
        push(&mut self.script, kind, number, payload);
        for action in self.scene.happens(Record { kind, number, payload }) {
            match action {
                MemberAction::Open { .. } => self.happens(tell::OPENED, 0, &[]),
                MemberAction::Prepare(_)
                | MemberAction::Enter { .. }
                | MemberAction::Reduce { .. }
                | MemberAction::Apply(_) => self.happens(tell::DONE, 0, &[]),
                _ => {}
            }
        }
    }
}

pub(super) fn exchange() -> Vec<Seed> {
    let header = v1::PushHeader {
        token: "secret".into(),
        epoch: 2,
        step: 7,
        tag: "gradients/0".into(),
        from_member: 1,
        length: 64,
    };
    let state = v1::FetchStateRequest { token: "secret".into(), step: 7, offset: 1 << 20, length: 4096 };
    let total = v1::StateHeader { total: 1 << 30 };
    let chunk = |header| framed(&v1::Chunk { header, data: vec![7; 32].into() });
    let piece = |header| framed(&v1::StateChunk { header, data: vec![2; 300].into() });
    let message = |kind: u8, bytes: Vec<u8>| [vec![kind], bytes].concat();
    vec![
        taken("header", message(0, header.encode_to_vec())),
        taken("fetch-state", message(2, state.encode_to_vec())),
        taken("state-header", message(4, total.encode_to_vec())),
        taken("push-in-pieces", message(5, [chunk(Some(header.clone())), chunk(None)].concat())),
        taken("push", message(255, [chunk(Some(header)), chunk(None), chunk(None)].concat())),
        taken("state", message(7, [piece(Some(total)), piece(None)].concat())),
    ]
}

/// A message as gRPC frames it.
fn framed(message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let length = u32::try_from(body.len()).expect("messages of a seed are short");
    [&[0][..], &length.to_be_bytes(), &body].concat()
}
