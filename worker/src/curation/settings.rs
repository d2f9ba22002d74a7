//! Which models caption and score, and how texts are written.

use blip2_dataset::CurationMode;
use blip2_model::device::DeviceName;
use serde::{Deserialize, Serialize};

use crate::error::{Result, WorkerError};

/// The models of a curation; all but `batch`, `text_batch` and `device` decide what is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CurationModelSettings {
    /// Folder of what writes captions: BLIP's captioner, or an exported BLIP-2; by the `model_type` of its configuration.
    pub captioner: String,
    /// Folder of a `CLIPModel` that scores texts; empty: no such scores.
    pub clip: String,
    /// Folder of a `BlipForImageTextRetrieval` that scores texts; empty: no such scores.
    pub itm: String,
    /// What each caption continues; not a part of it.
    pub prompt: String,
    /// Captions written about a picture; 0: none.
    pub captions: usize,
    /// Tokens are drawn from the likeliest that together have this probability.
    pub top_p: f64,
    /// Divides the scores of tokens before a draw.
    pub temperature: f32,
    /// Above 1, tokens that occurred before, in the prompt too, become less likely.
    pub repetition_penalty: f32,
    /// No caption ends before so many tokens.
    pub min_new_tokens: usize,
    /// Longest caption in tokens.
    pub max_new_tokens: usize,
    /// Key of the draws.
    pub seed: u64,
    /// Pictures computed at a time.
    pub batch: usize,
    /// Texts scored at a time.
    pub text_batch: usize,
    /// `cpu`, `cuda`, `cuda:N`, `vulkan`, `vulkan:N` or `auto`.
    pub device: String,
}

impl Default for CurationModelSettings {
    fn default() -> Self {
        Self {
            captioner: String::new(),
            clip: String::new(),
            itm: String::new(),
            prompt: "a picture of".into(),
            captions: 10,
            top_p: 0.9,
            temperature: 1.0,
            repetition_penalty: 1.1,
            min_new_tokens: 0,
            max_new_tokens: 30,
            seed: 0,
            batch: 16,
            text_batch: 64,
            device: "cpu".into(),
        }
    }
}

impl CurationModelSettings {
    /// Whether the settings can be used where texts are judged in this `mode`.
    ///
    /// # Errors
    /// [`WorkerError::Configuration`] that names the key.
    pub fn validate(&self, mode: CurationMode) -> Result<()> {
        match mode {
            CurationMode::Rank if self.clip.is_empty() => {
                return refuse("clip", "empty, and the mode \"rank\" is by CLIP's scores: name a folder");
            }
            CurationMode::Filter if self.itm.is_empty() => {
                return refuse("itm", "empty, and the mode \"filter\" is by its scores: name a folder");
            }
            _ => {}
        }
        if self.captions > 0 && self.captioner.is_empty() {
            return refuse("captioner", "empty: name a folder, or set curation.models.captions = 0");
        }
        for (key, value) in
            [("max_new_tokens", self.max_new_tokens), ("batch", self.batch), ("text_batch", self.text_batch)]
        {
            if value == 0 {
                return refuse(key, "at least 1");
            }
        }
        if self.min_new_tokens > self.max_new_tokens {
            return refuse("min_new_tokens", "more than max_new_tokens");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refuse("top_p", "above 0, at most 1");
        }
        for (key, value) in
            [("temperature", self.temperature), ("repetition_penalty", self.repetition_penalty)]
        {
            if !(value.is_finite() && value > 0.0) {
                return refuse(key, "above 0");
            }
        }
        self.device_name().map(|_| ())
    }

    /// The device that is meant.
    pub(super) fn device_name(&self) -> Result<DeviceName> {
        self.device.parse().or_else(|error| refuse("device", &format!("{error}")))
    }
}

/// The error of a key under `curation.models`.
pub(super) fn refuse<T>(key: &str, reason: &str) -> Result<T> {
    Err(WorkerError::Configuration(format!("curation.models.{key}: {reason}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> CurationModelSettings {
        CurationModelSettings {
            captioner: "a".into(),
            clip: "b".into(),
            itm: "c".into(),
            ..CurationModelSettings::default()
        }
    }

    #[test]
    fn a_mode_needs_the_model_that_decides() {
        let error = |settings: &CurationModelSettings, mode| settings.validate(mode).unwrap_err().to_string();
        assert!(full().validate(CurationMode::Rank).is_ok() && full().validate(CurationMode::Filter).is_ok());
        let no_clip = CurationModelSettings { clip: String::new(), ..full() };
        assert!(error(&no_clip, CurationMode::Rank).contains("curation.models.clip"));
        assert!(no_clip.validate(CurationMode::Filter).is_ok());
        let no_itm = CurationModelSettings { itm: String::new(), ..full() };
        assert!(error(&no_itm, CurationMode::Filter).contains("curation.models.itm"));
        let silent = CurationModelSettings { captioner: String::new(), ..full() };
        assert!(error(&silent, CurationMode::Rank).contains("captions = 0"));
        assert!(CurationModelSettings { captions: 0, ..silent }.validate(CurationMode::Rank).is_ok());
    }

    #[test]
    fn values_out_of_range_are_named() {
        for (settings, key) in [
            (CurationModelSettings { batch: 0, ..full() }, "batch"),
            (CurationModelSettings { text_batch: 0, ..full() }, "text_batch"),
            (CurationModelSettings { max_new_tokens: 0, ..full() }, "max_new_tokens"),
            (CurationModelSettings { min_new_tokens: 31, ..full() }, "min_new_tokens"),
            (CurationModelSettings { top_p: f64::NAN, ..full() }, "top_p"),
            (CurationModelSettings { temperature: 0.0, ..full() }, "temperature"),
            (CurationModelSettings { repetition_penalty: -1.0, ..full() }, "repetition_penalty"),
            (CurationModelSettings { device: "gpu".into(), ..full() }, "device"),
        ] {
            let error = settings.validate(CurationMode::Rank).unwrap_err();
            assert!(error.to_string().contains(&format!("curation.models.{key}: ")), "{error}");
            assert_eq!(error.exit_code(), 78);
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(toml::from_str::<CurationModelSettings>("captions = 3").is_ok());
        assert!(toml::from_str::<CurationModelSettings>("caption = 3").is_err());
    }
}
