//! BLIP-2 with OPT, and CLIP, against `transformers`.

use blip2_model::blip2::{Blip2, place_soft_prompt};
use blip2_model::clip::Clip;
use blip2_model::dropout::Dropout;
use blip2_model::generate::GenerateOptions;
use blip2_model::stage2::Stage2Model;
use blip2_model::tape::Tape;
use blip2_model::tensors::FlatLayout;
use blip2_model::vision::ImageEncoder;
use blip2_model::weights::{NameStyle, WeightSource, huggingface_name, load};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::Value;

use crate::fixture::{
    Fixture, Tensors, assert_close, assert_relative, assert_same_gradient, cases, flat_gradient,
};

/// Largest difference of a loss.
const LOSS_TOLERANCE: f64 = 2e-5;

/// The folders called `name` of all cases.
fn parts(name: &str) -> Vec<Fixture> {
    let parts: Vec<Fixture> = cases("hf-").iter().filter_map(|case| case.part(name)).collect();
    assert!(!parts.is_empty(), "no case has a folder {name}");
    parts
}

#[test]
fn blip2_activations() {
    for fixture in parts("blip2-opt") {
        let golden = fixture.tensors("golden.safetensors");
        let model = Blip2::open(fixture.folder(), &Device::flex()).unwrap();
        let pixels = golden.tensor::<4>("pixel_values");
        let features = model.encoder().forward(pixels.clone()).unwrap();
        let normed = model.stage2().ln_vision.forward(features.clone());
        assert_close(&fixture, "vision", normed, golden.tensor("vision"));
        let queries = model.stage2().query_output(features, &mut Dropout::off(), &mut Tape::whole()).unwrap();
        assert_close(&fixture, "qformer", queries, golden.tensor("qformer"));
        let (ids, mask) = (golden.int_tensor("input_ids"), golden.int_tensor("attention_mask"));
        let logits = model.logits(pixels, ids, mask).unwrap();
        assert_close(&fixture, "logits", logits, golden.tensor("logits"));
    }
}

/// The mean negative logarithmic probability of each position's label under the position before it.
fn shifted_loss(logits: Tensor<3>, golden: &Tensors) -> Tensor<1> {
    let [rows, length, vocabulary] = logits.dims();
    let (mut positions, mut labels) = (Vec::new(), Vec::new());
    for (row, text) in golden.ints("labels").chunks(length).enumerate() {
        for (position, label) in text.iter().enumerate().skip(1).filter(|(_, label)| **label >= 0) {
            positions.push((row * length + position - 1) as i32);
            labels.push(*label);
        }
    }
    let count = labels.len();
    let device = logits.device();
    let positions = Tensor::<1, Int>::from_data(TensorData::new(positions, [count]), &device);
    let labels = Tensor::<2, Int>::from_data(TensorData::new(labels, [count, 1]), &device);
    let rows = logits.reshape([rows * length, vocabulary]).select(0, positions);
    log_softmax(rows, 1).gather(1, labels).mean().neg()
}

/// Layout, loss and gradient of a case's stage-2 model.
fn stage2_gradient(fixture: &Fixture, golden: &Tensors, mut tape: Tape) -> (FlatLayout, f64, Vec<f32>) {
    let frozen = Blip2::open(fixture.folder(), &Device::flex()).unwrap();
    let device = Device::flex().autodiff();
    let eps = fixture.json("config.json")["vision_config"]["layer_norm_eps"].as_f64().unwrap();
    let width = frozen.opt().config().width;
    let mut stage2 = Stage2Model::new(frozen.qformer_config(), eps, width, &device).unwrap();
    let style = NameStyle::HuggingFace { prefix: String::new() };
    let source = WeightSource::open(fixture.folder(), style).unwrap();
    load(&mut stage2, "", &source, &device).unwrap();

    let features = frozen.encoder().forward(golden.tensor("pixel_values")).unwrap();
    let prompt = stage2.forward(Tensor::from_inner(features), &mut Dropout::off(), &mut tape).unwrap();
    let ids = golden.int_tensor::<2>("input_ids");
    let embeds = place_soft_prompt(frozen.opt(), prompt, ids, frozen.tokens().image).unwrap();
    let logits = frozen.opt().forward(embeds, golden.int_tensor("attention_mask")).unwrap();
    let loss = shifted_loss(logits, golden);
    let value = f64::from(loss.clone().inner().into_scalar::<f32>());
    let layout = FlatLayout::of(&mut stage2).unwrap();
    let gradient = flat_gradient(&mut stage2, &layout, tape, loss);
    (layout, value, gradient)
}

#[test]
fn blip2_loss_and_gradients() {
    for fixture in parts("blip2-opt") {
        let golden = fixture.tensors("golden.safetensors");
        let what = fixture.folder().display().to_string();
        let (layout, value, whole) = stage2_gradient(&fixture, &golden, Tape::whole());
        let want = fixture.json("golden.json")["loss"].as_f64().unwrap();
        assert!((value - want).abs() < LOSS_TOLERANCE, "{what}: loss {value}, reference {want}");
        let mut compared = 0;
        for tensor in layout.tensors() {
            let name = format!("grad.{}", huggingface_name(&tensor.name));
            let Some(want) = golden.find(&name) else { continue };
            assert_relative(&what, &name, &whole[tensor.range()], &want);
            compared += 1;
        }
        let given = golden.names().iter().filter(|name| name.starts_with("grad.")).count();
        assert_eq!(compared, given, "{what}: every gradient of the reference has a tensor");

        let (_, _, segmented) = stage2_gradient(&fixture, &golden, Tape::segmented());
        assert_same_gradient(&what, &layout, &segmented, &whole);
        let (_, _, again) = stage2_gradient(&fixture, &golden, Tape::segmented());
        assert!(segmented == again, "{what}: the same bits every time");
    }
}

/// The search that a name in `golden.json` stands for, e.g. `beam5_lp_minus1` or `beam3_rep1.5`.
fn search(name: &str, new_tokens: usize, eos: Vec<u32>) -> GenerateOptions {
    let mut options = GenerateOptions { max_new_tokens: new_tokens, eos, ..Default::default() };
    let (kind, rest) = name.split_once('_').unwrap_or((name, ""));
    if kind != "greedy" {
        let beams = kind.strip_prefix("beam").and_then(|beams| beams.parse().ok());
        options.beams = beams.unwrap_or_else(|| panic!("unknown search {name}"));
    }
    match rest {
        "" => {}
        "lp_minus1" => options.length_penalty = -1.0,
        other => {
            let penalty = other.strip_prefix("rep").and_then(|penalty| penalty.parse().ok());
            options.repetition_penalty = penalty.unwrap_or_else(|| panic!("unknown search {name}"));
        }
    }
    options
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Tokens that every search of the fixtures writes at most.
const NEW_TOKENS: usize = 8;

#[test]
fn blip2_generates_the_same_tokens() {
    for fixture in parts("blip2-opt") {
        let golden = fixture.json("golden.json");
        let model = Blip2::open(fixture.folder(), &Device::flex()).unwrap();
        let pixels = fixture.tensors("golden.safetensors").tensor::<4>("pixel_values");
        let prompt_length = golden["prompt_len"].as_u64().unwrap() as usize;
        let queries = model.qformer_config().queries;
        let searches = golden["generate"].as_object().unwrap();
        assert!(!searches.is_empty());
        for (name, want) in searches {
            let want = ids(want);
            let (prompt, mut continuation) =
                (want[queries..prompt_length].to_vec(), want[prompt_length..].to_vec());
            let options = search(name, NEW_TOKENS, model.tokens().eos.clone());
            // The reference fills a text that ended early with padding.
            if let Some(end) = continuation.iter().position(|token| options.eos.contains(token)) {
                continuation.truncate(end + 1);
            }
            let what = format!("{}: {name}", fixture.folder().display());
            let first = pixels.clone().narrow(0, 0, 1);
            let alone = model.generate(first, std::slice::from_ref(&prompt), &options).unwrap();
            assert_eq!(alone, [continuation.clone()], "{what}");
            let all = vec![prompt; pixels.dims()[0]];
            let batch = model.generate(pixels.clone(), &all, &options).unwrap();
            assert_eq!(batch[0], continuation, "{what}, in a batch");
        }
    }
}

#[test]
fn clip_features() {
    for fixture in parts("clip") {
        let golden = fixture.tensors("golden.safetensors");
        let device = Device::flex();
        let model = Clip::open(fixture.folder(), &device).unwrap();
        let images = model.image_features(golden.tensor("pixel_values")).unwrap();
        assert_close(&fixture, "image_embeds", images.clone(), golden.tensor("image_embeds"));
        let (ids, mask) = (golden.int_tensor("input_ids"), golden.int_tensor("attention_mask"));
        let texts = model.text_features(ids, mask).unwrap();
        assert_close(&fixture, "text_embeds", texts.clone(), golden.tensor("text_embeds"));
        let logits = images.matmul(texts.transpose()) * model.logit_scale();
        assert_close(&fixture, "logits_per_image", logits, golden.tensor("logits_per_image"));
        let encoder = ImageEncoder::open(fixture.folder(), &device).unwrap();
        let features = encoder.forward(golden.tensor("pixel_values")).unwrap();
        assert_close(&fixture, "vision_second_last", features, golden.tensor("vision_second_last"));
        let scale = f64::from(model.logit_scale());
        let want = fixture.json("golden.json")["logit_scale"].as_f64().unwrap();
        assert!((scale - want).abs() < 1e-4 * want, "{scale} is not {want}");
    }
}

#[test]
fn a_t5_is_refused_by_name() {
    for fixture in parts("blip2-t5") {
        let error = Blip2::open(fixture.folder(), &Device::flex()).unwrap_err().to_string();
        assert!(error.contains("T5") && error.contains("not built yet"), "{error}");
    }
}
