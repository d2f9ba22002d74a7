//! What the traces and log lines of one step are found by.

/// The trace of a step, in the form of OpenTelemetry: equal on all processes of the run without being sent,
/// since each computes it.
pub fn trace_id(run: &str, epoch: u64, step: u64) -> [u8; 16] {
    let mut hash = blake3::Hasher::new();
    hash.update(run.as_bytes()).update(b"\0");
    hash.update(&epoch.to_le_bytes()).update(&step.to_le_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&hash.finalize().as_bytes()[..16]);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_an_epoch_of_a_run_has_an_id_of_its_own() {
        let here = trace_id("a", 2, 7);
        assert_eq!(here, trace_id("a", 2, 7));
        for other in [trace_id("b", 2, 7), trace_id("a", 3, 7), trace_id("a", 2, 8)] {
            assert_ne!(other, here);
        }
    }
}
