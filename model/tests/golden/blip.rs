//! BLIP's captioner and filter against `transformers`, and the small captioner on images it was trained on.

use blip2_model::blip::{BlipCaptioner, BlipRetrieval};
use blip2_model::language::generation::GenerateOptions;
use burn::tensor::Tensor;
use serde_json::Value;

use crate::fixture::{Fixture, assert_close, cases, device};

/// Tokens that the fixtures' searches write after the prompt.
const NEW_TOKENS: usize = 8;

fn parts(name: &str) -> Vec<Fixture> {
    let parts: Vec<Fixture> = cases("hf-").iter().filter_map(|case| case.part(name)).collect();
    assert!(!parts.is_empty(), "no case has a folder {name}");
    parts
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn blip_captioner_activations() {
    for fixture in parts("blip-caption") {
        let golden = fixture.tensors("golden.safetensors");
        let model = BlipCaptioner::open(fixture.folder(), &device()).unwrap();
        let features = model.image_features(golden.tensor("pixel_values")).unwrap();
        assert_close(&fixture, "vision", features.clone(), golden.values("vision"));
        let ids = golden.int_tensor::<2>("input_ids");
        let mask = Tensor::ones(ids.dims(), &device());
        let logits = model.logits(features, ids, mask).unwrap();
        assert_close(&fixture, "logits", logits, golden.values("logits"));
    }
}

#[test]
fn blip_captioner_writes_the_same_tokens() {
    for fixture in parts("blip-caption") {
        let model = BlipCaptioner::open(fixture.folder(), &device()).unwrap();
        let pixels = fixture.tensors("golden.safetensors").tensor::<4>("pixel_values");
        let features = model.image_features(pixels).unwrap();
        let golden = fixture.json("golden.json");
        let prompt = ids(&golden["prompt"]);
        assert_eq!(prompt[0], model.config().start_token);
        let searches = golden["generate"].as_object().unwrap();
        assert!(!searches.is_empty());
        for (name, want) in searches {
            let beams = name.strip_prefix("beam").and_then(|beams| beams.parse().ok()).unwrap();
            let options = GenerateOptions { beams, max_new_tokens: NEW_TOKENS, ..GenerateOptions::default() };
            let mut want = ids(want)[prompt.len()..].to_vec();
            // The reference fills a text that ended early with padding.
            if let Some(end) = want.iter().position(|token| *token == model.config().end_token) {
                want.truncate(end + 1);
            }
            let first = features.clone().narrow(0, 0, 1);
            let written = model.generate(first, &prompt[1..], &options).unwrap();
            assert_eq!(written, std::slice::from_ref(&want), "{}: {name}", fixture.folder().display());
            let all = model.generate(features.clone(), &prompt[1..], &options).unwrap();
            assert_eq!(all[0], want, "{}: {name}, in a batch", fixture.folder().display());
        }
    }
}

#[test]
fn blip_filter_logits_and_cosines() {
    for fixture in parts("blip-itm") {
        let golden = fixture.tensors("golden.safetensors");
        let model = BlipRetrieval::open(fixture.folder(), &device()).unwrap();
        let features = model.image_features(golden.tensor("pixel_values")).unwrap();
        let (ids, mask) = (golden.int_tensor::<2>("input_ids"), golden.int_tensor::<2>("attention_mask"));
        let logits = model.match_logits(&features, ids.clone(), mask.clone()).unwrap();
        assert_close(&fixture, "itm_logits", logits, golden.values("itm_logits"));
        let texts = model.text_vectors(ids, mask).unwrap();
        let cosines = model.image_vectors(&features).matmul(texts.transpose());
        assert_close(&fixture, "itc", cosines, golden.values("itc"));
    }
}
