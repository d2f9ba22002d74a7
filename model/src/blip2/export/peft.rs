//! Adapters of a language model as `peft` has them: a folder of their own, to be put on the model that they
//! were trained on.

use std::path::Path;

use serde_json::{Value, json};

use super::plan::{Plan, Target};
use super::precision::Precision;
use super::safetensors;
use super::staging::{Staging, write_json};
use crate::adapters::Adapters;
use blip2_model_files::error::ModelError;

/// How `peft` calls what is within the model that it adapts.
const WITHIN: &str = "base_model.model.";

/// What `peft` is told beside the adapters themselves.
#[derive(Debug, Clone, Copy)]
pub struct PeftBase<'a> {
    /// Where the language model is found that they were trained on.
    pub model: &'a str,
    /// Dropout of what they read, for who trains them further.
    pub dropout: f64,
}

/// Writes `adapters` to the new folder `folder`, as the `PeftModel` of `peft` loads them beside the
/// language model alone.
///
/// # Errors
/// A folder that exists, no adapters, or a disk that is full.
pub fn export_peft(
    folder: &Path,
    adapters: &mut Adapters,
    base: PeftBase<'_>,
    precision: Precision,
) -> Result<(), ModelError> {
    if adapters.is_empty() {
        return Err(ModelError::input("export", "there are no adapters"));
    }
    let staging = Staging::create(folder)?;
    write_json(&staging.path().join("adapter_config.json"), &configuration(adapters, base))?;
    let prefix = format!("{}.", adapters.prefix());
    let layout = |name: &str, shape: &[usize]| {
        let own = name.strip_prefix(&prefix).unwrap_or(name);
        vec![Target::whole(format!("{WITHIN}{own}"), shape)]
    };
    let plan = Plan::new(adapters, &layout, precision)?;
    safetensors::write_file(&staging.path().join("adapter_model.safetensors"), adapters, &plan)?;
    staging.publish(folder)
}

/// What a `LoraConfig` is read from.
fn configuration(adapters: &Adapters, base: PeftBase<'_>) -> Value {
    let alpha = adapters.alpha();
    let task = if adapters.are_of_encoder_decoder() { "SEQ_2_SEQ_LM" } else { "CAUSAL_LM" };
    json!({
        "peft_type": "LORA",
        "task_type": task,
        "base_model_name_or_path": base.model,
        "r": adapters.rank(),
        // A whole number, as it mostly is, is written as one.
        "lora_alpha": if alpha.fract() == 0.0 { json!(alpha as i64) } else { json!(alpha) },
        "lora_dropout": base.dropout,
        "target_modules": adapters.targets(),
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "modules_to_save": null,
        "use_dora": false,
        "use_rslora": false,
    })
}
