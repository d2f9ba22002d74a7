//! Adding the subtrees of all members in the tree's order.

use bytes::Bytes;

use crate::{CollectiveError, Result, SumTree, TreeNode, Wire};

/// Elements added at a time: the working set of a block stays in the first caches.
pub(crate) const BLOCK: usize = 1 << 14;

/// The additions that make the sum over all slots of subtrees that cover them.
///
/// One of the subtrees, the *home*, lies where the sum goes. Its siblings up to the root are added to it; a
/// sum of two does not depend on which of them is there first, so the bits are those of the tree.
#[derive(Debug)]
pub(crate) struct Additions {
    program: Vec<Operation>,
    /// Blocks of scratch that are needed.
    scratch: usize,
}

/// A step of the program. Place 0 is the output, place n the n-th block of scratch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Copy { source: usize, to: usize },
    Add { source: usize, to: usize },
    Fold { from: usize, to: usize },
}

/// Where a subtree's elements of a block are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Block<'a> {
    Floats(&'a [f32]),
    Wire(&'a [Bytes]),
}

impl Additions {
    /// Plans the additions to `home` of `sources`, which together cover the tree's slots once.
    pub(crate) fn plan(home: TreeNode, sources: &[TreeNode], tree: &SumTree) -> Result<Self> {
        let mut plan = Plan { sources, used: 0, program: Vec::new(), scratch: 0 };
        let mut at = home;
        while at.level < tree.slots().trailing_zeros() {
            plan.add(at.sibling(), 0)?;
            at = at.parent();
        }
        if at.index != 0 || plan.used != sources.len() {
            return Err(CollectiveError::Invalid(format!(
                "{home:?} and {sources:?} sum some of {} slots twice, or others",
                tree.slots()
            )));
        }
        Ok(Self { program: plan.program, scratch: plan.scratch })
    }

    /// Scratch for [`Additions::run`].
    pub(crate) fn scratch(&self) -> Vec<f32> {
        vec![0.0; self.scratch * BLOCK]
    }

    /// Adds one block: `out`, at most [`BLOCK`] elements, holds the home's and gets the sum.
    pub(crate) fn run(&self, wire: Wire, sources: &[Block], out: &mut [f32], scratch: &mut [f32]) {
        let length = out.len();
        for operation in &self.program {
            match *operation {
                Operation::Copy { source, to } => {
                    let to = place(to, out, scratch);
                    match sources[source] {
                        Block::Floats(values) => to.copy_from_slice(values),
                        Block::Wire(pieces) => wire.copy(pieces, to),
                    }
                }
                Operation::Add { source, to } => {
                    let to = place(to, out, scratch);
                    match sources[source] {
                        Block::Floats(values) => wire.add_floats(values, to),
                        Block::Wire(pieces) => wire.add(pieces, to),
                    }
                }
                Operation::Fold { from, to } => {
                    let (below, above) = scratch.split_at_mut((from - 1) * BLOCK);
                    wire.add_floats(&above[..length], place(to, out, below));
                }
            }
        }
    }
}

fn place<'a>(at: usize, out: &'a mut [f32], scratch: &'a mut [f32]) -> &'a mut [f32] {
    match at {
        0 => out,
        at => &mut scratch[(at - 1) * BLOCK..][..out.len()],
    }
}

struct Plan<'a> {
    sources: &'a [TreeNode],
    used: usize,
    program: Vec<Operation>,
    scratch: usize,
}

impl Plan<'_> {
    fn source(&mut self, node: TreeNode) -> Option<usize> {
        let source = self.sources.iter().position(|source| *source == node)?;
        self.used += 1;
        Some(source)
    }

    /// Adds the sum of `node` to what is in a place.
    fn add(&mut self, node: TreeNode, to: usize) -> Result<()> {
        let operation = match self.source(node) {
            Some(source) => Operation::Add { source, to },
            None => {
                let from = to + 1;
                self.put(node, from)?;
                Operation::Fold { from, to }
            }
        };
        self.program.push(operation);
        Ok(())
    }

    /// Puts the sum of `node` into a place.
    fn put(&mut self, node: TreeNode, to: usize) -> Result<()> {
        self.scratch = self.scratch.max(to);
        if let Some(source) = self.source(node) {
            self.program.push(Operation::Copy { source, to });
            return Ok(());
        }
        if node.level == 0 {
            return Err(CollectiveError::Invalid(format!("slot {} is missing", node.index)));
        }
        let left = TreeNode { level: node.level - 1, index: 2 * node.index };
        self.put(left, to)?;
        self.add(left.sibling(), to)
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::{TreeAccumulator, TreePartial, deal_slots};

    fn slot(slot: u32, length: usize) -> Vec<f32> {
        let value = |i: usize| {
            let hash = (i as u64 ^ (u64::from(slot) << 40)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            ((hash >> 40) as f32 - 8_388_608.0) * 10f32.powi((hash % 9) as i32 - 4)
        };
        (0..length).map(value).collect()
    }

    fn partials(members: usize, tree: &SumTree, length: usize) -> Vec<TreePartial> {
        let deal = deal_slots(tree.slots(), members).expect("valid deal");
        deal.into_iter()
            .flat_map(|range| {
                let mut sums = TreeAccumulator::new(tree, range.clone());
                range.for_each(|s| sums.push(slot(s, length)).expect("in range"));
                sums.finish().expect("complete")
            })
            .collect()
    }

    #[test]
    fn the_bits_depend_neither_on_who_holds_which_slots_nor_on_where_the_sum_is() {
        let length = 100;
        for wire in [Wire::F32, Wire::Bf16] {
            let tree = SumTree::new(16).expect("power of two").on_wire(wire);
            let whole = partials(1, &tree, length).remove(0).data;
            for members in 1..=16 {
                let parts = partials(members, &tree, length);
                for home in 0..parts.len() {
                    let mut others = parts.clone();
                    let mut out = others.remove(home);
                    others.reverse();
                    let nodes: Vec<TreeNode> = others.iter().map(|part| part.node).collect();
                    let additions = Additions::plan(out.node, &nodes, &tree).expect("covers all slots");
                    // Every other source as it travels, in two pieces.
                    let sent: Vec<[Bytes; 2]> = others
                        .iter()
                        .map(|part| {
                            let mut bytes = BytesMut::new();
                            wire.encode(&part.data, &mut bytes);
                            let mut bytes = bytes.freeze();
                            [bytes.split_to(33), bytes]
                        })
                        .collect();
                    let blocks: Vec<Block> = (0..others.len())
                        .map(|i| match i % 2 {
                            0 => Block::Floats(&others[i].data),
                            _ => Block::Wire(&sent[i]),
                        })
                        .collect();
                    additions.run(wire, &blocks, &mut out.data, &mut additions.scratch());
                    assert!(out.data.iter().zip(&whole).all(|(a, b)| a.to_bits() == b.to_bits()));
                }
            }
        }
    }

    #[test]
    fn gaps_and_overlaps_are_errors() {
        let tree = SumTree::new(4).expect("power of two");
        let node = |level, index| TreeNode { level, index };
        let plan = |home, sources: &[TreeNode]| Additions::plan(home, sources, &tree);
        assert!(plan(node(1, 0), &[]).is_err());
        assert!(plan(node(1, 0), &[node(0, 3)]).is_err());
        assert!(plan(node(2, 0), &[node(0, 3)]).is_err());
        assert!(plan(node(1, 0), &[node(1, 1), node(0, 3)]).is_err());
        assert!(plan(node(0, 9), &[]).is_err());
        assert!(plan(node(1, 1), &[node(0, 1), node(0, 0)]).is_ok());
    }
}
