//! The image encoder trained with the rest, over any number of members.

use std::path::Path;

use blip2_dataset::corpus::columns::ColumnNames;
use blip2_dataset::corpus::samples::read_first;
use blip2_model::vision::ImageEncoder;
use blip2_model_files::image_processor::ImageProcessor;
use blip2_tensors::train::flat::FlatLayout;
use blip2_worker::config::stage::StageSettings;
use blip2_worker::evaluate::{Evaluator, Scores};
use blip2_worker::export::{ExportOptions, Layout, export};
use blip2_worker::settings::encoder::EncoderTraining;
use blip2_worker::task::TaskSettings;
use blip2_worker::task::caption::CaptionSettings;
use blip2_worker::task::contrast::ContrastSettings;
use blip2_worker::task::retrieval::RetrievalSettings;
use blip2_worker::{NamedState, TrainState, WorkerConfig};
use burn::tensor::Device;
use bytes::Bytes;

use crate::members::{Trained, assert_all_like, train, train_alike};
use crate::{asked, small};

/// Two steps of one stage of `task` with the small Q-Former, with dropout and a clipped gradient.
fn config(task: TaskSettings) -> WorkerConfig {
    let mut config = small::config(4, 8);
    let first = config.stages.remove(0);
    let mut optimizer = first.optimizer;
    optimizer.clip_norm = 1.0;
    config.stages = vec![StageSettings { steps: 2, batch: 8, optimizer, ..StageSettings::of("fine", task) }];
    config
}

fn retrieval(image_encoder: EncoderTraining) -> RetrievalSettings {
    RetrievalSettings { image_encoder, text_length: 12, ..RetrievalSettings::default() }
}

fn trained() -> RetrievalSettings {
    RetrievalSettings { layer_decay: 0.9, drop_path: 0.4, ..retrieval(EncoderTraining::Trained) }
}

/// The state before the first step.
fn beginning(config: &WorkerConfig) -> (FlatLayout, Vec<f32>) {
    let frozen = config.frozen_models().unwrap();
    let state = TrainState::fresh(config, frozen.sizes, &frozen.device.clone().autodiff()).unwrap();
    (state.layout, state.parameters)
}

/// Requires that every block has moved, from the patches on.
fn assert_encoder_moved(config: &WorkerConfig, trained: &Trained) {
    let (layout, begun) = beginning(config);
    for name in ["visual_encoder.patch_embed.proj.weight", "visual_encoder.pos_embed"]
        .map(str::to_owned)
        .into_iter()
        .chain((0..6).map(|block| format!("visual_encoder.blocks.{block}.mlp.fc1.weight")))
    {
        let range = layout.get(&name).unwrap().range();
        assert_ne!(begun[range.clone()], trained.1[range], "{name}");
    }
}

/// A run of a task that continues from the end of stage 2, with its files in `folder`: `caption` or `vqa`.
fn continued(task: &str, image_encoder: EncoderTraining, folder: &Path) -> WorkerConfig {
    let (layer_decay, drop_path) = (0.9, 0.0);
    let mut config = asked::config(folder, "backbones/opt-tiny", 4, 8);
    if task == "caption" {
        (config.data.train, config.data.columns) = (small::config(4, 8).data.train, ColumnNames::default());
        config.stages[2].task = TaskSettings::Caption(CaptionSettings {
            text_length: 12,
            image_encoder,
            layer_decay,
            drop_path,
            ..CaptionSettings::default()
        });
    }
    if let TaskSettings::Vqa(vqa) = &mut config.stages[2].task {
        (vqa.image_encoder, vqa.layer_decay, vqa.drop_path) = (image_encoder, layer_decay, drop_path);
    }
    config
}

#[test]
fn captions_and_answers_train_the_encoder_to_the_same_bits() {
    for task in ["caption", "vqa"] {
        let folder = tempfile::tempdir().unwrap();
        let mut config = continued(task, EncoderTraining::Trained, folder.path());
        config.data.flip = true;
        let alone = train(&config, 1).remove(0);
        assert!(alone.1.iter().all(|parameter| parameter.is_finite()));
        assert_encoder_moved(&config, &alone);
        for (overlap, members) in [(true, 4), (false, 2)] {
            config.train.overlap = overlap;
            assert_all_like(&alone, &config, members);
        }
        // Drop path is drawn, and drawn the same wherever the slot is.
        match &mut config.stages[2].task {
            TaskSettings::Caption(caption) => caption.drop_path = 0.4,
            TaskSettings::Vqa(vqa) => vqa.drop_path = 0.4,
            _ => panic!("another task"),
        }
        config.stages[2].steps = 1;
        let dropped = train(&config, 1).remove(0);
        assert_ne!(dropped.0[0], alone.0[0]);
        assert_all_like(&dropped, &config, 2);
    }
}

#[test]
fn captions_and_answers_of_a_trained_encoder_begin_with_the_losses_of_a_frozen_one() {
    for task in ["caption", "vqa"] {
        let folder = tempfile::tempdir().unwrap();
        let first = |image_encoder| {
            let mut config = continued(task, image_encoder, folder.path());
            config.stages[2].steps = 1;
            train(&config, 1).remove(0).0
        };
        let [frozen, trained] = [EncoderTraining::Frozen, EncoderTraining::Trained].map(first);
        // The loss and the tokens; then the gradient's norm, of which the encoder has a part.
        assert_eq!(frozen[..2], trained[..2], "{task}");
        assert!(trained[2] > frozen[2], "{task}: {trained:?} and {frozen:?}");
    }
}

#[test]
fn one_two_and_four_members_train_the_encoder_to_the_same_bits() {
    let mut config = config(TaskSettings::Retrieval(trained()));
    let alone = train_alike(&mut config);
    assert_encoder_moved(&config, &alone);
    // LAVIS has no key bias, so it stays.
    let (layout, begun) = beginning(&config);
    let bias = layout.get("visual_encoder.blocks.0.attn.qkv.bias").unwrap().range();
    let third = bias.len() / 3;
    let keys = bias.start + third..bias.start + 2 * third;
    assert_eq!(begun[keys.clone()], alone.1[keys]);
}

#[test]
fn a_trained_encoder_begins_with_the_losses_of_a_frozen_one() {
    let first = |image_encoder| {
        let mut config = config(TaskSettings::Retrieval(retrieval(image_encoder)));
        config.stages[0].steps = 1;
        train(&config, 1).remove(0).0
    };
    let [frozen, trained] = [EncoderTraining::Frozen, EncoderTraining::Trained].map(first);
    // Four losses and the temperature; then the gradient's norm, of which the encoder has a part.
    assert_eq!(frozen[..5], trained[..5]);
    assert!(trained[5] > frozen[5], "{trained:?} and {frozen:?}");
}

#[test]
fn images_that_all_differ_have_the_bits_of_contrast() {
    let contrast = ContrastSettings { text_length: 12, ..ContrastSettings::default() };
    let by_rows = config(TaskSettings::Contrast(contrast));
    let by_ids = config(TaskSettings::Retrieval(retrieval(EncoderTraining::Frozen)));
    let [want, got] = [by_rows, by_ids].map(|config| train(&config, 2).remove(0));
    assert_eq!(want.0, got.0);
    assert!(want.1 == got.1);
}

#[test]
fn images_of_another_size_are_trained_with_positions_resized_once() {
    let mut config = config(TaskSettings::Retrieval(trained()));
    config.model.image_size = 96;
    let (layout, begun) = beginning(&config);
    let positions = layout.get("visual_encoder.pos_embed").unwrap();
    assert_eq!(positions.shape, [1, 145, 128]);
    assert!(begun[positions.range()].iter().any(|value| *value != 0.0));
    let alone = train(&config, 1).remove(0);
    assert_all_like(&alone, &config, 2);
}

/// Two stages of retrieval, of which the second has larger images; the state is evaluated after every step.
fn two_sizes(image_encoder: EncoderTraining) -> WorkerConfig {
    let mut config = config(TaskSettings::Retrieval(retrieval(image_encoder)));
    let larger = StageSettings { name: "larger".into(), image_size: 96, ..config.stages[0].clone() };
    config.stages.push(larger);
    (config.eval.data, config.eval.rows) = (vec![small::assets("corpus/test-*.parquet")], 16);
    config.eval.every_steps = 1;
    config
}

#[test]
fn a_stage_with_larger_images_trains_the_same_bits_whatever_the_number_of_members() {
    for image_encoder in [EncoderTraining::Frozen, EncoderTraining::Trained] {
        let mut config = two_sizes(image_encoder);
        let alone = train(&config, 1).remove(0);
        assert!(alone.0.iter().chain([&1.0]).all(|value| value.is_finite()), "{:?}", alone.0);
        assert_all_like(&alone, &config, 2);
        config.stages[1].image_size = 0;
        let of_one_size = train(&config, 1).remove(0);
        let (first, second) = alone.0.split_at(alone.0.len() / 2);
        assert_eq!(first, &of_one_size.0[..first.len()], "{image_encoder}");
        assert_ne!(second[0], of_one_size.0[first.len()], "{image_encoder}");
    }
}

#[test]
fn a_stage_with_larger_images_goes_on_with_what_was_trained_and_is_measured_and_exported_with_them() {
    let config = two_sizes(EncoderTraining::Trained);
    let frozen = config.frozen_models().unwrap();
    let device = frozen.device.clone().autodiff();
    let mut first = TrainState::fresh(&config, frozen.sizes, &device).unwrap();
    // Otherwise than in the encoder's file, so that it is seen where the next stage has it from.
    let table = first.layout.get("visual_encoder.pos_embed").unwrap().range();
    first.parameters[table].iter_mut().for_each(|value| *value *= 2.0);
    let stage = config.stage("larger").unwrap();
    let second = first.enter(stage.clone(), &config, frozen.sizes, &device).unwrap();
    let mut alone = config.clone();
    alone.stages[0].steps = 0;
    let (layout, begun) = beginning(&alone);
    assert_eq!(second.layout, layout);
    for tensor in layout.tensors() {
        let factor = if tensor.name == "visual_encoder.pos_embed" { 2.0 } else { 1.0 };
        let values = second.parameters[tensor.range()].iter().zip(&begun[tensor.range()]);
        for (got, want) in values {
            assert!((got - factor * want).abs() < 1e-5, "{}: {got}, not {want}", tensor.name);
        }
    }

    let parts = ["parameters.", "first_moments.", "second_moments."];
    let parts = parts.map(|kind| Bytes::from(asked::weights(&second, kind)));
    let stored = NamedState::decode("test", &parts).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let read = read_first(&config.eval.data, &config.data.columns, config.data.max_pixels, 8, Some);
    let samples = runtime.block_on(read).unwrap().0;
    let scores = Evaluator::open(&config).unwrap().scores(&stage, &stored, &samples).unwrap();
    assert!(matches!(scores, Scores::Retrieval(_)), "{scores:?}");

    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("retriever");
    export(&config, &stage, &stored, Layout::Retrieval, &ExportOptions::default(), &out).unwrap();
    assert_eq!(ImageEncoder::open(&out, Device::flex()).unwrap().image_size(), 96);
    // Refused where the folder has another size.
    ImageProcessor::read(&out, ImageProcessor::blip2(96)).unwrap();
    assert!(ImageProcessor::read(&out, ImageProcessor::blip2(64)).is_err());
}

#[test]
fn learning_rates_are_those_of_the_layers() {
    let (layout, _) = beginning(&config(TaskSettings::Retrieval(trained())));
    let scale = |name: &str| layout.get(name).unwrap().learning_rate_scale;
    let of_block = |block: i32| 0.9f64.powi(6 - block);
    for block in 0..6 {
        let got = scale(&format!("visual_encoder.blocks.{block}.norm1.weight"));
        assert!((got - of_block(block)).abs() < 1e-12, "{block}: {got}");
    }
    assert!((scale("visual_encoder.cls_token") - of_block(-1)).abs() < 1e-12);
    assert_eq!((scale("ln_vision.weight"), scale("query_tokens")), (1.0, 1.0));
}
