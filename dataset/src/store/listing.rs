//! Listings, asked for again where an answer breaks off: a store's client tries requests again, not the bodies of their
//! answers.

use std::time::Duration;

use futures::TryStreamExt;
use object_store::{Error as StoreError, ListResult, ObjectMeta};

use super::Location;
use crate::error::Result;

/// Listings of one place, those that break off among them.
const TRIES: u32 = 6;
/// Before the second try; each later one waits twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

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
        let mut pause = FIRST_PAUSE;
        for _ in 1..TRIES {
            match list().await {
                // Connections that break have no kind of their own.
                Err(error @ StoreError::Generic { .. }) if !self.is_local() => {
                    tracing::info!(place = %self, error = crate::redacted_text(&error.to_string()), "listed again");
                }
                listed => return listed.map_err(|error| self.failed("list", &error)),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        list().await.map_err(|error| self.failed("list", &error))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::error::DatasetError;

    fn broken() -> StoreError {
        StoreError::Generic { store: "S3", source: "the body ends early".into() }
    }

    #[tokio::test]
    async fn a_listing_that_breaks_off_is_asked_for_again() {
        let place = Location::parse("memory:///a").unwrap();
        let asked = Cell::new(0);
        let answer = |whole: u32| {
            asked.set(asked.get() + 1);
            let listed = if asked.get() < whole { Err(broken()) } else { Ok(asked.get()) };
            async move { listed }
        };
        assert_eq!(place.until_whole(|| answer(3)).await.unwrap(), 3);
        asked.set(0);
        let error = place.until_whole(|| answer(100)).await.unwrap_err();
        assert!(matches!(error, DatasetError::Store { action: "list", .. }), "{error}");
        assert_eq!(asked.get(), TRIES);
    }

    #[tokio::test]
    async fn what_is_refused_is_not_asked_for_again() {
        let place = Location::parse("memory:///a").unwrap();
        let asked = Cell::new(0);
        let refused = || {
            asked.set(asked.get() + 1);
            async {
                Err::<(), _>(StoreError::NotImplemented {
                    operation: "list".into(),
                    implementer: "it".into(),
                })
            }
        };
        place.until_whole(refused).await.unwrap_err();
        assert_eq!(asked.get(), 1);
    }
}
