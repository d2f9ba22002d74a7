//! Pixels of a scene, in whole numbers.

use image::{Rgb, RgbImage};

use crate::artwork::Sprite;
use crate::layout::Rect;
use crate::words::{Colour, Shape};

/// A side of a pixel has so many sampling points.
const SAMPLES: u32 = 4;

/// The ground, with a shape on it if there is one.
pub(super) fn ground(size: u32, background: Colour, shape: Option<(Rect, (Colour, Shape))>) -> RgbImage {
    let mut image = RgbImage::from_pixel(size, size, Rgb(background.rgb()));
    if let Some((around, (colour, shape))) = shape {
        for y in around.y..around.bottom() {
            for x in around.x..around.right() {
                let share = match shape {
                    Shape::Square => 255,
                    Shape::Circle => within_circle(x - around.x, y - around.y, around.width),
                };
                mix(image.get_pixel_mut(x, y), colour.rgb(), share);
            }
        }
    }
    image
}

/// How much of a pixel lies in the circle of this width, of 255.
fn within_circle(x: u32, y: u32, width: u32) -> u32 {
    // In units of half the distance of two sampling points, from the centre.
    let centre = i64::from(width * SAMPLES);
    let offset = |pixel: u32, sample: u32| i64::from(2 * (pixel * SAMPLES + sample) + 1) - centre;
    let points = (0..SAMPLES).flat_map(|b| (0..SAMPLES).map(move |a| (a, b)));
    let within = points.filter(|(a, b)| offset(x, *a).pow(2) + offset(y, *b).pow(2) <= centre.pow(2));
    255 * within.count() as u32 / (SAMPLES * SAMPLES)
}

/// Lays a drawing over the image, its upper left corner at that of `place`.
pub(super) fn paste(image: &mut RgbImage, sprite: &Sprite, place: Rect) {
    for (row, line) in (place.y..).zip(sprite.pixels.chunks_exact(sprite.width as usize)) {
        for (column, [r, g, b, alpha]) in (place.x..).zip(line) {
            mix(image.get_pixel_mut(column, row), [*r, *g, *b], u32::from(*alpha));
        }
    }
}

/// Mixes `share` of 255 of a colour into a pixel.
fn mix(pixel: &mut Rgb<u8>, colour: [u8; 3], share: u32) {
    for (own, new) in pixel.0.iter_mut().zip(colour) {
        *own = ((u32::from(new) * share + u32::from(*own) * (255 - share) + 127) / 255) as u8;
    }
}
