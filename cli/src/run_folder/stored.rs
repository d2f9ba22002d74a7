//! What a run's folder holds: its configuration and its corpus, and whether they are those that are asked
//! for.

use blip2_dataset::corpus::manifest::Manifest;
use blip2_run::layout;
use blip2_store::Location;
use blip2_worker::config_hash;

use crate::config::{RunConfig, differing_keys};
use crate::error::CliError;

/// An error unless there is a run at `root`.
pub(crate) async fn must_be_run(root: &Location) -> Result<(), CliError> {
    root.join(layout::CONFIGURATION).head().await?.map(drop).ok_or_else(|| not_a_run(root))
}

fn not_a_run(root: &Location) -> CliError {
    CliError::failed(format!(
        "{root} is not a run: it has no {}; name the folder in `run.root`",
        layout::CONFIGURATION
    ))
}

/// The configuration a run was started with.
pub(crate) async fn stored_configuration(root: &Location) -> Result<RunConfig, CliError> {
    let bytes = root.join(layout::CONFIGURATION).read().await?.ok_or_else(|| not_a_run(root))?;
    parse_stored(root.join(layout::CONFIGURATION), &bytes)
}

/// The corpus that a run has pinned.
pub(crate) async fn stored_manifest(root: &Location) -> Result<Manifest, CliError> {
    let place = root.join(layout::MANIFEST);
    let bytes = place
        .read()
        .await?
        .ok_or_else(|| CliError::failed(format!("{place} is missing: the run's pinned corpus is gone")))?;
    Ok(Manifest::from_parquet(bytes)?)
}

/// The stored run's id, if its configuration is the one asked for.
pub(super) fn compare_configuration(
    root: &Location,
    stored: &[u8],
    asked: &RunConfig,
    asked_hash: &str,
) -> Result<String, CliError> {
    let stored = parse_stored(root.join(layout::CONFIGURATION), stored)?;
    let before = stored.worker();
    if config_hash(&before) != asked_hash {
        let keys = differing_keys(&before, &asked.worker())?.join(", ");
        return Err(CliError::refused(format!(
            "{root} was started with another configuration; different: {keys}. \
             Set them as they were, or choose another run.root"
        )));
    }
    Ok(stored.run.id)
}

pub(super) async fn compare_corpus(root: &Location, manifest_hash: &str) -> Result<(), CliError> {
    if stored_manifest(root).await?.digest() != manifest_hash {
        return Err(CliError::refused(format!(
            "{root} was started on another corpus: files, sizes or row counts of data.train changed, or the sources. \
             Restore them, or choose another run.root"
        )));
    }
    Ok(())
}

/// The configuration in the bytes of a stored run's file.
pub(crate) fn parse_stored(file: impl std::fmt::Display, bytes: &[u8]) -> Result<RunConfig, CliError> {
    let broken =
        |error: String| CliError::failed(format!("{file}: not a run configuration of this version: {error}"));
    let text = std::str::from_utf8(bytes).map_err(|error| broken(error.to_string()))?;
    toml::from_str(text).map_err(|error| broken(error.to_string()))
}
