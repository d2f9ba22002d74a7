//! The hash of what a step is a function of.

use blip2_store::secret_url::without_credentials;
use serde::Serialize;

use super::pretraining::StoredStages;
use super::{LoaderSettings, WorkerConfig};
use crate::settings::data::DataSettings;
use crate::settings::model::ModelSettings;
use crate::settings::train::{Compute, GradientMode, StepSettings, Wire};

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
    #[serde(flatten)]
    stages: StoredStages,
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

/// BLAKE3 (hex) of what a step is a function of: every section but `loader` and `eval`, and all of `train`
/// but [`NOT_HASHED`]. The credentials of URLs are no part of it.
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
        stages: StoredStages::of(&config.stages),
        loader: LoaderSettings::default(),
    };
    // A struct of numbers, strings and lists always serialises.
    serde_json::to_string(&hashed).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::model::FrozenDtype;
    use crate::settings::train::NonFiniteSteps;

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

    /// What a configuration has been hashed as since before there was a list of stages: runs from then go on.
    #[test]
    fn the_stages_of_pre_training_are_hashed_as_they_always_were() {
        let optimizer = |minimum: &str| {
            format!(
                "\"optimizer\":{{\"learning_rate\":0.0001,\"min_learning_rate\":{minimum},\"warmup_learning_rate\":1e-6,\
                 \"warmup_steps\":2000,\"beta1\":0.9,\"beta2\":0.98,\"epsilon\":1e-8,\"weight_decay\":0.05,\"clip_norm\":0.0}}"
            )
        };
        let first = format!(
            "\"stage1\":{{\"steps\":0,\"batch\":1680,\"text_length\":32,\"temperature\":0.07,\"clamp_temperature\":true,\
             \"label_smoothing\":0.1,{}}}",
            optimizer("0.00001")
        );
        let second = format!(
            "\"stage2\":{{\"steps\":0,\"batch\":1920,\"text_length\":32,\"prompt\":\"\",\"language_model_dropout\":false,{}}}",
            optimizer("0.00005")
        );
        let text = hashed_text(&WorkerConfig::default());
        assert!(text.contains(&format!("}},{first},{second},\"loader\":{{")), "{text}\n{first}\n{second}");
    }
}
