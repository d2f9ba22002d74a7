//! A member's compute side: the state as one number, the step as a function of it, the exchange with the
//! other members.
//!
//! A reduction has two hops, as in production: every member sends its contributions to all, and, when it has
//! those of all, its sum. So a member may complete a step that another cannot.

use std::collections::BTreeMap;

use blip2_proto::v1::{
    Assignment, Commit, Coverage, MemberSlots, NamedValue, NonFinite, PartFailed, PartWritten, Quarantined,
    StepDone, assignment,
};
use blip2_worker::member::{Failure, MemberEvent};

use crate::corpus::{self, CORPUS};
use crate::invariants::{Fact, SKIPS_EXACT};
use crate::process::{Effect, Ticket, Wake};
use crate::random::Random;
use crate::schedule::Sickness;
use crate::store::{Part, Reply, Request};

/// Milliseconds after which a member gives up waiting for the others.
pub(crate) const STEP_DEADLINE: u64 = 20_000;

/// What a worker says whose host is sick, after the host's name.
pub(crate) const SICK: &str = "cannot be read on this host";

/// A state: committed steps and the number that stands for parameters and optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) step: u64,
    pub(crate) state: u64,
}

/// What members send each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mail {
    /// What each of the sender's slots adds: slot and value.
    Contributions(Vec<(u32, u64)>),
    /// The sum over all slots.
    Sum(u64),
}

/// A buffer on its way to another member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Push {
    pub(crate) epoch: u64,
    pub(crate) step: u64,
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) mail: Mail,
}

#[derive(Debug)]
struct Pending {
    step: u64,
    gradient: u64,
}

#[derive(Debug)]
struct World {
    epoch: u64,
    own: u32,
    members: Vec<MemberSlots>,
}

/// What is being done; the number tells its wake-ups from those of earlier orders.
#[derive(Debug)]
struct Busy {
    token: u64,
    order: Order,
}

#[derive(Debug)]
enum Order {
    Entering { assignment: Assignment, until: u64 },
    Computing { epoch: u64, step: u64 },
    Exchanging { epoch: u64, step: u64, sum: Option<u64> },
    Applying { step: u64 },
}

#[derive(Debug, Default)]
struct Mailbox {
    contributions: BTreeMap<u32, Vec<(u32, u64)>>,
    sums: BTreeMap<u32, u64>,
}

/// The compute side of one member.
#[derive(Debug)]
pub(crate) struct Compute {
    address: String,
    random: Random,
    held: Option<Held>,
    pending: Option<Pending>,
    /// What a joiner may copy.
    pub(crate) published: Option<Held>,
    world: Option<World>,
    busy: Option<Busy>,
    next_token: u64,
    aborted: u64,
    mailboxes: BTreeMap<(u64, u64), Mailbox>,
    /// How the host is sick.
    pub(crate) sick: Option<Sickness>,
    effects: Vec<Effect>,
    events: Vec<MemberEvent>,
}

impl Compute {
    pub(crate) fn new(address: String, random: Random) -> Self {
        Self {
            address,
            random,
            held: None,
            pending: None,
            published: None,
            world: None,
            busy: None,
            next_token: 0,
            aborted: 0,
            mailboxes: BTreeMap::new(),
            sick: None,
            effects: Vec::new(),
            events: Vec::new(),
        }
    }

    /// What is to be done outside, and what the machine is to be told.
    pub(crate) fn take_results(&mut self) -> (Vec<Effect>, Vec<MemberEvent>) {
        (std::mem::take(&mut self.effects), std::mem::take(&mut self.events))
    }

    fn begin(&mut self, order: Order, least: u64, most: u64) {
        if let Some(Busy { order: earlier, .. }) = &self.busy {
            let detail = format!("{order:?} is ordered while {earlier:?} is not answered");
            self.effects.push(Effect::Observe(Fact::Broken { what: "one order at a time", detail }));
        }
        self.next_token += 1;
        let token = self.next_token;
        let delay = self.random.between(least, most);
        self.effects.push(Effect::After { delay, wake: Wake::Compute(token) });
        self.busy = Some(Busy { token, order });
    }

    pub(crate) fn enter(&mut self, now: u64, assignment: Assignment, apply_pending: bool) {
        if apply_pending {
            self.apply_pending(assignment.epoch, assignment.step.wrapping_sub(1));
        }
        let own = assignment.members.iter().find(|member| member.exchange_address == self.address);
        let Some(own) = own.map(|member| member.member_id) else {
            let detail = format!("{} is not among {:?}", self.address, assignment.members);
            return self.effects.push(Effect::Observe(Fact::Broken { what: "assigned is a member", detail }));
        };
        self.published = None;
        let epoch = assignment.epoch;
        self.world = Some(World { epoch, own, members: assignment.members.clone() });
        self.mailboxes.retain(|(earlier, _), _| *earlier >= epoch);
        self.begin(Order::Entering { assignment, until: now + STEP_DEADLINE }, 1, 30);
    }

    pub(crate) fn reduce(&mut self, epoch: u64, step: u64) {
        self.pending = None;
        self.begin(Order::Computing { epoch, step }, 20, 400);
    }

    pub(crate) fn apply(&mut self, commit: &Commit) {
        if self.held.is_some_and(|held| held.step == commit.step) {
            if commit.skipped != corpus::is_skipped(commit.step) {
                let detail = format!("step {}: {}", commit.step, commit.skipped);
                self.effects.push(Effect::Observe(Fact::Broken { what: SKIPS_EXACT, detail }));
            }
            self.apply_pending(commit.epoch, commit.step);
        }
        if !commit.save_checkpoint.is_empty() {
            self.save(commit);
        }
        self.begin(Order::Applying { step: commit.step }, 1, 10);
    }

    fn apply_pending(&mut self, epoch: u64, step: u64) {
        let pending = self.pending.take().filter(|pending| pending.step == step);
        let held = self.held.filter(|held| held.step == step);
        let (Some(pending), Some(held)) = (pending, held) else {
            let detail = format!("{} is to apply step {step} of epoch {epoch}", self.address);
            return self.effects.push(Effect::Observe(Fact::Broken { what: "applied is reduced", detail }));
        };
        let state = corpus::applied(held.state, step, pending.gradient);
        self.held = Some(Held { step: step + 1, state });
        self.effects.push(Effect::Observe(Fact::Applied { step, state }));
    }

    fn save(&mut self, commit: &Commit) {
        let Some(held) = self.held.filter(|held| held.step == commit.step + 1) else {
            let detail = format!("{:?}, asked to save after step {}", self.held, commit.step);
            return self.effects.push(Effect::Observe(Fact::Broken { what: "saved is held", detail }));
        };
        let name = format!("part-{:05}-of-{:05}.safetensors", commit.part_index, commit.part_count);
        let checkpoint = commit.save_checkpoint.clone();
        let part = Part { step: held.step, state: held.state };
        let request = Request::PutPart { checkpoint: checkpoint.clone(), name: name.clone(), part };
        let ticket = Ticket::Part { checkpoint, name };
        self.effects.push(Effect::Ask { ticket: Box::new(ticket), request });
    }

    /// The store has answered about a part.
    pub(crate) fn part_stored(&mut self, checkpoint: String, part: String, reply: Result<Reply, String>) {
        self.events.push(match reply {
            Ok(_) => MemberEvent::PartStored(PartWritten {
                checkpoint,
                part,
                length: 8,
                blake3: "00".repeat(32),
                stall_seconds: 0.01,
                seconds: 0.1,
            }),
            Err(reason) => MemberEvent::PartFailed(PartFailed { checkpoint, reason }),
        });
    }

    /// Ends the collectives and copies of this epoch and of older ones.
    pub(crate) fn abort(&mut self, epoch: u64, reason: &str) {
        self.aborted = self.aborted.max(epoch);
        let is_ended = match self.busy.as_ref().map(|busy| &busy.order) {
            Some(Order::Entering { assignment, .. }) => assignment.epoch <= epoch,
            Some(Order::Exchanging { epoch: current, .. }) => *current <= epoch,
            _ => false,
        };
        if is_ended {
            self.fail(reason.to_owned(), Vec::new());
        }
    }

    fn fail(&mut self, reason: String, suspects: Vec<u32>) {
        let failure = Failure { reason, suspects };
        match self.busy.take().map(|busy| busy.order) {
            Some(Order::Entering { assignment, .. }) => self.events.push(MemberEvent::Entered {
                epoch: assignment.epoch,
                step: assignment.step,
                result: Err(failure),
            }),
            Some(Order::Computing { epoch, step } | Order::Exchanging { epoch, step, .. }) => {
                self.events.push(MemberEvent::Reduced { epoch, step, result: Err(failure) });
            }
            Some(Order::Applying { .. }) | None => {}
        }
    }

    pub(crate) fn wake(&mut self, now: u64, token: u64) {
        let Some(busy) = self.busy.take_if(|busy| busy.token == token) else { return };
        match busy.order {
            Order::Entering { assignment, until } => {
                self.busy =
                    Some(Busy { token, order: Order::Entering { assignment: assignment.clone(), until } });
                self.look_for_state(now, token, &assignment, until);
            }
            Order::Computing { epoch, step } => self.contribute(token, epoch, step),
            Order::Exchanging { epoch, step, sum } => {
                let missing = self.missing(epoch, step, sum.is_some());
                self.busy = Some(Busy { token, order: Order::Exchanging { epoch, step, sum } });
                self.fail("the others did not answer in time".into(), missing);
            }
            Order::Applying { step } => self.events.push(MemberEvent::Applied { step }),
        }
    }

    fn look_for_state(&mut self, now: u64, token: u64, assignment: &Assignment, until: u64) {
        if assignment.epoch <= self.aborted {
            return self.fail("the epoch was aborted".into(), Vec::new());
        }
        if self.held.is_some_and(|held| held.step == assignment.step) {
            return self.entered(assignment);
        }
        match &assignment.state {
            Some(assignment::State::Fresh(_)) if assignment.step == 0 => {
                self.held = Some(Held { step: 0, state: corpus::FRESH });
                self.entered(assignment);
            }
            Some(assignment::State::Checkpoint(name)) => {
                let request = Request::ReadState { checkpoint: name.clone() };
                self.effects.push(Effect::Ask { ticket: Box::new(Ticket::State { token }), request });
            }
            Some(assignment::State::Peer(address)) if now < until => {
                let (address, step) = (address.clone(), assignment.step);
                self.effects.push(Effect::Fetch { address, step, token });
            }
            Some(assignment::State::Peer(_)) => {
                self.fail("the peer does not hand out its state".into(), Vec::new());
            }
            other => {
                let detail = format!("{other:?} for step {}", assignment.step);
                self.effects.push(Effect::Observe(Fact::Broken { what: "the state can be had", detail }));
            }
        }
    }

    /// A peer or the store has answered about a state.
    pub(crate) fn fetched(&mut self, token: u64, found: Result<Option<Held>, String>) {
        let Some(Busy { order: Order::Entering { assignment, .. }, .. }) =
            self.busy.as_ref().filter(|busy| busy.token == token)
        else {
            return;
        };
        let assignment = assignment.clone();
        match found {
            Ok(Some(held)) if held.step == assignment.step => {
                self.held = Some(held);
                self.entered(&assignment);
            }
            Ok(Some(held)) => {
                let detail = format!("{held:?} for step {}", assignment.step);
                self.effects.push(Effect::Observe(Fact::Broken { what: "the state can be had", detail }));
            }
            // Its commit is still on the way.
            Ok(None) => self.effects.push(Effect::After { delay: 20, wake: Wake::Compute(token) }),
            Err(reason) => self.fail(reason, Vec::new()),
        }
    }

    fn entered(&mut self, assignment: &Assignment) {
        self.busy = None;
        self.pending = None;
        let is_source =
            matches!(&assignment.state, Some(assignment::State::Peer(peer)) if *peer == self.address);
        self.published = self.held.filter(|_| is_source);
        self.events.push(MemberEvent::Entered {
            epoch: assignment.epoch,
            step: assignment.step,
            result: Ok(()),
        });
    }

    fn contribute(&mut self, token: u64, epoch: u64, step: u64) {
        let world = self.world.as_ref().filter(|world| world.epoch == epoch);
        let held = self.held.filter(|held| held.step == step);
        let (Some(world), Some(held)) = (world, held) else {
            let detail = format!("epoch {epoch}, step {step} at {:?} with {:?}", self.world, self.held);
            return self.effects.push(Effect::Observe(Fact::Broken { what: "reduced is entered", detail }));
        };
        let own = world.own;
        match self.sick {
            None => {}
            Some(Sickness::Lacks) => return self.events.push(self.cannot_go_on()),
            Some(Sickness::Reads) => {
                self.busy = Some(Busy { token, order: Order::Exchanging { epoch, step, sum: None } });
                return self.fail(format!("the corpus {SICK}"), vec![own]);
            }
        }
        let Some(world) = &self.world else { return };
        self.busy = Some(Busy { token, order: Order::Exchanging { epoch, step, sum: None } });
        if epoch <= self.aborted {
            return self.fail("the epoch was aborted".into(), Vec::new());
        }
        let own: Vec<(u32, u64)> =
            own_slots(world).map(|slot| (slot, corpus::contribution(held.state, step, slot))).collect();
        let from = world.own;
        self.mailboxes.entry((epoch, step)).or_default().contributions.insert(from, own.clone());
        self.send_to_others(epoch, step, &Mail::Contributions(own));
        self.effects.push(Effect::After { delay: STEP_DEADLINE, wake: Wake::Compute(token) });
        self.check_exchange();
    }

    /// What a process says whose host lacks what it needs.
    pub(crate) fn cannot_go_on(&self) -> MemberEvent {
        MemberEvent::Failed { exit_code: 3, message: format!("{}: the corpus {SICK}", self.address) }
    }

    fn send_to_others(&mut self, epoch: u64, step: u64, mail: &Mail) {
        let Some(world) = &self.world else { return };
        for member in world.members.iter().filter(|member| member.member_id != world.own) {
            let push = Push { epoch, step, from: world.own, to: member.member_id, mail: mail.clone() };
            self.effects.push(Effect::Push { address: member.exchange_address.clone(), push });
        }
    }

    /// A buffer of another member has arrived.
    pub(crate) fn received(&mut self, push: Push) {
        let mailbox = self.mailboxes.entry((push.epoch, push.step)).or_default();
        match push.mail {
            Mail::Contributions(values) => drop(mailbox.contributions.insert(push.from, values)),
            Mail::Sum(sum) => drop(mailbox.sums.insert(push.from, sum)),
        }
        self.check_exchange();
    }

    /// A buffer could not be sent.
    pub(crate) fn push_failed(&mut self, push: &Push) {
        let is_current = matches!(
            self.busy.as_ref().map(|busy| &busy.order),
            Some(Order::Exchanging { epoch, step, .. }) if (*epoch, *step) == (push.epoch, push.step)
        );
        if is_current {
            self.fail(format!("member {} cannot be reached", push.to), vec![push.to]);
        }
    }

    /// Members that have not sent what is waited for.
    fn missing(&self, epoch: u64, step: u64, is_summed: bool) -> Vec<u32> {
        let Some(world) = self.world.as_ref().filter(|world| world.epoch == epoch) else { return Vec::new() };
        let mailbox = self.mailboxes.get(&(epoch, step));
        let has = |id: &u32| {
            mailbox.is_some_and(|mailbox| match is_summed {
                true => mailbox.sums.contains_key(id),
                false => mailbox.contributions.contains_key(id),
            })
        };
        world.members.iter().map(|member| member.member_id).filter(|id| !has(id)).collect()
    }

    fn check_exchange(&mut self) {
        let Some(Busy { order: Order::Exchanging { epoch, step, sum }, .. }) = &self.busy else { return };
        let (epoch, step, sum) = (*epoch, *step, *sum);
        let sum = match sum {
            Some(sum) => sum,
            None if self.missing(epoch, step, false).is_empty() => self.add_up(epoch, step),
            None => return,
        };
        if !self.missing(epoch, step, true).is_empty() {
            return;
        }
        let mailbox = self.mailboxes.remove(&(epoch, step)).unwrap_or_default();
        // A member that added other numbers spoils its part of the gradient.
        let gradient =
            mailbox.sums.values().fold(sum, |whole, part| if *part == sum { whole } else { whole ^ part });
        self.busy = None;
        self.pending = Some(Pending { step, gradient });
        let result = Ok(self.report(epoch, step, gradient));
        self.events.push(MemberEvent::Reduced { epoch, step, result });
    }

    fn add_up(&mut self, epoch: u64, step: u64) -> u64 {
        let mailbox = self.mailboxes.entry((epoch, step)).or_default();
        let mut values: Vec<(u32, u64)> = mailbox.contributions.values().flatten().copied().collect();
        values.sort_unstable();
        let sum = corpus::gradient(values.into_iter().map(|(_, value)| value));
        if let Some(world) = &self.world {
            mailbox.sums.insert(world.own, sum);
        }
        if let Some(Busy { order: Order::Exchanging { sum: known, .. }, .. }) = &mut self.busy {
            *known = Some(sum);
        }
        self.send_to_others(epoch, step, &Mail::Sum(sum));
        sum
    }

    fn report(&self, epoch: u64, step: u64, gradient: u64) -> StepDone {
        let mut used = blip2_dataset::coverage::Coverage::default();
        let mut done = StepDone { epoch, step, seconds: 0.05, ..StepDone::default() };
        for slot in self.world.iter().flat_map(own_slots) {
            let share = CORPUS.share(step, slot);
            used += share.coverage;
            done.samples += share.samples;
            done.quarantined.extend(share.quarantined.iter().map(|row| Quarantined {
                key: row.key.clone(),
                file: row.file.clone(),
                row_group: row.row_group,
                row: row.row,
                reason: row.reason.clone(),
                sample: row.sample,
                stage: row.stage,
                ..Quarantined::default()
            }));
        }
        let digest = used.digest.to_le_bytes().to_vec();
        done.coverage = Some(Coverage { stage: CORPUS.stage_of(step), samples: used.samples, digest });
        done.non_finite =
            corpus::is_skipped(step).then(|| NonFinite { term: "loss".into(), ..NonFinite::default() });
        done.values = vec![NamedValue { name: "loss".into(), value: (gradient >> 11) as f64 }];
        done
    }
}

fn own_slots(world: &World) -> std::ops::Range<u32> {
    let own = world.members.iter().find(|member| member.member_id == world.own);
    own.map_or(0..0, |own| own.first_slot..own.first_slot + own.slot_count)
}
