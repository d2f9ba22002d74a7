//! What a footer says, read and checked before anything is believed.

use std::ops::Range;

use blip2_store::PinnedObject;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parquet::arrow::ProjectionMask;
use parquet::arrow::async_reader::MetadataFetch;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};

use crate::corpus::columns::SUCCESS;

/// Rows of a row group, at most: more are a footer that lies, or a file to be written anew.
const MAX_ROWS: i64 = 1 << 24;

/// Refuses what no reader of Parquet unpacks any more, by its name.
pub(super) fn check_codecs(footer: &ParquetMetaData, projection: &[usize]) -> Result<(), String> {
    let mask = ProjectionMask::roots(footer.file_metadata().schema_descr(), projection.iter().copied());
    let columns = footer.row_groups().iter().flat_map(|group| group.columns().iter().enumerate());
    let unread = |(leaf, column): &(usize, &ColumnChunkMetaData)| {
        column.compression() == Compression::LZO && mask.leaf_included(*leaf)
    };
    match columns.into_iter().find(unread) {
        None => Ok(()),
        Some((_, column)) => Err(format!(
            "column `{}` is compressed with LZO, which is not read; write it with zstd, snappy, gzip, brotli or lz4",
            column.column_path()
        )),
    }
}

/// Whether the statistics of a row group say that every status that is there is success.
pub(super) fn says_success(group: &RowGroupMetaData, status: usize) -> bool {
    let schema = group.schema_descr();
    let leaf = (0..schema.num_columns()).find(|leaf| schema.get_column_root_idx(*leaf) == status);
    let statistics = leaf.and_then(|leaf| group.column(leaf).statistics());
    statistics.is_some_and(|statistics| {
        // Bounds that are not exact are bounds all the same.
        [statistics.min_bytes_opt(), statistics.max_bytes_opt()] == [Some(SUCCESS.as_bytes()); 2]
    })
}

pub(super) fn check_row_counts(footer: &ParquetMetaData) -> Result<(), String> {
    for (row_group, metadata) in footer.row_groups().iter().enumerate() {
        let rows = metadata.num_rows();
        if !(0..=MAX_ROWS).contains(&rows) {
            return Err(format!(
                "row group {row_group} claims to have {rows} rows; at most {MAX_ROWS} are read"
            ));
        }
    }
    Ok(())
}

/// The store's error inside a Parquet error, if that is what it is.
pub(super) fn store_error(error: &ParquetError) -> Option<&object_store::Error> {
    match error {
        ParquetError::External(cause) => cause.downcast_ref(),
        _ => None,
    }
}

/// Ranged reads for the footer reader.
pub(super) struct FooterReader<'a>(pub(super) &'a PinnedObject);

impl MetadataFetch for FooterReader<'_> {
    fn fetch(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        let read = self.0.read(range);
        async move { read.await.map_err(|error| ParquetError::External(Box::new(error))) }.boxed()
    }
}
