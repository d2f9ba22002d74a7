//! `bench loader`: how fast a corpus becomes batches, and where the time goes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use blip2_dataset::corpus::columns::ColumnNames;
use blip2_dataset::corpus::manifest::Manifest;
use blip2_dataset::loader::{Loader, LoaderSettings, LoaderSpec, LoaderStatistics};
use blip2_dataset::plan::{Plan, PlanKey};
use blip2_dataset::text::{TextEncoder, TextEncoding};
use blip2_images::transform::TrainTransform;
use blip2_run::exit::Exit;
use clap::Args;
use serde::Serialize;

use crate::commands::{print_json, print_text};
use crate::error::CliError;
use blip2_telemetry::process::peak_memory_bytes;

/// For one batch.
const WITHIN: Duration = Duration::from_secs(300);
/// Slots that a batch is cut into, as in training.
const SLOTS: u32 = 4;
const SEED: u64 = 42;
const STAGE: u32 = 1;
/// More steps than any measurement takes.
const STEPS: u64 = 1 << 40;
const TEXT_LENGTH: usize = 32;
const CROP_SCALE: [f64; 2] = [0.5, 1.0];
const MAX_PIXELS: u64 = 200_000_000;

/// What is loaded, how and for how long.
#[derive(Debug, Clone, Args)]
pub(crate) struct LoaderArguments {
    /// Parquet files or URLs; `*` matches within the last path segment.
    #[arg(long, required = true, num_args = 1.., value_name = "F")]
    files: Vec<String>,
    /// Side of the pictures, pixels.
    #[arg(long, default_value_t = 224, value_parser = clap::value_parser!(u32).range(1..=4096), value_name = "PX")]
    size: u32,
    /// How long to measure, after the first batch.
    #[arg(long, default_value_t = 20.0, value_parser = seconds, value_name = "S")]
    seconds: f64,
    /// Samples of a batch; a multiple of 4.
    #[arg(long, default_value_t = 64, value_parser = batch, value_name = "B")]
    batch: u32,
    /// Threads that decode; the default is one a core.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024), value_name = "N")]
    threads: Option<u32>,
    /// Milliseconds of pretended computation between batches, to see how much of the time is waited for data.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=3_600_000), value_name = "MS")]
    compute_ms: u64,
    /// Memory for data read ahead, bytes.
    #[arg(long, default_value_t = LoaderSettings::default().prefetch_bytes, value_parser = clap::value_parser!(u64).range(..=1 << 50), value_name = "BYTES")]
    prefetch_bytes: u64,
    /// Row groups that a slot draws from at a time.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "K")]
    window_row_groups: u32,
    /// Folder of a disk cache.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "DIR")]
    disk_cache: String,
    /// `tokenizer.json`, or a folder that holds it.
    #[arg(long, default_value = "assets/backbones/qformer-tokenizer", value_name = "PATH")]
    tokenizer: PathBuf,
    /// Print the result as a JSON line.
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=86_400.0).contains(&seconds) => Ok(seconds),
        Ok(_) => Err("between 0.1 and 86400 seconds can be measured".to_owned()),
        Err(error) => Err(format!("{error}")),
    }
}

fn batch(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(batch @ 1..=65_536) if batch % SLOTS == 0 => Ok(batch),
        Ok(_) => Err(format!("a batch is a multiple of {SLOTS}, at most 65536")),
        Err(error) => Err(format!("{error}")),
    }
}

/// Milliseconds a sample, summed over threads.
#[derive(Debug, PartialEq, Serialize)]
struct Stages {
    read_ms: f64,
    parquet_ms: f64,
    decode_ms: f64,
    transform_ms: f64,
    tokenise_ms: f64,
    assemble_ms: f64,
}

/// What is printed.
#[derive(Debug, PartialEq, Serialize)]
struct Report {
    samples: u64,
    seconds: f64,
    samples_per_s: f64,
    /// Of pictures as stored.
    bytes_per_s: f64,
    threads: u32,
    size: u32,
    stages: Stages,
    /// Bytes read, from the store or the disk cache, for every byte of the pictures that were used.
    read_amplification: f64,
    reads: u64,
    hedged_reads: u64,
    retried_reads: u64,
    disk_cache_hits: u64,
    /// Part of the time in which the taker of batches had none.
    data_wait_share: f64,
    quarantined: u64,
    /// Most memory that this process has held; absent where the system does not say.
    peak_bytes: Option<u64>,
}

pub(super) async fn run(arguments: LoaderArguments) -> Result<Exit, CliError> {
    let runtime = tokio::runtime::Handle::current();
    let manifest = Manifest::open(&arguments.files, &ColumnNames::default()).await?;
    let report = tokio::task::spawn_blocking({
        let arguments = arguments.clone();
        move || measure(&arguments, manifest, runtime)
    });
    let report = report.await.map_err(|error| CliError::failed(format!("measuring failed: {error}")))??;
    if arguments.json {
        print_json(&report)?
    } else {
        print_text(&text(&report))?
    }
    Ok(Exit::Done)
}

/// Takes batches for as long as is wanted; the first one is not measured.
fn measure(
    arguments: &LoaderArguments,
    manifest: Manifest,
    runtime: tokio::runtime::Handle,
) -> Result<Report, CliError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = arguments.threads.map_or(cores, |threads| threads as usize);
    let loader = Loader::start(runtime, spec(arguments, manifest, threads)?)?;
    let mut taken = loader.next(WITHIN)?;
    let before = loader.statistics();
    let started = Instant::now();
    let (mut samples, mut quarantined, mut waited) = (0, 0, Duration::ZERO);
    while started.elapsed().as_secs_f64() < arguments.seconds {
        std::thread::sleep(Duration::from_millis(arguments.compute_ms));
        taken = loader.next(WITHIN)?;
        samples += u64::from(arguments.batch);
        waited += taken.waited;
        quarantined += taken.slots.iter().map(|slot| slot.quarantined.len() as u64).sum::<u64>();
    }
    let elapsed = started.elapsed();
    drop(taken);
    let spent = Spent { samples, quarantined, waited, elapsed };
    Ok(report(arguments, threads, &spent, [before, loader.statistics()]))
}

fn spec(arguments: &LoaderArguments, manifest: Manifest, threads: usize) -> Result<LoaderSpec, CliError> {
    let plan =
        Plan::new(&manifest, PlanKey { seed: SEED, stage: STAGE }, SLOTS, arguments.window_row_groups)?;
    let text = TextEncoder::open(&arguments.tokenizer, TextEncoding::new(TEXT_LENGTH, 0))?;
    Ok(LoaderSpec {
        manifest: Arc::new(manifest),
        plan: Arc::new(plan),
        columns: ColumnNames::default(),
        slots: 0..SLOTS,
        batch_per_slot: arguments.batch / SLOTS,
        slots_total: SLOTS,
        first_step: 0,
        last_step: STEPS,
        seed: SEED,
        stage: STAGE,
        image: TrainTransform::new(arguments.size as usize, CROP_SCALE, true),
        text: Arc::new(text),
        max_pixels: MAX_PIXELS,
        settings: LoaderSettings {
            prefetch_bytes: arguments.prefetch_bytes,
            decode_threads: threads,
            disk_cache: arguments.disk_cache.clone(),
            ..LoaderSettings::default()
        },
    })
}

/// What the taker of batches saw.
struct Spent {
    samples: u64,
    quarantined: u64,
    waited: Duration,
    elapsed: Duration,
}

fn report(
    arguments: &LoaderArguments,
    threads: usize,
    spent: &Spent,
    [before, after]: [LoaderStatistics; 2],
) -> Report {
    let seconds = spent.elapsed.as_secs_f64();
    // Times and bytes are of the samples prepared, some of which nobody has taken yet.
    let prepared = (after.samples - before.samples).max(1) as f64;
    let per_sample =
        |of: fn(&LoaderStatistics) -> Duration| (of(&after) - of(&before)).as_secs_f64() * 1e3 / prepared;
    let pictures = (after.image_bytes - before.image_bytes) as f64;
    // From the start: what was read before the first batch is used after it.
    let read = (after.read_bytes + after.disk_bytes) as f64;
    Report {
        samples: spent.samples,
        seconds,
        samples_per_s: spent.samples as f64 / seconds,
        bytes_per_s: pictures / prepared * spent.samples as f64 / seconds,
        // At most the number of cores or an argument of 32 bits.
        threads: threads as u32,
        size: arguments.size,
        stages: Stages {
            read_ms: per_sample(|of| of.read),
            parquet_ms: per_sample(|of| of.parquet),
            decode_ms: per_sample(|of| of.decode),
            transform_ms: per_sample(|of| of.transform),
            tokenise_ms: per_sample(|of| of.tokenise),
            assemble_ms: per_sample(|of| of.assemble),
        },
        read_amplification: read / (after.image_bytes.max(1) as f64),
        reads: after.reads,
        hedged_reads: after.hedged,
        retried_reads: after.retried,
        disk_cache_hits: after.disk_hits,
        data_wait_share: spent.waited.as_secs_f64() / seconds,
        quarantined: spent.quarantined,
        peak_bytes: peak_memory_bytes(),
    }
}

fn text(report: &Report) -> String {
    let Stages { read_ms, parquet_ms, decode_ms, transform_ms, tokenise_ms, assemble_ms } = report.stages;
    format!(
        "{:.0} samples/s, {:.1} MB/s of pictures, {} threads, {} pixels\n  milliseconds a sample: read \
         {read_ms:.3}, parquet {parquet_ms:.3}, decode {decode_ms:.3}, crop and resize {transform_ms:.3}, tokenise \
         {tokenise_ms:.3}, assemble {assemble_ms:.3}\n  read amplification {:.2}, {} reads ({} asked twice, {} tried \
         again, {} from the disk cache), {:.0} % of the time without data, {} rows not used, {} MiB at most\n",
        report.samples_per_s,
        report.bytes_per_s / 1e6,
        report.threads,
        report.size,
        report.read_amplification,
        report.reads,
        report.hedged_reads,
        report.retried_reads,
        report.disk_cache_hits,
        report.data_wait_share * 100.0,
        report.quarantined,
        report.peak_bytes.map_or("? ".to_owned(), |bytes| (bytes >> 20).to_string()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(files: &str) -> LoaderArguments {
        let assets = |name: &str| format!("{}/../assets/{name}", env!("CARGO_MANIFEST_DIR"));
        LoaderArguments {
            files: vec![assets(files)],
            size: 32,
            seconds: 0.2,
            batch: 8,
            threads: Some(2),
            compute_ms: 0,
            prefetch_bytes: 8 << 20,
            window_row_groups: 2,
            disk_cache: String::new(),
            tokenizer: assets("backbones/qformer-tokenizer").into(),
            json: false,
        }
    }

    #[test]
    fn a_corpus_is_measured() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let arguments = arguments("corpus/train-*.parquet");
        let manifest = runtime.block_on(Manifest::open(&arguments.files, &ColumnNames::default())).unwrap();
        let report = measure(&arguments, manifest, runtime.handle().clone()).unwrap();
        assert!(report.samples >= 8 && report.samples_per_s > 0.0 && report.reads > 0);
        assert!(report.stages.decode_ms > 0.0 && report.stages.tokenise_ms > 0.0, "{report:?}");
        assert!(report.bytes_per_s > 0.0 && (0.0..=1.0).contains(&report.data_wait_share));
        assert!(text(&report).contains("samples/s"));
    }

    #[test]
    fn totals_become_figures_of_a_sample() {
        let total = |n: u64| LoaderStatistics {
            samples: 10 * n,
            image_bytes: 1000 * n,
            read_bytes: 1500 * n,
            decode: Duration::from_millis(20 * n),
            ..LoaderStatistics::default()
        };
        let elapsed = Duration::from_secs(2);
        let spent = Spent { samples: 8, quarantined: 1, waited: elapsed / 4, elapsed };
        let report = report(&arguments("x"), 2, &spent, [total(1), total(2)]);
        assert_eq!((report.samples_per_s, report.bytes_per_s), (4.0, 400.0));
        assert_eq!((report.stages.decode_ms, report.read_amplification), (2.0, 1.5));
        assert_eq!((report.data_wait_share, report.quarantined), (0.25, 1));
    }

    #[test]
    fn sizes_are_bounded() {
        assert_eq!(batch("64"), Ok(64));
        assert!(batch("0").is_err() && batch("6").is_err() && batch("x").is_err());
        assert!(seconds("0").is_err() && seconds("NaN").is_err() && seconds("1e9").is_err());
    }
}
