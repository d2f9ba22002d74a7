//! The hash of what a step is a function of.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use blip2_dataset::loader::LoaderSettings;
use blip2_store::secret_url::without_credentials;
use schemars::generate::SchemaSettings;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::stored::StoredStages;
use super::worker::WorkerConfig;
use crate::settings::data::DataSettings;
use crate::settings::model::ModelSettings;
use crate::settings::train::StepSettings;

/// The keys of `train` that have been hashed from the beginning, in their order. The others that are hashed
/// came later and are so where they are not their defaults: runs from before them have the hashes they had.
const FIRST: [&str; 6] = ["seed", "slots", "gradients", "device", "wire", "overlap"];

/// Sections and keys that are declared as `x-unhashed`: they change no bit of the parameters after a number
/// of steps.
static UNHASHED: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<WorkerConfig>();
    let mut found = BTreeSet::new();
    collect_unhashed("", schema.as_value(), &mut found);
    found
});

fn collect_unhashed(key: &str, schema: &Value, found: &mut BTreeSet<String>) {
    if schema["x-unhashed"] == true {
        found.insert(key.to_owned());
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
        collect_unhashed(&key, inner, found);
    }
}

/// Whether a dotted key of a worker's configuration is part of its hash.
pub fn is_hashed(key: &str) -> bool {
    let within = |section: &String| {
        key.strip_prefix(section.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    !UNHASHED.iter().any(within)
}

/// What the hash is of; what changes no bit has its default, so that hashes outlive a new one.
#[derive(Serialize)]
struct Hashed<'a> {
    train: HashedTrain,
    data: &'a DataSettings,
    model: &'a ModelSettings,
    #[serde(flatten)]
    stages: StoredStages,
    loader: LoaderSettings,
}

/// Keys of `train` with their values, in the order in which they are hashed.
struct HashedTrain(Vec<(String, Value)>);

impl HashedTrain {
    fn of(train: &StepSettings) -> Self {
        // A struct of numbers and strings always serialises.
        let [own, default] =
            [train, &StepSettings::default()].map(|train| serde_json::to_value(train).unwrap_or_default());
        let is_free = |key: &str| !is_hashed(&format!("train.{key}"));
        let first = FIRST.map(|key| {
            let value = if is_free(key) { &default[key] } else { &own[key] };
            (key.to_owned(), value.clone())
        });
        let later = own.as_object().into_iter().flatten().filter(|(key, value)| {
            !FIRST.contains(&key.as_str()) && !is_free(key) && default[key.as_str()] != **value
        });
        Self(first.into_iter().chain(later.map(|(key, value)| (key.clone(), value.clone()))).collect())
    }
}

impl Serialize for HashedTrain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

/// BLAKE3 (hex) of what a step is a function of: all that [`is_hashed`]. The credentials of URLs are no part
/// of it.
pub fn config_hash(config: &WorkerConfig) -> String {
    blake3::hash(hashed_text(config).as_bytes()).to_hex().to_string()
}

fn hashed_text(config: &WorkerConfig) -> String {
    let config = &without_credentials(config);
    let hashed = Hashed {
        train: HashedTrain::of(&config.train),
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
    use crate::settings::lora::LoraSettings;
    use crate::settings::model::FrozenDtype;
    use crate::settings::train::{Compute, NonFiniteSteps, Wire};
    use crate::task::TaskSettings;
    use crate::task::generate::GenerateSettings;

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
        other = config.clone();
        assert!(!hashed_text(&config).contains("question"), "what is not set is as if it were not there");
        other.data.columns.question = "asked".into();
        assert_ne!(config_hash(&config), config_hash(&other));
        assert!(!hashed_text(&config).contains("lora"));
        other = config.clone();
        let lora = LoraSettings { rank: 4, ..LoraSettings::default() };
        other.stages[1].task =
            TaskSettings::Generate(GenerateSettings { lora, ..GenerateSettings::default() });
        assert_ne!(config_hash(&config), config_hash(&other));
    }

    #[test]
    fn the_hash_leaves_out_what_is_declared_so_and_nothing_else() {
        let unhashed: Vec<&str> = UNHASHED.iter().map(String::as_str).collect();
        let of_train = ["loss_rise_factor", "loss_rise_window", "max_skipped_steps", "non_finite", "overlap"];
        let of_train = of_train.map(|key| format!("train.{key}"));
        assert_eq!(unhashed, [&["eval", "loader"][..], &of_train.each_ref().map(String::as_str)].concat());
        assert!(is_hashed("train.overlapping") && !is_hashed("loader.disk_cache"));
        let mut whole = serde_json::to_value(WorkerConfig::default()).unwrap();
        // Evaluation while a run trains changes no bit of it.
        whole.as_object_mut().unwrap().remove("eval");
        let train = whole["train"].as_object_mut().unwrap();
        // Runs from before these keys have the same hashes.
        of_train[..4].iter().for_each(|key| drop(train.remove(&key["train.".len()..]).unwrap()));
        assert_eq!(train.remove("compute").unwrap(), "f32");
        assert_eq!(train.remove("tf32").unwrap(), false);
        let hashed: Value = serde_json::from_str(&hashed_text(&WorkerConfig::default())).unwrap();
        assert_eq!(hashed, whole);
    }

    /// The text of `train` as it was hashed when its keys were listed one by one.
    #[test]
    fn the_keys_of_a_step_are_hashed_in_their_old_order() {
        let mut config = WorkerConfig::default();
        let first = "{\"train\":{\"seed\":42,\"slots\":16,\"gradients\":\"exact\",\"device\":\"cpu\",\"wire\":\"f32\",\
                     \"overlap\":true";
        assert!(hashed_text(&config).starts_with(&format!("{first}}},\"data\":")));
        (config.train.compute, config.train.tf32, config.train.overlap) = (Compute::Bf16, true, false);
        let later = ",\"compute\":\"bf16\",\"tf32\":true},\"data\":";
        assert!(hashed_text(&config).starts_with(&format!("{first}{later}")));
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
