//! When a run is evaluated while it trains, and on which rows.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{EvaluationError, Result};

/// Most rows: similarities of all with all are held in memory.
const MOST_ROWS: usize = 10_000;

/// Evaluation during training: it changes no bit of the result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HeldOutSettings {
    /// Steps between two evaluations on held-out rows while a run trains, which the end of a stage also is;
    /// 0: none. Changes no bit of the result.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub every_steps: u64,
    /// Parquet files of the held-out rows: paths or URLs, as `data.train`.
    pub data: Vec<String>,
    /// Most of their rows, the first ones.
    #[schemars(range(min = 2, max = MOST_ROWS))]
    pub rows: usize,
}

impl Default for HeldOutSettings {
    fn default() -> Self {
        Self { every_steps: 0, data: Vec::new(), rows: 512 }
    }
}

impl HeldOutSettings {
    /// Whether the state after `committed` steps is evaluated; `stage_end`: a stage ends with them.
    pub fn is_due(&self, committed: u64, stage_end: bool) -> bool {
        self.every_steps > 0 && (stage_end || committed.is_multiple_of(self.every_steps))
    }

    /// Refuses what cannot be evaluated.
    ///
    /// # Errors
    /// No files, or a number of rows that is out of bounds; the key is named.
    pub fn validate(&self) -> Result<()> {
        if self.every_steps == 0 {
            return Ok(());
        }
        let refuse = |reason: String| Err(EvaluationError::Configuration(reason));
        if self.data.is_empty() {
            return refuse("eval.every_steps is set and eval.data is empty: name the held-out files".into());
        }
        if !(2..=MOST_ROWS).contains(&self.rows) {
            return refuse(format!("eval.rows = {}: use 2 to {MOST_ROWS}", self.rows));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use blip2_run::exit::{Exit, ExitClass as _};

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
            assert!(error.to_string().contains("eval.rows") && error.exit() == Exit::BadConfig, "{error}");
        }
    }
}
