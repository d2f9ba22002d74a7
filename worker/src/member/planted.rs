//! Bugs to be planted on purpose, so that the simulation can prove that it finds them.

/// A deviation from what is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlantedBug {
    /// Rows that a commit names are not kept for a coordinator that takes over.
    ForgetsRows,
    /// A pending gradient is applied whatever step it is of.
    AppliesWhatIsPending,
    /// A session that is lost is not sought again.
    StaysAway,
}
