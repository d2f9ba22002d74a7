//! The members of an epoch and the slots they hold.

use std::ops::Range;

use crate::{CollectiveError, Result, SumTree};

/// One member of an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The coordinator's number for it.
    pub id: u32,
    /// `host:port` where its peers reach it.
    pub address: String,
    /// The slots it computes.
    pub slots: Range<u32>,
}

/// A membership epoch as one member sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    /// Number of the epoch.
    pub epoch: u64,
    /// This member's place in `members`.
    pub rank: usize,
    /// All members in slot order.
    pub members: Vec<Member>,
}

impl World {
    /// This member.
    pub fn own(&self) -> Result<&Member> {
        self.members.get(self.rank).ok_or_else(|| {
            CollectiveError::Invalid(format!(
                "rank {} in a world of {} members",
                self.rank,
                self.members.len()
            ))
        })
    }

    /// The other members with their ranks.
    pub fn peers(&self) -> impl Iterator<Item = (usize, &Member)> {
        self.members.iter().enumerate().filter(|(rank, _)| *rank != self.rank)
    }

    /// The most slots that a member has.
    pub fn most_slots(&self) -> usize {
        self.members.iter().map(|member| member.slots.len()).max().unwrap_or(0)
    }
}

/// Deals `slots` (a power of two) to `members` in contiguous ranges, in member order.
///
/// No member gets more than `ceil(slots / members)`, which is what a step's time depends on; within that, the
/// ranges are chosen so that they are made of few aligned subtrees, because every subtree is a buffer to
/// send, and then as even as can be.
///
/// # Errors
/// `slots` is no power of two, or there are no members or more than slots.
pub fn deal_slots(slots: u32, members: usize) -> Result<Vec<Range<u32>>> {
    let tree = SumTree::new(slots)?;
    if members == 0 || members > slots as usize {
        return Err(CollectiveError::Invalid(format!("{slots} slots cannot be dealt to {members} members")));
    }
    let slots = slots as usize;
    let most = slots.div_ceil(members);
    // best[m][s]: least (subtrees, sum of squared sizes) of dealing the first s slots to m members, and m's
    // size.
    let mut best: Vec<Vec<Option<Deal>>> = vec![vec![None; slots + 1]; members + 1];
    best[0][0] = Some(Deal { subtrees: 0, squares: 0, size: 0 });
    for member in 1..=members {
        for end in member..=slots.min(member * most) {
            best[member][end] = (1..=most.min(end))
                .filter_map(|size| {
                    let before = best[member - 1][end - size].as_ref()?;
                    let range = (end - size) as u32..end as u32;
                    Some(Deal {
                        subtrees: before.subtrees + tree.nodes_of(range).len(),
                        squares: before.squares + size * size,
                        size,
                    })
                })
                .min();
        }
    }
    let mut ranges = Vec::with_capacity(members);
    let mut end = slots;
    for member in (1..=members).rev() {
        // members * most >= slots and members <= slots, so a deal of all slots exists at every step back.
        let size = best[member][end].as_ref().map_or(0, |deal| deal.size);
        ranges.push((end - size) as u32..end as u32);
        end -= size;
    }
    ranges.reverse();
    Ok(ranges)
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Deal {
    subtrees: usize,
    squares: usize,
    size: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_deal_is_a_balanced_partition() {
        for slots in [1u32, 2, 4, 8, 16, 32, 64] {
            for members in 1..=slots as usize {
                let ranges = deal_slots(slots, members).expect("valid deal");
                assert_eq!(ranges.len(), members);
                assert_eq!(ranges[0].start, 0);
                assert_eq!(ranges[members - 1].end, slots);
                assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
                let most = (slots as usize).div_ceil(members);
                assert!(ranges.iter().all(|range| !range.is_empty() && range.len() <= most));
            }
        }
    }

    #[test]
    fn few_subtrees_are_preferred() {
        let tree = SumTree::new(16).expect("power of two");
        let subtrees = |members| {
            deal_slots(16, members)
                .expect("valid deal")
                .into_iter()
                .map(|r| tree.nodes_of(r).len())
                .sum::<usize>()
        };
        assert_eq!(deal_slots(16, 4).expect("valid deal"), vec![0..4, 4..8, 8..12, 12..16]);
        assert_eq!((subtrees(1), subtrees(2), subtrees(3), subtrees(5)), (1, 2, 5, 5));
    }

    #[test]
    fn impossible_deals_are_errors() {
        assert!(deal_slots(4, 0).is_err() && deal_slots(4, 5).is_err() && deal_slots(12, 2).is_err());
    }
}
