//! `curate`: a coordinator in this process and workers beside it, or a share of the tasks without either.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use blip2_curation::coordinator::{CurationOptions, coordinate_curation};
use blip2_curation::counted::Counted;
use blip2_curation::finish::CurationSummary;
use blip2_curation::job::CurationJob;
use blip2_curation::models;
use blip2_curation::runs::RunRecord;
use blip2_curation::task_runner::TaskRunner;
use blip2_dataset::corpus::ingest::Share;
use blip2_proto::transport::listening;
use blip2_proto::v1::LeaseStatusReply;
use blip2_run::exit::Exit;
use blip2_store::Location;
use blip2_tensors::device::DeviceName;
use clap::Args;
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::counts::Counts;
use super::summary::described;
use crate::again::same_command;
use crate::commands::endpoint::{MetricsArguments, Shown, Told};
use crate::commands::leasing::Leasing;
use crate::commands::share::share;
use crate::commands::{even_unread, print_json, worker::limit_threads};
use crate::config::{ConfigArguments, RunConfig, load};
use crate::error::CliError;
use crate::launch::{Machine, Place, WorkerCommand, default_workers, places};
use crate::measured::{show_tasks, telemetry};
use crate::signals::Signals;
use crate::token::read_token;
use crate::typed_numbers;
use crate::work_page::{WorkDetails as _, WorkPage};

/// Most worker processes.
const MOST_WORKERS: u32 = 1024;

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Worker processes on this machine, one for each card where nobody says how many; 0 leaves all tasks to
    /// workers that join (`curate worker`).
    #[arg(long, value_name = "N", conflicts_with = "shard", value_parser = clap::value_parser!(u32).range(..=1024))]
    workers: Option<u32>,
    /// Do the I-th of N shares of the tasks, from 0, in this process and without a coordinator.
    #[arg(long, value_name = "I/N", value_parser = share)]
    shard: Option<Share>,
    /// Address for workers of other machines; needs --token-file.
    #[arg(long, value_name = "ADDR", conflicts_with = "shard", value_parser = listening)]
    listen: Option<SocketAddr>,
    /// File with the token that workers of other machines must have, and who looks from there at the page
    /// that --metrics-listen shows; with --shard, the latter alone.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    metrics: MetricsArguments,
    /// Compute threads of each worker; 0 divides the cores.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = typed_numbers::threads)]
    threads: usize,
    /// Print progress and the summary as JSON lines.
    #[arg(long)]
    json: bool,
}

/// The last line of `--json`.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    #[serde(flatten)]
    summary: &'a CurationSummary,
    seconds: f64,
    rows_per_s: f64,
}

/// Curates to the end of the input.
pub(super) async fn run(arguments: RunArguments) -> Result<Exit, CliError> {
    let signals = Signals::listen()?;
    let loaded = load(&arguments.config)?;
    let is_asked_for = loaded.is_asked_for("curation.workers", None);
    let mut config = loaded.config;
    let device = device_of(&config)?;
    let machine = Machine::look(device);
    match arguments.workers {
        Some(workers) => config.curation.workers = workers,
        None if !is_asked_for => {
            config.curation.workers =
                default_workers(device, &machine, config.curation.workers, MOST_WORKERS);
        }
        None => {}
    }
    config.curation.validate()?;
    if arguments.threads > 0 {
        config.launch.threads_per_worker = arguments.threads;
    }
    let places = match arguments.shard {
        Some(_) => Vec::new(),
        None => places("curation.models.device", device, config.curation.workers, &config.launch, &machine)?,
    };
    if arguments.shard.is_some() || config.curation.workers > 0 {
        config.curation.models.check(config.curation.selection.mode)?;
    }
    let out = Location::parse(config.curation.output.trim_end_matches('/'))?;
    let job = CurationJob::begin(&out, &config.curation.input, &config.curation.settings()).await?;
    let forced = signals.forced();
    let began = Instant::now();
    let worked = async {
        match arguments.shard {
            Some(share) => run_share(&arguments, &config, job.clone(), share, signals.graceful()).await,
            None => coordinate(&arguments, &config, &job, &signals, places).await,
        }
    };
    let rows = tokio::select! {
        rows = worked => rows?,
        () = forced.cancelled() => return Err(CliError::failed(format!("ended at once by a second signal; what is written holds: continue with {}", same_command(None)))),
    };
    let summary = job.summary().await?;
    let seconds = began.elapsed().as_secs_f64();
    if rows > 0 {
        let workers = if arguments.shard.is_some() { 1 } else { config.curation.workers };
        job.record_run(&RunRecord { rows, seconds, workers }).await?;
    }
    match arguments.json {
        true => {
            let line = Summary { summary: &summary, seconds, rows_per_s: rows as f64 / seconds };
            even_unread(print_json(&line))?;
        }
        false => eprintln!("{}\n  {rows} rows in {seconds:.0} s", described(&summary, &out)),
    }
    if summary.tasks_done < summary.tasks && signals.graceful().is_cancelled() {
        let (done, tasks) = (summary.tasks_done, summary.tasks);
        eprintln!("stopped after {done} of {tasks} tasks; continue with {}", same_command(None));
        return Ok(Exit::Interrupted);
    }
    Ok(Exit::Done)
}

fn device_of(config: &RunConfig) -> Result<DeviceName, CliError> {
    let wrong = |error| CliError::config(format!("curation.models.device = {error}"));
    config.curation.models.device.parse().map_err(wrong)
}

/// The tasks of a share, one after the other; rows that were read.
async fn run_share(
    arguments: &RunArguments,
    config: &RunConfig,
    job: CurationJob,
    share: Share,
    stop: CancellationToken,
) -> Result<u64, CliError> {
    limit_threads(arguments.threads)?;
    let token = arguments.token_file.as_deref().map(|file| read_token(Some(file))).transpose()?;
    let telemetry = telemetry("worker");
    telemetry.not_ready("the models are being fetched and opened");
    let (status, watched) = watch::channel(LeaseStatusReply::default());
    let counts = Arc::new(Counts { counted: Counted::default(), job: job.clone() });
    let page = WorkPage::new("curation", watched.clone(), Some(counts.clone())).of_share(share);
    // Open before the models are here, which may take long; closed with this function, however it is left.
    let told = if arguments.json { Told::Program } else { Told::Person };
    let shown = (Arc::new(page.clone()) as Arc<dyn Shown>, token.as_deref());
    let endpoint = arguments.metrics.open(Some(&config.metrics), &telemetry, told, Some(shown))?;
    let mut following = JoinSet::new();
    if endpoint.is_some() {
        following.spawn(page.follow());
    }
    let curation = &config.curation;
    let (settings, mode) = (curation.models.with_models_here().await?, curation.selection.mode);
    let opened = tokio::task::spawn_blocking(move || models::open(&settings, mode)).await;
    let models = opened.map_err(|error| CliError::failed(format!("opening the models: {error}")))??;
    show_tasks(&telemetry, watched.clone());
    counts.show(&telemetry);
    let json = arguments.json;
    let progress = |reply: &LeaseStatusReply| {
        let before = status.send_replace(reply.clone());
        // The first one tells what was done before.
        if before.tasks > 0 && reply.done > before.done {
            tell(json, reply);
        }
    };
    // What was done before is read for those alone who can see it.
    let counted = endpoint.as_ref().map(|_| &counts.counted);
    TaskRunner::new(job, models).run_share(share, &stop, counted, progress).await?;
    let rows = watched.borrow().rows;
    Ok(rows)
}

/// Hands out tasks and watches the workers of this machine; rows of the tasks that were done.
async fn coordinate(
    arguments: &RunArguments,
    config: &RunConfig,
    job: &CurationJob,
    signals: &Signals,
    places: Vec<Place>,
) -> Result<u64, CliError> {
    let curation = &config.curation;
    let config_toml = toml::to_string(curation)
        .map_err(|error| CliError::failed(format!("the configuration does not serialise: {error}")))?;
    let counted = Counted::default();
    let leasing = Leasing {
        called: "curation",
        command: WorkerCommand::Curate,
        listen: arguments.listen,
        token_file: arguments.token_file.as_deref(),
        tls: config.tls.clone(),
        restarts: config.launch.restarts,
        places,
        metrics: (arguments.metrics.clone(), config.metrics.clone()),
        all_done: job.tasks_done().await?.len() == job.tasks().len(),
        details: Some(Arc::new(Counts { counted: counted.clone(), job: job.clone() })),
    };
    let stop = signals.graceful();
    let coordinate = async |listener, admission| {
        let options = CurationOptions {
            job: job.clone(),
            config_toml,
            lease: Duration::from_secs_f64(curation.lease_seconds),
            most_failures: curation.most_failures,
            admission,
            counted,
        };
        Ok(coordinate_curation(listener, stop.cancelled(), options).await?)
    };
    let json = arguments.json;
    let (_, rows) = leasing.run(coordinate, move |status| tell(json, status)).await?;
    Ok(rows)
}

fn tell(json: bool, status: &LeaseStatusReply) {
    let LeaseStatusReply { tasks, done, leased, rows, .. } = status;
    match json {
        // A reader that went away shows when the summary is printed.
        true => drop(print_json(&json!({"tasks": tasks, "done": done, "leased": leased, "rows": rows}))),
        false => eprintln!("task {done}/{tasks}: {rows} rows"),
    }
}
