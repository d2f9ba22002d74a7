//! How pixels between those of an image are computed.

use std::f64::consts::PI;

/// How pixels between those of an image are computed, as Pillow calls it; antialiased, but for the nearest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Resampling {
    /// The nearest pixel.
    Nearest,
    /// Lanczos' window of three.
    Lanczos,
    /// A triangle.
    Bilinear,
    /// Cubic, a = -0.5: CLIP's and BLIP-2's.
    #[default]
    Bicubic,
    /// The mean of a box.
    Box,
    /// Hamming's window.
    Hamming,
}

/// What weighs a pixel at a distance.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernel {
    /// The weight at a distance in pixels; `libm` keeps it equal on every platform.
    pub(super) weight: fn(f64) -> f64,
    /// The distance beyond which nothing weighs.
    pub(super) support: f64,
}

impl Resampling {
    /// `None` for the nearest pixel, which is not weighed.
    pub(super) fn kernel(self) -> Option<Kernel> {
        let (weight, support): (fn(f64) -> f64, f64) = match self {
            Self::Nearest => return None,
            Self::Box => (square, 0.5),
            Self::Bilinear => (triangle, 1.0),
            Self::Hamming => (hamming, 1.0),
            Self::Bicubic => (cubic, 2.0),
            Self::Lanczos => (lanczos, 3.0),
        };
        Some(Kernel { weight, support })
    }
}

fn square(x: f64) -> f64 {
    if x > -0.5 && x <= 0.5 { 1.0 } else { 0.0 }
}

fn triangle(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

fn hamming(x: f64) -> f64 {
    let x = x.abs();
    if x == 0.0 {
        1.0
    } else if x < 1.0 {
        (0.54 + 0.46 * libm::cos(x * PI)) * libm::sin(x * PI) / (x * PI)
    } else {
        0.0
    }
}

fn cubic(x: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        (1.5 * x - 2.5) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    } else {
        0.0
    }
}

fn lanczos(x: f64) -> f64 {
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { libm::sin(x * PI) / (x * PI) };
    if (-3.0..3.0).contains(&x) { sinc(x) * sinc(x / 3.0) } else { 0.0 }
}
