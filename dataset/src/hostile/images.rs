use std::io::{Cursor, Write as _};

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{DynamicImage, ImageEncoder as _, ImageFormat, Rgb, RgbImage};

use super::is_clear;
use crate::image::decode::{decode_image, image_dimensions};

const LIMIT: u64 = 1 << 20;

fn photo() -> RgbImage {
    RgbImage::from_fn(48, 32, |x, y| Rgb([(x * 5) as u8, (y * 7) as u8, (x * y) as u8]))
}

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    image.into().write_to(&mut out, format).unwrap();
    out.into_inner()
}

fn jpeg() -> Vec<u8> {
    encoded(photo(), ImageFormat::Jpeg)
}

/// A chunk of a PNG.
fn chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let checked = [kind, body].concat();
    [&(body.len() as u32).to_be_bytes()[..], &checked, &crc32(&checked).to_be_bytes()].concat()
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |state, byte| {
        (0..8).fold(state ^ u32::from(*byte), |state, _| {
            (state >> 1) ^ (0xedb8_8320 & (state & 1).wrapping_neg())
        })
    })
}

/// A PNG of this size and colour type whose data is this, deflated.
fn png(width: u32, height: u32, depth: u8, colour: u8, extra: &[u8], data: &[u8]) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[depth, colour, 0, 0, 0]].concat();
    [
        b"\x89PNG\r\n\x1a\n".to_vec(),
        chunk(b"IHDR", &header),
        extra.to_vec(),
        chunk(b"IDAT", &deflated(data)),
        chunk(b"IEND", &[]),
    ]
    .concat()
}

/// zlib of `data`.
fn deflated(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    // Stored blocks: what is tested is what the decoder does, not how well this packs.
    let blocks = data.chunks(u16::MAX as usize);
    let last = blocks.len().saturating_sub(1);
    for (index, block) in blocks.enumerate() {
        let length = block.len() as u16;
        out.push(u8::from(index == last));
        out.write_all(&length.to_le_bytes()).unwrap();
        out.write_all(&(!length).to_le_bytes()).unwrap();
        out.write_all(block).unwrap();
    }
    let (mut a, mut b) = (1u32, 0u32);
    for byte in data {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    out.extend(((b << 16) | a).to_be_bytes());
    out
}

/// An EXIF segment that says "turn by 90 degrees", put into a JPEG behind its start.
fn turned(jpeg: &[u8]) -> Vec<u8> {
    let exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let length = (exif.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xff, 0xe1], &length, exif, &jpeg[2..]].concat()
}

#[test]
fn odd_images_are_read_as_the_field_reads_them() {
    let whole = decode_image(&jpeg(), LIMIT).unwrap();
    let palette = [chunk(b"PLTE", &[10, 20, 30, 200, 100, 50]), chunk(b"tRNS", &[0, 0])].concat();
    let cases: [(&str, Vec<u8>, RgbImage); 6] = [
        ("an orientation is not applied", turned(&jpeg()), whole.clone()),
        ("an archive behind the end", [jpeg(), b"PK\x03\x04 zip".to_vec()].concat(), whole.clone()),
        ("markup behind the end", [jpeg(), b"<script>alert(1)</script>".to_vec()].concat(), whole),
        (
            "a palette with transparency",
            png(2, 1, 8, 3, &palette, &[0, 1, 0]),
            RgbImage::from_raw(2, 1, vec![200, 100, 50, 10, 20, 30]).unwrap(),
        ),
        (
            "one bit a pixel",
            png(2, 1, 1, 0, &[], &[0, 0b0100_0000]),
            RgbImage::from_raw(2, 1, vec![0, 0, 0, 255, 255, 255]).unwrap(),
        ),
        (
            "16 bits of grey and alpha",
            png(1, 1, 16, 4, &[], &[0, 77, 77, 0, 0]),
            RgbImage::from_raw(1, 1, vec![77, 77, 77]).unwrap(),
        ),
    ];
    for (name, encoded, expected) in cases {
        assert_eq!(decode_image(&encoded, LIMIT).unwrap(), expected, "{name}");
    }
}

/// Headers that promise more pixels than anyone has memory for.
pub(super) fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let mut gif = encoded(photo(), ImageFormat::Gif);
    gif[6..10].copy_from_slice(&[0xff; 4]);
    let mut bmp = encoded(photo(), ImageFormat::Bmp);
    bmp[18..26].copy_from_slice(&[0xff, 0xff, 0xff, 0x0f, 0xff, 0xff, 0xff, 0x0f]);
    let mut webp = encoded(photo(), ImageFormat::WebP);
    let place = webp.windows(4).position(|bytes| bytes == b"VP8L").unwrap();
    webp[place + 9..place + 12].copy_from_slice(&[0xff; 3]);
    let mut jpeg = jpeg();
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xff; 4]);
    let png = png(1 << 30, 1 << 30, 8, 2, &[], &[0]);
    vec![("PNG", png), ("GIF", gif), ("BMP", bmp), ("WebP", webp), ("JPEG", jpeg)]
}

#[test]
fn bombs_are_refused_from_their_headers() {
    for (name, encoded) in bombs() {
        let reason = decode_image(&encoded, LIMIT).unwrap_err().to_string();
        assert!(is_clear(&reason), "{name}: {reason}");
    }
}

#[test]
fn text_that_unpacks_to_much_is_not_unpacked() {
    let text = [b"Comment\0\0".to_vec(), deflated(&vec![b'a'; 8 << 20])].concat();
    let profile = [b"icc\0\0".to_vec(), deflated(&vec![0; 8 << 20])].concat();
    let extra = [chunk(b"iCCP", &profile), chunk(b"zTXt", &text)].concat();
    let decoded = decode_image(&png(1, 1, 8, 0, &extra, &[0, 9]), LIMIT);
    // Either is right; what is held meanwhile is measured where decoders are tested one process each.
    assert!(decoded.as_ref().is_ok_and(|image| image.get_pixel(0, 0).0 == [9; 3]) || decoded.is_err());
}

/// What is no image, or not a whole one.
pub(super) fn unreadable() -> Vec<(&'static str, Vec<u8>)> {
    let half = |format| {
        let whole = encoded(photo(), format);
        whole[..whole.len() / 2].to_vec()
    };
    vec![
        ("no bytes", Vec::new()),
        ("zeros", vec![0; 4096]),
        ("markup", b"<!doctype html><html></html>".to_vec()),
        ("an archive", b"PK\x03\x04\x14\0\0\0".to_vec()),
        ("half a JPEG", half(ImageFormat::Jpeg)),
        ("half a PNG", half(ImageFormat::Png)),
        ("half a WebP", half(ImageFormat::WebP)),
        ("half a GIF", half(ImageFormat::Gif)),
        ("the start of a JPEG alone", vec![0xff, 0xd8, 0xff]),
        ("a signature of PNG alone", b"\x89PNG\r\n\x1a\n".to_vec()),
        ("no pixels", png(0, 7, 8, 2, &[], &[])),
        ("too few pixels", png(4, 4, 8, 2, &[], &[0, 1, 2])),
        ("a GIF that is a script", b"GIF89a/*\0\0\0\0*/=1;alert(1)".to_vec()),
        ("an HEIC", b"\0\0\0\x18ftypheic\0\0\0\0".to_vec()),
        ("an SVG", b"<?xml version='1.0'?><svg/>".to_vec()),
    ]
}

#[test]
fn what_cannot_be_read_has_one_clear_reason() {
    for (name, encoded) in unreadable() {
        let reason = decode_image(&encoded, LIMIT).unwrap_err().to_string();
        assert!(reason.starts_with("the picture cannot be used: ") && is_clear(&reason), "{name}: {reason}");
    }
}

#[test]
fn a_flipped_bit_gives_an_image_of_the_right_size_or_a_reason() {
    let mut progressive = Vec::new();
    JpegEncoder::new_with_quality(&mut progressive, 60).encode_image(&photo()).unwrap();
    let mut deep = Vec::new();
    let pixels: Vec<u8> = (0..16 * 8 * 2).map(|value| value as u8).collect();
    PngEncoder::new(&mut deep).write_image(&pixels, 16, 8, image::ExtendedColorType::L16).unwrap();
    for whole in [progressive, deep, encoded(photo(), ImageFormat::WebP), encoded(photo(), ImageFormat::Png)]
    {
        for place in (0..whole.len()).step_by(whole.len() / 150 + 1) {
            let mut flipped = whole.clone();
            flipped[place] ^= 1 << (place % 8);
            match decode_image(&flipped, LIMIT) {
                Ok(image) => {
                    assert_eq!(image.dimensions(), image_dimensions(&flipped).unwrap(), "byte {place}");
                }
                Err(error) => assert!(is_clear(&error.to_string()), "byte {place}: {error}"),
            }
        }
    }
}

/// Mean red, green and blue.
fn means(encoded: &[u8]) -> ([u64; 3], (u32, u32)) {
    let image = decode_image(encoded, LIMIT).unwrap();
    assert_eq!(image_dimensions(encoded).unwrap(), image.dimensions());
    let count = u64::from(image.width() * image.height());
    let mean =
        |channel| (image.pixels().map(|pixel| u64::from(pixel.0[channel])).sum::<u64>() + count / 2) / count;
    ([mean(0), mean(1), mean(2)], image.dimensions())
}

/// An image, its mean colour and, where it is not obvious, its sides.
type Case = (&'static str, &'static [u8], [u64; 3], Option<(u32, u32)>);

/// Images with the mean colours that Pillow finds.
#[test]
fn colours_and_canvases_are_those_of_the_reference() {
    let cases: [Case; 5] = [
        ("JFIF and Adobe's transform 0", include_bytes!("odd/jpg_adobe0.jpg"), [167, 114, 120], None),
        ("brightness sampled less than colour", include_bytes!("odd/jpg_lumasub.jpg"), [167, 114, 120], None),
        ("a frame on a part of the canvas", include_bytes!("odd/gif_partial.gif"), [24, 189, 44], None),
        ("the same, transparent", include_bytes!("odd/gif_partial_tr.gif"), [237, 237, 239], None),
        (
            "a frame beyond the canvas",
            include_bytes!("odd/gif_big_frame.gif"),
            [128, 127, 127],
            Some((30, 20)),
        ),
    ];
    for (name, encoded, expected, sides) in cases {
        let (found, size) = means(encoded);
        assert!(
            found.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 1),
            "{name}: {found:?}, not {expected:?}"
        );
        assert!(sides.is_none_or(|sides| sides == size), "{name}: {size:?}");
    }
}

#[test]
fn formats_that_are_not_read_are_named() {
    let mut arithmetic = jpeg();
    let frame = arithmetic.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    arithmetic[frame + 1] = 0xc9;
    for (encoded, name) in [
        (b"\0\0\0\x1cftypavif\0\0\0\0".to_vec(), "AVIF"),
        (b"\0\0\0\x0cjP  \r\n\x87\n".to_vec(), "JPEG 2000"),
        (b"version https://git-lfs.github.com/spec/v1".to_vec(), "Git LFS pointer"),
        (arithmetic, "arithmetic coding"),
    ] {
        let reason = decode_image(&encoded, LIMIT).unwrap_err().to_string();
        assert!(reason.contains(name) && is_clear(&reason), "{reason}");
        assert!(image_dimensions(&encoded).unwrap_err().to_string().contains(name));
    }
}
