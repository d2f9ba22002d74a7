//! `corpus plan`: the quality and the cost of a plan.

use std::time::Instant;

use blip2_dataset::corpus::manifest::Manifest;
use blip2_dataset::corpus::simulated::SimulatedCorpus;
use blip2_dataset::plan::quality::{QualitySpec, plan_quality};
use blip2_dataset::plan::{Plan, PlanKey};
use clap::Args;

use super::plan_report::{PlanReport, report, sources_of};
use super::simulation;
use crate::commands::{print_json, print_text};
use crate::config::{ConfigArguments, RunConfig, load};
use crate::error::CliError;
use blip2_run::exit::Exit;

/// Footers read between two words on how far it has got.
const FILES_PER_WORD: usize = 500;

#[derive(Debug, Args)]
pub(crate) struct PlanArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Measure a corpus that is made up: its footers are written to a temporary folder, opened and planned.
    #[arg(long, conflicts_with = "config")]
    simulate: bool,
    /// Its files.
    #[arg(long, default_value_t = 13_000, requires = "simulate", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    files: u32,
    /// Row groups of each.
    #[arg(long, default_value_t = 10, requires = "simulate", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    row_groups: u32,
    /// Rows of each of these.
    #[arg(long, default_value_t = 993, requires = "simulate", value_parser = clap::value_parser!(u32).range(1..))]
    rows_per_group: u32,
    /// Bytes of each of these.
    #[arg(long, default_value_t = 60_000, requires = "simulate", value_parser = clap::value_parser!(u64).range(1..))]
    bytes_per_row: u64,
    /// Stage whose batch and order are meant.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    stage: u32,
    /// Slots; without it, `train.slots`.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    slots: Option<u32>,
    /// Row groups a slot draws from at a time; without it, `data.window_row_groups`.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    window: Option<u32>,
    /// Workers; without it, `coordinator.workers`.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    workers: Option<u32>,
    /// Milliseconds from a request to the first byte of its answer.
    #[arg(long, default_value_t = 30.0, value_name = "MS", value_parser = positive)]
    latency_ms: f64,
    /// Megabytes a second that a worker reads.
    #[arg(long, default_value_t = 500.0, value_name = "MB/S", value_parser = positive)]
    bandwidth_mb: f64,
    /// Windows to walk through.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    windows: u64,
    /// Print the result as a JSON line.
    #[arg(long)]
    json: bool,
}

/// Measures a plan.
pub(super) async fn run(arguments: PlanArguments) -> Result<Exit, CliError> {
    let config = load(&arguments.config)?.config;
    let started = Instant::now();
    let (manifest, began) = if arguments.simulate {
        let folder = tempfile::tempdir()
            .map_err(|error| CliError::failed(format!("cannot create a temporary folder: {error}")))?;
        let corpus = SimulatedCorpus {
            files: arguments.files,
            row_groups: arguments.row_groups,
            rows_per_group: arguments.rows_per_group,
            bytes_per_row: arguments.bytes_per_row,
        };
        let place = folder.path().to_owned();
        simulation::on_thread(move || Ok(corpus.write(&place)?)).await?;
        eprintln!("{} footers written in {:.1} s", arguments.files, started.elapsed().as_secs_f64());
        let mut made_up = config.clone();
        made_up.data.sources.clear();
        made_up.data.train = vec![format!("{}/*.parquet", folder.path().display())];
        let began = Instant::now();
        (opened(&made_up).await?, began)
    } else {
        if config.data.train.is_empty() && config.data.sources.is_empty() {
            return Err(CliError::config(
                "data.train: name the corpus with --config FILE or --set, or make one up with --simulate",
            ));
        }
        let began = Instant::now();
        (opened(&config).await?, began)
    };
    let open_seconds = began.elapsed().as_secs_f64();
    let json = arguments.json;
    let found = simulation::on_thread(move || measured(&arguments, &config, &manifest, open_seconds)).await?;
    if json {
        print_json(&found)?
    } else {
        print_text(&report(&found))?
    }
    Ok(Exit::Done)
}

/// The manifest of the configured corpus, with progress on standard error.
async fn opened(config: &RunConfig) -> Result<Manifest, CliError> {
    let word = |done: usize, total: usize| {
        if done.is_multiple_of(FILES_PER_WORD) || done == total {
            eprintln!("{done} of {total} footers read");
        }
    };
    Ok(Manifest::open_sources(&config.data.corpus(), &config.columns(), &word).await?)
}

fn measured(
    arguments: &PlanArguments,
    config: &RunConfig,
    manifest: &Manifest,
    open_seconds: f64,
) -> Result<PlanReport, CliError> {
    let slots = arguments.slots.unwrap_or(config.train.slots);
    let window = arguments.window.unwrap_or(config.data.window_row_groups);
    let workers = arguments.workers.unwrap_or(config.coordinator.workers).min(slots);
    let Some(stage) = config.stages.get(arguments.stage as usize - 1) else {
        let (asked, there) = (arguments.stage, config.stages.len());
        return Err(CliError::usage(format!("--stage {asked}: the configuration has {there} stages")));
    };
    let batch = stage.batch;
    let key = PlanKey { seed: config.train.seed, stage: arguments.stage };
    let speed = match arguments.simulate {
        true => Some(simulation::speed(manifest, key, slots, window)?),
        false => None,
    };
    let plan = Plan::new(manifest, key, slots, window)?;
    let quality = plan_quality(&QualitySpec {
        manifest,
        plan: &plan,
        batch_per_slot: (batch / slots).max(1),
        workers,
        windows: arguments.windows,
        // Concurrency is counted far below 2^32.
        read_concurrency: u32::try_from(config.loader.read_concurrency).unwrap_or(u32::MAX),
        latency_s: arguments.latency_ms / 1e3,
        bandwidth: arguments.bandwidth_mb * 1e6,
    })?;
    Ok(PlanReport {
        files: manifest.files.len(),
        row_groups: manifest.files.iter().map(|file| file.row_groups.len()).sum(),
        rows: manifest.rows(),
        corpus_bytes: manifest.bytes(),
        manifest_digest: manifest.digest(),
        slots,
        window_row_groups: window,
        workers,
        batch,
        open_seconds,
        sources: sources_of(manifest)?,
        quality,
        speed,
    })
}

/// A positive number.
fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value.is_finite() => Ok(value),
        _ => Err("a positive number".to_owned()),
    }
}
