//! The spellings of a tensor's name: LAVIS's, which are ours, and Hugging Face's.

use super::tables::{
    ALONE, CHECKPOINT, FUSED_MAPS, IGNORED, INSTRUCTBLIP, LANGUAGE, LANGUAGE_MODELS, LAVIS, LAVIS_ALONE,
    OPENAI_CLIP, PARTS, Pairs, QFORMER, VISION,
};

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
    /// The names of OpenAI's CLIP for its image tower, as in LAVIS's `clip_vit_L.pth`.
    OpenAiClip {
        /// Prefix of the tower's names, with its trailing dot; empty in a file of the tower alone.
        prefix: String,
    },
}

/// `transformers`' names, part by part.
const HUGGING_FACE: &[Pairs] = &[VISION, QFORMER, INSTRUCTBLIP, LANGUAGE];

/// How the names begin of an image encoder that is trained, and of an image tower of CLIP.
const TRAINED_ENCODER: &str = "visual_encoder.";
const TOWER: &str = "vision_model.";

/// What LAVIS's files have in the place of a tensor of a trained image encoder in CLIP's layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LavisClip {
    /// The tensor under this name.
    Whole(String),
    /// A third of the rows of the map of this name: of its queries, keys or values.
    Third(String, usize),
}

/// Where LAVIS's files have the tensor `name` of a trained image encoder in CLIP's layout, which is called
/// there as OpenAI calls it; none of another tensor.
pub fn lavis_clip(name: &str) -> Option<LavisClip> {
    let own = format!("{TOWER}{}", name.strip_prefix(TRAINED_ENCODER)?);
    let stored = |pairs: &Pairs| {
        let found = translations(&[pairs], &own).into_iter().next();
        found.map(|name| format!("{TRAINED_ENCODER}{name}"))
    };
    let third = |(third, pairs): (usize, &Pairs)| Some(LavisClip::Third(stored(pairs)?, third));
    let whole = stored(&OPENAI_CLIP).map(LavisClip::Whole);
    whole.or_else(|| FUSED_MAPS.iter().enumerate().find_map(third))
}

impl NameStyle {
    /// `transformers` names without a prefix of another model.
    pub fn hugging_face() -> Self {
        Self::HuggingFace { prefix: String::new() }
    }

    /// The spellings to try for the model's tensor `name`, best first.
    pub fn spellings(&self, name: &str) -> Vec<String> {
        let mut spellings = match self {
            Self::Lavis => {
                let mut spellings = translations(&[LAVIS], name);
                spellings.push(name.to_string());
                spellings.extend(without_part(LAVIS_ALONE, name));
                spellings.extend(translations(&[CHECKPOINT], name));
                if let Some(LavisClip::Whole(name)) = lavis_clip(name) {
                    spellings.push(name);
                }
                spellings
            }
            Self::OpenAiClip { prefix } => {
                translations(&[OPENAI_CLIP], name).into_iter().map(|name| format!("{prefix}{name}")).collect()
            }
            Self::HuggingFace { prefix } => {
                let mut published = translations(HUGGING_FACE, name);
                if published.is_empty() {
                    published.push(name.to_string());
                }
                let mut spellings: Vec<String> = Vec::new();
                for published in published {
                    spellings.extend([format!("{prefix}{published}"), published.clone()]);
                    spellings.extend(without_part(ALONE, &published));
                }
                spellings.extend([format!("{prefix}{name}"), name.to_string()]);
                spellings
            }
        };
        let mut seen = std::collections::BTreeSet::new();
        spellings.retain(|spelling| seen.insert(spelling.clone()));
        spellings
    }

    /// The separate query and value biases that LAVIS stores where the model has one fused bias: in a whole
    /// model, and in a file of the image encoder alone.
    pub fn fused_bias(&self, name: &str) -> Vec<[String; 2]> {
        let Some(stem) = name.strip_suffix("attn.qkv.bias").filter(|_| *self == Self::Lavis) else {
            return Vec::new();
        };
        let stems = std::iter::once(stem.to_string()).chain(without_part(LAVIS_ALONE, stem));
        stems.map(|stem| [format!("{stem}attn.q_bias"), format!("{stem}attn.v_bias")]).collect()
    }

    /// The fused map of queries, keys and values that OpenAI stores where the model has three, and LAVIS of
    /// an image encoder of OpenAI's; and which of them `name` is.
    pub(super) fn fused_map(&self, name: &str) -> Vec<(String, usize)> {
        let prefix = match self {
            Self::OpenAiClip { prefix } => prefix,
            Self::Lavis => {
                return match lavis_clip(name) {
                    Some(LavisClip::Third(fused, third)) => vec![(fused, third)],
                    _ => Vec::new(),
                };
            }
            Self::HuggingFace { .. } => return Vec::new(),
        };
        let thirds = FUSED_MAPS.iter().enumerate();
        let names = |pairs: &Pairs| translations(&[pairs], name);
        thirds
            .flat_map(|(third, pairs)| {
                names(pairs).into_iter().map(move |fused| (format!("{prefix}{fused}"), third))
            })
            .collect()
    }

    /// Which of the parts of a whole model a name in a file may belong to, as our names begin.
    pub(super) fn parts_of(&self, stored: &str) -> Vec<&'static str> {
        let tables: &[Pairs] = match self {
            Self::Lavis => &[LAVIS, CHECKPOINT],
            Self::HuggingFace { .. } => HUGGING_FACE,
            Self::OpenAiClip { .. } => &[],
        };
        let stored = match self {
            Self::HuggingFace { prefix } => stored.strip_prefix(prefix.as_str()).unwrap_or(stored),
            Self::Lavis | Self::OpenAiClip { .. } => stored,
        };
        let mut names = vec![stored.to_string()];
        // A folder of the image encoder alone leaves the part's name out.
        for spelling in [stored.to_string(), format!("{}{stored}", ALONE[0])] {
            let pairs = tables.iter().flat_map(|pairs| pairs.iter());
            names.extend(pairs.filter_map(|(own, published)| translated(published, own, &spelling)));
        }
        PARTS
            .iter()
            .chain(LANGUAGE_MODELS)
            .copied()
            .filter(|part| names.iter().any(|name| first_part(name) == *part))
            .collect()
    }
}

/// A name up to its first dot.
pub(super) fn first_part(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// Whether no model here needs the tensor that a file calls `stored`.
pub(super) fn is_ignored(stored: &str) -> bool {
    IGNORED.iter().any(|pattern| matches(pattern, stored))
}

/// The name `transformers`' BLIP-2 classes give to the tensor that LAVIS calls `name`.
pub fn huggingface_name(name: &str) -> String {
    translations(HUGGING_FACE, name).into_iter().next().unwrap_or_else(|| name.to_string())
}

/// The name `transformers`' InstructBLIP gives to the tensor that LAVIS calls `name`.
pub fn instructblip_name(name: &str) -> String {
    let own = translations(&[INSTRUCTBLIP], name).into_iter().next();
    own.unwrap_or_else(|| huggingface_name(name))
}

/// The name LAVIS gives to the tensor `name`, whose projection is called after the language model `family`
/// (`opt_model`, `t5_model` or `llm_model`).
pub fn lavis_name(name: &str, family: &str) -> String {
    let projection = family.strip_suffix("model").map(|family| format!("{family}proj."));
    match (name.strip_prefix("opt_proj."), projection) {
        (Some(rest), Some(projection)) => format!("{projection}{rest}"),
        _ => name.to_string(),
    }
}

fn without_part(parts: &[&str], name: &str) -> Vec<String> {
    parts.iter().filter_map(|part| name.strip_prefix(part)).map(str::to_string).collect()
}

/// What the tables make of one of our names, in their order.
fn translations(tables: &[Pairs], name: &str) -> Vec<String> {
    let pairs = tables.iter().flat_map(|pairs| pairs.iter());
    pairs.filter_map(|(own, published)| translated(own, published, name)).collect()
}

/// `name`, which fits the pattern `from`, written in the pattern `to`.
fn translated(from: &str, to: &str, name: &str) -> Option<String> {
    let mut texts = captures(from, name)?.into_iter();
    let mut written = String::new();
    for (index, piece) in to.split('*').enumerate() {
        if index > 0 {
            written.push_str(texts.next().unwrap_or_default());
        }
        written.push_str(piece);
    }
    Some(written)
}

/// Whether `name` fits a pattern.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    captures(pattern, name).is_some()
}

/// The texts that the stars of `pattern` stand for in `name`, each as short as possible but the last.
fn captures<'a>(pattern: &str, name: &'a str) -> Option<Vec<&'a str>> {
    let mut pieces = pattern.split('*');
    let mut rest = name.strip_prefix(pieces.next()?)?;
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else {
        return rest.is_empty().then(Vec::new);
    };
    let mut texts = Vec::new();
    for piece in pieces {
        let at = rest.find(piece)?;
        texts.push(&rest[..at]);
        rest = &rest[at + piece.len()..];
    }
    texts.push(rest.strip_suffix(last)?);
    Some(texts)
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
            let own = first_part(lavis);
            let parts = NameStyle::hugging_face().parts_of(huggingface);
            assert!(parts.contains(&own), "{huggingface} is of {parts:?}");
        }
        let tables = "Qformer.bert.embeddings.";
        for (own, instructblip) in [
            ("position_embeddings.weight", "qformer.embeddings.position_embeddings.weight"),
            ("LayerNorm.bias", "qformer.embeddings.layernorm.bias"),
        ] {
            assert_eq!(instructblip_name(&format!("{tables}{own}")), instructblip);
        }
        assert_eq!(instructblip_name("opt_proj.bias"), huggingface_name("opt_proj.bias"));
    }

    #[test]
    fn the_projection_has_a_name_for_each_family() {
        let spellings = NameStyle::Lavis.spellings("opt_proj.weight");
        assert_eq!(
            spellings,
            ["opt_proj.weight", "t5_proj.weight", "llm_proj.weight", "parameters.opt_proj.weight"]
        );
        for (family, name) in [("opt_model", "opt_proj.bias"), ("t5_model", "t5_proj.bias")] {
            assert_eq!(lavis_name("opt_proj.bias", family), name);
            assert_eq!(NameStyle::Lavis.parts_of(name), ["opt_proj"]);
        }
        assert_eq!(lavis_name("query_tokens", "t5_model"), "query_tokens");
    }

    #[test]
    fn a_trained_encoder_in_clip_s_layout_is_called_as_openai_calls_it() {
        let whole = |name: &str| Some(LavisClip::Whole(format!("visual_encoder.{name}")));
        let layer = "visual_encoder.encoder.layers.7";
        assert_eq!(
            lavis_clip("visual_encoder.embeddings.position_embedding.weight"),
            whole("positional_embedding")
        );
        assert_eq!(
            lavis_clip(&format!("{layer}.mlp.fc1.bias")),
            whole("transformer.resblocks.7.mlp.c_fc.bias")
        );
        let fused = "visual_encoder.transformer.resblocks.7.attn.in_proj_bias".to_owned();
        let third = LavisClip::Third(fused.clone(), 2);
        assert_eq!(lavis_clip(&format!("{layer}.self_attn.v_proj.bias")), Some(third));
        assert_eq!(NameStyle::Lavis.fused_map(&format!("{layer}.self_attn.k_proj.bias")), [(fused, 1)]);
        for name in ["visual_encoder.blocks.7.mlp.fc1.bias", "visual_encoder.pos_embed", "ln_vision.bias"] {
            assert_eq!(lavis_clip(name), None, "{name}");
            assert!(NameStyle::Lavis.fused_map(name).is_empty());
        }
    }

    #[test]
    fn patterns() {
        assert_eq!(captures("a.*.b.*", "a.1.b.c.b.d"), Some(vec!["1", "c.b.d"]));
        assert_eq!(captures("*.ids", "x.y.ids"), Some(vec!["x.y"]));
        assert_eq!(captures("a", "a"), Some(Vec::new()));
        assert!(!matches("a", "ab") && !matches("a.*.b", "a.1.c") && matches("*ids", "ids"));
        assert!(is_ignored("Qformer.bert.embeddings.position_ids") && !is_ignored("query_tokens"));
    }
}
