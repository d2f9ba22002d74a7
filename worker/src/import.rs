//! Published weights as the state before a run's first step.

use std::path::Path;

use blip2_model::language::LanguageModel;
use blip2_model_files::weights::WeightSource;
use blip2_run::layout::shard_name;
use blip2_tensors::train::flat::FlatTensor;
use burn::tensor::Device;
use bytes::Bytes;

use crate::checkpoint::NamedState;
use crate::config::WorkerConfig;
use crate::config::stage::NumberedStage;
use crate::error::{Result, WorkerError};
use crate::frozen_models::FrozenSizes;
use crate::open::{image_width, of_language_model, qformer_vocabulary};
use crate::published_sizes::compare_folder;
use crate::state::TrainState;
use crate::task::TaskSettings;

/// A state made of published weights, with the optimizer at rest.
#[derive(Debug)]
pub struct Imported {
    /// The stage that continues from it.
    pub stage: NumberedStage,
    /// Name of the only part.
    pub part: String,
    /// The part's bytes.
    pub content: Bytes,
    /// BLAKE3 over the parameters, as `checkpoint digest` prints it.
    pub digest: String,
    /// Tensors that the weights lack and the configuration's beginning gave, by name.
    pub begun_anew: Vec<String>,
}

/// Reads the weights `from`: a folder of `Blip2ForConditionalGeneration` or `Blip2ForImageTextRetrieval`, or
/// a file under LAVIS's names, of the task that the configuration's run begins with.
///
/// # Errors
/// Weights of another task, sizes that the configuration has otherwise, or tensors that are missing, have
/// another shape or belong nowhere: each named with what was expected.
pub fn import(config: &WorkerConfig, from: &Path) -> Result<Imported> {
    let source = WeightSource::open_published(from)?;
    let stage = stage_of(config, &source)?;
    compare_folder(&config.model, from)?;
    let sizes = FrozenSizes {
        image_width: image_width(&config.model)?,
        vocab: qformer_vocabulary(&config.model)?.0,
        language_width: match stage.settings.task.needs().language_model {
            true => LanguageModel::width_of(config.model.language_model.as_ref())
                .map_err(|error| of_language_model(&config.model, error))?,
            false => 0,
        },
    };
    // Values are copied and nothing is computed: no GPU is needed, whatever the run is trained on.
    let device = Device::flex();
    let mut state = TrainState::begun(stage.clone(), config, sizes, &device)?;
    let begun_anew = state.overlay(&source)?;
    let odd = |tensor: &&FlatTensor| state.parameters[tensor.range()].iter().any(|value| !value.is_finite());
    if let Some(tensor) = state.layout.tensors().iter().find(odd) {
        return Err(WorkerError::NonFinite {
            place: from.display().to_string(),
            tensor: tensor.name.clone(),
        });
    }
    let part = shard_name(0, 1);
    let content = state.encode_part(0, 1)?;
    let digest = NamedState::decode(&part, std::slice::from_ref(&content))?.digest();
    Ok(Imported { stage, part, content, digest, begun_anew })
}

/// The run's first stage, whose task the weights must be of.
fn stage_of(config: &WorkerConfig, source: &WeightSource) -> Result<NumberedStage> {
    let refuse =
        |reason: String| Err(WorkerError::Configuration(format!("{}: {reason}", source.origin().display())));
    let first = config.first_stage()?;
    let known = TaskSettings::known();
    // A later task's weights may have an earlier one's tensors besides, and tasks that train the same tensors
    // have one mark.
    let marked = |task: &&TaskSettings| source.contains(task.trained().weight_names().mark);
    let last = known.iter().rev().find(marked).map(|task| task.trained().weight_names().mark);
    let Some(found) = known.iter().find(|task| Some(task.trained().weight_names().mark) == last) else {
        let marks: Vec<String> =
            known.iter().map(|task| format!("`{}`", task.trained().weight_names().mark)).collect();
        return refuse(format!(
            "none of {} is there: these are no weights of a trained stage",
            marks.join(", ")
        ));
    };
    if first.settings.task.trained().weight_names().mark == found.trained().weight_names().mark {
        return Ok(first);
    }
    let own = config
        .stages
        .iter()
        .find(|stage| stage.task.trained().weight_names().mark == found.trained().weight_names().mark);
    let own = own.map_or("one of that task", |stage| stage.name.as_str());
    refuse(format!(
        "these are weights of the task {}, and the run begins with stage `{}` ({}): let it begin with stage `{own}` (steps = 0 \
         skips a stage), or name the file in model.init_checkpoint to start from them",
        found.name(),
        first.name(),
        first.settings.task.name(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::{ExportOptions, Layout, export};
    use crate::settings::lora::LoraSettings;
    use crate::task::generate::GenerateSettings;
    use blip2_model::vision::ImageEncoder;
    use blip2_model_files::weights::{NameStyle, is_of_adapter};

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
        config.stages[0].steps = u64::from(stage == 1);
        config.stages[1].steps = 1;
        config
    }

    /// The beginning of a run of `config`.
    fn fresh(config: &WorkerConfig) -> NamedState {
        named(&begun(config).unwrap())
    }

    fn begun(config: &WorkerConfig) -> Result<TrainState> {
        let sizes = FrozenSizes {
            image_width: ImageEncoder::width_of(config.model.image_encoder.as_ref()).unwrap(),
            vocab: qformer_vocabulary(&config.model).unwrap().0,
            language_width: LanguageModel::width_of(config.model.language_model.as_ref()).unwrap(),
        };
        TrainState::fresh(config, sizes, &Device::flex())
    }

    fn named(state: &TrainState) -> NamedState {
        NamedState::decode("test", &[state.encode_part(0, 1).unwrap()]).unwrap()
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
        let begins = config.first_stage().unwrap();
        export(&config, &begins, &state, layout, &options, &first).unwrap();
        let imported = import(&config, &first).unwrap();
        assert_eq!(imported.stage, begins);
        export(&config, &begins, &decoded(&imported), layout, &options, &second).unwrap();
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

    /// The run with adapters of the language model, and its beginning, where these do something already.
    fn adapted(backbone: &str) -> (WorkerConfig, NamedState) {
        let mut config = config(2);
        config.model.language_model = config.model.language_model.replace("opt-tiny", backbone);
        let lora = LoraSettings { rank: 2, alpha: 3.0, ..LoraSettings::default() };
        config.stages[1].task = TaskSettings::Generate(GenerateSettings { lora, ..Default::default() });
        let mut state = begun(&config).unwrap();
        for tensor in state.layout.tensors().iter().filter(|tensor| is_of_adapter(&tensor.name)) {
            let values = state.parameters[tensor.range()].iter_mut().enumerate();
            values.for_each(|(at, value)| *value = (at as f32 * 0.7311).sin() * 0.2);
        }
        let state = named(&state);
        (config, state)
    }

    #[test]
    fn adapters_are_kept_in_a_file_merged_in_a_folder_and_by_themselves_for_peft() {
        let (config, state) = adapted("opt-tiny");
        let (stage, options) = (config.first_stage().unwrap(), ExportOptions::default());
        let place = tempfile::tempdir().unwrap();
        let write = |layout, name: &str| {
            let out = place.path().join(name);
            export(&config, &stage, &state, layout, &options, &out).map(|()| out)
        };
        let file = write(Layout::Lavis, "stage2.pth").unwrap();
        let read = import(&config, &file).unwrap();
        assert_eq!((read.digest, read.begun_anew.len()), (state.digest(), 0));

        let folder = write(Layout::HuggingFace, "blip2").unwrap();
        let begun_anew = import(&config, &folder).unwrap().begun_anew;
        assert!(
            !begun_anew.is_empty() && begun_anew.iter().all(|name| is_of_adapter(name)),
            "{begun_anew:?}"
        );
        let of = |path: &Path, name: &str, shape: &[usize]| {
            WeightSource::open_huggingface(path).unwrap().read(name, shape).unwrap()
        };
        let tensor = |end: &str| {
            let found = state.parameters().find(|(name, _, _)| name.ends_with(end)).unwrap();
            (found.0.to_owned(), found.1.to_vec(), found.2.to_vec())
        };
        let (name, shape, down) = tensor("layers.1.self_attn.q_proj.lora_A.weight");
        let (_, _, up) = tensor("layers.1.self_attn.q_proj.lora_B.weight");
        let (width, stem) = (shape[1], name.strip_suffix("q_proj.lora_A.weight").unwrap());
        let base = Path::new(&config.model.language_model);
        for (map, adds) in [("q_proj", 1.5), ("k_proj", 0.0)] {
            let name = format!("{stem}{map}.weight");
            let [merged, plain] = [&folder, base].map(|path: &Path| of(path, &name, &[width, width]));
            for (at, (merged, plain)) in merged.iter().zip(&plain).enumerate() {
                let (row, column) = (at / width, at % width);
                let added: f32 = (0..2).map(|rank| up[row * 2 + rank] * down[rank * width + column]).sum();
                assert!((merged - plain - adds * added).abs() < 1e-6, "{name} {at}: {merged} and {plain}");
            }
        }

        let adapter = write(Layout::Peft, "adapter").unwrap();
        let text = std::fs::read_to_string(adapter.join("adapter_config.json")).unwrap();
        let peft: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&peft["r"], &peft["lora_alpha"], &peft["task_type"]),
            (&2.into(), &3.into(), &"CAUSAL_LM".into())
        );
        assert_eq!(peft["target_modules"], serde_json::json!(["q_proj", "v_proj"]));
        let source =
            WeightSource::open(&adapter.join("adapter_model.safetensors"), NameStyle::Lavis).unwrap();
        let stored = name.replace("opt_model.", "base_model.model.");
        assert_eq!(source.read(&stored, &shape).unwrap(), down);
        assert_eq!(source.names().count(), begun_anew.len());
    }

    #[test]
    fn adapters_are_not_forgotten() {
        let (config, state) = adapted("opt-tiny");
        let (stage, options) = (config.first_stage().unwrap(), ExportOptions::default());
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("stage2.pth");
        export(&config, &stage, &state, Layout::Lavis, &options, &file).unwrap();
        let mut without = self::config(2);
        without.model.init_checkpoint = file.display().to_string();
        let error = begun(&without).unwrap_err().to_string();
        assert!(error.contains("lora_A.weight` first") && error.contains("stages.generate.lora"), "{error}");
        // Nor are those of a stage that has none written.
        let out = place.path().join("adapter");
        let error = export(&without, &without.first_stage().unwrap(), &state, Layout::Peft, &options, &out);
        assert!(error.unwrap_err().to_string().contains("has not this layout"));
    }

    #[test]
    #[ignore = "runs the user's Python: BLIP2_PEFT_PYTHON names one that has torch, transformers and peft"]
    fn peft_and_the_merged_folder_score_alike() {
        let python = std::env::var("BLIP2_PEFT_PYTHON").unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/transformers/check_adapter.py");
        for backbone in ["opt-tiny", "t5-tiny"] {
            let (config, state) = adapted(backbone);
            let (stage, options) = (config.first_stage().unwrap(), ExportOptions::default());
            let place = tempfile::tempdir().unwrap();
            let [merged, adapter] =
                [(Layout::HuggingFace, "blip2"), (Layout::Peft, "adapter")].map(|(layout, name)| {
                    let out = place.path().join(name);
                    export(&config, &stage, &state, layout, &options, &out).unwrap();
                    out
                });
            let mut check = std::process::Command::new(&python);
            check.arg(script).arg("--language-model").arg(&config.model.language_model);
            check.arg("--adapter").arg(&adapter).arg("--merged").arg(&merged);
            assert!(check.status().unwrap().success(), "{backbone}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("stage1.pth");
        let options = ExportOptions::default();
        let first = config(1).first_stage().unwrap();
        export(&config(1), &first, &fresh(&config(1)), Layout::Lavis, &options, &file).unwrap();
        let error = |config: &WorkerConfig, from: &Path| import(config, from).unwrap_err().to_string();
        let other_stage = error(&config(2), &file);
        assert!(
            other_stage.contains("weights of the task contrast") && other_stage.contains("stage `represent`"),
            "{other_stage}"
        );
        let second = config(2).first_stage().unwrap();
        let generated = place.path().join("stage2.pth");
        export(&config(2), &second, &fresh(&config(2)), Layout::Lavis, &options, &generated).unwrap();
        let earlier = error(&config(1), &generated);
        assert!(earlier.contains("weights of the task generate"), "{earlier}");
        let mut wider = config(1);
        wider.model.qformer.hidden = 32;
        let shape = error(&wider, &file);
        assert!(shape.contains("has shape [16"), "{shape}");
        let folder = place.path().join("retriever");
        export(&config(1), &first, &fresh(&config(1)), Layout::Retrieval, &options, &folder).unwrap();
        let mut other = config(1);
        (other.model.qformer.heads, other.model.ln_vision_eps) = (4, 1e-5);
        let differing = error(&other, &folder);
        assert!(differing.contains("model.qformer.heads = 4, the weights have 2"), "{differing}");
        assert!(differing.contains("model.ln_vision_eps"), "{differing}");
        assert!(
            error(&config(1), config(1).model.image_encoder.as_ref())
                .contains("no weights of a trained stage")
        );
        let wrong =
            export(&config(1), &first, &fresh(&config(1)), Layout::HuggingFace, &options, place.path());
        let wrong = wrong.unwrap_err().to_string();
        assert!(wrong.contains("contrast") && wrong.contains("Retrieval"), "{wrong}");
    }
}
