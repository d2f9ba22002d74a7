//! `bench allreduce`: starts the members, introduces them to each other and reports what they measured.

pub(super) mod member;
mod tcp;

use std::time::Duration;

use blip2_collective::Wire;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::printing::print_report;
use super::process::BenchProcess;
use super::rounds::median;
use crate::error::CliError;
use blip2_run::exit::Exit;

/// For a member to start, and for a round.
const WITHIN: Duration = Duration::from_secs(120);

/// What is summed, by how many.
#[derive(Debug, Clone, Args)]
pub(crate) struct AllreduceArguments {
    /// Member processes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..=64), value_name = "N")]
    pub(crate) members: u32,
    /// f32 values that are summed; the default is the gradient of a Q-Former of the paper's size.
    #[arg(long, default_value_t = 188_000_000, value_parser = elements, value_name = "E")]
    pub(crate) elements: usize,
    /// Format on the wire: f32 or bf16.
    #[arg(long, default_value_t = Wire::F32)]
    pub(crate) wire: Wire,
    /// Rounds, after one to warm up; the medians are reported.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "R")]
    pub(crate) rounds: u32,
    /// Print the result as a JSON line.
    #[arg(long)]
    json: bool,
}

fn elements(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(elements @ 1..=4_000_000_000) => Ok(elements),
        Ok(_) => Err("between 1 and 4000000000 elements can be summed".to_owned()),
        Err(error) => Err(format!("{error}")),
    }
}

/// Where a member is reached.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Addresses {
    pub(super) exchange: String,
    pub(super) tcp: String,
}

/// Seconds of each round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Times {
    pub(super) reduce: Vec<f64>,
    pub(super) tcp: Vec<f64>,
}

/// What is printed.
#[derive(Debug, PartialEq, Serialize)]
struct Report {
    members: u32,
    elements: usize,
    wire: String,
    rounds: u32,
    /// Median of the slowest member's time.
    seconds: f64,
    /// Bytes of the buffer, as f32, a second.
    #[serde(rename = "algorithm_GBps")]
    algorithm: f64,
    /// The part of that which each member must send.
    #[serde(rename = "bus_GBps")]
    bus: f64,
    /// Each way, of bare TCP streams that move the bytes that each member sends, both ways at once.
    #[serde(rename = "tcp_GBps")]
    tcp: f64,
    /// Seconds of the bare streams over those of the sum.
    ratio_to_tcp: f64,
}

pub(super) async fn run(arguments: AllreduceArguments) -> Result<Exit, CliError> {
    let mut members = Vec::new();
    for rank in 0..arguments.members {
        members.push(BenchProcess::start(format!("member {rank}"), &member_arguments(&arguments, rank))?);
    }
    let mut addresses = Vec::new();
    for member in &mut members {
        addresses.push(member.line::<Addresses>(WITHIN).await?);
    }
    for member in &mut members {
        member.tell(&addresses).await?;
    }
    let mut times = Vec::new();
    for member in &mut members {
        times.push(member.line::<Times>(WITHIN * (2 * arguments.rounds + 4)).await?);
    }
    for member in &mut members {
        member.end().await?;
    }
    let report = report(&arguments, &times);
    print_report(arguments.json, &report, text)
}

fn member_arguments(run: &AllreduceArguments, rank: u32) -> Vec<String> {
    let options: [(&str, &dyn std::fmt::Display); 5] = [
        ("rank", &rank),
        ("members", &run.members),
        ("elements", &run.elements),
        ("rounds", &run.rounds),
        ("wire", &run.wire),
    ];
    let typed = options.into_iter().map(|(name, value)| format!("--{name}={value}"));
    std::iter::once("allreduce-member".to_owned()).chain(typed).collect()
}

/// Bytes that each member sends in a sum: all but its own part, twice.
pub(super) fn sent_bytes(arguments: &AllreduceArguments) -> f64 {
    let members = f64::from(arguments.members);
    arguments.elements as f64 * arguments.wire.bytes() as f64 * 2.0 * (members - 1.0) / members
}

fn report(arguments: &AllreduceArguments, times: &[Times]) -> Report {
    let slowest = |of: &dyn Fn(&Times) -> &[f64]| {
        let rounds = 0..arguments.rounds as usize;
        median(rounds.map(|round| times.iter().map(|times| of(times)[round]).fold(0.0, f64::max)).collect())
    };
    let seconds = slowest(&|times| &times.reduce);
    let tcp_seconds = slowest(&|times| &times.tcp);
    let members = f64::from(arguments.members);
    let algorithm = 4.0 * arguments.elements as f64 / seconds / 1e9;
    Report {
        members: arguments.members,
        elements: arguments.elements,
        wire: arguments.wire.to_string(),
        rounds: arguments.rounds,
        seconds,
        algorithm,
        bus: algorithm * 2.0 * (members - 1.0) / members,
        tcp: sent_bytes(arguments) / tcp_seconds / 1e9,
        ratio_to_tcp: tcp_seconds / seconds,
    }
}

fn text(report: &Report) -> String {
    format!(
        "{} members, {} elements, {} on the wire: {:.3} s\n  algorithm {:.2} GB/s, bus {:.2} GB/s, bare TCP {:.2} \
         GB/s each way, {:.2} of bare TCP\n",
        report.members,
        report.elements,
        report.wire,
        report.seconds,
        report.algorithm,
        report.bus,
        report.tcp,
        report.ratio_to_tcp
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_of_the_slowest_member_and_the_median_round() {
        let arguments = AllreduceArguments {
            members: 4,
            elements: 1_000_000_000,
            wire: Wire::Bf16,
            rounds: 3,
            json: false,
        };
        let times = |reduce: [f64; 3], tcp: [f64; 3]| Times { reduce: reduce.to_vec(), tcp: tcp.to_vec() };
        let all = [times([2.0, 9.0, 1.0], [1.0, 1.0, 1.0]), times([1.0, 9.0, 4.0], [0.5, 1.5, 1.0])];
        let report = report(&arguments, &all);
        assert_eq!((report.seconds, report.algorithm, report.bus), (4.0, 1.0, 1.5));
        // Of 2 GB on the wire each member sends 1.5 times as much, in one second over bare TCP.
        assert_eq!((report.tcp, report.ratio_to_tcp), (3.0, 0.25));
        assert!(text(&report).contains("4.000 s"));
    }

    #[test]
    fn elements_are_bounded() {
        assert_eq!(elements("7"), Ok(7));
        assert!(elements("0").is_err() && elements("x").is_err() && elements("4000000001").is_err());
    }
}
