//! How images are prepared for the image encoder of a run.

use std::path::Path;

use blip2_model_files::image_processor::ImageProcessor;

use crate::error::Result;
use crate::open::of_encoder;
use crate::settings::model::ModelSettings;

/// How images of `side` pixels are prepared for the image encoder of `settings`: its folder's numbers, in the
/// squares that BLIP-2 makes of images for every encoder.
///
/// # Errors
/// A setting of the folder that is not supported, or another size than its configuration has.
pub(crate) fn image_processor(settings: &ModelSettings, side: usize) -> Result<ImageProcessor> {
    let own = ImageProcessor::blip2(side);
    let path = Path::new(&settings.image_encoder);
    let read = match settings.image_size {
        0 => ImageProcessor::read(path, own.clone()),
        _ => ImageProcessor::read_resized(path, own.clone()),
    };
    let read = read.map_err(|error| of_encoder(settings, error))?;
    Ok(ImageProcessor { fitting: own.fitting, ..read })
}

#[cfg(test)]
mod tests {
    use blip2_run::exit::ExitClass as _;

    use blip2_evaluation::image_transform::statistics;
    use blip2_model_files::image_processor::Fitting;

    use super::*;

    #[test]
    fn an_encoders_numbers_are_its_folders() {
        let folder = tempfile::tempdir().unwrap();
        let settings = |image_size| ModelSettings {
            image_encoder: folder.path().display().to_string(),
            image_size,
            ..ModelSettings::default()
        };
        let write = |text: &str| {
            std::fs::write(folder.path().join("preprocessor_config.json"), text).unwrap();
        };
        write(
            r#"{"image_mean": 0.5, "image_std": 0.25, "size": {"shortest_edge": 8}, "do_center_crop": true}"#,
        );
        let read = image_processor(&settings(0), 8).unwrap();
        assert_eq!(statistics(&read), ([0.5; 3], [0.25; 3]));
        assert_eq!(read.fitting, Fitting::Squeeze { side: 8 });
        assert_eq!(image_processor(&settings(16), 16).unwrap().fitting.side(), 16);
        let error = image_processor(&settings(0), 16).unwrap_err();
        assert!(
            error.to_string().contains("preprocessor_config.json") && error.exit().code() == 78,
            "{error}"
        );
    }
}
