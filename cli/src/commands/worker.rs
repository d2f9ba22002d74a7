//! `worker`: one member of a run.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use blip2_proto::bounds::{MAX_IDENTIFIER, is_identifier};
use blip2_proto::transport::{advertised, listening};
use blip2_run::exit::Exit;
use blip2_tensors::device::DeviceName;
use blip2_tensors::device::seat::{DeviceChoice, Seat};
use blip2_worker::{WorkerEnd, WorkerOptions, WorkerStanding, config_hash};
use clap::Args;
use serde_json::json;

use super::print_json;
use crate::commands::endpoint::{MetricsArguments, Told};
use crate::config::{ConfigArguments, load};
use crate::error::CliError;
use crate::identity::binary_identity;
use crate::logging::standing::{Standing, stands};
use crate::measured::telemetry;
use crate::otlp;
use crate::places::chosen_checkpoint;
use crate::signals::Signals;
use crate::tls::{TlsArguments, transport, warn_if_readable};
use crate::token::{must_have_token, read_token};
use crate::typed_numbers::{seconds, seconds_or_none, threads};
use blip2_proto::transport::own_host;

#[derive(Debug, Args)]
pub(crate) struct WorkerArguments {
    /// The coordinators, the leading one and those that stand by, for example `http://10.0.0.1:7100`; may be
    /// repeated or a list with commas.
    #[arg(long, value_name = "URL", required = true, value_delimiter = ',')]
    pub(crate) coordinator: Vec<String>,
    /// Address for other workers to reach this one; port 0 takes a free one, printed as a JSON line.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0", value_parser = listening)]
    pub(crate) listen: SocketAddr,
    /// File with the run token; required for listening beyond this machine.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Name for logs and the status page.
    #[arg(long, default_value = "worker", value_parser = name)]
    pub(crate) name: String,
    /// Compute threads; 0 takes all cores.
    #[arg(long, default_value_t = 0, value_parser = threads)]
    pub(crate) threads: usize,
    /// Device to compute on: `auto`, `cpu`, `cuda`, `cuda:N`, `vulkan` or `vulkan:N`; without it, the one of
    /// the run's configuration. Of several cards a task of Slurm takes the one of its number.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<DeviceName>,
    /// Host and port under which other workers reach this one, where that is not its `--listen` address; port
    /// 0 is the one it listens on. If it listens on all addresses: the one on the way to the coordinator, or
    /// Slurm's name of this machine.
    #[arg(long, value_name = "HOST:PORT", value_parser = advertised)]
    pub(crate) advertise: Option<String>,
    /// Seconds to try to reach the coordinator and to be taken in: a cluster may have to add its machine
    /// first.
    #[arg(long, default_value_t = 1800.0, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) join_timeout: f64,
    /// Seconds to look for a coordinator after the connection was lost, with the state kept; 0 ends at once.
    #[arg(long, default_value_t = 300.0, value_name = "SECONDS", value_parser = seconds_or_none)]
    pub(crate) reconnect_timeout: f64,
    #[command(flatten)]
    pub(crate) metrics: MetricsArguments,
    #[command(flatten)]
    pub(crate) tls: TlsArguments,
    /// Configuration this worker insists on; without it, it takes the coordinator's.
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
}

/// A name that can be shown.
fn name(text: &str) -> Result<String, String> {
    if is_identifier(text) {
        return Ok(text.to_owned());
    }
    Err(format!("a name is one line of at most {MAX_IDENTIFIER} bytes"))
}

/// Works until the coordinator ends the run or lets this worker go.
pub(crate) async fn run(arguments: WorkerArguments) -> Result<Exit, CliError> {
    let signals = Signals::listen()?;
    limit_threads(arguments.threads)?;
    let advertise = advertise(&arguments, |name| std::env::var(name).ok())?;
    let insists = arguments.config.config.is_some() || !arguments.config.set.is_empty();
    let mut config = load(&arguments.config)?.config;
    if insists {
        config.model.init_checkpoint = chosen_checkpoint(&config.model.init_checkpoint, None).await?;
    }
    let transport = transport(&arguments.tls.over(config.tls.clone()))?;
    warn_if_readable(arguments.listen, &transport);
    let telemetry = telemetry("worker");
    telemetry.call(&arguments.name);
    let endpoint = arguments.metrics.open(None, &telemetry, Told::Program, None)?;
    let traces = otlp::start(&telemetry)?;
    let options = WorkerOptions {
        coordinators: arguments.coordinator,
        listen: arguments.listen,
        advertise,
        token: read_token(arguments.token_file.as_deref())?,
        name: arguments.name,
        binary: binary_identity()?,
        join_timeout: Duration::from_secs_f64(arguments.join_timeout),
        reconnect_timeout: Duration::from_secs_f64(arguments.reconnect_timeout),
        transport,
        on_listening: Some(announce),
        on_standing: Some(note_standing),
        device: device_choice(arguments.device, config.launch.share_devices)?,
        telemetry,
        config_hash: if insists { config_hash(&config.worker()) } else { String::new() },
    };
    let forced = signals.forced();
    let end = tokio::select! {
        end = blip2_worker::run(options, signals.graceful().cancelled_owned()) => end,
        () = forced.cancelled() => return Err(CliError::failed("ended at once by a second signal")),
    };
    if let Some(traces) = traces {
        traces.close().await;
    }
    if let Some(endpoint) = endpoint {
        endpoint.close().await;
    }
    match end? {
        WorkerEnd::Done => Ok(Exit::Done),
        WorkerEnd::Interrupted => Ok(Exit::Interrupted),
        // A scheduler that reads 0 takes this place for done, for good.
        WorkerEnd::Released => {
            Err(CliError::interrupted("let go as it was asked; the run goes on without this worker"))
        }
    }
}

/// Which device a worker that was started by itself takes: a scheduler's tasks on one machine take a card
/// each.
pub(crate) fn device_choice(device: Option<DeviceName>, share: bool) -> Result<DeviceChoice, CliError> {
    let seat = Seat::of_process(|name| std::env::var(name).ok());
    let seat = seat.map_err(|error| CliError::config(error.to_string()))?;
    Ok(DeviceChoice { device, seat, share })
}

/// Other machines reach this worker only with a token, and only at an address that they can be told; `None`:
/// the one it listens on.
fn advertise(
    arguments: &WorkerArguments,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<String>, CliError> {
    let listen = arguments.listen;
    must_have_token(listen, arguments.token_file.as_deref())?;
    if arguments.advertise.is_some() || !listen.ip().is_unspecified() {
        return Ok(arguments.advertise.clone());
    }
    let host = own_host(listen, &arguments.coordinator, variable).ok_or_else(|| {
        CliError::usage(format!(
            "--listen {listen} takes connections on all addresses, and the way to the coordinator does not tell under \
             which one others reach this worker; say it, for example --advertise HOST:{}",
            if listen.port() == 0 { 7200 } else { listen.port() }
        ))
    })?;
    Ok(Some(format!("{host}:0")))
}

/// Tells where this worker listens, as a JSON line.
fn announce(address: SocketAddr) {
    if let Err(error) = print_json(&json!({ "listening": address.to_string() })) {
        tracing::warn!(%error, "the address is not announced");
    }
}

/// From now on log lines say this.
fn note_standing(standing: &WorkerStanding) {
    let WorkerStanding { run_id, member, epoch, step } = standing.clone();
    stands(Standing { run: run_id, epoch: Some(epoch), step, member });
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

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::arguments::{Arguments, Command};

    fn check(arguments: &[&str]) -> Result<Option<String>, String> {
        let known = ["blip2", "worker", "--coordinator", "http://[::1]:7100"];
        let parsed = Arguments::try_parse_from([&known[..], arguments].concat());
        match parsed.map_err(|error| error.to_string())?.command {
            Command::Worker(arguments) => advertise(&arguments, |_| None).map_err(|error| {
                assert_eq!(error.exit(), Exit::Usage);
                error.to_string()
            }),
            _ => panic!("not a worker"),
        }
    }

    #[test]
    fn other_machines_need_a_token_and_an_address() {
        let token = ["--token-file", "token"];
        assert_eq!(check(&["--listen", "127.0.0.1:0"]), Ok(None));
        assert_eq!(check(&["--listen", "[::1]:0"]), Ok(None));
        for beyond in ["0.0.0.0:0", "[::]:0", "10.0.0.1:0", "[fd00::1]:7200"] {
            assert!(check(&["--listen", beyond]).unwrap_err().contains("--token-file"), "{beyond}");
        }
        assert_eq!(check(&[&["--listen", "[fd00::1]:7200"][..], &token].concat()), Ok(None));
        for all in ["0.0.0.0:0", "[::]:7200"] {
            let named = [&["--listen", all][..], &token].concat();
            assert!(check(&named).unwrap_err().contains("--advertise HOST:7200"), "{all}");
            let advertised = [&named[..], &["--advertise", "[10.0.0.1]:7200"]].concat();
            assert_eq!(check(&advertised), Ok(Some("10.0.0.1:7200".into())), "{all}");
        }
        assert!(check(&["--advertise", "fd00::1:7200"]).unwrap_err().contains("[fd00::1]:7200"));
        assert!(check(&["--name", "two\nlines"]).unwrap_err().contains("one line"));
    }
}
