//! Rows held out of training: which they are, and how they are kept between evaluations.

mod settings;

use std::sync::Arc;

use blip2_dataset::corpus::columns::ColumnNames;
use blip2_dataset::corpus::samples::{Sample, read_first};
use blip2_dataset::text::{Question, TextEncoder, Tokens};
use blip2_images::transform::EvalTransform;

pub use self::settings::HeldOutSettings;
use crate::captions::caption;
use crate::error::{EvaluationError, Result};

/// Rows that are computed together, whoever computes them: what a row contributes does not depend on the
/// members.
const UNIT: usize = 16;

/// How a run's models read images and captions.
pub struct Readers {
    /// Images become bytes of the image encoder's size.
    pub transform: EvalTransform,
    /// The Q-Former's tokenizer.
    pub qformer: Arc<TextEncoder>,
    /// The language model's, which a caption must pass where there is one.
    pub language_model: Option<Arc<TextEncoder>>,
}

impl Readers {
    /// The sample as a row; `None` where it cannot be used.
    fn row(&self, sample: &Sample) -> Option<HeldOutRow> {
        if let Some(question) = &sample.question {
            let pixels = self.transform.bytes(&sample.image).ok()?;
            let tokens = self.qformer.encode(&question.text).ok()?;
            let question = Some(question.clone());
            return Some(HeldOutRow { pixels, caption: String::new(), question, tokens });
        }
        let caption = caption(sample);
        // A caption that a tokenizer cannot take is no row.
        let can_write = |encoder: &Arc<TextEncoder>| encoder.encode(&caption).is_ok();
        let pixels = self.transform.bytes(&sample.image).ok()?;
        let tokens = self.qformer.encode(&caption).ok()?;
        let usable = !caption.is_empty() && self.language_model.as_ref().is_none_or(can_write);
        usable.then_some(HeldOutRow { pixels, caption, question: None, tokens })
    }
}

/// A held-out row, ready for the models.
#[derive(Debug)]
pub struct HeldOutRow {
    /// `[3, S, S]`, not normalised.
    pub pixels: Vec<u8>,
    /// As of [`caption`]; empty where the row is a question.
    pub caption: String,
    /// The question, where questions are read.
    pub question: Option<Question>,
    /// The caption or the question for the Q-Former.
    pub tokens: Tokens,
}

impl HeldOutRow {
    /// The pixels of rows, one after the other.
    pub fn pixels_of(rows: &[Self]) -> Vec<u8> {
        rows.iter().flat_map(|row| row.pixels.iter().copied()).collect()
    }

    /// The ids and the masks of rows' tokens, one after the other.
    pub fn tokens_of(rows: &[Self]) -> (Vec<i32>, Vec<i32>) {
        let ids = rows.iter().flat_map(|row| row.tokens.ids.iter().copied()).collect();
        (ids, rows.iter().flat_map(|row| row.tokens.mask.iter().copied()).collect())
    }
}

/// All held-out rows of a run.
#[derive(Debug)]
pub struct HeldOut {
    /// In the files' order.
    pub rows: Vec<HeldOutRow>,
    /// BLAKE3 of images and texts: members with other rows are told by it.
    pub digest: [u8; 32],
}

impl HeldOut {
    /// Reads the first rows of the files that `settings` names.
    ///
    /// # Errors
    /// A file cannot be read, or fewer than two rows can be used.
    pub async fn read(
        settings: &HeldOutSettings,
        columns: &ColumnNames,
        max_pixels: u64,
        readers: Readers,
    ) -> Result<Self> {
        let keep = move |sample: Sample| readers.row(&sample);
        let read = read_first(&settings.data, columns, max_pixels, settings.rows, keep);
        let (mut rows, unusable) = read.await?;
        // A unit of one row has nothing to be told apart from.
        if rows.len() % UNIT == 1 {
            rows.pop();
        }
        if rows.is_empty() {
            return Err(EvaluationError::Configuration(format!(
                "eval.data: fewer than two of its rows can be used ({unusable} cannot)"
            )));
        }
        let mut hasher = blake3::Hasher::new();
        for row in &rows {
            hasher.update(&row.pixels).update(row.caption.as_bytes()).update(&[0]);
            if let Some(Question { text, answers }) = &row.question {
                for text in [text.as_str()].into_iter().chain(answers.all()) {
                    hasher.update(text.as_bytes()).update(&[0]);
                }
            }
        }
        tracing::info!(rows = rows.len(), unusable, "held-out rows are read");
        Ok(Self { rows, digest: hasher.finalize().into() })
    }

    /// The rows in units, in order.
    pub fn units(&self) -> impl Iterator<Item = &[HeldOutRow]> {
        self.rows.chunks(UNIT)
    }
}
