//! The keys of `data.sources.NAME`, whose names are the user's.

use serde_json::{Value as Json, json};
use toml::Value;

const SECTION: &str = "data.sources";
const FILES: &str = "Parquet files of the source: paths or URLs, `*` matches within the last path segment.";
const WEIGHT: &str =
    "Samples drawn from the source, relative to the weights of the others; without one, its number of rows.";

/// The key within a source, of a whole key.
fn within(key: &str) -> Option<&str> {
    let (name, own) = key.strip_prefix(SECTION)?.strip_prefix('.')?.split_once('.')?;
    (!name.is_empty()).then_some(own)
}

/// A value of the type that the key of a source has.
pub(super) fn default_of(key: &str) -> Option<Value> {
    match within(key)? {
        "files" => Some(Value::Array(Vec::new())),
        "weight" => Some(Value::Float(1.0)),
        _ => None,
    }
}

/// Whether this is the section of all sources or of one.
pub(super) fn is_section(key: &str) -> bool {
    let rest = key.strip_prefix(SECTION);
    rest.is_some_and(|rest| rest.is_empty() || (rest.starts_with('.') && !rest[1..].contains('.')))
}

/// Whether this is the weight of a source.
pub(super) fn is_weight(key: &str) -> bool {
    within(key) == Some("weight")
}

/// What the key of a source means.
pub(super) fn about(key: &str) -> &'static str {
    match within(key) {
        Some("files") => FILES,
        Some("weight") => WEIGHT,
        _ => "",
    }
}

/// The schema of all sources.
pub(super) fn json_schema() -> Json {
    let files = json!({ "type": "array", "items": { "type": "string" }, "description": FILES });
    let weight = json!({ "type": "number", "exclusiveMinimum": 0, "description": WEIGHT });
    json!({
        "type": "object",
        "description": "Sources by name, in the place of `train`.",
        "additionalProperties": {
            "type": "object",
            "additionalProperties": false,
            "required": ["files"],
            "properties": { "files": files, "weight": weight },
        },
    })
}
