//! The images of a task, read and checked.

use blip2_dataset::corpus::columns::RowGroup;
use blip2_dataset::corpus::ingest::readable;
use blip2_dataset::corpus::one_row::{RowPlace, row_thumbnail};
use blip2_dataset::error::{DatasetError, Result};
use blip2_dataset::quarantine::QuarantineRecord;
use blip2_dataset::text::is_visible;
use blip2_images::decode::decode_image;
use blip2_store::Location;
use bytes::Bytes;
use image::RgbImage;
use image_hasher::{HashAlg, Hasher, HasherConfig};
use sha2::Digest;

use crate::job::CurationJob;

/// A row that can be captioned and scored.
#[derive(Debug, Clone)]
pub struct TaskRow {
    /// Row group of its file.
    pub row_group: u32,
    /// Row within the row group.
    pub row: u32,
    /// Name in reports.
    pub key: String,
    /// Source of the image.
    pub url: Option<String>,
    /// The texts that came with it, as found; may be none.
    pub web: Vec<String>,
    /// The encoded image, which decodes.
    pub image: Bytes,
    /// Of the image's bytes.
    pub sha256: [u8; 32],
    /// See `perceptual_hash`.
    pub perceptual_hash: u64,
    /// Width and height.
    pub size: [u32; 2],
    /// A number that no other row of the job has: what is drawn for the row is a function of it.
    pub draw: u64,
    max_pixels: u64,
}

impl TaskRow {
    /// The decoded image.
    ///
    /// # Errors
    /// [`DatasetError::Image`]; none for a row of a task that was read.
    pub fn decode(&self) -> Result<RgbImage> {
        Ok(decode_image(&self.image, self.max_pixels)?)
    }
}

/// A task that was read.
#[derive(Debug, Clone)]
pub struct CurationTask {
    /// Its number.
    pub number: u64,
    /// Rows that can be used, in their order.
    pub rows: Vec<TaskRow>,
    /// Rows that cannot.
    pub rejected: Vec<QuarantineRecord>,
}

impl CurationJob {
    /// Reads a task's row groups, and decodes every image once.
    ///
    /// # Errors
    /// `StoreError::Changed`, [`DatasetError::ReadRowGroup`], [`DatasetError::DamagedRowGroup`],
    /// `StoreError::Failed`.
    pub async fn read_task(&self, number: u64) -> Result<CurationTask> {
        let place = self.place(number)?.clone();
        let entry = &self.record.files[place.file];
        let location = Location::parse(&entry.location)?;
        let settings = self.settings();
        let file = entry.open(location, &settings.columns).await?.with_urls(&settings.columns);
        let mut task = CurationTask { number, rows: Vec::new(), rejected: Vec::new() };
        let mut first_sample: u64 =
            entry.row_groups[..place.row_groups.start as usize].iter().map(|rows| u64::from(*rows)).sum();
        for row_group in place.row_groups.clone() {
            if entry.row_groups[row_group as usize] == 0 {
                continue;
            }
            let encoded = file.fetch(row_group).await?;
            let group_place = RowGroupPlace {
                file: entry.location.clone(),
                number: place.file as u64,
                row_group,
                first_sample,
            };
            let max_pixels = settings.max_pixels;
            let looked = tokio::task::spawn_blocking(move || {
                encoded.decode().map(|group| look(&group, &group_place, max_pixels))
            });
            let (rows, rejected) =
                looked.await.map_err(|error| DatasetError::Thread { reason: error.to_string() })??;
            first_sample += u64::from(entry.row_groups[row_group as usize]);
            task.rows.extend(rows);
            task.rejected.extend(rejected);
        }
        Ok(task)
    }

    /// A small picture of a row of the input, for those who look: made anew, within bounds, from a file as it
    /// was when the job was begun.
    ///
    /// # Errors
    /// Why there is none, in words, as [`row_thumbnail`].
    pub async fn row_thumbnail(&self, row: &QuarantineRecord) -> std::result::Result<Bytes, String> {
        let place = RowPlace { file: &row.file, row_group: row.row_group, row: row.row };
        let settings = self.settings();
        row_thumbnail(&self.record.files, &settings.columns, place, settings.max_pixels).await
    }
}

struct RowGroupPlace {
    file: String,
    /// Of the file, among the job's.
    number: u64,
    row_group: u32,
    first_sample: u64,
}

fn look(group: &RowGroup, place: &RowGroupPlace, max_pixels: u64) -> (Vec<TaskRow>, Vec<QuarantineRecord>) {
    let hasher = hasher();
    let (mut rows, mut rejected) = (Vec::new(), Vec::new());
    // A row group's length is 32-bit.
    for row in 0..group.rows() as u32 {
        let index = row as usize;
        let usable = group.image(index).and_then(|encoded| {
            let image = decode_image(encoded, max_pixels).map_err(|error| error.to_string())?;
            Ok((encoded, image))
        });
        match usable {
            Ok((encoded, image)) => rows.push(TaskRow {
                row_group: place.row_group,
                row,
                key: group.key(index),
                url: group.url(index).map(str::to_owned),
                web: group
                    .captions(index)
                    .into_iter()
                    .map(readable)
                    .filter(|text| is_visible(text))
                    .collect(),
                image: Bytes::copy_from_slice(encoded),
                sha256: sha2::Sha256::digest(encoded).into(),
                perceptual_hash: perceptual_hash(&hasher, &image),
                size: image.dimensions().into(),
                // Room for 2^22 files of 2^12 row groups of 2^20 rows; beyond it some rows share their draws.
                draw: (place.number << 32) ^ (u64::from(place.row_group) << 20) ^ u64::from(row),
                max_pixels,
            }),
            Err(reason) => rejected.push(QuarantineRecord {
                key: group.key(index),
                file: place.file.clone(),
                row_group: place.row_group,
                row,
                reason,
                sample: place.first_sample + u64::from(row),
                stage: 0,
            }),
        }
    }
    (rows, rejected)
}

fn hasher() -> Hasher<[u8; 8]> {
    HasherConfig::with_bytes_type::<[u8; 8]>()
        .hash_size(8, 8)
        .hash_alg(HashAlg::Median)
        .preproc_dct()
        .to_hasher()
}

/// 64 bits that hardly change when an image is scaled, compressed or recoloured a little: which of the 64
/// lowest frequencies of its brightness are above their median (pHash).
fn perceptual_hash(hasher: &Hasher<[u8; 8]>, image: &RgbImage) -> u64 {
    // The hash is as long as was asked for.
    hasher.hash_image(image).as_bytes().try_into().map_or(0, u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use blip2_dataset::corpus::columns::ColumnNames;
    use blip2_dataset::corpus::samples::read_all;
    use image::imageops::FilterType;

    use super::*;

    #[tokio::test]
    async fn the_hash_of_an_image_outlives_scaling_and_compression() {
        let emoji = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/corpus/test-*.parquet").to_owned();
        let set = read_all(&[emoji], &ColumnNames::default(), 1 << 20).await.unwrap();
        let hasher = hasher();
        let hashes: Vec<u64> =
            set.samples[..60].iter().map(|sample| perceptual_hash(&hasher, &sample.image)).collect();
        let changed: Vec<u64> = set.samples[..60]
            .iter()
            .map(|sample| {
                let larger = image::imageops::resize(&sample.image, 150, 150, FilterType::Triangle);
                let mut jpeg = Vec::new();
                let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 60);
                larger.write_with_encoder(encoder).unwrap();
                perceptual_hash(&hasher, &decode_image(&jpeg, 1 << 20).unwrap())
            })
            .collect();
        let near = hashes.iter().zip(&changed).filter(|(a, b)| (*a ^ *b).count_ones() <= 6).count();
        let pairs = (0..60).flat_map(|a| (0..a).map(move |b| (a, b)));
        let confused = pairs.filter(|(a, b)| (hashes[*a] ^ hashes[*b]).count_ones() <= 6).count();
        assert!(near >= 50 && confused <= 30, "{near} of 60 found again, {confused} of 1770 pairs confused");
    }
}
