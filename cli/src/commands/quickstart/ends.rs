//! What the stages of a quick start ended with, and what is made of it in any corpus.

use std::io::Cursor;

use blip2_evaluation::caption_loss;
use blip2_images::RgbImage;
use blip2_pages::quickstart_page::CaptionLosses;
use blip2_worker::NamedState;
use blip2_worker::config::stage::NumberedStage;
use image::ImageFormat;

use crate::again::same_command;
use crate::commands::checkpoint::{Target, read_state};
use crate::config::RunConfig;
use crate::error::CliError;

/// A stage that was trained, and its end.
pub(super) type StageEnd = (NumberedStage, NamedState);

/// The ends of all stages that have steps, in their order.
pub(super) async fn ends_of(config: &RunConfig) -> Result<Vec<StageEnd>, CliError> {
    let mut ends = Vec::new();
    for stage in config.trained_stages() {
        ends.push(end_of(config, &stage).await?);
    }
    Ok(ends)
}

async fn end_of(config: &RunConfig, stage: &NumberedStage) -> Result<StageEnd, CliError> {
    let target = Target::resolve(&config.run.root).await?;
    let what = format!("stage {} ({})", stage.number, stage.name());
    let wanted = |other: &NumberedStage| other.number == stage.number;
    let (record, stage) = target.record_of_stage(&config.worker(), &what, wanted).await?;
    Ok((stage, read_state(&target.root, &record).await?))
}

/// A signal came behind training.
pub(super) fn interrupted() -> CliError {
    CliError::Interrupted(format!(
        "stopped after training, which is saved; continue with {}",
        same_command(Some("--resume"))
    ))
}

/// Without a stage that writes captions there is no such loss; JSON shows it as null.
pub(super) const NO_LOSSES: CaptionLosses =
    CaptionLosses { with_images: f64::NAN, shuffled: f64::NAN, language_model: f64::NAN };

pub(super) fn caption_losses(losses: caption_loss::CaptionLosses) -> CaptionLosses {
    CaptionLosses {
        with_images: losses.with_images,
        shuffled: losses.shuffled,
        language_model: losses.language_model,
    }
}

/// So many of the items, evenly spaced: neighbours are alike.
pub(super) fn evenly<T>(items: &[T], count: usize) -> Vec<&T> {
    let count = count.min(items.len());
    (0..count).map(|index| &items[index * items.len() / count]).collect()
}

/// An image of a page.
pub(super) fn png(image: &RgbImage) -> Result<Vec<u8>, CliError> {
    let mut bytes = Cursor::new(Vec::new());
    image
        .write_to(&mut bytes, ImageFormat::Png)
        .map_err(|error| CliError::failed(format!("a picture of the report cannot be encoded: {error}")))?;
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_taken_evenly() {
        let items: Vec<usize> = (0..540).collect();
        let taken = evenly(&items, 40);
        assert_eq!((taken.len(), *taken[0], *taken[1], *taken[39]), (40, 0, 13, 526));
        assert_eq!(evenly(&items[..3], 40).len(), 3);
        assert!(evenly(&items[..0], 40).is_empty());
    }

    #[test]
    fn images_become_png() {
        let image = RgbImage::from_pixel(4, 4, image::Rgb([1, 2, 3]));
        assert_eq!(&png(&image).unwrap()[1..4], b"PNG");
    }
}
