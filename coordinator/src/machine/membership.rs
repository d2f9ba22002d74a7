//! Who is in, who is lost, and the epochs between.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use blip2_collective::deal_slots;
use blip2_proto::v1::coordinator_message::Kind as ToWorker;
use blip2_proto::v1::{Abort, Assignment, Fresh, MemberSlots, Stop, StopKind, assignment};
use blip2_run::epoch::EpochMember;

use super::interface::{Action, StoreFailure};
use super::phase::{AfterElection, Election, Phase};
use super::spending::Redone;
use super::state::Machine;

/// How long an epoch's object may take to be written.
const ELECTION_DEADLINE: Duration = Duration::from_secs(120);
/// Time between two attempts to write it.
const RETRY_EVERY: Duration = Duration::from_secs(1);

impl Machine {
    /// Takes those for lost who are silent, and sends those away who do not get ready.
    pub(super) fn check_members(&mut self) {
        let (timeout, patience) = (self.settings.heartbeat_timeout(), self.settings.step_deadline());
        let older = |than: Duration, limit: Duration| self.now.saturating_sub(than) > limit;
        let members = self.members.iter();
        let silent: Vec<u32> = members
            .clone()
            .filter(|(_, member)| older(member.last_seen, timeout))
            .map(|(id, _)| *id)
            .collect();
        let stuck: Vec<u32> = members
            .filter(|(_, member)| !member.is_ready && older(member.joined, patience))
            .map(|(id, _)| *id)
            .collect();
        for id in silent {
            self.take_for_lost(id, &format!("no sign of life for {:.1} s", timeout.as_secs_f64()));
        }
        for id in stuck {
            let seconds = patience.as_secs_f64();
            self.expel(id, &format!("it has not loaded the run's models within {seconds:.0} s"));
        }
    }

    /// Tells a worker to go, for a fault of its own, and goes on without it.
    pub(super) fn expel(&mut self, id: u32, why: &str) {
        self.dismiss(
            id,
            Stop { kind: StopKind::StopFailed.into(), reason: why.to_owned(), exit_code: 1 },
            why,
        );
    }

    /// Goes on without a worker that may be well: it may come back with the state it holds.
    pub(super) fn take_for_lost(&mut self, id: u32, why: &str) {
        self.dismiss(
            id,
            Stop { kind: StopKind::StopRejoin.into(), reason: why.to_owned(), exit_code: 0 },
            why,
        );
    }

    pub(super) fn dismiss(&mut self, id: u32, stop: Stop, why: &str) {
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
        self.progress.losses += 1;
        if self.flaps.lost(self.now, &member.place(), &self.settings) {
            let (place, seconds) = (member.place(), self.settings.cooldown_s);
            self.fault(format!("worker {place} was lost too often and is refused for {seconds} s"));
        }
        self.abandon_saves_of(id);
        if self.is_ended() || !self.is_in_world(id) {
            return;
        }
        self.spending.attempt_ended(Redone::MemberLost);
        match self.phase {
            Phase::Stepping { .. } => {
                self.abort(&fault);
                self.regroup();
            }
            Phase::Settling { .. } => self.regroup(),
            Phase::Saving { .. } => self.go_on_saving(),
            // An election notices when it is over; gathering has no world.
            Phase::Electing(_) | Phase::Gathering(_) | Phase::Ended(_) => {}
        }
    }

    pub(super) fn leaving(&mut self, id: u32) {
        let Some(member) = self.members.get_mut(&id) else { return };
        member.is_leaving = true;
        let name = member.name.clone();
        let too_few = format!("worker {id} ({name}) leaves and too few stay");
        if self.staying() < self.settings.min_workers as usize && !matches!(self.phase, Phase::Gathering(_)) {
            return self.stop_requested(too_few);
        }
        match self.phase {
            Phase::Gathering(_) if self.is_needed(id) => self.stop_requested(too_few),
            _ if !self.is_involved(id) => self.release(id),
            // It is released when the step is committed.
            _ => {}
        }
    }

    /// Whether a member alone holds a newer state than the store and all who stay.
    fn is_needed(&self, id: u32) -> bool {
        let held =
            |id: u32| self.members.get(&id).and_then(|member| member.held.as_ref()).map(|held| held.step);
        let stays = |other: &u32| self.members.get(other).is_some_and(|member| !member.is_leaving);
        let others = self.ready().filter(stays).filter_map(held).max();
        held(id) > others.max(Some(self.saved_step()))
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

    /// Wakes the members out of the collectives of their epoch.
    pub(super) fn abort(&mut self, reason: &str) {
        self.send_to_world(&ToWorker::Abort(Abort { epoch: self.epoch, reason: reason.to_owned() }));
    }

    /// Takes the next epoch with whoever is there, or waits for others.
    pub(super) fn regroup(&mut self) {
        self.world.clear();
        self.move_ahead();
        if self.stopping.is_some() || self.committed == self.schedule.total() {
            return self.save_last();
        }
        let (wanted, there) = (self.settings.min_workers as usize, self.staying());
        if there < wanted {
            if self.members.values().any(|member| member.is_leaving) {
                self.stopping = Some("workers leave and too few stay".into());
                return self.save_last();
            }
            self.fault(format!("step {}: waiting for {wanted} workers, {there} are left", self.committed));
            return self.wait_for_others();
        }
        if !self.is_state_at_hand() && !self.is_grace_over() {
            return self.wait_for_others();
        }
        self.set_back();
        let members: Vec<u32> = self.ready().collect();
        self.elect(&members, AfterElection::Step);
    }

    pub(super) fn elect(&mut self, members: &[u32], then: AfterElection) {
        let dealt = match deal_slots(self.spec.slots, members.len()) {
            Ok(dealt) => dealt,
            Err(error) => return self.fail(1, format!("the slots cannot be dealt: {error}")),
        };
        let members: Vec<(u32, Range<u32>)> = members.iter().copied().zip(dealt).collect();
        #[cfg(feature = "planted-bugs")]
        let members = self.overlapped(members);
        self.epoch += 1;
        let entry = |(id, slots): &(u32, Range<u32>)| EpochMember {
            id: *id,
            name: self.members.get(id).map_or(String::new(), |member| member.name.clone()),
            first_slot: slots.start,
            slot_count: slots.len() as u32,
            device: self.members.get(id).and_then(|member| member.device.clone()).unwrap_or_default().device,
        };
        let record = members.iter().map(entry).collect();
        self.world.clear();
        let until = self.now + ELECTION_DEADLINE;
        let retry = Some(self.now);
        let back_from = self.lost_from.take().filter(|lost| *lost > self.committed);
        self.phase =
            Phase::Electing(Election { until, retry, has_failed: false, members, record, back_from, then });
        self.go_on_electing();
    }

    /// In [`Phase::Electing`]: writes the object (again) when it is time, gives up at the deadline.
    pub(super) fn go_on_electing(&mut self) {
        let (epoch, step) = (self.epoch, self.committed);
        let Phase::Electing(election) = &mut self.phase else { return };
        if self.now >= election.until {
            return self
                .fail(1, format!("membership epoch {epoch} could not be written to the store in time"));
        }
        if election.retry.take_if(|retry| self.now >= *retry).is_some() {
            let (members, back_from) = (election.record.clone(), election.back_from);
            self.actions.push(Action::TakeEpoch { epoch, step, members, back_from });
        }
    }

    pub(super) fn epoch_taken(&mut self, epoch: u64, result: Result<(), StoreFailure>) {
        if epoch != self.epoch {
            return;
        }
        match result {
            Ok(()) => {}
            Err(StoreFailure::Fenced(reason)) => return self.fenced(reason),
            Err(StoreFailure::Failed(reason)) => {
                let Phase::Electing(election) = &mut self.phase else { return };
                let is_first = !std::mem::replace(&mut election.has_failed, true);
                election.retry = Some(self.now + RETRY_EVERY);
                if is_first {
                    self.fault(format!("epoch {epoch} cannot be written yet: {reason}"));
                }
                return;
            }
        }
        let Phase::Electing(election) = &mut self.phase else { return };
        let (members, then) = (std::mem::take(&mut election.members), election.then);
        let somebody_left = members.iter().any(|(id, _)| !self.members.contains_key(id));
        let stop_intervened = then == AfterElection::Step && self.stopping.is_some();
        if somebody_left || stop_intervened || self.somebody_is_ahead() {
            return self.regroup();
        }
        self.world = members;
        self.tell_of_steps_before();
        self.assign();
        match then {
            AfterElection::Step => {
                self.progress.attempt_started(self.now);
                self.phase = Phase::Stepping { since: self.now, reports: BTreeMap::new() };
                if self.lacks_stage_end() {
                    self.order_save(self.committed - 1, true, Vec::new());
                }
            }
            AfterElection::Save => {
                self.phase = Phase::Saving { retry: None };
                self.order_save(self.committed - 1, true, Vec::new());
            }
        }
    }

    /// Tells the members of the new epoch their slots and where the state is.
    fn assign(&mut self) {
        let holder = self.world.iter().map(|(id, _)| *id).find(|id| self.is_holder(*id));
        let holder = holder.and_then(|id| self.members.get(&id));
        let state = match (self.committed, holder, &self.last_checkpoint) {
            (0, ..) => assignment::State::Fresh(Fresh {}),
            (_, Some(holder), _) => assignment::State::Peer(holder.address.clone()),
            (step, None, Some(checkpoint)) if checkpoint.step == step => {
                assignment::State::Checkpoint(checkpoint.name.clone())
            }
            // Without a holder the committed steps were set back to the last checkpoint, or to 0 without one.
            (step, None, _) => return self.fail(1, format!("nobody holds the state after {step} steps")),
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
            ledger: Some(self.ledger()),
        };
        // Who holds another state gives it up for this one: what it holds is not known until it has done a
        // step.
        for (id, _) in &self.world {
            if let Some(member) = self.members.get_mut(id) {
                member.held.take_if(|held| held.step != self.committed);
            }
        }
        tracing::info!(epoch = self.epoch, step = self.committed, members = self.world.len(), "a new epoch");
        self.send_to_world(&ToWorker::Assignment(assignment));
    }
}
