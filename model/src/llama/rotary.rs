//! Rotary positions: queries and keys turn with their position, so that scores depend on distances.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// The rotations of a batch's positions.
#[derive(Debug, Clone)]
pub(super) struct Rotations {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl Rotations {
    /// Element `i` of a head's first half turns together with element `i` of the second half, by
    /// `position / theta^(i / half)`.
    ///
    /// # Shapes
    /// - positions `[b, n]`
    pub(super) fn new(positions: Tensor<2, Int>, head_width: usize, theta: f64) -> Self {
        let frequencies = frequencies(head_width / 2, theta, &positions.device());
        let angles = positions.float().unsqueeze_dims::<4>(&[1, 3]) * frequencies;
        Self { cos: angles.clone().cos(), sin: angles.sin() }
    }

    /// # Shapes
    /// - x and output `[b, heads, n, head width]`
    pub(super) fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let half = x.dims()[3] / 2;
        let (first, second) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
        let (cos, sin) = (self.cos.clone(), self.sin.clone());
        let turned = first.clone() * cos.clone() - second.clone() * sin.clone();
        Tensor::cat(vec![turned, second * cos + first * sin], 3)
    }
}

/// `[1, 1, 1, half]`.
fn frequencies(half: usize, theta: f64, device: &Device) -> Tensor<4> {
    let values = (0..half).map(|i| theta.powf(-(i as f64) / half as f64) as f32).collect::<Vec<_>>();
    Tensor::from_data(TensorData::new(values, [1, 1, 1, half]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_depend_on_distances_alone() {
        let device = Device::flex();
        let wave = |phase: f32| {
            (Tensor::<1, Int>::arange(0..6, &device).float() * 0.7 + phase).sin().reshape([1, 1, 1, 6])
        };
        let score = |query: i32, key: i32| {
            let at = |position: i32| Tensor::<2, Int>::from_ints([[position]], &device);
            let query = Rotations::new(at(query), 6, 100.0).apply(wave(0.1));
            let key = Rotations::new(at(key), 6, 100.0).apply(wave(1.3));
            (query * key).sum().into_scalar::<f32>()
        };
        assert!((score(3, 1) - score(9, 7)).abs() < 1e-5);
        assert!((score(3, 1) - score(3, 2)).abs() > 1e-2);
        assert!((score(0, 0) - (wave(0.1) * wave(1.3)).sum().into_scalar::<f32>()).abs() < 1e-6);
    }
}
