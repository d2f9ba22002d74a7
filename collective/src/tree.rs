//! The one binary tree in which slots are summed.

use std::ops::Range;

use crate::{CollectiveError, Result, Wire};

/// The binary tree over a power of two of slots, and the format in which its sums travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SumTree {
    slots: u32,
    wire: Wire,
}

/// A node: it covers the slots `index << level .. (index + 1) << level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TreeNode {
    /// Height above the slots.
    pub level: u32,
    /// Place within the level.
    pub index: u32,
}

/// The sum of a subtree's slots.
#[derive(Debug, Clone, PartialEq)]
pub struct TreePartial {
    /// The subtree.
    pub node: TreeNode,
    /// The sum, element by element.
    pub data: Vec<f32>,
}

impl TreeNode {
    /// The slots below this node.
    pub fn slots(self) -> Range<u32> {
        self.index << self.level..(self.index + 1) << self.level
    }

    /// Whether `right` is the right child of the parent whose left child this is.
    pub(crate) fn is_left_sibling_of(self, right: Self) -> bool {
        self.level == right.level && self.index.is_multiple_of(2) && self.index + 1 == right.index
    }

    pub(crate) fn sibling(self) -> Self {
        Self { index: self.index ^ 1, ..self }
    }

    pub(crate) fn parent(self) -> Self {
        Self { level: self.level + 1, index: self.index / 2 }
    }
}

impl SumTree {
    /// A tree over `slots` leaves.
    ///
    /// # Errors
    /// `slots` is no power of two.
    pub fn new(slots: u32) -> Result<Self> {
        if !slots.is_power_of_two() {
            return Err(CollectiveError::Invalid(format!(
                "{slots} slots: the number must be a power of two"
            )));
        }
        Ok(Self { slots, wire: Wire::F32 })
    }

    /// The same tree with its sums in another format; f32 unless told.
    #[must_use]
    pub fn on_wire(self, wire: Wire) -> Self {
        Self { wire, ..self }
    }

    /// The format of the sums.
    pub fn wire(&self) -> Wire {
        self.wire
    }

    /// Number of leaves.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// The maximal subtrees that make up a contiguous range of slots, from left to right.
    pub fn nodes_of(&self, range: Range<u32>) -> Vec<TreeNode> {
        let end = range.end.min(self.slots);
        let mut nodes = Vec::new();
        let mut at = range.start;
        while at < end {
            let aligned = if at == 0 { self.slots.trailing_zeros() } else { at.trailing_zeros() };
            let level = aligned.min((end - at).ilog2());
            nodes.push(TreeNode { level, index: at >> level });
            at += 1 << level;
        }
        nodes
    }
}

/// Sums a member's slots as they are computed, in slot order, in the tree's order of additions.
///
/// At most `log2(slots) + 1` buffers are alive.
#[derive(Debug)]
pub struct TreeAccumulator {
    wire: Wire,
    range: Range<u32>,
    next: u32,
    stack: Vec<TreePartial>,
}

impl TreeAccumulator {
    /// An accumulator for the slots `range` of `tree`.
    pub fn new(tree: &SumTree, range: Range<u32>) -> Self {
        let end = range.end.min(tree.slots);
        Self { wire: tree.wire, range: range.start..end, next: range.start, stack: Vec::new() }
    }

    /// Adds the buffer of the next slot.
    ///
    /// # Errors
    /// All slots are in, or the length differs from the slots before.
    pub fn push(&mut self, mut data: Vec<f32>) -> Result<()> {
        if self.next >= self.range.end {
            return Err(CollectiveError::Invalid(format!(
                "all slots of {:?} are summed already",
                self.range
            )));
        }
        if let Some(below) = self.stack.last().filter(|below| below.data.len() != data.len()) {
            return Err(CollectiveError::Invalid(format!(
                "slot {} has {} elements, the slots before it {}",
                self.next,
                data.len(),
                below.data.len()
            )));
        }
        self.wire.round(&mut data);
        let mut top = TreePartial { node: TreeNode { level: 0, index: self.next }, data };
        self.next += 1;
        while let Some(mut left) = self.stack.pop_if(|below| below.node.is_left_sibling_of(top.node)) {
            self.wire.add_floats(&top.data, &mut left.data);
            top = TreePartial { node: left.node.parent(), data: left.data };
        }
        self.stack.push(top);
        Ok(())
    }

    /// The sums of the range's maximal subtrees, from left to right: exactly [`SumTree::nodes_of`] the range.
    ///
    /// # Errors
    /// Slots are missing.
    pub fn finish(self) -> Result<Vec<TreePartial>> {
        if self.next != self.range.end {
            return Err(CollectiveError::Invalid(format!(
                "slots {}..{} are missing",
                self.next, self.range.end
            )));
        }
        Ok(self.stack)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nodes_cover_the_range_with_maximal_subtrees() {
        let tree = SumTree::new(16).expect("power of two");
        for start in 0..16 {
            for end in start..=16 {
                let nodes = tree.nodes_of(start..end);
                let slots: Vec<u32> = nodes.iter().flat_map(|node| node.slots()).collect();
                assert_eq!(slots, (start..end).collect::<Vec<_>>());
                assert!(
                    nodes.windows(2).all(|pair| !pair[0].is_left_sibling_of(pair[1])),
                    "{nodes:?} not maximal"
                );
            }
        }
    }

    #[test]
    fn the_accumulator_yields_the_nodes_of_its_range_in_tree_order() {
        let tree = SumTree::new(8).expect("power of two");
        let slot = |s: u32| vec![0.1f32 * (s as f32 + 1.0), 1e8 / (s as f32 + 3.0)];
        for start in 0..8 {
            for end in start + 1..=8 {
                let mut sums = TreeAccumulator::new(&tree, start..end);
                for s in start..end {
                    sums.push(slot(s)).expect("slot in range");
                    assert!(sums.stack.len() <= 4);
                }
                let partials = sums.finish().expect("complete");
                let nodes: Vec<TreeNode> = partials.iter().map(|p| p.node).collect();
                assert_eq!(nodes, tree.nodes_of(start..end));
                for partial in partials {
                    assert_eq!(partial.data, recursive(partial.node, &slot));
                }
            }
        }
    }

    #[test]
    fn on_a_bf16_wire_every_node_is_rounded() {
        let tree = SumTree::new(4).expect("power of two").on_wire(Wire::Bf16);
        let mut sums = TreeAccumulator::new(&tree, 0..4);
        // 1 + 2^-9 is rounded to 1; 256 + 1 is a tie that goes to the even 256.
        for value in [1.0 + 2f32.powi(-9), 256.0, 1.0, 1.0] {
            sums.push(vec![value]).expect("in range");
        }
        assert_eq!(sums.finish().expect("complete")[0].data, [258.0]);
    }

    fn recursive(node: TreeNode, slot: &impl Fn(u32) -> Vec<f32>) -> Vec<f32> {
        if node.level == 0 {
            return slot(node.index);
        }
        let child = |side| TreeNode { level: node.level - 1, index: node.index * 2 + side };
        let (left, right) = (recursive(child(0), slot), recursive(child(1), slot));
        left.iter().zip(&right).map(|(l, r)| l + r).collect()
    }

    #[test]
    fn misuse_is_an_error() {
        let tree = SumTree::new(4).expect("power of two");
        assert!(SumTree::new(6).is_err() && SumTree::new(0).is_err());
        let mut sums = TreeAccumulator::new(&tree, 0..3);
        sums.push(vec![1.0]).expect("first slot");
        assert!(sums.push(vec![1.0, 2.0]).is_err());
        assert!(sums.finish().is_err());
        let mut one = TreeAccumulator::new(&tree, 3..4);
        one.push(vec![1.0]).expect("its slot");
        assert!(one.push(vec![1.0]).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// However the slots are cut into members: the subtrees cover every slot once, and adding them pair
        /// by pair gives the very bits of one member that has all slots.
        #[test]
        fn the_sum_depends_on_the_tree_alone(
            levels in 0u32..6,
            cuts in prop::collection::btree_set(0u32..64, 0..6),
            values in prop::collection::vec(-1e6f32..1e6, 64),
            wire in prop::sample::select(vec![Wire::F32, Wire::Bf16]),
        ) {
            let slots = 1 << levels;
            let tree = SumTree::new(slots).expect("power of two").on_wire(wire);
            let sums_of = |range: Range<u32>| {
                let mut sums = TreeAccumulator::new(&tree, range.clone());
                range.for_each(|slot| sums.push(vec![values[slot as usize]]).expect("in range"));
                sums.finish().expect("complete")
            };
            let mut ends: Vec<u32> = cuts.into_iter().filter(|cut| *cut > 0 && *cut < slots).collect();
            ends.push(slots);
            let mut start = 0;
            let mut partials = Vec::new();
            for end in ends {
                let own = sums_of(start..end);
                let nodes: Vec<TreeNode> = own.iter().map(|partial| partial.node).collect();
                prop_assert_eq!(nodes, tree.nodes_of(start..end));
                partials.extend(own);
                start = end;
            }
            let covered: Vec<u32> = partials.iter().flat_map(|partial| partial.node.slots()).collect();
            prop_assert_eq!(covered, (0..slots).collect::<Vec<_>>());
            while partials.len() > 1 {
                let left = partials
                    .windows(2)
                    .position(|pair| pair[0].node.is_left_sibling_of(pair[1].node))
                    .expect("two siblings, as long as there are two nodes");
                let right = partials.remove(left + 1);
                let mut data = std::mem::take(&mut partials[left].data);
                wire.add_floats(&right.data, &mut data);
                partials[left] = TreePartial { node: right.node.parent(), data };
            }
            let whole = sums_of(0..slots).remove(0).data[0];
            prop_assert_eq!(partials[0].data[0].to_bits(), whole.to_bits());
        }
    }
}
