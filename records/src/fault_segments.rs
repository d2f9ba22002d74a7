//! Faults in a store: objects of a few hundred lines, each named by an epoch of who wrote it and by its first
//! fault, so that no coordinator writes over another's.

use std::time::Duration;

use blip2_proto::v1::StatusReply;
use blip2_run::layout::{FAULT_SEGMENTS, segment_name};
use blip2_store::Location;
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::Result;
use crate::fault_record::{FaultRecord, News, faults_of, lines_of};
use crate::segment_objects::{LINES, in_time, list};

/// Lines that may wait for a store that does not take them; of more the newest are left out.
const MOST_WAITING: usize = 4096;
/// Between two writes: faults come in swarms.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// Pause after a write that failed.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// How often the last lines are tried to be written.
const LAST_TRIES: usize = 3;

/// Where the newest faults of a run go.
#[derive(Debug)]
pub(crate) struct FaultSegments {
    root: Location,
    /// The epoch in which the segment at hand was begun; 0: no coordinator has one yet.
    epoch: u64,
    /// Faults of this coordinator before the segment at hand.
    first: u64,
    /// Those of the segment at hand, and behind them those that wait for the next one.
    lines: Vec<FaultRecord>,
    /// How many of them are stored.
    stored: usize,
    has_left_out: bool,
    /// Pause after a write that failed.
    try_again: Duration,
}

/// How many lines of the segment at hand a write has stored, or why it has not.
type Stored = std::result::Result<usize, String>;

impl FaultSegments {
    pub(crate) fn new(root: Location) -> Self {
        Self {
            root,
            epoch: 0,
            first: 0,
            lines: Vec::new(),
            stored: 0,
            has_left_out: false,
            try_again: TRY_AGAIN,
        }
    }

    fn take(&mut self, fresh: Vec<FaultRecord>, epoch: u64) {
        if self.epoch == 0 {
            self.epoch = epoch;
        }
        let room = (self.stored + MOST_WAITING).saturating_sub(self.lines.len());
        if fresh.len() > room && !std::mem::replace(&mut self.has_left_out, true) {
            tracing::warn!("the store takes no faults: the newest are not recorded");
        }
        self.lines.extend(fresh.into_iter().take(room));
    }

    /// Whether nothing waits, or all that does is of a coordinator that never led.
    fn is_whole(&self) -> bool {
        self.stored == self.lines.len() || self.epoch == 0
    }

    /// Stores the segment at hand as it is.
    fn write(&self) -> BoxFuture<'static, Stored> {
        let lines = &self.lines[..self.lines.len().min(LINES)];
        let (text, count) = (lines_of(lines), lines.len());
        let object = self.root.join(FAULT_SEGMENTS).join(&segment_name(self.epoch, self.first));
        async move {
            let text = text.map_err(|error| error.to_string())?;
            in_time(object.put(Bytes::from(text))).await.map(|()| count)
        }
        .boxed()
    }

    fn written(&mut self, count: usize) {
        self.stored = count;
        if count == LINES {
            self.lines.drain(..LINES);
            (self.first, self.stored) = (self.first + LINES as u64, 0);
        }
    }
}

/// Writes every new fault until the sender of the status is gone.
pub(crate) async fn keep_in_store(mut segments: FaultSegments, mut status: watch::Receiver<StatusReply>) {
    let mut news = News::default();
    let mut writing: Option<BoxFuture<'static, Stored>> = None;
    let (mut due, mut has_failed) = (Instant::now(), false);
    loop {
        tokio::select! {
            changed = status.changed() => {
                let (fresh, epoch) = {
                    let status = status.borrow_and_update();
                    (news.of(&status), status.epoch)
                };
                segments.take(fresh, epoch);
                if changed.is_err() {
                    break;
                }
            }
            () = tokio::time::sleep_until(due), if writing.is_none() && !segments.is_whole() => {
                writing = Some(segments.write());
            }
            stored = or_never(&mut writing) => {
                writing = None;
                due = Instant::now() + take_in(&mut segments, stored, &mut has_failed);
            }
        }
    }
    if let Some(writing) = writing {
        take_in(&mut segments, writing.await, &mut has_failed);
    }
    let mut tries = 0;
    while !segments.is_whole() && tries < LAST_TRIES {
        let stored = segments.write().await;
        if stored.is_err() {
            tries += 1;
            tokio::time::sleep(segments.try_again).await;
        }
        take_in(&mut segments, stored, &mut has_failed);
    }
    if !segments.is_whole() {
        let lines = segments.lines.len() - segments.stored;
        tracing::warn!("the last {lines} faults of the run could not be recorded");
    }
}

/// What became of a write; the pause before the next one. A failure is said once.
fn take_in(segments: &mut FaultSegments, stored: Stored, has_failed: &mut bool) -> Duration {
    match stored {
        Ok(count) => {
            segments.written(count);
            *has_failed = false;
            WRITE_EVERY
        }
        Err(reason) => {
            if !std::mem::replace(has_failed, true) {
                tracing::warn!("the run's faults cannot be recorded yet: {reason}");
            }
            segments.try_again
        }
    }
}

/// What the future comes to, or nothing ever without one.
async fn or_never<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn read_one(segment: &Location) -> Result<Vec<FaultRecord>> {
    let content = segment.read().await?.unwrap_or_default();
    Ok(faults_of(&String::from_utf8_lossy(&content)))
}

/// All faults of the run in `root`.
pub(crate) async fn read_segments(root: &Location) -> Result<Vec<FaultRecord>> {
    let mut faults = Vec::new();
    for (_, segment) in list(&root.join(FAULT_SEGMENTS)).await? {
        faults.extend(read_one(&segment).await?);
    }
    Ok(faults)
}

/// Those of the segment that was begun last.
pub(crate) async fn newest_segment(root: &Location) -> Result<Vec<FaultRecord>> {
    match list(&root.join(FAULT_SEGMENTS)).await?.last() {
        Some((_, segment)) => read_one(segment).await,
        None => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(epoch: u64, count: u64) -> StatusReply {
        let faults = (count.saturating_sub(32)..count).map(|number| format!("fault {number}"));
        StatusReply { epoch, fault_count: count, faults: faults.collect(), ..StatusReply::default() }
    }

    fn scene() -> (tempfile::TempDir, Location) {
        let folder = tempfile::tempdir().unwrap();
        let root = Location::parse(folder.path().to_str().unwrap()).unwrap();
        (folder, root)
    }

    /// What a coordinator that begins with `epoch` leaves behind which notices `count` faults.
    async fn led(root: &Location, epoch: u64, count: u64) {
        let segments =
            FaultSegments { try_again: Duration::from_millis(1), ..FaultSegments::new(root.clone()) };
        let (sender, receiver) = watch::channel(StatusReply::default());
        let told = async {
            for so_far in 1..=count {
                sender.send_replace(status(epoch, so_far));
                tokio::task::yield_now().await;
            }
            drop(sender);
        };
        tokio::join!(keep_in_store(segments, receiver), told);
    }

    fn said(faults: &[FaultRecord]) -> Vec<&str> {
        faults.iter().map(|record| record.fault.as_str()).collect()
    }

    #[tokio::test]
    async fn faults_of_all_coordinators_stay_in_the_store() {
        let (_folder, root) = scene();
        assert!(read_segments(&root).await.unwrap().is_empty());
        led(&root, 1, 2).await;
        led(&root, 4, 1).await;
        let faults = read_segments(&root).await.unwrap();
        assert_eq!(said(&faults), ["fault 0", "fault 1", "fault 0"]);
        assert_eq!((faults[0].epoch, faults[2].epoch), (1, 4));
        assert_eq!(newest_segment(&root).await.unwrap(), faults[2..]);
    }

    #[tokio::test]
    async fn segments_are_bounded_and_one_write_takes_a_swarm() {
        let (_folder, root) = scene();
        let swarm = LINES as u64 + 40;
        led(&root, 2, swarm).await;
        let segments = list(&root.join(FAULT_SEGMENTS)).await.unwrap();
        let names: Vec<&str> = segments.iter().map(|(_, segment)| segment.file_name()).collect();
        assert_eq!(names, [segment_name(2, 0), segment_name(2, LINES as u64)]);
        let faults = read_segments(&root).await.unwrap();
        let all: Vec<String> = (0..swarm).map(|number| format!("fault {number}")).collect();
        assert_eq!(said(&faults), all);
    }

    #[tokio::test]
    async fn who_never_led_writes_nothing_and_a_store_that_fails_ends_nothing() {
        let (folder, root) = scene();
        led(&root, 0, 3).await;
        assert!(list(&root.join(FAULT_SEGMENTS)).await.unwrap().is_empty());
        // Where the folder of the segments should be is a file.
        std::fs::write(folder.path().join(FAULT_SEGMENTS), "").unwrap();
        led(&root, 1, 3).await;
    }

    #[test]
    fn what_waits_is_bounded() {
        let (_folder, root) = scene();
        let mut segments = FaultSegments::new(root);
        let fault = FaultRecord { unix_seconds: 0.0, epoch: 1, step: 0, fault: "a".into() };
        segments.take(vec![fault.clone(); MOST_WAITING + 9], 1);
        segments.take(vec![fault; 9], 1);
        assert_eq!(segments.lines.len(), MOST_WAITING);
    }
}
