//! Listings, asked for again where an answer breaks off.

use std::time::Duration;

use futures::TryStreamExt;
use object_store::{ListResult, ObjectMeta};

use crate::error::Result;
use crate::location::{Location, StoredObject};
use crate::retry::{Retries, is_transient};
use crate::secret_url::redacted_text;

/// Listings of one place, those that break off among them.
const RETRIES: Retries = Retries { tries: 6, first_pause: Duration::from_millis(50) };

impl Location {
    /// All objects below this prefix, sorted by path.
    ///
    /// # Errors
    /// [`StoreError::Failed`](crate::error::StoreError::Failed).
    pub async fn list(&self) -> Result<Vec<StoredObject>> {
        Ok(self.objects(self.listed().await?))
    }

    /// The objects directly in this folder whose names match `pattern` (`*`: any run of characters), sorted
    /// by path.
    ///
    /// # Errors
    /// [`StoreError::Failed`](crate::error::StoreError::Failed).
    pub async fn list_matching(&self, pattern: &str) -> Result<Vec<StoredObject>> {
        let found = self.listed_directly().await?.objects;
        let matching = |meta: &object_store::ObjectMeta| {
            meta.location.filename().is_some_and(|name| wildcard_matches(pattern, name))
        };
        Ok(self.objects(found.into_iter().filter(matching).collect()))
    }

    /// All that is stored below, in the store's order.
    pub(crate) async fn listed(&self) -> Result<Vec<ObjectMeta>> {
        self.until_whole(|| self.store.list(Some(&self.path)).try_collect()).await
    }

    /// The objects and folders directly below.
    pub(crate) async fn listed_directly(&self) -> Result<ListResult> {
        self.until_whole(|| self.store.list_with_delimiter(Some(&self.path))).await
    }

    async fn until_whole<T, F>(&self, list: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, object_store::Error>>,
    {
        // A disk answers the same every time.
        let transient = |error: &object_store::Error| !self.is_local() && is_transient(error);
        let again = |error: &object_store::Error| {
            tracing::info!(place = %self, error = redacted_text(&error.to_string()), "listed again");
        };
        RETRIES.run(list, transient, again).await.map_err(|error| self.failed("list", &error))
    }
}

/// Whether `name` matches `pattern`, in which `*` stands for any run of characters.
fn wildcard_matches(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        match rest.find(piece) {
            Some(start) => rest = &rest[start + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        for (pattern, name, expected) in [
            ("train-*.parquet", "train-00000.parquet", true),
            ("train-*.parquet", "train-.parquet", true),
            ("train-*.parquet", "test-00000.parquet", false),
            ("*", "anything", true),
            ("a*a", "a", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("plain", "plain", true),
            ("plain", "plainer", false),
        ] {
            assert_eq!(wildcard_matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
