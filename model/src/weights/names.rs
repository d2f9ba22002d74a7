//! The spellings of a tensor's name: LAVIS's, which are ours, and Hugging Face's.

/// How the names in a file are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameStyle {
    /// LAVIS's names, which are also this project's.
    Lavis,
    /// `transformers` names; every name in the file may carry this prefix, e.g. `bert.`.
    HuggingFace {
        /// Prefix of the file's names, with its trailing dot; empty for none.
        prefix: String,
    },
}

impl NameStyle {
    /// The spellings to try for the model's tensor `name`, best first.
    pub fn spellings(&self, name: &str) -> Vec<String> {
        match self {
            Self::Lavis => lavis_spellings(name),
            Self::HuggingFace { prefix } => {
                let published = huggingface_name(name);
                let alone = PARTS.iter().find_map(|part| published.strip_prefix(part)).map(str::to_string);
                let mut spellings = vec![format!("{prefix}{published}"), published];
                spellings.extend(alone);
                spellings.extend([format!("{prefix}{name}"), name.to_string()]);
                spellings.dedup();
                spellings
            }
        }
    }

    /// The separate query and value biases that LAVIS stores where the model has one fused bias.
    pub fn fused_bias(&self, name: &str) -> Option<(String, String)> {
        let stem = name.strip_suffix("attn.qkv.bias")?;
        Some((format!("{stem}attn.q_bias"), format!("{stem}attn.v_bias")))
    }
}

/// Parts whose own folders leave out the part's name.
const PARTS: &[&str] = &["vision_model.", "language_model."];

/// Prefixes as (LAVIS, Hugging Face); the first that matches is replaced.
const PREFIXES: &[(&str, &str)] = &[
    ("visual_encoder.cls_token", "vision_model.embeddings.class_embedding"),
    ("visual_encoder.pos_embed", "vision_model.embeddings.position_embedding"),
    ("visual_encoder.patch_embed.proj.", "vision_model.embeddings.patch_embedding."),
    ("visual_encoder.blocks.", "vision_model.encoder.layers."),
    ("ln_vision.", "vision_model.post_layernorm."),
    ("Qformer.bert.embeddings.LayerNorm.", "qformer.layernorm."),
    ("Qformer.bert.embeddings.", "embeddings."),
    ("Qformer.bert.encoder.layer.", "qformer.encoder.layer."),
    ("vision_proj.", "vision_projection."),
    ("text_proj.", "text_projection."),
    ("opt_proj.", "language_projection."),
    ("opt_model.", "language_model."),
    ("t5_model.", "language_model."),
    ("llm_model.", "language_model."),
];

/// What LAVIS calls the projection into the language model, by family; the first is this project's name.
const PROJECTIONS: &[&str] = &["opt_proj.", "t5_proj.", "llm_proj."];

/// Parts of the names below a prefix, as (LAVIS, Hugging Face).
const VISION_PARTS: &[(&str, &str)] = &[
    (".norm1.", ".layer_norm1."),
    (".norm2.", ".layer_norm2."),
    (".attn.qkv.", ".self_attn.qkv."),
    (".attn.proj.", ".self_attn.projection."),
];
const QFORMER_PARTS: &[(&str, &str)] =
    &[(".attention.self.", ".attention.attention."), (".crossattention.self.", ".crossattention.attention.")];

/// The name itself; a projection under the name of each family.
fn lavis_spellings(name: &str) -> Vec<String> {
    match name.strip_prefix(PROJECTIONS[0]) {
        Some(part) => PROJECTIONS.iter().map(|projection| format!("{projection}{part}")).collect(),
        None => vec![name.to_string()],
    }
}

/// The name `transformers`' BLIP-2 classes give to the tensor that LAVIS calls `name`.
pub fn huggingface_name(name: &str) -> String {
    let Some((from, to)) = PREFIXES.iter().find(|(from, _)| name.starts_with(from)) else {
        return name.to_string();
    };
    let mut published = format!("{to}{}", &name[from.len()..]);
    let parts = if from.starts_with("visual_encoder") { VISION_PARTS } else { QFORMER_PARTS };
    for (from, to) in parts {
        published = published.replace(from, to);
    }
    published
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_names() {
        for (lavis, huggingface) in [
            ("query_tokens", "query_tokens"),
            ("ln_vision.weight", "vision_model.post_layernorm.weight"),
            ("visual_encoder.blocks.3.attn.qkv.bias", "vision_model.encoder.layers.3.self_attn.qkv.bias"),
            ("visual_encoder.blocks.3.mlp.fc1.bias", "vision_model.encoder.layers.3.mlp.fc1.bias"),
            (
                "Qformer.bert.encoder.layer.0.crossattention.self.key.weight",
                "qformer.encoder.layer.0.crossattention.attention.key.weight",
            ),
            (
                "Qformer.bert.encoder.layer.1.attention.output.LayerNorm.bias",
                "qformer.encoder.layer.1.attention.output.LayerNorm.bias",
            ),
            ("Qformer.bert.embeddings.word_embeddings.weight", "embeddings.word_embeddings.weight"),
            ("opt_proj.bias", "language_projection.bias"),
            ("t5_model.shared.weight", "language_model.shared.weight"),
            ("llm_model.model.norm.weight", "language_model.model.norm.weight"),
        ] {
            assert_eq!(huggingface_name(lavis), huggingface);
        }
    }

    #[test]
    fn the_projection_has_a_name_for_each_family() {
        let spellings = NameStyle::Lavis.spellings("opt_proj.weight");
        assert_eq!(spellings, ["opt_proj.weight", "t5_proj.weight", "llm_proj.weight"]);
        assert_eq!(NameStyle::Lavis.spellings("query_tokens"), ["query_tokens"]);
    }
}
