//! The session: finding a coordinator, being taken in, losing it, finding the next.

use std::time::Duration;

use blip2_proto::v1::coordinator_message::Kind as FromCoordinator;
use blip2_proto::v1::worker_message::Kind as ToCoordinator;
use blip2_proto::v1::{
    Failed, Heartbeat, Hello, Leaving, Ready, RefusalCode, Refused, Stop, StopKind, Welcome,
};

use super::interface::{MemberAction, MemberEnd};
use super::machine::MemberMachine;
use super::standing::{Link, Order, RunIdentity};

/// Pause before the first attempt to find a coordinator again; it doubles with every further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long a session may take to open.
const OPENING: Duration = Duration::from_secs(10);
/// How long a coordinator may take to answer a greeting.
const GREETING: Duration = Duration::from_secs(5);
/// How long a coordinator may take to note that this member failed.
const FAREWELL: Duration = Duration::from_secs(5);
/// Shortest pause between two signs of life.
const LEAST_HEARTBEAT: Duration = Duration::from_millis(10);

impl MemberMachine {
    pub(super) fn tick(&mut self) {
        if self.give_up_at.is_some_and(|at| self.now >= at) {
            return self.give_up();
        }
        match &mut self.link {
            Link::New => {
                self.give_up_at = Some(self.now + self.settings.join_timeout);
                self.open(Duration::ZERO);
            }
            Link::Opening { until } | Link::Greeting { until } if self.now >= *until => {
                self.actions.push(MemberAction::Close);
                self.closed("it does not answer".into());
            }
            Link::Joined { heartbeat, next } if self.now >= *next => {
                *next = self.now + *heartbeat;
                self.tell(ToCoordinator::Heartbeat(Heartbeat {}));
            }
            Link::Failing { exit_code, reason, until } if self.now >= *until => {
                let end = MemberEnd::Failed { exit_code: *exit_code, reason: std::mem::take(reason) };
                self.finish(end);
            }
            _ => {}
        }
    }

    /// Asks for a session with the next candidate, after the pause that is due or `at_least` this long.
    fn open(&mut self, at_least: Duration) {
        let is_first = self.run.is_none() && self.attempt == 0;
        let doublings = if self.run.is_none() { self.attempt.saturating_sub(1) } else { self.attempt };
        let pause = if is_first {
            Duration::ZERO
        } else {
            FIRST_PAUSE.saturating_mul(1 << doublings.min(16)).min(LONGEST_PAUSE)
        };
        let after = pause.max(at_least);
        self.actions.push(MemberAction::Open { attempt: self.attempt, after });
        self.attempt = self.attempt.saturating_add(1);
        self.link = Link::Opening { until: self.now + after + OPENING };
    }

    pub(super) fn opened(&mut self) {
        if !matches!(self.link, Link::Opening { .. }) {
            return;
        }
        self.link = Link::Greeting { until: self.now + GREETING };
        let hello = Hello {
            token: self.identity.token.clone(),
            binary: self.identity.binary.clone(),
            exchange_address: self.identity.exchange_address.clone(),
            name: self.identity.name.clone(),
            config_hash: self.identity.config_hash.clone(),
            run_id: self.run.as_ref().map_or(String::new(), |run| run.run_id.clone()),
            epoch: self.epoch,
            holds: self.holds,
            ledger: self.holds.map(|_| self.ledger.clone()),
        };
        self.actions.push(MemberAction::Send(ToCoordinator::Hello(hello)));
    }

    /// The session is gone without a word of the coordinator: the state is kept, and another session sought.
    pub(super) fn closed(&mut self, reason: String) {
        match &mut self.link {
            Link::New | Link::Lost | Link::Over => return,
            Link::Failing { exit_code, reason, .. } => {
                let end = MemberEnd::Failed { exit_code: *exit_code, reason: std::mem::take(reason) };
                return self.finish(end);
            }
            Link::Opening { .. } | Link::Greeting { .. } | Link::Joined { .. } => {}
        }
        self.seek(reason, Duration::ZERO);
    }

    /// Leaves a session that is not to be followed, and looks for another.
    pub(super) fn turn_away(&mut self, reason: String) {
        self.actions.push(MemberAction::Close);
        self.seek(reason, Duration::ZERO);
    }

    fn seek(&mut self, reason: String, at_least: Duration) {
        self.problem = reason;
        self.forget_orders();
        #[cfg(feature = "planted-bugs")]
        if self.run.is_some() && self.has(super::planted::PlantedBug::StaysAway) {
            self.link = Link::Opening { until: Duration::MAX };
            return;
        }
        if self.leaving {
            return self.leave_alone();
        }
        if self.run.is_some() && self.give_up_at.is_none() {
            if self.settings.reconnect_timeout.is_zero() {
                return self.finish(MemberEnd::Unreachable { reason: self.problem.clone() });
            }
            self.give_up_at = Some(self.now + self.settings.reconnect_timeout);
        }
        if let Some(Order::Enter { epoch, .. }) = &self.order {
            // What the greeting says of the state must still be true when the coordinator acts on it.
            let (epoch, reason) = (*epoch, self.problem.clone());
            self.actions.push(MemberAction::Abort { epoch, reason });
            self.link = Link::Lost;
            return;
        }
        self.open(at_least);
    }

    /// Compute has answered what a lost session had asked of it.
    pub(super) fn seek_if_lost(&mut self) {
        if matches!(self.link, Link::Lost) {
            self.open(Duration::ZERO);
        }
    }

    fn give_up(&mut self) {
        let timeout =
            if self.run.is_some() { self.settings.reconnect_timeout } else { self.settings.join_timeout };
        let last = if self.problem.is_empty() { "nobody answered" } else { &self.problem };
        let reason = format!("no coordinator took this worker for {:.0} s: {last}", timeout.as_secs_f64());
        self.finish(MemberEnd::Unreachable { reason });
    }

    pub(super) fn received(&mut self, message: FromCoordinator) {
        match (&self.link, message) {
            (Link::Greeting { .. }, FromCoordinator::Welcome(welcome)) => self.welcomed(welcome),
            (Link::Greeting { .. }, FromCoordinator::Refused(refused)) => self.refused(refused),
            (Link::Greeting { .. }, FromCoordinator::Stop(stop)) => self.stopped(stop),
            (Link::Greeting { .. }, _) => self.turn_away("it answered a greeting with an order".into()),
            (Link::Joined { .. }, FromCoordinator::Assignment(assignment)) => self.assigned(assignment),
            (Link::Joined { .. }, FromCoordinator::Commit(commit)) => self.committed(commit),
            (Link::Joined { .. }, FromCoordinator::Abort(abort)) => self.aborted(abort),
            (Link::Joined { .. } | Link::Failing { .. }, FromCoordinator::Stop(stop)) => self.stopped(stop),
            // A greeting answered twice, or the last words of a session that is over.
            _ => {}
        }
    }

    fn welcomed(&mut self, welcome: Welcome) {
        if welcome.epoch < self.epoch {
            let (theirs, known) = (welcome.epoch, self.epoch);
            return self.turn_away(format!("its newest epoch is {theirs}, epoch {known} is known"));
        }
        if let Some(difference) = self.run.as_ref().and_then(|run| run.differs(&welcome)) {
            return self.finish(MemberEnd::Refused { reason: difference });
        }
        self.epoch = welcome.epoch;
        self.member_id = Some(welcome.member_id);
        self.attempt = 0;
        self.give_up_at = None;
        let heartbeat = Duration::from_millis(welcome.heartbeat_ms.into()).max(LEAST_HEARTBEAT);
        self.link = Link::Joined { heartbeat, next: self.now + heartbeat };
        if self.run.is_none() {
            self.run = Some(RunIdentity::of(&welcome));
            self.actions.push(MemberAction::Prepare(welcome));
        } else if self.prepared {
            self.tell(ToCoordinator::Ready(Ready::default()));
        }
        if self.leaving {
            self.tell(ToCoordinator::Leaving(Leaving {}));
        }
    }

    fn refused(&mut self, refused: Refused) {
        let code = refused.code();
        let tries_on = match code {
            RefusalCode::RefusalStandby | RefusalCode::RefusalFenced | RefusalCode::RefusalCooldown => true,
            // Its own place is not given back to the run yet.
            RefusalCode::RefusalFull => self.run.is_some(),
            _ => false,
        };
        if !tries_on {
            return self.finish(MemberEnd::Refused { reason: refused.reason });
        }
        // A stand-by says where the leader is: no reason to wait for longer than the next attempt.
        let pause = match code {
            RefusalCode::RefusalCooldown | RefusalCode::RefusalFull => refused.retry_after_ms,
            _ => 0,
        };
        self.actions.push(MemberAction::Close);
        self.seek(refused.reason, Duration::from_millis(pause.into()));
    }

    pub(super) fn stopped(&mut self, stop: Stop) {
        if let Link::Failing { exit_code, reason, .. } = &mut self.link {
            if stop.kind() == StopKind::StopExcluded {
                return self.finish(MemberEnd::Refused { reason: stop.reason });
            }
            let end = MemberEnd::Failed { exit_code: *exit_code, reason: std::mem::take(reason) };
            return self.finish(end);
        }
        match stop.kind() {
            StopKind::StopDone => self.finish(MemberEnd::Done),
            StopKind::StopInterrupted => self.finish(MemberEnd::Interrupted),
            StopKind::StopReleased => self.finish(MemberEnd::Released),
            StopKind::StopExcluded => self.finish(MemberEnd::Refused { reason: stop.reason }),
            StopKind::StopFailed | StopKind::StopUnspecified => {
                self.finish(MemberEnd::Failed { exit_code: stop.exit_code.max(1), reason: stop.reason });
            }
            StopKind::StopRejoin => {
                // The others go on without this member: nobody completes its collectives.
                if let Some(epoch) = self.assigned {
                    self.abort_up_to(epoch, &stop.reason);
                }
                self.turn_away(stop.reason);
            }
        }
    }

    /// The run ended while this member was away.
    pub(super) fn run_over(&mut self, how: &str) {
        if !matches!(self.link, Link::Opening { .. }) {
            return;
        }
        match how {
            "done" => self.finish(MemberEnd::Done),
            "interrupted" => self.finish(MemberEnd::Interrupted),
            _ => {
                let reason = format!("the run ended ({how}) while this worker was away");
                self.finish(MemberEnd::Failed { exit_code: 1, reason });
            }
        }
    }

    pub(super) fn prepared(&mut self) {
        if !std::mem::replace(&mut self.prepared, true) {
            self.tell(ToCoordinator::Ready(Ready::default()));
        }
    }

    pub(super) fn failed(&mut self, exit_code: u32, message: String) {
        if !self.is_joined() {
            return self.finish(MemberEnd::Failed { exit_code, reason: message });
        }
        self.tell(ToCoordinator::Failed(Failed { exit_code, message: message.clone() }));
        self.link = Link::Failing { exit_code, reason: message, until: self.now + FAREWELL };
    }

    pub(super) fn leave_requested(&mut self) {
        if std::mem::replace(&mut self.leaving, true) {
            return;
        }
        match self.link {
            Link::Joined { .. } => self.tell(ToCoordinator::Leaving(Leaving {})),
            Link::Failing { .. } => {}
            _ => self.leave_alone(),
        }
    }

    /// Nobody is there who could save the state or let this member go.
    fn leave_alone(&mut self) {
        let state = match self.holds {
            Some(step) => format!("the state after {step} steps that it held is given up"),
            None => "it held no state".into(),
        };
        let reason = format!("asked to leave while it had no coordinator; {state}");
        self.finish(MemberEnd::Left { reason });
    }
}
