//! `coordinator`: the run's coordinator alone, leading or standing by.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use blip2_proto::transport::{advertised, bind, listening, with_port};
use blip2_run::exit::Exit;
use clap::Args;
use serde_json::json;

use super::train::STOPPED_BEFORE;
use super::{even_unread, print_json};
use crate::commands::endpoint::{MetricsArguments, Told};
use crate::config::ConfigArguments;
use crate::config::{RunConfig, load};
use crate::error::CliError;
use crate::live_page::LivePage;
use crate::measured::telemetry;
use crate::progress::Audience;
use crate::run_folder::{Purpose, RunFolder};
use crate::session::{Finished, Lead, Session};
use crate::signals::Signals;
use crate::standby::{Turn, Watch};
use crate::tls::{transport, url, warn_if_readable};
use crate::token::{must_have_token, read_token};
use blip2_proto::transport::own_host;

#[derive(Debug, Args)]
pub(crate) struct CoordinatorArguments {
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
    /// Address to listen on; port 0 takes a free one, printed as a JSON line.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7100", value_parser = listening)]
    pub(crate) listen: SocketAddr,
    /// File with the run token that workers must show; required for listening beyond this machine.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// URL under which workers and coordinators that stand by reach this one, where that is not its
    /// `--listen` address; port 0 is the one it listens on. If it listens on all addresses: Slurm's name of
    /// this machine.
    #[arg(long, value_name = "URL", value_parser = advertised_url)]
    pub(crate) advertise: Option<String>,
    /// Continue the run in `run.root`, with the workers that are in it or from its newest checkpoint; starts
    /// it where there is none. A coordinator that leads it is fenced off.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Stand by: wait for the run, watch the coordinator that leads it, and take over when it is silent. With
    /// `--resume`, lead at once where nobody does.
    #[arg(long)]
    pub(crate) standby: bool,
    #[command(flatten)]
    pub(crate) metrics: MetricsArguments,
    /// Print progress and the summary as JSON lines.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A URL under which a coordinator is reached.
fn advertised_url(text: &str) -> Result<String, String> {
    if !text.contains("://") {
        return Err(format!("a URL is needed, for example http://{text}"));
    }
    advertised(text).map_err(|error| error.to_string())
}

/// Coordinates a run whose workers are started elsewhere.
pub(crate) async fn run(arguments: CoordinatorArguments) -> Result<Exit, CliError> {
    let signals = Signals::listen()?;
    must_have_token(arguments.listen, arguments.token_file.as_deref())?;
    let token = read_token(arguments.token_file.as_deref())?;
    let config = load(&arguments.config)?.config;
    let root = config.run.root.clone();
    let transport = transport(&config.tls)?;
    warn_if_readable(arguments.listen, &transport);
    let listener = bind(arguments.listen)
        .map_err(|error| CliError::failed(format!("cannot listen on {}: {error}", arguments.listen)))?;
    let address = listener.local_addr().map_err(|error| CliError::failed(error.to_string()))?;
    let telemetry = telemetry("coordinator");
    telemetry.not_ready("the run's folder, corpus and models are being looked at");
    let page = LivePage::default();
    let endpoint = arguments.metrics.open(
        Some(&config.metrics),
        &telemetry,
        Told::Program,
        Some((Arc::new(page.clone()), Some(token.as_str()))),
    )?;
    let advertise = match &arguments.advertise {
        Some(named) => with_port(named, address.port()),
        None => url(&transport, reachable(address, |name| std::env::var(name).ok())?),
    };
    let lead = Lead {
        token,
        transport,
        advertise,
        after: None,
        whole: None,
        on_one_machine: false,
        telemetry,
        page,
    };

    let forced = signals.forced();
    let coordinated = coordinate(&arguments, config, lead, &listener, &signals);
    let finished = tokio::select! {
        finished = coordinated => finished,
        () = forced.cancelled() => {
            return Err(CliError::failed("ended at once by a second signal; the last checkpoint holds"));
        }
    };
    if let Some(endpoint) = endpoint {
        endpoint.close().await;
    }
    match finished? {
        Some(finished) if arguments.json => print_json(&json!({
            "checkpoint": finished.checkpoint,
            "steps": finished.status.step,
            "seconds": finished.seconds,
        }))?,
        Some(finished) => finished.tell(&root),
        None => {}
    }
    Ok(Exit::Done)
}

/// Leads the run to its end, at once or when it is time; `None` when there was nothing to lead.
async fn coordinate(
    arguments: &CoordinatorArguments,
    config: RunConfig,
    lead: Lead,
    listener: &TcpListener,
    signals: &Signals,
) -> Result<Option<Finished>, CliError> {
    let audience = Audience::detect(arguments.json);
    if !arguments.standby {
        let stop = signals.graceful();
        let folder = tokio::select! {
            folder = RunFolder::open(config, arguments.resume, Purpose::Coordinate) => folder?,
            () = stop.cancelled() => return Err(CliError::failed(STOPPED_BEFORE)),
        };
        let session = Session::prepare(folder, lead).await?;
        announce(listener)?;
        return session.run(serving(listener)?, signals.graceful(), audience).await.map(Some);
    }
    announce(listener)?;
    let stop = signals.graceful();
    let mut watch = Watch::begin(config, arguments.resume, lead, &stop).await?;
    loop {
        let Turn::Lead { folder, lead } = watch.turn(listener, &stop).await? else { return Ok(None) };
        let session = Session::prepare(*folder, *lead).await?;
        // Of several that stand by one was faster: the others go on standing by.
        if let Some(finished) = session.attempt(serving(listener)?, stop.clone(), audience).await? {
            return Ok(Some(finished));
        }
    }
}

/// The address as others can be told it.
fn reachable(address: SocketAddr, variable: impl Fn(&str) -> Option<String>) -> Result<String, CliError> {
    if !address.ip().is_unspecified() {
        return Ok(address.to_string());
    }
    let host = own_host(address, &[], variable).ok_or_else(|| {
        CliError::usage(format!(
            "--listen {address} takes connections on all addresses; say under which one others reach this \
             coordinator, for example --advertise http://HOST:{}",
            address.port()
        ))
    })?;
    Ok(format!("{host}:{}", address.port()))
}

fn announce(listener: &TcpListener) -> Result<(), CliError> {
    let address = listener.local_addr().map_err(|error| CliError::failed(error.to_string()))?;
    even_unread(print_json(&json!({ "listening": address.to_string() })))
}

fn serving(listener: &TcpListener) -> Result<tokio::net::TcpListener, CliError> {
    listener
        .try_clone()
        .and_then(tokio::net::TcpListener::from_std)
        .map_err(|error| CliError::failed(format!("cannot go on listening: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_all_is_none_for_others() {
        let check = |listen: &str, node: Option<&str>| {
            let node = node.map(str::to_owned);
            reachable(listen.parse().unwrap(), |name| node.clone().filter(|_| name == "SLURMD_NODENAME"))
        };
        for all in ["0.0.0.0:7100", "[::]:7100"] {
            let error = check(all, None).unwrap_err();
            assert_eq!(error.exit(), Exit::Usage);
            assert!(error.to_string().contains("--advertise http://HOST:7100"), "{error}");
            assert_eq!(check(all, Some("node7")).unwrap(), "node7:7100");
        }
        for own in ["127.0.0.1:7100", "[::1]:7100"] {
            assert_eq!(check(own, Some("node7")).unwrap(), own);
        }
    }
}
