//! Objects that say what was done: JSON that is written once.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Result, StoreError};
use crate::location::Location;
use crate::put_create::put_create;

/// A record as indented JSON with a final newline.
///
/// # Errors
/// [`StoreError::Malformed`] for what JSON cannot hold.
pub fn to_json(record: &impl Serialize) -> Result<Bytes> {
    let text = serde_json::to_string_pretty(record)
        .map_err(|error| StoreError::Malformed { what: "record", reason: error.to_string() })?;
    Ok(Bytes::from(text + "\n"))
}

/// A record, or `None` if it is not there; `what` names it in an error.
///
/// # Errors
/// [`StoreError::Malformed`], [`StoreError::Failed`].
pub async fn read_json<T: DeserializeOwned>(location: &Location, what: &'static str) -> Result<Option<T>> {
    let Some(content) = location.read().await? else { return Ok(None) };
    serde_json::from_slice(&content)
        .map(Some)
        .map_err(|error| StoreError::Malformed { what, reason: format!("{location}: {error}") })
}

/// Creates an object; one that is there already, from a run that was killed, has to be the same.
///
/// # Errors
/// [`StoreError::Changed`] if it holds other bytes, [`StoreError::Failed`].
pub async fn create_same(location: &Location, content: Bytes) -> Result<()> {
    if put_create(location, content.clone()).await? || location.read().await?.as_ref() == Some(&content) {
        return Ok(());
    }
    Err(StoreError::Changed {
        file: location.to_string(),
        reason: "it holds other bytes than this job writes; remove it, or choose another --out".to_owned(),
    })
}
