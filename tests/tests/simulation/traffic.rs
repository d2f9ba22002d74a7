//! What goes between processes: connections and messages, the members' exchange, questions to the store and
//! to leaders.

use blip2_proto::v1::Commit;

use crate::invariants::Observer;
use crate::network::{Content, KERNEL_TIMEOUT, Parcel, ProcessId, Session, SessionId};
use crate::process::{Input, Leading, Ticket};
use crate::schedule::Node;
use crate::store::Request;
use crate::world::{Due, Process, Role, World};

/// Milliseconds after which a request to a store that cannot be reached fails.
const STORE_TIMEOUT: (u64, u64) = (1_000, 4_000);
/// Milliseconds a stand-by waits for the leader's answer.
const PROBE_TIMEOUT: u64 = 1_000;
/// Milliseconds within which a connection must be accepted.
const CONNECT_TIMEOUT: u64 = 2_000;

impl World {
    pub(crate) fn end_of(&mut self, session: SessionId, node: Node) -> &mut crate::network::End {
        // Sessions are never removed, and only their own processes name them.
        let session = self.sessions.get_mut(&session).expect("a session that was opened");
        session.end(matches!(node, Node::Worker(_)))
    }

    pub(crate) fn ask(&mut self, id: ProcessId, ticket: Box<Ticket>, request: Request) {
        let node = self.processes[id].node;
        if self.network.is_cut_any_way(node, Node::Store) {
            let reply = Err("the store cannot be reached".into());
            let (least, most) = STORE_TIMEOUT;
            return self.after(least, most, Due::Input(id, Input::Stored { ticket, reply }));
        }
        let delay = self.random.between(1, 25) + self.store.slowness(node);
        let request = Box::new(request);
        self.at(self.now + delay, Due::Store { process: id, node, ticket, request });
    }

    /// The moment at which a request takes effect, whether who asked still lives or not.
    pub(crate) fn serve(&mut self, process: ProcessId, node: Node, ticket: Box<Ticket>, request: Request) {
        let name = match &request {
            Request::Commit { record, .. } => Some(record.name.clone()),
            _ => None,
        };
        let reply = self.store.serve(node, request);
        let found = self.store.committed().find(|(record, _)| Some(&record.name) == name.as_ref());
        if let Some(Err(violation)) = found.map(|(record, found)| Observer::stored(record, found)) {
            self.violate(violation);
        }
        self.after(1, 10, Due::Input(process, Input::Stored { ticket, reply }));
    }

    pub(crate) fn begin_connect(&mut self, id: ProcessId, attempt: u64, address: &str) {
        let (from, to) = (self.processes[id].node, node_of(address));
        let failed = Input::OpenFailed { attempt, reason: "no answer".into() };
        self.at(self.now + CONNECT_TIMEOUT, Due::Input(id, failed));
        if !self.network.is_cut_any_way(from, to) {
            let delay = self.delay(from, to);
            self.at(self.now + delay, Due::Connect { process: id, attempt, to });
        }
    }

    pub(crate) fn connect(&mut self, process: ProcessId, attempt: u64, to: Node) {
        let from = self.processes[process].node;
        let Some(coordinator) = self.alive_at(to) else {
            let delay = self.delay(to, from);
            let failed = Input::OpenFailed { attempt, reason: "refused".into() };
            return self.at(self.now + delay, Due::Input(process, failed));
        };
        let session = self.open(process, (coordinator, to), attempt);
        self.input(coordinator, Input::Opened(session));
    }

    /// A connection between a worker and a coordinator.
    pub(crate) fn open(
        &mut self,
        worker: ProcessId,
        coordinator: (ProcessId, Node),
        attempt: u64,
    ) -> SessionId {
        self.next_session += 1;
        let node = self.processes[worker].node;
        self.sessions.insert(self.next_session, Session::new((worker, node), coordinator, attempt));
        self.next_session
    }

    pub(crate) fn accept(&mut self, session: SessionId) {
        let Some(Session { worker, coordinator, attempt }) = self.sessions.get(&session).cloned() else {
            return;
        };
        if !self.processes[worker.process].is_alive {
            return self.break_end(session, false);
        }
        let delay = self.delay(coordinator.node, worker.node);
        let earliest = self.now + delay;
        let time = self.end_of(session, worker.node).in_order(earliest);
        self.at(time, Due::Input(worker.process, Input::Connected { attempt, session }));
    }

    /// Sends on a connection; what a cut link does not let through waits.
    pub(crate) fn post(&mut self, parcel: Parcel) {
        let Some(session) = self.sessions.get_mut(&parcel.session) else { return };
        let (from, to) = (session.end(!parcel.to_worker).clone(), session.end(parcel.to_worker).clone());
        if from.is_broken {
            return;
        }
        if self.network.is_cut(from.node, to.node) {
            return self.network.hold(from.node, to.node, parcel);
        }
        if self.trace.is_some() && !is_heartbeat(&parcel.content) {
            let (one, other) =
                (self.processes[from.process].name.clone(), self.processes[to.process].name.clone());
            self.note(|| format!("{one} -> {other} #{}: {}", parcel.session, brief(&parcel.content)));
        }
        let delay = self.delay(from.node, to.node);
        let now = self.now;
        let end = self.end_of(parcel.session, to.node);
        let time = end.in_order(now + delay);
        if end.takes_repeat(&parcel.content) {
            self.at(time, Due::Deliver(Box::new(parcel.clone())));
        }
        self.at(time, Due::Deliver(Box::new(parcel)));
    }

    /// Sends what waited for a link to heal.
    pub(crate) fn release(&mut self, parcels: Vec<Parcel>) {
        for parcel in parcels {
            self.post(parcel);
        }
    }

    pub(crate) fn deliver(&mut self, parcel: Parcel) {
        let Some(session) = self.sessions.get_mut(&parcel.session) else { return };
        let end = session.end(parcel.to_worker);
        if end.is_broken || !end.reads {
            return;
        }
        let process = end.process;
        self.input(process, Input::Arrived(parcel.session, Box::new(parcel.content)));
    }

    /// One end of a connection is gone, and the other hears of it soon.
    pub(crate) fn break_end(&mut self, session: SessionId, is_worker: bool) {
        let Some(found) = self.sessions.get_mut(&session) else { return };
        let end = found.end(is_worker);
        if std::mem::replace(&mut end.is_broken, true) {
            return;
        }
        let (process, is_read) = (end.process, end.reads);
        if is_read {
            self.input(process, Input::Arrived(session, Box::new(Content::End)));
        }
        self.after(1_000, KERNEL_TIMEOUT.1, Due::Break { session, is_worker: !is_worker });
    }

    pub(crate) fn push(&mut self, process: ProcessId, to: Node, push: crate::compute::Push, give_up: u64) {
        let from = self.processes[process].node;
        if self.network.is_cut(from, to) {
            if self.now >= give_up {
                return self.input(process, Input::PushFailed(push));
            }
            return self.at(self.now + 100, Due::Push { process, to, push, give_up });
        }
        let delay = self.delay(from, to);
        let Some(target) = self.alive_at(to) else {
            return self.at(self.now + 2 * delay + 1, Due::Input(process, Input::PushFailed(push)));
        };
        if self.network.is_cut(to, from) {
            // It arrives, but its sender never hears of that.
            self.at(give_up, Due::Input(process, Input::PushFailed(push.clone())));
        }
        self.at(self.now + delay, Due::Input(target, Input::Received(push)));
    }

    pub(crate) fn fetch(&mut self, process: ProcessId, to: Node, (step, token): (u64, u64), give_up: u64) {
        let from = self.processes[process].node;
        let delay = self.delay(to, from);
        let mut wait = delay;
        let found = if self.network.is_cut_any_way(from, to) {
            wait = self.random.between(KERNEL_TIMEOUT.0, KERNEL_TIMEOUT.1);
            Err("the peer does not answer".to_owned())
        } else {
            match self.alive_at(to) {
                None => Err("the peer is gone".into()),
                Some(peer) if self.processes[peer].stopped > 0 && self.now < give_up => {
                    return self.at(self.now + 100, Due::Fetch { process, to, step, token, give_up });
                }
                Some(peer) => {
                    let held = self.worker_mut(peer).and_then(|worker| worker.compute.published);
                    Ok(held.filter(|held| held.step == step))
                }
            }
        };
        self.at(self.now + wait, Due::Input(process, Input::Fetched { token, found }));
    }

    pub(crate) fn probe(&mut self, process: ProcessId, to: Node) {
        let from = self.processes[process].node;
        let answer = if self.network.is_cut_any_way(from, to) {
            None
        } else {
            match self.alive_at(to).map(|id| &self.processes[id]) {
                Some(Process { stopped: 0, role: Role::Coordinator(_), .. }) => self.asked(process, to),
                Some(_) => None,
                None => Some(None),
            }
        };
        let delay = self.delay(to, from);
        let (wait, answer) = answer.map_or((PROBE_TIMEOUT, None), |answer| (delay, answer));
        self.at(self.now + wait, Due::Input(process, Input::Probed { answer }));
    }

    /// The coordinator there hears who asks, and answers.
    fn asked(&mut self, process: ProcessId, to: Node) -> Option<Option<Leading>> {
        let standby = self.processes[process].name.clone();
        let id = self.alive_at(to)?;
        self.input(id, Input::Asked { standby });
        match &self.processes[id].role {
            Role::Coordinator(leader) => Some(leader.as_leader()),
            Role::Worker(_) => None,
        }
    }
}

/// The host of an address.
pub(crate) fn node_of(address: &str) -> Node {
    let host = address.trim_start_matches("http://").split(':').next().unwrap_or_default();
    let place = host.get(1..).and_then(|digits| digits.parse().ok());
    match (host.get(..1), place) {
        (Some("c"), Some(place)) => Node::Coordinator(place),
        (Some("w"), Some(place)) => Node::Worker(place),
        _ => Node::Store,
    }
}

fn is_heartbeat(content: &Content) -> bool {
    use blip2_proto::v1::worker_message::Kind;
    matches!(content, Content::Up(Kind::Heartbeat(_)))
}

/// A message in one short line.
fn brief(content: &Content) -> String {
    use blip2_proto::v1::coordinator_message::Kind as Down;
    use blip2_proto::v1::worker_message::Kind as Up;
    match content {
        Content::Up(Up::Hello(hello)) => {
            format!("Hello of {} epoch {} holds {:?}", hello.name, hello.epoch, hello.holds)
        }
        Content::Up(Up::StepDone(done)) => format!("StepDone {} of epoch {}", done.step, done.epoch),
        Content::Down(Down::Welcome(welcome)) => {
            format!("Welcome as member {} in epoch {}", welcome.member_id, welcome.epoch)
        }
        Content::Down(Down::Assignment(assignment)) => {
            let members = assignment.members.iter();
            let members: Vec<&str> = members.map(|member| member.exchange_address.as_str()).collect();
            let (epoch, step, state) = (assignment.epoch, assignment.step, &assignment.state);
            format!("Assignment of epoch {epoch}: step {step} with {members:?} from {state:?}")
        }
        Content::Down(Down::Commit(commit)) => {
            let Commit { epoch, step, save_checkpoint, .. } = commit;
            format!("Commit {step} of epoch {epoch}, save {save_checkpoint:?}")
        }
        other => {
            let text = format!("{other:?}");
            text.chars().take(200).collect()
        }
    }
}
