//! The smallest schedule that still fails.

use crate::schedule::Plot;

/// Drops faults one at a time, again and again, as long as what is left still fails.
pub(crate) fn shrink(plot: &Plot, fails: impl Fn(&Plot) -> bool) -> Plot {
    let mut smallest = plot.clone();
    loop {
        let without = |place: usize| {
            let mut smaller = smallest.clone();
            smaller.faults.remove(place);
            smaller
        };
        // The last ones first: those after the failure go in one pass.
        match (0..smallest.faults.len()).rev().map(without).find(|smaller| fails(smaller)) {
            Some(smaller) => smallest = smaller,
            None => return smallest,
        }
    }
}
