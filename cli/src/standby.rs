//! A coordinator that stands by: it follows the run from beside it until it is its turn to lead.

use std::net::TcpListener;
use std::time::Duration;

use blip2_coordinator::{StandByEnd, StandByOptions};
use blip2_proto::v1::StatusReply;
use blip2_run::catalogue::Catalogue;
use blip2_run::epoch::Epochs;
use blip2_store::Location;
use blip2_telemetry::metric::STANDBY;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::again::same_command;
use crate::config::RunConfig;
use crate::error::CliError;
use crate::logging::standing::is_of_run;
use crate::run_folder::{Purpose, RunFolder};
use crate::session::Lead;

/// Between two looks for a new checkpoint.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What a signal ends that does not lead.
const ASKED_TO_GO: &str = "asked to go while it stood by; the run goes on without this coordinator";

/// A run that is followed.
#[derive(Debug)]
pub(crate) struct Watch {
    folder: RunFolder,
    lead: Lead,
    /// Whether a run that nobody leads is led at once; for the first turn only.
    starts: bool,
}

/// What standing by came to.
#[derive(Debug)]
pub(crate) enum Turn {
    /// It is time to lead.
    Lead { folder: Box<RunFolder>, lead: Box<Lead> },
    /// The run is done: there is nothing to lead.
    Over,
}

impl Watch {
    /// Waits until the run is there, unless it may be started (`starts`).
    ///
    /// # Errors
    /// The run was started with another configuration or corpus, or it does not appear in time; or `stop`
    /// comes first.
    pub(crate) async fn begin(
        config: RunConfig,
        starts: bool,
        lead: Lead,
        stop: &CancellationToken,
    ) -> Result<Self, CliError> {
        let opened = async {
            if starts {
                RunFolder::open(config, true, Purpose::Coordinate).await
            } else {
                RunFolder::await_run(config).await
            }
        };
        let folder = tokio::select! {
            opened = opened => opened?,
            () = stop.cancelled() => return Err(CliError::interrupted(ASKED_TO_GO)),
        };
        Ok(Self { folder, lead, starts })
    }

    /// Stands by until it is time to lead.
    ///
    /// # Errors
    /// The run was interrupted or failed under its leader, with that one's class of exit code; `stop` came
    /// before the run was done; or the server cannot run.
    pub(crate) async fn turn(
        &mut self,
        listener: &TcpListener,
        stop: &CancellationToken,
    ) -> Result<Turn, CliError> {
        let mut whole = None;
        let end = match self.unled().await? {
            Some(end) => end,
            None => self.stand_by(listener, stop, &mut whole).await?,
        };
        match end {
            StandByEnd::Lead { after } => {
                // What the run has saved since it was opened is found now.
                let folder = RunFolder { continued: true, ..self.folder.clone() };
                let lead = Lead { after: Some(after), whole, ..self.lead.clone() };
                Ok(Turn::Lead { folder: Box::new(folder), lead: Box::new(lead) })
            }
            StandByEnd::Over { how } => over(&how),
            StandByEnd::Stopped => Err(CliError::interrupted(ASKED_TO_GO)),
        }
    }

    /// What to do at once, in the first turn, with a run that nobody leads.
    async fn unled(&mut self) -> Result<Option<StandByEnd>, CliError> {
        if !std::mem::take(&mut self.starts) {
            return Ok(None);
        }
        let newest = Epochs::new(&self.folder.root, String::new(), String::new()).newest_record().await?;
        Ok(match newest {
            None => Some(StandByEnd::Lead { after: 0 }),
            Some(record) => match record.end {
                Some(how) if how == "done" => Some(StandByEnd::Over { how }),
                Some(_) => Some(StandByEnd::Lead { after: record.epoch }),
                None => None,
            },
        })
    }

    async fn stand_by(
        &self,
        listener: &TcpListener,
        stop: &CancellationToken,
        whole: &mut Option<String>,
    ) -> Result<StandByEnd, CliError> {
        is_of_run(&self.folder.config.run.id);
        let telemetry = &self.lead.telemetry;
        telemetry.set(&STANDBY, &[], 1.0);
        telemetry.ready();
        eprintln!("standing by for run {}", self.folder.config.run.id);
        let options = StandByOptions {
            run_id: self.folder.config.run.id.clone(),
            run_root: self.folder.root.clone(),
            settings: self.folder.config.coordinator.clone(),
            advertise: self.lead.advertise.clone(),
            transport: self.lead.transport.clone(),
            token: self.lead.token.clone(),
            status: watch::Sender::new(StatusReply::default()),
        };
        self.lead.page.follow(options.status.subscribe());
        let end = tokio::select! {
            end = blip2_coordinator::stand_by(listener, stop.cancelled(), options) => end,
            never = read_back(&self.folder.root, whole) => match never {},
        };
        telemetry.set(&STANDBY, &[], 0.0);
        telemetry.not_ready("this coordinator is taking over");
        Ok(end?)
    }
}

/// Reads every new checkpoint back, so that taking over need not.
async fn read_back(root: &Location, whole: &mut Option<String>) -> std::convert::Infallible {
    let catalogue = Catalogue::new(root);
    loop {
        // Damaged ones and a store that fails are for the one who leads to report.
        if let Ok((Some(newest), _)) = catalogue.latest_valid().await
            && whole.as_ref() != Some(&newest.name)
            && catalogue.verify(&newest.name).await.is_ok()
        {
            *whole = Some(newest.name);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The run ended under its leader.
fn over(how: &str) -> Result<Turn, CliError> {
    match how {
        "done" => {
            eprintln!("the run is done");
            Ok(Turn::Over)
        }
        "interrupted" => Err(CliError::Interrupted(format!(
            "the run was interrupted; continue with {}",
            same_command(Some("--resume"))
        ))),
        _ => Err(CliError::failed("the run failed under the coordinator that led it; see its output")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use blip2_run::exit::Exit;

    #[test]
    fn the_end_of_the_run_is_that_of_those_who_stand_by() {
        assert!(matches!(over("done"), Ok(Turn::Over)));
        assert_eq!(over("interrupted").unwrap_err().exit(), Exit::Interrupted);
        assert_eq!(over("failed").unwrap_err().exit(), Exit::Failed);
    }
}
