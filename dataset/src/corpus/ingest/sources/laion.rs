//! LAION's metadata: URLs and captions in Parquet, the images in a folder.

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::RecordBatch;
use blip2_store::Location;
use blip2_store::error::StoreError;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::rows::{Rows, flatten};
use crate::corpus::columns::{Roles, TextRole, caption_texts, cell_text, cell_texts};
use crate::corpus::ingest::folder::{NameTemplate, key_of};
use crate::corpus::ingest::row::{RowImage, SourceRow};
use crate::corpus::ingest::settings::IngestSettings;
use crate::corpus::ingest::unit::Unit;
use crate::error::{DatasetError, Result};
use crate::parquet_bytes::decoder_failed;

/// Rows decoded at a time.
const BATCH: usize = 1024;

type Builder = ParquetRecordBatchStreamBuilder<StoredFile>;

/// Ranged reads of a file of known length.
struct StoredFile {
    location: Location,
    bytes: u64,
}

impl AsyncFileReader for StoredFile {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        let read = self.location.store().get_range(self.location.path(), range);
        async move { read.await.map_err(|error| ParquetError::External(Box::new(error))) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        let bytes = self.bytes;
        async move { ParquetMetaDataReader::new().load_and_finish(self, bytes).await.map(Arc::new) }.boxed()
    }
}

async fn open(location: &Location, bytes: u64) -> Result<Builder> {
    let opened = Builder::new(StoredFile { location: location.clone(), bytes });
    let opened = AssertUnwindSafe(opened).catch_unwind().await;
    opened.unwrap_or_else(|_| Err(decoder_failed())).map_err(|error| unreadable(location, &error))
}

fn unreadable(location: &Location, error: &ParquetError) -> DatasetError {
    match error {
        ParquetError::External(cause) if cause.is::<object_store::Error>() => {
            let (location, reason) = (location.to_string(), error.to_string());
            StoreError::Failed { location, action: "read", reason }.into()
        }
        _ => DatasetError::NotParquet { file: location.to_string(), reason: error.to_string() },
    }
}

/// Rows of a file.
pub(super) async fn rows_of(location: &Location, bytes: u64) -> Result<u64> {
    let rows = open(location, bytes).await?.metadata().file_metadata().num_rows();
    u64::try_from(rows).map_err(|_| DatasetError::NotParquet {
        file: location.to_string(),
        reason: format!("it claims to have {rows} rows"),
    })
}

pub(super) async fn rows(
    location: Location,
    bytes: u64,
    unit: &Unit,
    settings: &IngestSettings,
    template: Option<NameTemplate>,
) -> Result<Rows> {
    let builder = open(&location, bytes).await?;
    let file = location.to_string();
    let roles = Roles { schema: builder.schema(), names: &settings.columns, file: &file };
    let (url, caption) = (roles.needed(TextRole::Url)?, roles.needed(TextRole::Caption)?);
    let names = [url, caption].map(|place| builder.schema().field(place).name().clone());
    let (start, length) = (unit.first_row, unit.rows.unwrap_or_default());
    // Only the row groups in which the unit lies are read.
    let (mut groups, mut skipped, mut before) = (Vec::new(), 0u64, 0u64);
    for (group, metadata) in builder.metadata().row_groups().iter().enumerate() {
        let rows = u64::try_from(metadata.num_rows()).unwrap_or_default();
        if before + rows <= start {
            skipped += rows;
        } else if before < start + length {
            groups.push(group);
        }
        before += rows;
    }
    let mask = ProjectionMask::roots(builder.parquet_schema(), [url, caption]);
    let stream = builder
        .with_projection(mask)
        .with_row_groups(groups)
        .with_offset((start - skipped) as usize)
        .with_limit(length as usize)
        .with_batch_size(BATCH)
        .build()
        .map_err(|error| unreadable(&location, &error))?;
    let mut row = start;
    let batches = stream.map_err(move |error| unreadable(&location, &error)).map(move |batch| {
        let batch = batch?;
        let rows = batch_rows(&batch, &names, row, template.as_ref());
        row += batch.num_rows() as u64;
        Ok(rows)
    });
    Ok(flatten(batches))
}

fn batch_rows(
    batch: &RecordBatch,
    names: &[String; 2],
    first_row: u64,
    template: Option<&NameTemplate>,
) -> Vec<SourceRow> {
    let cell = |name: &str, index: usize| {
        batch.column_by_name(name).and_then(|column| cell_text(column, index)).map(str::to_owned)
    };
    let captions = batch.column_by_name(&names[1]).map(caption_texts);
    let source_row = |index: usize| {
        let row = first_row + index as u64;
        let url = cell(&names[0], index);
        let captions = captions.as_ref().map(|column| cell_texts(column, index)).unwrap_or_default();
        let name = template.map(|template| template.fill(row, url.as_deref()));
        SourceRow {
            row,
            key: key_of(row),
            captions: captions.into_iter().map(str::to_owned).collect(),
            image: Ok(RowImage::Named(name.into_iter().collect())),
            url,
        }
    };
    (0..batch.num_rows()).map(source_row).collect()
}
