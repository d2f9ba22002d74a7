//! Adding the subtrees of all members in the tree's order.

use rayon::prelude::*;

use crate::segments::Segments;
use crate::{CollectiveError, Result, SumTree, TreeNode};

/// Elements summed at a time: the working set of a block stays in the first caches.
const BLOCK: usize = 4096;

/// The sum over all slots, of partials that together cover every slot of `tree` once, in any order.
///
/// Returns a vector as long as each partial. The additions are those of the tree, so the bits depend on the slots'
/// values alone.
///
/// # Errors
/// The partials do not cover the slots exactly once, or differ in length.
pub fn combine(partials: &[(TreeNode, &[f32])], tree: &SumTree) -> Result<Vec<f32>> {
    let length = partials.first().map_or(0, |(_, data)| data.len());
    if let Some((node, data)) = partials.iter().find(|(_, data)| data.len() != length) {
        return Err(CollectiveError::Invalid(format!("{node:?} has {} elements, not {length}", data.len())));
    }
    let sources: Vec<(TreeNode, Source)> =
        partials.iter().map(|(node, data)| (*node, Source::Floats(data))).collect();
    let mut sum = vec![0.0; length];
    combine_into(&sources, tree, &mut sum)?;
    Ok(sum)
}

/// Where a subtree's elements are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    Floats(&'a [f32]),
    /// Little-endian f32 from byte `offset` on.
    Wire {
        segments: &'a Segments,
        offset: usize,
    },
}

impl Source<'_> {
    fn copy_to(self, first: usize, out: &mut [f32]) {
        match self {
            Self::Floats(data) => out.copy_from_slice(&data[first..first + out.len()]),
            Self::Wire { segments, offset } => {
                segments.copy_to(offset + 4 * first, bytemuck::cast_slice_mut(out))
            }
        }
    }

    fn add_to(self, first: usize, out: &mut [f32]) {
        match self {
            Self::Floats(data) => {
                for (sum, value) in out.iter_mut().zip(&data[first..]) {
                    *sum += value;
                }
            }
            Self::Wire { segments, offset } => {
                let length = 4 * out.len();
                segments.window(offset + 4 * first, length, |place, bytes| {
                    let (values, _) = bytes.as_chunks::<4>();
                    for (sum, value) in out[place / 4..].iter_mut().zip(values) {
                        *sum += f32::from_le_bytes(*value);
                    }
                });
            }
        }
    }
}

/// [`combine`] into `out`, of sources that each hold at least `out.len()` elements.
pub(crate) fn combine_into(sources: &[(TreeNode, Source)], tree: &SumTree, out: &mut [f32]) -> Result<()> {
    let additions = Additions::plan(sources, tree)?;
    let scratch = || vec![0.0f32; BLOCK * additions.depth];
    if out.len() <= BLOCK {
        additions.run(sources, 0, out, &mut scratch());
    } else {
        // Blocks are independent, so the number of threads changes no bit.
        out.par_chunks_mut(BLOCK).enumerate().for_each_init(scratch, |scratch, (block, out)| {
            additions.run(sources, block * BLOCK, out, scratch)
        });
    }
    Ok(())
}

/// The additions of the tree as a program over a stack of blocks; the stack's bottom is the output.
struct Additions {
    program: Vec<Operation>,
    /// Blocks above the output.
    depth: usize,
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    /// Put a source on the stack.
    Push(usize),
    /// Add a source to the top, its left sibling.
    Add(usize),
    /// Add the top to the block below it, its left sibling.
    Fold,
}

impl Additions {
    fn plan(sources: &[(TreeNode, Source)], tree: &SumTree) -> Result<Self> {
        let mut order: Vec<usize> = (0..sources.len()).collect();
        order.sort_by_key(|source| sources[*source].0.slots().start);
        let mut program = Vec::new();
        let mut stack: Vec<TreeNode> = Vec::new();
        let (mut covered, mut highest) = (0, 1);
        for source in order {
            let node = sources[source].0;
            if node.slots().start != covered {
                return Err(CollectiveError::Invalid(format!("slot {covered} is missing or summed twice")));
            }
            covered = node.slots().end;
            match stack.pop_if(|left| left.is_left_sibling_of(node)) {
                Some(left) => {
                    program.push(Operation::Add(source));
                    stack.push(left.parent());
                }
                None => {
                    program.push(Operation::Push(source));
                    stack.push(node);
                    highest = highest.max(stack.len());
                }
            }
            while let [.., left, right] = stack[..]
                && left.is_left_sibling_of(right)
            {
                program.push(Operation::Fold);
                stack.truncate(stack.len() - 2);
                stack.push(left.parent());
            }
        }
        if covered != tree.slots() || stack.len() != 1 {
            return Err(CollectiveError::Invalid(format!("slots {covered}..{} are missing", tree.slots())));
        }
        Ok(Self { program, depth: highest - 1 })
    }

    fn run(&self, sources: &[(TreeNode, Source)], first: usize, out: &mut [f32], scratch: &mut [f32]) {
        let length = out.len();
        let mut above: Vec<&mut [f32]> =
            scratch.chunks_mut(BLOCK).map(|block| &mut block[..length]).collect();
        // Blocks on the stack: block 0 is `out`, block n is `above[n - 1]`.
        let mut height = 0;
        for operation in &self.program {
            match *operation {
                Operation::Push(source) => {
                    height += 1;
                    let top = if height == 1 { &mut *out } else { &mut *above[height - 2] };
                    sources[source].1.copy_to(first, top);
                }
                Operation::Add(source) => {
                    let top = if height == 1 { &mut *out } else { &mut *above[height - 2] };
                    sources[source].1.add_to(first, top);
                }
                Operation::Fold => {
                    height -= 1;
                    let (lower, upper) = above.split_at_mut(height - 1);
                    let below = if height == 1 { &mut *out } else { &mut *lower[height - 2] };
                    for (sum, value) in below.iter_mut().zip(&*upper[0]) {
                        *sum += value;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segments::bytes_of;
    use crate::{TreeAccumulator, TreePartial, deal_slots};

    fn slot(slot: u32, length: usize) -> Vec<f32> {
        let value = |i: usize| {
            let hash = (i as u64 ^ (u64::from(slot) << 40)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            ((hash >> 40) as f32 - 8_388_608.0) * 10f32.powi((hash % 9) as i32 - 4)
        };
        (0..length).map(value).collect()
    }

    fn partials(members: usize, slots: u32, length: usize) -> Vec<TreePartial> {
        let tree = SumTree::new(slots).expect("power of two");
        let deal = deal_slots(slots, members).expect("valid deal");
        deal.into_iter()
            .flat_map(|range| {
                let mut sums = TreeAccumulator::new(&tree, range.clone());
                range.for_each(|s| sums.push(slot(s, length)).expect("in range"));
                sums.finish().expect("complete")
            })
            .collect()
    }

    #[test]
    fn the_bits_do_not_depend_on_who_holds_which_slots() {
        let tree = SumTree::new(16).expect("power of two");
        for length in [0, 1, 5000, 3 * BLOCK + 7] {
            let whole = partials(1, 16, length).remove(0).data;
            for members in 1..=16 {
                let mut parts = partials(members, 16, length);
                parts.reverse();
                let views: Vec<(TreeNode, &[f32])> = parts.iter().map(|p| (p.node, &p.data[..])).collect();
                let sum = combine(&views, &tree).expect("covers all slots");
                assert!(sum.iter().zip(&whole).all(|(a, b)| a.to_bits() == b.to_bits()), "{members} members");
                assert_eq!(sum.len(), length);
            }
        }
    }

    #[test]
    fn wire_pieces_sum_to_the_same_bits() {
        let tree = SumTree::new(4).expect("power of two");
        let length = 2 * BLOCK + 3;
        let whole = partials(1, 4, length).remove(0).data;
        let received: Vec<(TreeNode, Segments)> = partials(4, 4, length)
            .into_iter()
            .map(|partial| {
                let bytes = bytes_of(partial.data);
                let mut segments = Segments::default();
                segments.push(bytes::Bytes::from_static(&[0; 8]));
                (0..bytes.len())
                    .step_by(1000)
                    .for_each(|at| segments.push(bytes.slice(at..bytes.len().min(at + 1000))));
                (partial.node, segments)
            })
            .collect();
        let sources: Vec<(TreeNode, Source)> =
            received.iter().map(|(node, segments)| (*node, Source::Wire { segments, offset: 8 })).collect();
        let mut sum = vec![0.0; length];
        combine_into(&sources, &tree, &mut sum).expect("covers all slots");
        assert_eq!(sum, whole);
    }

    #[test]
    fn gaps_overlaps_and_lengths_are_errors() {
        let tree = SumTree::new(4).expect("power of two");
        let node = |level, index| TreeNode { level, index };
        let one = [1.0f32];
        assert!(combine(&[], &tree).is_err());
        assert!(combine(&[(node(1, 0), &one[..])], &tree).is_err());
        assert!(combine(&[(node(1, 0), &one[..]), (node(0, 3), &one)], &tree).is_err());
        assert!(combine(&[(node(2, 0), &one[..]), (node(0, 3), &one)], &tree).is_err());
        assert!(combine(&[(node(1, 0), &one[..]), (node(1, 1), &[1.0, 2.0])], &tree).is_err());
        assert_eq!(combine(&[(node(1, 1), &one[..]), (node(1, 0), &one)], &tree), Ok(vec![2.0]));
    }
}
