//! The one write that decides anything: create-if-absent.

use bytes::Bytes;
use object_store::{PutMode, PutOptions, PutPayload};

use super::exclusive;
use crate::error::Result;
use crate::location::Location;

/// Creates the object unless it exists: `Ok(false)` when it does. At most one of several writers gets
/// `Ok(true)`.
///
/// Over a network the answer to a write that was done can be lost; the try after it then finds the object,
/// and the writer gets `Ok(false)` or an error for what is its own. Whoever must know reads the object back,
/// whose content names its writer.
///
/// # Errors
/// [`StoreError::Failed`](crate::error::StoreError::Failed).
pub async fn put_create(location: &Location, content: Bytes) -> Result<bool> {
    let options = PutOptions::from(PutMode::Create);
    match location.store.put_opts(&location.path, PutPayload::from_bytes(content.clone()), options).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
        Err(error) if location.is_local() && exclusive::needs_other_way(&error) => {
            exclusive::create(location, content).await
        }
        Err(error) => Err(location.failed("write", &error)),
    }
}
