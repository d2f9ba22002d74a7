//! Committed steps as TensorBoard reads them.

use blip2_telemetry::event_file::scalars;

use super::record::StepRecord;

/// The numbers of a committed step: those of the stage under its name, those on held-out rows as
/// `held_out/…`.
pub(super) fn event_of(record: &StepRecord) -> Vec<u8> {
    let tag = |name: &str| match name.strip_prefix("eval_") {
        Some(measured) => format!("held_out/{measured}"),
        None => format!("{}/{name}", record.stage_name),
    };
    let values = record.values.iter().map(|(name, value)| (tag(name), value.unwrap_or(f64::NAN)));
    let rate = if record.seconds > 0.0 { record.samples as f64 / record.seconds } else { 0.0 };
    let times = [
        ("run/step_seconds", record.seconds),
        ("run/data_wait_seconds", record.data_wait_seconds),
        ("run/samples_per_second", rate),
    ];
    scalars(record.step, values.chain(times.map(|(tag, value)| (tag.to_owned(), value))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::record::tests::record;

    #[test]
    fn a_step_has_its_values_under_the_stages_name() {
        let text = String::from_utf8_lossy(&event_of(&record(3, 2.5))).into_owned();
        for name in ["generate/loss", "run/step_seconds", "run/data_wait_seconds", "run/samples_per_second"] {
            assert!(text.contains(name), "{name}: {text}");
        }
    }
}
