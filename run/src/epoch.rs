//! Membership epochs as create-if-absent objects: whoever creates the next one leads, all others are fenced
//! off.

use blip2_store::{Location, put_create};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::layout::{EPOCHS, epoch_name, parse_epoch_name};
use crate::{Result, RunError};

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
    /// URL under which workers and coordinators that stand by reach the coordinator.
    #[serde(default)]
    pub address: String,
    /// Committed steps whose state was lost with all who held it, where the run goes back from them to
    /// `step`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_from: Option<u64>,
    /// In the epoch that closes a run's coordination: how it ended (done, interrupted, failed). Nobody need
    /// take over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
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
    /// What it computes on; empty: not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub device: String,
}

impl EpochRecord {
    /// Reads the content of an epoch's object.
    ///
    /// # Errors
    /// [`RunError::Epoch`] names the object.
    pub fn parse(object: &str, content: &[u8]) -> Result<Self> {
        serde_json::from_slice(content)
            .map_err(|error| RunError::Epoch { object: object.to_owned(), reason: error.to_string() })
    }
}

/// The epochs below a run's folder, as one coordinator sees them.
#[derive(Debug, Clone)]
pub struct Epochs {
    folder: Location,
    coordinator: String,
    address: String,
}

impl Epochs {
    /// The epochs of the run in `run_root`, for the coordinator of this (unique) name that is reached at
    /// `address`.
    pub fn new(run_root: &Location, coordinator: String, address: String) -> Self {
        Self { folder: run_root.join(EPOCHS), coordinator, address }
    }

    /// Takes the next free epoch, which fences off every coordinator before, and returns its number.
    ///
    /// # Errors
    /// The store fails.
    pub async fn begin(&self, step: u64) -> Result<u64> {
        let mut epoch = self.newest().await? + 1;
        while !self.create(&self.record(epoch, step, Vec::new())).await? {
            epoch += 1;
        }
        Ok(epoch)
    }

    /// Takes `epoch` for these members.
    ///
    /// # Errors
    /// [`RunError::Fenced`] when another coordinator took it or a later one; or the store fails.
    pub async fn take(&self, epoch: u64, step: u64, members: Vec<EpochMember>) -> Result<()> {
        self.take_back(epoch, step, members, None).await
    }

    /// The same, going back to `step` from later steps whose state is lost.
    ///
    /// # Errors
    /// As [`Epochs::take`].
    pub async fn take_back(
        &self,
        epoch: u64,
        step: u64,
        members: Vec<EpochMember>,
        back_from: Option<u64>,
    ) -> Result<()> {
        let record = EpochRecord { back_from, ..self.record(epoch, step, members) };
        if self.create(&record).await? { Ok(()) } else { Err(RunError::Fenced { epoch }) }
    }

    /// Closes the coordination of the run with one more epoch, which says how it ended: nobody need take
    /// over.
    ///
    /// # Errors
    /// As [`Epochs::take`].
    pub async fn end(&self, epoch: u64, step: u64, how: &str) -> Result<()> {
        let record = EpochRecord { end: Some(how.to_owned()), ..self.record(epoch, step, Vec::new()) };
        if self.create(&record).await? { Ok(()) } else { Err(RunError::Fenced { epoch }) }
    }

    /// Whether this coordinator, whose newest epoch is `epoch` or one it is taking, still leads.
    ///
    /// # Errors
    /// [`RunError::Fenced`] when the newest epoch is another's; or the store fails.
    pub async fn confirm(&self, epoch: u64) -> Result<()> {
        let newest = self.newest().await?;
        if newest <= epoch {
            return Ok(());
        }
        // An epoch that was taken since the question was put may be our own.
        match self.read_whole(newest).await? {
            Some(record) if record.coordinator == self.coordinator => Ok(()),
            _ => Err(RunError::Fenced { epoch: newest }),
        }
    }

    /// The newest epoch's record, if there is one.
    ///
    /// Whoever left an object that cannot be read (a crash between its creation and its content) has taken
    /// that epoch and is gone: the record then has its number and, for the rest, what the newest readable one
    /// says, except that the run has not ended.
    ///
    /// # Errors
    /// The store fails.
    pub async fn newest_record(&self) -> Result<Option<EpochRecord>> {
        let numbers = self.numbers().await?;
        let Some(newest) = numbers.last().copied() else { return Ok(None) };
        for number in numbers.into_iter().rev() {
            match self.read_whole(number).await? {
                Some(record) if number == newest => return Ok(Some(record)),
                Some(record) => return Ok(Some(EpochRecord { epoch: newest, end: None, ..record })),
                None => {}
            }
        }
        Ok(Some(self.unknown(newest)))
    }

    /// Members of the last epoch up to `epoch` that had any, if the run has not ended since: they may come
    /// back.
    ///
    /// # Errors
    /// The store fails.
    pub async fn expected_members(&self, epoch: u64) -> Result<usize> {
        for number in (1..=epoch).rev() {
            let Some(record) = self.read_whole(number).await? else { continue };
            if record.end.is_some() {
                return Ok(0);
            }
            if !record.members.is_empty() {
                return Ok(record.members.len());
            }
        }
        Ok(0)
    }

    /// Number of the newest epoch; 0 when there is none.
    ///
    /// # Errors
    /// The store fails.
    pub async fn newest(&self) -> Result<u64> {
        Ok(self.numbers().await?.last().copied().unwrap_or(0))
    }

    /// Numbers of all epochs, ascending.
    ///
    /// # Errors
    /// The store fails.
    pub async fn numbers(&self) -> Result<Vec<u64>> {
        let objects = self.folder.list().await?;
        let number = |location: &Location| parse_epoch_name(location.file_name());
        let mut numbers: Vec<u64> = objects.iter().filter_map(|object| number(&object.location)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn record(&self, epoch: u64, step: u64, members: Vec<EpochMember>) -> EpochRecord {
        let (coordinator, address) = (self.coordinator.clone(), self.address.clone());
        EpochRecord { epoch, coordinator, step, members, address, back_from: None, end: None }
    }

    fn object(&self, epoch: u64) -> Location {
        self.folder.join(&epoch_name(epoch))
    }

    /// An epoch's record; `None` when there is none.
    ///
    /// # Errors
    /// The record is damaged, or the store fails.
    pub async fn read(&self, epoch: u64) -> Result<Option<EpochRecord>> {
        let object = self.object(epoch);
        let Some(content) = object.read().await? else { return Ok(None) };
        EpochRecord::parse(&object.to_string(), &content).map(Some)
    }

    /// Whether an epoch's object breaks off, as a crash between its creation and the end of its content
    /// leaves it.
    ///
    /// # Errors
    /// The store fails.
    pub async fn breaks_off(&self, epoch: u64) -> Result<bool> {
        let Some(content) = self.object(epoch).read().await? else { return Ok(false) };
        Ok(serde_json::from_slice::<serde_json::Value>(&content).is_err_and(|error| error.is_eof()))
    }

    /// The same; one that is damaged is as good as none, and said.
    async fn read_whole(&self, epoch: u64) -> Result<Option<EpochRecord>> {
        match self.read(epoch).await {
            Err(RunError::Epoch { object, reason }) => {
                tracing::warn!(object, reason, "an epoch's object cannot be read and is passed over");
                Ok(None)
            }
            read => read,
        }
    }

    /// What is known of an epoch that somebody took without leaving a word.
    fn unknown(&self, epoch: u64) -> EpochRecord {
        EpochRecord {
            coordinator: String::new(),
            address: String::new(),
            ..self.record(epoch, 0, Vec::new())
        }
    }

    /// Creates an epoch's object: `false` when it is another coordinator's.
    async fn create(&self, record: &EpochRecord) -> Result<bool> {
        let object = self.object(record.epoch);
        let damaged = |reason: String| RunError::Epoch { object: object.to_string(), reason };
        let content = serde_json::to_vec_pretty(record).map_err(|error| damaged(error.to_string()))?;
        if put_create(&object, Bytes::from(content)).await? {
            return Ok(true);
        }
        // Ours all the same when the answer to an earlier attempt was lost.
        Ok(self.read_whole(record.epoch).await?.as_ref() == Some(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_later_coordinator_fences_off_the_earlier() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = Location::parse(folder.path().to_str().expect("utf-8")).expect("a local path");
        let first = Epochs::new(&root, "first".into(), "http://a:1".into());
        assert_eq!(first.newest().await.expect("empty"), 0);
        let begun = first.begin(0).await.expect("free");
        assert_eq!(begun, 1);
        first.take(2, 0, Vec::new()).await.expect("free");
        first.take(2, 0, Vec::new()).await.expect("its own, tried again");
        first.confirm(2).await.expect("newest");

        let second = Epochs::new(&root, "second".into(), "http://b:1".into());
        assert_eq!(second.begin(7).await.expect("free"), 3);
        assert!(matches!(first.take(3, 1, Vec::new()).await, Err(RunError::Fenced { epoch: 3 })));
        assert!(matches!(first.confirm(2).await, Err(RunError::Fenced { epoch: 3 })));
        second.take(4, 7, Vec::new()).await.expect("free");
        second.confirm(3).await.expect("the newer one is its own");
        let newest = first.newest_record().await.expect("read").expect("there");
        assert_eq!((newest.epoch, newest.address.as_str(), newest.end), (4, "http://b:1", None));
    }

    #[tokio::test]
    async fn members_are_expected_back_unless_the_run_has_ended() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = Location::parse(folder.path().to_str().expect("utf-8")).expect("a local path");
        let epochs = Epochs::new(&root, "a".into(), String::new());
        assert_eq!(epochs.expected_members(epochs.begin(0).await.expect("free")).await.expect("read"), 0);
        let member = |id| EpochMember {
            id,
            name: format!("w{id}"),
            first_slot: 4 * id,
            slot_count: 4,
            device: "cpu".into(),
        };
        epochs.take(2, 0, vec![member(0), member(1)]).await.expect("free");
        epochs.take(3, 5, Vec::new()).await.expect("free");
        assert_eq!(epochs.expected_members(3).await.expect("read"), 2);
        epochs.end(4, 9, "interrupted").await.expect("free");
        assert_eq!(epochs.expected_members(4).await.expect("read"), 0);
        assert_eq!(
            epochs.newest_record().await.expect("read").expect("there").end.as_deref(),
            Some("interrupted")
        );
        assert!(matches!(epochs.end(4, 9, "done").await, Err(RunError::Fenced { epoch: 4 })));
    }

    #[tokio::test]
    async fn an_object_without_content_is_an_epoch_that_was_taken() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = Location::parse(folder.path().to_str().expect("utf-8")).expect("a local path");
        let epochs = Epochs::new(&root, "a".into(), "http://a:1".into());
        epochs.begin(0).await.expect("free");
        let member =
            EpochMember { id: 0, name: "w".into(), first_slot: 0, slot_count: 4, device: "cpu".into() };
        epochs.take(2, 0, vec![member]).await.expect("free");
        let torn = |number: u64| std::fs::write(folder.path().join(EPOCHS).join(epoch_name(number)), "");
        torn(3).expect("written");

        let newest = epochs.newest_record().await.expect("readable").expect("there");
        assert_eq!((newest.epoch, newest.address.as_str(), newest.members.len()), (3, "http://a:1", 1));
        assert_eq!(epochs.expected_members(3).await.expect("readable"), 1);
        assert!(
            epochs.breaks_off(3).await.expect("readable") && !epochs.breaks_off(2).await.expect("readable")
        );
        // Whoever created it has fenced off this coordinator.
        assert!(matches!(epochs.confirm(2).await, Err(RunError::Fenced { epoch: 3 })));
        assert!(matches!(epochs.take(3, 5, Vec::new()).await, Err(RunError::Fenced { epoch: 3 })));

        // The next one goes on, and so does a run whose end cannot be read.
        let next = Epochs::new(&root, "b".into(), "http://b:1".into());
        assert_eq!(next.begin(5).await.expect("free"), 4);
        next.end(5, 5, "done").await.expect("free");
        torn(6).expect("written");
        assert_eq!(next.newest_record().await.expect("readable").expect("there").end, None);
        for number in 1..=6 {
            torn(number).expect("written");
        }
        let newest = next.newest_record().await.expect("readable").expect("there");
        assert_eq!((newest.epoch, newest.address.as_str()), (6, ""));
    }

    #[tokio::test]
    async fn of_two_that_begin_together_both_get_their_own_number() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = Location::parse(folder.path().to_str().expect("utf-8")).expect("a local path");
        let (a, b) =
            (Epochs::new(&root, "a".into(), String::new()), Epochs::new(&root, "b".into(), String::new()));
        let (a, b) = tokio::join!(a.begin(0), b.begin(0));
        assert_ne!(a.expect("free"), b.expect("free"));
    }
}
