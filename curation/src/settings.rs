//! Which models curate, and how captions are drawn.

use std::path::Path;

use blip2_evaluation::fault::Fault as _;
use blip2_model::language::generation::{GenerateOptions, Sampling};
use blip2_store::fetch::{fetch_model, is_url};
use blip2_store::secret_url::redacted;
use blip2_tensors::device::{DeviceName, Present};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{CurationError, Result};
use crate::select::CurationMode;

/// The models of a curation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CurationModelSettings {
    /// Folder of the captioner: BLIP's (`BlipForConditionalGeneration`), or an exported BLIP-2
    /// (`Blip2ForConditionalGeneration`).
    pub captioner: String,
    /// Folder of the CLIP that ranks texts (`CLIPModel`); empty: no cosines.
    pub clip: String,
    /// Folder of BLIP's filter (`BlipForImageTextRetrieval`); empty: no probabilities of a match.
    pub itm: String,
    /// Captions written about an image; 0: none.
    #[schemars(range(min = 0, max = 1024))]
    pub captions: usize,
    /// What captions continue; it is no part of them.
    pub prompt: String,
    /// Captions are drawn from the likeliest tokens that together have this probability.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub top_p: f64,
    /// Divides the scores of tokens before they are drawn.
    #[schemars(range(min = 1e-4, max = 1e6))]
    pub temperature: f64,
    /// Divides the scores of tokens that occurred.
    #[schemars(range(min = 1e-3, max = 1e3))]
    pub repetition_penalty: f64,
    /// Fewest tokens of a caption.
    #[schemars(range(min = 0, max = 65_536))]
    pub min_new_tokens: usize,
    /// Most tokens of a caption.
    #[schemars(range(min = 1, max = 65_536))]
    pub max_new_tokens: usize,
    /// Key of all draws.
    #[schemars(range(min = 0, max = i64::MAX))]
    pub seed: u64,
    /// Images computed at a time. Changes scores in their last bits alone, and not the job.
    #[schemars(range(min = 1, max = 65_536))]
    pub batch: usize,
    /// Texts scored at a time.
    #[schemars(range(min = 1, max = 65_536))]
    pub text_batch: usize,
    /// Device of the models, as `train.device`.
    pub device: String,
}

impl Default for CurationModelSettings {
    fn default() -> Self {
        Self {
            captioner: String::new(),
            clip: String::new(),
            itm: String::new(),
            captions: 10,
            prompt: "a picture of".into(),
            top_p: 0.9,
            temperature: 1.0,
            repetition_penalty: 1.1,
            min_new_tokens: 1,
            max_new_tokens: 30,
            seed: 42,
            batch: 16,
            text_batch: 64,
            device: "cpu".into(),
        }
    }
}

impl CurationModelSettings {
    /// # Errors
    /// [`CurationError::Configuration`] that names the key.
    pub fn validate(&self, mode: CurationMode) -> Result<()> {
        let refuse = |text: &str| Err(CurationError::Configuration(format!("curation.models.{text}")));
        if self.captions > 0 && self.captioner.is_empty() {
            return refuse("captioner: a folder is needed to write captions (or captions = 0)");
        }
        if mode == CurationMode::Rank && self.clip.is_empty() {
            return refuse("clip: ranking needs the folder of a CLIP model (or selection.mode = \"filter\")");
        }
        if mode == CurationMode::Filter && self.itm.is_empty() {
            return refuse(
                "itm: filtering needs the folder of a BLIP retrieval model (or selection.mode = \"rank\")",
            );
        }
        if self.batch == 0 || self.text_batch == 0 {
            return refuse("batch and text_batch: at least 1");
        }
        if self.max_new_tokens == 0 || self.min_new_tokens > self.max_new_tokens {
            return refuse("max_new_tokens: at least 1, and not below min_new_tokens");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refuse("top_p: above 0, at most 1");
        }
        for (key, value) in
            [("temperature", self.temperature), ("repetition_penalty", self.repetition_penalty)]
        {
            if !(value.is_finite() && value > 0.0) {
                return refuse(&format!("{key}: above 0"));
            }
        }
        if self.captions > 1024 {
            return refuse("captions: at most 1024");
        }
        self.device_name().map(|_| ())
    }

    /// Whether device and model folders are on this machine; nothing is opened.
    ///
    /// # Errors
    /// As [`CurationModelSettings::validate`].
    pub fn check(&self, mode: CurationMode) -> Result<()> {
        self.validate(mode)?;
        let refuse = |text: String| Err(CurationError::Configuration(format!("curation.models.{text}")));
        let device = self.device_name()?;
        if device != DeviceName::Cpu
            && let Err(error) = device.decide(&Present::probe())
        {
            return refuse(format!("device = {error}"));
        }
        let captioner = if self.captions > 0 { self.captioner.as_str() } else { "" };
        for (key, folder) in [("captioner", captioner), ("clip", &self.clip), ("itm", &self.itm)] {
            if self.folder(folder).is_some_and(|folder| !folder.is_dir()) {
                return refuse(format!(
                    "{key} = \"{folder}\": there is no such folder (paths are relative to the current directory)"
                ));
            }
        }
        Ok(())
    }

    /// The device.
    pub(crate) fn device_name(&self) -> Result<DeviceName> {
        self.device
            .parse()
            .map_err(|error| CurationError::Configuration(format!("curation.models.device = {error}")))
    }

    pub(crate) fn folder<'a>(&self, folder: &'a str) -> Option<&'a Path> {
        (!folder.is_empty()).then(|| Path::new(folder))
    }

    /// Requires room for the longest caption: a captioner has `room` tokens behind the prompt.
    ///
    /// # Errors
    /// [`CurationError::Configuration`].
    pub(crate) fn must_fit(&self, room: usize) -> Result<()> {
        if self.max_new_tokens <= room {
            return Ok(());
        }
        Err(CurationError::Configuration(format!(
            "curation.models.max_new_tokens: {}, the captioner has room for {room} behind the prompt",
            self.max_new_tokens
        )))
    }

    /// How the captions of images with these numbers are drawn, `captions` after each other for each.
    pub fn options(&self, draws: impl Iterator<Item = u64>) -> GenerateOptions {
        // An image's numbers are apart from the next one's by more than it has captions.
        let numbers =
            draws.flat_map(|draw| (0..self.captions as u64).map(move |sample| (draw << 10) | sample));
        let sampling = Sampling {
            temperature: self.temperature as f32,
            top_k: 0,
            top_p: self.top_p,
            seed: self.seed,
            numbers: numbers.collect(),
        };
        GenerateOptions {
            max_new_tokens: self.max_new_tokens,
            min_new_tokens: self.min_new_tokens,
            repetition_penalty: self.repetition_penalty as f32,
            sampling: Some(sampling),
            ..GenerateOptions::default()
        }
    }

    /// The same with every model that is named by a URL brought to this machine.
    ///
    /// # Errors
    /// [`CurationError::Configuration`] with the key of a model that is not there or cannot be had; the
    /// store's error where it fails.
    pub async fn with_models_here(&self) -> Result<Self> {
        let mut here = self.clone();
        here.captioner = model_here("curation.models.captioner", &self.captioner).await?;
        here.clip = model_here("curation.models.clip", &self.clip).await?;
        here.itm = model_here("curation.models.itm", &self.itm).await?;
        Ok(here)
    }

    /// What decides captions and scores: a job goes on with the same alone.
    pub fn identity(&self) -> serde_json::Value {
        serde_json::json!({
            "captioner": redacted(&self.captioner), "clip": redacted(&self.clip), "itm": redacted(&self.itm), "captions": self.captions,
            "prompt": self.prompt, "top_p": self.top_p, "temperature": self.temperature,
            "repetition_penalty": self.repetition_penalty, "min_new_tokens": self.min_new_tokens,
            "max_new_tokens": self.max_new_tokens, "seed": self.seed,
        })
    }
}

/// The path on this machine of the model that `key` names.
async fn model_here(key: &str, place: &str) -> Result<String> {
    if !is_url(place) {
        return Ok(place.to_owned());
    }
    let fetched = fetch_model(place).await.map_err(|error| CurationError::of_model(key, place, error))?;
    Ok(fetched.path.display().to_string())
}
