//! A run's folder in which no step was ever committed: a start that failed does not block the next.

use blip2_coordinator::is_led;
use blip2_records::are_there;
use blip2_run::catalogue::Catalogue;
use blip2_run::epoch::{EpochRecord, Epochs};
use blip2_run::layout;
use blip2_store::Location;

use super::{local_path, metrics_folder, parse_stored};
use crate::config::RunConfig;
use crate::error::CliError;
use crate::tls::transport;

/// Whether the run whose `run.toml` is `stored` may give way to another: it has committed no step, and nobody
/// leads it. Otherwise the rest of the sentence "… already holds a run".
pub(super) async fn is_free(root: &Location, stored: &[u8], config: &RunConfig) -> Result<(), String> {
    let unknown = |error: CliError| format!(", and whether it has begun cannot be told ({error})");
    if let Some(trace) = trace_of_steps(root, stored, config).await.map_err(unknown)? {
        return Err(format!(" ({trace})"));
    }
    let epochs = Epochs::new(root, String::new(), String::new());
    let newest = epochs.newest_record().await.map_err(|error| unknown(error.into()))?;
    let Some(EpochRecord { end: None, address, .. }) = newest else { return Ok(()) };
    let transport = transport(&config.tls).map_err(unknown)?;
    // One that cannot be read is of a start that failed.
    let run_id = parse_stored(layout::CONFIGURATION, stored).map(|stored| stored.run.id).unwrap_or_default();
    match is_led(&address, &run_id, &transport).await {
        true => Err(format!(", which the coordinator at {address} leads")),
        false => Ok(()),
    }
}

/// What shows that the run has committed steps, if anything does.
async fn trace_of_steps(
    root: &Location,
    stored: &[u8],
    config: &RunConfig,
) -> Result<Option<String>, CliError> {
    let listing = Catalogue::new(root).list().await?;
    let checkpoints = listing.valid.len() + listing.damaged.len() + listing.unfinished.len();
    if checkpoints > 0 {
        return Ok(Some(format!("{checkpoints} of its checkpoints are there")));
    }
    let epochs = Epochs::new(root, String::new(), String::new());
    if let Some(step) = epochs.newest_record().await?.map(|record| record.step).filter(|step| *step > 0) {
        return Ok(Some(format!("it has come to step {step}")));
    }
    let has_segments = !root.is_local() && are_there(root).await?;
    Ok((has_segments || has_metrics(stored, config)).then(|| "its metrics name committed steps".to_owned()))
}

/// Whether the metrics, where they are on this machine, have a line.
fn has_metrics(stored: &[u8], config: &RunConfig) -> bool {
    let folder = match local_path(&config.run.root) {
        Some(folder) => folder,
        None => match parse_stored(layout::CONFIGURATION, stored) {
            Ok(stored) => metrics_folder(&stored),
            Err(_) => return false,
        },
    };
    std::fs::metadata(folder.join(layout::METRICS)).is_ok_and(|file| file.len() > 0)
}

/// Makes room for a new run: the old one's pinned files go, its epochs are closed, so that whoever led it is
/// fenced off.
pub(super) async fn clear(root: &Location) -> Result<(), CliError> {
    let epochs = Epochs::new(root, format!("{}-clearing", std::process::id()), String::new());
    if let Some(newest) = epochs.newest_record().await?.filter(|record| record.end.is_none()) {
        epochs.end(newest.epoch + 1, 0, "failed").await?;
    }
    // The one that says that there is a run goes first.
    root.join(layout::CONFIGURATION).delete().await?;
    root.join(layout::MANIFEST).delete().await?;
    Ok(())
}
