//! Rows in their order, from a stream or from a thread that may block.

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::mpsc;

use crate::corpus::ingest::row::SourceRow;
use crate::error::{DatasetError, Result};

/// Rows that a reading thread may be ahead.
const ROWS_AHEAD: usize = 4;

/// Rows in order; an error is the store's.
pub(in crate::corpus::ingest) type Rows = BoxStream<'static, Result<SourceRow>>;

/// Where a thread that may block puts its rows.
pub(super) struct RowSender(mpsc::Sender<Result<SourceRow>>);

impl RowSender {
    /// `false` when nobody takes rows any more.
    pub(super) fn send(&self, row: Result<SourceRow>) -> bool {
        self.0.blocking_send(row).is_ok()
    }
}

/// Rows that a thread of its own makes.
pub(super) fn from_thread(make: impl FnOnce(RowSender) + Send + 'static) -> Rows {
    let (sender, receiver) = mpsc::channel(ROWS_AHEAD);
    let work = tokio::task::spawn_blocking(move || make(RowSender(sender)));
    let rows = futures::stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|row| (row, receiver))
    });
    // A thread that panicked must not look like the end of the source.
    let end = futures::stream::once(async move {
        work.await.map_err(|error| DatasetError::Thread { reason: error.to_string() })
    });
    rows.chain(end.filter_map(async |ended| ended.err().map(Err))).boxed()
}

/// The rows of a fallible beginning.
pub(super) fn flatten(rows: impl futures::Stream<Item = Result<Vec<SourceRow>>> + Send + 'static) -> Rows {
    rows.map_ok(|rows| futures::stream::iter(rows.into_iter().map(Ok))).try_flatten().boxed()
}
