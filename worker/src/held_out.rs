//! Rows held out of training: which they are, and how they are kept between evaluations.

use blip2_dataset::corpus::samples::{Sample, read_first};
use blip2_dataset::image::transform::EvalTransform;
use blip2_dataset::text::{TextEncoder, Tokens};
use serde::{Deserialize, Serialize};

use crate::config::WorkerConfig;
use crate::error::{Result, WorkerError};
use crate::evaluate::caption;
use crate::open::qformer_text;
use crate::pictures::resampling;
use crate::step::FrozenModels;

/// Rows that are computed together, whoever computes them: what a row contributes does not depend on the members.
pub(crate) const UNIT: usize = 16;
/// Most rows: similarities of all with all are held in memory.
const MOST_ROWS: usize = 10_000;

/// Evaluation during training: it changes no bit of the result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeldOutSettings {
    /// Steps between two evaluations, which the end of a stage also is; 0: none.
    pub every_steps: u64,
    /// Parquet files of held-out rows: paths or URLs, as `data.train`.
    pub data: Vec<String>,
    /// Most rows of them, the first ones.
    pub rows: usize,
}

impl Default for HeldOutSettings {
    fn default() -> Self {
        Self { every_steps: 0, data: Vec::new(), rows: 512 }
    }
}

impl HeldOutSettings {
    /// Whether the state after `committed` steps is evaluated; `stage_end`: a stage ends with them.
    pub(crate) fn is_due(&self, committed: u64, stage_end: bool) -> bool {
        self.every_steps > 0 && (stage_end || committed.is_multiple_of(self.every_steps))
    }

    pub(crate) fn validate(&self) -> Result<()> {
        if self.every_steps == 0 {
            return Ok(());
        }
        let refuse = |reason: String| Err(WorkerError::Configuration(reason));
        if self.data.is_empty() {
            return refuse("eval.every_steps is set and eval.data is empty: name the held-out files".into());
        }
        if !(2..=MOST_ROWS).contains(&self.rows) {
            return refuse(format!("eval.rows = {}: use 2 to {MOST_ROWS}", self.rows));
        }
        Ok(())
    }
}

/// A held-out row, ready for the models.
#[derive(Debug)]
pub(crate) struct HeldOutRow {
    /// `[3, S, S]`, not normalised.
    pub(crate) pixels: Vec<u8>,
    pub(crate) caption: String,
    /// The caption for the Q-Former.
    pub(crate) tokens: Tokens,
}

/// All held-out rows of a run.
#[derive(Debug)]
pub struct HeldOut {
    pub(crate) rows: Vec<HeldOutRow>,
    /// BLAKE3 of pictures and captions: members with other rows are told by it.
    pub(crate) digest: [u8; 32],
}

impl HeldOut {
    /// Reads the rows that the configuration names.
    ///
    /// # Errors
    /// A file cannot be read, or fewer than two rows can be used.
    pub async fn read(config: &WorkerConfig, parts: &FrozenModels) -> Result<Self> {
        let resampling = resampling(&parts.processor);
        let transform = EvalTransform { resampling, ..EvalTransform::new(parts.encoder.image_size()) };
        let (text, _) = qformer_text(&config.model, config.stage1.text_length)?;
        let writes = parts.language.as_ref().map(|language| language.encoder());
        let keep = move |sample: Sample| {
            let caption = caption(&sample);
            // A caption that a tokenizer cannot take is no row.
            let can_write = |encoder: &TextEncoder| encoder.encode(&caption).is_ok();
            let pixels = transform.bytes(&sample.image).ok()?;
            let tokens = text.encode(&caption).ok()?;
            let usable = !caption.is_empty() && writes.as_deref().is_none_or(can_write);
            usable.then_some(HeldOutRow { pixels, caption, tokens })
        };
        let data = &config.data;
        let read = read_first(&config.eval.data, &data.columns, data.max_pixels, config.eval.rows, keep);
        let (mut rows, unusable) = read.await?;
        // A unit of one row has nothing to be told apart from.
        if rows.len() % UNIT == 1 {
            rows.pop();
        }
        if rows.is_empty() {
            return Err(WorkerError::Configuration(format!(
                "eval.data: fewer than two of its rows can be used ({unusable} cannot)"
            )));
        }
        let mut hasher = blake3::Hasher::new();
        for row in &rows {
            hasher.update(&row.pixels).update(row.caption.as_bytes()).update(&[0]);
        }
        tracing::info!(rows = rows.len(), unusable, "held-out rows are read");
        Ok(Self { rows, digest: hasher.finalize().into() })
    }

    /// The rows in units, in order.
    pub(crate) fn units(&self) -> impl Iterator<Item = &[HeldOutRow]> {
        self.rows.chunks(UNIT)
    }
}

#[cfg(test)]
mod tests {
    use blip2_run::exit::ExitClass as _;

    use super::*;

    #[test]
    fn evaluations_are_due_every_so_many_steps_and_at_the_ends_of_stages() {
        let settings = HeldOutSettings { every_steps: 5, data: vec!["a".into()], rows: 64 };
        let due: Vec<u64> = (1..=12).filter(|step| settings.is_due(*step, *step == 7)).collect();
        assert_eq!(due, [5, 7, 10]);
        assert!(!HeldOutSettings::default().is_due(10, true));
    }

    #[test]
    fn what_cannot_be_evaluated_names_its_key() {
        let good = HeldOutSettings { every_steps: 5, data: vec!["a".into()], rows: 64 };
        good.validate().unwrap();
        HeldOutSettings::default().validate().unwrap();
        let nothing = HeldOutSettings { data: Vec::new(), ..good.clone() };
        assert!(nothing.validate().unwrap_err().to_string().contains("eval.data"));
        for rows in [0, 1, MOST_ROWS + 1] {
            let error = HeldOutSettings { rows, ..good.clone() }.validate().unwrap_err();
            assert!(error.to_string().contains("eval.rows") && error.exit().code() == 78, "{error}");
        }
    }
}
