//! The range of every number: the one table behind what is refused, the JSON Schema and
//! `docs/configuration.md`.

use std::fmt;

use serde_json::{Map, Value as Json, json};
use toml::Value;

use super::stages::STEPS;
use super::{Setting, sources, stages};
use crate::error::CliError;

/// Which numbers a key takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Range {
    /// Whole ones from the first to the last.
    Whole(i64, i64),
    /// From the first to the last.
    Closed(f64, f64),
    /// Above the first, up to the last.
    Above(f64, f64),
    /// From the first on, below the last.
    Below(f64, f64),
}

use Range::{Above, Below, Closed, Whole};

const SECONDS: f64 = 1e7;
const BYTES: i64 = 1 << 50;
const PIXELS: i64 = 10_000_000_000;
const COUNT: i64 = 1_000_000;

/// Key and range, in the order of the reference.
const RANGES: &[(&str, Range)] = &[
    ("train.seed", Whole(0, i64::MAX)),
    ("train.slots", Whole(1, 65_536)),
    ("train.max_skipped_steps", Whole(0, 1000)),
    ("train.loss_rise_window", Whole(0, COUNT)),
    ("train.loss_rise_factor", Closed(1.0, 1e6)),
    ("data.window_row_groups", Whole(1, COUNT)),
    ("data.max_quarantined_share", Closed(0.0, 1.0)),
    ("data.max_pixels", Whole(1, PIXELS)),
    ("data.crop_scale", Above(0.0, 1.0)),
    ("model.image_size", Whole(0, 16_384)),
    ("model.ln_vision_eps", Above(0.0, 1.0)),
    ("model.qformer.hidden", Whole(1, 65_536)),
    ("model.qformer.layers", Whole(1, 1024)),
    ("model.qformer.heads", Whole(1, 1024)),
    ("model.qformer.intermediate", Whole(1, 1 << 20)),
    ("model.qformer.queries", Whole(1, 4096)),
    ("model.qformer.cross_attention_frequency", Whole(1, 1024)),
    ("model.qformer.max_positions", Whole(1, 65_536)),
    ("model.qformer.embed_dim", Whole(1, 65_536)),
    ("model.qformer.dropout", Below(0.0, 1.0)),
    ("loader.prefetch_bytes", Whole(0, BYTES)),
    ("loader.decode_threads", Whole(1, 1024)),
    ("loader.read_concurrency", Whole(1, 4096)),
    ("loader.read_attempts", Whole(1, 1000)),
    ("loader.hedged_percent", Whole(0, 100)),
    ("loader.disk_cache_bytes", Whole(0, BYTES)),
    ("checkpoint.every_steps", Whole(0, STEPS)),
    ("checkpoint.keep", Whole(0, COUNT)),
    ("checkpoint.mtbf_s", Closed(1.0, SECONDS)),
    ("checkpoint.max_failures", Whole(1, 1000)),
    ("coordinator.workers", Whole(1, 65_536)),
    ("coordinator.min_workers", Whole(1, 65_536)),
    ("coordinator.max_workers", Whole(0, 65_536)),
    ("coordinator.heartbeat_ms", Whole(1, 3_600_000)),
    ("coordinator.heartbeat_timeout_s", Closed(0.002, SECONDS)),
    ("coordinator.step_deadline_s", Closed(0.001, SECONDS)),
    ("coordinator.join_timeout_s", Closed(0.001, SECONDS)),
    ("coordinator.rejoin_timeout_s", Closed(0.001, SECONDS)),
    ("coordinator.max_redo", Whole(0, 1000)),
    ("coordinator.rejoin_grace_s", Closed(0.0, SECONDS)),
    ("coordinator.takeover_after_s", Closed(1.0, SECONDS)),
    ("coordinator.flap_limit", Whole(0, COUNT)),
    ("coordinator.flap_window_s", Closed(0.0, SECONDS)),
    ("coordinator.cooldown_s", Closed(0.0, SECONDS)),
    ("launch.threads_per_worker", Whole(0, 4096)),
    ("launch.restarts", Whole(0, COUNT)),
    ("eval.every_steps", Whole(0, STEPS)),
    ("eval.rows", Whole(2, 10_000)),
    ("eval.captions", Whole(0, COUNT)),
    ("eval.beams", Whole(1, 64)),
    ("eval.max_new_tokens", Whole(1, 65_536)),
    ("curation.task_row_groups", Whole(1, COUNT)),
    ("curation.max_pixels", Whole(1, PIXELS)),
    ("curation.workers", Whole(0, 1024)),
    ("curation.lease_seconds", Closed(1.0, 86_400.0)),
    ("curation.most_failures", Whole(1, COUNT)),
    ("curation.selection.top", Whole(1, COUNT)),
    ("curation.selection.min_clip_score", Closed(-1.0, 1.0)),
    ("curation.selection.min_itm_score", Closed(0.0, 1.0)),
    ("curation.selection.rules.min_words", Whole(0, COUNT)),
    ("curation.selection.rules.max_words", Whole(1, COUNT)),
    ("curation.selection.rules.min_letters", Whole(0, COUNT)),
    ("curation.selection.rules.max_word_share", Above(0.0, 1.0)),
    ("curation.models.captions", Whole(0, 1024)),
    ("curation.models.top_p", Above(0.0, 1.0)),
    ("curation.models.temperature", Closed(1e-4, 1e6)),
    ("curation.models.repetition_penalty", Closed(1e-3, 1e3)),
    ("curation.models.min_new_tokens", Whole(0, 65_536)),
    ("curation.models.max_new_tokens", Whole(1, 65_536)),
    ("curation.models.seed", Whole(0, i64::MAX)),
    ("curation.models.batch", Whole(1, 65_536)),
    ("curation.models.text_batch", Whole(1, 65_536)),
];

/// The range of a key that takes numbers.
pub(super) fn range_of(key: &str) -> Option<Range> {
    let named = RANGES.iter().find(|(known, _)| *known == key).map(|(_, range)| *range);
    named.or_else(|| stages::range_of(key)).or_else(|| sources::is_weight(key).then_some(Above(0.0, 1e12)))
}

/// Refuses the first number that is out of its range.
pub(super) fn check(settings: &[Setting]) -> Result<(), CliError> {
    let wrong = settings.iter().find_map(|setting| {
        let range = range_of(&setting.key)?;
        (!range.holds(&setting.value)).then_some((setting, range))
    });
    match wrong {
        Some((setting, range)) => Err(CliError::config(format!(
            "{} = {} ({}): out of range; allowed is {range}",
            setting.written, setting.value, setting.origin
        ))),
        None => Ok(()),
    }
}

impl Range {
    /// Whether a value is within; of a list, whether all are. What is no number is not judged.
    fn holds(self, value: &Value) -> bool {
        match value {
            Value::Integer(number) => self.holds_whole(*number),
            Value::Float(number) => self.holds_number(*number),
            Value::Array(items) => items.iter().all(|item| self.holds(item)),
            _ => true,
        }
    }

    fn holds_whole(self, number: i64) -> bool {
        match self {
            Whole(least, most) => (least..=most).contains(&number),
            _ => self.holds_number(number as f64),
        }
    }

    /// Bounds that are left out are so in float32, in which most is computed. NaN is in no range.
    fn holds_number(self, number: f64) -> bool {
        let single = number as f32;
        match self {
            Whole(least, most) => (least as f64..=most as f64).contains(&number),
            Closed(least, most) => (least..=most).contains(&number),
            Above(least, most) => single > least as f32 && number <= most,
            Below(least, most) => number >= least && single < most as f32,
        }
    }

    /// As JSON Schema says it.
    pub(super) fn schema(self) -> Map<String, Json> {
        let (least, most) = match self {
            Whole(least, most) => (json!({ "minimum": least }), json!({ "maximum": most })),
            Closed(least, most) => (json!({ "minimum": least }), json!({ "maximum": most })),
            Above(least, most) => (json!({ "exclusiveMinimum": least }), json!({ "maximum": most })),
            Below(least, most) => (json!({ "minimum": least }), json!({ "exclusiveMaximum": most })),
        };
        let parts = [least, most].into_iter().filter_map(|part| part.as_object().cloned());
        parts.flatten().collect()
    }
}

impl fmt::Display for Range {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Whole(least, i64::MAX) => write!(formatter, "{least} or more"),
            Whole(least, most) => write!(formatter, "{least} to {most}"),
            Closed(least, most) => write!(formatter, "{} to {}", Short(*least), Short(*most)),
            Above(least, most) => write!(formatter, "above {}, at most {}", Short(*least), Short(*most)),
            Below(least, most) => write!(formatter, "{} to below {}", Short(*least), Short(*most)),
        }
    }
}

/// A number without a tail of zeros.
struct Short(f64);

impl fmt::Display for Short {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 != 0.0 && !(1e-3..1e6).contains(&self.0.abs()) {
            write!(formatter, "{:e}", self.0)
        } else {
            write!(formatter, "{}", self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Layers;
    use super::*;
    use blip2_run::exit::Exit;

    /// What is tried for every number.
    const ODD: [&str; 16] = [
        "nan",
        "-nan",
        "inf",
        "-inf",
        "-1",
        "-1e-9",
        "0",
        "0.0",
        "-0.0",
        "1e300",
        "-1e300",
        "1e-300",
        "4294967296",
        "9223372036854775807",
        "-9223372036854775808",
        "0.5",
    ];

    fn numbers() -> Vec<Setting> {
        let settings = Layers::new().unwrap().finish().unwrap().settings;
        let is_number = |value: &Value| matches!(value, Value::Integer(_) | Value::Float(_));
        let holds_numbers = |value: &Value| match value {
            Value::Array(items) => items.iter().any(is_number),
            value => is_number(value),
        };
        settings.into_iter().filter(|setting| holds_numbers(&setting.value)).collect()
    }

    #[test]
    fn every_number_has_a_range_that_holds_its_default() {
        let numbers = numbers();
        assert!(numbers.len() > 80);
        for setting in &numbers {
            let range = range_of(&setting.key);
            let range = range.unwrap_or_else(|| panic!("{}: name its range in ranges.rs", setting.key));
            assert!(range.holds(&setting.value), "{} = {}", setting.key, setting.value);
        }
        for (key, _) in RANGES {
            assert!(numbers.iter().any(|setting| setting.key == *key), "{key}: there is no such number");
        }
    }

    /// Every number with every odd value: taken because it is in the range, or refused with 78 and all that
    /// is needed to mend it; by no way a panic.
    #[test]
    fn odd_values_are_in_the_range_or_refused() {
        let mut refused = 0;
        for setting in numbers() {
            let range = range_of(&setting.key).unwrap();
            for odd in ODD {
                let text = match &setting.value {
                    Value::Array(items) => format!("[{}]", vec![odd; items.len()].join(", ")),
                    _ => odd.to_owned(),
                };
                let mut layers = Layers::new().unwrap();
                let laid = layers.apply_arguments(&[format!("{}={text}", setting.key)]);
                let error = match laid.and_then(|()| layers.finish()) {
                    Ok(loaded) => {
                        let taken = loaded.settings.iter().find(|taken| taken.key == setting.key).unwrap();
                        assert!(range.holds(&taken.value), "{} = {odd} is taken: {range}", setting.key);
                        continue;
                    }
                    Err(error) => error,
                };
                refused += 1;
                let message = error.to_string();
                assert_eq!(error.exit(), Exit::BadConfig, "{message}");
                assert!(message.contains(&setting.key) && message.contains("--set"), "{message}");
            }
        }
        assert!(refused > 500, "{refused}");
    }

    #[test]
    fn a_refusal_names_key_value_origin_and_range() {
        let mut layers = Layers::new().unwrap();
        layers.apply_text("run.toml".as_ref(), "[stage1]\ntemperature = -0.07\n").unwrap();
        let text = layers.finish().unwrap_err().to_string();
        for part in ["stage1.temperature = -0.07", "run.toml:2", "1e-4 to 100"] {
            assert!(text.contains(part), "no `{part}` in {text}");
        }
        // What a later layer sets right is right.
        let mut layers = Layers::new().unwrap();
        layers.apply_text("run.toml".as_ref(), "[stage1]\ntemperature = -0.07\n").unwrap();
        layers.apply_arguments(&["stage1.temperature=0.07".to_owned()]).unwrap();
        assert!(layers.finish().is_ok());
        let mut layers = Layers::new().unwrap();
        layers.apply_text("run.toml".as_ref(), "[data.sources.a]\nweight = nan\n").unwrap();
        let text = layers.finish().unwrap_err().to_string();
        assert!(text.contains("data.sources.a.weight") && text.contains("above 0"), "{text}");
    }

    #[test]
    fn bounds_are_left_out_in_float32() {
        assert!(!Below(0.0, 1.0).holds_number(0.999_999_999) && Below(0.0, 1.0).holds_number(0.999_999));
        assert!(!Above(0.0, 1.0).holds_number(1e-60) && Above(0.0, 1.0).holds_number(1e-30));
        assert!(Closed(0.0, 1.0).holds_number(-0.0) && !Closed(0.0, 1.0).holds_number(f64::NAN));
    }
}
