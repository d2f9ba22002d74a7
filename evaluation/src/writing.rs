//! What a model writes about a unit of a set, and how that is stored: one JSON line an item.

use std::ops::Range;

use image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::captioning::{Captioner, Decoding};
use crate::error::Result;
use crate::row_id::RowId;

/// An item's text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenText {
    /// The image or the question.
    pub key: RowId,
    /// What was written, trimmed.
    pub text: String,
    /// Its tokens, the end token included.
    pub tokens: usize,
}

/// The texts of items: `prompts` are those of the items, `places` say which of `images` is each one's.
///
/// # Errors
/// As of [`Captioner::encode`] and [`Captioner::generate`].
pub fn write(
    captioner: &Captioner,
    decoding: &Decoding,
    images: &[RgbImage],
    places: &[usize],
    prompts: &[String],
    keys: Vec<RowId>,
) -> Result<Vec<WrittenText>> {
    let soft_prompts = captioner.encode(images)?.select(places);
    let texts = captioner.generate(&soft_prompts, prompts, decoding)?.into_iter().flatten();
    let row = |(key, caption): (RowId, crate::captioning::Caption)| WrittenText {
        key,
        text: caption.text,
        tokens: caption.tokens.len(),
    };
    Ok(keys.into_iter().zip(texts).map(row).collect())
}

/// Rows as lines of JSON.
///
/// # Errors
/// In words, for a row that JSON cannot hold.
pub fn to_lines(rows: &[impl Serialize]) -> Result<Vec<u8>, String> {
    let mut lines = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut lines, row).map_err(|error| error.to_string())?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// The rows of so many items.
///
/// # Errors
/// In words: lines that are no such rows, or another number of them.
pub fn from_lines<T: for<'de> Deserialize<'de>>(
    items: Range<usize>,
    content: &[u8],
) -> Result<Vec<T>, String> {
    let lines = content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let rows: Vec<T> = lines
        .map(serde_json::from_slice)
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| error.to_string())?;
    match rows.len() == items.len() {
        true => Ok(rows),
        false => Err(format!("has {} rows for {} items", rows.len(), items.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_and_torn_ones_do_not() {
        let row = |key, text: &str| WrittenText { key, text: text.to_owned(), tokens: 3 };
        let rows = [row(RowId::Number(7), "a\nb"), row(RowId::Text("x.jpg".into()), "")];
        let lines = to_lines(&rows).unwrap();
        assert_eq!(from_lines::<WrittenText>(0..2, &lines).unwrap(), rows);
        assert!(from_lines::<WrittenText>(0..3, &lines).unwrap_err().contains("2 rows for 3 items"));
        assert!(from_lines::<WrittenText>(0..2, &lines[..lines.len() - 4]).is_err());
    }
}
