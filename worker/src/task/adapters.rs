//! Adapters of the language model as tasks have them: what of their settings cannot be, and how a model gets
//! them.

use blip2_model::adapters::{AdapterSizes, Adapters};
use blip2_model::objectives::generate::GenerateModel;
use burn::tensor::Device;

use super::description::Unusable;
use crate::error::Result;
use crate::open::of_language_model;
use crate::settings::lora::LoraSettings;
use crate::settings::model::ModelSettings;

/// A setting that goes with no model.
pub(super) fn unusable(lora: &LoraSettings) -> Option<Unusable> {
    if !lora.is_on() {
        return (!lora.is_unset()).then(|| Unusable {
            key: "lora.rank",
            value: "0".into(),
            with: None,
            reason: "other keys of `lora` are set, and there are no adapters of rank 0: give them a rank"
                .into(),
        });
    }
    let refuse = |key, value: String, reason: String| Some(Unusable { key, value, with: None, reason });
    if !(lora.alpha > 0.0 && lora.alpha.is_finite()) {
        return refuse("lora.alpha", lora.alpha.to_string(), "it must be above 0".into());
    }
    if !(0.0..1.0).contains(&lora.dropout) {
        return refuse("lora.dropout", lora.dropout.to_string(), "use 0 ≤ p < 1".into());
    }
    let mut earlier = lora.targets.iter().enumerate();
    let twice = earlier.find(|(at, target)| lora.targets[..*at].contains(target));
    twice.and_then(|(_, target)| {
        refuse("lora.targets", format!("{:?}", lora.targets), format!("`{target}` is there twice"))
    })
}

/// `model` with adapters of zeros, where there are some.
pub(super) fn adapting(
    lora: &LoraSettings,
    mut model: GenerateModel,
    settings: &ModelSettings,
    device: &Device,
) -> Result<GenerateModel> {
    if lora.is_on() {
        let LoraSettings { rank, alpha, targets, .. } = lora.clone();
        let sizes = AdapterSizes { rank, alpha, targets };
        model.adapters = Adapters::of_folder(settings.language_model.as_ref(), &sizes, device)
            .map_err(|error| of_language_model(settings, error))?;
    }
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_say_nothing_or_too_much_are_refused_by_their_key() {
        let on = LoraSettings { rank: 8, ..LoraSettings::default() };
        assert!(unusable(&LoraSettings::default()).is_none() && unusable(&on).is_none());
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
            let refused = unusable(&lora).unwrap();
            assert!(refused.key == key && refused.reason.contains(word), "{refused:?}");
        }
        assert!(on.continues(&LoraSettings { dropout: 0.3, ..on.clone() }));
        assert!(!on.continues(&LoraSettings { alpha: 8.0, ..on.clone() }));
    }
}
