//! The small captioner describes pictures that it was trained on.

use std::path::Path;

use blip2_dataset::corpus::columns::ColumnNames;
use blip2_dataset::corpus::samples::read_all;
use blip2_dataset::text::{TextEncoder, TextEncoding, clean_caption};
use blip2_images::transform::EvalTransform;
use blip2_model::blip::BlipCaptioner;
use blip2_model::language::generation::GenerateOptions;
use burn::tensor::{Device, Tensor, TensorData};

/// Rows of the corpus' first file that the captioner knows.
const KNOWN: [&str; 2] = ["google-21aa", "fluent-1f468-200d-1f9af"];

fn assets(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets").join(path).display().to_string()
}

#[test]
fn known_training_pictures_are_named() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let files = [assets("corpus/train-00000.parquet")];
    let set = runtime.block_on(read_all(&files, &ColumnNames::default(), 1 << 20)).unwrap();
    let folder = assets("backbones/blip-tiny");
    let device = Device::flex();
    let model = BlipCaptioner::open(Path::new(&folder), &device).unwrap();
    let config = model.config();
    let text = TextEncoder::open(Path::new(&folder), TextEncoding::new(32, config.pad_token)).unwrap();
    // The tokenizer frames the prompt by a class and an end token, which belong to whole texts.
    let framed = text.encode_plain("a picture of").unwrap();
    let prompt = &framed[1..framed.len() - 1];
    let size = config.vision.image_size;
    for key in KNOWN {
        let sample = set.samples.iter().find(|sample| sample.key == key).unwrap();
        let pixels = EvalTransform::new(size).apply(&sample.image).unwrap();
        let pixels = Tensor::<4>::from_data(TensorData::new(pixels, [1, 3, size, size]), &device);
        let features = model.image_features(pixels).unwrap();
        let options = GenerateOptions { max_new_tokens: 12, ..GenerateOptions::default() };
        let written = model.generate(features, prompt, &options).unwrap().remove(0);
        let written = text.decode(&written, true).unwrap();
        let truth = clean_caption(&sample.captions[0], 50);
        assert!(written.starts_with(&truth), "{truth:?} became {written:?}");
    }
}
