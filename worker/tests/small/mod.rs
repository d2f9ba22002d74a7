//! A run of the small backbones on the emoji corpus.

use std::path::Path;

use blip2_worker::config::{OptimizerSettings, WorkerConfig};

/// A path among the repository's assets.
pub(crate) fn assets(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets").join(path).display().to_string()
}

/// Two steps of each stage with a small Q-Former, with dropout.
pub(crate) fn config(slots: u32, batch: u32) -> WorkerConfig {
    let mut config = WorkerConfig::default();
    config.train.slots = slots;
    config.data.train = vec![assets("corpus/train-*.parquet")];
    config.data.window_row_groups = 1;
    config.model.image_encoder = assets("backbones/eva-tiny");
    config.model.language_model = assets("backbones/opt-tiny");
    config.model.qformer_init = assets("backbones/bert-tiny");
    config.model.qformer_tokenizer = assets("backbones/qformer-tokenizer");
    let sizes = &mut config.model.qformer;
    (sizes.hidden, sizes.layers, sizes.heads, sizes.intermediate) = (128, 4, 4, 512);
    (sizes.queries, sizes.max_positions, sizes.embed_dim) = (4, 64, 32);
    let optimizer = OptimizerSettings { learning_rate: 1e-3, warmup_steps: 1, ..Default::default() };
    (config.stage1.steps, config.stage1.batch, config.stage1.text_length) = (2, batch, 12);
    (config.stage2.steps, config.stage2.batch, config.stage2.text_length) = (2, batch, 12);
    config.stage1.optimizer = optimizer.clone();
    config.stage2.optimizer = optimizer;
    config
}
