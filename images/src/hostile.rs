//! Images made to harm or merely odd, case by case: read as documented, or refused with one clear reason.

use blip2_test_corpus::hostile::{bombs, chunk, deflated, encoded, is_clear, jpeg, photo, png, unreadable};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ImageEncoder as _, ImageFormat, RgbImage};

use crate::decode::{decode_image, image_dimensions};

const LIMIT: u64 = 1 << 20;

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
