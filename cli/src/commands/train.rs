//! `train`: a coordinator in this process and workers beside it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use blip2_proto::v1::StatusReply;
use blip2_run::exit::Exit;
use blip2_store::secret_url::redacted;
use blip2_tensors::device::DeviceName;
use clap::Args;
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

use super::print_json;
use crate::commands::endpoint::{MetricsArguments, Told};
use crate::config::{ConfigArguments, Loaded, RunConfig, load};
use crate::error::CliError;
use crate::launch::{
    GIVE_UP_WITHIN, Going, LEAVE_WITHIN, Machine, WorkerCommand, WorkerLaunch, Workers, default_workers,
    places,
};
use crate::live_page::LivePage;
use crate::measured::telemetry;
use crate::progress::Audience;
use crate::run_folder::{Purpose, RunFolder};
use crate::session::{Finished, Lead, Session};
use crate::signals::Signals;
use crate::stored_status::has_ended;
use crate::tls::{transport, url};
use crate::token::{TokenFile, fresh_token};

#[derive(Debug, Args)]
pub(crate) struct TrainArguments {
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
    /// Worker processes; same as `--set coordinator.workers=N`. Where nobody says how many: one for each
    /// card.
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<u32>,
    /// Device to compute on: `auto`, `cpu`, `cuda`, `cuda:N`, `vulkan` or `vulkan:N`; same as
    /// `--set train.device=DEVICE`.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<DeviceName>,
    /// Continue the run in `run.root` from its newest checkpoint; starts it where there is none.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Print progress and the summary as JSON lines.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How long the coordinator may take to notice that all its workers are gone.
const NOTICE_WITHIN: Duration = Duration::from_secs(2);

/// What a signal says before there is a run.
pub(crate) const STOPPED_BEFORE: &str =
    "stopped before the run had begun; give the same command again: archives that were converted stay so";

/// The last line of `--json`.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    run: &'a str,
    checkpoint: &'a str,
    steps: u64,
    seconds: f64,
    samples_per_s: f64,
}

/// Trains to the end of the configuration.
pub(crate) async fn run(arguments: TrainArguments) -> Result<Exit, CliError> {
    let loaded = load(&with_shortcuts(arguments.config, arguments.workers, arguments.device))?;
    let config = with_a_worker_a_card(loaded, None)?;
    let root = redacted(&config.run.root);
    let signals = Signals::listen()?;
    let audience = Audience::detect(arguments.json);
    let finished = train_here(config, arguments.resume, Purpose::Train, audience, &signals).await?;
    if arguments.json {
        print_json(&Summary {
            run: &root,
            checkpoint: &finished.checkpoint,
            steps: finished.status.step,
            seconds: finished.seconds,
            samples_per_s: finished.status.samples_per_s,
        })?;
    } else {
        finished.tell(&root);
    }
    Ok(Exit::Done)
}

/// The configuration, with a worker for each card where nobody said how many; `preset` is the program's own
/// file, if it came from one.
pub(crate) fn with_a_worker_a_card(loaded: Loaded, preset: Option<&str>) -> Result<RunConfig, CliError> {
    let is_asked_for = loaded.is_asked_for("coordinator.workers", preset);
    let mut config = loaded.config;
    if !is_asked_for {
        let device = device_of(&config)?;
        let workers = &mut config.coordinator.workers;
        *workers = default_workers(device, &Machine::look(device), *workers, config.train.slots);
    }
    Ok(config)
}

fn device_of(config: &RunConfig) -> Result<DeviceName, CliError> {
    let wrong = |error| CliError::config(format!("train.device = {error}"));
    config.train.device.parse().map_err(wrong)
}

/// Runs coordinator and workers on this machine to the end of the run.
pub(crate) async fn train_here(
    config: RunConfig,
    resume: bool,
    purpose: Purpose,
    audience: Audience,
    signals: &Signals,
) -> Result<Finished, CliError> {
    train_disturbed(config, resume, purpose, audience, signals, None).await
}

/// The same; the first worker is killed once as many steps as `kill_after` says are committed.
pub(crate) async fn train_disturbed(
    config: RunConfig,
    resume: bool,
    purpose: Purpose,
    audience: Audience,
    signals: &Signals,
    kill_after: Option<u64>,
) -> Result<Finished, CliError> {
    let device = device_of(&config)?;
    let places =
        places("train.device", device, config.coordinator.workers, &config.launch, &Machine::look(device))?;
    let (tls, restarts) = (config.tls.clone(), config.launch.restarts);
    let transport = transport(&tls)?;
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .await
        .map_err(|error| CliError::failed(format!("cannot listen on this machine: {error}")))?;
    let address = listener.local_addr().map_err(|error| CliError::failed(error.to_string()))?;
    let coordinator = url(&transport, address);
    let lead_url = coordinator.clone();

    let token = fresh_token()?;
    let telemetry = telemetry("coordinator");
    let page = LivePage::default();
    let told = if audience == Audience::Json { Told::Program } else { Told::Person };
    // Closed with this function, however it is left.
    let _endpoint = MetricsArguments::default().open(
        Some(&config.metrics),
        &telemetry,
        told,
        Some((Arc::new(page.clone()), Some(token.as_str()))),
    )?;
    // Archives may be long in converting.
    let stop = signals.graceful();
    let folder = tokio::select! {
        folder = RunFolder::open(config, resume, purpose) => folder?,
        () = stop.cancelled() => return Err(CliError::failed(STOPPED_BEFORE)),
    };
    let logs = folder.logs()?;
    let token_file = TokenFile::create_in(&logs, &token)?;
    let run_root = redacted(&folder.config.run.root);
    let advertise = coordinator.clone();
    let lead =
        Lead { token, transport, advertise, after: None, whole: None, on_one_machine: true, telemetry, page };
    let session = Session::prepare(folder, lead).await?;
    if let Some(finished) = session.finished() {
        return Ok(finished);
    }
    let status = session.status();
    announce(&lead_url, &run_root, audience);
    let token_file_path = token_file.path().to_path_buf();
    let command = WorkerCommand::Train;
    let launch = WorkerLaunch { command, coordinator, token_file: token_file_path, logs, tls, restarts };
    let mut workers = Workers::start(launch, places)?;

    let forced = signals.forced();
    let strike = strike_after(session.status(), kill_after);
    let mut coordinated = std::pin::pin!(session.run(listener, signals.graceful(), audience));
    let result = tokio::select! {
        result = &mut coordinated => result,
        lost = workers.watch(|| going(&status.borrow()), strike) => {
            timeout(NOTICE_WITHIN, &mut coordinated).await.unwrap_or(Err(lost))
        }
        () = forced.cancelled() => Err(CliError::failed("ended at once by a second signal; the last checkpoint holds")),
    };
    let failed = result.as_ref().is_err_and(|error| error.exit() != Exit::Interrupted);
    if !forced.is_cancelled() {
        workers.finish(if failed { GIVE_UP_WITHIN } else { LEAVE_WITHIN }).await;
    }
    if failed {
        eprint!("{}", workers.last_words());
    }
    result
}

/// Ends once as many steps are committed; never without a number, or when the run ends before.
async fn strike_after(mut status: watch::Receiver<StatusReply>, steps: Option<u64>) {
    if let Some(steps) = steps
        && status.wait_for(|status| status.step >= steps).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Where a run is, for those who look after its workers.
fn going(status: &StatusReply) -> Going {
    if has_ended(&status.state) { Going::Over } else { Going::since(status.epoch > 0) }
}

/// Says where the coordinator is reached, which is not known beforehand, and how to watch it.
fn announce(coordinator: &str, run_root: &str, audience: Audience) {
    if audience == Audience::Json {
        let listening = coordinator.split_once("://").map_or(coordinator, |(_, address)| address);
        // A reader that went away must not end the run.
        let _ = print_json(&json!({ "listening": listening, "coordinator": coordinator, "run": run_root }));
    } else {
        eprintln!("coordinator at {coordinator}; watch it with: blip2 status {run_root} --watch");
    }
}

/// `--workers N` is another way to write `--set coordinator.workers=N`, and so is `--device` for
/// `train.device`.
fn with_shortcuts(
    mut config: ConfigArguments,
    workers: Option<u32>,
    device: Option<DeviceName>,
) -> ConfigArguments {
    config.set.extend(device.map(|device| format!("train.device={device}")));
    if let Some(count) = workers {
        config.set.push(format!("coordinator.workers={count}"));
    }
    config
}
