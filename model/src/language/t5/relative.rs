//! Relative positions: what a key's distance adds to its score.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::T5Config;
use blip2_tensors::nn::layers::Embedding;
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor};

/// A learned addition to the scores of each head by the distance between query and key.
#[derive(Module, Debug)]
pub(super) struct RelativeBias {
    table: Embedding,
    max_distance: usize,
    bidirectional: bool,
}

impl RelativeBias {
    pub(super) fn new(config: &T5Config, bidirectional: bool, device: &Device) -> Self {
        let table = Embedding::new(config.buckets, config.heads, device);
        Self { table, max_distance: config.max_distance, bidirectional }
    }

    /// What is added to the scores of the last `rows` of `seen` positions.
    ///
    /// # Shapes
    /// - output `[1, heads, rows, seen]`
    pub(super) fn scores(&self, rows: usize, seen: usize) -> Tensor<4> {
        let weight = self.table.weight.val();
        let buckets = Buckets {
            count: weight.dims()[0],
            max_distance: self.max_distance,
            bidirectional: self.bidirectional,
        };
        let ids: Vec<i32> = (seen - rows..seen)
            .flat_map(|query| (0..seen).map(move |key| buckets.of(key as i64 - query as i64) as i32))
            .collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [rows, seen]), &weight.device());
        self.table.forward(ids).permute([2, 0, 1]).unsqueeze::<4>()
    }
}

impl NamedTensors for RelativeBias {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        self.table.visit_tensors(prefix, visitor)
    }
}

/// How distances share the rows of the table: the small ones have one each, larger ones share by their
/// logarithm.
#[derive(Debug, Clone, Copy)]
struct Buckets {
    count: usize,
    max_distance: usize,
    bidirectional: bool,
}

impl Buckets {
    /// The row for a key that stands `offset` positions after its query.
    fn of(self, offset: i64) -> usize {
        let (count, first) = match self.bidirectional {
            true => (self.count / 2, if offset > 0 { self.count / 2 } else { 0 }),
            false => (self.count, 0),
        };
        let distance = if self.bidirectional { offset.unsigned_abs() } else { (-offset).max(0) as u64 };
        let exact = count / 2;
        if distance < exact as u64 {
            return first + distance as usize;
        }
        // In float32, as the reference computes it: at powers of two the last bit decides.
        let ratio =
            (distance as f32 / exact as f32).ln() / ((self.max_distance as f64 / exact as f64).ln() as f32);
        first + (exact + (ratio * (count - exact) as f32) as usize).min(count - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_equal_the_published_ones() {
        let bidirectional = Buckets { count: 32, max_distance: 128, bidirectional: true };
        for (offset, want) in [
            (-200, 15),
            (-128, 15),
            (-64, 14),
            (-20, 10),
            (-16, 10),
            (-9, 8),
            (-8, 8),
            (-7, 7),
            (-1, 1),
            (0, 0),
            (1, 17),
            (7, 23),
            (8, 24),
            (16, 26),
            (64, 30),
            (127, 31),
            (200, 31),
        ] {
            assert_eq!(bidirectional.of(offset), want, "both directions, {offset}");
        }
        let causal = Buckets { bidirectional: false, ..bidirectional };
        for (offset, want) in [
            (-200, 31),
            (-128, 31),
            (-64, 26),
            (-20, 17),
            (-16, 16),
            (-9, 9),
            (-8, 8),
            (-1, 1),
            (0, 0),
            (5, 0),
        ] {
            assert_eq!(causal.of(offset), want, "backwards, {offset}");
        }
    }

    #[test]
    fn the_last_rows_are_those_of_all() {
        let device = Device::flex();
        let config = T5Config { heads: 3, buckets: 8, max_distance: 16, ..T5Config::default() };
        let mut bias = RelativeBias::new(&config, false, &device);
        let wave = Tensor::<1, Int>::arange(0..24, &device).float().sin().reshape([8, 3]);
        bias.table.weight = burn::module::Param::from_tensor(wave);
        let (all, last) = (bias.scores(9, 9), bias.scores(2, 9));
        assert_eq!(last.dims(), [1, 3, 2, 9]);
        assert_eq!(all.narrow(2, 7, 2).into_data(), last.into_data());
    }
}
