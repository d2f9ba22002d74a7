//! RandAugment as BLIP and ALBEF have it: two of ten operations, drawn with replacement, each done half of
//! the time, at magnitude 5 of 10. The pixels are Pillow's.

use blip2_random::KeyedRng;

/// Operations that are drawn for an image.
const DRAWN: usize = 2;

/// What a shear moves a row or a column by for each one beside it.
const SHEAR: f64 = 0.15;

/// Pixels of a shift, whatever the image's size.
const SHIFT: f64 = 5.0;

/// Degrees of a turn.
const TURN: f64 = 15.0;

/// What is seen beyond the image's edges.
const BEYOND: u8 = 128;

/// An operation. Brightness and sharpness are the identity at magnitude 5: their factor is 1.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Operation {
    Identity,
    AutoContrast,
    Equalize,
    ShearX(f64),
    ShearY(f64),
    ShiftX(f64),
    ShiftY(f64),
    /// Counter-clockwise, in degrees.
    Rotate(f64),
}

impl Operation {
    /// One of ten, and the direction of those that have one.
    fn draw(rng: &mut KeyedRng) -> Self {
        let kind = rng.below(10);
        if kind < 5 {
            return match kind {
                3 => Self::AutoContrast,
                4 => Self::Equalize,
                _ => Self::Identity,
            };
        }
        let sign = if rng.uniform() < 0.5 { -1.0 } else { 1.0 };
        match kind {
            5 => Self::ShearX(sign * SHEAR),
            6 => Self::ShearY(sign * SHEAR),
            7 => Self::ShiftX(sign * SHIFT),
            8 => Self::ShiftY(sign * SHIFT),
            _ => Self::Rotate(sign * TURN),
        }
    }

    /// Does it to a square of interleaved RGB; `spare` is as long.
    fn apply(self, pixels: &mut [u8], size: usize, spare: &mut Vec<u8>) {
        let centre = size as f64 / 2.0 + 0.5;
        let inverse = match self {
            Self::Identity => return,
            Self::AutoContrast => return by_table(pixels, contrast_table),
            Self::Equalize => return by_table(pixels, equal_table),
            // The middle of the first pixel stays where it is.
            Self::ShearX(factor) => [1.0, -factor, factor / 2.0, 0.0, 1.0, 0.0],
            Self::ShearY(factor) => [1.0, 0.0, 0.0, -factor, 1.0, factor / 2.0],
            Self::ShiftX(by) => [1.0, 0.0, by, 0.0, 1.0, 0.0],
            Self::ShiftY(by) => [1.0, 0.0, 0.0, 0.0, 1.0, by],
            Self::Rotate(degrees) => {
                let angle = degrees.to_radians();
                let (cos, sin) = (libm::cos(angle), libm::sin(angle));
                let (x, y) = (centre - cos * centre + sin * centre, centre - sin * centre - cos * centre);
                [cos, -sin, x, sin, cos, y]
            }
        };
        spare.clear();
        spare.extend_from_slice(pixels);
        affine(spare, size, inverse, pixels);
    }
}

/// Draws operations and does them to a square of interleaved RGB, mirrored already.
pub(super) fn rand_augment(pixels: &mut [u8], size: usize, rng: &mut KeyedRng, spare: &mut Vec<u8>) {
    for _ in 0..DRAWN {
        let operation = Operation::draw(rng);
        if rng.uniform() < 0.5 {
            operation.apply(pixels, size, spare);
        }
    }
}

/// Gives every value of each channel another, by the table that `table` makes of the channel's histogram.
fn by_table(pixels: &mut [u8], table: fn(&[u32; 256]) -> Option<[u8; 256]>) {
    for channel in 0..3 {
        let mut histogram = [0u32; 256];
        pixels.iter().skip(channel).step_by(3).for_each(|value| histogram[usize::from(*value)] += 1);
        let Some(table) = table(&histogram) else { continue };
        pixels.iter_mut().skip(channel).step_by(3).for_each(|value| *value = table[usize::from(*value)]);
    }
}

/// The lowest value becomes 0 and the highest 255; nothing where they are one.
fn contrast_table(histogram: &[u32; 256]) -> Option<[u8; 256]> {
    let low = histogram.iter().position(|count| *count > 0)?;
    let high = histogram.iter().rposition(|count| *count > 0)?;
    if high <= low {
        return None;
    }
    let scale = 255.0 / (high - low) as f64;
    let offset = -(low as f64) * scale;
    // A conversion to bytes cuts off and stays within 0 and 255.
    Some(std::array::from_fn(|value| (value as f64 * scale + offset) as u8))
}

/// As many pixels for each value as can be; nothing for a channel of one value or with too few pixels.
fn equal_table(histogram: &[u32; 256]) -> Option<[u8; 256]> {
    let last = histogram.iter().rev().find(|count| **count > 0)?;
    let step = (histogram.iter().sum::<u32>() - last) / 255;
    if step == 0 {
        return None;
    }
    let mut below = step / 2;
    Some(std::array::from_fn(|value| {
        let level = (below / step).min(255);
        below += histogram[value];
        level as u8
    }))
}

/// Each pixel of `out` from where `inverse` finds it in `pixels`, between four of them.
///
/// `inverse` is `[a, b, c, d, e, f]`: the point `(x, y)`, in pixels from the corner, comes from
/// `(ax + by + c, dx + ey + f)`.
fn affine(pixels: &[u8], size: usize, inverse: [f64; 6], out: &mut [u8]) {
    let [a, b, c, d, e, f] = inverse;
    let side = size as f64;
    let within = |at: f64| at.clamp(0.0, side - 1.0) as usize;
    for (place, out) in out.chunks_exact_mut(3).enumerate() {
        let (x, y) = ((place % size) as f64 + 0.5, (place / size) as f64 + 0.5);
        let (from_x, from_y) = (a * x + b * y + c, d * x + e * y + f);
        if !(0.0..side).contains(&from_x) || !(0.0..side).contains(&from_y) {
            out.fill(BEYOND);
            continue;
        }
        let (from_x, from_y) = (from_x - 0.5, from_y - 0.5);
        let (left, top) = (from_x.floor(), from_y.floor());
        let (across, down) = (from_x - left, from_y - top);
        let [left, right] = [left, left + 1.0].map(within);
        let [top, bottom] = [top, top + 1.0].map(within);
        for (channel, out) in out.iter_mut().enumerate() {
            let at = |x: usize, y: usize| f64::from(pixels[3 * (y * size + x) + channel]);
            let between = |from: f64, to: f64, share: f64| from + (to - from) * share;
            let above = between(at(left, top), at(right, top), across);
            let below = between(at(left, bottom), at(right, bottom), across);
            // Cut off, as Pillow does.
            *out = between(above, below, down) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 24;

    fn image() -> Vec<u8> {
        let pixel = |place: usize| {
            let (x, y) = (place % SIZE, place / SIZE);
            [(x * 37 + y * 91) % 199 + 20, (x * x * 11 + y * 5) % 256, (x * y * 23 + 17) % 90 + 100]
        };
        (0..SIZE * SIZE).flat_map(pixel).map(|value| value as u8).collect()
    }

    /// The pixels on the two diagonals.
    fn diagonals(pixels: &[u8]) -> Vec<u8> {
        let down = (0..SIZE).map(|at| at * SIZE + at);
        let up = (0..SIZE).map(|at| at * SIZE + SIZE - 1 - at);
        down.chain(up).flat_map(|place| pixels[3 * place..][..3].to_vec()).collect()
    }

    /// The diagonals of the same image after `ImageOps.autocontrast` and `equalize`, and after
    /// `transform(size, AFFINE, inverse, BILINEAR, fillcolor=(128, 128, 128))` with the inverses above, by
    /// Pillow 13.0.0.
    const PILLOW: &str = include_str!("rand_augment/pillow.txt");

    #[test]
    fn every_operation_is_pillows() {
        let operations = [
            ("AutoContrast", Operation::AutoContrast),
            ("Equalize", Operation::Equalize),
            ("ShearX +", Operation::ShearX(SHEAR)),
            ("ShearX -", Operation::ShearX(-SHEAR)),
            ("ShearY +", Operation::ShearY(SHEAR)),
            ("TranslateX +", Operation::ShiftX(SHIFT)),
            ("TranslateY -", Operation::ShiftY(-SHIFT)),
            ("Rotate +", Operation::Rotate(TURN)),
            ("Rotate -", Operation::Rotate(-TURN)),
        ];
        assert_eq!(PILLOW.lines().count(), operations.len());
        for (line, (name, operation)) in PILLOW.lines().zip(operations) {
            let digits = line.strip_prefix(name).and_then(|rest| rest.strip_prefix(": ")).unwrap();
            let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
            let want: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
            let mut pixels = image();
            operation.apply(&mut pixels, SIZE, &mut Vec::new());
            assert_eq!(diagonals(&pixels), want, "{name}");
        }
    }

    #[test]
    fn half_of_the_operations_are_done_and_all_of_them_are_drawn() {
        let (mut changed, mut kinds) = (0, std::collections::BTreeSet::new());
        for sample in 0..1000 {
            let mut rng = KeyedRng::new(1, "augment", &[sample]);
            let mut pixels = image();
            rand_augment(&mut pixels, SIZE, &mut rng, &mut Vec::new());
            changed += usize::from(pixels != image());
            let drawn = Operation::draw(&mut KeyedRng::new(2, "kind", &[sample]));
            kinds.insert(format!("{drawn:?}"));
            let mut again = image();
            let mut rng = KeyedRng::new(1, "augment", &[sample]);
            rand_augment(&mut again, SIZE, &mut rng, &mut Vec::new());
            assert_eq!(pixels, again);
        }
        // Seven of ten change an image, each half of the time: 1 - 0.65² of the images.
        assert!((527..628).contains(&changed), "{changed} of 1000 images, 578 are expected");
        assert_eq!(kinds.len(), 3 + 2 * 5, "{kinds:?}");
    }

    #[test]
    fn a_plain_image_keeps_its_values() {
        for operation in [Operation::AutoContrast, Operation::Equalize] {
            let mut pixels = vec![7; 3 * SIZE * SIZE];
            operation.apply(&mut pixels, SIZE, &mut Vec::new());
            assert_eq!(pixels, vec![7; 3 * SIZE * SIZE]);
        }
    }
}
