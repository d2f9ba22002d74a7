//! What training loops and old versions put around the published names.

/// Parts of names that wrappers put between the others: data-parallel ones, compiled, sharded and
/// checkpointed modules.
const WRAPPERS: &[&str] = &["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];

/// Parts in front of a whole state dictionary.
const HOLDERS: &[&str] = &["state_dict.", "model_state_dict."];

/// How the names of models begin that a training loop may keep as its `model`.
const KEPT_AS_MODEL: &[&str] = &[
    "Qformer.",
    "visual_encoder.",
    "query_tokens",
    "ln_vision.",
    "vision_proj.",
    "text_proj.",
    "itm_head.",
    "temp",
    "opt_proj.",
    "t5_proj.",
    "llm_proj.",
    "opt_model.",
    "t5_model.",
    "llm_model.",
    "bert.",
    "cls.",
    "qformer.",
    "vision_model.",
    "language_model.",
    "language_projection.",
];

/// TensorFlow's words for scale and shift, as BERT was published.
const NORMS: &[(&str, &str)] =
    &[("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")];

/// A name in a file as it is without what was put around it.
pub(super) fn unwrapped(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').filter(|part| !WRAPPERS.contains(part)).collect();
    let mut name = parts.join(".");
    while let Some(rest) = HOLDERS.iter().find_map(|holder| name.strip_prefix(holder)) {
        name = rest.to_string();
    }
    if let Some(rest) = name.strip_prefix("model.")
        && KEPT_AS_MODEL.iter().any(|start| rest.starts_with(start))
    {
        name = rest.to_string();
    }
    for (old, new) in NORMS {
        if let Some(stem) = name.strip_suffix(old) {
            name = format!("{stem}{new}");
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_model() {
        for (stored, name) in [
            ("module.Qformer.bert.embeddings.LayerNorm.gamma", "Qformer.bert.embeddings.LayerNorm.weight"),
            ("bert.encoder.layer.0.output.LayerNorm.beta", "bert.encoder.layer.0.output.LayerNorm.bias"),
            ("_orig_mod.module.query_tokens", "query_tokens"),
            ("visual_encoder.module.blocks.0.norm1.bias", "visual_encoder.blocks.0.norm1.bias"),
            ("state_dict.model.Qformer.cls.predictions.bias", "Qformer.cls.predictions.bias"),
            ("model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
            ("model.decoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"),
            ("temp", "temp"),
        ] {
            assert_eq!(unwrapped(stored), name);
        }
    }
}
