//! One row of a pinned corpus, as a person is shown it.

use blip2_images::decode::decode_image;
use blip2_store::Location;
use bytes::Bytes;

use super::columns::{ColumnNames, RowGroup};
use super::manifest::ManifestFile;
use super::survey::thumbnail;
use crate::error::{DatasetError, Result};

/// Bytes of a row group that are read for one row, at most.
const MOST_READ: u64 = 256 << 20;
/// Rows that are decoded at a time.
const BATCH: usize = 64;
/// Pixels of an image that is made small, at most.
const MOST_PIXELS: u64 = 1 << 25;

/// Where a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowPlace<'a> {
    /// Location of its file.
    pub file: &'a str,
    /// Row group within the file.
    pub row_group: u32,
    /// Row within the row group, without those that are passed over.
    pub row: u32,
}

/// A small picture of a row of these files: decoded within bounds and encoded anew, so that nothing but
/// pixels is shown.
///
/// # Errors
/// Why there is none, in words: the file is not of this corpus, it cannot be read, its row groups are too
/// large to be read for one row, or the image cannot be decoded.
pub async fn row_thumbnail(
    files: &[ManifestFile],
    columns: &ColumnNames,
    place: RowPlace<'_>,
    max_pixels: u64,
) -> std::result::Result<Bytes, String> {
    let file = files.iter().find(|file| file.location == place.file);
    let file = file.ok_or("its file is not of the corpus")?;
    if row_group_bytes(file, place.row_group).is_none_or(|bytes| bytes > MOST_READ) {
        return Err("its row group is too large to be read for one row".into());
    }
    let picture = read(file, columns, place, max_pixels.min(MOST_PIXELS)).await;
    picture.map_err(|error| error.to_string())?
}

/// The row group's share of its file; `None`: it has none of this number.
fn row_group_bytes(file: &ManifestFile, row_group: u32) -> Option<u64> {
    let own = u128::from(*file.row_groups.get(row_group as usize)?);
    let rows: u128 = file.row_groups.iter().map(|rows| u128::from(*rows)).sum();
    u64::try_from(u128::from(file.bytes) * own / rows.max(1)).ok()
}

async fn read(
    file: &ManifestFile,
    columns: &ColumnNames,
    place: RowPlace<'_>,
    max_pixels: u64,
) -> Result<std::result::Result<Bytes, String>> {
    let opened = file.open(Location::parse(&file.location)?, columns).await?;
    let batches = opened.fetch_in_batches(place.row_group, BATCH).await?.batches();
    let wanted = place.row as usize;
    let looked = tokio::task::spawn_blocking(move || {
        let mut before = 0;
        for batch in batches {
            let seen = match batch?.without_failed() {
                Ok(seen) => seen,
                Err(reason) => return Ok(Err(reason)),
            };
            if wanted < before + seen.rows() {
                return Ok(small(&seen, wanted - before, max_pixels));
            }
            before += seen.rows();
        }
        Ok(Err(format!("the row group has {before} rows")))
    });
    looked.await.map_err(|error| DatasetError::Thread { reason: error.to_string() })?
}

fn small(group: &RowGroup, row: usize, max_pixels: u64) -> std::result::Result<Bytes, String> {
    let encoded = group.stored_image(row).ok_or("it has no picture")?;
    thumbnail(decode_image(encoded, max_pixels).map_err(|error| error.to_string())?)
}

#[cfg(test)]
mod tests {
    use blip2_images::decode::image_dimensions;
    use blip2_test_corpus::Corpus;

    use super::*;
    use crate::corpus::manifest::Manifest;

    async fn pinned(path: &str) -> Manifest {
        Manifest::open(&[path.to_owned()], &ColumnNames::default()).await.unwrap()
    }

    async fn look(
        manifest: &Manifest,
        file: &str,
        row_group: u32,
        row: u32,
    ) -> std::result::Result<Bytes, String> {
        let place = RowPlace { file, row_group, row };
        row_thumbnail(&manifest.files, &ColumnNames::default(), place, 1 << 20).await
    }

    #[tokio::test]
    async fn a_row_is_shown_small_and_anew_also_one_that_training_refuses() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet").to_str().unwrap().to_owned();
        Corpus::with_rows(40).row_group(20).wrong_hash(26).captionless(7).write(&path);
        let manifest = pinned(&path).await;
        let file = manifest.files[0].location.clone();
        for (row_group, row) in [(0, 7), (1, 6), (1, 19)] {
            let small = look(&manifest, &file, row_group, row).await.unwrap();
            assert!(small.starts_with(&[0xff, 0xd8]), "a JPEG, whatever is stored");
            assert_eq!(image_dimensions(&small).unwrap(), (12, 10));
        }
        let error =
            async |file: &str, row_group, row| look(&manifest, file, row_group, row).await.unwrap_err();
        assert_eq!(error("/etc/passwd", 0, 0).await, "its file is not of the corpus");
        assert_eq!(error(&file, 1, 20).await, "the row group has 20 rows");
        assert!(error(&file, 9, 0).await.contains("too large"));
        let mut large = manifest.clone();
        large.files[0].bytes = 1 << 40;
        assert!(look(&large, &file, 0, 0).await.unwrap_err().contains("too large"));
    }
}
