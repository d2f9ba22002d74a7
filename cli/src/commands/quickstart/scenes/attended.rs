//! Images with what a query looks at left bright.

use blip2_images::RgbImage;

/// Brightness of what is not looked at, of 255.
const DIM: f32 = 48.0;

/// The image, where each of its square patches is as bright as its share of the attention; the patch with
/// most has its own brightness. `patches` are row by row, as many in a row as there are rows.
pub(super) fn spotlight(image: &RgbImage, patches: &[f32]) -> RgbImage {
    let side = patches.len().isqrt().max(1);
    let most = patches.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    let (width, height) = (image.width() as usize, image.height() as usize);
    RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let (column, row) = (x as usize * side / width, y as usize * side / height);
        let share = patches.get(row * side + column).map_or(0.0, |attention| attention / most);
        let factor = (DIM + (255.0 - DIM) * share) / 255.0;
        image::Rgb(image.get_pixel(x, y).0.map(|value| (f32::from(value) * factor).round() as u8))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_attended_to_stays_bright() {
        let white = RgbImage::from_pixel(4, 4, image::Rgb([255, 255, 255]));
        let lit = spotlight(&white, &[0.5, 0.0, 0.25, 0.0]);
        let at = |x, y| lit.get_pixel(x, y).0[0];
        assert_eq!((at(0, 0), at(1, 1), at(2, 0), at(3, 3)), (255, 255, 48, 48));
        assert_eq!((at(0, 2), at(1, 3)), (152, 152));
        assert_eq!(spotlight(&white, &[]).get_pixel(0, 0).0[0], 48, "without attention nothing is lit");
    }
}
