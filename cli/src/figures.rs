//! The numbers of a status in words, what matters most first: a narrow line loses the others.

use blip2_proto::v1::{NamedValue, StatusReply};
use blip2_records::values::{HELD_OUT, is_count, value_json};
use serde_json::{Map, Value as Json};

/// Values that are too small for three decimals, with their short names.
const RATES: [(&str, &str); 2] = [("learning_rate", "lr"), ("lr", "lr")];
/// The value that is shown before all others.
const LOSS: &str = "loss";

/// Loss, speed and time left, then everything else that is known.
pub(crate) fn figures(status: &StatusReply) -> Vec<String> {
    let (first, others): (Vec<&NamedValue>, Vec<&NamedValue>) =
        status.values.iter().partition(|value| value.name == LOSS);
    let mut parts: Vec<String> = first.into_iter().map(figure).collect();
    if status.samples_per_s > 0.0 {
        parts.push(format!("{:.1} samples/s", status.samples_per_s));
    }
    if status.eta_seconds > 0.0 {
        parts.push(format!("{} left", duration(status.eta_seconds)));
    }
    parts.extend(others.into_iter().map(figure));
    if status.samples_per_s > 0.0 {
        parts.push(format!("data wait {:.0} %", status.data_wait_share * 100.0));
    }
    if status.quarantined > 0 {
        parts.push(format!("{} quarantined", count(status.quarantined as usize, "row")));
    }
    if status.skipped_steps > 0 {
        parts.push(format!("{} skipped", count(status.skipped_steps as usize, "step")));
    }
    parts
}

/// As many of the parts, from the first one on, as fit into so many columns.
pub(crate) fn fitted(parts: &[String], width: usize) -> String {
    let mut line = String::new();
    for part in parts {
        let gap = if line.is_empty() { "" } else { "  " };
        if console::measure_text_width(&line) + gap.len() + console::measure_text_width(part) > width {
            break;
        }
        line = line + gap + part;
    }
    line
}

/// The newest numbers on held-out rows; `None` before there are any.
pub(crate) fn held_out(status: &StatusReply) -> Option<String> {
    if status.held_out.is_empty() {
        return None;
    }
    let parts = status.held_out.iter().map(|value| {
        let name = value.name.strip_prefix(HELD_OUT).unwrap_or(&value.name);
        figure(&NamedValue { name: name.to_owned(), value: value.value })
    });
    let parts: Vec<String> = parts.collect();
    Some(format!("held out after step {}  {}", status.held_out_step, parts.join("  ")))
}

/// Values by name, counts as integers and what is not finite as null.
pub(crate) fn values_json(values: &[NamedValue]) -> Map<String, Json> {
    values.iter().map(|named| (named.name.clone(), value_json(&named.name, Some(named.value)))).collect()
}

fn figure(named: &NamedValue) -> String {
    let NamedValue { name, value } = named;
    if let Some((_, short)) = RATES.iter().find(|(rate, _)| rate == name) {
        return format!("{short} {value:.1e}");
    }
    let decimals = if is_count(name) || value.abs() >= 1e4 { 0 } else { 3 };
    format!("{name} {value:.decimals$}")
}

/// A number of a curve, in as many digits as tell.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1e4 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// `1 step`, `2 steps`.
pub(crate) fn count(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

/// Seconds in the two biggest units that fit.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, value: f64) -> NamedValue {
        NamedValue { name: name.to_owned(), value }
    }

    #[test]
    fn integers_look_like_integers_and_what_matters_comes_first() {
        let status = StatusReply {
            values: vec![
                named("learning_rate", 1e-3),
                named("tokens", 412.0),
                named("gradient_norm", 1.5),
                named("loss", 3.25),
            ],
            samples_per_s: 200.0,
            eta_seconds: 75.0,
            quarantined: 1,
            ..StatusReply::default()
        };
        let shown = figures(&status);
        assert_eq!(
            shown,
            [
                "loss 3.250",
                "200.0 samples/s",
                "1 min 15 s left",
                "lr 1.0e-3",
                "tokens 412",
                "gradient_norm 1.500",
                "data wait 0 %",
                "1 row quarantined"
            ]
        );
        assert_eq!(serde_json::to_string(&values_json(&status.values)["tokens"]).unwrap(), "412");
        assert!(values_json(&[named("loss", f64::NAN)])["loss"].is_null());
    }

    #[test]
    fn a_line_never_grows_wider_than_the_terminal() {
        let parts: Vec<String> = ["loss 3.250", "200.0 samples/s", "1 min left"].map(String::from).into();
        assert_eq!(fitted(&parts, 200), "loss 3.250  200.0 samples/s  1 min left");
        assert_eq!(fitted(&parts, 27), "loss 3.250  200.0 samples/s");
        assert_eq!(fitted(&parts, 26), "loss 3.250");
        assert_eq!(fitted(&parts, 9), "");
    }

    #[test]
    fn numbers_on_held_out_rows_are_named_with_their_step() {
        let mut status = StatusReply { held_out_step: 300, ..StatusReply::default() };
        assert_eq!(held_out(&status), None);
        status.held_out = vec![named("eval_loss", 2.5), named("eval_rows", 64.0)];
        assert_eq!(held_out(&status).as_deref(), Some("held out after step 300  loss 2.500  rows 64"));
    }

    #[test]
    fn durations_use_two_units() {
        let shown: Vec<String> = [0.4, 59.6, 3600.0, 90_000.0].map(duration).into();
        assert_eq!(shown, ["0 s", "1 min 0 s", "1 h 0 min", "1 d 1 h"]);
    }
}
