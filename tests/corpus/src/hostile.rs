//! Images made to harm, and what is none: headers that promise too much, halves, scripts.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

/// Whether a reason is one line that a person can read.
pub fn is_clear(reason: &str) -> bool {
    !reason.is_empty() && reason.len() < 400 && !reason.contains('\n') && !reason.contains("panicked")
}

/// An image of many colours.
pub fn photo() -> RgbImage {
    RgbImage::from_fn(48, 32, |x, y| Rgb([(x * 5) as u8, (y * 7) as u8, (x * y) as u8]))
}

/// An image as a file.
///
/// # Panics
/// The format cannot hold it.
pub fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    image.into().write_to(&mut out, format).expect("an image of a kind that the format holds");
    out.into_inner()
}

/// A small JPEG of many colours.
pub fn jpeg() -> Vec<u8> {
    encoded(photo(), ImageFormat::Jpeg)
}

/// A chunk of a PNG.
pub fn chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
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
pub fn png(width: u32, height: u32, depth: u8, colour: u8, extra: &[u8], data: &[u8]) -> Vec<u8> {
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
pub fn deflated(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    // Stored blocks: what is tested is what the decoder does, not how well this packs.
    let blocks = data.chunks(u16::MAX as usize);
    let last = blocks.len().saturating_sub(1);
    for (index, block) in blocks.enumerate() {
        let length = block.len() as u16;
        out.push(u8::from(index == last));
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(block);
    }
    let (mut a, mut b) = (1u32, 0u32);
    for byte in data {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    out.extend(((b << 16) | a).to_be_bytes());
    out
}

/// Headers that promise more pixels than anyone has memory for.
pub fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let mut gif = encoded(photo(), ImageFormat::Gif);
    gif[6..10].copy_from_slice(&[0xff; 4]);
    let mut bmp = encoded(photo(), ImageFormat::Bmp);
    bmp[18..26].copy_from_slice(&[0xff, 0xff, 0xff, 0x0f, 0xff, 0xff, 0xff, 0x0f]);
    let mut webp = encoded(photo(), ImageFormat::WebP);
    let place = webp.windows(4).position(|bytes| bytes == b"VP8L").expect("a lossless image");
    webp[place + 9..place + 12].copy_from_slice(&[0xff; 3]);
    let mut jpeg = jpeg();
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).expect("a baseline image");
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xff; 4]);
    let png = png(1 << 30, 1 << 30, 8, 2, &[], &[0]);
    vec![("PNG", png), ("GIF", gif), ("BMP", bmp), ("WebP", webp), ("JPEG", jpeg)]
}

/// What is no image, or not a whole one.
pub fn unreadable() -> Vec<(&'static str, Vec<u8>)> {
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
