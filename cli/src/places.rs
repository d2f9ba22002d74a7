//! Places that are typed or configured: runs, models, checkpoints; paths and URLs alike.

use std::path::PathBuf;

use blip2_run::catalogue::Catalogue;
use blip2_run::layout::{CHECKPOINTS, CONFIGURATION};
use blip2_store::Location;
use blip2_store::error::StoreError;
use blip2_store::fetch::{fetch_model, is_weight_file};
use blip2_store::secret_url::redacted;

use crate::error::CliError;

/// A location that was typed; one that cannot be understood is a wrong command line.
pub(crate) fn typed_location(text: &str) -> Result<Location, CliError> {
    Location::parse(text.trim_end_matches('/')).map_err(|error| CliError::usage(error.to_string()))
}

/// The path on this machine of a model that was typed as `option`: a URL is fetched into the cache.
pub(crate) async fn typed_model(option: &str, place: &str) -> Result<PathBuf, CliError> {
    let explained = |error: StoreError| {
        let message = format!("{option} {}: {error}", redacted(place));
        match error {
            StoreError::Location { .. } | StoreError::NotFound { .. } => CliError::usage(message),
            StoreError::OtherContent { .. } => CliError::BadInput(message),
            _ => CliError::failed(message),
        }
    };
    Ok(fetch_model(place).await.map_err(explained)?.path)
}

/// What `model.init_checkpoint` stands for: a run means its newest whole checkpoint, anything else itself. A
/// checkpoint of the same run that was chosen `before` stays chosen: a run goes on from where it began.
///
/// # Errors
/// A run that has no whole checkpoint, or a store that fails.
pub(crate) async fn chosen_checkpoint(named: &str, before: Option<&str>) -> Result<String, CliError> {
    if named.is_empty() || is_weight_file(named.split(['?', '#']).next().unwrap_or_default()) {
        return Ok(named.to_owned());
    }
    let root = Location::parse(named.trim_end_matches('/'))?;
    if root.join(CONFIGURATION).head().await?.is_none() {
        return Ok(named.to_owned());
    }
    let checkpoint = |name: &str| match named.split_once('?').filter(|_| named.contains("://")) {
        Some((place, query)) => format!("{}/{CHECKPOINTS}/{name}?{query}", place.trim_end_matches('/')),
        None => format!("{}/{CHECKPOINTS}/{name}", named.trim_end_matches('/')),
    };
    let name_of = |place: &str| {
        let place = place.split('?').next().unwrap_or_default();
        place.rsplit('/').next().unwrap_or_default().to_owned()
    };
    if let Some(before) = before.filter(|before| redacted(&checkpoint(&name_of(before))) == redacted(before))
    {
        return Ok(checkpoint(&name_of(before)));
    }
    let (newest, damaged) = Catalogue::new(&root).latest_verified().await?;
    for checkpoint in damaged {
        eprintln!(
            "warning: model.init_checkpoint: checkpoint {} of {root} is passed over: {}",
            checkpoint.name, checkpoint.reason
        );
    }
    let newest = newest.ok_or_else(|| {
        CliError::config(format!(
            "model.init_checkpoint = \"{}\": this run has no whole checkpoint to start from",
            redacted(named)
        ))
    })?;
    eprintln!("model.init_checkpoint: starting from checkpoint {} of {root}", newest.name);
    Ok(checkpoint(&newest.name))
}
