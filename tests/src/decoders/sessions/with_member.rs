//! A member's machine whose coordinator and compute are a script.

use std::collections::VecDeque;
use std::time::Duration;

use blip2_proto::v1::{CoordinatorMessage, Coverage, PartWritten, StepDone};
use blip2_worker::member::{
    Failure, MemberAction, MemberEvent, MemberIdentity, MemberMachine, MemberSettings,
};
use prost::Message;

use crate::decoders::script::Record;

/// A coordinator's message.
pub(in crate::decoders) const MESSAGE: u8 = 0;
/// The session asked for is open.
pub(in crate::decoders) const OPENED: u8 = 1;
/// The session ends.
pub(in crate::decoders) const CLOSED: u8 = 2;
/// Time passes: the number, in tenths of a second.
pub(in crate::decoders) const TIME: u8 = 3;
/// Compute does what it was told first.
pub(in crate::decoders) const DONE: u8 = 4;
/// Compute could not.
const FAILED: u8 = 5;
/// A checkpoint part is stored.
pub(in crate::decoders) const STORED: u8 = 6;
/// The process is asked to go.
const LEAVE: u8 = 7;
/// Compute cannot go on.
const BROKEN: u8 = 8;
const KINDS: u8 = 9;

/// The machine and what is under way.
#[derive(Debug)]
pub(in crate::decoders) struct MemberScene {
    machine: MemberMachine,
    now: Duration,
    compute: VecDeque<MemberAction>,
    checkpoint: String,
    applied: bool,
}

impl MemberScene {
    /// A worker that looks for its coordinator.
    pub(in crate::decoders) fn new() -> Self {
        let identity = MemberIdentity {
            token: "secret".into(),
            binary: "1 f".into(),
            exchange_address: "b:1".into(),
            name: "b".into(),
            config_hash: String::new(),
        };
        let settings = MemberSettings {
            join_timeout: Duration::from_secs(60),
            reconnect_timeout: Duration::from_secs(300),
        };
        Self {
            machine: MemberMachine::new(identity, settings),
            now: Duration::ZERO,
            compute: VecDeque::new(),
            checkpoint: String::new(),
            applied: false,
        }
    }

    /// Whether compute has applied a step.
    pub(in crate::decoders) fn has_applied(&self) -> bool {
        self.applied
    }

    /// Feeds what happens, as the shell would: what the machine does.
    pub(in crate::decoders) fn happens(&mut self, record: Record<'_>) -> Vec<MemberAction> {
        let Some(event) = self.event(record) else { return Vec::new() };
        let actions = self.machine.step(self.now, event);
        for action in &actions {
            match action {
                MemberAction::Apply(commit) => {
                    self.checkpoint.clone_from(&commit.save_checkpoint);
                    self.compute.push_back(action.clone());
                }
                MemberAction::Prepare(_) | MemberAction::Enter { .. } | MemberAction::Reduce { .. } => {
                    self.compute.push_back(action.clone());
                }
                _ => {}
            }
        }
        actions
    }

    fn event(&mut self, record: Record<'_>) -> Option<MemberEvent> {
        Some(match record.kind % KINDS {
            MESSAGE => match CoordinatorMessage::decode(record.payload) {
                Ok(message) => MemberEvent::Received(message.kind?),
                Err(error) => MemberEvent::Closed { reason: error.to_string() },
            },
            OPENED => MemberEvent::Opened,
            CLOSED => MemberEvent::Closed { reason: "it ended".into() },
            TIME => {
                self.now += Duration::from_millis(100 * u64::from(record.number));
                MemberEvent::Tick
            }
            DONE => self.done(None)?,
            FAILED => self.done(Some(Failure { reason: "no answer".into(), suspects: vec![0] }))?,
            STORED => MemberEvent::PartStored(PartWritten {
                checkpoint: self.checkpoint.clone(),
                part: "part-00001-of-00002.safetensors".into(),
                length: 1,
                blake3: "d".into(),
                ..PartWritten::default()
            }),
            LEAVE => MemberEvent::LeaveRequested,
            BROKEN => MemberEvent::Failed { exit_code: 3, message: "a damaged row group".into() },
            _ => MemberEvent::Tick,
        })
    }

    /// Compute's answer to its oldest order.
    fn done(&mut self, failure: Option<Failure>) -> Option<MemberEvent> {
        Some(match self.compute.pop_front()? {
            MemberAction::Prepare(_) => MemberEvent::Prepared,
            MemberAction::Enter { assignment, .. } => MemberEvent::Entered {
                epoch: assignment.epoch,
                step: assignment.step,
                result: failure.map_or(Ok(()), Err),
            },
            MemberAction::Reduce { epoch, step } => {
                let done = StepDone {
                    epoch,
                    step,
                    samples: 4,
                    coverage: Some(Coverage { stage: 1, samples: 4, digest: vec![1; 16] }),
                    ..StepDone::default()
                };
                MemberEvent::Reduced { epoch, step, result: failure.map_or(Ok(done), Err) }
            }
            MemberAction::Apply(commit) => {
                self.applied = true;
                MemberEvent::Applied { step: commit.step }
            }
            _ => return None,
        })
    }
}
