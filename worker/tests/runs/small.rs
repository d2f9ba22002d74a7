//! A run of the small backbones on the emoji corpus.

use std::path::Path;

use blip2_worker::WorkerConfig;
use blip2_worker::settings::optimizer::OptimizerSettings;
use blip2_worker::task::TaskSettings;

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
    for stage in &mut config.stages {
        (stage.steps, stage.batch, stage.optimizer) = (2, batch, optimizer.clone());
        match &mut stage.task {
            TaskSettings::Contrast(contrast) => contrast.text_length = 12,
            TaskSettings::Generate(generate) => generate.text_length = 12,
            TaskSettings::Retrieval(retrieval) => retrieval.text_length = 12,
            _ => {}
        }
    }
    config
}
