//! JPEG of other colours, or of a sampling that few writers use.

use std::borrow::Cow;

use image::RgbImage;
use jpeg_decoder::{ColorTransform, PixelFormat};

use super::frame::{JpegColours, JpegFrame};

/// A JPEG that the fast decoder takes for something else: of other colours, or of a sampling that it does not
/// know.
pub(crate) fn decode_unusual(encoded: &[u8], frame: &JpegFrame) -> Result<RgbImage, String> {
    let mut encoded = Cow::Borrowed(encoded);
    if let Some(name) = frame.undefined_transform() {
        // The decoder refuses it where libjpeg passes over it; under another name nobody reads the segment.
        encoded.to_mut()[name] = b'-';
    }
    let mut decoder = jpeg_decoder::Decoder::new(encoded.as_ref());
    decoder.set_color_transform(match frame.colours() {
        Some(JpegColours::Grey) => ColorTransform::Grayscale,
        Some(JpegColours::Rgb) => ColorTransform::RGB,
        _ => ColorTransform::YCbCr,
    });
    let pixels = decoder.decode().map_err(|error| error.to_string())?;
    let Some(info) = decoder.info() else { return Err("it has no header".to_owned()) };
    let pixels = match info.pixel_format {
        PixelFormat::RGB24 => pixels,
        PixelFormat::L8 => pixels.into_iter().flat_map(|grey| [grey; 3]).collect(),
        _ => return Err("it is not RGB".to_owned()),
    };
    RgbImage::from_raw(u32::from(info.width), u32::from(info.height), pixels)
        .ok_or_else(|| "its header is contradictory".to_owned())
}
