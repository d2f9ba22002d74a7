//! Rotary positions: queries and keys turn with their position, so that scores depend on distances.

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::LlamaConfig;
use blip2_tensors::device::cast::through_f32;

/// The rotations of a batch's positions.
#[derive(Debug, Clone)]
pub(crate) struct Rotations {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl Rotations {
    /// Element `i` of a head's first half turns together with element `i` of the second half, by
    /// `position / theta^(i / half)`, slowed as the configuration says.
    ///
    /// # Shapes
    /// - positions `[b, n]`
    pub(super) fn new(positions: Tensor<2, Int>, config: &LlamaConfig) -> Self {
        let frequencies = frequencies(config, &positions.device());
        let angles = positions.float().unsqueeze_dims::<4>(&[1, 3]) * frequencies;
        Self { cos: angles.clone().cos(), sin: angles.sin() }
    }

    /// # Shapes
    /// - x and output `[b, heads, n, head width]`
    pub(super) fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        through_f32(x, |x| self.turned(x))
    }

    fn turned(&self, x: Tensor<4>) -> Tensor<4> {
        let half = x.dims()[3] / 2;
        let (first, second) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
        let (cos, sin) = (self.cos.clone(), self.sin.clone());
        let turned = first.clone() * cos.clone() - second.clone() * sin.clone();
        Tensor::cat(vec![turned, second * cos + first * sin], 3)
    }
}

/// `[1, 1, 1, half]`.
fn frequencies(config: &LlamaConfig, device: &Device) -> Tensor<4> {
    let half = config.head_width() / 2;
    let frequency = |i: usize| {
        let published = config.rope_theta.powf(-(i as f64) / half as f64);
        config.rope_scaling.map_or(published, |scaling| scaling.slowed(published)) as f32
    };
    let values: Vec<f32> = (0..half).map(frequency).collect();
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
        let config = LlamaConfig { head_width: Some(6), rope_theta: 100.0, ..LlamaConfig::default() };
        let score = |query: i32, key: i32| {
            let at = |position: i32| Tensor::<2, Int>::from_ints([[position]], &device);
            let query = Rotations::new(at(query), &config).apply(wave(0.1));
            let key = Rotations::new(at(key), &config).apply(wave(1.3));
            (query * key).sum().into_scalar::<f32>()
        };
        assert!((score(3, 1) - score(9, 7)).abs() < 1e-5);
        assert!((score(3, 1) - score(3, 2)).abs() > 1e-2);
        assert!((score(0, 0) - (wave(0.1) * wave(1.3)).sum().into_scalar::<f32>()).abs() < 1e-6);
    }
}
