//! Rehearsing faults: a process waits at a named place, so that it can be killed or paused exactly there.
//!
//! Or a worker's card fails there, as far as the worker can tell.
//!
//! `BLIP2_DRILL=PHASE@STEP:MILLISECONDS` (several, comma separated) makes a worker or a coordinator say
//! `drill PHASE@STEP` as a warning of its log when it first comes to that place, and wait there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Name of the environment variable.
pub const DRILL_VARIABLE: &str = "BLIP2_DRILL";

/// A place at which a process can be told to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrillPhase {
    /// Worker: before it takes up an assignment. The step is the assignment's.
    Join,
    /// Worker: in the forward pass of the step.
    Forward,
    /// Worker: before the gradients of the step are summed.
    Reduction,
    /// Worker: before the committed step is applied. Coordinator: before the step's Commit is sent.
    Commit,
    /// Worker: before its part of the checkpoint after this many committed steps is stored.
    Upload,
    /// Coordinator: before the epoch whose first step this is, is taken.
    Election,
    /// Coordinator: before the COMMIT of the checkpoint after this many committed steps is written.
    Checkpoint,
    /// Worker: in the forward pass of the step its card has no memory left, after the wait.
    CardMemory,
    /// Worker: in the forward pass of the step a kernel fails, after the wait.
    CardFault,
}

/// Every phase with its name.
const PHASES: [(&str, DrillPhase); 9] = [
    ("join", DrillPhase::Join),
    ("forward", DrillPhase::Forward),
    ("reduction", DrillPhase::Reduction),
    ("commit", DrillPhase::Commit),
    ("upload", DrillPhase::Upload),
    ("election", DrillPhase::Election),
    ("checkpoint", DrillPhase::Checkpoint),
    ("card-memory", DrillPhase::CardMemory),
    ("card-fault", DrillPhase::CardFault),
];

/// The places at which this process waits, each once. Clones share which of them were passed.
#[derive(Debug, Clone, Default)]
pub struct Drill {
    points: Arc<[Point]>,
}

#[derive(Debug)]
struct Point {
    phase: DrillPhase,
    step: u64,
    wait: Duration,
    passed: AtomicBool,
}

/// A drill that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillError {
    /// The part in question.
    point: String,
}

impl std::fmt::Display for DrillError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = PHASES.iter().map(|(name, _)| *name).collect();
        write!(
            f,
            "{DRILL_VARIABLE}: {:?} is not PHASE@STEP:MILLISECONDS, with a phase of {}",
            self.point,
            names.join(", ")
        )
    }
}

impl std::error::Error for DrillError {}

impl Drill {
    /// The drill that the environment asks for; none without the variable.
    ///
    /// # Errors
    /// The variable's value cannot be understood.
    pub fn from_environment() -> Result<Self, DrillError> {
        match std::env::var_os(DRILL_VARIABLE) {
            Some(text) => Self::parse(&text.to_string_lossy()),
            None => Ok(Self::default()),
        }
    }

    /// Reads `PHASE@STEP:MILLISECONDS`, several separated by commas; an empty text is no drill.
    ///
    /// # Errors
    /// A part cannot be understood.
    pub fn parse(text: &str) -> Result<Self, DrillError> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let points = parts.map(|part| point(part).ok_or_else(|| DrillError { point: part.to_owned() }));
        Ok(Self { points: points.collect::<Result<Vec<_>, _>>()?.into() })
    }

    /// How long to wait at this place, the first time it is reached; it is announced in the log.
    ///
    /// The caller waits in its own way: an asynchronous task or a thread.
    pub fn reached(&self, phase: DrillPhase, step: u64) -> Option<Duration> {
        let point = self.points.iter().find(|point| {
            point.phase == phase && point.step == step && !point.passed.swap(true, Ordering::Relaxed)
        })?;
        let (name, _) = PHASES.iter().find(|(_, named)| *named == phase)?;
        tracing::warn!("drill {name}@{step}");
        Some(point.wait)
    }
}

fn point(text: &str) -> Option<Point> {
    let (name, place) = text.split_once('@')?;
    let (step, wait) = place.split_once(':')?;
    let (_, phase) = PHASES.iter().find(|(known, _)| *known == name)?;
    let wait = Duration::from_millis(wait.parse().ok()?);
    Some(Point { phase: *phase, step: step.parse().ok()?, wait, passed: AtomicBool::new(false) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_is_waited_at_once() {
        let drill = Drill::parse("commit@3:250, upload@4:1").expect("understood");
        assert_eq!(drill.reached(DrillPhase::Commit, 2), None);
        assert_eq!(drill.reached(DrillPhase::Upload, 3), None);
        assert_eq!(drill.clone().reached(DrillPhase::Commit, 3), Some(Duration::from_millis(250)));
        assert_eq!(drill.reached(DrillPhase::Commit, 3), None);
        assert_eq!(drill.reached(DrillPhase::Upload, 4), Some(Duration::from_millis(1)));
        assert_eq!(Drill::parse("").expect("none").reached(DrillPhase::Join, 0), None);
    }

    #[test]
    fn nonsense_is_named() {
        for text in ["commit", "commit@3", "commit@x:1", "commit@1:", "lunch@1:1", "join@0:5,oops"] {
            let error = Drill::parse(text).expect_err(text).to_string();
            assert!(error.contains("PHASE@STEP:MILLISECONDS") && error.contains("reduction"), "{error}");
        }
    }
}
