//! Whoever keeps the committed steps of a run: takes them in, and says which are kept for good.

use std::path::Path;
use std::time::Duration;

use blip2_coordinator::Keeper;
use blip2_proto::v1::CommittedStep;
use blip2_proto::v1::StatusReply;
use blip2_run::layout;
use blip2_store::Location;
use futures::future::{BoxFuture, FutureExt as _};
use tokio::sync::{mpsc, watch};

use crate::error::Result;
use crate::event_file::EventFile;
use crate::file::FileLog;
use crate::record::StepRecord;
use crate::segments::{SegmentLog, Written};

/// Pause after a write that failed.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// How often the last lines are tried to be written.
const LAST_TRIES: usize = 3;

/// Where the lines of a run go.
#[derive(Debug)]
pub struct MetricsLog(Place);

#[derive(Debug)]
enum Place {
    /// Into a file of this machine.
    File(FileLog, EventFile),
    /// Into the run's store.
    Segments(SegmentLog),
}

impl MetricsLog {
    /// The log of a run whose folder is on this machine, for the coordinator that has this status. Which
    /// lines are kept shows when the first step is committed: workers may hold steps that are in no
    /// checkpoint.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn file(folder: &Path, status: watch::Receiver<StatusReply>) -> Result<Self> {
        let log = FileLog::open(folder.join(layout::METRICS))?;
        Ok(Self(Place::File(log, EventFile::new(folder.join(layout::TENSORBOARD), status))))
    }

    /// That of a run in a store, for the coordinator that is reached at `address` and has this status.
    pub fn segments(root: Location, address: String, status: watch::Receiver<StatusReply>) -> Self {
        Self(Place::Segments(SegmentLog::new(root, address, status)))
    }

    /// Takes in every committed step until the sender is gone, and shows each.
    ///
    /// # Errors
    /// The place of the lines has not taken any for too long.
    pub async fn keep(
        self,
        steps: mpsc::Receiver<CommittedStep>,
        keeper: Keeper,
        shown: impl FnMut(&StepRecord),
    ) -> Result<()> {
        match self.0 {
            Place::File(log, events) => keep_in_file((log, events), steps, keeper, shown).await,
            Place::Segments(log) => keep_in_store(log, steps, keeper, shown).await,
        }
    }
}

async fn keep_in_file(
    (mut log, mut events): (FileLog, EventFile),
    mut steps: mpsc::Receiver<CommittedStep>,
    mut keeper: Keeper,
    mut shown: impl FnMut(&StepRecord),
) -> Result<()> {
    loop {
        let steps_done = tokio::select! {
            biased;
            step = steps.recv() => {
                let Some(step) = step else { break };
                let record = StepRecord::from(step);
                shown(&record);
                log.record(&record)?;
                events.record(&record);
                record.step + 1
            }
            // What was told before this wish is taken in.
            Ok(()) = keeper.wanted.changed() => *keeper.wanted.borrow_and_update(),
        };
        if log.is_whole() {
            keeper.keep(steps_done);
        }
    }
    log.say_last();
    Ok(())
}

async fn keep_in_store(
    mut log: SegmentLog,
    mut steps: mpsc::Receiver<CommittedStep>,
    mut keeper: Keeper,
    mut shown: impl FnMut(&StepRecord),
) -> Result<()> {
    let mut wanted = 0;
    let mut writing: Option<BoxFuture<'static, Written>> = None;
    let mut failures = 0;
    loop {
        let is_wanted = wanted > *keeper.kept.borrow();
        if is_wanted && log.is_whole() {
            keeper.keep(wanted);
        } else if writing.is_none() && (is_wanted || log.is_full()) {
            writing = Some(after_a_pause(log.write().run(), failures > 0).boxed());
        }
        tokio::select! {
            biased;
            step = steps.recv() => {
                let Some(step) = step else { break };
                let record = StepRecord::from(step);
                shown(&record);
                log.record(&record)?;
            }
            Ok(()) = keeper.wanted.changed() => wanted = *keeper.wanted.borrow_and_update(),
            written = or_never(&mut writing) => {
                writing = None;
                take_in(&mut log, written, &keeper, &mut failures);
            }
        }
    }
    if let Some(written) = writing {
        take_in(&mut log, written.await, &keeper, &mut failures);
    }
    for attempt in 0..LAST_TRIES {
        if log.is_whole() {
            return Ok(());
        }
        let written = after_a_pause(log.write().run(), attempt > 0).await;
        take_in(&mut log, written, &keeper, &mut failures);
    }
    if !log.is_whole() {
        tracing::warn!("the last {} lines of the run's metrics could not be written", log.waiting());
    }
    Ok(())
}

/// What became of a write; a failure is said once.
fn take_in(log: &mut SegmentLog, written: Written, keeper: &Keeper, failures: &mut u32) {
    match log.written(written) {
        Ok(kept) => {
            *failures = 0;
            if let Some(kept) = kept {
                keeper.keep(kept);
            }
        }
        Err(reason) => {
            if *failures == 0 {
                tracing::warn!("the run's metrics cannot be written yet: {reason}");
            }
            *failures += 1;
        }
    }
}

async fn after_a_pause<T>(work: impl Future<Output = T>, pauses: bool) -> T {
    if pauses {
        tokio::time::sleep(TRY_AGAIN).await;
    }
    work.await
}

/// What the future comes to, or nothing ever without one.
async fn or_never<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use blip2_run::epoch::Epochs;

    use super::*;
    use crate::segment_objects::LINES;
    use crate::segments::read_all;

    fn step(step: u64) -> CommittedStep {
        CommittedStep {
            step,
            stage: 1,
            stage_name: "represent".into(),
            task: "contrast".into(),
            epoch: 1,
            values: Vec::new(),
            seconds: 0.5,
            data_wait_seconds: 0.0,
            samples: 8,
            bytes_sent: 0,
            bytes_copied: 0,
            samples_seen: 8 * (step + 1),
            skipped: false,
            loss_rise: None,
            device_bytes: None,
            kernels_compiled: None,
            spent: None,
        }
    }

    async fn until_kept(keeper: &mut watch::Receiver<u64>, steps: u64) {
        let kept = keeper.wait_for(|kept| *kept >= steps);
        tokio::time::timeout(Duration::from_secs(20), kept).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn records_are_kept_when_they_are_wanted_when_they_are_many_and_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let root = Location::parse(folder.path().to_str().unwrap()).unwrap();
        let epoch = Epochs::new(&root, "c".into(), "a".into()).begin(0).await.unwrap();
        let (_status, shown) = watch::channel(StatusReply { epoch, ..StatusReply::default() });
        let log = MetricsLog::segments(root.clone(), "a".into(), shown);
        let (told, steps) = mpsc::channel(8);
        let (wanted, asked) = watch::channel(0);
        let (done, mut kept) = watch::channel(0);
        let keeper = Keeper { wanted: asked, kept: done };
        let count = async |root: &Location| read_all(root).await.unwrap().map_or(0, |records| records.len());
        let play = async {
            for number in 0..3 {
                told.send(step(number)).await.unwrap();
            }
            wanted.send(3).unwrap();
            until_kept(&mut kept, 3).await;
            assert_eq!(count(&root).await, 3);
            for number in 3..LINES as u64 + 5 {
                told.send(step(number)).await.unwrap();
            }
            until_kept(&mut kept, LINES as u64).await;
            // Of steps that were committed before this coordinator led, it was told nothing.
            drop(told);
        };
        let keeping = log.keep(steps, keeper, |_: &StepRecord| {});
        let (kept, ()) = tokio::join!(keeping, play);
        kept.unwrap();
        assert_eq!(count(&root).await, LINES + 5);
    }
}
