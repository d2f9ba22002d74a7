//! A drawing out of the white that it is printed on.

use image::RgbImage;

use super::sprite::Sprite;

/// The darkest channel of what still counts as the white around a drawing: compression leaves noise in it.
const WHITE: u8 = 240;

/// What a pixel of a drawing is at least darker than white, where nothing around says how dark it is.
const DARK: u32 = 64;

/// Compression blurs an edge over so many pixels.
const EDGE: u32 = 2;

/// The drawing without its white, trimmed; none if nothing is left.
///
/// White that the border reaches becomes transparent; white within a drawing stays. Pixels at the edge are
/// a mixture of the drawing and white: the darkest pixel near them says how much of each.
pub(super) fn cut_out(image: &RgbImage) -> Option<Sprite> {
    let outside = outside(image);
    let (width, height) = image.dimensions();
    let at = |x: u32, y: u32| (y * width + x) as usize;
    let mut pixels = vec![[0; 4]; (width * height) as usize];
    for (x, y, pixel) in image.enumerate_pixels() {
        if outside[at(x, y)] {
            continue;
        }
        let alpha = if neighbours(x, y, width, height, 1).any(|(x, y)| outside[at(x, y)]) {
            let near = neighbours(x, y, width, height, EDGE).chain([(x, y)]);
            let darkest = near.map(|(x, y)| darkness(image, x, y)).max().unwrap_or(DARK);
            255 * darkness(image, x, y) / darkest.max(DARK)
        } else {
            255
        };
        // What is left once the white that shines through is taken away.
        let [r, g, b] = pixel.0.map(|own| {
            let without = (255 * 255u32).saturating_sub(255 * u32::from(255 - own) * 255 / alpha.max(1));
            (without / 255) as u8
        });
        pixels[at(x, y)] = [r, g, b, alpha as u8];
    }
    trim(&Sprite { width, height, pixels })
}

/// How far a pixel is from white.
fn darkness(image: &RgbImage, x: u32, y: u32) -> u32 {
    u32::from(255 - image.get_pixel(x, y).0.into_iter().min().unwrap_or(255))
}

/// Which pixels are white and joined to the border by white ones.
fn outside(image: &RgbImage) -> Vec<bool> {
    let (width, height) = image.dimensions();
    let at = |x: u32, y: u32| (y * width + x) as usize;
    let is_white = |x: u32, y: u32| image.get_pixel(x, y).0.into_iter().all(|channel| channel >= WHITE);
    let on_border = |x: u32, y: u32| x == 0 || y == 0 || x + 1 == width || y + 1 == height;
    let all = || (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let mut outside = vec![false; (width * height) as usize];
    let mut open: Vec<(u32, u32)> = all().filter(|(x, y)| on_border(*x, *y)).collect();
    while let Some((x, y)) = open.pop() {
        if outside[at(x, y)] || !is_white(x, y) {
            continue;
        }
        outside[at(x, y)] = true;
        open.extend(neighbours(x, y, width, height, 1).filter(|(a, b)| *a == x || *b == y));
    }
    outside
}

/// The pixels up to `reach` columns and rows from one.
fn neighbours(x: u32, y: u32, width: u32, height: u32, reach: u32) -> impl Iterator<Item = (u32, u32)> {
    let around = move |own: u32, length: u32| own.saturating_sub(reach)..(own + reach + 1).min(length);
    let all = around(y, height).flat_map(move |b| around(x, width).map(move |a| (a, b)));
    all.filter(move |place| *place != (x, y))
}

/// Without the rows and columns around it that show nothing.
fn trim(sprite: &Sprite) -> Option<Sprite> {
    let shown = |x: u32, y: u32| sprite.pixels[(y * sprite.width + x) as usize][3] >= 64;
    let columns: Vec<u32> = (0..sprite.width).filter(|x| (0..sprite.height).any(|y| shown(*x, y))).collect();
    let rows: Vec<u32> = (0..sprite.height).filter(|y| (0..sprite.width).any(|x| shown(x, *y))).collect();
    let (left, right, top, bottom) = (*columns.first()?, *columns.last()?, *rows.first()?, *rows.last()?);
    let row = |y: u32| {
        let start = (y * sprite.width) as usize;
        &sprite.pixels[start + left as usize..=start + right as usize]
    };
    let pixels = (top..=bottom).flat_map(|y| row(y).iter().copied()).collect();
    Some(Sprite { width: right + 1 - left, height: bottom + 1 - top, pixels })
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    /// A red square of 4 pixels with a white one in its middle, on white, and a mixed pixel at its side.
    fn square() -> RgbImage {
        RgbImage::from_fn(10, 10, |x, y| match (x, y) {
            (4, 4) => Rgb([255; 3]),
            (3..7, 3..7) => Rgb([255, 0, 0]),
            (7, 4) => Rgb([255, 128, 128]),
            _ => Rgb([255, 254, 253]),
        })
    }

    #[test]
    fn white_around_goes_and_white_within_stays() {
        let sprite = cut_out(&square()).unwrap();
        assert_eq!((sprite.width, sprite.height), (5, 4));
        let at = |x: usize, y: usize| sprite.pixels[y * 5 + x];
        assert_eq!(at(0, 0), [255, 0, 0, 255]);
        assert_eq!(at(1, 1), [255, 255, 255, 255]);
        assert_eq!(at(4, 0)[3], 0);
    }

    #[test]
    fn a_mixed_pixel_is_the_colour_beside_it_and_half_there() {
        let [r, g, b, alpha] = cut_out(&square()).unwrap().pixels[5 + 4];
        assert!((126..=128).contains(&alpha) && r == 255 && g < 3 && b < 3, "{r} {g} {b} {alpha}");
    }

    #[test]
    fn an_empty_sheet_has_no_drawing() {
        assert_eq!(cut_out(&RgbImage::from_pixel(8, 8, Rgb([255; 3]))), None);
    }
}
