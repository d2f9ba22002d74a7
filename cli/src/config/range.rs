//! Which numbers a key takes: what is refused, and how `docs/configuration.md` says it.

use std::fmt;

use serde_json::Value as Json;
use toml::Value;

/// Which numbers a key takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Range {
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

impl Range {
    /// What the schema of a key, or of the entries of its list, says; `None` where it bounds no numbers.
    pub(super) fn of(schema: &Json) -> Option<Self> {
        let schema = schema.get("items").unwrap_or(schema);
        let bound = |key: &str| schema.get(key);
        match schema["type"].as_str()? {
            "integer" => Some(Whole(bound("minimum")?.as_i64()?, bound("maximum")?.as_i64()?)),
            "number" => {
                let bound = |key: &str| bound(key).and_then(Json::as_f64);
                match (bound("minimum"), bound("maximum")) {
                    (Some(least), Some(most)) => Some(Closed(least, most)),
                    (None, Some(most)) => Some(Above(bound("exclusiveMinimum")?, most)),
                    (Some(least), None) => Some(Below(least, bound("exclusiveMaximum")?)),
                    (None, None) => None,
                }
            }
            _ => None,
        }
    }

    /// Whether a value is within; of a list, whether all are. What is no number is not judged.
    pub(super) fn holds(self, value: &Value) -> bool {
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
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_says_which_numbers_it_takes() {
        let cases = [
            (json!({ "type": "integer", "minimum": 1, "maximum": 9 }), Some(Whole(1, 9))),
            (json!({ "type": "number", "minimum": 0.5, "maximum": 9 }), Some(Closed(0.5, 9.0))),
            (json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 1 }), Some(Above(0.0, 1.0))),
            (json!({ "type": "number", "minimum": 0, "exclusiveMaximum": 1 }), Some(Below(0.0, 1.0))),
            (
                json!({ "type": "array", "items": { "type": "integer", "minimum": 0, "maximum": 1 } }),
                Some(Whole(0, 1)),
            ),
            (json!({ "type": "integer", "minimum": 0 }), None),
            (json!({ "type": "string" }), None),
        ];
        for (schema, range) in cases {
            assert_eq!(Range::of(&schema), range, "{schema}");
        }
    }

    #[test]
    fn bounds_are_left_out_in_float32() {
        assert!(!Below(0.0, 1.0).holds_number(0.999_999_999) && Below(0.0, 1.0).holds_number(0.999_999));
        assert!(!Above(0.0, 1.0).holds_number(1e-60) && Above(0.0, 1.0).holds_number(1e-30));
        assert!(Closed(0.0, 1.0).holds_number(-0.0) && !Closed(0.0, 1.0).holds_number(f64::NAN));
    }
}
