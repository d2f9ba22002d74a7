//! Places of a plan: rows and row groups of the corpus, parts of the sequence.

/// What the order of rows depends on, besides the manifest and the slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanKey {
    /// Seed of the run.
    pub seed: u64,
    /// Training stage.
    pub stage: u32,
}

/// A row of the corpus, and the epoch in which it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowAddress {
    /// Index into [`Manifest::files`](crate::corpus::manifest::Manifest::files).
    pub file: u32,
    /// Row group within the file.
    pub row_group: u32,
    /// Row within the row group.
    pub row: u32,
    /// How often the row's whole source has been used before.
    pub epoch: u64,
}

impl RowAddress {
    /// The row without the epoch: file, row group, row.
    pub fn row_id(&self) -> (u32, u32, u32) {
        (self.file, self.row_group, self.row)
    }
}

/// A slot's share of a window: a run of consecutive rows of the sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartId {
    /// Window.
    pub window: u64,
    /// Slot.
    pub slot: u32,
}

/// A row group of the corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowGroupId {
    /// Index into [`Manifest::files`](crate::corpus::manifest::Manifest::files).
    pub file: u32,
    /// Row group within the file.
    pub row_group: u32,
}
