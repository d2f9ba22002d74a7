//! The published names of every family of models, as data.
//!
//! In a pattern `*` stands for any text. A pair is (this project's name, the published one), and the texts
//! that the stars of one stand for are put in the place of the stars of the other; the first pair that fits
//! is taken.

/// Pairs of patterns.
pub(super) type Pairs = &'static [(&'static str, &'static str)];

/// `transformers`' names of BLIP-2's image encoder (`Blip2VisionModel`), in the EVA layout.
pub(super) const VISION: Pairs = &[
    ("visual_encoder.cls_token", "vision_model.embeddings.class_embedding"),
    ("visual_encoder.pos_embed", "vision_model.embeddings.position_embedding"),
    ("visual_encoder.patch_embed.proj.*", "vision_model.embeddings.patch_embedding.*"),
    ("visual_encoder.blocks.*.norm1.*", "vision_model.encoder.layers.*.layer_norm1.*"),
    ("visual_encoder.blocks.*.norm2.*", "vision_model.encoder.layers.*.layer_norm2.*"),
    ("visual_encoder.blocks.*.attn.qkv.*", "vision_model.encoder.layers.*.self_attn.qkv.*"),
    ("visual_encoder.blocks.*.attn.proj.*", "vision_model.encoder.layers.*.self_attn.projection.*"),
    ("visual_encoder.blocks.*", "vision_model.encoder.layers.*"),
    ("ln_vision.*", "vision_model.post_layernorm.*"),
];

/// `transformers`' names of the Q-Former and of what stands between it and the other parts.
pub(super) const QFORMER: Pairs = &[
    ("Qformer.bert.embeddings.LayerNorm.*", "qformer.layernorm.*"),
    ("Qformer.bert.embeddings.*", "embeddings.*"),
    ("Qformer.bert.encoder.layer.*.attention.self.*", "qformer.encoder.layer.*.attention.attention.*"),
    (
        "Qformer.bert.encoder.layer.*.crossattention.self.*",
        "qformer.encoder.layer.*.crossattention.attention.*",
    ),
    ("Qformer.bert.encoder.layer.*", "qformer.encoder.layer.*"),
    ("vision_proj.*", "vision_projection.*"),
    ("text_proj.*", "text_projection.*"),
    ("opt_proj.*", "language_projection.*"),
];

/// The same of InstructBLIP, whose tables are the Q-Former's own.
pub(super) const INSTRUCTBLIP: Pairs = &[
    ("Qformer.bert.embeddings.LayerNorm.*", "qformer.embeddings.layernorm.*"),
    ("Qformer.bert.embeddings.*", "qformer.embeddings.*"),
];

/// The names of language models, by what LAVIS calls them.
macro_rules! language_models {
    ($($family:literal),*) => {
        /// Language models, as this project's names begin.
        pub(super) const LANGUAGE_MODELS: &[&str] = &[$(concat!($family, "_model")),*];

        /// `transformers`' names of the language model within BLIP-2; its own names follow.
        pub(super) const LANGUAGE: Pairs = &[$((concat!($family, "_model.*"), "language_model.*")),*];

        /// What LAVIS calls the projection into the language model; the first is this project's name.
        pub(super) const LAVIS: Pairs = &[$(("opt_proj.*", concat!($family, "_proj.*"))),*];
    };
}

language_models!["opt", "t5", "llm"];

/// A run's own checkpoint.
pub(super) const CHECKPOINT: Pairs = &[("*", "parameters.*")];

/// What files of one part alone leave out of `transformers`' names, and of LAVIS's and BERT's. A language
/// model without its head leaves out `model.` too, as some of OPT's are published.
pub(super) const ALONE: &[&str] = &["vision_model.", "language_model.", "language_model.model."];
pub(super) const LAVIS_ALONE: &[&str] = &["visual_encoder.", "bert."];

/// OpenAI's names of CLIP's image tower; ours are `transformers`'.
pub(super) const OPENAI_CLIP: Pairs = &[
    ("vision_model.embeddings.class_embedding", "class_embedding"),
    ("vision_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("vision_model.embeddings.patch_embedding.weight", "conv1.weight"),
    ("vision_model.pre_layrnorm.*", "ln_pre.*"),
    ("vision_model.encoder.layers.*.layer_norm1.*", "transformer.resblocks.*.ln_1.*"),
    ("vision_model.encoder.layers.*.layer_norm2.*", "transformer.resblocks.*.ln_2.*"),
    ("vision_model.encoder.layers.*.self_attn.out_proj.*", "transformer.resblocks.*.attn.out_proj.*"),
    ("vision_model.encoder.layers.*.mlp.fc1.*", "transformer.resblocks.*.mlp.c_fc.*"),
    ("vision_model.encoder.layers.*.mlp.fc2.*", "transformer.resblocks.*.mlp.c_proj.*"),
];

/// The three maps that OpenAI stores as one, in the order of its rows.
pub(super) const FUSED_MAPS: &[Pairs] = &[
    &[("vision_model.encoder.layers.*.self_attn.q_proj.*", "transformer.resblocks.*.attn.in_proj_*")],
    &[("vision_model.encoder.layers.*.self_attn.k_proj.*", "transformer.resblocks.*.attn.in_proj_*")],
    &[("vision_model.encoder.layers.*.self_attn.v_proj.*", "transformer.resblocks.*.attn.in_proj_*")],
];

/// The parts that whole models are made of besides their language model, as this project's names begin: a
/// file may hold others than those that a model takes from it.
pub(super) const PARTS: &[&str] = &[
    "visual_encoder",
    "ln_vision",
    "query_tokens",
    "Qformer",
    "vision_proj",
    "text_proj",
    "itm_head",
    "temp",
    "opt_proj",
];

/// Published tensors that no model here needs, and why.
pub(super) const IGNORED: &[&str] = &[
    // Counters that old versions of `transformers` stored.
    "*position_ids",
    "*rotary_emb.inv_freq",
    "*decoder.version",
    // Aliases of the token table, where a model is tied to it.
    "*lm_head.weight",
    "*encoder.embed_tokens.weight",
    "*decoder.embed_tokens.weight",
    "*cls.predictions.decoder.weight",
    "*cls.predictions.decoder.bias",
    // T5's decoder never used it.
    "*EncDecAttention.relative_attention_bias.weight",
    // EVA-CLIP's last block and its head: the features are those of the block before.
    "blocks.39.*",
    "norm.*",
    "head.*",
    // Averaged weights count their steps.
    "n_averaged",
    // A run's checkpoint: AdamW's moments.
    "first_moments.*",
    "second_moments.*",
];
