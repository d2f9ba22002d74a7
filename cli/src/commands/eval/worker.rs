//! `eval worker`: computes units of an evaluation that another process coordinates.

use blip2_leases::client::LeaseClient;
use blip2_run::exit::Exit;
use blip2_store::secret_url::remember_credentials_of;
use blip2_tensors::device::DeviceName;
use clap::Args;
use serde_json::Value;

use super::caption::{self, CaptionArguments};
use super::itm::{self, ItmArguments};
use super::leased::{EvaluationWork, LeasedUnits};
use super::retrieval::{self, RetrievalArguments};
use super::set::SetArguments;
use super::units::Session;
use super::vqa::{self, VqaArguments};
use crate::commands::leasing::LeaseWorkerArguments;
use crate::commands::worker::{device_choice, limit_threads};
use crate::config::{ConfigArguments, load};
use crate::error::CliError;
use crate::signals::Signals;

#[derive(Debug, Args)]
pub(crate) struct WorkerArguments {
    #[command(flatten)]
    lease: LeaseWorkerArguments,
    /// Device of the model, in the place of the one that the evaluation was started with.
    #[arg(long, value_name = "NAME")]
    device: Option<DeviceName>,
}

/// Works until all units are done or a signal comes, which is heeded after the unit in hand.
pub(super) async fn run(arguments: WorkerArguments) -> Result<Exit, CliError> {
    let signals = Signals::listen()?;
    limit_threads(arguments.lease.threads)?;
    let config = load(&ConfigArguments::default())?.config;
    let (leases, _endpoint) = arguments.lease.client(config.tls)?;
    let client = LeaseClient::connect(&leases).await?;
    let work = client.describe().await?.work;
    let unreadable =
        |reason: String| CliError::failed(format!("what the coordinator wants to be done: {reason}"));
    let EvaluationWork { task, device, evaluation } =
        serde_json::from_str(&work).map_err(|error| unreadable(error.to_string()))?;
    remember_credentials_of(&evaluation);
    let configured: DeviceName = device.parse().map_err(|error| unreadable(format!("{error}")))?;
    let chosen = device_choice(arguments.device, config.launch.share_devices)?;
    let device = chosen.decide("--device", &configured.to_string());
    let device = device.map_err(|error| CliError::config(error.to_string()))?;
    let session = Session { signals, leased: Some(LeasedUnits::new(client)) };
    evaluate(&task, evaluation, device, session).await
}

async fn evaluate(
    task: &str,
    evaluation: Value,
    device: DeviceName,
    session: Session,
) -> Result<Exit, CliError> {
    let wrong =
        |error: serde_json::Error| CliError::failed(format!("an evaluation of another form: {error}"));
    let on = |set: &mut SetArguments| set.device = Some(device);
    match task {
        caption::TASK => {
            let mut arguments: CaptionArguments = serde_json::from_value(evaluation).map_err(wrong)?;
            on(&mut arguments.set);
            caption::evaluate(arguments, session).await
        }
        vqa::TASK => {
            let mut arguments: VqaArguments = serde_json::from_value(evaluation).map_err(wrong)?;
            on(&mut arguments.set);
            vqa::evaluate(arguments, session).await
        }
        retrieval::TASK => {
            let mut arguments: RetrievalArguments = serde_json::from_value(evaluation).map_err(wrong)?;
            on(&mut arguments.set);
            retrieval::evaluate(arguments, session).await
        }
        itm::TASK => {
            let mut arguments: ItmArguments = serde_json::from_value(evaluation).map_err(wrong)?;
            on(&mut arguments.set);
            itm::evaluate(arguments, session).await
        }
        other => Err(CliError::failed(format!("`{other}` is no evaluation that this worker knows"))),
    }
}
