//! How the sources of a corpus take turns: a fixed, exactly proportional schedule in constant memory.
//!
//! The mixed sequence is cut into blocks of equally many rows, about a row group long, and each block belongs
//! to one source. A binary tree over the sources says which. A node deals the blocks that reach it to its two
//! halves: of its first `j` blocks, `floor(j × share + phase)` go to the left one, `share` being the left
//! half's part of the node's weight and `phase` a number in `[0, 1)` drawn by the key. That count grows by 0
//! or 1 with every block, so it deals each block to exactly one half, and numbers the blocks of either half
//! without a gap: a bijection between the blocks of the sequence and the pairs of a source and a number.
//! After any number of blocks each half has had its share to within one block, so a source at depth `d` is
//! never more than `d` blocks from its exact share.

use blip2_random::KeyedRng;

/// Shares are multiples of `2^-SHARE_BITS`.
const SHARE_BITS: u32 = 48;
const ONE: u64 = 1 << SHARE_BITS;

/// The schedule of some sources.
#[derive(Debug)]
pub(super) struct Mixture {
    /// Rows of a block.
    block: u64,
    root: Node,
    sources: usize,
}

#[derive(Debug)]
enum Node {
    Source(usize),
    Split { left_share: u64, phase: u64, halves: Box<[Node; 2]> },
}

/// How far a node's sequence of blocks has got.
#[derive(Clone, Copy)]
struct Reached {
    /// Whole blocks behind.
    blocks: u128,
    /// Rows of the block after them.
    rows: u64,
}

impl Mixture {
    /// Sources of these weights (finite and positive) that take turns in blocks of `block` rows, at least
    /// one.
    pub(super) fn new(weights: &[f64], block: u64, seed: u64, stage: u32) -> Self {
        let root = Node::of(weights, 0, &mut KeyedRng::new(seed, "source schedule", &[u64::from(stage)]));
        Self { block: block.max(1), root, sources: weights.len() }
    }

    /// How many of the first `index` rows of the mixed sequence are of each source.
    pub(super) fn rows_before(&self, index: u128) -> Vec<u128> {
        let mut counts = vec![0; self.sources];
        let block = u128::from(self.block);
        // A remainder of the block's length.
        let reached = Reached { blocks: index / block, rows: (index % block) as u64 };
        self.root.count(reached, block, &mut counts);
        counts
    }
}

impl Node {
    /// The tree over `weights`, which begin at source `first`.
    fn of(weights: &[f64], first: usize, rng: &mut KeyedRng) -> Self {
        if weights.len() <= 1 {
            return Self::Source(first);
        }
        let (left, right) = weights.split_at(weights.len() / 2);
        let sum = |weights: &[f64]| weights.iter().sum::<f64>();
        // Halved first, so that the largest weights do not overflow.
        let share = (sum(left) / 2.0) / (sum(left) / 2.0 + sum(right) / 2.0) * ONE as f64;
        let left_share = (share.round() as u64).clamp(1, ONE - 1);
        let phase = rng.below(ONE);
        let halves = [Self::of(left, first, rng), Self::of(right, first + left.len(), rng)];
        Self::Split { left_share, phase, halves: Box::new(halves) }
    }

    fn count(&self, reached: Reached, block: u128, counts: &mut [u128]) {
        let Self::Split { left_share, phase, halves } = self else {
            if let Self::Source(source) = self {
                counts[*source] = reached.blocks * block + u128::from(reached.rows);
            }
            return;
        };
        let left = blocks_to_the_left(reached.blocks, *left_share, *phase);
        let next_is_left = blocks_to_the_left(reached.blocks + 1, *left_share, *phase) > left;
        let rows = |is_next: bool| if is_next { reached.rows } else { 0 };
        halves[0].count(Reached { blocks: left, rows: rows(next_is_left) }, block, counts);
        let right = reached.blocks - left;
        halves[1].count(Reached { blocks: right, rows: rows(!next_is_left) }, block, counts);
    }
}

/// `floor((blocks × share + phase) / 2^48)`, in parts so that nothing overflows.
fn blocks_to_the_left(blocks: u128, share: u64, phase: u64) -> u128 {
    let (whole, rest) = (blocks >> SHARE_BITS, blocks & u128::from(ONE - 1));
    whole * u128::from(share) + ((rest * u128::from(share) + u128::from(phase)) >> SHARE_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_of_one_source_and_shares_are_exact() {
        for (weights, block) in [
            (&[1.0][..], 3),
            (&[2.0, 1.0], 5),
            (&[0.1, 115.0, 3.0, 10.0, 0.86, 0.1], 7),
            (&[1e300, 1e-300], 2),
        ] {
            let mixture = Mixture::new(weights, block, 9, 1);
            let total: f64 = weights.iter().map(|weight| weight / weights[0]).sum();
            let mut before = mixture.rows_before(0);
            assert!(before.iter().all(|count| *count == 0));
            for index in 1..4000u128 {
                let after = mixture.rows_before(index);
                assert_eq!(after.iter().sum::<u128>(), index);
                assert!(after.iter().zip(&before).all(|(after, before)| after >= before));
                for (count, weight) in after.iter().zip(weights) {
                    let exact = index as f64 * (weight / weights[0] / total);
                    let depth = weights.len().next_power_of_two().trailing_zeros() as f64;
                    assert!(
                        (*count as f64 - exact).abs() <= (depth + 1.0) * block as f64,
                        "{weights:?} {index}"
                    );
                }
                before = after;
            }
        }
    }

    #[test]
    fn nothing_overflows_at_the_end_of_time() {
        let mixture = Mixture::new(&[1.0, 2.0, 3.0], 1, 1, 1);
        let counts = mixture.rows_before(1 << 100);
        assert_eq!(counts.iter().sum::<u128>(), 1 << 100);
        assert!((counts[2] as f64 / (1u128 << 100) as f64 - 0.5).abs() < 1e-9);
    }
}
