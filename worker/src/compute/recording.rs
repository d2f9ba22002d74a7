//! A committed step in the numbers of this process.

use blip2_proto::v1::DeviceUse;
use blip2_telemetry::metric::{
    COLLECTIVE_BYTES_TOTAL, DEVICE_MEMORY_BYTES, KERNELS_COMPILED_TOTAL, STEP_DURATION_SECONDS,
    STEP_PHASE_SECONDS_TOTAL,
};

use super::holdings::{Compute, Pending};

impl Compute {
    /// Takes note of a step that is applied; what it waited for its commit is the time since it was reduced.
    pub(super) fn record(&self, step: &Pending, committed_after: f64) {
        let phase = |name, seconds| self.telemetry.add(&STEP_PHASE_SECONDS_TOTAL, &[name], seconds);
        phase("data_wait", step.data_wait);
        phase("commit", committed_after);
        for (name, seconds) in step.gradient.times.named() {
            phase(name, seconds);
        }
        self.telemetry.observe(&STEP_DURATION_SECONDS, &[], step.seconds);
        for (kind, bytes) in step.gradient.bytes.named() {
            self.telemetry.add(&COLLECTIVE_BYTES_TOTAL, &[kind], bytes as f64);
        }
        if let Some(used) = &step.device_use {
            self.record_device(used);
        }
    }

    fn record_device(&self, used: &DeviceUse) {
        let bytes =
            [("tensors", used.allocated_bytes), ("held", used.reserved_bytes), ("used", used.used_bytes)];
        for (kind, bytes) in bytes.into_iter().filter(|(_, bytes)| *bytes > 0) {
            self.telemetry.set(&DEVICE_MEMORY_BYTES, &[kind], bytes as f64);
        }
        self.telemetry.add(&KERNELS_COMPILED_TOTAL, &[], f64::from(used.kernels_compiled));
    }
}
