//! Parquet files that hold their images, as img2dataset writes them.

use std::sync::Arc;

use blip2_store::{Location, PinnedObject};
use bytes::Bytes;
use futures::StreamExt;

use super::rows::{RowSender, Rows, from_thread};
use crate::corpus::columns::{RowFault, RowGroup};
use crate::corpus::ingest::folder::key_of;
use crate::corpus::ingest::row::{RejectReason, RowImage, SourceRow};
use crate::corpus::ingest::settings::IngestSettings;
use crate::corpus::parquet_file::{EncodedRowGroup, ParquetFile};
use crate::error::{DatasetError, Result};

/// Rows decoded at a time.
const BATCH: usize = 64;

/// Opens the file; its footer has to be in order, a damaged row group is one rejected row.
pub(super) async fn rows(location: Location, bytes: u64, settings: &IngestSettings) -> Result<Rows> {
    let file =
        ParquetFile::open(PinnedObject::look_up(location, bytes, None).await?, &settings.columns).await?;
    let file = Arc::new(file.with_urls(&settings.columns));
    let counts = file.row_groups();
    let starts = counts.iter().scan(0u64, |next, rows| {
        let first = *next;
        *next += u64::from(*rows);
        Some(first)
    });
    let groups: Vec<_> = (0u32..).zip(starts).collect();
    let read = futures::stream::iter(groups).then(move |(row_group, first_row)| {
        let file = Arc::clone(&file);
        async move {
            match file.fetch_in_batches(row_group, BATCH).await {
                Ok(encoded) => from_thread(move |sender| decode(encoded, first_row, &sender)),
                Err(error) if error.is_bad_input() => one(Ok(damaged(first_row, &error))),
                Err(error) => one(Err(error)),
            }
        }
    });
    Ok(read.flatten().boxed())
}

fn one(row: Result<SourceRow>) -> Rows {
    futures::stream::iter([row]).boxed()
}

fn decode(encoded: EncodedRowGroup, first_row: u64, sender: &RowSender) {
    let mut row = first_row;
    for batch in encoded.batches() {
        match batch {
            Ok(batch) => {
                for index in 0..batch.rows() {
                    if !sender.send(Ok(source_row(&batch, index, row))) {
                        return;
                    }
                    row += 1;
                }
            }
            Err(error) => {
                sender.send(Ok(damaged(row, &error)));
                return;
            }
        }
    }
}

/// The row where damage begins.
fn damaged(row: u64, error: &DatasetError) -> SourceRow {
    let image = Err((RejectReason::DamagedSource, error.to_string()));
    SourceRow { row, key: key_of(row), captions: Vec::new(), url: None, image }
}

fn source_row(batch: &RowGroup, index: usize, row: u64) -> SourceRow {
    let key = Some(batch.key(index)).filter(|key| !key.is_empty()).unwrap_or_else(|| key_of(row));
    let image = match batch.checked_image(index) {
        Ok(bytes) => Ok(RowImage::Bytes(Bytes::copy_from_slice(bytes))),
        Err(fault) => Err((reason_of(&fault), fault.to_string())),
    };
    let captions = batch.written_captions(index).into_iter().map(str::to_owned).collect();
    SourceRow { row, key, captions, url: batch.url(index).map(str::to_owned), image }
}

fn reason_of(fault: &RowFault) -> RejectReason {
    match fault {
        RowFault::Status(_) => RejectReason::NotDownloaded,
        RowFault::NoImage => RejectReason::NoImage,
        RowFault::WrongHash => RejectReason::WrongHash,
    }
}
