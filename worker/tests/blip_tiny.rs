//! The small captioner describes pictures that it was trained on.

use std::path::Path;

use blip2_dataset::{ColumnNames, EvalTransform, TextEncoder, TextEncoding, clean_caption, read_all};
use blip2_model::blip::BlipCaptioner;
use blip2_model::generate::GenerateOptions;
use burn::tensor::{Device, Tensor, TensorData};

/// Pictures shown.
const PICTURES: usize = 12;
/// Pictures whose caption must hold a word of the true one; the captioner knows many, not all.
const KNOWN: usize = 6;

fn assets(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets").join(path).display().to_string()
}

#[test]
fn many_training_pictures_are_recognised() {
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
    let samples: Vec<_> = set.samples.iter().step_by(set.samples.len() / PICTURES).take(PICTURES).collect();
    let pixels: Vec<f32> =
        (samples.iter()).flat_map(|sample| EvalTransform::new(size).apply(&sample.image).unwrap()).collect();
    let pixels = Tensor::<4>::from_data(TensorData::new(pixels, [samples.len(), 3, size, size]), &device);
    let features = model.image_features(pixels).unwrap();
    let options = GenerateOptions { beams: 3, max_new_tokens: 12, ..GenerateOptions::default() };
    let written = model.generate(features, prompt, &options).unwrap();
    let mut report = Vec::new();
    let mut known = 0;
    for (sample, tokens) in samples.iter().zip(&written) {
        let written = text.decode(tokens, true).unwrap();
        let truth = clean_caption(&sample.captions[0], 50);
        let words: Vec<&str> = written.split_whitespace().collect();
        known += usize::from(truth.split(' ').any(|word| word.len() > 2 && words.contains(&word)));
        report.push(format!("{truth} -> {written}"));
    }
    println!("{}", report.join("\n"));
    assert!(known >= KNOWN, "{known} of {PICTURES}: {report:#?}");
}
