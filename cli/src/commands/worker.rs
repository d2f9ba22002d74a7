//! `worker`: one member of a run.

use std::net::SocketAddr;
use std::time::Duration;

use blip2_worker::{WorkerEnd, WorkerOptions, config_hash};
use serde_json::json;

use super::print_json;
use crate::arguments::WorkerArguments;
use crate::config::load;
use crate::error::CliError;
use crate::exit::Exit;
use crate::identity::binary_identity;
use crate::places::chosen_checkpoint;
use crate::secured::transport;
use crate::signals::Signals;
use crate::token::read_token;

/// Works until the coordinator ends the run or lets this worker go.
pub(crate) async fn run(arguments: WorkerArguments) -> Result<Exit, CliError> {
    let signals = Signals::listen()?;
    limit_threads(arguments.threads)?;
    let insists = arguments.config.config.is_some() || !arguments.config.set.is_empty();
    let mut config = load(&arguments.config)?.config;
    if insists {
        config.model.init_checkpoint = chosen_checkpoint(&config.model.init_checkpoint, None).await?;
    }
    let options = WorkerOptions {
        coordinators: arguments.coordinator,
        listen: arguments.listen,
        advertise: arguments.advertise,
        token: read_token(arguments.token_file.as_deref())?,
        name: arguments.name,
        binary: binary_identity()?,
        join_timeout: Duration::from_secs_f64(arguments.join_timeout),
        reconnect_timeout: Duration::from_secs_f64(arguments.reconnect_timeout),
        transport: transport(&arguments.tls.over(config.tls.clone()))?,
        on_listening: Some(announce),
        device: arguments.device,
        config_hash: if insists { config_hash(&config.worker()) } else { String::new() },
    };
    let forced = signals.forced();
    let end = tokio::select! {
        end = blip2_worker::run(options, signals.graceful().cancelled_owned()) => end?,
        () = forced.cancelled() => return Err(CliError::failed("ended at once by a second signal")),
    };
    match end {
        WorkerEnd::Done | WorkerEnd::Released => Ok(Exit::Done),
        WorkerEnd::Interrupted => Ok(Exit::Interrupted),
    }
}

/// Tells where this worker listens, as a JSON line.
fn announce(address: SocketAddr) {
    if let Err(error) = print_json(&json!({ "listening": address.to_string() })) {
        tracing::warn!(%error, "the address is not announced");
    }
}

/// The compute threads of this process; 0 leaves one a core.
pub(crate) fn limit_threads(threads: usize) -> Result<(), CliError> {
    if threads == 0 {
        return Ok(());
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .map_err(|error| CliError::failed(format!("cannot start {threads} compute threads: {error}")))
}
