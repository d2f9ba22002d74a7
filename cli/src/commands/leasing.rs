//! Tasks on leases: a coordinator in this process with workers beside it, and what a worker is told.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use blip2_leases::client::ClientOptions;
use blip2_leases::server::{Admission, LeaseEnd};
use blip2_proto::transport::{TlsFiles, bind};
use blip2_proto::v1::LeaseStatusReply;
use blip2_telemetry::endpoint::Endpoint;
use clap::Args;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{even_unread, print_json};
use crate::commands::endpoint::{MetricsArguments, Shown, Told};
use crate::config::MetricsSection;
use crate::error::CliError;
use crate::identity::binary_identity;
use crate::launch::{Going, LEAVE_WITHIN, Place, WorkerCommand, WorkerLaunch, Workers};
use crate::measured::{show_tasks, telemetry};
use crate::tls::{TlsArguments, transport, url, warn_if_readable};
use crate::token::{TokenFile, fresh_token, must_have_token, read_token};
use crate::typed_numbers::{seconds, threads};
use crate::work_page::{WorkDetails, WorkPage};

/// Between two lines of progress, at least.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// How a worker finds its coordinator.
#[derive(Debug, Args)]
pub(crate) struct LeaseWorkerArguments {
    /// URL of the coordinator.
    #[arg(long, value_name = "URL")]
    coordinator: String,
    /// File with the coordinator's token; without it, only a coordinator on this machine can be joined.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Name in logs and status.
    #[arg(long, value_name = "NAME", default_value = "")]
    name: String,
    /// Compute threads; 0 takes all cores.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = threads)]
    pub(crate) threads: usize,
    /// Give up when the coordinator cannot be reached for so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    patience: f64,
    #[command(flatten)]
    metrics: MetricsArguments,
    #[command(flatten)]
    tls: TlsArguments,
}

impl LeaseWorkerArguments {
    /// What it asks for leases with; `tls` is that of the configuration. With it its metrics port, open as
    /// long as that is kept.
    pub(crate) fn client(self, tls: TlsFiles) -> Result<(ClientOptions, Option<Endpoint>), CliError> {
        let telemetry = telemetry("worker");
        let endpoint = self.metrics.open(None, &telemetry, Told::Program, None)?;
        let options = ClientOptions {
            coordinator: self.coordinator,
            token: read_token(self.token_file.as_deref())?,
            binary: binary_identity()?,
            name: self.name,
            transport: transport(&self.tls.over(tls))?,
            patience: Duration::from_secs_f64(self.patience),
            telemetry,
        };
        Ok((options, endpoint))
    }
}

/// A coordinator in this process.
pub(crate) struct Leasing<'a> {
    /// What is done: `curation`.
    pub(crate) called: &'static str,
    /// What workers of this machine are.
    pub(crate) command: WorkerCommand,
    /// Where it listens for workers of other machines.
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) token_file: Option<&'a Path>,
    pub(crate) tls: TlsFiles,
    /// How often each worker that was killed is started again.
    pub(crate) restarts: u32,
    /// Workers of this machine.
    pub(crate) places: Vec<Place>,
    /// Whether nothing is left to do: no worker is started.
    pub(crate) all_done: bool,
    /// Its metrics port: what was typed, and what is configured.
    pub(crate) metrics: (MetricsArguments, MetricsSection),
    /// Shown there beside the tasks.
    pub(crate) details: Option<Arc<dyn WorkDetails>>,
}

impl Leasing<'_> {
    /// Hands out tasks with `hand_out` and watches the workers of this machine; `tell` is told what is done,
    /// not too often. How it ended, and the rows of the tasks that were done.
    ///
    /// # Errors
    /// Those of `hand_out`, a task that failed too often, workers that all ended.
    pub(crate) async fn run(
        self,
        hand_out: impl AsyncFnOnce(TcpListener, Admission) -> Result<LeaseEnd, CliError>,
        tell: impl Fn(&LeaseStatusReply) + Send + 'static,
    ) -> Result<(LeaseEnd, u64), CliError> {
        let Self { called, command, listen, token_file, tls, restarts, places, all_done, metrics, details } =
            self;
        let address = listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        must_have_token(address, token_file)?;
        if places.is_empty() && listen.is_none() {
            return Err(CliError::usage(format!(
                "--workers 0: say with --listen ADDR where workers reach this {called}"
            )));
        }
        // Workers that are started elsewhere without a token know the one of this machine.
        let token = match (token_file, listen) {
            (None, None) => fresh_token()?,
            (file, _) => read_token(file)?,
        };
        let transport = transport(&tls)?;
        warn_if_readable(address, &transport);
        let listener = bind(address)
            .and_then(TcpListener::from_std)
            .map_err(|error| CliError::failed(format!("cannot listen on {address}: {error}")))?;
        let bound = listener.local_addr().map_err(|error| CliError::failed(error.to_string()))?;
        if listen.is_some() {
            even_unread(print_json(&json!({ "listening": bound.to_string() })))?;
        }
        let (status, watched) = watch::channel(LeaseStatusReply::default());
        let telemetry = telemetry("coordinator");
        show_tasks(&telemetry, watched.clone());
        if let Some(details) = &details {
            details.show(&telemetry);
        }
        let page = WorkPage::new(called, watched.clone(), details);
        let shown = Some((Arc::new(page.clone()) as Arc<dyn Shown>, Some(token.as_str())));
        // Closed with this function, however it is left.
        let _endpoint = metrics.0.open(Some(&metrics.1), &telemetry, Told::Program, shown)?;
        let token_file = TokenFile::create(&token)?;
        let logs =
            tempfile::tempdir().map_err(|error| CliError::failed(format!("a folder for logs: {error}")))?;
        let launch = WorkerLaunch {
            command,
            coordinator: url(&transport, bound),
            token_file: token_file.path().to_path_buf(),
            logs: logs.path().to_path_buf(),
            tls,
            restarts,
        };
        let watches = !places.is_empty() && !all_done;
        let mut workers = Workers::start(launch, if all_done { Vec::new() } else { places })?;
        let mut progress = JoinSet::new();
        progress.spawn(show_progress(watched.clone(), tell));
        progress.spawn(page.follow());
        let admission = Admission { token, binary: binary_identity()?, transport, status };
        let mut handed_out = std::pin::pin!(hand_out(listener, admission));
        let end = tokio::select! {
            end = &mut handed_out => end,
            lost = workers.watch(|| Going::since(watched.borrow().done > 0), std::future::pending()), if watches => {
                // They may have ended because all is done.
                match tokio::time::timeout(PROGRESS_EVERY, &mut handed_out).await {
                    Ok(end) => end,
                    Err(_) => Err(lost),
                }
            }
        };
        drop(progress);
        let end = end.and_then(|end| match end {
            LeaseEnd::Failed { task, reason } => Err(CliError::failed(format!("task {task}: {reason}"))),
            end => Ok((end, watched.borrow().rows)),
        });
        workers.finish(LEAVE_WITHIN).await;
        if end.is_err() {
            // The logs outlive what failed.
            let _ = logs.keep();
            eprint!("{}", workers.last_words());
        }
        end
    }
}

/// A line whenever tasks were done, not too often.
async fn show_progress(mut watched: watch::Receiver<LeaseStatusReply>, tell: impl Fn(&LeaseStatusReply)) {
    let mut shown = 0;
    while watched.changed().await.is_ok() {
        let status = watched.borrow_and_update().clone();
        if status.done > shown {
            shown = status.done;
            tell(&status);
            tokio::time::sleep(PROGRESS_EVERY).await;
        }
    }
}
