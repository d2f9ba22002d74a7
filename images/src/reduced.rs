//! Images for training: JPEG decoded into memory that is used again, and smaller where the crop allows.
//!
//! A JPEG's blocks can be turned into 4×4, 2×2 or 1×1 pixels in place of 8×8, which costs a fraction and is
//! the block's average: an image of several thousand pixels is read at the size the crop needs. Colours that
//! are stored at half the size are not reduced below that size, so the image is reduced by so much less.
//! Which size is decided by the crop and the header alone, so that every machine decodes the same pixels.
//! Everything else (other formats, CMYK) takes the one path that [`decode_image`] has.

use jpeg_decoder::ColorTransform;
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;

use super::decode::decode_image;
use super::guard::{check_pixels, guarded};
use super::jpeg::{JpegColours, JpegFrame, jpeg_is_complete};
use crate::error::Result;

/// Memory for the pixels of an image, used again for the next.
#[derive(Debug, Default)]
pub(crate) struct DecodeScratch {
    pixels: Vec<u8>,
}

/// An image of interleaved RGB, at one `divisor`-th of its size (rounded up).
pub(crate) struct Decoded<'a> {
    pub(crate) pixels: &'a [u8],
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) divisor: u32,
}

/// A JPEG whose header is read.
struct Header<'a> {
    width: u32,
    height: u32,
    frame: JpegFrame,
    /// Has read it too.
    decoder: zune_jpeg::JpegDecoder<ZCursor<&'a [u8]>>,
}

/// Decodes an image; `choose` hears its width and height and says by how much it may be reduced: 1, 2, 4 or
/// 8. A format that knows no reduction is decoded whole, and colours that are stored smaller are reduced by
/// less.
///
/// # Errors
/// Those of [`decode_image`].
pub(crate) fn decode_reduced<'a>(
    encoded: &[u8],
    max_pixels: u64,
    choose: impl FnOnce(u32, u32) -> u32,
    scratch: &'a mut DecodeScratch,
) -> Result<Decoded<'a>> {
    let header = guarded(|| header(encoded, max_pixels))?;
    let Some(mut header) = header else {
        let image = decode_image(encoded, max_pixels)?;
        let (width, height) = image.dimensions();
        let _ = choose(width, height);
        scratch.pixels = image.into_raw();
        return Ok(Decoded { pixels: &scratch.pixels, width, height, divisor: 1 });
    };
    let (width, height) = (header.width, header.height);
    let divisor = header.frame.reduction(choose(width, height));
    if divisor > 1
        && let Ok((pixels, [width, height])) = guarded(|| reduced(encoded, &header, divisor))
    {
        scratch.pixels = pixels;
        return Ok(Decoded { pixels: &scratch.pixels, width, height, divisor });
    }
    guarded(|| whole(&mut header, &mut scratch.pixels))?;
    Ok(Decoded { pixels: &scratch.pixels, width, height, divisor: 1 })
}

/// The same options as `image` decodes JPEG with.
fn options() -> DecoderOptions {
    DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX)
        .jpeg_set_out_colorspace(ColorSpace::RGB)
}

/// The header of a JPEG that the paths of this module decode; `None` for everything else.
fn header(encoded: &[u8], max_pixels: u64) -> Result<Option<Header<'_>>, String> {
    if !encoded.starts_with(&[0xff, 0xd8, 0xff]) {
        return Ok(None);
    }
    if !jpeg_is_complete(encoded) {
        return Err("it is truncated".to_owned());
    }
    let frame = JpegFrame::of(encoded);
    if frame.as_ref().is_some_and(|frame| !frame.is_ordinary()) {
        return Ok(None);
    }
    let mut decoder = zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(encoded), options());
    decoder.decode_headers().map_err(|error| error.to_string())?;
    let sides = decoder.dimensions().ok_or("it has no size")?;
    // A JPEG's sides have 16 bits.
    let (width, height) = (sides.0 as u32, sides.1 as u32);
    check_pixels(width, height, max_pixels)?;
    let frame = frame.filter(|frame| frame.colours() == Some(JpegColours::YCbCr) && frame.is_ordinary());
    Ok(frame.map(|frame| Header { width, height, frame, decoder }))
}

/// The whole image into `pixels`.
fn whole(header: &mut Header<'_>, pixels: &mut Vec<u8>) -> Result<(), String> {
    let decoder = &mut header.decoder;
    let bytes = 3 * header.width as usize * header.height as usize;
    if decoder.output_buffer_size() != Some(bytes) {
        return Err("its header is contradictory".to_owned());
    }
    pixels.clear();
    pixels.resize(bytes, 0);
    decoder.decode_into(pixels).map_err(|error| error.to_string())
}

/// The image at one `divisor`-th of its size, and that size.
fn reduced(encoded: &[u8], header: &Header<'_>, divisor: u32) -> Result<(Vec<u8>, [u32; 2]), String> {
    let side = |side: u32| side.div_ceil(divisor);
    let (width, height) = (side(header.width), side(header.height));
    let mut decoder = jpeg_decoder::Decoder::new(encoded);
    decoder.set_color_transform(ColorTransform::YCbCr);
    // Sides have 16 bits.
    let scaled = decoder.scale(width as u16, height as u16).map_err(|error| error.to_string())?;
    if scaled != (width as u16, height as u16) {
        return Err("it cannot be reduced".to_owned());
    }
    let pixels = decoder.decode().map_err(|error| error.to_string())?;
    match pixels.len() == 3 * width as usize * height as usize {
        true => Ok((pixels, [width, height])),
        false => Err("it is not RGB".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::codecs::jpeg::JpegEncoder;
    use image::{ImageFormat, Rgb, RgbImage};

    use super::*;

    fn photo(width: u32, height: u32) -> RgbImage {
        let wave = |x: f64| (127.0 + 120.0 * libm::sin(x)) as u8;
        RgbImage::from_fn(width, height, |x, y| {
            let (x, y) = (f64::from(x), f64::from(y));
            Rgb([wave(x / 17.0), wave(y / 23.0), wave((x + y) / 31.0)])
        })
    }

    fn jpeg(image: &RgbImage, quality: u8) -> Vec<u8> {
        let mut encoded = Vec::new();
        JpegEncoder::new_with_quality(&mut encoded, quality).encode_image(image).unwrap();
        encoded
    }

    #[test]
    fn whole_images_are_those_of_the_general_decoder() {
        let mut scratch = DecodeScratch::default();
        for (width, height) in [(500, 375), (17, 9), (64, 64), (1, 1), (33, 250)] {
            let encoded = jpeg(&photo(width, height), 85);
            let decoded = decode_reduced(&encoded, 1 << 20, |_, _| 1, &mut scratch).unwrap();
            assert_eq!((decoded.width, decoded.height, decoded.divisor), (width, height, 1));
            assert_eq!(decoded.pixels, decode_image(&encoded, 1 << 20).unwrap().as_raw().as_slice());
        }
    }

    /// An image must not depend on which instructions a processor has.
    #[test]
    fn vector_instructions_change_no_bit() {
        for (width, height) in [(500, 375), (37, 61)] {
            let encoded = jpeg(&photo(width, height), 90);
            let decode = |options: DecoderOptions| {
                zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(&encoded), options).decode().unwrap()
            };
            assert!(decode(options()) == decode(options().set_use_unsafe(false)));
        }
    }

    #[test]
    fn reduced_images_are_averages() {
        let image = photo(403, 302);
        let encoded = jpeg(&image, 95);
        let mut scratch = DecodeScratch::default();
        for divisor in [2u32, 4, 8] {
            let decoded = decode_reduced(&encoded, 1 << 20, |_, _| divisor, &mut scratch).unwrap();
            let (width, height) = (403u32.div_ceil(divisor), 302u32.div_ceil(divisor));
            assert_eq!((decoded.width, decoded.height, decoded.divisor), (width, height, divisor));
            let mut difference = 0u64;
            for (y, x) in (0..height - 1).flat_map(|y| (0..width - 1).map(move |x| (y, x))) {
                for channel in 0..3 {
                    let block = (0..divisor * divisor).map(|i| {
                        let pixel = image.get_pixel(x * divisor + i % divisor, y * divisor + i / divisor);
                        u32::from(pixel.0[channel])
                    });
                    let mean = block.sum::<u32>() / (divisor * divisor);
                    let found = decoded.pixels[((y * width + x) * 3) as usize + channel];
                    difference += u64::from(mean.abs_diff(u32::from(found)));
                }
            }
            let mean = difference as f64 / f64::from(3 * (width - 1) * (height - 1));
            assert!(mean < 2.0, "1/{divisor}: off by {mean} on average");
        }
    }

    /// Colours that are stored smaller are not reduced below the size that is asked for. Were they reduced
    /// like the brightness, they would be off by 5 where a half is stored and an eighth asked for.
    #[test]
    fn subsampled_colours_are_reduced_by_what_is_left() {
        use jpeg_encoder::SamplingFactor::{F_1_1, F_1_2, F_2_1, F_2_2, F_4_1};
        let (width, height) = (256, 192);
        let image = RgbImage::from_fn(width, height, |x, y| {
            let wave = |of: u32, period: f64| (127.0 + 120.0 * libm::sin(f64::from(of) / period)) as u8;
            Rgb([wave(x, 17.0), wave(y, 23.0), wave(x + y, 31.0)])
        });
        let mut scratch = DecodeScratch::default();
        for sampling in [F_1_1, F_2_1, F_1_2, F_2_2, F_4_1] {
            let mut encoded = Vec::new();
            let mut encoder = jpeg_encoder::Encoder::new(&mut encoded, 92);
            encoder.set_sampling_factor(sampling);
            encoder
                .encode(image.as_raw(), width as u16, height as u16, jpeg_encoder::ColorType::Rgb)
                .unwrap();
            let whole = decode_image(&encoded, 1 << 20).unwrap();
            for divisor in [2u32, 4, 8] {
                let decoded = decode_reduced(&encoded, 1 << 20, |_, _| divisor, &mut scratch).unwrap();
                let reduced =
                    RgbImage::from_raw(decoded.width, decoded.height, decoded.pixels.to_vec()).unwrap();
                let expected = averages(&whole, divisor);
                let found = averages(&reduced, divisor / decoded.divisor);
                assert_eq!(found.len(), expected.len());
                let off: f64 = expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).sum();
                let off = off / expected.len() as f64;
                assert!(off < 1.6, "{sampling:?} at 1/{divisor}: off by {off:.2} on average");
            }
        }
    }

    /// Means of squares of pixels, for each channel.
    fn averages(image: &RgbImage, side: u32) -> Vec<f64> {
        let (width, height) = (image.width() / side, image.height() / side);
        let squares = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        squares
            .flat_map(|(x, y)| {
                (0..3).map(move |channel| {
                    let pixels =
                        (0..side * side).map(|i| image.get_pixel(x * side + i % side, y * side + i / side));
                    pixels.map(|pixel| f64::from(pixel.0[channel])).sum::<f64>() / f64::from(side * side)
                })
            })
            .collect()
    }

    #[test]
    fn other_images_take_the_general_path_and_bad_ones_are_refused() {
        let mut scratch = DecodeScratch::default();
        let mut png = Cursor::new(Vec::new());
        photo(20, 10).write_to(&mut png, ImageFormat::Png).unwrap();
        let decoded = decode_reduced(png.get_ref(), 1 << 20, |_, _| 2, &mut scratch).unwrap();
        assert_eq!((decoded.width, decoded.height, decoded.divisor), (20, 10, 1));
        assert_eq!(decoded.pixels, photo(20, 10).as_raw().as_slice());
        let grey = image::GrayImage::from_pixel(9, 9, image::Luma([50]));
        let mut encoded = Cursor::new(Vec::new());
        grey.write_to(&mut encoded, ImageFormat::Jpeg).unwrap();
        let decoded = decode_reduced(encoded.get_ref(), 1 << 20, |_, _| 2, &mut scratch).unwrap();
        assert!(decoded.pixels.len() == 9 * 9 * 3 && decoded.pixels[0].abs_diff(50) <= 1);

        let encoded = jpeg(&photo(60, 40), 80);
        let mut refused = |bytes: &[u8], limit| match decode_reduced(bytes, limit, |_, _| 1, &mut scratch) {
            Ok(_) => panic!("it was decoded"),
            Err(error) => error.to_string(),
        };
        assert!(refused(&encoded, 100).contains("60x40 is more than 100 pixels"));
        assert!(refused(&encoded[..encoded.len() - 20], 1 << 20).contains("truncated"));
        assert!(refused(b"nonsense", 1 << 20).contains("not JPEG"));
    }

    #[test]
    fn damage_anywhere_is_an_image_or_an_error() {
        let encoded = jpeg(&photo(48, 40), 80);
        let mut scratch = DecodeScratch::default();
        for place in 0..encoded.len() {
            let mut damaged = encoded.clone();
            damaged[place] ^= 0x55;
            for divisor in [1, 4] {
                let _ = decode_reduced(&damaged, 1 << 20, |_, _| divisor, &mut scratch);
            }
        }
    }
}
