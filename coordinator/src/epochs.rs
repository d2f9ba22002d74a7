//! Membership epochs as create-if-absent objects: whoever creates the next one leads, all others are fenced off.

use blip2_dataset::{Location, put_create};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{CoordinatorError, Result};

/// The content of an epoch's object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Number of the epoch.
    pub epoch: u64,
    /// Name of the coordinator that created it, unique to its process.
    pub coordinator: String,
    /// The step to do next.
    pub step: u64,
    /// The members; none in the epoch with which a coordinator begins.
    pub members: Vec<EpochMember>,
}

/// A member of an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochMember {
    /// The coordinator's number for it.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// First of its slots.
    pub first_slot: u32,
    /// How many slots it holds.
    pub slot_count: u32,
}

impl EpochRecord {
    /// Reads the content of an epoch's object.
    ///
    /// # Errors
    /// [`CoordinatorError::Epoch`] names the object.
    pub fn parse(object: &str, content: &[u8]) -> Result<Self> {
        serde_json::from_slice(content)
            .map_err(|error| CoordinatorError::Epoch { object: object.to_owned(), reason: error.to_string() })
    }
}

/// The epochs below a run's folder, as one coordinator sees them.
#[derive(Debug, Clone)]
pub struct Epochs {
    folder: Location,
    coordinator: String,
}

impl Epochs {
    /// The epochs of the run in `run_root`, for the coordinator of this (unique) name.
    pub fn new(run_root: &Location, coordinator: String) -> Self {
        Self { folder: run_root.join("epochs"), coordinator }
    }

    /// Takes the next free epoch, which fences off every coordinator before, and returns its number.
    ///
    /// # Errors
    /// The store fails.
    pub async fn begin(&self, step: u64) -> Result<u64> {
        let mut epoch = self.newest().await? + 1;
        while !self.create(epoch, step, Vec::new()).await? {
            epoch += 1;
        }
        Ok(epoch)
    }

    /// Takes `epoch` for these members.
    ///
    /// # Errors
    /// [`CoordinatorError::Fenced`] when another coordinator took it or a later one; or the store fails.
    pub async fn take(&self, epoch: u64, step: u64, members: Vec<EpochMember>) -> Result<()> {
        if self.create(epoch, step, members).await? {
            Ok(())
        } else {
            Err(CoordinatorError::Fenced { epoch })
        }
    }

    /// Whether `epoch` is still the newest.
    ///
    /// # Errors
    /// [`CoordinatorError::Fenced`] when there is a newer one; or the store fails.
    pub async fn confirm(&self, epoch: u64) -> Result<()> {
        let newest = self.newest().await?;
        if newest > epoch { Err(CoordinatorError::Fenced { epoch: newest }) } else { Ok(()) }
    }

    /// Number of the newest epoch; 0 when there is none.
    ///
    /// # Errors
    /// The store fails.
    pub async fn newest(&self) -> Result<u64> {
        let objects = self.folder.list().await?;
        let number = |location: &Location| location.file_name().strip_suffix(".json")?.parse().ok();
        Ok(objects.iter().filter_map(|object| number(&object.location)).max().unwrap_or(0))
    }

    /// Creates an epoch's object: `false` when it is another coordinator's.
    async fn create(&self, epoch: u64, step: u64, members: Vec<EpochMember>) -> Result<bool> {
        let object = self.folder.join(&format!("{epoch:010}.json"));
        let damaged = |reason: String| CoordinatorError::Epoch { object: object.to_string(), reason };
        let record = EpochRecord { epoch, coordinator: self.coordinator.clone(), step, members };
        let content = serde_json::to_vec_pretty(&record).map_err(|error| damaged(error.to_string()))?;
        if put_create(&object, Bytes::from(content)).await? {
            return Ok(true);
        }
        // Ours all the same when the answer to an earlier attempt was lost.
        let content =
            object.read().await?.ok_or_else(|| damaged("it was deleted while it was read".into()))?;
        Ok(EpochRecord::parse(&object.to_string(), &content)? == record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_later_coordinator_fences_off_the_earlier() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = Location::parse(folder.path().to_str().expect("utf-8")).expect("a local path");
        let first = Epochs::new(&root, "first".into());
        assert_eq!(first.newest().await.expect("empty"), 0);
        let begun = first.begin(0).await.expect("free");
        assert_eq!(begun, 1);
        first.take(2, 0, Vec::new()).await.expect("free");
        first.take(2, 0, Vec::new()).await.expect("its own, tried again");
        first.confirm(2).await.expect("newest");

        let second = Epochs::new(&root, "second".into());
        assert_eq!(second.begin(7).await.expect("free"), 3);
        assert!(matches!(first.take(3, 1, Vec::new()).await, Err(CoordinatorError::Fenced { epoch: 3 })));
        assert!(matches!(first.confirm(2).await, Err(CoordinatorError::Fenced { epoch: 3 })));
        second.take(4, 7, Vec::new()).await.expect("free");
    }

    #[tokio::test]
    async fn of_two_that_begin_together_both_get_their_own_number() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = Location::parse(folder.path().to_str().expect("utf-8")).expect("a local path");
        let (a, b) = (Epochs::new(&root, "a".into()), Epochs::new(&root, "b".into()));
        let (a, b) = tokio::join!(a.begin(0), b.begin(0));
        assert_ne!(a.expect("free"), b.expect("free"));
    }
}
