//! Rows of Parquet files that hold their images.

use std::sync::Arc;

use blip2_dataset::corpus::columns::ColumnNames;
use blip2_dataset::corpus::manifest::Manifest;
use blip2_dataset::corpus::parquet_file::ParquetFile;
use blip2_store::Location;

use super::image_source::ImageSource;
use crate::job_error::Result;

/// A row: its name, its texts, and where it is.
pub(super) struct ParquetRow {
    pub(super) key: String,
    pub(super) texts: Vec<String>,
    /// What people answered, where columns of questions and answers are named.
    pub(super) answers: Vec<String>,
    pub(super) image: ImageSource,
}

/// The rows of what `sources` name, with the texts of the columns that `columns` names as captions. Rows
/// whose download failed are passed over.
pub(super) async fn read(
    sources: &[String],
    columns: &ColumnNames,
) -> Result<(Vec<Arc<ParquetFile>>, Vec<ParquetRow>)> {
    let manifest = Manifest::open(sources, columns).await?;
    let (mut files, mut rows) = (Vec::new(), Vec::new());
    for (file, entry) in manifest.files.iter().enumerate() {
        let opened = entry.open(Location::parse(&entry.location)?, columns).await?;
        for (row_group, _) in (0_u32..).zip(&entry.row_groups).filter(|(_, rows)| **rows > 0) {
            let group = opened.fetch(row_group).await?.decode()?;
            rows.extend((0..group.rows()).map(|row| ParquetRow {
                key: group.key(row),
                texts: group.captions(row).into_iter().map(str::to_owned).collect(),
                answers: group.answers(row).all().map(str::to_owned).collect(),
                image: ImageSource::Row { file, row_group, row },
            }));
        }
        files.push(Arc::new(opened));
    }
    Ok((files, rows))
}
