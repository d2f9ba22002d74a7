//! How fast a plan finds rows, and the memory it takes.

use std::time::{Duration, Instant};

use blip2_dataset::corpus::manifest::Manifest;
use blip2_dataset::plan::{Plan, PlanKey};
use blip2_random::KeyedRng;
use serde::Serialize;

use crate::error::CliError;
use blip2_telemetry::process::peak_memory_bytes;

/// How long each way of looking is measured.
const MEASURED: Duration = Duration::from_millis(1500);
/// Rows located between two looks at the clock.
const ROUND: u64 = 10_000;
/// A step that a run has after years.
const FAR_POSITION: u64 = 1 << 40;

/// The speed of a plan on one core.
#[derive(Debug, Serialize)]
pub(super) struct Speed {
    /// Rows located in a second in the order in which a loader asks: batch by batch, slot by slot.
    pub(super) locate_per_s: f64,
    /// Rows located in a second at positions drawn at random.
    pub(super) locate_anywhere_per_s: f64,
    /// Seconds to make the plan and to locate the first row of a far step.
    pub(super) resume_seconds: f64,
    /// Most memory that this process has held, the manifest included; absent where the system does not say.
    pub(super) bytes: Option<u64>,
}

/// Measures a plan of `manifest`.
pub(super) fn speed(manifest: &Manifest, key: PlanKey, slots: u32, window: u32) -> Result<Speed, CliError> {
    let began = Instant::now();
    let plan = Plan::new(manifest, key, slots, window)?;
    std::hint::black_box(plan.locate(0, FAR_POSITION));
    let resume_seconds = began.elapsed().as_secs_f64();
    let mut position = 0;
    let in_order = rate(|| {
        position += 1;
        plan.locate(
            (position / 8 % u64::from(slots)) as u32,
            position / 8 / u64::from(slots) * 8 + position % 8,
        )
    });
    let mut rng = KeyedRng::new(key.seed, "positions to measure", &[]);
    let anywhere = rate(|| {
        let drawn = rng.next_u64();
        // The remainder of a division by the slots.
        plan.locate((drawn % u64::from(slots)) as u32, (drawn >> 8) % (plan.rows() / u64::from(slots)).max(1))
    });
    let bytes = peak_memory_bytes();
    Ok(Speed { locate_per_s: in_order, locate_anywhere_per_s: anywhere, resume_seconds, bytes })
}

/// How often `look` can be done in a second.
fn rate<T>(mut look: impl FnMut() -> T) -> f64 {
    let began = Instant::now();
    let mut rounds = 0;
    while began.elapsed() < MEASURED {
        for _ in 0..ROUND {
            std::hint::black_box(look());
        }
        rounds += 1;
    }
    (rounds * ROUND) as f64 / began.elapsed().as_secs_f64()
}

/// Does `work` beside the I/O threads.
pub(super) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CliError> + Send + 'static,
) -> Result<T, CliError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| CliError::failed(format!("the planning thread failed: {error}")))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_plan_is_measured() {
        let file = blip2_dataset::corpus::manifest::ManifestFile {
            location: "/c/a.parquet".into(),
            bytes: 1,
            etag: None,
            row_groups: vec![100; 20],
            failed: Vec::new(),
        };
        let speed = speed(&Manifest::of(vec![file]), PlanKey { seed: 1, stage: 1 }, 4, 2).unwrap();
        for measured in [speed.locate_per_s, speed.locate_anywhere_per_s, speed.resume_seconds] {
            assert!(measured > 0.0 && measured.is_finite(), "{speed:?}");
        }
    }
}
