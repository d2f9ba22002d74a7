//! A look at a corpus: a few of its row groups, evenly spaced, as images and distributions.

use blip2_images::decode::{decode_image, image_dimensions};
use blip2_images::transform::shrink;
use blip2_store::Location;
use bytes::Bytes;
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;

use crate::corpus::columns::{ColumnNames, RowGroup};
use crate::corpus::manifest::Manifest;
use crate::error::{DatasetError, Result};
use crate::text::is_visible;

/// Shorter side of an image on a contact sheet, pixels.
const THUMBNAIL: u32 = 160;
/// Images longer than this many times their width, or wider, have no thumbnail.
const LONGEST: u32 = 8;

/// What to look at.
#[derive(Debug, Clone)]
pub struct SurveySpec {
    /// Files or patterns.
    pub sources: Vec<String>,
    /// Names of the columns.
    pub columns: ColumnNames,
    /// Row groups to read, at most.
    pub row_groups: usize,
    /// Images to show, at most.
    pub images: usize,
    /// Images of more pixels are not shown.
    pub max_pixels: u64,
}

/// What a look at a corpus shows.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// Files of the corpus.
    pub files: u64,
    /// Its row groups.
    pub row_groups: u64,
    /// Its rows, without those whose download failed.
    pub rows: u64,
    /// Rows whose download failed.
    pub not_downloaded: u64,
    /// Of the rows that were read, width and height from the image's header.
    pub sizes: Vec<(u32, u32)>,
    /// Of the rows that were read, bytes of the image.
    pub bytes: Vec<u64>,
    /// Words of every caption that was read.
    pub caption_words: Vec<u64>,
    /// Captions of every row that was read.
    pub captions_a_row: Vec<u64>,
    /// Rows that were read and cannot be used.
    pub unusable: Vec<UnusableRow>,
    /// Images with their captions.
    pub images: Vec<SurveyedImage>,
}

/// A row that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusableRow {
    /// The file.
    pub file: String,
    /// Its key.
    pub key: String,
    /// Why.
    pub reason: String,
}

/// A row as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SurveyedImage {
    /// Its key.
    pub key: String,
    /// Its captions.
    pub captions: Vec<String>,
    /// Width of the stored image.
    pub width: u32,
    /// Height of the stored image.
    pub height: u32,
    /// Made smaller and encoded anew as JPEG, so that nothing but pixels gets onto the sheet.
    pub thumbnail: Bytes,
}

/// Reads evenly spaced row groups.
///
/// # Errors
/// As [`Manifest::open`]; [`DatasetError::ReadRowGroup`], [`DatasetError::DamagedRowGroup`].
pub async fn survey(spec: &SurveySpec) -> Result<Survey> {
    let manifest = Manifest::open(&spec.sources, &spec.columns).await?;
    let places: Vec<(usize, u32)> = manifest
        .files
        .iter()
        .enumerate()
        .flat_map(|(file, entry)| {
            (0u32..).zip(&entry.row_groups).map(move |(group, rows)| (file, group, *rows))
        })
        .filter(|(_, _, rows)| *rows > 0)
        .map(|(file, group, _)| (file, group))
        .collect();
    let mut result = Survey {
        files: manifest.files.len() as u64,
        row_groups: places.len() as u64,
        rows: manifest.rows(),
        not_downloaded: manifest.failed_rows(),
        ..Survey::default()
    };
    let chosen = evenly(places.len(), spec.row_groups);
    let share = spec.images.div_ceil(chosen.len().max(1));
    for (file, row_group) in chosen.into_iter().map(|place| places[place]) {
        let entry = &manifest.files[file];
        let location = Location::parse(&entry.location)?;
        let encoded = entry.open(location, &spec.columns).await?.fetch(row_group).await?;
        let (name, max_pixels) = (entry.location.clone(), spec.max_pixels);
        let images = share.min(spec.images - result.images.len());
        let seen = tokio::task::spawn_blocking(move || {
            encoded.decode().map(|group| look(&group, &name, images, max_pixels))
        });
        let seen = seen.await.map_err(|error| DatasetError::Thread { reason: error.to_string() })??;
        result.sizes.extend(seen.sizes);
        result.bytes.extend(seen.bytes);
        result.caption_words.extend(seen.caption_words);
        result.captions_a_row.extend(seen.captions_a_row);
        result.unusable.extend(seen.unusable);
        result.images.extend(seen.images);
    }
    Ok(result)
}

/// `count` of `total` places, or all.
fn evenly(total: usize, count: usize) -> Vec<usize> {
    let count = count.min(total);
    (0..count).map(|index| (2 * index + 1) * total / (2 * count)).collect()
}

fn look(group: &RowGroup, file: &str, images: usize, max_pixels: u64) -> Survey {
    let mut seen = Survey::default();
    let shown = evenly(group.rows(), images);
    for row in 0..group.rows() {
        let captions = group.captions(row);
        let key = group.key(row);
        let sized = group.image(row).and_then(|encoded| {
            image_dimensions(encoded).map(|size| (encoded, size)).map_err(|error| error.to_string())
        });
        let looked = sized.and_then(|(encoded, size)| {
            if !captions.iter().any(|caption| is_visible(caption)) {
                return Err("it has no text".to_owned());
            }
            seen.sizes.push(size);
            seen.bytes.push(encoded.len() as u64);
            seen.captions_a_row.push(captions.len() as u64);
            let words = |caption: &&str| caption.split_whitespace().count() as u64;
            seen.caption_words.extend(captions.iter().map(words));
            if shown.binary_search(&row).is_ok() {
                let image = decode_image(encoded, max_pixels).map_err(|error| error.to_string())?;
                seen.images.push(SurveyedImage {
                    key: key.clone(),
                    captions: captions.iter().map(|caption| (*caption).to_owned()).collect(),
                    width: size.0,
                    height: size.1,
                    thumbnail: thumbnail(image)?,
                });
            }
            Ok(())
        });
        if let Err(reason) = looked {
            seen.unusable.push(UnusableRow { file: file.to_owned(), key, reason });
        }
    }
    seen
}

/// A small JPEG for a page.
///
/// # Errors
/// In words, for an image that is too long to be shown.
pub fn thumbnail(image: RgbImage) -> Result<Bytes, String> {
    let (width, height) = image.dimensions();
    let (short, long) = (width.min(height), width.max(height));
    if long / LONGEST > short {
        return Err(format!("{width}x{height} is too long to be shown"));
    }
    let small = match short > THUMBNAIL {
        true => shrink(&image, THUMBNAIL).map_err(|error| error.to_string())?,
        false => image,
    };
    let mut encoded = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut encoded, 80);
    small.write_with_encoder(encoder).map_err(|error| error.to_string())?;
    Ok(encoded.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use blip2_test_corpus::Corpus;

    #[test]
    fn places_are_spread() {
        assert_eq!(evenly(10, 2), [2, 7]);
        assert_eq!(evenly(3, 9), [0, 1, 2]);
        assert!(evenly(0, 4).is_empty() && evenly(4, 0).is_empty());
    }

    #[tokio::test]
    async fn a_corpus_is_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet").to_str().unwrap().to_owned();
        Corpus::with_rows(40).row_group(5).with_alternatives().wrong_hash(6).captionless(7).write(&path);
        let spec = SurveySpec {
            sources: vec![path],
            columns: ColumnNames::default(),
            row_groups: 4,
            images: 9,
            max_pixels: 1 << 20,
        };
        let survey = survey(&spec).await.unwrap();
        assert_eq!((survey.files, survey.row_groups, survey.rows), (1, 8, 40));
        assert_eq!(survey.sizes.len() + survey.unusable.len(), 20);
        assert!(survey.images.len() >= 7 && survey.images.len() <= 9);
        assert!(survey.sizes.iter().all(|size| *size == (12, 10)));
        assert!(survey.captions_a_row.iter().all(|captions| *captions == 2));
        assert_eq!(survey.unusable[0].key, "key-6");
        assert_eq!(image_dimensions(&survey.images[0].thumbnail).unwrap(), (12, 10));
    }
}
