//! The members of `bench coordinator`: sessions that join, show that they live, and report every step at
//! once.

use std::time::{Duration, Instant};

use blip2_coordinator::CoordinatorSettings;
use blip2_proto::bounds::MAX_CONTROL_MESSAGE;
use blip2_proto::token::with_token;
use blip2_proto::transport::Transport;
use blip2_proto::v1::coordinator_client::CoordinatorClient;
use blip2_proto::v1::coordinator_message::Kind as FromCoordinator;
use blip2_proto::v1::worker_message::Kind as ToCoordinator;
use blip2_proto::v1::{
    Assignment, CoordinatorMessage, Coverage, Heartbeat, Hello, NamedValue, Ready, StepDone, WorkerMessage,
};
use clap::Args;
use futures::SinkExt as _;
use futures::channel::mpsc;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tonic::Streaming;

use crate::commands::print_json;
use crate::error::CliError;
use blip2_run::exit::Exit;

/// After which nobody is waited for any more.
pub(super) const SILENT: Duration = Duration::from_secs(60);
/// The members' and the coordinator's.
pub(super) const TOKEN: &str = "bench";
pub(super) const VERSION: &str = "bench";
/// Samples of a slot in a step.
pub(super) const SAMPLES_OF_A_SLOT: u32 = 1;
/// Messages of a member that may wait.
const WAITING: usize = 16;

/// Whom the members work for.
#[derive(Debug, Args)]
pub(crate) struct MembersArguments {
    /// URL of the coordinator.
    #[arg(long)]
    coordinator: String,
    /// Members.
    #[arg(long)]
    members: u32,
    /// Steps.
    #[arg(long)]
    steps: u32,
    /// Milliseconds that all are idle for before the first step.
    #[arg(long)]
    idle_ms: u32,
}

/// What the members saw.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::bench) struct Seen {
    /// Seconds until the last of them was in the run.
    pub(super) join_seconds: f64,
    /// Seconds of each step but the first: from one commit's arrival at the last member to the next one's.
    pub(super) commit_seconds: Vec<f64>,
}

pub(in crate::bench) async fn run(arguments: MembersArguments) -> Result<Exit, CliError> {
    let started = Instant::now();
    let mut sessions = JoinSet::new();
    for number in 0..arguments.members {
        let (address, steps) = (arguments.coordinator.clone(), arguments.steps);
        let idle = Duration::from_millis(arguments.idle_ms.into());
        sessions.spawn(async move { Session::open(&address, number).await?.take_part(idle, steps).await });
    }
    let mut times = Vec::new();
    while let Some(ended) = sessions.join_next().await {
        times.push(ended.map_err(|error| CliError::failed(error.to_string()))??);
    }
    print_json(&seen(started, &times))?;
    Ok(Exit::Done)
}

fn seen(started: Instant, members: &[Times]) -> Seen {
    let last_of = |at: &dyn Fn(&Times) -> Option<Instant>| members.iter().filter_map(at).max();
    let joined = last_of(&|member| Some(member.joined)).unwrap_or(started);
    let steps = members.iter().map(|member| member.commits.len()).min().unwrap_or(0);
    let commits: Vec<Instant> =
        (0..steps).filter_map(|step| last_of(&|member| member.commits.get(step).copied())).collect();
    let commit_seconds = commits.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs_f64());
    Seen {
        join_seconds: joined.duration_since(started).as_secs_f64(),
        commit_seconds: commit_seconds.collect(),
    }
}

/// When one member was assigned its slots, and heard of each commit.
struct Times {
    joined: Instant,
    commits: Vec<Instant>,
    /// Held until all have ended: a member that hangs up is one that is lost.
    _session: Session,
}

struct Session {
    outgoing: mpsc::Sender<WorkerMessage>,
    incoming: Streaming<CoordinatorMessage>,
    heartbeat: tokio::time::Interval,
}

impl Session {
    async fn open(address: &str, number: u32) -> Result<Self, CliError> {
        let channel = Transport::plain()
            .connect_watched(address, SILENT)
            .await
            .map_err(|error| CliError::failed(format!("{address}: {}", error.reason)))?;
        let mut client = CoordinatorClient::new(channel)
            .max_decoding_message_size(MAX_CONTROL_MESSAGE)
            .max_encoding_message_size(MAX_CONTROL_MESSAGE);
        let (mut outgoing, messages) = mpsc::channel(WAITING);
        let name = format!("member-{number}");
        let exchange_address = format!("{name}:7200");
        let (token, binary) = (TOKEN.into(), VERSION.into());
        let hello = Hello { token, binary, exchange_address, name, ..Hello::default() };
        send(&mut outgoing, ToCoordinator::Hello(hello)).await?;
        let incoming = tokio::time::timeout(SILENT, client.session(with_token(messages, TOKEN)))
            .await
            .map_err(|_| CliError::failed(format!("{address} does not answer")))?
            .map_err(|status| CliError::failed(status.message().to_owned()))?
            .into_inner();
        let every = Duration::from_millis(CoordinatorSettings::default().heartbeat_ms.into());
        Ok(Self { outgoing, incoming, heartbeat: tokio::time::interval(every) })
    }

    /// Reports so many steps, the first one when the idle time is over.
    async fn take_part(mut self, idle: Duration, steps: u32) -> Result<Times, CliError> {
        let (mut id, mut world) = (u32::MAX, Assignment::default());
        let (mut joined, mut commits) = (None, Vec::with_capacity(steps as usize));
        while commits.len() < steps as usize {
            let step = match self.next().await? {
                FromCoordinator::Welcome(welcome) => {
                    id = welcome.member_id;
                    self.say(ToCoordinator::Ready(Ready::default())).await?;
                    continue;
                }
                FromCoordinator::Assignment(assignment) => {
                    joined.get_or_insert_with(Instant::now);
                    world = assignment;
                    self.wait(idle).await?;
                    world.step
                }
                FromCoordinator::Commit(commit) => {
                    commits.push(Instant::now());
                    commit.step + 1
                }
                other => return Err(CliError::failed(format!("a member was told {other:?}"))),
            };
            self.say(ToCoordinator::StepDone(done(&world, id, step))).await?;
        }
        let joined = joined.ok_or_else(|| CliError::failed("a member was never assigned slots"))?;
        Ok(Times { joined, commits, _session: self })
    }

    /// Lets time pass, alive.
    async fn wait(&mut self, idle: Duration) -> Result<(), CliError> {
        let until = tokio::time::Instant::now() + idle;
        while tokio::time::timeout_at(until, self.heartbeat.tick()).await.is_ok() {
            self.say(ToCoordinator::Heartbeat(Heartbeat {})).await?;
        }
        Ok(())
    }

    /// What it is told next.
    async fn next(&mut self) -> Result<FromCoordinator, CliError> {
        let give_up = tokio::time::Instant::now() + SILENT;
        loop {
            tokio::select! {
                message = self.incoming.message() => {
                    let message = message.map_err(|status| CliError::failed(status.message().to_owned()))?;
                    let ended = || CliError::failed("the coordinator closed a session");
                    if let Some(kind) = message.ok_or_else(ended)?.kind {
                        return Ok(kind);
                    }
                }
                _ = self.heartbeat.tick() => self.say(ToCoordinator::Heartbeat(Heartbeat {})).await?,
                () = tokio::time::sleep_until(give_up) => {
                    return Err(CliError::failed("the coordinator says nothing any more"));
                }
            }
        }
    }

    async fn say(&mut self, kind: ToCoordinator) -> Result<(), CliError> {
        send(&mut self.outgoing, kind).await
    }
}

async fn send(outgoing: &mut mpsc::Sender<WorkerMessage>, kind: ToCoordinator) -> Result<(), CliError> {
    let sent = outgoing.send(WorkerMessage { kind: Some(kind) }).await;
    sent.map_err(|_| CliError::failed("the coordinator takes no more messages"))
}

/// The report of a step in which a member with these slots had nothing to compute.
fn done(world: &Assignment, id: u32, step: u64) -> StepDone {
    let own = world.members.iter().find(|member| member.member_id == id);
    let samples = u64::from(SAMPLES_OF_A_SLOT) * own.map_or(0, |member| u64::from(member.slot_count));
    StepDone {
        epoch: world.epoch,
        step,
        values: vec![NamedValue { name: "loss".into(), value: 1.0 }],
        samples,
        coverage: Some(Coverage { stage: 1, samples, digest: vec![0; 16] }),
        ..StepDone::default()
    }
}

#[cfg(test)]
mod tests {
    use blip2_proto::v1::MemberSlots;

    use super::*;

    #[test]
    fn a_member_reports_the_samples_of_its_own_slots() {
        let member = |member_id, slot_count| MemberSlots { member_id, slot_count, ..MemberSlots::default() };
        let world =
            Assignment { epoch: 3, members: vec![member(7, 2), member(9, 6)], ..Assignment::default() };
        let report = done(&world, 9, 5);
        assert_eq!((report.epoch, report.step), (3, 5));
        assert_eq!(report.samples, 6 * u64::from(SAMPLES_OF_A_SLOT));
        assert_eq!(report.coverage.map(|coverage| coverage.samples), Some(report.samples));
    }
}
