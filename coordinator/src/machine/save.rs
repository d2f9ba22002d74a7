//! A checkpoint in the making.

use std::time::Duration;

use blip2_run::commit::{CheckpointRecord, ShardRecord};

/// A checkpoint of which parts are awaited, or whose COMMIT is being written.
#[derive(Debug)]
pub(super) struct Save {
    pub(super) record: CheckpointRecord,
    /// Member and part, by part index.
    pub(super) parts: Vec<(u32, Part)>,
    pub(super) until: Duration,
    /// The longest that a member's steps stood still, and that its part took.
    pub(super) stall: f64,
    pub(super) seconds: f64,
}

/// A part in the making.
#[derive(Debug, Clone)]
pub(super) enum Part {
    Awaited,
    Written(ShardRecord),
    /// It could not be stored, for this reason.
    Failed(String),
}

impl Part {
    pub(super) fn is_awaited(&self) -> bool {
        matches!(self, Self::Awaited)
    }
}

impl Save {
    /// The part that is awaited of a member.
    pub(super) fn awaited_of(&mut self, id: u32) -> Option<&mut Part> {
        self.parts.iter_mut().find(|(member, part)| *member == id && part.is_awaited()).map(|(_, part)| part)
    }

    pub(super) fn awaits(&self, id: u32) -> bool {
        self.parts.iter().any(|(member, part)| *member == id && part.is_awaited())
    }

    /// Who could not store its part, and why.
    pub(super) fn failed(&self) -> Vec<(u32, String)> {
        let failed = |(id, part): &(u32, Part)| match part {
            Part::Failed(reason) => Some((*id, reason.clone())),
            Part::Awaited | Part::Written(_) => None,
        };
        self.parts.iter().filter_map(failed).collect()
    }
}
