//! Images to tensors: the training crop and the two evaluation transforms.
//!
//! Resizing is bicubic (a = -0.5) with antialiasing in 8 bits, as PIL's. All results are planar `[3, S, S]`:
//! bytes for training, which the device normalises, and normalised f32 for evaluation.

mod crop;
mod evaluate;
mod lines;
mod passes;
mod pixels;
mod rand_augment;
mod resampler;
mod resampling;
mod resize;
mod taps;
mod train;

pub use evaluate::{EvalTransform, ShortestEdgeTransform};
pub use pixels::{CLIP_MEAN, CLIP_STD, normalised};
pub use resampling::Resampling;
pub use resize::shrink;
pub use train::{ImageScratch, ImageTimes, TrainTransform};

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::crop::{Rectangle, central_crop, random_crop, reduction};
    use super::resize::{resize, resize_by};
    use super::*;
    use blip2_random::KeyedRng;

    fn rng(sample: u64) -> KeyedRng {
        KeyedRng::new(1, "augment", &[1, sample])
    }

    fn gradient(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            Rgb([(x * 7 % 256) as u8, (y * 5 % 256) as u8, ((x + y) % 256) as u8])
        })
    }

    /// PIL's bicubic kernel and two rounded passes over a crop, written independently of the crate in use.
    fn reference_resize(image: &RgbImage, crop: Rectangle, size: u32) -> RgbImage {
        fn kernel(x: f64) -> f64 {
            let x = x.abs();
            if x < 1.0 {
                (1.5 * x - 2.5) * x * x + 1.0
            } else if x < 2.0 {
                ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
            } else {
                0.0
            }
        }
        fn pass(image: &RgbImage, size: u32) -> RgbImage {
            let scale = f64::from(image.width()) / f64::from(size);
            let stretch = scale.max(1.0);
            RgbImage::from_fn(size, image.height(), |x, y| {
                let centre = (f64::from(x) + 0.5) * scale;
                let first = (centre - 2.0 * stretch).floor().max(0.0) as u32;
                let last = ((centre + 2.0 * stretch).ceil() as u32).min(image.width());
                let (mut sum, mut total) = ([0.0; 3], 0.0);
                for source in first..last {
                    let weight = kernel((f64::from(source) + 0.5 - centre) / stretch);
                    total += weight;
                    for (sum, value) in sum.iter_mut().zip(image.get_pixel(source, y).0) {
                        *sum += weight * f64::from(value);
                    }
                }
                Rgb(sum.map(|sum| (sum / total).round().clamp(0.0, 255.0) as u8))
            })
        }
        let transpose = |image: &RgbImage| {
            RgbImage::from_fn(image.height(), image.width(), |x, y| *image.get_pixel(y, x))
        };
        let crop = image::imageops::crop_imm(image, crop.left, crop.top, crop.width, crop.height).to_image();
        transpose(&pass(&transpose(&pass(&crop, size)), size))
    }

    /// Smooth shapes, edges and noise.
    fn photo(width: u32, height: u32) -> RgbImage {
        let mut noise = rng(99);
        RgbImage::from_fn(width, height, |x, y| {
            let smooth = 128.0 + 90.0 * libm::sin(f64::from(x) / 19.0) * libm::cos(f64::from(y) / 27.0);
            let edge = if (x / 37 + y / 29) % 2 == 0 { 30.0 } else { 0.0 };
            Rgb(std::array::from_fn(|_| (smooth + edge + 20.0 * noise.uniform()) as u8))
        })
    }

    /// Pixels (1, 1), (3, 2) and (0, 3) of an image that Pillow resized by each of its filters.
    #[test]
    fn every_filter_is_pillows() {
        let level = |value: u32| (value % 256) as u8;
        let pixel = |x: u32, y: u32| {
            image::Rgb([level(x * 37 + y * 91), level(x * x * 11 + y * 5), level(x * y * 23 + 17)])
        };
        let image = RgbImage::from_fn(9, 7, pixel);
        for (resampling, expected) in [
            (Resampling::Nearest, [37, 109, 155, 111, 47, 149, 71, 41, 155]),
            (Resampling::Lanczos, [97, 109, 150, 133, 129, 158, 122, 31, 91]),
            (Resampling::Bilinear, [98, 103, 136, 124, 131, 156, 117, 41, 94]),
            (Resampling::Bicubic, [93, 107, 146, 128, 131, 159, 120, 35, 92]),
            (Resampling::Box, [83, 119, 147, 130, 130, 195, 136, 34, 81]),
            (Resampling::Hamming, [73, 107, 147, 116, 124, 167, 118, 38, 91]),
        ] {
            let pixels = resize_by(resampling, &image, Rectangle::whole(&image), [4, 4]).unwrap();
            let got: Vec<u8> = [5, 11, 12].iter().flat_map(|at| pixels[3 * at..][..3].to_vec()).collect();
            let near = got.iter().zip(expected).all(|(a, b): (&u8, i32)| (i32::from(*a) - b).abs() <= 1);
            assert!(near, "{resampling:?}: {got:?}, Pillow has {expected:?}");
        }
    }

    #[test]
    fn a_random_resized_crop_is_pillows() {
        let (mut off, mut values) = (0usize, 0usize);
        for (sample, (width, height, size)) in
            [(500, 375, 224), (375, 500, 224), (640, 427, 96), (120, 90, 128), (224, 224, 224), (90, 300, 64)]
                .into_iter()
                .enumerate()
        {
            let image = photo(width, height);
            let crop = random_crop(width, height, [0.3, 1.0], &mut rng(sample as u64));
            let expected = reference_resize(&image, crop, size);
            let actual = resize(&image, crop, [size as usize; 2]).unwrap();
            off += actual.iter().zip(expected.as_raw()).filter(|(a, b)| a.abs_diff(**b) > 1).count();
            values += actual.len();
        }
        println!("{off} of {values} values are off by more than a level");
        assert!(off * 1000 <= values, "{off} of {values} values are off by more than a level");
    }

    #[test]
    fn evaluation_is_pil_bicubic() {
        for (width, height, size) in [(96, 60, 32), (20, 31, 48), (64, 64, 64)] {
            let image = gradient(width, height);
            let expected = reference_resize(&image, Rectangle::whole(&image), size);
            let actual = resize(&image, Rectangle::whole(&image), [size as usize; 2]).unwrap();
            let worst = actual.iter().zip(expected.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            assert!(worst <= 1, "{width}x{height} to {size}: off by {worst}");
        }
    }

    /// The image without loss, as a training file may hold it.
    fn png(image: &RgbImage) -> Vec<u8> {
        let mut encoded = std::io::Cursor::new(Vec::new());
        image.write_to(&mut encoded, image::ImageFormat::Png).unwrap();
        encoded.into_inner()
    }

    fn train(transform: &TrainTransform, encoded: &[u8], sample: u64) -> Vec<u8> {
        let mut out = vec![0; 3 * transform.size * transform.size];
        let mut scratch = ImageScratch::default();
        transform.apply(encoded, 1 << 26, &mut rng(sample), &mut scratch, &mut out).unwrap();
        out
    }

    #[test]
    fn a_reduced_image_is_close_to_the_whole_one() {
        let image =
            image::imageops::resize(&photo(500, 400), 2000, 1600, image::imageops::FilterType::CatmullRom);
        let mut jpeg = Vec::new();
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 95).encode_image(&image).unwrap();
        // Half of the area leaves the shorter side at least 1,095 pixels: 8 × 1.5 × 90 is less.
        let transform = TrainTransform::new(90, [0.5, 1.0], true);
        let crop = random_crop(2000, 1600, [0.5, 1.0], &mut rng(4));
        assert_eq!(reduction(crop, 90), 8);
        let lossless = png(&crate::decode::decode_image(&jpeg, 1 << 26).unwrap());
        let (reduced, whole) = (train(&transform, &jpeg, 4), train(&transform, &lossless, 4));
        let sum: u64 = reduced.iter().zip(&whole).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        assert!(sum as f64 / (whole.len() as f64) < 2.0, "{sum} over {} values", whole.len());
        assert!(reduced != whole);
    }

    #[test]
    fn how_much_is_reduced_follows_from_the_crop() {
        let square = |side| Rectangle { left: 0, top: 0, width: side, height: side + 50 };
        for (side, divisor) in [(100, 1), (671, 1), (672, 2), (1343, 2), (1344, 4), (2688, 8), (9999, 8)] {
            assert_eq!(reduction(square(side), 224), divisor, "{side}");
        }
    }

    #[test]
    fn values_are_normalised_and_planar() {
        let image = RgbImage::from_pixel(4, 4, Rgb([255, 0, 51]));
        let pixels = EvalTransform::new(2).apply(&image).unwrap();
        assert_eq!(pixels.len(), 12);
        for (channel, value) in [1.0f32, 0.0, 0.2].into_iter().enumerate() {
            let expected = (value - CLIP_MEAN[channel]) / CLIP_STD[channel];
            assert!(pixels[channel * 4..channel * 4 + 4].iter().all(|pixel| (pixel - expected).abs() < 1e-6));
        }
    }

    #[test]
    fn training_is_a_function_of_its_key() {
        let image = png(&gradient(80, 50));
        let transform = TrainTransform::new(32, [0.2, 1.0], true);
        let apply = |sample| train(&transform, &image, sample);
        assert_eq!(apply(3), apply(3));
        assert_ne!(apply(3), apply(4));
    }

    #[test]
    fn mirroring_reverses_rows() {
        let image = gradient(16, 16);
        let encoded = png(&image);
        let whole = |flip| TrainTransform { flip, ..TrainTransform::new(16, [1.0, 1.0], true) };
        let plain: Vec<u8> =
            (0..3).flat_map(|channel| image.pixels().map(move |pixel| pixel.0[channel])).collect();
        let mut seen = [false; 2];
        for sample in 0..40 {
            if random_crop(16, 16, [1.0, 1.0], &mut rng(sample)) != Rectangle::whole(&image) {
                continue;
            }
            assert_eq!(train(&whole(false), &encoded, sample), plain);
            let mirrored = train(&whole(true), &encoded, sample);
            let reversed: Vec<u8> = plain.chunks(16).flat_map(|row| row.iter().rev()).copied().collect();
            assert!(mirrored == plain || mirrored == reversed);
            seen[usize::from(mirrored == reversed)] = true;
        }
        assert_eq!(seen, [true; 2]);
    }

    #[test]
    fn rand_augment_comes_behind_crop_and_mirroring_and_draws_after_them() {
        let encoded = png(&photo(60, 45));
        let plain = TrainTransform::new(32, [0.5, 1.0], true);
        let augmented = TrainTransform { rand_augment: true, ..plain.clone() };
        let is_same = |sample: &u64| train(&plain, &encoded, *sample) == train(&augmented, &encoded, *sample);
        let same = (0..200).filter(is_same).count();
        // Both operations change nothing for 0.65² of the images, mirrored or not.
        assert!((60..110).contains(&same), "{same} of 200 images are as they were, 84 are expected");
    }

    #[test]
    fn bytes_are_normalised_as_evaluation_does() {
        let image = gradient(8, 8);
        let planes = train(&TrainTransform::new(8, [1.0, 1.0], false), &png(&image), 0);
        // The crop of sample 0 may be a part; the formula is what matters here.
        let floats = normalised(&planes, 64, CLIP_MEAN, CLIP_STD);
        for (index, (byte, value)) in planes.iter().zip(&floats).enumerate() {
            let channel = index / 64;
            assert_eq!(*value, (f32::from(*byte) / 255.0 - CLIP_MEAN[channel]) / CLIP_STD[channel]);
        }
        let whole: Vec<u8> =
            (0..3).flat_map(|channel| image.pixels().map(move |pixel| pixel.0[channel])).collect();
        assert_eq!(normalised(&whole, 64, CLIP_MEAN, CLIP_STD), EvalTransform::new(8).apply(&image).unwrap());
    }

    #[test]
    fn crops_stay_inside_and_keep_their_area() {
        for sample in 0..500 {
            let crop = random_crop(300, 200, [0.5, 1.0], &mut rng(sample));
            assert!(crop.left + crop.width <= 300 && crop.top + crop.height <= 200);
            let share = f64::from(crop.width * crop.height) / 60_000.0;
            assert!((0.49..=1.0).contains(&share), "{share}");
            let ratio = f64::from(crop.width) / f64::from(crop.height);
            assert!((0.74..1.35).contains(&ratio), "{ratio}");
        }
    }

    #[test]
    fn odd_shapes_fall_back_to_the_centre() {
        assert_eq!(central_crop(100, 10), Rectangle { left: 43, top: 0, width: 13, height: 10 });
        assert_eq!(central_crop(10, 100), Rectangle { left: 0, top: 43, width: 10, height: 13 });
        for (width, height) in [(1, 1), (1, 3000), (3000, 1), (2, 1)] {
            let image = gradient(width, height);
            let pixels = train(&TrainTransform::new(8, [0.5, 1.0], true), &png(&image), 0);
            assert_eq!(pixels.len(), 3 * 64);
            assert_eq!(EvalTransform::new(8).apply(&image).unwrap().len(), 3 * 64);
        }
    }

    #[test]
    fn outside_of_the_crop_has_no_influence() {
        let mut image = gradient(40, 40);
        let crop = Rectangle { left: 10, top: 10, width: 20, height: 20 };
        let before = resize(&image, crop, [7, 7]).unwrap();
        for (x, y, pixel) in image.enumerate_pixels_mut() {
            if !(10..30).contains(&x) || !(10..30).contains(&y) {
                *pixel = Rgb([255, 0, 255]);
            }
        }
        assert_eq!(resize(&image, crop, [7, 7]).unwrap(), before);
    }

    #[test]
    fn shortest_edge_takes_the_central_square() {
        let image = gradient(64, 32);
        let pixels = ShortestEdgeTransform::new(32).apply(&image).unwrap();
        let middle = image::imageops::crop_imm(&image, 16, 0, 32, 32).to_image();
        assert_eq!(pixels, EvalTransform::new(32).apply(&middle).unwrap());
        assert!(ShortestEdgeTransform::new(8).apply(&RgbImage::new(0, 0)).is_err());
        assert!(EvalTransform::new(0).apply(&image).is_err());
    }
}
