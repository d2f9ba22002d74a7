//! `bench coordinator`: a coordinator in this process, with members in another that compute nothing.

pub(super) mod members;

use std::future::pending;
use std::time::Duration;

use blip2_coordinator::{
    CheckpointSettings, CoordinatorOptions, CoordinatorSettings, Keeping, LossRise, NonFinitePolicy, RunSpec,
};
use blip2_proto::transport::Transport;
use blip2_proto::v1::StatusReply;
use blip2_run::schedule::{Schedule, Stage};
use blip2_store::Location;
use blip2_telemetry::process::peak_memory_bytes;
use clap::Args;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use self::members::{SAMPLES_OF_A_SLOT, SILENT, Seen, TOKEN, VERSION};
use super::printing::print_report;
use super::process::BenchProcess;
use super::rounds::median;
use crate::error::CliError;
use blip2_run::exit::Exit;

/// More steps than any bench takes: the run is left before its end.
const STEPS_OF_THE_RUN: u64 = 1 << 32;

/// How many members, for how long.
#[derive(Debug, Clone, Args)]
pub(crate) struct CoordinatorBenchArguments {
    /// Members of a run; several numbers are measured one after the other, the smallest first.
    #[arg(long, value_delimiter = ',', default_values_t = [2, 8, 32], value_name = "N,…",
          value_parser = clap::value_parser!(u32).range(1..=400))]
    members: Vec<u32>,
    /// Steps of each run, which every member reports at once.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..=100_000), value_name = "S")]
    steps: u32,
    /// Milliseconds that the members are idle for, alive, before the first step.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(0..=60_000), value_name = "MS")]
    idle_ms: u32,
    /// Print the result as a JSON line.
    #[arg(long)]
    json: bool,
}

/// What is printed.
#[derive(Debug, PartialEq, Serialize)]
struct Report {
    steps: u32,
    runs: Vec<Run>,
}

/// A run of so many members.
#[derive(Debug, PartialEq, Serialize)]
struct Run {
    members: u32,
    /// Seconds until all of them were in the run.
    join_seconds: f64,
    /// Milliseconds from one commit to the next, with nothing to compute between: median and slowest.
    commit_ms: f64,
    slowest_commit_ms: f64,
    /// Most bytes of the coordinator's process so far, where the system tells it.
    peak_bytes: Option<u64>,
}

pub(super) async fn run(mut arguments: CoordinatorBenchArguments) -> Result<Exit, CliError> {
    arguments.members.sort_unstable();
    let mut runs = Vec::new();
    for members in &arguments.members {
        runs.push(coordinate(*members, &arguments).await?);
    }
    print_report(arguments.json, &Report { steps: arguments.steps, runs }, text)
}

async fn coordinate(members: u32, arguments: &CoordinatorBenchArguments) -> Result<Run, CliError> {
    let failed = |error: std::io::Error| CliError::failed(format!("the coordinator cannot start: {error}"));
    let folder = tempfile::tempdir().map_err(failed)?;
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
    let url = format!("http://{}", listener.local_addr().map_err(failed)?);
    let options = options(Location::parse(&folder.path().to_string_lossy())?, url.clone(), members);
    let mut process = BenchProcess::start("the members".into(), &typed(&url, members, arguments))?;
    // Idle time and what the slowest commit may take, beside a start.
    let within = SILENT * 4 + Duration::from_millis(arguments.idle_ms.into());
    let seen = tokio::select! {
        ended = blip2_coordinator::run(listener, pending(), options) => {
            return Err(CliError::failed(format!("the coordinator has ended: {ended:?}")));
        }
        seen = process.line::<Seen>(within) => seen?,
    };
    process.end().await?;
    Ok(measured(members, seen))
}

fn typed(url: &str, members: u32, arguments: &CoordinatorBenchArguments) -> Vec<String> {
    let CoordinatorBenchArguments { steps, idle_ms, .. } = arguments;
    vec![
        "coordinator-members".to_owned(),
        format!("--coordinator={url}"),
        format!("--members={members}"),
        format!("--steps={steps}"),
        format!("--idle-ms={idle_ms}"),
    ]
}

fn options(run_root: Location, advertise: String, members: u32) -> CoordinatorOptions {
    let slots = members.next_power_of_two();
    let stage = Stage {
        name: "bench".into(),
        task: "contrast".into(),
        steps: STEPS_OF_THE_RUN,
        batch: slots * SAMPLES_OF_A_SLOT,
    };
    let spec = RunSpec {
        run_id: "bench".into(),
        run_root,
        config_toml: String::new(),
        config_hash: String::new(),
        manifest_hash: String::new(),
        binary: VERSION.into(),
        token: TOKEN.into(),
        slots,
        schedule: Schedule::new(vec![stage]),
        resume: None,
        max_quarantined_share: 1.0,
        not_downloaded: 0,
        non_finite: NonFinitePolicy::default(),
        loss_rise: LossRise::default(),
        earlier: Default::default(),
    };
    CoordinatorOptions {
        spec,
        settings: CoordinatorSettings { workers: members, ..CoordinatorSettings::default() },
        checkpoints: CheckpointSettings { every_steps: 0, ..CheckpointSettings::default() },
        advertise,
        transport: Transport::plain(),
        after: None,
        status: watch::Sender::new(StatusReply::default()),
        figures: watch::Sender::default(),
        // Nobody keeps the steps.
        commits: mpsc::channel(1).0,
        keeping: Keeping::nobody(),
        on_one_machine: true,
    }
}

fn measured(members: u32, seen: Seen) -> Run {
    Run {
        members,
        join_seconds: seen.join_seconds,
        slowest_commit_ms: 1e3 * seen.commit_seconds.iter().copied().fold(0.0, f64::max),
        commit_ms: 1e3 * median(seen.commit_seconds),
        peak_bytes: peak_memory_bytes(),
    }
}

fn text(report: &Report) -> String {
    let line = |run: &Run| {
        let memory = run.peak_bytes;
        let memory =
            memory.map_or_else(String::new, |bytes| format!(", process {:.1} MB", bytes as f64 / 1e6));
        format!(
            "{} members: in the run after {:.2} s, {:.2} ms from commit to commit (slowest {:.2} ms){memory}\n",
            run.members, run.join_seconds, run.commit_ms, run.slowest_commit_ms
        )
    };
    report.runs.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_slowest_commit_are_told() {
        let seen = Seen { join_seconds: 0.5, commit_seconds: vec![0.001, 0.009, 0.002] };
        let run = measured(8, seen);
        assert_eq!((run.members, run.commit_ms, run.slowest_commit_ms), (8, 2.0, 9.0));
        let text = text(&Report { steps: 4, runs: vec![run] });
        assert!(text.starts_with("8 members: in the run after 0.50 s, 2.00 ms"), "{text}");
    }

    #[test]
    fn a_run_of_any_number_of_members_is_one_that_a_coordinator_takes() {
        let folder = tempfile::tempdir().unwrap();
        let root = Location::parse(folder.path().to_str().unwrap()).unwrap();
        for members in [1, 3, 256, 400] {
            let options = options(root.clone(), "http://a:1".into(), members);
            options.spec.validate().unwrap();
            options.settings.validate(options.spec.slots).unwrap();
        }
    }
}
