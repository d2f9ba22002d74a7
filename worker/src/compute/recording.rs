//! A committed step in the numbers of this process.

use std::borrow::Cow;
use std::time::Duration;

use blip2_collective::journal::Progress;
use blip2_proto::v1::DeviceUse;
use blip2_telemetry::metric::{
    COLLECTIVE_BYTES_TOTAL, DEVICE_MEMORY_BYTES, KERNELS_COMPILED_TOTAL, LOADER_BYTES_TOTAL,
    LOADER_READS_AGAIN_TOTAL, LOADER_ROW_GROUPS_TOTAL, LOADER_SAMPLES_TOTAL, STEP_DURATION_SECONDS,
    STEP_PHASE_SECONDS_TOTAL,
};
use blip2_telemetry::trace::Span;

use super::holdings::{Batches, Compute, Pending};

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
        self.telemetry.trace(self.spans(step, Duration::from_secs_f64(committed_after)));
    }

    /// Takes note of what a loader has read since this was done last.
    pub(super) fn record_reads(&self, batches: &mut Batches) {
        let now = batches.loader.statistics();
        let before = std::mem::replace(&mut batches.counted, now);
        let add = |metric, label, now: u64, before: u64| {
            self.telemetry.add(metric, &[label], now.saturating_sub(before) as f64);
        };
        add(&LOADER_ROW_GROUPS_TOTAL, "store", now.reads, before.reads);
        add(&LOADER_ROW_GROUPS_TOTAL, "disk_cache", now.disk_hits, before.disk_hits);
        add(&LOADER_BYTES_TOTAL, "store", now.read_bytes, before.read_bytes);
        add(&LOADER_BYTES_TOTAL, "disk_cache", now.disk_bytes, before.disk_bytes);
        add(&LOADER_SAMPLES_TOTAL, "decoded", now.found_decoded, before.found_decoded);
        add(&LOADER_SAMPLES_TOTAL, "coming", now.found_coming, before.found_coming);
        add(&LOADER_SAMPLES_TOTAL, "missing", now.found_missing, before.found_missing);
        add(&LOADER_READS_AGAIN_TOTAL, "failed", now.retried, before.retried);
        add(&LOADER_READS_AGAIN_TOTAL, "slow", now.hedged, before.hedged);
    }

    /// What the step was made of: the whole, its parts, its collectives, and the wait for its commit.
    fn spans(&self, step: &Pending, committed_after: Duration) -> Vec<Span> {
        let number = || vec![("step", step.step.into())];
        let span = |lane, name: Cow<'static, str>, began, time, facts| Span {
            lane,
            name,
            began,
            time,
            facts,
            is_beside: false,
        };
        let reduced = step.reduced;
        let mut spans = vec![
            span("step", format!("step {}", step.step).into(), step.began, reduced - step.began, number()),
            span("step", "commit".into(), reduced, committed_after, number()),
        ];
        for timed in &step.gradient.parts {
            spans.push(span(timed.lane, timed.part.into(), timed.began, timed.time, number()));
        }
        for entry in self.exchange.collectives_of(step.step) {
            let Progress::Done(time) = entry.progress else { continue };
            let mut facts = number();
            facts.extend([("bytes", entry.bytes.into()), ("epoch", entry.epoch.into())]);
            let name = format!("{} {}", entry.kind.name(), entry.tag).into();
            spans.push(Span { lane: "exchange", name, began: entry.began, time, facts, is_beside: true });
        }
        spans
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
