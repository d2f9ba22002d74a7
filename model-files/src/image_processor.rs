//! How a model's images are prepared: `preprocessor_config.json`, or the part of `processor_config.json` that
//! newer `transformers` write.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::config::SIDE;
use crate::error::ModelError;
use crate::read::read_json;

/// Mean and standard deviation of the pixels that CLIP's, EVA's and BLIP's encoders were trained with.
const CLIP_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
const CLIP_DEVIATION: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];

/// What eight-bit levels are multiplied with.
const RESCALE: f64 = 1.0 / 255.0;

/// The files, and the section of the image's part in the second.
const OWN: &str = "preprocessor_config.json";
const WHOLE: &str = "processor_config.json";
const SECTION: &str = "image_processor";

/// How pixels between those of an image are computed; antialiased, as Pillow does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resampling {
    /// The nearest pixel.
    Nearest,
    /// Lanczos' window of three.
    Lanczos,
    /// A triangle.
    Bilinear,
    /// Cubic, a = -0.5.
    Bicubic,
    /// The mean of a box.
    Box,
    /// Hamming's window.
    Hamming,
}

/// Pillow's numbers of them.
const RESAMPLINGS: [Resampling; 6] = [
    Resampling::Nearest,
    Resampling::Lanczos,
    Resampling::Bilinear,
    Resampling::Bicubic,
    Resampling::Box,
    Resampling::Hamming,
];

/// How an image becomes one of the model's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fitting {
    /// Both sides are resized, whatever their proportions: BLIP-2's.
    Squeeze {
        /// Side of the result, pixels.
        side: usize,
    },
    /// The shorter side is resized, and the central square is cut out: CLIP's.
    CentralSquare {
        /// Length of the shorter side after resizing, pixels.
        shorter: usize,
        /// Side of the result, pixels; not more than `shorter`.
        side: usize,
    },
}

impl Fitting {
    /// Side of the result, pixels.
    pub fn side(self) -> usize {
        match self {
            Self::Squeeze { side } | Self::CentralSquare { side, .. } => side,
        }
    }

    /// The same for a model of other images.
    fn resized(self, side: usize) -> Self {
        match self {
            Self::Squeeze { .. } => Self::Squeeze { side },
            Self::CentralSquare { .. } => Self::CentralSquare { shorter: side, side },
        }
    }
}

/// How images are prepared for a model: resized, and each channel as `(level / 255 - mean) / deviation`.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageProcessor {
    /// Means of the channels.
    pub mean: [f64; 3],
    /// Standard deviations of the channels.
    pub deviation: [f64; 3],
    /// How images get the model's size.
    pub fitting: Fitting,
    /// How pixels are computed.
    pub resampling: Resampling,
}

impl ImageProcessor {
    /// BLIP-2's, for images of `side` pixels.
    pub fn blip2(side: usize) -> Self {
        Self {
            mean: CLIP_MEAN,
            deviation: CLIP_DEVIATION,
            fitting: Fitting::Squeeze { side },
            resampling: Resampling::Bicubic,
        }
    }

    /// CLIP's, for images of `side` pixels.
    pub fn clip(side: usize) -> Self {
        Self { fitting: Fitting::CentralSquare { shorter: side, side }, ..Self::blip2(side) }
    }

    /// What a folder says; `otherwise` stands for what it does not say, and for a folder or file that says
    /// nothing.
    ///
    /// # Errors
    /// A setting that is not supported, or images of another size than those of `otherwise`, which are the
    /// model's: the file and the field are named.
    pub fn read(path: &Path, otherwise: Self) -> Result<Self, ModelError> {
        let Some((file, section)) = find(path)? else { return Ok(otherwise) };
        let error = |reason: String| ModelError::Config { path: file.clone(), reason };
        let read = parse(&section, &otherwise).map_err(error)?;
        let (side, needed) = (read.fitting.side(), otherwise.fitting.side());
        if side != needed {
            return Err(error(format!(
                "size: pictures of {side} pixels, and the model's config.json has image_size = {needed}"
            )));
        }
        Ok(read)
    }

    /// As [`ImageProcessor::read`], for a model whose images are resized to those of `otherwise` whatever the
    /// folder says.
    ///
    /// # Errors
    /// A setting that is not supported.
    pub fn read_resized(path: &Path, otherwise: Self) -> Result<Self, ModelError> {
        let Some((file, section)) = find(path)? else { return Ok(otherwise) };
        let error = |reason: String| ModelError::Config { path: file.clone(), reason };
        let read = parse(&section, &otherwise).map_err(error)?;
        Ok(Self { fitting: read.fitting.resized(otherwise.fitting.side()), ..read })
    }

    /// The same, for images of `side` pixels.
    pub fn resized(self, side: usize) -> Self {
        Self { fitting: self.fitting.resized(side), ..self }
    }

    /// The content of a `preprocessor_config.json` of BLIP-2.
    pub fn to_json(&self) -> Value {
        let resample = RESAMPLINGS.iter().position(|resampling| *resampling == self.resampling);
        let side = self.fitting.side();
        json!({
            "image_processor_type": "BlipImageProcessor",
            "processor_class": "Blip2Processor",
            "do_convert_rgb": true,
            "do_resize": true,
            "size": {"height": side, "width": side},
            "resample": resample,
            "do_rescale": true,
            "rescale_factor": RESCALE,
            "do_normalize": true,
            "image_mean": self.mean,
            "image_std": self.deviation,
        })
    }
}

/// The file that says how images are prepared, and what it says. Of two the newer kind counts, as in
/// `transformers`.
fn find(path: &Path) -> Result<Option<(PathBuf, Value)>, ModelError> {
    let whole = path.join(WHOLE);
    if whole.is_file()
        && let section @ Value::Object(_) = read_json(&whole)?[SECTION].take()
    {
        return Ok(Some((whole, section)));
    }
    let own = path.join(OWN);
    if !own.is_file() {
        return Ok(None);
    }
    match read_json(&own)? {
        section @ Value::Object(_) => Ok(Some((own, section))),
        other => Err(ModelError::Config { path: own, reason: format!("not a table of settings: {other}") }),
    }
}

fn parse(section: &Value, otherwise: &ImageProcessor) -> Result<ImageProcessor, String> {
    if !switch(section, "do_resize", true)? {
        return Err("do_resize = false is not supported: pictures are resized to the model's".into());
    }
    let (mean, deviation) = statistics(section)?;
    Ok(ImageProcessor {
        mean,
        deviation,
        fitting: fitting(section, otherwise.fitting)?,
        resampling: resampling(section)?.unwrap_or(otherwise.resampling),
    })
}

/// Mean and deviation of levels divided by 255.
fn statistics(section: &Value) -> Result<([f64; 3], [f64; 3]), String> {
    let (mean, deviation) = match switch(section, "do_normalize", true)? {
        true => (
            channels(section, "image_mean")?.unwrap_or(CLIP_MEAN),
            channels(section, "image_std")?.unwrap_or(CLIP_DEVIATION),
        ),
        false => ([0.0; 3], [1.0; 3]),
    };
    if deviation.iter().any(|deviation| *deviation <= 0.0) {
        return Err(format!("image_std = {}: it must be above 0", section["image_std"]));
    }
    let factor = match (switch(section, "do_rescale", true)?, &section["rescale_factor"]) {
        (false, _) => 1.0,
        (true, Value::Null) => RESCALE,
        (true, value) => match value.as_f64().filter(|factor| factor.is_finite() && *factor > 0.0) {
            Some(factor) => factor,
            None => return Err(format!("rescale_factor = {value}: it must be a number above 0")),
        },
    };
    if (factor - RESCALE).abs() < 1e-9 {
        return Ok((mean, deviation));
    }
    // (level · factor - mean) / deviation, in levels divided by 255.
    let scale = RESCALE / factor;
    Ok((mean.map(|mean| mean * scale), deviation.map(|deviation| deviation * scale)))
}

/// Three numbers, or one for all channels.
fn channels(section: &Value, key: &str) -> Result<Option<[f64; 3]>, String> {
    let value = &section[key];
    let number = |value: &Value| value.as_f64().filter(|number| number.is_finite());
    let read = match value {
        Value::Null => return Ok(None),
        Value::Array(values) => {
            let numbers: Option<Vec<f64>> = values.iter().map(number).collect();
            numbers.and_then(|numbers| <[f64; 3]>::try_from(numbers).ok())
        }
        one => number(one).map(|number| [number; 3]),
    };
    read.map(Some).ok_or_else(|| format!("{key} = {value}: three numbers are needed, one for each channel"))
}

fn fitting(section: &Value, otherwise: Fitting) -> Result<Fitting, String> {
    let named =
        section["image_processor_type"].as_str().or_else(|| section["feature_extractor_type"].as_str());
    // CLIP's cuts a square out where it does not say otherwise; BLIP's does not.
    let of_clip = match named {
        Some(name) => name.starts_with("CLIP"),
        None => matches!(otherwise, Fitting::CentralSquare { .. }),
    };
    let size = match &section["size"] {
        Value::Null => None,
        value => Some(edges(value, "size")?),
    };
    let cuts = switch(section, "do_center_crop", of_clip)?;
    let crop = match &section["crop_size"] {
        value if cuts && !value.is_null() => Some(edges(value, "crop_size")?),
        _ => None,
    };
    let square = |edges: Edges, key: &str| match edges {
        Edges::Sides(height, width) if height == width => Ok(height),
        Edges::Shorter(side) | Edges::One(side) => Ok(side),
        Edges::Sides(..) => Err(format!("{key} = {}: pictures must be square", section[key])),
    };
    let side = crop.map(|crop| square(crop, "crop_size")).transpose()?;
    match (size, cuts) {
        (None, true) => {
            let side = side.unwrap_or(otherwise.side());
            Ok(Fitting::CentralSquare { shorter: side, side })
        }
        (None, false) => Ok(otherwise),
        (Some(Edges::Shorter(shorter)), true) => central(shorter, side.unwrap_or(shorter)),
        (Some(Edges::One(shorter)), true) => central(shorter, side.unwrap_or(shorter)),
        (Some(Edges::Shorter(_)), false) => Err(format!(
            "size = {} without do_center_crop is not supported: pictures would not be square",
            section["size"]
        )),
        (Some(size), cuts) => {
            let squeezed = square(size, "size")?;
            match side.filter(|side| cuts && *side != squeezed) {
                Some(side) => {
                    Err(format!("crop_size = {side} of pictures squeezed to {squeezed} is not supported"))
                }
                None => Ok(Fitting::Squeeze { side: squeezed }),
            }
        }
    }
}

fn central(shorter: usize, side: usize) -> Result<Fitting, String> {
    match side <= shorter {
        true => Ok(Fitting::CentralSquare { shorter, side }),
        false => Err(format!("crop_size = {side} is more than size = {shorter}")),
    }
}

/// What `size` and `crop_size` say.
#[derive(Debug, Clone, Copy)]
enum Edges {
    /// `{"shortest_edge": …}`.
    Shorter(usize),
    /// `{"height": …, "width": …}`.
    Sides(usize, usize),
    /// A number, as before there were names.
    One(usize),
}

fn edges(value: &Value, key: &str) -> Result<Edges, String> {
    let side = |value: &Value| {
        let side = value.as_u64().filter(|side| (1..=SIDE).contains(side));
        side.map(|side| side as usize)
            .ok_or_else(|| format!("{key} = {value}: sides are whole numbers from 1 to {SIDE}"))
    };
    if value.is_number() {
        return Ok(Edges::One(side(value)?));
    }
    if let Some(shorter) = value.get("shortest_edge").filter(|edge| !edge.is_null()) {
        return Ok(Edges::Shorter(side(shorter)?));
    }
    match (value.get("height"), value.get("width")) {
        (Some(height), Some(width)) => Ok(Edges::Sides(side(height)?, side(width)?)),
        _ => Err(format!("{key} = {value} is not supported: height and width, or shortest_edge")),
    }
}

fn resampling(section: &Value) -> Result<Option<Resampling>, String> {
    let value = &section["resample"];
    if value.is_null() {
        return Ok(None);
    }
    let found = value.as_u64().and_then(|number| RESAMPLINGS.get(usize::try_from(number).ok()?));
    found.copied().map(Some).ok_or_else(|| format!("resample = {value}: Pillow has 0 to 5"))
}

fn switch(section: &Value, key: &str, otherwise: bool) -> Result<bool, String> {
    match &section[key] {
        Value::Null => Ok(otherwise),
        Value::Bool(value) => Ok(*value),
        value => Err(format!("{key} = {value}: it must be true or false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_as(name: &str, settings: &Value, otherwise: ImageProcessor) -> Result<ImageProcessor, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), settings.to_string()).unwrap();
        ImageProcessor::read(folder.path(), otherwise).map_err(|error| error.to_string())
    }

    fn read(settings: Value, otherwise: ImageProcessor) -> Result<ImageProcessor, String> {
        read_as(OWN, &settings, otherwise)
    }

    #[test]
    fn published_settings_are_the_defaults() {
        let blip = json!({"do_resize": true, "do_normalize": true, "image_processor_type": "BlipImageProcessor",
            "image_mean": CLIP_MEAN, "image_std": CLIP_DEVIATION, "resample": 3, "rescale_factor": 0.00392156862745098,
            "size": {"height": 224, "width": 224}});
        assert_eq!(read(blip.clone(), ImageProcessor::blip2(224)), Ok(ImageProcessor::blip2(224)));
        let old_clip = json!({"crop_size": 224, "do_center_crop": true, "feature_extractor_type": "CLIPFeatureExtractor",
            "image_mean": CLIP_MEAN, "image_std": CLIP_DEVIATION, "resample": 3, "size": 224});
        assert_eq!(read(old_clip, ImageProcessor::clip(224)), Ok(ImageProcessor::clip(224)));
        let clip = json!({"crop_size": {"height": 224, "width": 224}, "do_center_crop": true, "do_rescale": true,
            "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 224}});
        assert_eq!(read(clip, ImageProcessor::blip2(224)), Ok(ImageProcessor::clip(224)));
        let nothing = tempfile::tempdir().unwrap();
        let of_nothing = ImageProcessor::read(nothing.path(), ImageProcessor::clip(64)).unwrap();
        assert_eq!(of_nothing, ImageProcessor::clip(64));
        // Newer folders have one file for all of a processor.
        let nested =
            json!({"processor_class": "Blip2Processor", "num_query_tokens": 32, "image_processor": blip});
        assert_eq!(read_as(WHOLE, &nested, ImageProcessor::blip2(224)), Ok(ImageProcessor::blip2(224)));
        let without = json!({"processor_class": "Blip2Processor", "num_query_tokens": 32});
        assert_eq!(read_as(WHOLE, &without, ImageProcessor::blip2(8)), Ok(ImageProcessor::blip2(8)));
    }

    #[test]
    fn other_settings_are_used() {
        let changed = json!({"image_mean": [0.5, 0.4, 0.3], "image_std": 0.5, "resample": 2});
        let changed = read(changed, ImageProcessor::blip2(64)).unwrap();
        assert_eq!((changed.mean, changed.deviation), ([0.5, 0.4, 0.3], [0.5; 3]));
        assert_eq!((changed.resampling, changed.fitting.side()), (Resampling::Bilinear, 64));
        let plain = read(json!({"do_normalize": false}), ImageProcessor::blip2(64)).unwrap();
        assert_eq!((plain.mean, plain.deviation), ([0.0; 3], [1.0; 3]));
        let scaled = json!({"rescale_factor": 2.0 / 255.0, "image_mean": [1.0, 1.0, 1.0], "image_std": [1.0, 1.0, 1.0]});
        let scaled = read(scaled, ImageProcessor::blip2(64)).unwrap();
        assert!((scaled.mean[0] - 0.5).abs() < 1e-12 && (scaled.deviation[2] - 0.5).abs() < 1e-12);
        let margin = json!({"size": {"shortest_edge": 72}, "crop_size": 64, "do_center_crop": true});
        let margin = read(margin, ImageProcessor::clip(64)).unwrap();
        assert_eq!(margin.fitting, Fitting::CentralSquare { shorter: 72, side: 64 });
        let squeezed =
            json!({"size": {"height": 64, "width": 64}, "image_processor_type": "BlipImageProcessor"});
        assert_eq!(read(squeezed, ImageProcessor::clip(64)).unwrap().fitting, Fitting::Squeeze { side: 64 });
    }

    #[test]
    fn what_cannot_be_done_is_named() {
        for (settings, key) in [
            (json!({"size": {"height": 32, "width": 32}}), "image_size = 64"),
            (json!({"size": {"height": 64, "width": 32}}), "size"),
            (json!({"size": {"longest_edge": 64}}), "size"),
            (json!({"size": 1_000_000_000_000_u64}), "size"),
            (json!({"size": {"shortest_edge": "64"}}), "size"),
            (json!({"size": {"shortest_edge": 64}, "do_center_crop": false}), "do_center_crop"),
            (json!({"size": {"shortest_edge": 32}, "crop_size": 64, "do_center_crop": true}), "crop_size"),
            (json!({"image_mean": [0.5, 0.5]}), "image_mean"),
            (json!({"image_mean": ["0.5", 0.5, 0.5]}), "image_mean"),
            (json!({"image_std": [0.5, 0.0, 0.5]}), "image_std"),
            (json!({"image_std": -1}), "image_std"),
            (json!({"resample": 9}), "resample"),
            (json!({"resample": "bicubic"}), "resample"),
            (json!({"rescale_factor": 0}), "rescale_factor"),
            (json!({"do_resize": false}), "do_resize"),
            (json!({"do_normalize": "yes"}), "do_normalize"),
        ] {
            let error = read(settings.clone(), ImageProcessor::blip2(64)).unwrap_err();
            assert!(error.contains(key) && error.contains(OWN), "{settings}: {error}");
        }
        assert!(read(json!([1]), ImageProcessor::blip2(64)).unwrap_err().contains("table"));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut processor = ImageProcessor::blip2(64);
        (processor.mean, processor.resampling) = ([0.5, 0.25, 0.125], Resampling::Lanczos);
        assert_eq!(read(processor.to_json(), ImageProcessor::blip2(64)), Ok(processor));
    }
}
