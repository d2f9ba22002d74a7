//! The settings of adapters of the frozen language model.

use blip2_model::language::adapters::{AdapterSizes, Adapters};
use blip2_model::objectives::generate::GenerateModel;
use burn::tensor::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::model::ModelSettings;
use crate::error::Result;
use crate::open::of_language_model;
use crate::task::Unusable;

/// Adapters of the frozen language model's maps (LoRA), which are trained with the Q-Former.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoraSettings {
    /// Rank of the adapters of the language model (LoRA); 0: there are none.
    #[schemars(range(min = 0, max = 4096), extend("x-stored-if-set" = true))]
    pub rank: usize,
    /// What the adapters add is multiplied by this over the rank.
    #[schemars(range(max = 1_000_000.0), extend("exclusiveMinimum" = 0.0, "x-stored-if-set" = true))]
    pub alpha: f64,
    /// Dropout of what the adapters read.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0, "x-stored-if-set" = true))]
    pub dropout: f64,
    /// The maps of the language model's layers that are adapted, such as `q_proj`; empty: those of queries
    /// and values.
    #[schemars(extend("x-stored-if-set" = true))]
    pub targets: Vec<String>,
}

impl Default for LoraSettings {
    fn default() -> Self {
        Self { rank: 0, alpha: 32.0, dropout: 0.05, targets: Vec::new() }
    }
}

impl LoraSettings {
    /// Whether nothing is set: then nothing is stored, and a run has the hash that it had before there were
    /// adapters.
    pub(crate) fn is_unset(&self) -> bool {
        *self == Self::default()
    }

    /// Whether there are adapters.
    pub(crate) fn is_on(&self) -> bool {
        self.rank > 0
    }

    /// Whether adapters of `other` are these, so that a stage goes on with them.
    pub(crate) fn continues(&self, other: &Self) -> bool {
        let shape = |lora: &Self| (lora.rank, lora.alpha.to_bits(), lora.targets.clone());
        shape(self) == shape(other)
    }

    /// A setting that goes with no model.
    pub(crate) fn unusable(&self) -> Option<Unusable> {
        if !self.is_on() {
            return (!self.is_unset()).then(|| Unusable {
                key: "lora.rank",
                value: "0".into(),
                with: None,
                reason: "other keys of `lora` are set, and there are no adapters of rank 0: give them a rank"
                    .into(),
            });
        }
        let refuse = |key, value: String, reason: String| Some(Unusable { key, value, with: None, reason });
        if !(self.alpha > 0.0 && self.alpha.is_finite()) {
            return refuse("lora.alpha", self.alpha.to_string(), "it must be above 0".into());
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse("lora.dropout", self.dropout.to_string(), "use 0 ≤ p < 1".into());
        }
        let mut earlier = self.targets.iter().enumerate();
        let twice = earlier.find(|(at, target)| self.targets[..*at].contains(target));
        twice.and_then(|(_, target)| {
            refuse("lora.targets", format!("{:?}", self.targets), format!("`{target}` is there twice"))
        })
    }

    /// `model` with adapters of zeros, where there are some.
    pub(crate) fn adapting(
        &self,
        mut model: GenerateModel,
        settings: &ModelSettings,
        device: &Device,
    ) -> Result<GenerateModel> {
        if self.is_on() {
            let Self { rank, alpha, targets, .. } = self.clone();
            let sizes = AdapterSizes { rank, alpha, targets };
            model.adapters = Adapters::of_folder(settings.language_model.as_ref(), &sizes, device)
                .map_err(|error| of_language_model(settings, error))?;
        }
        Ok(model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_say_nothing_or_too_much_are_refused_by_their_key() {
        let on = LoraSettings { rank: 8, ..LoraSettings::default() };
        assert!(LoraSettings::default().unusable().is_none() && on.unusable().is_none());
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        for (lora, key, word) in [
            (
                LoraSettings { rank: 0, targets: names(&["q_proj"]), ..on.clone() },
                "lora.rank",
                "no adapters of rank 0",
            ),
            (LoraSettings { rank: 0, alpha: 16.0, ..on.clone() }, "lora.rank", "rank"),
            (LoraSettings { alpha: 0.0, ..on.clone() }, "lora.alpha", "above 0"),
            (LoraSettings { dropout: 1.0, ..on.clone() }, "lora.dropout", "p < 1"),
            (LoraSettings { targets: names(&["q", "v", "q"]), ..on.clone() }, "lora.targets", "`q`"),
        ] {
            let unusable = lora.unusable().unwrap();
            assert!(unusable.key == key && unusable.reason.contains(word), "{unusable:?}");
        }
        assert!(on.continues(&LoraSettings { dropout: 0.3, ..on.clone() }));
        assert!(!on.continues(&LoraSettings { alpha: 8.0, ..on.clone() }));
    }
}
