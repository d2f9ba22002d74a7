//! What a picture of training allocates, once the memory of its thread is there.

use blip2_images::RgbImage;
use blip2_images::transform::{ImageScratch, TrainTransform};
use blip2_random::KeyedRng;

/// Blocks that the JPEG decoder takes for a picture's tables and rows, with a few to spare; the resampler has
/// none.
const BLOCKS: u64 = 64;

fn jpeg(width: u32, height: u32) -> Vec<u8> {
    let wave = |x: u32, period: u32| (x * 255 / period % 256) as u8;
    let image =
        RgbImage::from_fn(width, height, |x, y| image::Rgb([wave(x, 17), wave(y, 23), wave(x + y, 31)]));
    let mut encoded = std::io::Cursor::new(Vec::new());
    image.write_to(&mut encoded, image::ImageFormat::Jpeg).unwrap();
    encoded.into_inner()
}

#[test]
fn a_picture_takes_few_blocks() {
    let pictures = [jpeg(500, 375), jpeg(375, 500), jpeg(320, 240)];
    let transform = TrainTransform::new(224, [0.5, 1.0], true);
    let (mut scratch, mut out) = (ImageScratch::default(), vec![0; 3 * 224 * 224]);
    let mut apply = |picture: &[u8], sample| {
        let mut random = KeyedRng::new(1, "augment", &[sample]);
        transform.apply(picture, 1 << 26, &mut random, &mut scratch, &mut out).unwrap();
    };
    // The scratch grows with the largest crops.
    (0..300).for_each(|sample| apply(&pictures[sample as usize % 3], sample));
    for (sample, picture) in (0..).zip(&pictures) {
        let blocks = allocation_counter::measure(|| apply(picture, sample)).count_total;
        println!("{blocks} blocks");
        assert!(blocks <= BLOCKS, "{blocks} blocks for a picture");
    }
}
