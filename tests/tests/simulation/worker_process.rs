//! A worker's process: the member machine of production in a simulated shell.

use std::collections::VecDeque;
use std::time::Duration;

use blip2_proto::v1::coordinator_message::Kind as FromCoordinator;
use blip2_proto::v1::worker_message::Kind as FromWorker;
use blip2_run::epoch::EpochRecord;
use blip2_worker::member::{
    MemberAction, MemberEnd, MemberEvent, MemberIdentity, MemberMachine, MemberSettings,
};

use crate::compute::Compute;
use crate::network::{Content, SessionId};
use crate::process::{Effect, Input, Ticket, Wake, newest};
use crate::random::Random;
use crate::store::{Reply, Request};

/// The token, executable and configuration of the simulated run.
pub(crate) const TOKEN: &str = "secret";
pub(crate) const BINARY: &str = "0.1.0 abc";
pub(crate) const CONFIG_HASH: &str = "cafe";

/// Milliseconds between two looks for another leader while there is a session.
const WATCH_EVERY: u64 = 2_000;

/// A worker.
#[derive(Debug)]
pub(crate) struct WorkerProcess {
    machine: MemberMachine,
    pub(crate) compute: Compute,
    random: Random,
    /// Addresses of coordinators that it was started with.
    given: Vec<String>,
    /// The address that one which does not lead has named.
    hint: String,
    /// The newest epoch's record it has seen.
    leader: Option<EpochRecord>,
    /// It knows the run's store.
    knows_run: bool,
    session: Option<SessionId>,
    /// Openings asked for; answers to earlier ones do not count.
    opening: u64,
    attempt: u32,
    /// Who is still to be tried in this attempt.
    candidates: VecDeque<String>,
    /// The newest introduction, for a fault that repeats it.
    pub(crate) last_hello: Option<FromWorker>,
    effects: Vec<Effect>,
}

impl WorkerProcess {
    pub(crate) fn new(address: &str, name: &str, given: Vec<String>, mut random: Random) -> Self {
        let identity = MemberIdentity {
            token: TOKEN.into(),
            binary: BINARY.into(),
            exchange_address: address.into(),
            name: name.into(),
            config_hash: CONFIG_HASH.into(),
        };
        let settings = MemberSettings {
            join_timeout: Duration::from_secs(120),
            reconnect_timeout: Duration::from_secs(300),
        };
        let compute = Compute::new(address.into(), Random::new(random.next(), 7));
        Self {
            machine: MemberMachine::new(identity, settings),
            compute,
            random,
            given,
            hint: String::new(),
            leader: None,
            knows_run: false,
            session: None,
            opening: 0,
            attempt: 0,
            candidates: VecDeque::new(),
            last_hello: None,
            effects: Vec::new(),
        }
    }

    #[cfg(feature = "planted-bugs")]
    pub(crate) fn plant(&mut self, bug: blip2_worker::member::PlantedBug) {
        self.machine.plant(bug);
    }

    /// Takes in something; `local` is the process's own clock.
    pub(crate) fn take_in(&mut self, now: u64, local: Duration, input: Input) -> Vec<Effect> {
        match input {
            Input::Tick => self.tell(now, local, MemberEvent::Tick),
            Input::Terminate => self.tell(now, local, MemberEvent::LeaveRequested),
            Input::Connected { attempt, session } if attempt == self.opening => {
                self.session = Some(session);
                self.tell(now, local, MemberEvent::Opened);
            }
            // It was given up meanwhile.
            Input::Connected { session, .. } => self.close(session),
            Input::OpenFailed { attempt, reason } if attempt == self.opening && self.session.is_none() => {
                self.open_failed(now, local, reason);
            }
            Input::Arrived(session, content) if self.session == Some(session) => {
                self.arrived(now, local, session, *content);
            }
            Input::Stored { ticket, reply } => self.stored(now, local, *ticket, reply),
            Input::Woken(Wake::Prepared) => {
                let prepared = match self.compute.sick {
                    Some(_) => self.compute.cannot_go_on(),
                    None => MemberEvent::Prepared,
                };
                self.tell(now, local, prepared);
            }
            Input::Woken(Wake::Open(opening)) if opening == self.opening => self.look_up(),
            Input::Woken(Wake::Watch) if self.machine.is_joined() => {
                let ticket = Box::new(Ticket::Watch);
                self.effects.push(Effect::Ask { ticket, request: Request::Epochs });
            }
            Input::Woken(Wake::Watch) => self.watch_later(),
            Input::Woken(Wake::Leave) => {}
            Input::Woken(Wake::Compute(token)) => self.compute.wake(now, token),
            Input::Received(push) => self.compute.received(push),
            Input::PushFailed(push) => self.compute.push_failed(&push),
            Input::Fetched { token, found } => self.compute.fetched(token, found),
            _ => {}
        }
        self.pump(now, local, VecDeque::new());
        std::mem::take(&mut self.effects)
    }

    fn open_failed(&mut self, now: u64, local: Duration, reason: String) {
        if !self.try_next() {
            self.tell(now, local, MemberEvent::Closed { reason });
        }
    }

    fn arrived(&mut self, now: u64, local: Duration, session: SessionId, content: Content) {
        match content {
            Content::Down(message) => {
                if let FromCoordinator::Refused(refused) = &message {
                    self.hint.clone_from(&refused.leader);
                }
                self.tell(now, local, MemberEvent::Received(message));
            }
            Content::End => {
                self.hang_up(session);
                self.tell(now, local, MemberEvent::Closed { reason: "the stream ended".into() });
            }
            Content::Up(_) => {}
        }
    }

    fn hang_up(&mut self, session: SessionId) {
        self.session = None;
        self.close(session);
    }

    fn close(&mut self, session: SessionId) {
        self.effects.push(Effect::Drop { session });
        self.effects.push(Effect::Post { session, to_worker: false, content: Content::End });
    }

    fn stored(&mut self, now: u64, local: Duration, ticket: Ticket, reply: Result<Reply, String>) {
        match ticket {
            Ticket::Part { checkpoint, name } => self.compute.part_stored(checkpoint, name, reply),
            Ticket::State { token } => {
                let found = reply.map(|reply| match reply {
                    Reply::State(part) => Some(crate::compute::Held { step: part.step, state: part.state }),
                    _ => None,
                });
                self.compute.fetched(token, found);
            }
            Ticket::Leader { opening } if opening == self.opening => {
                let is_news = match reply {
                    Ok(Reply::Epochs(epochs)) => self.found(newest(&epochs)),
                    _ => false,
                };
                self.take_turn(is_news);
            }
            Ticket::Watch => {
                self.watch_later();
                if let Ok(Reply::Epochs(epochs)) = reply {
                    self.watched(now, local, &epochs);
                }
            }
            _ => {}
        }
        self.pump(now, local, VecDeque::new());
    }

    /// Takes note of the newest epoch's record; whether it was not known yet.
    fn found(&mut self, record: Option<&EpochRecord>) -> bool {
        let known = self.leader.as_ref().map(|record| record.epoch);
        let is_news = record.map(|record| record.epoch) > known;
        if is_news {
            self.leader = record.cloned();
        }
        is_news
    }

    fn watch_later(&mut self) {
        self.effects.push(Effect::After { delay: WATCH_EVERY, wake: Wake::Watch });
    }

    /// Leaves a coordinator that hangs or is cut off while another one leads.
    fn watched(&mut self, now: u64, local: Duration, epochs: &[EpochRecord]) {
        let known = self.machine.epoch();
        let own = epochs.iter().find(|record| record.epoch == known).map(|record| &record.coordinator);
        let other = epochs.iter().find(|record| record.epoch > known && Some(&record.coordinator) != own);
        let (Some(other), Some(session), Some(_)) = (other, self.session, own) else { return };
        self.found(Some(other));
        self.hang_up(session);
        self.tell(now, local, MemberEvent::Closed { reason: "another coordinator leads".into() });
    }

    /// Looks where the newest leader is, once the run's store is known.
    fn look_up(&mut self) {
        if !self.knows_run {
            return self.take_turn(false);
        }
        let ticket = Box::new(Ticket::Leader { opening: self.opening });
        self.effects.push(Effect::Ask { ticket, request: Request::Epochs });
    }

    /// The candidates of this attempt, who is named first, beginning with another one at every attempt.
    fn take_turn(&mut self, is_news: bool) {
        let leader = self.leader.as_ref().map_or(String::new(), |record| record.address.clone());
        let mut candidates: Vec<String> = Vec::new();
        let hint = std::mem::take(&mut self.hint);
        // Whoever has just begun to lead is tried before those who stood by a moment ago.
        let (named, turn) = if is_news { ([leader, hint], 0) } else { ([hint, leader], self.attempt) };
        for address in named.iter().chain(&self.given) {
            if !address.is_empty() && !candidates.contains(address) {
                candidates.push(address.clone());
            }
        }
        let first = turn as usize % candidates.len().max(1);
        candidates.rotate_left(first);
        self.candidates = candidates.into();
        self.try_next();
    }

    /// Whether there was one more candidate to try.
    fn try_next(&mut self) -> bool {
        let Some(address) = self.candidates.pop_front() else { return false };
        self.opening += 1;
        self.effects.push(Effect::Connect { attempt: self.opening, address });
        true
    }

    fn tell(&mut self, now: u64, local: Duration, event: MemberEvent) {
        self.pump(now, local, VecDeque::from([event]));
    }

    /// Lets machine and compute talk until neither has anything to say.
    fn pump(&mut self, now: u64, local: Duration, mut events: VecDeque<MemberEvent>) {
        loop {
            let (effects, answers) = self.compute.take_results();
            self.effects.extend(effects);
            events.extend(answers);
            let Some(event) = events.pop_front() else { return };
            for action in self.machine.step(local, event) {
                self.act(now, action);
            }
        }
    }

    fn act(&mut self, now: u64, action: MemberAction) {
        match action {
            MemberAction::Open { attempt, after } => {
                if let Some(session) = self.session {
                    self.hang_up(session);
                }
                self.opening += 1;
                self.attempt = attempt;
                self.candidates.clear();
                let delay = after.as_millis() as u64;
                self.effects.push(Effect::After { delay, wake: Wake::Open(self.opening) });
            }
            MemberAction::Send(message) => {
                if matches!(message, FromWorker::Hello(_)) {
                    self.last_hello = Some(message.clone());
                }
                if let Some(session) = self.session {
                    let content = Content::Up(message);
                    self.effects.push(Effect::Post { session, to_worker: false, content });
                }
            }
            MemberAction::Close => {
                // An opening under way is given up too.
                self.opening += 1;
                if let Some(session) = self.session {
                    self.hang_up(session);
                }
            }
            MemberAction::Prepare(_) => {
                self.knows_run = true;
                self.watch_later();
                let delay = self.random.between(50, 3000);
                self.effects.push(Effect::After { delay, wake: Wake::Prepared });
            }
            MemberAction::Enter { assignment, apply_pending } => {
                self.compute.enter(now, assignment, apply_pending);
            }
            MemberAction::Reduce { epoch, step } => self.compute.reduce(epoch, step),
            MemberAction::Apply(commit) => self.compute.apply(&commit),
            MemberAction::Abort { epoch, reason } => self.compute.abort(epoch, &reason),
            MemberAction::Finish(end) => self.finish(end),
        }
    }

    fn finish(&mut self, end: MemberEnd) {
        if let Some(session) = self.session {
            self.hang_up(session);
        }
        let is_failure = matches!(end, MemberEnd::Failed { .. });
        self.effects.push(Effect::Exit { is_failure, reason: format!("{end:?}") });
    }
}
