//! What planted bugs change.

use std::ops::Range;

use super::interface::{Event, StoreFailure};
use super::planted_bug::PlantedBug;
use super::state::Machine;

impl Machine {
    /// Plants a bug.
    pub fn plant(&mut self, bug: PlantedBug) {
        self.planted = Some(bug);
    }

    pub(super) fn has(&self, bug: PlantedBug) -> bool {
        self.planted == Some(bug)
    }

    pub(super) fn unfenced(&self, event: Event) -> Event {
        match event {
            Event::EpochTaken { epoch, result: Err(StoreFailure::Fenced(_)) }
                if self.has(PlantedBug::TwoLeaders) =>
            {
                Event::EpochTaken { epoch, result: Ok(()) }
            }
            Event::EpochConfirmed { result: Err(StoreFailure::Fenced(_)) }
                if self.has(PlantedBug::TwoLeaders) =>
            {
                Event::EpochConfirmed { result: Ok(()) }
            }
            event => event,
        }
    }

    pub(super) fn overlapped(&self, mut members: Vec<(u32, Range<u32>)>) -> Vec<(u32, Range<u32>)> {
        if self.has(PlantedBug::SlotsOverlap) && members.len() > 1 {
            members[0].1.end += 1;
        }
        members
    }
}
