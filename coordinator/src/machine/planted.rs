//! Bugs to be planted on purpose, so that the simulation can prove that it finds them.

use std::ops::Range;

use super::{Event, Machine, StoreFailure};

/// A deviation from what is right, one for each invariant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlantedBug {
    /// A step that is done by more than one member is not counted when it is committed, and committed again.
    CommitsTwice,
    /// A commit counts for two steps.
    SkipsAStep,
    /// A coordinator that is fenced off goes on.
    TwoLeaders,
    /// The first member's slots reach into the second's.
    SlotsOverlap,
    /// The digest of what one of several members used is not added up.
    CoverageDropped,
    /// A step is committed though one report is missing.
    CommitsWithoutAll,
    /// Rows in the ledger of a worker that rejoins are not taken over.
    LosesQuarantine,
    /// Skipped steps in the ledger of a worker that rejoins are not taken over.
    LosesSkips,
    /// A state that is lost is taken for the initial one though there is a checkpoint.
    StartsAfresh,
    /// What one member cannot do ends the run of all.
    OneForAll,
}

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
