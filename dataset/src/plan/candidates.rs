//! Which row a sample uses: the planned one, or the first of the keyed draws that is usable.

use blip2_random::KeyedRng;

use super::place::{PartId, RowAddress};
use super::sample_plan::Plan;

/// Substitutes tried in place of an unusable row.
pub(crate) const SUBSTITUTE_TRIES: u32 = 64;

/// The rows a sample may use, in the order in which they are tried: the planned one, then substitutes drawn
/// by the key from the same part. A row may come up more than once.
#[derive(Debug)]
pub(crate) struct Candidates<'a> {
    plan: &'a Plan,
    part: PartId,
    position: u64,
    sample: u64,
    tried: u32,
}

impl Plan {
    /// The rows that the sample at `position` of a slot may use; `sample` is its global index, the draws'
    /// key.
    ///
    /// # Panics
    /// If `slot` is not below [`Plan::slots`].
    pub(crate) fn candidates(&self, slot: u32, position: u64, sample: u64) -> Candidates<'_> {
        Candidates { plan: self, part: self.part(slot, position), position, sample, tried: 0 }
    }
}

impl Iterator for Candidates<'_> {
    type Item = RowAddress;

    fn next(&mut self) -> Option<RowAddress> {
        let Some(draw) = self.tried.checked_sub(1) else {
            self.tried = 1;
            return Some(self.plan.locate(self.part.slot, self.position));
        };
        if draw == SUBSTITUTE_TRIES {
            return None;
        }
        self.tried += 1;
        let key = [u64::from(self.plan.key().stage), self.sample, u64::from(draw)];
        let offset = KeyedRng::new(self.plan.key().seed, "substitute", &key).below(self.plan.part_rows());
        Some(self.plan.row_of_part(self.part, offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::manifest::{Manifest, ManifestFile};
    use crate::plan::PlanKey;

    #[test]
    fn the_planned_row_comes_first_and_substitutes_from_its_part() {
        let file = ManifestFile {
            location: "/c/0".into(),
            bytes: 1,
            etag: None,
            row_groups: vec![8; 12],
            failed: Vec::new(),
        };
        let plan = Plan::new(&Manifest::of(vec![file]), PlanKey { seed: 3, stage: 2 }, 2, 2).unwrap();
        let rows: Vec<_> = plan.candidates(1, 37, 91).collect();
        assert_eq!(rows.len(), 1 + SUBSTITUTE_TRIES as usize);
        assert_eq!(rows[0], plan.locate(1, 37));
        let part = plan.part(1, 37);
        let of_part: Vec<_> = (0..plan.part_rows()).map(|offset| plan.row_of_part(part, offset)).collect();
        assert!(rows.iter().all(|row| of_part.contains(row)));
        assert_eq!(rows, plan.candidates(1, 37, 91).collect::<Vec<_>>());
        assert_ne!(rows[1..], plan.candidates(1, 37, 92).collect::<Vec<_>>()[1..]);
    }
}
