//! Who may join.

use blip2_proto::same_token;
use blip2_proto::v1::coordinator_message::Kind as ToWorker;
use blip2_proto::v1::{Hello, RefusalCode, Refused, Welcome};

use super::{Action, Machine, Member, Phase, SessionId};

/// Longest name and address a worker may have.
const MAX_TEXT: usize = 256;

impl Machine {
    pub(super) fn joined(&mut self, session: SessionId, hello: Hello) {
        if self.member_of(session).is_some() {
            return;
        }
        if let Err((code, reason)) = self.check(&hello) {
            tracing::warn!(worker = %hello.name.escape_debug(), %reason, "a worker was refused");
            return self.refuse(session, code, reason);
        }
        // A worker that was restarted where the old one was replaces it.
        let replaced = self.members.iter().find(|(_, member)| member.address == hello.exchange_address);
        if let Some(id) = replaced.map(|(id, _)| *id) {
            self.expel(id, "another worker took its place");
        }
        if self.is_ended() {
            return self.refuse_closed(session);
        }
        let most = self.settings.most_workers(self.spec.slots);
        if self.members.len() >= most {
            return self.refuse(session, RefusalCode::RefusalFull, format!("the run has its {most} workers"));
        }
        let id = self.next_member;
        self.next_member += 1;
        tracing::info!(member = id, name = %hello.name, address = %hello.exchange_address, "a worker joined");
        let member = Member {
            session,
            name: hello.name,
            address: hello.exchange_address,
            last_seen: self.now,
            holds: None,
            leaving: false,
            strikes: 0,
            data_wait_share: 0.0,
        };
        self.members.insert(id, member);
        let step_deadline = self.settings.step_deadline().as_millis();
        let welcome = Welcome {
            member_id: id,
            run_id: self.spec.run_id.clone(),
            run_root: self.spec.run_root.to_string(),
            config_toml: self.spec.config_toml.clone(),
            config_hash: self.spec.config_hash.clone(),
            manifest_hash: self.spec.manifest_hash.clone(),
            heartbeat_ms: self.settings.heartbeat_ms,
            step_deadline_ms: u32::try_from(step_deadline).unwrap_or(u32::MAX),
            epoch: self.epoch,
        };
        self.send(id, ToWorker::Welcome(welcome));
        if matches!(self.phase, Phase::Gathering { wanted, .. } if self.staying() >= wanted) {
            self.regroup();
        }
    }

    /// Whether a worker belongs to this run, or why not.
    fn check(&self, hello: &Hello) -> Result<(), (RefusalCode, String)> {
        let refused = |code, reason: String| Err((code, reason));
        if !same_token(&hello.token, &self.spec.token) {
            return refused(
                RefusalCode::RefusalToken,
                "the token is not this run's; start it with the run's token file".into(),
            );
        }
        if hello.name.len() > MAX_TEXT
            || hello.exchange_address.is_empty()
            || hello.exchange_address.len() > MAX_TEXT
        {
            return refused(
                RefusalCode::RefusalProtocol,
                format!("an exchange address is needed, and name and address have at most {MAX_TEXT} bytes"),
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
        if self.stopping.is_some() || matches!(self.phase, Phase::Saving) {
            return refused(RefusalCode::RefusalClosed, "the run is ending".into());
        }
        Ok(())
    }

    fn refuse(&mut self, session: SessionId, code: RefusalCode, reason: String) {
        let refused = ToWorker::Refused(Refused { code: code.into(), reason, ..Refused::default() });
        self.actions.push(Action::Send { session, message: refused });
        self.actions.push(Action::Close { session });
    }

    pub(super) fn refuse_closed(&mut self, session: SessionId) {
        self.refuse(session, RefusalCode::RefusalClosed, "the run is over".into());
    }
}
