//! Published weights as the state before a run's first step.

use std::collections::BTreeSet;
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
    let mark_of = |task: &TaskSettings| task.trained().weight_names().mark;
    // The first task of each mark, which weights are called by: several tasks train the same tensors.
    let mut marks = BTreeSet::new();
    let mut named: Vec<&TaskSettings> = known.iter().collect();
    named.retain(|task| marks.insert(mark_of(task)));
    // A later task's weights may have an earlier one's tensors besides.
    let Some(found) = named.iter().rev().find(|task| source.contains(mark_of(task))) else {
        let marks: Vec<String> = named.iter().map(|task| format!("`{}`", mark_of(task))).collect();
        return refuse(format!(
            "none of {} is there: these are no weights of a trained stage",
            marks.join(", ")
        ));
    };
    if mark_of(&first.settings.task) == mark_of(found) {
        return Ok(first);
    }
    let own = config.stages.iter().find(|stage| mark_of(&stage.task) == mark_of(found));
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
mod adapter_tests;
#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::exported_alone;
    use crate::config::stage::StageSettings;
    use crate::export::{ExportOptions, Layout, export};
    use crate::settings::encoder::EncoderTraining;
    use crate::task::caption::CaptionSettings;
    use crate::task::retrieval::RetrievalSettings;
    use crate::task::vqa::VqaSettings;
    use blip2_model::blip2::Blip2;
    use blip2_model::vision::{ImageEncoder, expect_with_positions};
    use blip2_tensors::device::read_back::floats;
    use blip2_tensors::train::flat::FlatLayout;
    use burn::tensor::{Int, Tensor, TensorData};
    use safetensors::Dtype;
    use safetensors::tensor::TensorView;

    /// A small Q-Former between the quick start's frozen parts, in a run that begins with `stage`.
    pub(super) fn config(stage: u32) -> WorkerConfig {
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

    pub(super) fn sizes_of(config: &WorkerConfig) -> FrozenSizes {
        FrozenSizes {
            image_width: ImageEncoder::width_of(config.model.image_encoder.as_ref()).unwrap(),
            vocab: qformer_vocabulary(&config.model).unwrap().0,
            language_width: LanguageModel::width_of(config.model.language_model.as_ref()).unwrap(),
        }
    }

    pub(super) fn named(state: &TrainState) -> NamedState {
        NamedState::decode("test", &[state.encode_part(0, 1).unwrap()]).unwrap()
    }

    /// The beginning of a run of `config`.
    fn fresh(config: &WorkerConfig) -> NamedState {
        named(&TrainState::fresh(config, sizes_of(config), &Device::flex()).unwrap())
    }

    /// The first stage's state with an image encoder that is no longer the one in its file.
    fn moved(config: &WorkerConfig) -> NamedState {
        let stage = config.first_stage().unwrap();
        let mut state = TrainState::begun(stage, config, sizes_of(config), &Device::flex()).unwrap();
        for tensor in
            state.layout.tensors().iter().filter(|tensor| tensor.name.starts_with("visual_encoder."))
        {
            state.parameters[tensor.range()].iter_mut().for_each(|value| *value *= 1.01);
        }
        named(&state)
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

    /// A run that trains the image encoder with the rest, for images of so many pixels.
    fn with_encoder(image_size: usize) -> WorkerConfig {
        of_task(TaskSettings::Retrieval(RetrievalSettings::default()), image_size)
    }

    fn of_task(task: TaskSettings, image_size: usize) -> WorkerConfig {
        let mut config = config(1);
        config.stages = vec![StageSettings { steps: 1, ..StageSettings::of("fine", task) }];
        config.model.image_size = image_size;
        config
    }

    /// A run that trains the image encoder on captions of images of 96 pixels, of which it knew 64.
    fn captions() -> WorkerConfig {
        let image_encoder = EncoderTraining::Trained;
        of_task(TaskSettings::Caption(CaptionSettings { image_encoder, ..CaptionSettings::default() }), 96)
    }

    /// A run that trains the image encoder on questions on such images.
    fn questions() -> WorkerConfig {
        let image_encoder = EncoderTraining::Trained;
        of_task(TaskSettings::Vqa(VqaSettings { image_encoder, ..VqaSettings::default() }), 96)
    }

    /// The value of a tensor of a state.
    fn of<'a>(state: &'a NamedState, name: &str) -> (&'a [usize], &'a [f32]) {
        let found = state.parameters().find(|(own, ..)| *own == name);
        let (_, shape, values) = found.unwrap_or_else(|| panic!("no {name}"));
        (shape, values)
    }

    #[test]
    fn an_encoder_trained_in_clip_s_layout_is_exported_as_lavis_has_it_and_comes_back() {
        let of_clip = |image_size| {
            let mut config = with_encoder(image_size);
            config.model.image_encoder = config.model.image_encoder.replace("eva-tiny", "clip-tiny");
            config
        };
        let config = of_clip(0);
        let told = exported_alone(&config).unwrap();
        assert!(told.contains("stage `fine`") && told.contains("--layout lavis"), "{told}");
        assert_eq!(exported_alone(&with_encoder(0)), None);

        let (state, begins, options) =
            (moved(&config), config.first_stage().unwrap(), ExportOptions::default());
        let place = tempfile::tempdir().unwrap();
        for name in ["retrieval.pth", "retrieval.safetensors"] {
            let out = place.path().join(name);
            export(&config, &begins, &state, Layout::Lavis, &options, &out).unwrap();
            let stored = WeightSource::open_published(&out).unwrap();
            let names: Vec<&str> =
                stored.names().filter_map(|name| name.strip_prefix("visual_encoder.")).collect();
            let fused = "transformer.resblocks.0.attn.in_proj_weight";
            assert!(["conv1.weight", "positional_embedding", fused].iter().all(|name| names.contains(name)));
            assert!(!names.iter().any(|name| name.contains("embeddings") || name.contains("q_proj")));
            let read = decoded(&import(&config, &out).unwrap());
            for (name, _, want) in state.parameters() {
                assert!(of(&read, name).1 == want, "{name} in {out:?}");
            }
            // It is an image encoder like LAVIS's own files of one.
            let mut encoder = ImageEncoder::open(&out, Device::flex()).unwrap();
            let layout = FlatLayout::of(&mut encoder).unwrap();
            let values = layout.read(&mut encoder).unwrap();
            assert!(!layout.tensors().is_empty());
            for tensor in layout.tensors() {
                let want = of(&state, &format!("visual_encoder.{}", tensor.name)).1;
                assert!(values[tensor.range()] == *want, "{} in {out:?}", tensor.name);
            }
            // Its positions are resized as any.
            let larger = decoded(&import(&of_clip(96), &out).unwrap());
            let positions = "visual_encoder.embeddings.position_embedding.weight";
            assert_eq!(
                (of(&state, positions).0, of(&larger, positions).0),
                (&[65, 128][..], &[145, 128][..])
            );
        }
        let folder = place.path().join("folder");
        let error = export(&config, &begins, &state, Layout::Retrieval, &options, &folder).unwrap_err();
        assert!(error.to_string().contains("--layout lavis") && !folder.exists(), "{error}");
    }

    const POSITIONS: &str = "visual_encoder.pos_embed";

    #[test]
    fn a_trained_encoder_is_exported_and_comes_back() {
        let place = tempfile::tempdir().unwrap();
        for (config, layout, name) in [
            (with_encoder(96), Layout::Lavis, "retrieval.pth"),
            (with_encoder(96), Layout::Retrieval, "retrieval"),
            (captions(), Layout::Lavis, "captions.pth"),
            (captions(), Layout::HuggingFace, "captions"),
            (questions(), Layout::Lavis, "questions.pth"),
        ] {
            let (state, begins) = (moved(&config), config.first_stage().unwrap());
            assert_eq!(of(&state, POSITIONS).0, [1, 145, 128]);
            let out = place.path().join(name);
            export(&config, &begins, &state, layout, &ExportOptions::default(), &out).unwrap();
            let stored = WeightSource::open_published(&out).unwrap();
            let is_split = stored.names().any(|name| name == "visual_encoder.blocks.5.attn.q_bias");
            assert_eq!(is_split, layout == Layout::Lavis);
            let imported = import(&config, &out).unwrap();
            let read = decoded(&imported);
            for (name, _, want) in state.parameters().filter(|(name, ..)| is_kept(layout, name)) {
                assert!(of(&read, name).1 == want, "{name} in {layout:?}");
            }
        }
    }

    /// Whether a layout has a place for all of a tensor: LAVIS has no key bias, a folder no captioning head.
    fn is_kept(layout: Layout, name: &str) -> bool {
        match layout {
            Layout::Lavis => !name.ends_with("attn.qkv.bias"),
            _ => !name.starts_with("Qformer.cls.") && name != "temp",
        }
    }

    #[test]
    #[ignore = "runs Python with PyTorch and transformers: BLIP2_PYTHON names it"]
    fn an_encoder_trained_on_larger_images_has_the_logits_of_transformers() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        let (config, folder) = (captions(), at("captions"));
        let (begins, options) = (config.first_stage().unwrap(), ExportOptions::default());
        export(&config, &begins, &moved(&config), Layout::HuggingFace, &options, &folder).unwrap();
        let model = Blip2::open(&folder, Device::flex()).unwrap();
        assert_eq!(model.encoder().image_size(), 96);
        let image = i64::from(model.tokens().image);
        let ids: Vec<i64> = [image, image, image, 2, 40, 57, image, image, image, 2, 99, 7].to_vec();
        let pixels: Vec<f32> = (0..2 * 3 * 96 * 96).map(|at| (at as f32 * 0.013).sin()).collect();
        let bytes = |values: &[i64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let (tokens, mask) = (bytes(&ids), bytes(&[1; 12]));
        let inputs = [
            ("pixel_values", Dtype::F32, vec![2, 3, 96, 96], bytemuck::cast_slice(&pixels)),
            ("input_ids", Dtype::I64, vec![2, 6], &tokens[..]),
            ("attention_mask", Dtype::I64, vec![2, 6], &mask[..]),
        ]
        .map(|(name, dtype, shape, bytes)| (name, TensorView::new(dtype, shape, bytes).unwrap()));
        std::fs::write(at("inputs"), safetensors::serialize(inputs, None).unwrap()).unwrap();
        let python = std::env::var("BLIP2_PYTHON").unwrap_or_else(|_| "python3".into());
        let script = format!("{}/../tests/transformers/logits.py", env!("CARGO_MANIFEST_DIR"));
        let mut command = std::process::Command::new(python);
        command.arg(script).args([&folder, &at("inputs"), &at("logits")]);
        assert!(command.status().unwrap().success());
        let written = std::fs::read(at("logits")).unwrap();
        let written = safetensors::SafeTensors::deserialize(&written).unwrap();
        let theirs: Vec<f32> = (written.tensor("logits").unwrap().data().chunks_exact(4))
            .map(|value| f32::from_le_bytes(value.try_into().unwrap()))
            .collect();
        let device = Device::flex();
        let ids: Vec<i32> = ids.into_iter().map(|id| id as i32).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [2, 6]), &device);
        let pixels = Tensor::<4>::from_data(TensorData::new(pixels, [2, 3, 96, 96]), &device);
        let ours = floats(model.logits(pixels, ids.clone(), ids.ones_like()).unwrap()).unwrap();
        assert_eq!(ours.len(), theirs.len());
        let largest = ours.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
        let far = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far < 1e-4 * largest, "{far} of {largest}");
    }

    #[test]
    fn positions_of_other_weights_are_resized_and_an_encoder_that_they_lack_is_its_file_s() {
        let place = tempfile::tempdir().unwrap();
        let [fine, stage1] = ["fine.pth", "stage1.pth"].map(|name| place.path().join(name));
        for (config, out) in [(with_encoder(96), &fine), (config(1), &stage1)] {
            let begins = config.first_stage().unwrap();
            let state = fresh(&config);
            export(&config, &begins, &state, Layout::Lavis, &ExportOptions::default(), out).unwrap();
        }
        let begun = |init: &Path| {
            let mut config = with_encoder(64);
            config.train.seed += 1;
            config.model.init_checkpoint = init.display().to_string();
            fresh(&config)
        };
        let (large, small) = (fresh(&with_encoder(96)), begun(&fine));
        let ((_, large), (shape, resized)) = (of(&large, POSITIONS), of(&small, POSITIONS));
        assert_eq!((shape, &resized[..128]), (&[1, 65, 128][..], &large[..128]), "the class keeps its row");
        // What is looked at before a run says the same without reading any.
        let source = WeightSource::open_published(&fine).unwrap();
        assert!(source.expect(POSITIONS, &[1, 65, 128]).is_err());
        expect_with_positions(&source, POSITIONS, &[1, 65, 128]).unwrap();
        assert!(expect_with_positions(&source, POSITIONS, &[1, 65, 64]).is_err(), "another width");
        let (own, first) = (fresh(&with_encoder(64)), begun(&stage1));
        for (name, _, want) in own.parameters().filter(|(name, ..)| name.starts_with("visual_encoder.")) {
            assert!(of(&first, name).1 == want, "{name}");
        }
        assert_eq!(of(&first, "query_tokens"), of(&fresh(&config(1)), "query_tokens"), "of the weights");
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
