//! `curate worker`: one worker of a curation.

use blip2_curation::worker::{CurationWorkerOptions, run_curation_worker};
use blip2_tensors::device::DeviceName;
use clap::Args;

use crate::commands::leasing::LeaseWorkerArguments;
use crate::commands::worker::{device_choice, limit_threads};
use crate::config::{ConfigArguments, load};
use crate::error::CliError;
use crate::signals::Signals;
use blip2_run::exit::Exit;

#[derive(Debug, Args)]
pub(crate) struct WorkerArguments {
    #[command(flatten)]
    lease: LeaseWorkerArguments,
    /// Device of the models, in the place of the configured one.
    #[arg(long, value_name = "NAME")]
    device: Option<DeviceName>,
}

/// Works until all tasks are done or a signal comes, which is heeded after the task in hand.
pub(super) async fn run(arguments: WorkerArguments) -> Result<Exit, CliError> {
    let signals = Signals::listen()?;
    limit_threads(arguments.lease.threads)?;
    let config = load(&ConfigArguments::default())?.config;
    let (leases, _endpoint) = arguments.lease.client(config.tls)?;
    let options = CurationWorkerOptions {
        leases,
        device: device_choice(arguments.device, config.launch.share_devices)?,
    };
    let (graceful, forced) = (signals.graceful(), signals.forced());
    let worked = tokio::select! {
        worked = run_curation_worker(options, &graceful) => worked?,
        () = forced.cancelled() => return Err(CliError::failed("ended at once by a second signal")),
    };
    tracing::info!(tasks = worked.tasks, times = ?worked.times, "done");
    Ok(if worked.left { Exit::Interrupted } else { Exit::Done })
}
