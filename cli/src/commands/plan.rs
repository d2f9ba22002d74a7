//! `plan`: what a run will take, before anything is started: operations, seconds, memory, bytes and money.
//!
//! The arithmetic is [`blip2_cost`]'s, what the stages ask of it [`blip2_worker::demand`]'s.

#[cfg(test)]
mod tests;

use blip2_collective::{SumTree, deal_slots};
use blip2_cost::card::{self, Card};
use blip2_cost::cluster::{Assumptions, Cluster};
use blip2_cost::plan::{Plan, Terms};
use blip2_cost::units::{Bytes, BytesPerSecond, OperationsPerSecond, Seconds};
use blip2_cost::{requests, words};
use blip2_run::exit::Exit;
use blip2_worker::demand::demands;
use clap::Args;

use super::{print_json, print_text};
use crate::config::{ConfigArguments, RunConfig, load};
use crate::error::CliError;

/// The card where none is named: the paper's.
const PAPERS_CARD: &str = "a100-40g";

#[derive(Debug, Args)]
pub(crate) struct PlanArguments {
    #[command(flatten)]
    config: ConfigArguments,
    #[command(flatten)]
    cluster: ClusterArguments,
    /// Price of an hour of one card.
    #[arg(long, value_parser = positive, value_name = "P")]
    price: Option<f64>,
    /// Price of a gigabyte that is read from the store.
    #[arg(long, value_parser = positive, value_name = "P")]
    egress_price: Option<f64>,
    /// Say which share of the cards' peak a run of so many days asks for.
    #[arg(long, value_parser = positive, value_name = "D")]
    days: Option<f64>,
    /// Print resource requests as a Kustomize patch, and nothing else.
    #[arg(long, conflicts_with = "json")]
    kubernetes: bool,
    /// Print one JSON line.
    #[arg(long)]
    json: bool,
}

/// The workers that are planned for.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ClusterArguments {
    /// Workers, one a card; as the configuration says (`coordinator.workers`) if not given.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65536), value_name = "N")]
    gpus: Option<u32>,
    /// Card: a100-40g, a100-80g, h100, h200 and others; a100-40g, the paper's, if not given.
    #[arg(long, value_name = "NAME")]
    gpu: Option<String>,
    /// What the card computes at most, in TFLOP/s, in whatever numbers the run has; for a card of one's own
    /// together with `--memory` and `--bandwidth`.
    #[arg(long, value_parser = positive, value_name = "TFLOPS")]
    peak_tflops: Option<f64>,
    /// The card's memory, such as 48GB.
    #[arg(long, value_parser = Bytes::parse, value_name = "BYTES")]
    memory: Option<Bytes>,
    /// Bandwidth of the card's memory, such as 864GB/s.
    #[arg(long, value_parser = BytesPerSecond::parse, value_name = "RATE")]
    bandwidth: Option<BytesPerSecond>,
    /// What each worker sends and receives a second; workers of one host share its network: give the share.
    #[arg(long, value_parser = BytesPerSecond::parse, default_value = "25Gbps", value_name = "RATE")]
    network: Option<BytesPerSecond>,
    /// Workers of a host.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64), default_value = "8", value_name = "N")]
    per_host: Option<u32>,
    /// Share of the card's peak that products reach: an assumption, measure yours with `bench step`.
    #[arg(long, value_parser = share, value_name = "X")]
    mfu: Option<f64>,
    /// A pair as it is stored, image and caption.
    #[arg(long, value_parser = Bytes::parse, default_value = "25kB", value_name = "BYTES")]
    pair: Option<Bytes>,
}

impl ClusterArguments {
    /// So many workers with cards of this name, where they are known.
    pub(crate) fn of(workers: Option<u32>, card: Option<String>) -> Self {
        Self { gpus: workers, gpu: card, ..Self::default() }
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && f64::is_finite(number) => Ok(number),
        _ => Err("a number above 0".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("a share is above 0 and at most 1".to_owned()),
    }
}

/// Plans a run.
pub(crate) fn run(arguments: &PlanArguments) -> Result<Exit, CliError> {
    let config = load(&arguments.config)?.config;
    let PlanArguments { price, egress_price, days, .. } = *arguments;
    let terms = Terms { price, egress_price, within: days.map(Seconds::of_days) };
    let plan = planned(&config, &arguments.cluster)?.on(terms);
    match (arguments.json, arguments.kubernetes) {
        (true, _) => print_json(&plan)?,
        (_, true) => print_text(&requests::patch(&plan.requests))?,
        _ => print_text(&words::shown(&plan))?,
    }
    Ok(Exit::Done)
}

/// What a run of this configuration takes on these workers.
///
/// # Errors
/// No stage has steps, models of which nothing is known, a card that is not, more workers than slots.
pub(crate) fn planned(config: &RunConfig, typed: &ClusterArguments) -> Result<Plan, CliError> {
    if config.trained_stages().next().is_none() {
        return Err(CliError::config("no stage has steps: there is nothing to plan; set stage1.steps"));
    }
    let cluster = cluster(config, typed)?;
    let mut assumptions = Assumptions::default();
    assumptions.mfu = typed.mfu.unwrap_or(assumptions.mfu);
    assumptions.pair = typed.pair.unwrap_or(assumptions.pair);
    let mut stages = demands(&config.worker()).map_err(|error| CliError::config(error.to_string()))?;
    for stage in &mut stages {
        stage.checkpoint_every = config.checkpoint.every_steps;
        stage.checkpoints_kept = u64::from(config.checkpoint.keep);
    }
    let cached = if config.loader.disk_cache.is_empty() { 0 } else { config.loader.disk_cache_bytes };
    Ok(blip2_cost::plan::plan(&stages, cluster, assumptions, Bytes(cached as f64)))
}

fn cluster(config: &RunConfig, typed: &ClusterArguments) -> Result<Cluster, CliError> {
    let slots = config.train.slots;
    let workers = typed.gpus.unwrap_or(config.coordinator.workers);
    if workers > slots {
        return Err(CliError::usage(format!(
            "{workers} workers for {slots} slots (train.slots): a worker has one slot or more; name {slots} at most, or \
             cut the batch into more slots"
        )));
    }
    let failed = |error: blip2_collective::CollectiveError| CliError::config(format!("train.slots: {error}"));
    let tree = SumTree::new(slots).map_err(failed)?;
    let dealt = deal_slots(slots, workers as usize).map_err(failed)?;
    let most_slots = dealt.iter().map(|range| range.len() as u64).max().unwrap_or(1);
    let partial_sums = dealt.iter().map(|range| tree.nodes_of(range.clone()).len() as u64).max().unwrap_or(1);
    Ok(Cluster {
        card: chosen_card(typed)?,
        workers: u64::from(workers),
        per_host: u64::from(typed.per_host.unwrap_or(8)),
        network: typed.network.unwrap_or(BytesPerSecond(3.125e9)),
        most_slots,
        partial_sums,
        decode_threads: config.loader.decode_threads as u64,
    })
}

/// The card that is named, with what is said of it beside its name.
fn chosen_card(typed: &ClusterArguments) -> Result<Card, CliError> {
    let own = (typed.peak_tflops, typed.memory, typed.bandwidth);
    let card = match (&typed.gpu, own) {
        (None, (Some(peak), Some(memory), Some(bandwidth))) => {
            let peak = OperationsPerSecond(peak * 1e12);
            // PCIe of generation 4.
            let host_link = BytesPerSecond(25e9);
            Card { name: "own".into(), f32: peak, tf32: peak, bf16: peak, memory, bandwidth, host_link }
        }
        (name, _) => {
            let name = name.as_deref().unwrap_or(PAPERS_CARD);
            let known = || card::names().collect::<Vec<_>>().join(", ");
            card::named(name).or_else(|| card::of_model(name)).ok_or_else(|| {
                CliError::usage(format!(
                    "--gpu {name}: no such card is known; there are {}; describe another one by --peak-tflops, --memory \
                     and --bandwidth",
                    known()
                ))
            })?
        }
    };
    let peak = |known| typed.peak_tflops.map_or(known, |peak| OperationsPerSecond(peak * 1e12));
    Ok(Card {
        f32: peak(card.f32),
        tf32: peak(card.tf32),
        bf16: peak(card.bf16),
        memory: typed.memory.unwrap_or(card.memory),
        bandwidth: typed.bandwidth.unwrap_or(card.bandwidth),
        ..card
    })
}
