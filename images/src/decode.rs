//! Encoded images to RGB, with limits that hold before anything is decoded.

mod gif;
mod unread;

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

use super::guard::{check_pixels, guarded};
use super::jpeg::{JpegFrame, decode_unusual, jpeg_is_complete};
use crate::error::Result;

/// Formats accepted, whatever the column is called.
const FORMATS: [ImageFormat; 6] = [
    ImageFormat::Jpeg,
    ImageFormat::Png,
    ImageFormat::WebP,
    ImageFormat::Gif,
    ImageFormat::Bmp,
    ImageFormat::Tiff,
];

/// Memory a decoder may take besides its pixels, bytes.
const DECODER_OVERHEAD: u64 = 64 << 20;

/// Decodes JPEG, PNG, WebP, GIF, BMP or TIFF to 8-bit RGB as PIL's `convert("RGB")` does: grey is repeated,
/// CMYK converted, alpha dropped, 16 bits reduced to 8; of an animation the first frame is taken. Colours of
/// a JPEG are those that libjpeg finds.
///
/// # Errors
/// [`ImageError`](crate::error::ImageError): a format that is not read, more than
/// `max_pixels` (found in the header, nothing is decoded), truncated or damaged data.
pub fn decode_image(encoded: &[u8], max_pixels: u64) -> Result<RgbImage> {
    guarded(|| decode(encoded, max_pixels))
}

/// Width and height from an image's header; no pixel is decoded.
///
/// # Errors
/// [`ImageError`](crate::error::ImageError): unknown format, damaged header.
pub fn image_dimensions(encoded: &[u8]) -> Result<(u32, u32)> {
    let read = || match known_format(encoded)? {
        ImageFormat::Gif => gif::dimensions(encoded),
        format => {
            let frame = if format == ImageFormat::Jpeg { readable_frame(encoded)? } else { None };
            if let Some(frame) = frame.filter(|frame| !frame.is_ordinary()) {
                let [height, width] = frame.sides.map(u32::from);
                return check_pixels(width, height, u64::MAX).map(|()| (width, height));
            }
            let reader = ImageReader::with_format(Cursor::new(encoded), format);
            reader.into_dimensions().map_err(|error| error.to_string())
        }
    };
    guarded(read)
}

fn known_format(encoded: &[u8]) -> Result<ImageFormat, String> {
    image::guess_format(encoded).ok().filter(|format| FORMATS.contains(format)).ok_or_else(|| {
        match unread::name_of(encoded) {
            Some(name) => format!("it is {name}, not JPEG, PNG, WebP, GIF, BMP or TIFF"),
            None => "it is not JPEG, PNG, WebP, GIF, BMP or TIFF".to_owned(),
        }
    })
}

/// A JPEG's header, if it has one that is read.
fn readable_frame(encoded: &[u8]) -> Result<Option<JpegFrame>, String> {
    let frame = JpegFrame::of(encoded);
    match frame.as_ref().and_then(JpegFrame::unreadable) {
        Some(reason) => Err(reason),
        None => Ok(frame),
    }
}

fn decode(encoded: &[u8], max_pixels: u64) -> Result<RgbImage, String> {
    let format = known_format(encoded)?;
    match format {
        ImageFormat::Gif => return gif::decode(encoded, max_pixels),
        ImageFormat::Jpeg => {
            if !jpeg_is_complete(encoded) {
                return Err("it is truncated".to_owned());
            }
            if let Some(frame) = readable_frame(encoded)?.filter(|frame| !frame.is_ordinary()) {
                let [height, width] = frame.sides.map(u32::from);
                check_pixels(width, height, max_pixels)?;
                return decode_unusual(encoded, &frame);
            }
        }
        _ => {}
    }
    let mut reader = ImageReader::with_format(Cursor::new(encoded), format);
    // A header's worth; the pixels' share follows when their number is known to be allowed.
    reader.limits(limits(DECODER_OVERHEAD));
    let mut decoder = reader.into_decoder().map_err(|error| error.to_string())?;
    let (width, height) = decoder.dimensions();
    check_pixels(width, height, max_pixels)?;
    let allowed = limits(decoder.total_bytes().saturating_add(DECODER_OVERHEAD));
    decoder.set_limits(allowed).map_err(|error| error.to_string())?;
    DynamicImage::from_decoder(decoder).map(DynamicImage::into_rgb8).map_err(|error| error.to_string())
}

fn limits(bytes: u64) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(bytes);
    limits
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use image::codecs::gif::GifEncoder;
    use image::codecs::jpeg::JpegEncoder;
    use image::{Delay, Frame, ImageBuffer, Luma, LumaA, Rgb, Rgba, RgbaImage};

    use super::*;

    const LIMIT: u64 = 1_000_000;

    fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        image.into().write_to(&mut out, format).unwrap();
        out.into_inner()
    }

    fn reason(encoded: &[u8]) -> String {
        decode_image(encoded, LIMIT).unwrap_err().to_string()
    }

    #[test]
    fn every_format_and_colour_type_becomes_rgb() {
        let rgb = RgbImage::from_pixel(5, 3, Rgb([200, 100, 50]));
        for format in
            [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP, ImageFormat::Gif]
        {
            let decoded = decode_image(&encode(rgb.clone(), format), LIMIT).unwrap();
            assert_eq!(decoded.dimensions(), (5, 3));
            assert_eq!(decoded.get_pixel(4, 2), &Rgb([200, 100, 50]), "{format:?}");
        }
        let jpeg = decode_image(&encode(rgb, ImageFormat::Jpeg), LIMIT).unwrap();
        assert!(jpeg.get_pixel(2, 1).0.iter().zip([200, 100, 50]).all(|(a, b)| a.abs_diff(b) <= 3));

        let grey = ImageBuffer::from_pixel(2, 2, Luma([77u8]));
        let grey_alpha = ImageBuffer::from_pixel(2, 2, LumaA([77u8, 0]));
        let deep_grey = ImageBuffer::from_pixel(2, 2, Luma([77u16 * 257]));
        let deep = ImageBuffer::from_pixel(2, 2, Rgba([77u16 * 257, 77 * 257, 77 * 257, 9]));
        for encoded in [
            encode(grey, ImageFormat::Png),
            encode(grey_alpha, ImageFormat::Png),
            encode(deep_grey, ImageFormat::Png),
            encode(deep, ImageFormat::Png),
        ] {
            assert_eq!(decode_image(&encoded, LIMIT).unwrap().get_pixel(1, 1), &Rgb([77, 77, 77]));
        }
    }

    #[test]
    fn alpha_is_dropped_not_blended() {
        let clear = RgbaImage::from_pixel(2, 2, Rgba([10, 20, 30, 0]));
        assert_eq!(
            decode_image(&encode(clear, ImageFormat::Png), LIMIT).unwrap().get_pixel(0, 0),
            &Rgb([10, 20, 30])
        );
    }

    #[test]
    fn the_first_frame_of_an_animation_is_taken() {
        let mut encoded = Vec::new();
        let mut encoder = GifEncoder::new(&mut encoded);
        for colour in [[255, 0, 0, 255], [0, 0, 255, 255]] {
            let delay = Delay::from_saturating_duration(Duration::from_millis(50));
            encoder
                .encode_frame(Frame::from_parts(RgbaImage::from_pixel(4, 4, Rgba(colour)), 0, 0, delay))
                .unwrap();
        }
        drop(encoder);
        assert_eq!(decode_image(&encoded, LIMIT).unwrap().get_pixel(1, 1), &Rgb([255, 0, 0]));
    }

    #[test]
    fn one_pixel_is_an_image() {
        let encoded = encode(RgbImage::from_pixel(1, 1, Rgb([9, 9, 9])), ImageFormat::Jpeg);
        assert_eq!(decode_image(&encoded, LIMIT).unwrap().dimensions(), (1, 1));
    }

    #[test]
    fn huge_images_are_refused_from_their_header() {
        let mut png = encode(RgbImage::new(1, 1), ImageFormat::Png);
        png[16..20].copy_from_slice(&20_000u32.to_be_bytes());
        png[20..24].copy_from_slice(&20_000u32.to_be_bytes());
        let checksum = crc32(&png[12..29]);
        png[29..33].copy_from_slice(&checksum.to_be_bytes());
        let error = decode_image(&png, 200_000_000).unwrap_err().to_string();
        assert!(error.contains("20000x20000"), "{error}");

        let mut jpeg = encode(RgbImage::new(8, 8), ImageFormat::Jpeg);
        let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        jpeg[frame + 5..frame + 9].copy_from_slice(&[0x4e, 0x20, 0x4e, 0x20]);
        assert!(decode_image(&jpeg, 200_000_000).unwrap_err().to_string().contains("20000x20000"));
    }

    #[test]
    fn images_larger_than_the_overhead_are_decoded() {
        let side = 5000;
        let grey = ImageBuffer::from_pixel(side, side, Rgb([7u8; 3]));
        assert!(3 * u64::from(side) * u64::from(side) > DECODER_OVERHEAD);
        for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff] {
            let encoded = encode(grey.clone(), format);
            let decoded = decode_image(&encoded, 200_000_000).unwrap();
            assert_eq!(decoded.dimensions(), (side, side), "{format:?}");
        }
    }

    #[test]
    fn truncation_is_found_at_every_length() {
        let noise =
            RgbImage::from_fn(40, 40, |x, y| Rgb([(x * 37 + y * 91) as u8, (x * y) as u8, (x ^ y) as u8]));
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, 90).encode_image(&noise).unwrap();
        assert!(decode_image(&jpeg, LIMIT).is_ok());
        for length in (2..jpeg.len()).step_by(7) {
            assert!(decode_image(&jpeg[..length], LIMIT).is_err(), "{length} of {}", jpeg.len());
        }
        jpeg.extend([0; 20]);
        assert!(decode_image(&jpeg, LIMIT).is_ok(), "bytes after the end are harmless");
        for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp] {
            let encoded = encode(noise.clone(), format);
            assert!(decode_image(&encoded[..encoded.len() / 2], LIMIT).is_err(), "{format:?}");
        }
    }

    #[test]
    fn other_bytes_are_refused() {
        assert!(reason(b"").contains("not JPEG"));
        assert!(reason(b"<svg/>").contains("not JPEG"));
        assert!(reason(&[0xff, 0xd8, 0xff, 0xe0]).contains("truncated"));
    }

    #[test]
    fn cmyk_jpeg_becomes_rgb() {
        // Inverted CMYK as Adobe writes it: 255 is no ink.
        for (cmyk, expected) in [
            ([255, 255, 255, 255], [255, 255, 255]),
            ([0, 255, 255, 255], [0, 255, 255]),
            ([255, 255, 255, 0], [0, 0, 0]),
        ] {
            let decoded = decode_image(&cmyk_jpeg(cmyk), LIMIT).unwrap();
            let pixel = decoded.get_pixel(3, 3).0;
            assert!(
                pixel.iter().zip(expected).all(|(a, b): (&u8, u8)| a.abs_diff(b) <= 3),
                "{cmyk:?}: {pixel:?}"
            );
        }
    }

    /// A baseline 8x8 JPEG of one colour in four components, with Adobe's marker.
    fn cmyk_jpeg(colour: [u8; 4]) -> Vec<u8> {
        let segment = |kind: u8, body: &[u8]| {
            [&[0xff, kind], &(body.len() as u16 + 2).to_be_bytes()[..], body].concat()
        };
        let quantisation = [&[0u8][..], &[8; 64]].concat();
        let components: Vec<u8> = (1..=4).flat_map(|id| [id, 0x11, 0]).collect();
        let frame = [&[8u8, 0, 8, 0, 8, 4][..], &components].concat();
        // Twelve DC categories of four bits; the only AC symbol, end of block, of one bit.
        let dc =
            [&[0x00u8, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &(0..12).collect::<Vec<u8>>()]
                .concat();
        let ac = [0x10u8, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let selectors: Vec<u8> = (1..=4).flat_map(|id| [id, 0x00]).collect();
        let scan = [&[4u8][..], &selectors, &[0, 63, 0]].concat();
        let mut bits = String::new();
        for value in colour {
            let level = i32::from(value) - 128;
            let size = (32 - level.unsigned_abs().leading_zeros()) as usize;
            let code = if level < 0 { level + (1 << size) - 1 } else { level };
            bits += &format!("{size:04b}");
            if size > 0 {
                bits += &format!("{code:0size$b}");
            }
            bits += "0";
        }
        while !bits.len().is_multiple_of(8) {
            bits += "1";
        }
        let byte = |chunk: &[u8]| u8::from_str_radix(std::str::from_utf8(chunk).unwrap(), 2).unwrap();
        let data: Vec<u8> = bits
            .as_bytes()
            .chunks(8)
            .map(byte)
            .flat_map(|byte| if byte == 0xff { vec![0xff, 0] } else { vec![byte] })
            .collect();
        [
            vec![0xff, 0xd8],
            segment(0xee, b"Adobe\0\x64\0\0\0\0\0"),
            segment(0xdb, &quantisation),
            segment(0xc0, &frame),
            segment(0xc4, &dc),
            segment(0xc4, &ac),
            segment(0xda, &scan),
            data,
            vec![0xff, 0xd9],
        ]
        .concat()
    }

    /// PNG's checksum.
    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |state, byte| {
            (0..8).fold(state ^ u32::from(*byte), |state, _| {
                (state >> 1) ^ (0xedb8_8320 & (state & 1).wrapping_neg())
            })
        })
    }
}
