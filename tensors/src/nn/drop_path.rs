//! Drop path: branches of a block that are left out for single images (Huang et al., arXiv 1603.09382).
//!
//! Which ones is a function of a key, the block, the branch and the image's row, so that a block that is
//! computed again leaves out the same.

use burn::tensor::{Device, Tensor, TensorData};

use crate::fused::hash;

/// The two branches of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Branch {
    /// Attention.
    Attention,
    /// The feed-forward part.
    FeedForward,
}

/// How often the branches of an encoder are left out, and by which key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DropPath {
    rate: f64,
    key: u32,
}

impl DropPath {
    /// No branch is left out.
    pub fn off() -> Self {
        Self { rate: 0.0, key: 0 }
    }

    /// The last block's branches are left out with probability `rate`, in `0..1`; those of the blocks below
    /// with one that falls linearly to zero at the first.
    pub fn keyed(rate: f64, key: u32) -> Self {
        Self { rate, key }
    }

    /// What block `index` of `depth` makes of `rows` images.
    pub fn of_block(&self, index: usize, depth: usize, rows: usize, device: &Device) -> BlockPaths {
        let rate = self.rate * index as f64 / depth.saturating_sub(1).max(1) as f64;
        if rate <= 0.0 {
            return BlockPaths::kept();
        }
        BlockPaths(Some([Branch::Attention, Branch::FeedForward].map(|branch| {
            let factors: Vec<f32> = (0..rows).map(|row| self.factor(rate, index, branch, row)).collect();
            Tensor::from_data(TensorData::new(factors, [rows, 1, 1]), device)
        })))
    }

    /// 0 where the branch is left out, `1 / (1 - rate)` where it is kept.
    fn factor(&self, rate: f64, block: usize, branch: Branch, row: usize) -> f32 {
        let call = 2 * block as u32 + u32::from(branch == Branch::FeedForward);
        let key = hash(self.key ^ hash(call.wrapping_add(0x9E37_79B9)));
        let drawn = f64::from(hash(key ^ row as u32) >> 8) / f64::from(1u32 << 24);
        if drawn < rate { 0.0 } else { (1.0 / (1.0 - rate)) as f32 }
    }
}

/// What the branches of one block are multiplied by, a number for each image; nothing where all are kept.
#[derive(Debug, Clone)]
pub struct BlockPaths(Option<[Tensor<3>; 2]>);

impl BlockPaths {
    /// All branches as they are.
    pub fn kept() -> Self {
        Self(None)
    }

    /// What is left of a branch, `[b, tokens, width]`.
    pub fn scale(&self, branch: Branch, x: Tensor<3>) -> Tensor<3> {
        match &self.0 {
            Some(factors) => x * factors[usize::from(branch == Branch::FeedForward)].clone(),
            None => x,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::read_back::floats;

    fn factors(paths: BlockPaths) -> [Vec<f32>; 2] {
        paths.0.unwrap().map(|factors| floats(factors).unwrap())
    }

    #[test]
    fn rates_grow_linearly_and_kept_branches_keep_the_mean() {
        let (device, path) = (Device::flex(), DropPath::keyed(0.4, 7));
        assert!(path.of_block(0, 5, 4, &device).0.is_none());
        assert!(DropPath::off().of_block(4, 5, 4, &device).0.is_none());
        for (block, rate) in [(2, 0.2), (4, 0.4)] {
            for factors in factors(path.of_block(block, 5, 4000, &device)) {
                let kept = factors.iter().filter(|factor| **factor > 0.0).count() as f64 / 4000.0;
                assert!((kept - (1.0 - rate)).abs() < 0.03, "block {block}: {kept}");
                let value = (1.0 / (1.0 - rate)) as f32;
                assert!(factors.iter().all(|factor| *factor == 0.0 || *factor == value), "{value}");
            }
        }
    }

    #[test]
    fn what_is_left_out_depends_on_key_block_branch_and_row() {
        let device = Device::flex();
        let of = |key, block| factors(DropPath::keyed(0.5, key).of_block(block, 4, 64, &device));
        assert_eq!(of(1, 3), of(1, 3));
        assert_ne!(of(1, 3), of(2, 3));
        let [attention, feed_forward] = of(1, 3);
        assert_ne!(attention, feed_forward);
        let dropped = |factors: &[f32]| factors.iter().map(|factor| *factor == 0.0).collect::<Vec<_>>();
        assert_ne!(dropped(&attention), dropped(&of(1, 2)[0]));
        // A row's part does not depend on how many there are.
        let fewer = factors(DropPath::keyed(0.5, 1).of_block(3, 4, 16, &device));
        assert_eq!(fewer[0], attention[..16]);
    }
}
