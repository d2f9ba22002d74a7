//! Published weights as the state before a run's first step.

use std::path::Path;

use blip2_model::blip2::PublishedQFormer;
use blip2_model::blip2::export::NOT_IN_RETRIEVAL;
use blip2_model::files::weights::WeightSource;
use blip2_model::language::LanguageModel;
use blip2_model::train::flat::FlatTensor;
use blip2_run::layout::shard_name;
use burn::tensor::Device;
use bytes::Bytes;

use crate::checkpoint::{NamedState, encode_part};
use crate::config::WorkerConfig;
use crate::error::{Result, WorkerError};
use crate::open::{image_width, of_language_model, qformer_text};
use crate::state::{FrozenSizes, TrainState};

/// A tensor that only weights of stage 1, or of stage 2, have.
const STAGE1_MARK: &str = "vision_proj.weight";
const STAGE2_MARK: &str = "opt_proj.weight";

/// The Q-Former's parts for texts, which InstructBLIP has beside a projection and stage 2 has not.
const TEXT_PARTS: &[&str] = &[
    "qformer.embeddings.*",
    "qformer.encoder.layer.*.intermediate.*",
    "qformer.encoder.layer.*.output.*",
    "Qformer.bert.embeddings.*",
    "Qformer.bert.encoder.layer.*.intermediate.*",
    "Qformer.bert.encoder.layer.*.output.*",
    "Qformer.cls.*",
];

/// A state made of published weights, with the optimizer at rest.
#[derive(Debug)]
pub struct Imported {
    /// The stage that continues from it.
    pub stage: u32,
    /// Name of the only part.
    pub part: String,
    /// The part's bytes.
    pub content: Bytes,
    /// BLAKE3 over the parameters, as `checkpoint digest` prints it.
    pub digest: String,
    /// Tensors that the weights lack and the configuration's beginning gave, by name.
    pub begun_anew: Vec<String>,
}

/// Reads the weights `from`: a folder of `Blip2ForConditionalGeneration` (stage 2) or `Blip2ForImageTextRetrieval`
/// (stage 1), or a file under LAVIS's names of either stage.
///
/// # Errors
/// Weights of a stage that does not begin the configuration's run, sizes that the configuration has otherwise, or
/// tensors that are missing, have another shape or belong nowhere: each named with what was expected.
pub fn import(config: &WorkerConfig, from: &Path) -> Result<Imported> {
    let source = WeightSource::open_published(from)?;
    let stage = stage_of(config, &source)?;
    compare_folder(config, from)?;
    let (text, _) = qformer_text(&config.model, config.stage1.text_length)?;
    let sizes = FrozenSizes {
        image_width: image_width(&config.model)?,
        vocab: text.vocab_size(),
        language_width: match stage {
            2 => LanguageModel::width_of(config.model.language_model.as_ref())
                .map_err(|error| of_language_model(&config.model, error))?,
            _ => 0,
        },
    };
    // Values are copied and nothing is computed: no GPU is needed, whatever the run is trained on.
    let device = Device::flex();
    let mut beginning = config.clone();
    beginning.model.init_checkpoint.clear();
    let mut state = TrainState::fresh(&beginning, sizes, &device)?;
    let begun_anew = overlay(&mut state, &source)?;
    let odd = |tensor: &&FlatTensor| state.parameters[tensor.range()].iter().any(|value| !value.is_finite());
    if let Some(tensor) = state.layout.tensors().iter().find(odd) {
        return Err(WorkerError::NonFinite {
            place: from.display().to_string(),
            tensor: tensor.name.clone(),
        });
    }
    let part = shard_name(0, 1);
    let content = encode_part(&state, 0, 1)?;
    let digest = NamedState::decode(&part, std::slice::from_ref(&content))?.digest();
    Ok(Imported { stage, part, content, digest, begun_anew })
}

/// The stage of the weights, which must be the run's first.
fn stage_of(config: &WorkerConfig, source: &WeightSource) -> Result<u32> {
    let refuse =
        |reason: String| Err(WorkerError::Configuration(format!("{}: {reason}", source.origin().display())));
    let first = if config.stage1.steps > 0 { 1 } else { 2 };
    match (source.contains(STAGE1_MARK), source.contains(STAGE2_MARK)) {
        (_, true) if first == 1 => refuse(
            "these are weights of stage 2, and the run begins with stage 1: set stage1.steps = 0".into(),
        ),
        (_, true) => Ok(2),
        (true, false) if first == 2 => refuse(
            "these are weights of stage 1, and the run begins with stage 2: set stage1.steps, or start stage 2 from \
             a file of them by model.init_checkpoint"
                .into(),
        ),
        (true, false) => Ok(1),
        (false, false) => refuse(format!(
            "neither `{STAGE1_MARK}` nor `{STAGE2_MARK}` is there: these are no weights of a trained stage"
        )),
    }
}

/// Requires that a folder of `transformers`, if `from` is one, has the sizes of the configuration.
pub(crate) fn compare_folder(config: &WorkerConfig, from: &Path) -> Result<()> {
    match PublishedQFormer::of_folder(from)? {
        Some(published) => compare(config, &published),
        None => Ok(()),
    }
}

/// What shapes do not tell.
fn compare(config: &WorkerConfig, published: &PublishedQFormer) -> Result<()> {
    let (sizes, theirs) = (&config.model.qformer, &published.config);
    let fields = [
        ("heads", sizes.heads, theirs.heads),
        ("layers", sizes.layers, theirs.layers),
        ("queries", sizes.queries, theirs.queries),
        ("hidden", sizes.hidden, theirs.hidden),
        ("intermediate", sizes.intermediate, theirs.intermediate),
        ("cross_attention_frequency", sizes.cross_attention_frequency, theirs.cross_attention_frequency),
    ];
    let mut differences: Vec<String> = (fields.iter())
        .filter(|(_, own, theirs)| own != theirs)
        .map(|(name, own, theirs)| format!("model.qformer.{name} = {own}, the weights have {theirs}"))
        .collect();
    if config.model.ln_vision_eps != published.ln_vision_eps {
        let (own, theirs) = (config.model.ln_vision_eps, published.ln_vision_eps);
        differences.push(format!("model.ln_vision_eps = {own}, the weights have {theirs}"));
    }
    match differences.is_empty() {
        true => Ok(()),
        false => Err(WorkerError::Configuration(format!(
            "{}: set these as the weights have them: {}",
            published.path.display(),
            differences.join("; ")
        ))),
    }
}

/// Puts every tensor of the source into the state; the names of those that it may lack and lacks.
pub(crate) fn overlay(state: &mut TrainState, source: &WeightSource) -> Result<Vec<String>> {
    let mut begun_anew = Vec::new();
    for tensor in state.layout.tensors() {
        let optional = NOT_IN_RETRIEVAL.iter().any(|start| tensor.name.starts_with(start));
        if optional && !source.is_lavis() && !source.contains(&tensor.name) {
            begun_anew.push(tensor.name.clone());
            continue;
        }
        let values = source.read(&tensor.name, &tensor.shape)?;
        state.parameters[tensor.range()].copy_from_slice(&values);
    }
    let names: Vec<String> = state.layout.tensors().iter().map(|tensor| tensor.name.clone()).collect();
    source.check_unused(&names, if state.stage == 2 { TEXT_PARTS } else { &[] })?;
    Ok(begun_anew)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::{ExportOptions, Layout, export};
    use blip2_model::vision::ImageEncoder;

    /// A small Q-Former between the quick start's frozen parts, in a run that begins with `stage`.
    fn config(stage: u32) -> WorkerConfig {
        let asset = |name: &str| format!("{}/../assets/backbones/{name}", env!("CARGO_MANIFEST_DIR"));
        let mut config = WorkerConfig::default();
        config.model.image_encoder = asset("eva-tiny");
        config.model.language_model = asset("opt-tiny");
        config.model.qformer_tokenizer = asset("qformer-tokenizer");
        config.model.ln_vision_eps = 1e-6;
        let sizes = &mut config.model.qformer;
        (sizes.hidden, sizes.heads, sizes.layers, sizes.intermediate) = (16, 2, 2, 24);
        (sizes.queries, sizes.embed_dim, sizes.max_positions) = (3, 8, 32);
        config.stage1.steps = u64::from(stage == 1);
        config.stage2.steps = 1;
        config
    }

    /// The beginning of a run of `config`.
    fn fresh(config: &WorkerConfig) -> NamedState {
        let sizes = FrozenSizes {
            image_width: ImageEncoder::width_of(config.model.image_encoder.as_ref()).unwrap(),
            vocab: qformer_text(&config.model, 32).unwrap().0.vocab_size(),
            language_width: LanguageModel::width_of(config.model.language_model.as_ref()).unwrap(),
        };
        let device = Device::flex();
        let state = TrainState::fresh(config, sizes, &device).unwrap();
        NamedState::decode("test", &[encode_part(&state, 0, 1).unwrap()]).unwrap()
    }

    fn decoded(imported: &Imported) -> NamedState {
        NamedState::decode("test", std::slice::from_ref(&imported.content)).unwrap()
    }

    /// Exports a state, imports it, and exports it again: whether the weights are the same to the bit.
    fn round_trip(stage: u32, layout: Layout, name: &str, weights: &str) -> (NamedState, Imported) {
        let config = config(stage);
        let mut seeded = config.clone();
        seeded.train.seed += 1;
        let state = fresh(&seeded);
        let place = tempfile::tempdir().unwrap();
        let (first, second) = (place.path().join("first").join(name), place.path().join("second").join(name));
        let options = ExportOptions::default();
        export(&config, &state, layout, &options, &first).unwrap();
        let imported = import(&config, &first).unwrap();
        assert_eq!(imported.stage, stage);
        export(&config, &decoded(&imported), layout, &options, &second).unwrap();
        let read = |path: &Path| std::fs::read(path.join(weights)).or_else(|_| std::fs::read(path)).unwrap();
        assert!(read(&first) == read(&second), "{name} differs");
        (state, imported)
    }

    #[test]
    fn lavis_files_keep_every_parameter() {
        for (stage, name) in [(1, "stage1.pth"), (1, "stage1.safetensors"), (2, "stage2.pth")] {
            let (state, imported) = round_trip(stage, Layout::Lavis, name, "");
            assert_eq!(imported.digest, state.digest(), "{name}");
            assert!(imported.begun_anew.is_empty());
        }
    }

    #[test]
    fn folders_keep_what_they_have_a_place_for() {
        let (state, imported) = round_trip(2, Layout::HuggingFace, "blip2", "model.safetensors");
        assert_eq!(imported.digest, state.digest());
        let (state, imported) = round_trip(1, Layout::Retrieval, "retriever", "model.safetensors");
        assert!(imported.begun_anew.iter().any(|name| name == "temp"), "{:?}", imported.begun_anew);
        let read = decoded(&imported);
        for ((name, _, want), (_, _, got)) in state.parameters().zip(read.parameters()) {
            assert!(want == got || imported.begun_anew.iter().any(|anew| anew == name), "{name}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("stage1.pth");
        let options = ExportOptions::default();
        export(&config(1), &fresh(&config(1)), Layout::Lavis, &options, &file).unwrap();
        let error = |config: &WorkerConfig, from: &Path| import(config, from).unwrap_err().to_string();
        let other_stage = error(&config(2), &file);
        assert!(
            other_stage.contains("weights of stage 1") && other_stage.contains("stage1.steps"),
            "{other_stage}"
        );
        let mut wider = config(1);
        wider.model.qformer.hidden = 32;
        let shape = error(&wider, &file);
        assert!(shape.contains("has shape [16"), "{shape}");
        let folder = place.path().join("retriever");
        export(&config(1), &fresh(&config(1)), Layout::Retrieval, &options, &folder).unwrap();
        let mut other = config(1);
        (other.model.qformer.heads, other.model.ln_vision_eps) = (4, 1e-5);
        let differing = error(&other, &folder);
        assert!(differing.contains("model.qformer.heads = 4, the weights have 2"), "{differing}");
        assert!(differing.contains("model.ln_vision_eps"), "{differing}");
        assert!(
            error(&config(1), config(1).model.image_encoder.as_ref())
                .contains("no weights of a trained stage")
        );
        let wrong = export(&config(1), &fresh(&config(1)), Layout::HuggingFace, &options, place.path());
        assert!(wrong.unwrap_err().to_string().contains("stage-2 checkpoint"));
    }
}
