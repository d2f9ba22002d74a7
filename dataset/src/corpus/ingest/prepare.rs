//! Checks and, if asked for, re-encoding of one row, on the pool of decode threads.

use std::sync::Arc;

use blip2_images::ImageError;
use blip2_images::decode::{decode_image, image_dimensions};
use blip2_images::transform::shrink;
use bytes::Bytes;
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use sha2::Digest;

use crate::corpus::ingest::folder::ImageFolder;
use crate::corpus::ingest::row::{
    Outcome, ReadyRow, Refusal, RejectReason, RowImage, SourceRow, too_many_bytes,
};
use crate::corpus::ingest::settings::IngestSettings;
use crate::error::{DatasetError, Result};
use crate::text::is_visible;

/// Longer captions are not used, bytes.
pub const MAX_CAPTION_BYTES: usize = 16 << 10;

/// JPEG quality of images that are only made smaller.
const SHRUNK_QUALITY: u8 = 95;

/// Prepares rows; shared by all that are in work.
#[derive(Debug)]
pub(super) struct Preparer {
    settings: IngestSettings,
    pool: rayon::ThreadPool,
}

impl Preparer {
    pub(super) fn new(settings: IngestSettings) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(settings.threads).build();
        let pool = pool.map_err(|error| DatasetError::Thread { reason: error.to_string() })?;
        Ok(Self { settings, pool })
    }

    pub(super) fn settings(&self) -> &IngestSettings {
        &self.settings
    }

    /// Fetches the row's image if it is in a folder, and prepares the row.
    ///
    /// # Errors
    /// Of the store alone: whatever is wrong with the row is an outcome.
    pub(super) async fn prepare(
        self: Arc<Self>,
        row: SourceRow,
        folder: Option<ImageFolder>,
    ) -> Result<Outcome> {
        let SourceRow { row, key, captions, url, image } = row;
        let image = match (image, folder) {
            (Ok(RowImage::Bytes(bytes)), _) => Ok(bytes),
            (Ok(RowImage::Named(names)), Some(folder)) => {
                folder.read(&names, self.settings.max_image_bytes).await?
            }
            (Ok(RowImage::Named(names)), None) => Err((RejectReason::MissingImage, names.join(", "))),
            (Err(refusal), _) => Err(refusal),
        };
        let (answer, outcome) = tokio::sync::oneshot::channel();
        let this = Arc::clone(&self);
        self.pool.spawn(move || {
            let ready = this.ready(&key, captions, url, image);
            // Nobody waits when the job has failed meanwhile.
            let _ = answer.send(ready.map_or_else(
                |(reason, detail)| Outcome::Rejected { row, key: key.clone(), reason, detail },
                Outcome::Ready,
            ));
        });
        outcome.await.map_err(|_| DatasetError::Thread { reason: "a decode thread panicked".to_owned() })
    }

    fn ready(
        &self,
        key: &str,
        captions: Vec<String>,
        url: Option<String>,
        image: Result<Bytes, Refusal>,
    ) -> Result<ReadyRow, Refusal> {
        let image = image?;
        let captions = usable_captions(captions, self.settings.max_captions)?;
        let (image, width, height) = self.image(image)?;
        Ok(ReadyRow { key: key.to_owned(), captions, url, width, height, sha256: hex_sha256(&image), image })
    }

    /// The image as it is to be stored, with its size.
    fn image(&self, encoded: Bytes) -> Result<(Bytes, u32, u32), Refusal> {
        let settings = &self.settings;
        if encoded.is_empty() {
            return Err((RejectReason::NoImage, "it has no bytes".to_owned()));
        }
        if encoded.len() as u64 > settings.max_image_bytes {
            return Err(too_many_bytes(encoded.len() as u64, settings.max_image_bytes));
        }
        let undecodable = |error: ImageError| (RejectReason::Undecodable, error.to_string());
        let (width, height) = image_dimensions(&encoded).map_err(undecodable)?;
        if u64::from(width) * u64::from(height) > settings.max_pixels {
            let detail = format!("{width}x{height} is more than {} pixels", settings.max_pixels);
            return Err((RejectReason::TooManyPixels, detail));
        }
        let short = width.min(height);
        if short < settings.min_side {
            let detail = format!("{width}x{height} is smaller than {}", settings.min_side);
            return Err((RejectReason::TooSmall, detail));
        }
        let decoded = decode_image(&encoded, settings.max_pixels).map_err(undecodable)?;
        let smaller = settings.short_side.filter(|side| short > *side);
        let resized = match smaller {
            Some(side) => shrink(&decoded, side).map_err(undecodable)?,
            None if settings.jpeg_quality.is_some() => decoded,
            None => return Ok((encoded, width, height)),
        };
        let quality = settings.jpeg_quality.unwrap_or(SHRUNK_QUALITY);
        let jpeg = to_jpeg(&resized, quality).map_err(|reason| (RejectReason::Undecodable, reason))?;
        Ok((jpeg, resized.width(), resized.height()))
    }
}

/// A caption with control characters replaced by spaces, without space at its ends.
pub fn readable(caption: &str) -> String {
    let spaced: String =
        caption.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
    spaced.trim().to_owned()
}

/// The captions that are kept, at least one.
fn usable_captions(captions: Vec<String>, most: usize) -> Result<Vec<String>, Refusal> {
    let longest = captions.iter().map(String::len).max().unwrap_or_default();
    let kept: Vec<String> = captions
        .iter()
        .filter(|caption| caption.len() <= MAX_CAPTION_BYTES)
        .map(|caption| readable(caption))
        .filter(|caption| is_visible(caption))
        .take(most)
        .collect();
    match kept.is_empty() {
        false => Ok(kept),
        true if longest > MAX_CAPTION_BYTES => {
            Err((RejectReason::CaptionTooLong, format!("{longest} bytes are more than {MAX_CAPTION_BYTES}")))
        }
        true => Err((RejectReason::NoCaption, "it has no text".to_owned())),
    }
}

fn to_jpeg(image: &RgbImage, quality: u8) -> Result<Bytes, String> {
    let mut encoded = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut encoded, quality);
    image.write_with_encoder(encoder).map_err(|error| format!("it cannot be encoded as JPEG: {error}"))?;
    Ok(encoded.into())
}

fn hex_sha256(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_are_made_readable_or_refused() {
        let kept = |captions: &[&str]| {
            usable_captions(captions.iter().map(|caption| (*caption).to_owned()).collect(), 2)
        };
        assert_eq!(kept(&["a\0b\u{7}", " \n", "c", "d"]).unwrap(), ["a b", "c"]);
        // Direction marks and combining ones belong to the text.
        let text = "\u{202e}abc שלום e\u{301}\u{302}";
        assert_eq!(kept(&[text]).unwrap(), [text]);
        assert_eq!(kept(&["\0\0", ""]).unwrap_err().0, RejectReason::NoCaption);
        assert_eq!(kept(&["\u{200b}\u{feff}", "\u{ad} \u{2060}"]).unwrap_err().0, RejectReason::NoCaption);
        let long = "w".repeat(1 << 20);
        assert_eq!(kept(&[&long]).unwrap_err().0, RejectReason::CaptionTooLong);
        assert_eq!(kept(&[&long, "short"]).unwrap(), ["short"]);
    }
}
