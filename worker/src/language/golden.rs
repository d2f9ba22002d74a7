//! What instructions come to in the language model, against InstructBLIP of `transformers`: from words to the
//! loss, by tokenizers that are made for the reference's tokens.

use std::path::{Path, PathBuf};

use blip2_dataset::text::{Cut, TextEncoder, TextEncoding};
use blip2_model::blip2::PublishedQFormer;
use blip2_model::language::LanguageModel;
use blip2_model::objectives::generate::GenerateModel;
use blip2_model::padded::Padded;
use blip2_model::vision::ImageEncoder;
use blip2_model_files::weights::{WeightSource, load};
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::train::loss::IGNORED;
use blip2_tensors::train::tape::Tape;
use burn::tensor::{Device, Tensor, TensorData};
use safetensors::SafeTensors;
use serde_json::{Map, Value, json};

use super::answers::{AnswerTexts, AskedText};
use super::encoding::encoding;

/// Largest relative difference of a loss.
const TOLERANCE: f64 = 2e-5;

/// Frames of the reference's texts, and what stands for an image.
const START: i32 = 2;
const QFORMER_FRAME: [i32; 2] = [2, 3];
const QUERIES: usize = 3;

/// Rows of an integer tensor.
fn rows(file: &SafeTensors<'_>, name: &str) -> Vec<Vec<i32>> {
    let view = file.tensor(name).unwrap();
    let whole = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().unwrap()) as i32;
    let values: Vec<i32> = view.data().chunks_exact(8).map(whole).collect();
    values.chunks(view.shape()[1]).map(<[i32]>::to_vec).collect()
}

/// A tokenizer of whole words; words of `left_out` are none to it.
fn words(vocabulary: Map<String, Value>, frame: [Option<i32>; 2], left_out: &str) -> Vec<u8> {
    let (mut vocabulary, mut tokens) = (vocabulary, Map::new());
    let frame = frame.map(|id| id.map(|id| (format!("[{id}]"), id)));
    for (token, id) in frame.iter().flatten() {
        vocabulary.insert(token.clone(), (*id).into());
        tokens.insert(token.clone(), json!({"id": token, "ids": [id], "tokens": [token]}));
    }
    let special = |place: usize| {
        frame[place].as_ref().map(|(token, _)| json!({"SpecialToken": {"id": token, "type_id": 0}}))
    };
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let single: Vec<Value> = [special(0), Some(text), special(1)].into_iter().flatten().collect();
    let pair = [single.clone(), vec![json!({"Sequence": {"id": "B", "type_id": 1}})]].concat();
    vocabulary.insert("[unknown]".into(), 0.into());
    let normalizer = json!({"type": "Replace", "pattern": {"Regex": left_out}, "content": ""});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": normalizer, "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens},
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[unknown]"},
    })
    .to_string()
    .into_bytes()
}

#[test]
fn instructions_have_the_losses_of_the_reference() {
    let device = Device::flex();
    for family in ["opt", "t5"] {
        let folder: PathBuf =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/instruct-0").join(family);
        let bytes = std::fs::read(folder.join("golden.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let golden: Value =
            serde_json::from_slice(&std::fs::read(folder.join("golden.json")).unwrap()).unwrap();
        let language = LanguageModel::open(&folder, &device).unwrap();
        let (special, encoder_decoder) = (language.special_tokens(), language.is_encoder_decoder());
        let end = special.eos[0];
        let masks = rows(&file, "attention_mask");
        let labels = rows(&file, "labels");
        // One word for a token of both tokenizers; what only the language model reads is left out by the
        // Q-Former's.
        let (mut of_language, mut of_qformer) = (Map::new(), Map::new());
        let (mut instructions, mut answers) = (Vec::new(), Vec::new());
        for (row, ids) in rows(&file, "input_ids").into_iter().enumerate() {
            let used = masks[row].iter().filter(|mask| **mask == 1).count();
            let answer: Vec<i32> =
                labels[row].iter().copied().filter(|label| ![IGNORED, end as i32].contains(label)).collect();
            let asked: Vec<i32> = match encoder_decoder {
                true => ids[QUERIES..used - 1].to_vec(),
                false => ids[QUERIES + 1..used - answer.len() - 1].to_vec(),
            };
            let read: Vec<i32> = rows(&file, "qformer_input_ids")[row]
                .iter()
                .copied()
                .filter(|id| *id != 0 && !QFORMER_FRAME.contains(id))
                .collect();
            let mut said = Vec::new();
            for (place, id) in asked.iter().enumerate() {
                let word = match read.get(place) {
                    Some(other) => {
                        let word = format!("q{other}l{id}");
                        of_qformer.insert(word.clone(), (*other).into());
                        word
                    }
                    None => format!("s{id}"),
                };
                of_language.insert(word.clone(), (*id).into());
                said.push(word);
            }
            instructions.push(said.join(" "));
            let words = answer.iter().map(|id| {
                of_language.insert(format!("s{id}"), (*id).into());
                format!("s{id}")
            });
            answers.push(words.collect::<Vec<_>>().join(" "));
        }
        let frame = if encoder_decoder { [None, Some(end as i32)] } else { [Some(START), None] };
        let (of_language, of_qformer) =
            (words(of_language, frame, "#"), words(of_qformer, QFORMER_FRAME.map(Some), "s[0-9]+"));
        let open = |length| {
            let encoding = encoding(length, "", &special, encoder_decoder);
            Ok(TextEncoder::from_json(&of_language, &folder, encoding)?)
        };
        let texts = AnswerTexts::of_instructions((12, 8), end, encoder_decoder, open).unwrap();
        let asked: Vec<AskedText<'_>> = instructions
            .iter()
            .zip(&answers)
            .map(|(question, answer)| AskedText { question, answer })
            .collect();
        let batch = texts.batch(&asked, Vec::new()).unwrap();
        let encoding = TextEncoding { cut: Cut::First, ..TextEncoding::new(10, 0) };
        let qformer = TextEncoder::from_json(&of_qformer, &folder, encoding).unwrap();
        let read: Vec<_> = instructions.iter().map(|text| qformer.encode(text).unwrap()).collect();
        let ids: Vec<i32> = read.iter().flat_map(|tokens| tokens.ids.iter().copied()).collect();
        let mask: Vec<i32> = read.iter().flat_map(|tokens| tokens.mask.iter().copied()).collect();

        let PublishedQFormer { config, ln_vision_eps, .. } =
            PublishedQFormer::of_folder(&folder).unwrap().unwrap();
        let width = language.width();
        let mut model = GenerateModel::reading_questions(&config, ln_vision_eps, width, &device).unwrap();
        let source = WeightSource::open_huggingface(&folder).unwrap();
        load(&mut model, "", &source, &device).unwrap();
        let pixels = file.tensor("pixel_values").unwrap();
        let shape: [usize; 4] = pixels.shape().try_into().unwrap();
        let values: Vec<f32> =
            pixels.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let pixels = Tensor::<4>::from_data(TensorData::new(values, shape), &device);
        let features = ImageEncoder::open(&folder, &device).unwrap().forward(pixels).unwrap();
        let questions = Padded { ids: &ids, mask: &mask };
        let (dropout, tape) = (&mut Dropout::off(), &mut Tape::whole());
        let prompt = model.forward_asked(features, questions, dropout, tape).unwrap();
        let loss = language.caption_loss(Some(prompt), &batch.texts(), &device).unwrap();
        let (mean, want) = (loss.value.read().unwrap() / batch.tokens() as f64, &golden["loss_token_mean"]);
        let want = want.as_f64().unwrap();
        assert!((mean - want).abs() < TOLERANCE * want, "{family}: {mean}, reference {want}");
    }
}
