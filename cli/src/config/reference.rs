//! What every key means: the one table behind `config show`, the JSON Schema and `docs/configuration.md`. The
//! keys of stages are explained by their tasks ([`stages`]).

use super::stages;

/// Key and meaning, in the order in which they are explained.
const KEYS: &[(&str, &str)] = &[
    ("run.root", "Folder or URL of the run (`s3://`, `gs://`, `az://`, a path)."),
    ("run.id", "Name of the run; empty: made of the configuration's and the corpus's hashes."),
    (
        "run.converted",
        "Folder or URL in which archives named in `data.train` are kept as Parquet; empty: `corpus` in `run.root`.",
    ),
    ("train.seed", "Key of every random draw."),
    (
        "train.slots",
        "Micro-batches a global batch is cut into: a power of two, at least the number of workers.",
    ),
    (
        "train.gradients",
        "`exact`: the gradient of the global-batch loss; `keys_detached`: the reference's, without gradient through contrastive keys.",
    ),
    (
        "train.device",
        "`cpu`, `cuda`, `cuda:N`, `vulkan`, `vulkan:N`, or `auto`: each worker takes a CUDA device, a discrete GPU under Vulkan or the CPU, the first that is there.",
    ),
    (
        "train.compute",
        "Numbers of the inputs of products in what is trained and on the gradient's way through the language model, backwards too: `f32`, or `bf16` with float32 sums. Parameters, norms, softmax, losses and gradients are float32 either way (docs/devices.md).",
    ),
    (
        "train.tf32",
        "Let products of float32 round their factors to TF32 (10 bits of a number's 23, about 1e-3) where a GPU has units for that. Without it they are products of float32 on every device (docs/devices.md).",
    ),
    (
        "train.wire",
        "Numbers in which gradients travel between members: `f32`, or `bf16` with half the bytes. With `bf16` every node of the tree over the slots is rounded, so that the number of workers still changes no bit.",
    ),
    (
        "train.overlap",
        "Read, sum and apply parts of the gradient while the rest of it is computed, with a second copy of parameters and moments; changes no bit of the result.",
    ),
    (
        "train.non_finite",
        "What becomes of a step whose loss, gradient or update is not a finite number: `stop` ends the run before it is committed, `skip` commits it without a change of the parameters.",
    ),
    ("train.max_skipped_steps", "Steps of a run that may be skipped; one more ends it."),
    ("train.loss_rise_window", "Steps over which the mean loss is watched; 0: it is not watched."),
    (
        "train.loss_rise_factor",
        "A mean loss so many times the smallest of the stage is a rise, of which the run warns.",
    ),
    (
        "data.train",
        "Parquet files or WebDataset archives, folders of them, or patterns: `*`, `?`, `[a-z]`, `**`, `{a,b}`, `{00000..01243}`; a path or URL that exists is meant as it is written.",
    ),
    ("data.window_row_groups", "Row groups a slot draws from at a time."),
    ("data.max_quarantined_share", "Share of unusable rows above which the run stops with exit code 3."),
    ("data.max_pixels", "Pictures with more pixels are unusable."),
    ("data.crop_scale", "Smallest and largest share of a picture's area that a random crop keeps."),
    ("data.flip", "Mirror half of the pictures."),
    (
        "data.columns.image",
        "Column with the image files' bytes; if absent `jpg`, `png`, `webp`, `image` or the like.",
    ),
    (
        "data.columns.caption",
        "Column with the caption; if absent `TEXT`, `alt_text`, `top_caption`, `re_caption` or the like.",
    ),
    ("data.columns.captions", "Column with a list of captions, of which one is drawn each time."),
    ("data.columns.key", "Column with a name for the row, used in reports."),
    (
        "data.columns.status",
        "Column that is `success` for usable rows; the others are passed over and counted.",
    ),
    (
        "data.columns.sha256",
        "Column with the SHA-256 of the image bytes, checked where it is that of the stored ones.",
    ),
    (
        "data.columns.sha256_of",
        "Whose hash it is: `stored`, `download` (as img2dataset records it: not checked), or `auto`, found from the first rows of a row group.",
    ),
    ("data.columns.url", "Column with the picture's URL."),
    (
        "model.folder",
        "A whole BLIP-2 folder (or URL) that serves as `image_encoder`, `language_model`, `qformer_tokenizer` and `init_checkpoint` wherever these are empty; a run stores what each of them became.",
    ),
    (
        "model.image_encoder",
        "Folder or URL of the frozen image encoder, in Hugging Face layout, or LAVIS's file of one (`eva_vit_g.pth`, `clip_vit_L.pth`).",
    ),
    (
        "model.image_size",
        "Side of the square pictures in pixels, a multiple of the encoder's patch, whose position table is resized; 0: the encoder's own.",
    ),
    (
        "model.language_model",
        "Folder or URL of the frozen language model (OPT, T5 or Llama), where a stage is trained through one, or a Llama's GGUF file.",
    ),
    (
        "model.frozen_dtype",
        "Numbers of both, of their matrices and the activations between them, with norms and softmax in float32: `f32`, `bf16`, or `auto`, which is `bf16` on a GPU that computes in it and `f32` elsewhere. What is trained is float32 always.",
    ),
    ("model.qformer_init", "Folder or URL of the BERT that the Q-Former starts from; empty: random."),
    ("model.qformer_tokenizer", "Folder or URL of the Q-Former's tokenizer."),
    (
        "model.init_checkpoint",
        "What to start from, a path or URL: a run (its newest whole checkpoint, which is then pinned), one of its checkpoints, a LAVIS file, or a BLIP-2 folder of `transformers`; empty: nothing.",
    ),
    ("model.ln_vision_eps", "Epsilon of `ln_vision`: 1e-5 in LAVIS, 1e-6 in `transformers`."),
    ("model.qformer.hidden", "Width of the Q-Former."),
    ("model.qformer.layers", "Its layers."),
    ("model.qformer.heads", "Its attention heads."),
    ("model.qformer.intermediate", "Width of its feed-forward layers."),
    ("model.qformer.queries", "Learned queries."),
    ("model.qformer.cross_attention_frequency", "Every n-th layer attends to the picture."),
    ("model.qformer.max_positions", "Rows of the position table."),
    ("model.qformer.embed_dim", "Width of the contrastive space."),
    ("model.qformer.dropout", "Dropout probability."),
    ("loader.prefetch_bytes", "Memory for data read ahead, in bytes."),
    ("loader.decode_threads", "Threads that decode pictures in each worker."),
    ("loader.read_concurrency", "Reads under way at a time."),
    ("loader.read_attempts", "Tries of a read, after those of the store's client, before the run fails."),
    (
        "loader.hedged_percent",
        "Reads in a hundred that may be asked for a second time when the first answer is slower than nearly all were; 0: none.",
    ),
    ("loader.disk_cache", "Folder on a local disk that keeps row groups of a remote store; empty: none."),
    (
        "loader.disk_cache_bytes",
        "Most bytes of the disk cache of each worker; what the plan needs last is given up first.",
    ),
    (
        "checkpoint.cadence",
        "`fixed`: every `every_steps`; `auto`: by the square-root rule, from the measured cost of a checkpoint and the mean time between losses of workers.",
    ),
    (
        "checkpoint.every_steps",
        "Steps between checkpoints of the fixed cadence; 0: only at the end of a stage.",
    ),
    ("checkpoint.keep", "Newest checkpoints to keep besides those at stage ends; 0: all."),
    (
        "checkpoint.mtbf_s",
        "Seconds between losses of workers that the automatic cadence assumes before it has seen any.",
    ),
    ("checkpoint.max_failures", "Checkpoints in a row that could not be stored, after which the run fails."),
    (
        "coordinator.workers",
        "Workers to start with; `train` starts so many processes, and one for each card where nobody says how many.",
    ),
    ("coordinator.min_workers", "Fewest workers to go on with."),
    ("coordinator.max_workers", "Most workers at a time."),
    ("coordinator.heartbeat_ms", "Milliseconds between a worker's heartbeats."),
    ("coordinator.heartbeat_timeout_s", "Seconds without a heartbeat after which a worker is lost."),
    (
        "coordinator.step_deadline_s",
        "Seconds after which a step without progress is redone without the workers that do not answer.",
    ),
    ("coordinator.join_timeout_s", "Seconds to wait for the first workers."),
    ("coordinator.rejoin_timeout_s", "Seconds to wait for workers when too few are left."),
    ("coordinator.max_redo", "Redone attempts of one step after which the run fails."),
    (
        "coordinator.rejoin_grace_s",
        "Seconds that a coordinator which takes over waits for further workers of the run, after the first.",
    ),
    (
        "coordinator.takeover_after_s",
        "Seconds without an answer of the leading coordinator after which one that stands by takes over.",
    ),
    (
        "coordinator.flap_limit",
        "Losses of one worker (by name) within `flap_window_s` after which it is refused for `cooldown_s`; 0: never.",
    ),
    ("coordinator.flap_window_s", "Seconds within which the losses of a worker are counted."),
    ("coordinator.cooldown_s", "Seconds for which a worker that was lost too often is refused."),
    (
        "tls.ca",
        "PEM file with the authority's certificates: with `cert` and `key`, all connections are mutual TLS; empty: plain.",
    ),
    ("tls.cert", "PEM file with this process's certificate."),
    ("tls.key", "PEM file with its private key."),
    ("tls.server_name", "Name that all certificates of the run are issued for."),
    (
        "launch.threads_per_worker",
        "Threads of a worker process; 0: the machine's cores divided by the workers.",
    ),
    ("launch.restarts", "How often `train` starts each worker again that was killed; 0: never."),
    (
        "launch.share_devices",
        "Let workers share a card, dealt round robin; else more workers than cards are refused.",
    ),
    (
        "launch.pin_cores",
        "Keep each worker that has a card to its share of the cores, those near the card where that is known.",
    ),
    (
        "eval.every_steps",
        "Steps between two evaluations on held-out rows while a run trains, which the end of a stage also is; 0: none. Changes no bit of the result.",
    ),
    ("eval.data", "Parquet files of the held-out rows, as `data.train`."),
    ("eval.rows", "Most of their rows, the first ones."),
    ("eval.test", "Parquet files of held-out pictures."),
    ("eval.clip", "Folder of a frozen CLIP to compare retrieval with; empty: none."),
    ("eval.captions", "Held-out pictures that get a caption in the report."),
    ("eval.beams", "Beams of the caption search; 1 is greedy."),
    ("eval.max_new_tokens", "Longest caption in tokens."),
    ("curation.input", "Parquet files to curate: paths or URLs, `*` matches within the last path segment."),
    (
        "curation.output",
        "Folder or prefix to write to; a curation that was stopped goes on when it is given again.",
    ),
    ("curation.columns.image", "As `data.columns.image`, of the input."),
    ("curation.columns.caption", "As `data.columns.caption`, of the input."),
    ("curation.columns.captions", "As `data.columns.captions`, of the input."),
    ("curation.columns.key", "As `data.columns.key`, of the input."),
    ("curation.columns.status", "As `data.columns.status`, of the input."),
    ("curation.columns.sha256", "As `data.columns.sha256`, of the input."),
    ("curation.columns.sha256_of", "As `data.columns.sha256_of`, of the input."),
    ("curation.columns.url", "As `data.columns.url`, of the input."),
    ("curation.task_row_groups", "Row groups of a task, which is done as a whole and becomes one file."),
    ("curation.max_pixels", "Pictures with more pixels are not used."),
    ("curation.workers", "Worker processes that `curate` starts on this machine."),
    ("curation.lease_seconds", "A task whose worker is silent for so long is given to another one."),
    ("curation.most_failures", "A task that fails so often ends the curation."),
    (
        "curation.selection.mode",
        "`rank`: the texts most similar to the picture, by CLIP; `filter`: all texts that match it, by BLIP's filter.",
    ),
    ("curation.selection.top", "Texts of a picture that `rank` keeps."),
    ("curation.selection.min_clip_score", "`rank` keeps no text of a smaller cosine."),
    ("curation.selection.min_itm_score", "`filter` keeps texts whose probability to match is larger."),
    ("curation.selection.rules.enabled", "Apply the rules that look at a text alone."),
    ("curation.selection.rules.min_words", "Fewest words of a text."),
    ("curation.selection.rules.max_words", "Most words of a text."),
    ("curation.selection.rules.min_letters", "Fewest letters of a text."),
    ("curation.selection.rules.boilerplate", "Phrases, beside the usual ones, that make a text boilerplate."),
    (
        "curation.selection.rules.max_word_share",
        "Largest share that a single word may have of a text of four words or more.",
    ),
    ("curation.models.captioner", "Folder of the captioner: BLIP's, or an exported BLIP-2."),
    ("curation.models.clip", "Folder of the CLIP that ranks texts; empty: no cosines."),
    ("curation.models.itm", "Folder of BLIP's filter; empty: no probabilities of a match."),
    ("curation.models.captions", "Captions written about a picture; 0: none."),
    ("curation.models.prompt", "What captions continue; it is no part of them."),
    (
        "curation.models.top_p",
        "Captions are drawn from the likeliest tokens that together have this probability.",
    ),
    ("curation.models.temperature", "Divides the scores of tokens before they are drawn."),
    ("curation.models.repetition_penalty", "Divides the scores of tokens that occurred."),
    ("curation.models.min_new_tokens", "Fewest tokens of a caption."),
    ("curation.models.max_new_tokens", "Most tokens of a caption."),
    ("curation.models.seed", "Key of all draws."),
    ("curation.models.batch", "Pictures computed at a time."),
    ("curation.models.text_batch", "Texts scored at a time."),
    ("curation.models.device", "Device of the models, as `train.device`."),
];

/// The key behind which those of the stages are explained.
const BEFORE_STAGES: &str = "model.qformer.dropout";

/// What the key means; empty for an unknown one, which the tests rule out.
pub(super) fn about(key: &str) -> &'static str {
    let named = KEYS.iter().find(|(known, _)| *known == key).map(|(_, about)| *about);
    named.or_else(|| stages::about(key)).unwrap_or_else(|| super::sources::about(key))
}

/// Where the key stands in the table; unknown keys come last.
pub(super) fn position(key: &str) -> (usize, Option<(usize, String, usize)>) {
    let of_stage = stages::position(key);
    let named = if of_stage.is_some() { BEFORE_STAGES } else { key };
    (KEYS.iter().position(|(known, _)| *known == named).unwrap_or(KEYS.len()), of_stage)
}

/// The values a key can take, where they are few and named.
pub(super) fn choices(key: &str) -> &'static [&'static str] {
    match key {
        "train.gradients" => &["exact", "keys_detached"],
        "model.frozen_dtype" => &["auto", "f32", "bf16"],
        "train.compute" | "train.wire" => &["f32", "bf16"],
        "train.non_finite" => &["stop", "skip"],
        "checkpoint.cadence" => &["fixed", "auto"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write as _;

    use super::super::ranges::range_of;
    use super::super::{Layers, Setting};
    use super::*;

    const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    const INTRODUCTION: &str = include_str!("introduction.md");

    fn defaults() -> Vec<Setting> {
        Layers::new().unwrap().finish().unwrap().settings
    }

    #[test]
    fn every_key_is_explained_once_and_exists() {
        let explained: BTreeSet<&str> = KEYS.iter().map(|(key, _)| *key).collect();
        assert_eq!(explained.len(), KEYS.len(), "a key is explained twice");
        let settings = defaults();
        let existing: BTreeSet<&str> = settings.iter().map(|setting| setting.key.as_str()).collect();
        let others: BTreeSet<&str> =
            existing.iter().copied().filter(|key| stages::about(key).is_none()).collect();
        assert_eq!(explained, others);
        assert!(existing.iter().all(|key| !about(key).is_empty()));
    }

    #[test]
    fn the_document_has_every_key_with_its_default() {
        let wanted = document(&defaults());
        if std::env::var_os("BLIP2_BLESS").is_some() {
            std::fs::write(DOCUMENT, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(DOCUMENT).unwrap_or_default();
        assert!(found == wanted, "docs/configuration.md is old: BLIP2_BLESS=1 cargo test --release -p blip2");
    }

    fn document(settings: &[Setting]) -> String {
        let mut text = INTRODUCTION.to_owned();
        let mut section = "";
        let mut ordered: Vec<&Setting> = settings.iter().collect();
        ordered.sort_by_key(|setting| position(&setting.key));
        for Setting { key, value, .. } in ordered {
            let own = key.split('.').next().unwrap();
            if own != section {
                section = own;
                write!(text, "\n### {section}\n\n| key | default | range | meaning |\n|---|---|---|---|\n")
                    .unwrap();
            }
            let range = range_of(key).map_or_else(String::new, |range| range.to_string());
            writeln!(text, "| `{key}` | `{value}` | {range} | {} |", about(key)).unwrap();
        }
        text
    }
}
