//! Taking up an assignment: the epoch's world, and the state after its committed steps.

use std::sync::Arc;
use std::time::Instant;

use blip2_collective::{Member, World};
use blip2_proto::drill::DrillPhase;
use blip2_proto::v1;
use blip2_proto::v1::assignment::State;
use blip2_run::layout::checkpoint_folder;

use super::holdings::Compute;
use crate::checkpoint::{NamedState, read_checkpoint};
use crate::error::{Result, WorkerError};
use crate::state::TrainState;

impl Compute {
    /// Enters the epoch, with the state after its committed steps: held, completed by the pending gradient,
    /// or copied.
    pub(super) fn enter(
        &mut self,
        assignment: &v1::Assignment,
        member_id: u32,
        apply_pending: bool,
    ) -> Result<()> {
        self.frozen.rehearse(DrillPhase::Join, assignment.step);
        let members: Vec<Member> = assignment.members.iter().map(member).collect();
        let rank = members.iter().position(|member| member.id == member_id).ok_or_else(|| {
            WorkerError::Protocol(format!("epoch {} does not name this member", assignment.epoch))
        })?;
        let world = World { epoch: assignment.epoch, rank, members };
        self.exchange.set_world(world.clone());
        self.world = Some(world);
        if apply_pending {
            self.apply_pending(assignment.step.saturating_sub(1))?;
        }
        if self.state.is_none() || self.step != assignment.step {
            self.take_state(assignment)?;
        }
        self.offer_state(assignment)
    }

    fn take_state(&mut self, assignment: &v1::Assignment) -> Result<()> {
        let started = Instant::now();
        let device = self.frozen.device.clone().autodiff();
        let sizes = self.frozen.sizes;
        let state = match &assignment.state {
            Some(State::Fresh(_)) => TrainState::fresh(&self.config, sizes, &device)?,
            Some(State::Checkpoint(name)) => {
                let folder = checkpoint_folder(&self.run_root, name);
                let read = self.unless_aborted(assignment.epoch, read_checkpoint(&folder))?;
                let (record, stored) = read?;
                let step = record.step;
                if step != assignment.step {
                    let reason = format!("it holds step {step}, the run continues from {}", assignment.step);
                    return Err(WorkerError::checkpoint(name, reason));
                }
                let stage = self.config.stage_of_checkpoint(&record)?;
                TrainState::restore(stage, &self.config, sizes, &stored, &device)?
            }
            Some(State::Peer(address)) => {
                if self.own_address() == Some(address) {
                    let reason = "this member is to copy it from itself and does not hold it";
                    return Err(WorkerError::checkpoint(format!("step {}", assignment.step), reason));
                }
                let fetch = self.exchange.fetch_state(address, assignment.step, self.deadline);
                let bytes = self.unless_aborted(assignment.epoch, fetch)??;
                let stored = NamedState::decode(address, &[bytes])?;
                let stage = self.config.stage_after(assignment.step)?;
                TrainState::restore(stage, &self.config, sizes, &stored, &device)?
            }
            None => return Err(WorkerError::Protocol("an assignment without a state".into())),
        };
        self.state = Some(state);
        self.next_stage = None;
        self.step = assignment.step;
        self.batches = None;
        let seconds = started.elapsed().as_secs_f64();
        tracing::info!(step = assignment.step, from = ?assignment.state, seconds, "the state is taken up");
        Ok(())
    }

    fn own_address(&self) -> Option<&String> {
        let world = self.world.as_ref()?;
        world.members.get(world.rank).map(|member| &member.address)
    }

    /// Publishes the state if this member is the one that joiners copy from. The step loop waits for the
    /// snapshot alone.
    fn offer_state(&self, assignment: &v1::Assignment) -> Result<()> {
        let source = match &assignment.state {
            Some(State::Peer(address)) => Some(address),
            _ => None,
        };
        let is_source = source.is_some() && source == self.own_address();
        match &self.state {
            Some(state) if is_source && assignment.members.len() > 1 => {
                let started = Instant::now();
                let whole = state.encode_part(0, 1)?;
                let (bytes, seconds) = (whole.len(), started.elapsed().as_secs_f64());
                self.exchange.publish_state(self.step, Arc::new(vec![whole]));
                tracing::info!(step = self.step, bytes, seconds, "the state is offered to joiners");
            }
            _ => self.exchange.clear_state(),
        }
        Ok(())
    }

    /// What the future comes to, unless the epoch is aborted first.
    pub(super) fn unless_aborted<T>(&self, epoch: u64, work: impl Future<Output = T>) -> Result<T> {
        let mut aborted = self.aborted.clone();
        self.runtime.block_on(async {
            tokio::select! {
                // Without a session there is nobody to abort anything, nor to work for.
                _ = aborted.wait_for(|newest| *newest >= epoch) => Err(WorkerError::Aborted { epoch }),
                done = work => Ok(done),
            }
        })
    }
}

fn member(member: &v1::MemberSlots) -> Member {
    Member {
        id: member.member_id,
        address: member.exchange_address.clone(),
        slots: member.first_slot..member.first_slot.saturating_add(member.slot_count),
    }
}
