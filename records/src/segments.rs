//! The records of a run in a store: objects of a few hundred lines, which only who leads writes.
//!
//! A segment is named by the epoch of who wrote it and by its first step. No two coordinators have an epoch
//! in common, so none can write over another's; and what a later one wrote from some step on takes the place
//! of what was there from that step on.

use std::collections::BTreeMap;

use blip2_proto::v1::StatusReply;
use blip2_run::epoch::Epochs;
use blip2_run::layout::{SEGMENTS, TENSORBOARD, segment_name};
use blip2_store::Location;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::error::{RecordsError, Result};
use crate::record::{StepRecord, line_of, records_of};
use crate::segment_objects::{LINES, in_time, list};
use crate::tensorboard::{event_name, event_of, head};

/// Bytes of lines that may wait for a store that does not take them.
const MOST_WAITING: usize = 64 << 20;
/// Segments that are read at a time.
const AT_A_TIME: usize = 16;

/// Where the newest lines of a run go.
#[derive(Debug)]
pub(crate) struct SegmentLog {
    root: Location,
    /// Where this coordinator is reached: its own epochs have this.
    address: String,
    status: watch::Receiver<StatusReply>,
    tail: Tail,
    /// Another coordinator leads: what is not written, it has from the members.
    is_fenced: bool,
}

/// The segment that is being filled.
#[derive(Debug, Default)]
struct Tail {
    epoch: u64,
    first: u64,
    lines: usize,
    text: String,
    /// The same lines for TensorBoard.
    events: Vec<u8>,
    /// The step after the last line.
    next: u64,
    /// Bytes of the text that are stored.
    stored: usize,
}

/// A write of the tail as it is.
#[derive(Debug)]
pub(crate) struct Write {
    root: Location,
    address: String,
    /// The newest epoch of this coordinator.
    known: u64,
    epoch: u64,
    first: u64,
    text: String,
    events: Vec<u8>,
    lines: usize,
    next: u64,
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Written {
    Stored(Write),
    Fenced,
    Failed(String),
}

impl SegmentLog {
    /// The log of who leads the run in `root`, is reached at `address` and has this status.
    pub(crate) fn new(root: Location, address: String, status: watch::Receiver<StatusReply>) -> Self {
        Self { root, address, status, tail: Tail::default(), is_fenced: false }
    }

    /// Takes in a committed step.
    pub(crate) fn record(&mut self, record: &StepRecord) -> Result<()> {
        if self.is_fenced {
            return Ok(());
        }
        let tail = &mut self.tail;
        if tail.text.is_empty() {
            (tail.epoch, tail.first) = (self.status.borrow().epoch, record.step);
            tail.events = head(record.step);
        }
        tail.text += &line_of(record)?;
        tail.events.extend(event_of(record));
        tail.lines += 1;
        tail.next = record.step + 1;
        if tail.text.len() - tail.stored > MOST_WAITING {
            return Err(RecordsError::NotTaken { place: self.root.to_string() });
        }
        Ok(())
    }

    /// Whether nothing waits.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_fenced || self.tail.stored == self.tail.text.len()
    }

    /// Whether there are so many lines that they should be written, asked for or not.
    pub(crate) fn is_full(&self) -> bool {
        !self.is_whole() && self.tail.lines >= LINES
    }

    /// Lines that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.tail.text[self.tail.stored..].lines().count()
    }

    /// The write that brings the store up to date.
    pub(crate) fn write(&self) -> Write {
        let Tail { epoch, first, lines, text, events, next, .. } = &self.tail;
        Write {
            root: self.root.clone(),
            address: self.address.clone(),
            known: self.status.borrow().epoch,
            epoch: *epoch,
            first: *first,
            text: text.clone(),
            events: events.clone(),
            lines: *lines,
            next: *next,
        }
    }

    /// Takes in what became of a write; the steps whose records are kept by now, if any are.
    pub(crate) fn written(&mut self, written: Written) -> std::result::Result<Option<u64>, String> {
        let write = match written {
            Written::Stored(write) => write,
            Written::Fenced => {
                self.is_fenced = true;
                return Ok(None);
            }
            Written::Failed(reason) => return Err(reason),
        };
        let tail = &mut self.tail;
        tail.stored = write.text.len();
        if write.lines >= LINES {
            let text = tail.text.split_off(write.text.len());
            let (epoch, lines) = (self.status.borrow().epoch, tail.lines - write.lines);
            let events = [head(write.next), tail.events.split_off(write.events.len())].concat();
            *tail = Tail { epoch, first: write.next, lines, text, events, next: tail.next, stored: 0 };
        }
        Ok(Some(write.next))
    }
}

impl Write {
    /// Writes, if this coordinator still leads.
    pub(crate) async fn run(self) -> Written {
        match in_time(self.put()).await {
            Ok(true) => Written::Stored(self),
            Ok(false) => Written::Fenced,
            Err(reason) => Written::Failed(reason),
        }
    }

    async fn put(&self) -> Result<bool> {
        let newest = Epochs::new(&self.root, String::new(), String::new()).newest_record().await?;
        if newest.is_some_and(|newest| newest.epoch > self.known && newest.address != self.address) {
            return Ok(false);
        }
        let object = self.root.join(SEGMENTS).join(&segment_name(self.epoch, self.first));
        object.put(Bytes::from(self.text.clone())).await?;
        let events = self.root.join(TENSORBOARD).join(&event_name(self.epoch, self.first));
        events.put(Bytes::from(self.events.clone())).await?;
        Ok(true)
    }
}

/// Whether the run in `root` has any.
///
/// # Errors
/// The store fails.
pub async fn are_there(root: &Location) -> Result<bool> {
    Ok(!list(&root.join(SEGMENTS)).await?.is_empty())
}

/// All records of the run in `root` by step; `None` where it has no segments.
///
/// # Errors
/// The store fails, or a segment has a line of another form.
pub async fn read_all(root: &Location) -> Result<Option<Vec<StepRecord>>> {
    let segments = list(&root.join(SEGMENTS)).await?;
    if segments.is_empty() {
        return Ok(None);
    }
    Ok(Some(laid(&texts(segments).await?)?.into_values().collect()))
}

/// The records of the newest segments, as many as are needed for one that `is_wanted`.
///
/// # Errors
/// As [`read_all`].
pub async fn read_newest(
    root: &Location,
    is_wanted: impl Fn(&StepRecord) -> bool,
) -> Result<Vec<StepRecord>> {
    let mut earlier = list(&root.join(SEGMENTS)).await?;
    let mut newest = Vec::new();
    loop {
        let from = earlier.len().saturating_sub(AT_A_TIME);
        let mut read = texts(earlier.split_off(from)).await?;
        read.append(&mut newest);
        newest = read;
        let records = laid(&newest)?;
        if earlier.is_empty() || records.values().any(&is_wanted) {
            return Ok(records.into_values().collect());
        }
    }
}

/// First step, place and text of each segment, in their order.
async fn texts(segments: Vec<(u64, Location)>) -> Result<Vec<(u64, String, String)>> {
    let mut texts = BTreeMap::new();
    let mut reading = JoinSet::new();
    let mut waiting = segments.into_iter().enumerate();
    loop {
        while reading.len() < AT_A_TIME
            && let Some((number, (first, location))) = waiting.next()
        {
            reading.spawn(async move { (number, first, location.to_string(), location.read().await) });
        }
        let Some(read) = reading.join_next().await else { return Ok(texts.into_values().collect()) };
        let (number, first, place, content) = read?;
        let content = content?.unwrap_or_default();
        texts.insert(number, (first, place, String::from_utf8_lossy(&content).into_owned()));
    }
}

/// The records by step: what was begun later takes the place of what was there from its first step on.
fn laid(segments: &[(u64, String, String)]) -> Result<BTreeMap<u64, StepRecord>> {
    let mut by_step = BTreeMap::new();
    for (first, place, text) in segments {
        by_step.split_off(first);
        by_step.extend(records_of(place, text)?.into_iter().map(|record| (record.step, record)));
    }
    Ok(by_step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    fn status(epoch: u64) -> watch::Receiver<StatusReply> {
        watch::channel(StatusReply { epoch, ..StatusReply::default() }).1
    }

    struct Scene {
        _folder: tempfile::TempDir,
        root: Location,
    }

    impl Scene {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let root = Location::parse(folder.path().to_str().unwrap()).unwrap();
            Self { _folder: folder, root }
        }

        fn epochs(&self, address: &str) -> Epochs {
            Epochs::new(&self.root, format!("coordinator at {address}"), address.to_owned())
        }

        fn log(&self, address: &str, epoch: u64) -> SegmentLog {
            SegmentLog::new(self.root.clone(), address.to_owned(), status(epoch))
        }

        async fn steps(&self) -> Vec<u64> {
            let records = read_all(&self.root).await.unwrap().unwrap_or_default();
            records.iter().map(|record| record.step).collect()
        }
    }

    async fn flush(log: &mut SegmentLog) -> Option<u64> {
        let written = log.write().run().await;
        log.written(written).unwrap()
    }

    #[tokio::test]
    async fn segments_are_bounded_and_read_as_one_curve() {
        let scene = Scene::new();
        let epoch = scene.epochs("a").begin(0).await.unwrap();
        let mut log = scene.log("a", epoch);
        assert!(!are_there(&scene.root).await.unwrap());
        let steps = 2 * LINES as u64 + 20;
        for step in 0..steps {
            log.record(&record(step, 1.0)).unwrap();
            if log.is_full() || step == 5 {
                assert_eq!(flush(&mut log).await, Some(step + 1));
            }
        }
        assert_eq!(scene.steps().await, (0..2 * LINES as u64).collect::<Vec<_>>());
        assert_eq!(log.waiting(), 20);
        flush(&mut log).await;
        assert_eq!(scene.steps().await, (0..steps).collect::<Vec<_>>());
        assert_eq!(list(&scene.root.join(SEGMENTS)).await.unwrap().len(), 3);
        let newest = read_newest(&scene.root, |record| record.step == 3).await.unwrap();
        assert_eq!(newest.len() as u64, steps);
    }

    #[tokio::test]
    async fn who_takes_over_replaces_what_it_does_again_and_the_one_before_writes_no_more() {
        let scene = Scene::new();
        let first = scene.epochs("a").begin(0).await.unwrap();
        let mut before = scene.log("a", first);
        (0..10).for_each(|step| before.record(&record(step, 1.0)).unwrap());
        flush(&mut before).await;
        let second = scene.epochs("b").begin(6).await.unwrap();
        before.record(&record(10, 1.0)).unwrap();
        assert_eq!(flush(&mut before).await, None, "another leads");
        assert!(before.is_whole(), "what waited is not its to write");
        let mut after = scene.log("b", second);
        (6..9).for_each(|step| after.record(&record(step, 2.0)).unwrap());
        flush(&mut after).await;
        let records = read_all(&scene.root).await.unwrap().unwrap();
        assert_eq!(records.iter().map(|record| record.step).collect::<Vec<_>>(), (0..9).collect::<Vec<_>>());
        let losses: Vec<f64> = records.iter().map(|record| record.values["loss"].unwrap()).collect();
        assert_eq!(losses[5..7], [1.0, 2.0]);
    }

    #[tokio::test]
    async fn the_epoch_that_closes_a_run_does_not_keep_its_own_leader_from_writing() {
        let scene = Scene::new();
        let epochs = scene.epochs("a");
        let epoch = epochs.begin(0).await.unwrap();
        let mut log = scene.log("a", epoch);
        log.record(&record(0, 1.0)).unwrap();
        epochs.end(epoch + 1, 1, "done").await.unwrap();
        assert_eq!(flush(&mut log).await, Some(1));
        assert_eq!(scene.steps().await, [0]);
    }
}
