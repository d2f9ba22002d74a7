//! Bugs to be planted on purpose, so that the simulation can prove that it finds them.

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
