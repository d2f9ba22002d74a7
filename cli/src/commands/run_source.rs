//! Where a run's status comes from: the coordinator that leads it, or its store.

use std::path::Path;
use std::time::Duration;

use blip2_proto::bounds::{bounded_status, is_identifier};
use blip2_proto::text::{MAX_TEXT, visible};
use blip2_proto::token::with_token;
use blip2_proto::transport::{TlsFiles, Transport};
use blip2_proto::v1::coordinator_client::CoordinatorClient;
use blip2_proto::v1::{StatusReply, StatusRequest, StopRequest};
use blip2_records::StepRecord;
use blip2_run::exit::Exit;
use blip2_store::Location;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::error::CliError;
use crate::places::typed_location;
use crate::run_folder::{local_path, logs_folder};
use crate::stored_status::{StoredRun, StoredStatus};
use crate::tls::transport;
use crate::token::{read_token, token_in};

/// For the connection and for each answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How long a run may be without a coordinator that answers: another one may take over.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Coordinators that are asked in turn for the one that leads, at most.
const MOST_STANDBYS: usize = 4;

/// What is known of a run.
#[derive(Debug)]
pub(super) enum Known {
    /// By its coordinator.
    Live(Box<StatusReply>),
    /// By its store: nobody who leads it answers.
    Stored(Box<StoredStatus>),
}

/// A run that can be asked for again and again, whoever leads it.
pub(super) struct Source {
    transport: Transport,
    token: String,
    /// The address that was given, or the one of the coordinator that answered last.
    address: Option<String>,
    client: Option<CoordinatorClient<Channel>>,
    run: Option<StoredRun>,
    /// Why the coordinator that was asked last does not take the token.
    refusal: Option<CliError>,
}

impl Source {
    /// `target` is a run, or the address of its coordinator.
    pub(super) async fn open(target: &str, tls: TlsFiles, token: Option<&Path>) -> Result<Self, CliError> {
        if is_address(target) {
            let (transport, token) = (transport(&tls)?, read_token(token)?);
            let address = Some(target.trim_end_matches('/').to_owned());
            return Ok(Self { transport, token, address, client: None, run: None, refusal: None });
        }
        let run = StoredRun::open(typed_location(target)?).await?;
        let tls = if tls.is_empty() { run.config.tls.clone() } else { tls };
        let token = match token {
            None => token_in(&logs_folder(&run.config)).map_or_else(|| read_token(None), Ok)?,
            file => read_token(file)?,
        };
        let (transport, run) = (transport(&tls)?, Some(run));
        Ok(Self { transport, token, address: None, client: None, run, refusal: None })
    }

    /// The newest that is known.
    ///
    /// # Errors
    /// The coordinator at the address given does not answer, and where its run lies is not known; or the
    /// store fails.
    pub(super) async fn ask(&mut self) -> Result<Known, CliError> {
        let mut reason = String::new();
        if let Some(address) = self.address.clone() {
            match self.ask_at(&address).await {
                Ok(status) if self.is_of_run(&status) => return Ok(self.answered(status).await),
                Ok(status) => reason = format!("{address} coordinates run {}", status.run_id),
                Err(error) if error.exit() == Exit::Refused && self.run.is_none() => return Err(error),
                Err(error) => reason = error.to_string(),
            }
        }
        self.client = None;
        let Some(run) = &self.run else {
            let address = self.address.as_deref().unwrap_or_default();
            return Err(CliError::failed(format!(
                "{address}: no coordinator answers ({reason}); has the run ended? Its folder or URL in place of the \
                 address shows that"
            )));
        };
        let newest = run.newest_epoch().await?;
        let leads = newest.as_ref().filter(|record| record.end.is_none() && !record.address.is_empty());
        let mut reason = None;
        if let Some(address) = leads.map(|record| record.address.clone()) {
            match self.ask_at(&address).await {
                Ok(status) if self.is_of_run(&status) => {
                    self.address = Some(address);
                    return Ok(Known::Live(Box::new(status)));
                }
                Ok(status) => {
                    reason = Some(format!("another run's coordinator, of {}, is there", status.run_id))
                }
                Err(error) => {
                    reason = Some(error.to_string());
                    self.refusal = Some(error).filter(|error| error.exit() == Exit::Refused);
                }
            }
        }
        let Some(run) = &self.run else { return Err(CliError::failed("the run is gone")) };
        let status = run.status(newest).await?;
        Ok(Known::Stored(Box::new(StoredStatus { reason, ..status })))
    }

    /// An answer; the first one of an address tells where the run lies, in case the coordinator is gone the
    /// next time.
    async fn answered(&mut self, status: StatusReply) -> Known {
        if self.run.is_none()
            && !status.run_root.is_empty()
            && let Ok(root) = Location::parse(&status.run_root)
        {
            // A store that cannot be read from here tells nothing later.
            self.run = StoredRun::open(root).await.ok().filter(|run| run.config.run.id == status.run_id);
        }
        Known::Live(Box::new(status))
    }

    /// Another run's coordinator may have the address by now.
    fn is_of_run(&self, status: &StatusReply) -> bool {
        self.run.as_ref().is_none_or(|run| run.config.run.id == status.run_id)
    }

    /// Asks the coordinator that answered last to save and end the run, or the one that leads where that one
    /// stands by.
    ///
    /// # Errors
    /// It does not answer, does not take the token, or is of another run.
    pub(super) async fn stop(&mut self) -> Result<(), CliError> {
        for _ in 0..MOST_STANDBYS {
            let Some(address) = self.address.clone() else { break };
            let mut client = self.client_of(&address).await?;
            let run_id = self.run.as_ref().map_or(String::new(), |run| run.config.run.id.clone());
            let request = with_token(StopRequest { token: self.token.clone(), run_id }, &self.token);
            let reply = tokio::time::timeout(ANSWER_WITHIN, client.stop(request)).await;
            let reply = reply.map_err(|_| CliError::failed(format!("no answer within {ANSWER_WITHIN:?}")))?;
            let leader = reply.map_err(|status| refusal(&address, &status))?.into_inner().leader;
            if leader.is_empty() {
                self.client = Some(client);
                return Ok(());
            }
            if !is_identifier(&leader) {
                return Err(CliError::failed(format!("{address} names a leader that has no address")));
            }
            self.address = Some(leader);
        }
        Err(CliError::failed("no coordinator was found that leads the run"))
    }

    /// The newest steps that were committed so far, as far as they can be read here.
    pub(super) async fn earlier_steps(&self) -> Vec<StepRecord> {
        match &self.run {
            Some(run) => run.newest_records().await,
            None => Vec::new(),
        }
    }

    /// How processes of the run are reached, and the token that they take.
    pub(super) fn access(&self) -> (&Transport, &str) {
        (&self.transport, &self.token)
    }

    /// Why the coordinator that was asked last did not take the token, if that was so.
    pub(super) fn take_refusal(&mut self) -> Option<CliError> {
        self.refusal.take()
    }

    async fn client_of(&mut self, address: &str) -> Result<CoordinatorClient<Channel>, CliError> {
        if let Some(client) = self.client.take() {
            return Ok(client);
        }
        let channel = self.transport.connect(address, ANSWER_WITHIN).await;
        Ok(CoordinatorClient::new(channel.map_err(CliError::failed)?))
    }

    async fn ask_at(&mut self, address: &str) -> Result<StatusReply, CliError> {
        let mut client = self.client_of(address).await?;
        let request = StatusRequest { token: self.token.clone(), ..StatusRequest::default() };
        let request = with_token(request, &self.token);
        let reply = tokio::time::timeout(ANSWER_WITHIN, client.status(request)).await;
        let reply = reply.map_err(|_| CliError::failed(format!("no status within {ANSWER_WITHIN:?}")))?;
        let reply = reply.map_err(|status| refusal(address, &status))?;
        self.client = Some(client);
        Ok(bounded_status(reply.into_inner()))
    }
}

/// Why a coordinator gave no status.
fn refusal(address: &str, status: &Status) -> CliError {
    if status.code() == Code::FailedPrecondition {
        return CliError::refused(format!("{address}: {}", visible(status.message(), MAX_TEXT)));
    }
    if status.code() == Code::Unauthenticated {
        return CliError::refused(format!(
            "{address}: the token is not this run's; name the run's token file with --token-file (`train` keeps it in \
             logs/token of its run while it runs)"
        ));
    }
    CliError::failed(visible(status.message(), MAX_TEXT))
}

/// Whether this is a coordinator's address: `host:port`, or an http URL without a path. A folder of that name
/// is a run.
fn is_address(target: &str) -> bool {
    if local_path(target).is_some_and(|path| path.is_dir()) {
        return false;
    }
    let authority = match target.split_once("://") {
        Some(("http" | "https", rest)) => rest.trim_end_matches('/'),
        Some(_) => return false,
        None => match target.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => target,
            _ => return false,
        },
    };
    !authority.is_empty() && !authority.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_runs_are_told_apart() {
        for address in [
            "127.0.0.1:7100",
            "http://10.0.0.1:7100",
            "https://host:7100/",
            "[::1]:7100",
            "host:1",
            "http://host",
        ] {
            assert!(is_address(address), "{address}");
        }
        for run in [
            "runs/first",
            "s3://bucket/runs/a",
            "https://host/runs/a",
            "file:///runs/a",
            ".",
            "run",
            "run:x",
            ":7100",
        ] {
            assert!(!is_address(run), "{run}");
        }
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("run:7100");
        std::fs::create_dir(&odd).unwrap();
        assert!(!is_address(odd.to_str().unwrap()));
    }
}
