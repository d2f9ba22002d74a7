//! What a model writes about a unit of a set, and how that is stored: one JSON line an item.

use std::ops::Range;

use image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::captioning::{Caption, Captioner, Decoding};
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

/// What is asked about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// What the language model continues, with the question in it.
    pub prompt: String,
    /// The question alone, for a model whose Q-Former reads it; empty where nothing is asked.
    pub question: String,
}

/// A model that writes about images.
pub trait ImageWriter: Send {
    /// A text for each of `asked`; `places` say which of `images` each is about.
    ///
    /// # Errors
    /// Images or texts that cannot be used, a search that contradicts itself, a device that fails.
    fn texts(
        &self,
        images: &[RgbImage],
        places: &[usize],
        asked: &[Asked],
        decoding: &Decoding,
    ) -> Result<Vec<Caption>>;

    /// Side of its images, pixels.
    fn image_size(&self) -> usize;

    /// Whether its language model reads the prompt in an encoder of its own, as T5 does.
    fn is_encoder_decoder(&self) -> bool;

    /// The prompt that it was trained behind and puts its questions in, if there is no choice.
    fn own_prompt(&self) -> Option<String> {
        None
    }

    /// The prompt that its questions were put in, where it is known and not the published one: taken unless
    /// another is asked for.
    fn question_prompt(&self) -> Option<String> {
        None
    }
}

impl ImageWriter for Captioner {
    fn texts(
        &self,
        images: &[RgbImage],
        places: &[usize],
        asked: &[Asked],
        decoding: &Decoding,
    ) -> Result<Vec<Caption>> {
        let asked: Vec<_> =
            asked.iter().map(|asked| self.asked(&asked.question, asked.prompt.clone())).collect();
        let soft_prompts = self.encode(images)?.select(places);
        Ok(self.answer(&soft_prompts, &asked, decoding)?.into_iter().flatten().collect())
    }

    fn image_size(&self) -> usize {
        Captioner::image_size(self)
    }

    fn is_encoder_decoder(&self) -> bool {
        Captioner::is_encoder_decoder(self)
    }

    fn question_prompt(&self) -> Option<String> {
        Captioner::question_prompt(self).map(str::to_owned)
    }
}

/// The rows of items with these keys, as of [`ImageWriter::texts`].
///
/// # Errors
/// As of [`ImageWriter::texts`].
pub fn write(
    writer: &dyn ImageWriter,
    decoding: &Decoding,
    (images, places): (&[RgbImage], &[usize]),
    asked: &[Asked],
    keys: Vec<RowId>,
) -> Result<Vec<WrittenText>> {
    let texts = writer.texts(images, places, asked, decoding)?;
    let row =
        |(key, Caption { text, tokens }): (RowId, Caption)| WrittenText { key, text, tokens: tokens.len() };
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
