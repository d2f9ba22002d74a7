//! Who may join.

use std::time::Duration;

use blip2_proto::bounds::{MAX_IDENTIFIER, is_identifier};
use blip2_proto::text::visible;
use blip2_proto::token::same_token;
use blip2_proto::v1::coordinator_message::Kind as ToWorker;
use blip2_proto::v1::{Hello, RefusalCode, Refused, Welcome};

use super::complaint::place;
use super::interface::{Action, SessionId};
use super::phase::Phase;
use super::state::{Machine, Member};

/// Why a worker may not join.
#[derive(Debug)]
pub(super) struct Refusal {
    code: RefusalCode,
    reason: String,
    /// When it may come again, if at all.
    retry_after: Duration,
}

impl From<(RefusalCode, String)> for Refusal {
    fn from((code, reason): (RefusalCode, String)) -> Self {
        Self { code, reason, retry_after: Duration::ZERO }
    }
}

impl Machine {
    pub(super) fn joined(&mut self, session: SessionId, hello: Hello) {
        if self.member_of(session).is_some() {
            return;
        }
        if let Err(refusal) = self.check(&hello).and_then(|()| self.check_time(&hello)) {
            // Nothing is repeated of one that may be anybody.
            let name = if refusal.code == RefusalCode::RefusalToken { "" } else { hello.name.as_str() };
            let worker = visible(name, MAX_IDENTIFIER);
            tracing::warn!(worker, reason = %refusal.reason, "a worker was refused");
            if refusal.code == RefusalCode::RefusalFenced {
                self.ask_who_leads();
            }
            return self.refuse(session, refusal);
        }
        self.replace(&hello);
        if self.is_ended() {
            return self.joined_too_late(session, &hello);
        }
        let most = self.settings.most_workers(self.spec.slots);
        if self.members.len() >= most {
            let reason = format!("the run has its {most} workers");
            return self.refuse(session, (RefusalCode::RefusalFull, reason).into());
        }
        let id = self.next_member;
        self.next_member += 1;
        let held = self.held_by(&hello);
        tracing::info!(
            member = id, name = %hello.name, address = %hello.exchange_address,
            holds = held.as_ref().map(|held| held.step), "a worker joined"
        );
        let member = Member {
            session,
            name: hello.name,
            address: hello.exchange_address,
            joined: self.now,
            last_seen: self.now,
            is_ready: false,
            has_rejoined: !hello.run_id.is_empty(),
            held,
            is_leaving: false,
            strikes: 0,
            accusers: 0,
            part_failures: 0,
            data_wait_share: 0.0,
            device: None,
            device_use: None,
        };
        self.members.insert(id, member);
        self.doubt_holders();
        let step_deadline = self.settings.step_deadline().as_millis();
        let welcome = Welcome {
            member_id: id,
            run_id: self.spec.run_id.clone(),
            run_root: self.spec.run_root.exposed(),
            config_toml: self.spec.config_toml.clone(),
            config_hash: self.spec.config_hash.clone(),
            manifest_hash: self.spec.manifest_hash.clone(),
            heartbeat_ms: self.settings.heartbeat_ms,
            step_deadline_ms: u32::try_from(step_deadline).unwrap_or(u32::MAX),
            epoch: self.epoch,
        };
        self.send(id, ToWorker::Welcome(welcome));
        self.extend_grace_for_rejoiners();
    }

    /// A worker that comes again from where one is takes its place.
    fn replace(&mut self, hello: &Hello) {
        let same_place = |member: &Member| member.address == hello.exchange_address;
        let Some(id) = self.members.iter().find(|(_, member)| same_place(member)).map(|(id, _)| *id) else {
            return;
        };
        if hello.run_id.is_empty() {
            return self.expel(id, "another worker took its place");
        }
        // The same process on a new connection: the old one must not tell it to go.
        if let Some(member) = self.members.get(&id) {
            self.actions.push(Action::Close { session: member.session });
        }
        self.lost(id, "it came again on another connection");
    }

    /// Whether a worker belongs to this run, or why not.
    pub(super) fn check(&self, hello: &Hello) -> Result<(), Refusal> {
        let refused = |code, reason: String| Err(Refusal::from((code, reason)));
        if !same_token(&hello.token, &self.spec.token) {
            return refused(
                RefusalCode::RefusalToken,
                "the token is not this run's; start it with the run's token file".into(),
            );
        }
        let texts = [&hello.name, &hello.exchange_address, &hello.run_id, &hello.binary, &hello.config_hash];
        if hello.exchange_address.is_empty() || !texts.iter().all(|text| is_identifier(text)) {
            return refused(
                RefusalCode::RefusalProtocol,
                format!(
                    "an exchange address is needed, and name, address, run, binary and hash are a line of at most \
                     {MAX_IDENTIFIER} bytes each"
                ),
            );
        }
        if !hello.run_id.is_empty() && hello.run_id != self.spec.run_id {
            let (theirs, ours) = (hello.run_id.escape_debug(), &self.spec.run_id);
            return refused(
                RefusalCode::RefusalRun,
                format!("it is part of run {theirs}, this is run {ours}; start a new worker for this one"),
            );
        }
        if hello.binary != self.spec.binary {
            let (theirs, ours) = (hello.binary.escape_debug(), &self.spec.binary);
            return refused(
                RefusalCode::RefusalBinary,
                format!("its executable is {theirs}, the run's is {ours}; use the same build everywhere"),
            );
        }
        if !hello.config_hash.is_empty() && hello.config_hash != self.spec.config_hash {
            let (theirs, ours) = (hello.config_hash.escape_debug(), &self.spec.config_hash);
            return refused(
                RefusalCode::RefusalConfiguration,
                format!(
                    "its training configuration has hash {theirs}, the run's has {ours}; use the run's or none"
                ),
            );
        }
        Ok(())
    }

    /// Whether a worker of this run may join now.
    fn check_time(&self, hello: &Hello) -> Result<(), Refusal> {
        if hello.epoch > self.epoch {
            let reason = format!(
                "it knows epoch {} of this run, the newest here is {}: another coordinator leads",
                hello.epoch, self.epoch
            );
            return Err((RefusalCode::RefusalFenced, reason).into());
        }
        if let Some(left) = self.flaps.away_for(self.now, &place(&hello.name, &hello.exchange_address)) {
            let (limit, seconds) = (self.settings.flap_limit, left.as_secs_f64());
            return Err(Refusal {
                code: RefusalCode::RefusalCooldown,
                reason: format!(
                    "it was lost {limit} times within {} s; it may come again in {seconds:.0} s",
                    self.settings.flap_window_s
                ),
                retry_after: left,
            });
        }
        // Who was in the run may hold the state that is to be saved.
        let is_ending = self.stopping.is_some() || matches!(self.phase, Phase::Saving { .. });
        if is_ending && hello.run_id.is_empty() {
            return Err((RefusalCode::RefusalClosed, "the run is ending".to_owned()).into());
        }
        Ok(())
    }

    pub(super) fn refuse(&mut self, session: SessionId, refusal: Refusal) {
        let refused = Refused {
            code: refusal.code.into(),
            reason: refusal.reason,
            retry_after_ms: u32::try_from(refusal.retry_after.as_millis()).unwrap_or(u32::MAX),
            ..Refused::default()
        };
        self.actions.push(Action::Send { session, message: ToWorker::Refused(refused) });
        self.actions.push(Action::Close { session });
    }
}
