//! Who is in, who is lost, and the epochs between.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use blip2_collective::deal_slots;
use blip2_proto::v1::coordinator_message::Kind as ToWorker;
use blip2_proto::v1::{Abort, Assignment, Failed, Fresh, MemberSlots, Stop, StopKind, assignment};

use super::{Action, AfterElection, Machine, Phase, StoreFailure};
use crate::EpochMember;

/// How long an epoch's object may take to be written.
const ELECTION_DEADLINE: Duration = Duration::from_secs(120);

impl Machine {
    /// Workers that do not want to go.
    pub(super) fn staying(&self) -> usize {
        self.members.values().filter(|member| !member.leaving).count()
    }

    pub(super) fn check_heartbeats(&mut self) {
        let timeout = self.settings.heartbeat_timeout();
        let silent =
            self.members.iter().filter(|(_, member)| self.now.saturating_sub(member.last_seen) > timeout);
        let silent: Vec<u32> = silent.map(|(id, _)| *id).collect();
        for id in silent {
            self.expel(id, &format!("no sign of life for {:.1} s", timeout.as_secs_f64()));
        }
    }

    /// Tells a worker to go, for a fault of its own, and goes on without it.
    pub(super) fn expel(&mut self, id: u32, why: &str) {
        let stop = Stop { kind: StopKind::StopFailed.into(), reason: why.to_owned(), exit_code: 1 };
        self.send(id, ToWorker::Stop(stop));
        if let Some(member) = self.members.get(&id) {
            self.actions.push(Action::Close { session: member.session });
        }
        self.lost(id, why);
    }

    /// A worker is gone.
    pub(super) fn lost(&mut self, id: u32, why: &str) {
        let Some(member) = self.members.remove(&id) else { return };
        let fault = format!("step {}: worker {id} ({}) is lost: {why}", self.committed, member.name);
        self.fault(fault.clone());
        self.abandon_saves_of(id);
        if self.is_ended() || !self.is_in_world(id) {
            return;
        }
        match self.phase {
            Phase::Stepping { .. } => {
                self.abort(&fault);
                self.regroup();
            }
            Phase::Settling { .. } => self.regroup(),
            Phase::Saving => self.go_on_saving(),
            // An election notices when it is over; gathering has no world.
            Phase::Electing { .. } | Phase::Gathering { .. } | Phase::Ended(_) => {}
        }
    }

    pub(super) fn leaving(&mut self, id: u32) {
        let Some(member) = self.members.get_mut(&id) else { return };
        member.leaving = true;
        let name = member.name.clone();
        if self.staying() < self.settings.min_workers as usize
            && !matches!(self.phase, Phase::Gathering { .. })
        {
            return self.stop_requested(format!("worker {id} ({name}) leaves and too few stay"));
        }
        match self.phase {
            Phase::Gathering { .. } if self.is_holder(id) => {
                self.stop_requested(format!("worker {id} ({name}) leaves and too few stay"));
            }
            _ if !self.is_involved(id) => self.release(id),
            // It is released when the step is committed.
            _ => {}
        }
    }

    /// Lets a worker go.
    pub(super) fn release(&mut self, id: u32) {
        let stop =
            Stop { kind: StopKind::StopReleased.into(), reason: "released as it asked".into(), exit_code: 0 };
        self.send(id, ToWorker::Stop(stop));
        if let Some(member) = self.members.remove(&id) {
            tracing::info!(member = id, name = %member.name, "a worker was released");
        }
    }

    pub(super) fn worker_failed(&mut self, id: u32, failed: Failed) {
        let name = self.members.get(&id).map_or(String::new(), |member| member.name.clone());
        let runs = !matches!(self.phase, Phase::Gathering { .. });
        if runs && !self.is_involved(id) {
            return self.expel(id, &format!("it could not join: {}", failed.message));
        }
        let exit_code = if failed.exit_code == 0 { 1 } else { failed.exit_code };
        self.fail(exit_code, format!("worker {id} ({name}): {}", failed.message));
    }

    /// Wakes the members out of the collectives of their epoch.
    pub(super) fn abort(&mut self, reason: &str) {
        self.send_to_world(&ToWorker::Abort(Abort { epoch: self.epoch, reason: reason.to_owned() }));
    }

    pub(super) fn is_holder(&self, id: u32) -> bool {
        self.members.get(&id).is_some_and(|member| member.holds == Some(self.committed))
    }

    /// Takes the next epoch with whoever is there, or waits for others.
    pub(super) fn regroup(&mut self) {
        self.world.clear();
        if self.stopping.is_some() || self.committed == self.schedule.total() {
            return self.save_last();
        }
        let wanted = self.settings.min_workers as usize;
        if self.staying() < wanted {
            if self.members.values().any(|member| member.leaving) {
                self.stopping = Some("workers leave and too few stay".into());
                return self.save_last();
            }
            self.fault(format!(
                "step {}: waiting for {wanted} workers, {} are left",
                self.committed,
                self.staying()
            ));
            self.phase = Phase::Gathering { wanted, until: self.now + self.settings.rejoin_timeout() };
            return;
        }
        self.return_to_what_is_held();
        let members: Vec<u32> = self.members.keys().copied().collect();
        self.elect(&members, AfterElection::Step);
    }

    /// When nobody holds the committed state any more: to the last checkpoint.
    pub(super) fn return_to_what_is_held(&mut self) {
        let step = self.last_checkpoint.as_ref().map_or(0, |(_, step)| *step);
        // A checkpoint of later steps, finished after the run was set back before it, is as good: it holds the same bits.
        if step != self.committed && !self.members.keys().any(|id| self.is_holder(*id)) {
            self.fault(format!(
                "the state after {} steps is lost with all who held it: going on from {step}",
                self.committed
            ));
            self.committed = step;
            self.redone = 0;
            self.forget_uncommitted_rows();
        }
    }

    pub(super) fn elect(&mut self, members: &[u32], then: AfterElection) {
        let dealt = match deal_slots(self.spec.slots, members.len()) {
            Ok(dealt) => dealt,
            Err(error) => return self.fail(1, format!("the slots cannot be dealt: {error}")),
        };
        let members: Vec<(u32, Range<u32>)> = members.iter().copied().zip(dealt).collect();
        self.epoch += 1;
        let record = members.iter().map(|(id, slots)| EpochMember {
            id: *id,
            name: self.members.get(id).map_or(String::new(), |member| member.name.clone()),
            first_slot: slots.start,
            slot_count: slots.len() as u32,
        });
        let take = Action::TakeEpoch { epoch: self.epoch, step: self.committed, members: record.collect() };
        self.actions.push(take);
        self.world.clear();
        self.phase = Phase::Electing { until: self.now + ELECTION_DEADLINE, members, then };
    }

    pub(super) fn epoch_taken(&mut self, epoch: u64, result: Result<(), StoreFailure>) {
        if epoch != self.epoch {
            return;
        }
        match result {
            Ok(()) => {}
            Err(StoreFailure::Fenced(reason)) => return self.fail(4, reason),
            Err(StoreFailure::Failed(reason)) => return self.fail(1, reason),
        }
        let Phase::Electing { members, then, .. } = &mut self.phase else { return };
        let (members, then) = (std::mem::take(members), *then);
        let somebody_left = members.iter().any(|(id, _)| !self.members.contains_key(id));
        let stop_intervened = then == AfterElection::Step && self.stopping.is_some();
        if somebody_left || stop_intervened {
            return self.regroup();
        }
        self.world = members;
        self.assign();
        match then {
            AfterElection::Step => {
                self.progress.attempt_started(self.now);
                self.phase = Phase::Stepping { since: self.now, reports: BTreeMap::new() };
            }
            AfterElection::Save => {
                self.phase = Phase::Saving;
                self.order_save(self.committed - 1, true);
            }
        }
    }

    /// Tells the members of the new epoch their slots and where the state is.
    fn assign(&mut self) {
        let holder = self.world.iter().map(|(id, _)| *id).find(|id| self.is_holder(*id));
        let state = match (self.committed, holder.and_then(|id| self.members.get(&id)), &self.last_checkpoint)
        {
            (0, ..) => assignment::State::Fresh(Fresh {}),
            (_, Some(holder), _) => assignment::State::Peer(holder.address.clone()),
            (_, None, Some((checkpoint, _))) => assignment::State::Checkpoint(checkpoint.clone()),
            // Without a holder the committed steps were set back to the last checkpoint, or to 0 without one.
            (_, None, None) => {
                return self.fail(1, format!("nobody holds the state after {} steps", self.committed));
            }
        };
        let slots = self.world.iter().map(|(id, slots)| MemberSlots {
            member_id: *id,
            exchange_address: self.members.get(id).map_or(String::new(), |member| member.address.clone()),
            first_slot: slots.start,
            slot_count: slots.len() as u32,
        });
        let assignment = Assignment {
            epoch: self.epoch,
            members: slots.collect(),
            step: self.committed,
            state: Some(state),
            ledger: None,
        };
        tracing::info!(epoch = self.epoch, step = self.committed, members = self.world.len(), "a new epoch");
        self.send_to_world(&ToWorker::Assignment(assignment));
    }

    pub(super) fn gathering_timed_out(&mut self) {
        let Phase::Gathering { wanted, .. } = self.phase else { return };
        let (there, least) = (self.staying(), self.settings.min_workers as usize);
        if there >= least {
            self.fault(format!("starting with {there} of {wanted} workers: no more joined in time"));
            return self.regroup();
        }
        let checkpoint = match &self.last_checkpoint {
            Some((name, _)) => format!("continue from checkpoint {name}"),
            None => "nothing is saved yet: start again".into(),
        };
        self.fail(
            1,
            format!("{there} of at least {least} workers are there and no more joined in time; {checkpoint}"),
        );
    }
}
