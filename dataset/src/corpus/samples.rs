//! Whole data sets in memory, for evaluation.

use std::sync::Arc;

use blip2_images::decode::decode_image;
use blip2_store::Location;
use futures::{StreamExt, TryStreamExt};
use image::RgbImage;

use crate::corpus::columns::{ColumnNames, RowGroup};
use crate::corpus::manifest::Manifest;
use crate::corpus::parquet_file::ParquetFile;
use crate::error::{DatasetError, Result};
use crate::quarantine::QuarantineRecord;
use crate::text::{Question, is_visible};

/// Row groups read at the same time.
const READ_CONCURRENCY: usize = 4;

/// An image and its captions, or a question on it.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The row's key; empty if the file has none.
    pub key: String,
    /// All captions as written, at least one where there is no question.
    pub captions: Vec<String>,
    /// The question on the image, where columns of questions are named.
    pub question: Option<Question>,
    /// The image as stored.
    pub image: RgbImage,
}

/// All usable rows of some files, and the rows that are not.
#[derive(Debug, Clone, Default)]
pub struct EvaluationSet {
    /// Usable rows, in the order of the files.
    pub samples: Vec<Sample>,
    /// The others, with `stage` 0 and the row's index in the set as `sample`.
    pub quarantined: Vec<QuarantineRecord>,
    /// Rows whose download failed: neither data nor bad data.
    pub not_downloaded: u64,
}

/// Reads and decodes all rows that `sources` (paths, URLs, patterns) name. For sets that fit in memory.
///
/// # Errors
/// As [`Manifest::open`], and [`DatasetError::ReadRowGroup`], [`DatasetError::DamagedRowGroup`].
pub async fn read_all(sources: &[String], columns: &ColumnNames, max_pixels: u64) -> Result<EvaluationSet> {
    let manifest = Manifest::open(sources, columns).await?;
    let mut set = EvaluationSet { not_downloaded: manifest.failed_rows(), ..EvaluationSet::default() };
    let mut rows_before = 0;
    for entry in &manifest.files {
        let location = Location::parse(&entry.location)?;
        let file = entry.open(location, columns).await?;
        let parts =
            (0u32..).zip(&entry.row_groups).filter(|(_, rows)| **rows > 0).map(|(row_group, rows)| {
                let first = rows_before;
                rows_before += u64::from(*rows);
                (row_group, first)
            });
        let parts: Vec<_> = parts.collect();
        let reads = parts.into_iter().map(|(row_group, first_sample)| {
            let place = Place { file: &entry.location, row_group, first_sample };
            read_part(&file, place, max_pixels)
        });
        let mut read = futures::stream::iter(reads).buffered(READ_CONCURRENCY);
        while let Some(part) = read.try_next().await? {
            set.samples.extend(part.samples);
            set.quarantined.extend(part.quarantined);
        }
    }
    Ok(set)
}

/// The first `most` usable rows that `sources` name, each as `keep` makes it, and how many rows before the
/// last of them are not usable. A row that `keep` refuses is not usable. Images are decoded one at a time.
///
/// # Errors
/// As [`read_all`].
pub async fn read_first<T: Send + 'static>(
    sources: &[String],
    columns: &ColumnNames,
    max_pixels: u64,
    most: usize,
    keep: impl Fn(Sample) -> Option<T> + Send + Sync + 'static,
) -> Result<(Vec<T>, u64)> {
    let manifest = Manifest::open(sources, columns).await?;
    let (mut kept, mut unusable, keep) = (Vec::new(), 0, Arc::new(keep));
    for entry in &manifest.files {
        let location = Location::parse(&entry.location)?;
        let file = entry.open(location, columns).await?;
        for (row_group, _) in (0u32..).zip(&entry.row_groups).filter(|(_, rows)| **rows > 0) {
            if kept.len() >= most {
                return Ok((kept, unusable));
            }
            let encoded = file.fetch(row_group).await?;
            let (room, keep) = (most - kept.len(), keep.clone());
            let decode = move || {
                let group = encoded.decode()?;
                let (mut rows, mut refused) = (Vec::new(), 0);
                for row in 0..group.rows() {
                    if rows.len() == room {
                        break;
                    }
                    match decode_row(&group, row, max_pixels).ok().and_then(|sample| keep(sample)) {
                        Some(row) => rows.push(row),
                        None => refused += 1,
                    }
                }
                Ok::<_, DatasetError>((rows, refused))
            };
            let decoded = tokio::task::spawn_blocking(decode).await;
            let decoded = decoded.map_err(|error| DatasetError::Thread { reason: error.to_string() });
            let (rows, refused) = decoded??;
            kept.extend(rows);
            unusable += refused;
        }
    }
    Ok((kept, unusable))
}

/// Where a row group lies.
#[derive(Clone, Copy)]
struct Place<'a> {
    file: &'a str,
    row_group: u32,
    first_sample: u64,
}

async fn read_part(file: &ParquetFile, place: Place<'_>, max_pixels: u64) -> Result<EvaluationSet> {
    let encoded = file.fetch(place.row_group).await?;
    let (name, row_group, first_sample) = (place.file.to_owned(), place.row_group, place.first_sample);
    let decode = move || {
        let group = encoded.decode()?;
        Ok(decode_rows(&group, Place { file: &name, row_group, first_sample }, max_pixels))
    };
    let decoded = tokio::task::spawn_blocking(decode).await;
    decoded.unwrap_or_else(|error| Err(DatasetError::Thread { reason: error.to_string() }))
}

fn decode_rows(group: &RowGroup, place: Place<'_>, max_pixels: u64) -> EvaluationSet {
    let mut set = EvaluationSet::default();
    for row in 0..group.rows() {
        match decode_row(group, row, max_pixels) {
            Ok(sample) => set.samples.push(sample),
            Err(reason) => set.quarantined.push(QuarantineRecord {
                key: group.key(row),
                file: place.file.to_owned(),
                row_group: place.row_group,
                // A row group's length is 32-bit.
                row: row as u32,
                reason,
                sample: place.first_sample + row as u64,
                stage: 0,
            }),
        }
    }
    set
}

fn decode_row(group: &RowGroup, row: usize, max_pixels: u64) -> Result<Sample, String> {
    let encoded = group.image(row)?;
    let mut captions: Vec<_> = group.captions(row).into_iter().map(str::to_owned).collect();
    captions.retain(|caption| is_visible(caption));
    let question = group.question(row);
    if captions.is_empty() && question.is_none() {
        return Err("it has no text".to_owned());
    }
    let image = decode_image(encoded, max_pixels).map_err(|error| error.to_string())?;
    Ok(Sample { key: group.key(row), captions, question, image })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_assets::emoji_sources;
    use blip2_test_corpus::Corpus;

    #[tokio::test]
    async fn the_held_out_emoji_are_read_in_order() {
        let set = read_all(&emoji_sources("test-*.parquet"), &ColumnNames::default(), 1 << 20).await.unwrap();
        assert_eq!((set.samples.len(), set.quarantined.len()), (540, 0));
        assert!(
            set.samples
                .iter()
                .all(|sample| sample.image.dimensions() == (64, 64) && sample.captions.len() == 1)
        );
        let keys: Vec<_> = set.samples.iter().map(|sample| sample.key.clone()).collect();
        let again =
            read_all(&emoji_sources("test-*.parquet"), &ColumnNames::default(), 1 << 20).await.unwrap();
        assert_eq!(keys, again.samples.iter().map(|sample| sample.key.clone()).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn unusable_rows_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet").to_str().unwrap().to_owned();
        Corpus::with_rows(10).row_group(4).truncated(5).captionless(8).failed(9).write(&path);
        let set = read_all(&[path], &ColumnNames::default(), 1 << 20).await.unwrap();
        assert_eq!((set.samples.len(), set.not_downloaded), (7, 1));
        let bad: Vec<_> = set.quarantined.iter().map(|bad| (bad.sample, bad.row_group, bad.row)).collect();
        assert_eq!(bad, [(5, 1, 1), (8, 2, 0)]);
        assert_eq!(set.quarantined[0].key, "key-5");
    }

    #[tokio::test]
    async fn the_first_usable_rows_are_those_of_the_whole_set() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet").to_str().unwrap().to_owned();
        Corpus::with_rows(10).row_group(4).truncated(5).captionless(8).failed(9).write(&path);
        let keys = async |most: usize| {
            let keep = |sample: Sample| (sample.key != "key-1").then_some(sample.key);
            read_first(std::slice::from_ref(&path), &ColumnNames::default(), 1 << 20, most, keep)
                .await
                .unwrap()
        };
        let (all, unusable) = keys(100).await;
        assert_eq!(all, ["key-0", "key-2", "key-3", "key-4", "key-6", "key-7"]);
        assert_eq!(unusable, 3);
        assert_eq!(keys(4).await, (all[..4].to_vec(), 1));
        assert_eq!(keys(5).await, (all[..5].to_vec(), 2));
    }
}
