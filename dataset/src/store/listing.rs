//! Listings, asked for again where an answer breaks off.

use std::time::Duration;

use futures::TryStreamExt;
use object_store::{Error as StoreError, ListResult, ObjectMeta};

use super::Location;
use crate::error::Result;
use crate::retry::{Retries, is_transient};

/// Listings of one place, those that break off among them.
const RETRIES: Retries = Retries { tries: 6, first_pause: Duration::from_millis(50) };

impl Location {
    /// All that is stored below, in the store's order.
    pub(super) async fn listed(&self) -> Result<Vec<ObjectMeta>> {
        self.until_whole(|| self.store.list(Some(&self.path)).try_collect()).await
    }

    /// The objects and folders directly below.
    pub(super) async fn listed_directly(&self) -> Result<ListResult> {
        self.until_whole(|| self.store.list_with_delimiter(Some(&self.path))).await
    }

    async fn until_whole<T, F>(&self, list: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        // A disk answers the same every time.
        let transient = |error: &StoreError| !self.is_local() && is_transient(error);
        let again = |error: &StoreError| {
            tracing::info!(place = %self, error = crate::redacted_text(&error.to_string()), "listed again");
        };
        RETRIES.run(list, transient, again).await.map_err(|error| self.failed("list", &error))
    }
}
