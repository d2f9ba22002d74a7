//! Names of rows in files of questions, captions and results: numbers or texts.

use serde::{Deserialize, Deserializer, Serialize, de};

/// A number or a text; a text that is a number written out is that number. Numbers come first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(untagged)]
pub enum RowId {
    /// As COCO and VQA count.
    Number(i64),
    /// A file name, or any other.
    Text(String),
}

impl From<&str> for RowId {
    fn from(text: &str) -> Self {
        match text.parse::<i64>() {
            Ok(number) if number.to_string() == text => Self::Number(number),
            _ => Self::Text(text.to_owned()),
        }
    }
}

impl std::fmt::Display for RowId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for RowId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

struct Visitor;

impl de::Visitor<'_> for Visitor {
    type Value = RowId;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an id: a whole number or a text")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<RowId, E> {
        Ok(RowId::Number(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<RowId, E> {
        // What is larger keeps its digits.
        Ok(i64::try_from(number).map_or_else(|_| RowId::Text(number.to_string()), RowId::Number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<RowId, E> {
        Ok(RowId::from(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_same_however_they_are_written() {
        let read: Vec<RowId> =
            serde_json::from_str(r#"[7, "7", "07", "a", 18446744073709551615, -1]"#).unwrap();
        assert_eq!(read[0], read[1]);
        assert_eq!(read[2], RowId::Text("07".into()));
        assert_eq!(read[4].to_string(), "18446744073709551615");
        let mut sorted = read.clone();
        sorted.sort();
        assert_eq!(sorted[0], RowId::Number(-1));
        assert!(matches!(sorted[3], RowId::Text(_)), "numbers first: {sorted:?}");
        for odd in ["1.5", "null", "true", "[1]", "{}"] {
            let error = serde_json::from_str::<RowId>(odd).unwrap_err().to_string();
            assert!(error.contains("an id"), "{odd}: {error}");
        }
    }
}
