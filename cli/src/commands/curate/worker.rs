//! `curate worker`: one worker of a curation.

use std::path::PathBuf;
use std::time::Duration;

use blip2_curation::worker::{CurationWorkerOptions, run_curation_worker};
use blip2_tensors::device::DeviceName;
use clap::Args;

use crate::commands::worker::{device_choice, limit_threads};
use crate::config::{ConfigArguments, load};
use crate::error::CliError;
use crate::identity::binary_identity;
use crate::signals::Signals;
use crate::tls::{TlsArguments, transport};
use crate::token::read_token;
use crate::typed_numbers::{seconds, threads};
use blip2_run::exit::Exit;

#[derive(Debug, Args)]
pub(crate) struct WorkerArguments {
    /// URL of the curation's coordinator.
    #[arg(long, value_name = "URL")]
    coordinator: String,
    /// File with the curation's token; without it, only a coordinator on this machine can be joined.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Name in logs and status.
    #[arg(long, value_name = "NAME", default_value = "")]
    name: String,
    /// Device of the models, in the place of the configured one.
    #[arg(long, value_name = "NAME")]
    device: Option<DeviceName>,
    /// Compute threads; 0 takes all cores.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = threads)]
    threads: usize,
    /// Give up when the coordinator cannot be reached for so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    patience: f64,
    #[command(flatten)]
    tls: TlsArguments,
}

/// Works until all tasks are done or a signal comes, which is heeded after the task in hand.
pub(super) async fn run(arguments: WorkerArguments) -> Result<Exit, CliError> {
    let signals = Signals::listen()?;
    limit_threads(arguments.threads)?;
    let config = load(&ConfigArguments::default())?.config;
    let tls = config.tls;
    let options = CurationWorkerOptions {
        coordinator: arguments.coordinator,
        token: read_token(arguments.token_file.as_deref())?,
        binary: binary_identity()?,
        name: arguments.name,
        device: device_choice(arguments.device, config.launch.share_devices)?,
        transport: transport(&arguments.tls.over(tls))?,
        patience: Duration::from_secs_f64(arguments.patience),
    };
    let (graceful, forced) = (signals.graceful(), signals.forced());
    let worked = tokio::select! {
        worked = run_curation_worker(options, &graceful) => worked?,
        () = forced.cancelled() => return Err(CliError::failed("ended at once by a second signal")),
    };
    tracing::info!(tasks = worked.tasks, times = ?worked.times, "done");
    Ok(if worked.left { Exit::Interrupted } else { Exit::Done })
}
