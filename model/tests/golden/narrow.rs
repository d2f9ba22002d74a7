//! Language models whose matrices are kept in fewer bits: what they write, and what texts cost them.

use std::path::{Path, PathBuf};

use blip2_model::blip2::Blip2;
use blip2_model::language::{LanguageModel, Texts};
use blip2_model::padded::Padded;
use blip2_tensors::device::placement::NarrowDtype;
use blip2_tensors::device::placement::Placement;
use blip2_tensors::train::loss::IGNORED;
use burn::tensor::{Device, Tensor, TensorData};
use tokenizers::Tokenizer;

use crate::huggingface::{NEW_TOKENS, continuation, first_prompt, ids, parts, search};

/// Largest difference of a loss, relative to that in float32.
const LOSS: f64 = 0.005;

fn narrow(dtype: NarrowDtype) -> Placement {
    Placement::narrow(&Device::flex(), dtype).unwrap()
}

/// Greedily, as the reference does in float32.
#[test]
fn in_bf16_the_same_tokens_are_written() {
    for fixture in parts("blip2-opt").into_iter().chain(parts("blip2-t5")) {
        let model = Blip2::open(fixture.folder(), narrow(NarrowDtype::Bf16)).unwrap();
        let (shape, values) = fixture.tensors("golden.safetensors").values::<4>("pixel_values");
        let pixels = Tensor::<4>::from_data(TensorData::new(values, shape), &Device::flex());
        let prompt = first_prompt(&fixture, &model);
        let golden = fixture.json("golden.json");
        let options = search("greedy", NEW_TOKENS, model.tokens().eos.clone());
        let want = continuation(ids(&golden["generate"]["greedy"]), &model, &prompt, &options.eos);
        let all = vec![prompt.clone(); pixels.dims()[0]];
        let got = model.generate(pixels, &all, &options).unwrap();
        assert_eq!(got[0], want, "{}", fixture.folder().display());
    }
}

/// Sentences of the kind that the trained models of the quick start write.
const CAPTIONS: [&str; 6] = [
    "two cats left of a dog on green",
    "a car above a tree on blue",
    "three apples on pink",
    "a rabbit on white",
    "a fox left of two trains on gray",
    "a snail above four lemons on yellow",
];

/// Vectors before a text in the training of these models; with zeros they were told nothing of it.
const NOTES: usize = 12;

/// The mean loss of a token.
fn loss(folder: &Path, place: Placement) -> f64 {
    let model = LanguageModel::open(folder, place).unwrap();
    let tokenizer = Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
    let encode = |text: &str, special| -> Vec<i32> {
        tokenizer.encode(text, special).unwrap().get_ids().iter().map(|id| *id as i32).collect()
    };
    let (mut sum, mut tokens) = (0.0, 0);
    for caption in CAPTIONS {
        // What stands around nothing, and what is written: T5's end token, OPT's start token and newline.
        let around = encode("", true);
        let (read, given, written) = match model.is_encoder_decoder() {
            true => (around, Vec::new(), encode(caption, true)),
            false => (Vec::new(), around, encode(&format!("{caption}\n"), false)),
        };
        let text = [given.clone(), written.clone()].concat();
        let labels = [vec![IGNORED; given.len()], written.clone()].concat();
        let masks = [vec![1; read.len()], vec![1; text.len()]];
        let prefix = Padded { ids: &read, mask: &masks[0] };
        let text = Padded { ids: &text, mask: &masks[1] };
        let texts = Texts { rows: 1, prefix, text, labels: &labels, weights: &[] };
        let notes = Tensor::zeros([1, NOTES, model.width()], &Device::flex());
        sum += model.caption_loss(Some(notes), &texts, &Device::flex()).unwrap().value.read().unwrap();
        tokens += written.len();
    }
    sum / tokens as f64
}

#[test]
fn texts_cost_what_they_cost_in_float32() {
    for name in ["opt-scenes", "t5-scenes"] {
        let folder: PathBuf =
            [env!("CARGO_MANIFEST_DIR"), "..", "assets", "backbones", name].iter().collect();
        let exact = loss(&folder, Placement::from(Device::flex()));
        for dtype in [NarrowDtype::Bf16, NarrowDtype::Int8] {
            let got = loss(&folder, narrow(dtype));
            let apart = (got / exact - 1.0).abs();
            println!("{name} in {dtype:?}: {got:.5}, in float32 {exact:.5}, {:.3} % apart", 100.0 * apart);
            assert!(exact < 3.0, "{name}: these are its sentences");
            assert!(apart > 0.0 && apart < LOSS, "{name} in {dtype:?}: {got}, in float32 {exact}");
        }
    }
}

/// What saves or trains must not take shapes for values.
#[test]
fn values_that_are_not_there_are_not_read() {
    let folder: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "..", "assets", "backbones", "opt-tiny"].iter().collect();
    let mut model = LanguageModel::open(&folder, narrow(NarrowDtype::Int8)).unwrap();
    let layout = blip2_tensors::train::flat::FlatLayout::of(&mut model).unwrap();
    let error = layout.read(&mut model).unwrap_err().to_string();
    assert!(error.contains("embed_tokens.weight") && error.contains("f32"), "{error}");
}
