//! A run that answers questions on images of the emoji corpus.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, ListBuilder, RecordBatch, StringArray, StringBuilder};
use blip2_dataset::corpus::columns::ColumnNames;
use blip2_dataset::corpus::samples::read_first;
use blip2_worker::config::stage::StageSettings;
use blip2_worker::settings::optimizer::OptimizerSettings;
use blip2_worker::task::TaskSettings;
use blip2_worker::task::vqa::VqaSettings;
use blip2_worker::{TrainState, WorkerConfig};
use image::ImageFormat;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::small;

/// Images that are asked about.
const IMAGES: usize = 64;

/// What is answered, one word each: tokens that the language model is easily brought to write. Others, such
/// as `red`, it hardly writes behind any soft prompt, and a run on them learns the images and not the words.
const WORDS: [&str; 8] = ["flowers", "woman", "family", "face", "child", "flag", "man", "heart"];

/// A run of the task vqa alone on 64 images with a one-word answer each, which begins with weights of two
/// untrained stages of pre-training; its files are in `folder`.
pub(crate) fn config(folder: &Path, language_model: &str, slots: u32, batch: u32) -> WorkerConfig {
    let mut config = small::config(slots, batch);
    config.model.language_model = small::assets(language_model);
    let text_half = beginning(&mut config, folder);
    config.stages.iter_mut().for_each(|stage| stage.steps = 0);
    config.data.train = vec![folder.join("asked.parquet").display().to_string()];
    write_rows(&config.data.train[0]);
    (config.data.columns.question, config.data.columns.answers) = ("asked".into(), "said".into());
    (config.data.crop_scale, config.data.flip) = ([1.0, 1.0], false);
    let settings = VqaSettings {
        text_half,
        question_length: 12,
        prompt_length: 24,
        answer_length: 6,
        ..VqaSettings::default()
    };
    let optimizer = OptimizerSettings { learning_rate: 1e-3, warmup_steps: 1, ..Default::default() };
    let stage = StageSettings::of("answer", TaskSettings::Vqa(settings));
    config.stages.push(StageSettings { steps: 2, batch, optimizer, ..stage });
    config
}

/// Names the weights of an untrained second stage in the configuration; the path of those of the first.
fn beginning(config: &mut WorkerConfig, folder: &Path) -> String {
    let frozen = config.frozen_models().unwrap();
    let device = frozen.device.clone().autodiff();
    let first = TrainState::fresh(config, frozen.sizes, &device).unwrap();
    let second = first.enter(config.stage("generate").unwrap(), config, frozen.sizes, &device).unwrap();
    config.model.init_checkpoint = write_weights(&second, &folder.join("stage2.safetensors"));
    write_weights(&first, &folder.join("stage1.safetensors"))
}

/// Writes the parameters under LAVIS's names, which are their own.
fn write_weights(state: &TrainState, path: &Path) -> String {
    std::fs::write(path, weights(state, "")).unwrap();
    path.display().to_string()
}

/// The parameters as a safetensors file, with something before their names.
pub(crate) fn weights(state: &TrainState, before: &str) -> Vec<u8> {
    let bytes: Vec<u8> = state.parameters.iter().flat_map(|value| value.to_le_bytes()).collect();
    let views = state.layout.tensors().iter().map(|tensor| {
        let range = 4 * tensor.range().start..4 * tensor.range().end;
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), &bytes[range]).unwrap();
        (format!("{before}{}", tensor.name), view)
    });
    safetensors::serialize(views, None).unwrap()
}

/// Images of the emoji corpus with a question of two and an answer of eight, by the row's number.
fn write_rows(path: &str) {
    let source = [small::assets("corpus/test-00000.parquet")];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let columns = ColumnNames::default();
    let read = read_first(&source, &columns, 1 << 20, IMAGES, |sample| Some(sample.image));
    let (images, _) = runtime.block_on(read).unwrap();
    let encoded = images.iter().map(|image| {
        let mut encoded = Cursor::new(Vec::new());
        image.write_to(&mut encoded, ImageFormat::Png).unwrap();
        encoded.into_inner()
    });
    let encoded: Vec<Vec<u8>> = encoded.collect();
    assert_eq!(encoded.len(), IMAGES);
    let questions = ["What is this?", "Which word goes with it?"];
    let questions = StringArray::from_iter_values((0..IMAGES).map(|row| questions[row % 2]));
    let mut answers = ListBuilder::new(StringBuilder::new());
    (0..IMAGES).for_each(|row| answers.append_value([Some(WORDS[row * 5 % WORDS.len()])]));
    let columns: [(&str, ArrayRef); 3] = [
        ("png", Arc::new(BinaryArray::from_iter_values(&encoded))),
        ("asked", Arc::new(questions)),
        ("said", Arc::new(answers.finish())),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(IMAGES / 4)).build();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}
