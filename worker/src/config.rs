//! What a step is a function of: the training configuration, its defaults and its hash.

use std::collections::BTreeMap;
use std::fmt;

pub use blip2_collective::Wire;
use blip2_dataset::corpus::columns::ColumnNames;
use blip2_dataset::corpus::manifest::CorpusSource;
use blip2_dataset::fetch::is_url;
use blip2_dataset::loader::LoaderSettings;
use blip2_dataset::store::secret_url::without_credentials;
pub use blip2_evaluation::held_out::HeldOutSettings;
use blip2_model::device::DeviceName;
pub use blip2_model::device::compute::Compute;
use blip2_model::files::formats::{is_gguf, is_weight_file};
use blip2_model::language::check_family;
use serde::{Deserialize, Serialize};

use crate::error::{Result, WorkerError};

/// Everything a worker is told: the training configuration and how it loads data.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerConfig {
    /// Seed, slots and gradient mode.
    pub train: StepSettings,
    /// The corpus.
    pub data: DataSettings,
    /// The frozen parts and the Q-Former.
    pub model: ModelSettings,
    /// Representation learning.
    pub stage1: Stage1Settings,
    /// Generative learning.
    pub stage2: Stage2Settings,
    /// Prefetch and threads: changes no bit of the result and is not hashed.
    pub loader: LoaderSettings,
    /// Evaluation during training: changes no bit of the result and is not hashed.
    pub eval: HeldOutSettings,
}

/// What all steps share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StepSettings {
    /// Key of every random draw.
    pub seed: u64,
    /// Fixed micro-batches a global batch is cut into: a power of two, at least the number of workers.
    pub slots: u32,
    /// `exact`: the gradient of the global-batch loss; `keys_detached`: the reference's.
    pub gradients: GradientMode,
    /// `cpu`, `cuda` or `cuda:N`, `vulkan` or `vulkan:N`, or `auto`: each worker takes the best that is there.
    pub device: String,
    /// Numbers of the inputs of products in what is trained and on the gradient's way through the language model: `f32`, or
    /// `bf16` with float32 sums. Parameters, norms, softmax, losses and gradients are float32 either way.
    pub compute: Compute,
    /// Let products of float32 round their factors to TF32 (10 bits of a number's 23) where a GPU has units for that.
    pub tf32: bool,
    /// Numbers in which gradients travel between members: `f32`, or `bf16` with half the bytes. The sums are float32
    /// either way; with `bf16` every node of the tree over the slots is rounded, so that the number of workers still
    /// changes no bit.
    pub wire: Wire,
    /// Read, sum and apply parts of the gradient while the rest of it is computed, at the cost of a second copy of parameters and
    /// moments on the host and of the parameters on the device. Changes no bit of the result and is not hashed.
    pub overlap: bool,
    /// What becomes of a step whose losses, gradient or update are not finite. Such a step never changes the parameters,
    /// so a run may be continued with the other choice: this, and what follows, is not hashed.
    pub non_finite: NonFiniteSteps,
    /// So many steps of a run may be skipped; with one more it ends.
    pub max_skipped_steps: u64,
    /// Steps over which the mean loss is watched; 0: it is not.
    pub loss_rise_window: u32,
    /// A mean loss that is so many times larger than the smallest of the stage is a rise, of which the run warns.
    pub loss_rise_factor: f64,
}

/// What becomes of a step whose losses, gradient or update are not finite.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NonFiniteSteps {
    /// The run ends before the step is committed.
    #[default]
    Stop,
    /// The step is committed without a change of the parameters.
    Skip,
}

/// How the contrastive loss is differentiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GradientMode {
    /// The gradient of the global-batch loss.
    Exact,
    /// Contrastive keys carry no gradient, as in the reference implementation.
    KeysDetached,
}

/// Numbers of the frozen models: of their matrices, and of the activations between them. What is trained is float32 always.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrozenDtype {
    /// bf16 on a GPU that computes in it, float32 elsewhere.
    #[default]
    Auto,
    /// float32.
    F32,
    /// bf16.
    Bf16,
}

impl fmt::Display for FrozenDtype {
    /// As a configuration names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

/// The corpus and its use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataSettings {
    /// Parquet files: paths or URLs, `*` matches within one path segment.
    pub train: Vec<String>,
    /// Sources with weights, by name, in the place of `train`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, SourceSettings>,
    /// Column names.
    pub columns: ColumnNames,
    /// Row groups a slot draws from at a time.
    pub window_row_groups: u32,
    /// Share of unusable rows above which the run stops.
    pub max_quarantined_share: f64,
    /// Images with more pixels are quarantined.
    pub max_pixels: u64,
    /// Smallest and largest share of the picture's area a random crop keeps.
    pub crop_scale: [f64; 2],
    /// Mirror half of the pictures.
    pub flip: bool,
}

/// One of several sources.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceSettings {
    /// Parquet files: paths or URLs, `*` matches within one path segment.
    pub files: Vec<String>,
    /// Samples drawn from the source, relative to the other sources' weights; its number of rows if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
}

impl DataSettings {
    /// The corpus as its sources: one without a name, or those of `sources`, by name.
    pub fn corpus(&self) -> Vec<CorpusSource> {
        if self.sources.is_empty() {
            return vec![CorpusSource { files: self.train.clone(), ..CorpusSource::default() }];
        }
        let named = |(name, source): (&String, &SourceSettings)| CorpusSource {
            name: name.clone(),
            files: source.files.clone(),
            weight: source.weight,
        };
        self.sources.iter().map(named).collect()
    }

    fn validate(&self) -> Result<()> {
        let refuse = |reason: String| Err(WorkerError::Configuration(reason));
        match (self.train.is_empty(), self.sources.is_empty()) {
            (true, true) => return refuse("data.train is empty: name the corpus' Parquet files".into()),
            (false, false) => {
                return refuse("data.train and data.sources both name the corpus: use one of them".into());
            }
            _ => {}
        }
        for (name, source) in &self.sources {
            if source.files.is_empty() {
                return refuse(format!(
                    "data.sources.{name}.files is empty: name the source's Parquet files"
                ));
            }
            if source.weight.is_some_and(|weight| !(weight.is_finite() && weight > 0.0)) {
                return refuse(format!(
                    "data.sources.{name}.weight must be a positive number; leave a source out to draw nothing from it"
                ));
            }
        }
        Ok(())
    }
}

/// The frozen parts and the Q-Former.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSettings {
    /// Folder of the frozen image encoder (Hugging Face layout), or LAVIS's file of one alone, `eva_vit_g.pth` or
    /// `clip_vit_L.pth`.
    pub image_encoder: String,
    /// Side of the square pictures in pixels, a multiple of the encoder's patch: its position table is resized, e.g. from
    /// 224 to 364 or 490. 0: the encoder's own.
    pub image_size: usize,
    /// Folder of the frozen language model (stage 2), or a Llama's GGUF file.
    pub language_model: String,
    /// Numbers of both, of their matrices and activations: `auto` (bf16 on a GPU that computes in it), `f32` or `bf16`.
    pub frozen_dtype: FrozenDtype,
    /// Folder of the BERT that initialises the Q-Former, or its file of weights; empty: random.
    pub qformer_init: String,
    /// Folder of the Q-Former's tokenizer; BERT's gets the token `[DEC]`, as in LAVIS.
    pub qformer_tokenizer: String,
    /// Weights to start from: a run's checkpoint folder, a LAVIS file, or a BLIP-2 folder of `transformers`; empty: none.
    pub init_checkpoint: String,
    /// Epsilon of `ln_vision`: 1e-5 in LAVIS, 1e-6 in `transformers`.
    pub ln_vision_eps: f64,
    /// Sizes of the Q-Former.
    pub qformer: QFormerSettings,
}

/// Sizes of the Q-Former.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QFormerSettings {
    /// Width.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the feed-forward layers.
    pub intermediate: usize,
    /// Learned queries.
    pub queries: usize,
    /// Every n-th layer attends to the image.
    pub cross_attention_frequency: usize,
    /// Rows of the position table.
    pub max_positions: usize,
    /// Width of the contrastive space.
    pub embed_dim: usize,
    /// Dropout probability.
    pub dropout: f64,
}

/// AdamW and its schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerSettings {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Learning rate at the end of the cosine.
    pub min_learning_rate: f64,
    /// Learning rate of the first step.
    pub warmup_learning_rate: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Denominator's epsilon.
    pub epsilon: f64,
    /// Decoupled weight decay of tensors with two or more dimensions.
    pub weight_decay: f64,
    /// Clip the gradient's global norm; 0: off.
    pub clip_norm: f64,
}

/// Stage 1: contrastive, matching and captioning losses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stage1Settings {
    /// Steps; 0 skips the stage.
    pub steps: u64,
    /// Global batch; a multiple of `train.slots`.
    pub batch: u32,
    /// Text length in tokens, with `[CLS]` and `[SEP]`.
    pub text_length: usize,
    /// Initial temperature of the contrastive loss.
    pub temperature: f64,
    /// Keep the temperature inside [0.001, 0.5].
    pub clamp_temperature: bool,
    /// Label smoothing of the contrastive and captioning losses.
    pub label_smoothing: f64,
    /// AdamW and its schedule.
    pub optimizer: OptimizerSettings,
}

/// Stage 2: captioning through the frozen language model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stage2Settings {
    /// Steps; 0 skips the stage.
    pub steps: u64,
    /// Global batch; a multiple of `train.slots`.
    pub batch: u32,
    /// Caption length in tokens.
    pub text_length: usize,
    /// Text before every caption, without loss; empty in pre-training.
    pub prompt: String,
    /// Dropout inside the frozen language model, at the rate of its own configuration, as the reference trains; off, the model is
    /// the same in training as in use.
    pub language_model_dropout: bool,
    /// AdamW and its schedule.
    pub optimizer: OptimizerSettings,
}

impl Default for StepSettings {
    fn default() -> Self {
        Self {
            seed: 42,
            slots: 16,
            gradients: GradientMode::Exact,
            device: "cpu".into(),
            compute: Compute::F32,
            tf32: false,
            wire: Wire::F32,
            overlap: true,
            non_finite: NonFiniteSteps::Stop,
            max_skipped_steps: 10,
            loss_rise_window: 50,
            loss_rise_factor: 1.5,
        }
    }
}

impl Default for DataSettings {
    fn default() -> Self {
        Self {
            train: Vec::new(),
            sources: BTreeMap::new(),
            columns: ColumnNames::default(),
            window_row_groups: 4,
            max_quarantined_share: 0.01,
            max_pixels: 200_000_000,
            crop_scale: [0.5, 1.0],
            flip: true,
        }
    }
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self {
            image_encoder: String::new(),
            image_size: 0,
            language_model: String::new(),
            frozen_dtype: FrozenDtype::Auto,
            qformer_init: String::new(),
            qformer_tokenizer: String::new(),
            init_checkpoint: String::new(),
            ln_vision_eps: 1e-5,
            qformer: QFormerSettings::default(),
        }
    }
}

impl Default for QFormerSettings {
    fn default() -> Self {
        Self {
            hidden: 768,
            layers: 12,
            heads: 12,
            intermediate: 3072,
            queries: 32,
            cross_attention_frequency: 2,
            max_positions: 512,
            embed_dim: 256,
            dropout: 0.1,
        }
    }
}

impl Default for OptimizerSettings {
    fn default() -> Self {
        Self {
            learning_rate: 1e-4,
            min_learning_rate: 1e-5,
            warmup_learning_rate: 1e-6,
            warmup_steps: 2000,
            beta1: 0.9,
            beta2: 0.98,
            epsilon: 1e-8,
            weight_decay: 0.05,
            clip_norm: 0.0,
        }
    }
}

impl Default for Stage1Settings {
    fn default() -> Self {
        Self {
            steps: 0,
            batch: 1680,
            text_length: 32,
            temperature: 0.07,
            clamp_temperature: true,
            label_smoothing: 0.1,
            optimizer: OptimizerSettings::default(),
        }
    }
}

impl Default for Stage2Settings {
    fn default() -> Self {
        Self {
            steps: 0,
            batch: 1920,
            text_length: 32,
            prompt: String::new(),
            language_model_dropout: false,
            optimizer: OptimizerSettings { min_learning_rate: 5e-5, ..OptimizerSettings::default() },
        }
    }
}

impl WorkerConfig {
    /// Refuses values that no run can have; the first problem found, with the key.
    pub fn validate(&self) -> Result<()> {
        let refuse = |reason: String| Err(WorkerError::Configuration(reason));
        if let Err(error) = self.train.device.parse::<DeviceName>() {
            return refuse(format!("train.device = {error}"));
        }
        let slots = self.train.slots;
        if !slots.is_power_of_two() {
            return refuse(format!("train.slots = {slots}: it must be a power of two"));
        }
        if self.stage1.steps + self.stage2.steps == 0 {
            return refuse("stage1.steps and stage2.steps are both 0: there is nothing to train".into());
        }
        self.data.validate()?;
        for (stage, steps, batch) in [
            ("stage1", self.stage1.steps, self.stage1.batch),
            ("stage2", self.stage2.steps, self.stage2.batch),
        ] {
            if steps > 0 && (batch == 0 || batch % slots != 0) {
                return refuse(format!("{stage}.batch = {batch} is not a multiple of train.slots = {slots}"));
            }
        }
        if self.stage1.steps > 0 && self.stage1.batch < 2 {
            return refuse("stage1.batch = 1: contrast needs two pairs or more".into());
        }
        for (key, length, needed) in [
            ("stage1.text_length", self.stage1.text_length, 3),
            ("stage2.text_length", self.stage2.text_length, 2),
        ] {
            if length < needed {
                return refuse(format!("{key} = {length}: captions need {needed} tokens or more"));
            }
        }
        if self.stage1.steps > 0 && self.stage1.text_length > self.model.qformer.max_positions {
            return refuse(format!(
                "stage1.text_length = {} exceeds model.qformer.max_positions = {}",
                self.stage1.text_length, self.model.qformer.max_positions
            ));
        }
        let [low, high] = self.data.crop_scale;
        if !(low > 0.0 && low <= high && high <= 1.0) {
            return refuse(format!("data.crop_scale = [{low}, {high}]: use 0 < smallest ≤ largest ≤ 1"));
        }
        if !(0.0..1.0).contains(&self.model.qformer.dropout) {
            return refuse(format!("model.qformer.dropout = {}: use 0 ≤ p < 1", self.model.qformer.dropout));
        }
        self.eval.validate()?;
        self.validate_folders()?;
        self.validate_language_model()
    }

    fn validate_folders(&self) -> Result<()> {
        let needed = [
            ("model.image_encoder", &self.model.image_encoder, true),
            ("model.qformer_tokenizer", &self.model.qformer_tokenizer, self.stage1.steps > 0),
            ("model.language_model", &self.model.language_model, self.stage2.steps > 0),
            ("model.qformer_init", &self.model.qformer_init, !self.model.qformer_init.is_empty()),
        ];
        for (key, folder, needed) in needed {
            if !needed {
                continue;
            }
            if folder.is_empty() {
                return Err(WorkerError::Configuration(format!("{key} is not set")));
            }
            // Looked at where it is needed, once it is there.
            if is_url(folder) {
                continue;
            }
            let path = std::path::Path::new(folder);
            if !path.is_dir() && !is_model_file(key, path) {
                return Err(WorkerError::Configuration(format!(
                    "{key} = \"{folder}\": there is no such folder (paths are relative to the current directory)"
                )));
            }
        }
        Ok(())
    }

    /// Refuses a language model that stage 2 cannot train with, before anyone loads it.
    fn validate_language_model(&self) -> Result<()> {
        let folder = std::path::Path::new(&self.model.language_model);
        if self.stage2.steps == 0 || is_url(&self.model.language_model) {
            return Ok(());
        }
        check_family(folder).map_err(|error| {
            WorkerError::Configuration(format!("model.language_model = \"{}\": {error}", folder.display()))
        })
    }

    /// Steps of both stages.
    pub fn total_steps(&self) -> u64 {
        self.stage1.steps + self.stage2.steps
    }
}

/// Whether the setting `key` may name the file `path` in the place of a folder: a Llama's GGUF file, or the weights of an image
/// encoder or a BERT alone.
pub fn is_model_file(key: &str, path: &std::path::Path) -> bool {
    let named = match key {
        "model.language_model" => is_gguf(path),
        "model.image_encoder" | "model.qformer_init" => is_weight_file(path),
        _ => false,
    };
    named && path.is_file()
}

/// Keys that change no bit of the parameters after a number of steps.
pub const NOT_HASHED: [&str; 5] = [
    "train.overlap",
    "train.non_finite",
    "train.max_skipped_steps",
    "train.loss_rise_window",
    "train.loss_rise_factor",
];

/// What the hash is of; fields that change no bit have their defaults, so that hashes outlive a new default.
#[derive(Serialize)]
struct Hashed<'a> {
    train: HashedTrain<'a>,
    data: &'a DataSettings,
    model: &'a ModelSettings,
    stage1: &'a Stage1Settings,
    stage2: &'a Stage2Settings,
    loader: LoaderSettings,
}

#[derive(Serialize)]
struct HashedTrain<'a> {
    seed: u64,
    slots: u32,
    gradients: GradientMode,
    device: &'a str,
    wire: Wire,
    overlap: bool,
    /// Younger than the hash: runs from before it have the hashes they had.
    #[serde(skip_serializing_if = "Compute::is_f32")]
    compute: Compute,
    /// So is this.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tf32: bool,
}

/// BLAKE3 (hex) of what a step is a function of: every section but `loader` and `eval`, and all of `train` but [`NOT_HASHED`].
/// The credentials of URLs are no part of it.
pub fn config_hash(config: &WorkerConfig) -> String {
    blake3::hash(hashed_text(config).as_bytes()).to_hex().to_string()
}

fn hashed_text(config: &WorkerConfig) -> String {
    let config = &without_credentials(config);
    let StepSettings { seed, slots, gradients, device, compute, tf32, wire, .. } = &config.train;
    let train = HashedTrain {
        seed: *seed,
        slots: *slots,
        gradients: *gradients,
        device,
        wire: *wire,
        overlap: StepSettings::default().overlap,
        compute: *compute,
        tf32: *tf32,
    };
    let hashed = Hashed {
        train,
        data: &config.data,
        model: &config.model,
        stage1: &config.stage1,
        stage2: &config.stage2,
        loader: LoaderSettings::default(),
    };
    // A struct of numbers, strings and lists always serialises.
    serde_json::to_string(&hashed).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use blip2_run::exit::ExitClass as _;

    use super::*;

    #[test]
    fn what_changes_no_bit_does_not_change_the_hash_and_the_rest_does() {
        let config = WorkerConfig::default();
        let mut other = config.clone();
        other.loader.prefetch_bytes += 1;
        other.train.overlap = false;
        other.train.non_finite = NonFiniteSteps::Skip;
        (other.train.max_skipped_steps, other.train.loss_rise_window) = (1, 2);
        other.train.loss_rise_factor = 9.0;
        other.eval.every_steps = 3;
        assert_eq!(config_hash(&config), config_hash(&other));
        other.train.wire = Wire::Bf16;
        assert_ne!(config_hash(&config), config_hash(&other));
        other.train = StepSettings { seed: 43, ..StepSettings::default() };
        assert_ne!(config_hash(&config), config_hash(&other));
        other.train = StepSettings { compute: Compute::Bf16, ..StepSettings::default() };
        assert_ne!(config_hash(&config), config_hash(&other));
        other.train = StepSettings { tf32: true, ..StepSettings::default() };
        assert_ne!(config_hash(&config), config_hash(&other));
        other = config.clone();
        other.model.frozen_dtype = FrozenDtype::Bf16;
        assert_ne!(config_hash(&config), config_hash(&other));
    }

    #[test]
    fn the_hash_leaves_out_what_it_names_and_nothing_else() {
        let mut whole = serde_json::to_value(WorkerConfig::default()).unwrap();
        // Evaluation while a run trains changes no bit of it.
        whole.as_object_mut().unwrap().remove("eval");
        let train = whole["train"].as_object_mut().unwrap();
        // Runs from before these keys have the same hashes.
        NOT_HASHED[1..].iter().for_each(|key| drop(train.remove(&key["train.".len()..]).unwrap()));
        assert_eq!(train.remove("compute").unwrap(), "f32");
        assert_eq!(train.remove("tf32").unwrap(), false);
        let hashed: serde_json::Value = serde_json::from_str(&hashed_text(&WorkerConfig::default())).unwrap();
        assert_eq!(hashed, whole);
        assert!(
            hashed_text(&WorkerConfig::default())
                .starts_with("{\"train\":{\"seed\":42,\"slots\":16,\"gradients\"")
        );
    }

    #[test]
    fn precisions_are_named_as_they_are_documented() {
        let settings: StepSettings =
            toml::from_str("wire = \"bf16\"\noverlap = false\ncompute = \"bf16\"").unwrap();
        assert_eq!((settings.wire, settings.overlap), (Wire::Bf16, false));
        assert_eq!((settings.compute, StepSettings::default().compute), (Compute::Bf16, Compute::F32));
        let error = toml::from_str::<StepSettings>("compute = \"f16\"").unwrap_err().to_string();
        assert!(error.contains("f16") && error.contains("`f32` or `bf16`"), "{error}");
        let error = toml::from_str::<StepSettings>("wire = \"f16\"").unwrap_err().to_string();
        assert!(error.contains("f16") && error.contains("`f32` or `bf16`"), "{error}");
    }

    #[test]
    fn impossible_values_name_their_key() {
        let mut config = WorkerConfig::default();
        config.stage1.steps = 1;
        config.data.train = vec!["x.parquet".into()];
        config.train.device = "gpu".into();
        assert!(config.validate().unwrap_err().to_string().contains("train.device = \"gpu\""));
        config.train.device = "cpu".into();
        config.train.slots = 3;
        assert!(config.validate().unwrap_err().to_string().contains("train.slots = 3"));
        config.train.slots = 4;
        config.stage1.batch = 6;
        assert!(config.validate().unwrap_err().to_string().contains("stage1.batch = 6"));
        config.stage1.batch = 8;
        config.stage1.text_length = 1000;
        assert!(config.validate().unwrap_err().to_string().contains("max_positions"));
        config.stage1.text_length = 16;
        let assets = |folder: &str| format!("{}/../assets/backbones/{folder}", env!("CARGO_MANIFEST_DIR"));
        config.model.image_encoder = assets("eva-tiny");
        config.model.qformer_tokenizer = assets("qformer-tokenizer");
        (config.stage2.steps, config.stage2.batch) = (1, 8);
        config.model.language_model = assets("bert-tiny");
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains("model.language_model") && error.contains("bert"), "{error}");
        config.model.language_model = assets("t5-tiny");
        config.validate().unwrap();
        config.model.image_encoder = "/nonexistent".into();
        let error = config.validate().unwrap_err();
        assert!(error.to_string().contains("model.image_encoder"));
        assert_eq!(error.exit().code(), 78);
    }
}
