//! The values of a step by name: counts as integers, and null for what is not finite.

use std::collections::BTreeMap;

use serde::Serializer;
use serde_json::{Value as Json, json};

/// Values that count things: they are shown without a fraction.
const COUNTS: [&str; 3] = ["tokens", "eval_rows", "eval_failures"];
/// How the names of values begin that were measured on held-out rows.
pub const HELD_OUT: &str = "eval_";

/// Values by name, for `serde`.
///
/// # Errors
/// Those of the serialiser.
pub fn serialize_values<S: Serializer>(
    values: &BTreeMap<String, Option<f64>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(values.iter().map(|(name, value)| (name, value_json(name, *value))))
}

/// A value as JSON.
pub fn value_json(name: &str, value: Option<f64>) -> Json {
    match value.filter(|value| is_count(name) && value.is_finite()) {
        Some(count) => json!(count as u64),
        None => json!(value),
    }
}

/// Whether the value of this name counts things.
pub fn is_count(name: &str) -> bool {
    COUNTS.contains(&name) || COUNTS.iter().any(|count| count.strip_prefix(HELD_OUT) == Some(name))
}
