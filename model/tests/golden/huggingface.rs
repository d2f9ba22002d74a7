//! BLIP-2 with OPT and with T5, and CLIP, against `transformers`.

use blip2_model::blip2::Blip2;
use blip2_model::clip::Clip;
use blip2_model::language::generation::GenerateOptions;
use blip2_model::language::{LanguageModel, Texts};
use blip2_model::objectives::generate::GenerateModel;
use blip2_model::padded::Padded;
use blip2_model::vision::ImageEncoder;
use blip2_model_files::weights::{NameStyle, WeightSource, huggingface_name, load};
use blip2_tensors::device::compute::Compute;
use blip2_tensors::device::placement::Placement;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::nn::tensors::compute_in;
use blip2_tensors::train::flat::FlatLayout;
use blip2_tensors::train::loss::{Loss, counted};
use blip2_tensors::train::tape::Tape;
use burn::tensor::Tensor;
use serde_json::Value;

use crate::fixture::{
    Fixture, Tensors, assert_close, assert_relative, assert_same_gradient, cases, device, flat_gradient,
};

/// Largest difference of a loss.
const LOSS_TOLERANCE: f64 = 2e-5;

/// The folders called `name` of all cases.
pub(crate) fn parts(name: &str) -> Vec<Fixture> {
    let parts: Vec<Fixture> = cases("hf-").iter().filter_map(|case| case.part(name)).collect();
    assert!(!parts.is_empty(), "no case has a folder {name}");
    parts
}

/// Image encoder and Q-Former, which do not depend on the language model.
fn check_queries(fixture: &Fixture, golden: &Tensors, model: &Blip2) {
    let features = model.encoder().forward(golden.tensor("pixel_values")).unwrap();
    let normed = model.trained().ln_vision.forward(features.clone());
    assert_close(fixture, "vision", normed, golden.values("vision"));
    let queries = model.trained().query_output(features, &mut Dropout::off(), &mut Tape::whole()).unwrap();
    assert_close(fixture, "qformer", queries, golden.values("qformer"));
}

#[test]
fn blip2_t5_activations() {
    for fixture in parts("blip2-t5") {
        let golden = fixture.tensors("golden.safetensors");
        let model = Blip2::open(fixture.folder(), device()).unwrap();
        check_queries(&fixture, &golden, &model);
        let t5 = model.language_model();
        let start = t5.decoder_start().expect("an encoder-decoder");
        let (ids, mask) = (golden.int_tensor("input_ids"), golden.int_tensor("attention_mask"));
        let inputs = model.inputs(golden.tensor("pixel_values"), ids).unwrap();
        let labels = golden.int_tensor::<2>("labels").clamp_min(0);
        let [rows, length] = labels.dims();
        let start = Tensor::full([rows, 1], start as i32, &device());
        let written = Tensor::cat(vec![start, labels], 1).narrow(1, 0, length);
        let logits = t5.scores_of_written(inputs.clone(), mask.clone(), written).unwrap();
        assert_close(&fixture, "logits", logits, golden.values("logits"));
        assert!(model.language_model().forward(inputs, mask).is_err(), "nothing was written");
    }
}

#[test]
fn blip2_opt_activations() {
    for fixture in parts("blip2-opt") {
        let golden = fixture.tensors("golden.safetensors");
        let model = Blip2::open(fixture.folder(), device()).unwrap();
        check_queries(&fixture, &golden, &model);
        let pixels = golden.tensor("pixel_values");
        let (ids, mask) = (golden.int_tensor("input_ids"), golden.int_tensor("attention_mask"));
        let logits = model.logits(pixels, ids, mask).unwrap();
        assert_close(&fixture, "logits", logits, golden.values("logits"));
    }
}

/// What a case's texts are: the text of a decoder-only model follows the image tokens in `input_ids`; an
/// encoder-decoder reads that text and writes the labels.
pub(crate) struct GoldenTexts {
    pub(crate) rows: usize,
    pub(crate) ids: Vec<i32>,
    mask: Vec<i32>,
    pub(crate) labels: Vec<i32>,
    pub(crate) written: Vec<i32>,
}

impl GoldenTexts {
    pub(crate) fn read(golden: &Tensors, queries: usize, image: u32, encoder_decoder: bool) -> Self {
        let ids = golden.ints("input_ids");
        let rows = golden.int_tensor::<2>("input_ids").dims()[0];
        let length = ids.len() / rows;
        let after_queries = |values: &[i32]| -> Vec<i32> {
            values.chunks(length).flat_map(|row| row[queries..].iter().copied()).collect()
        };
        assert!(ids.chunks(length).all(|row| row[..queries].iter().all(|id| *id == image as i32)));
        let labels = golden.ints("labels");
        let labels = if encoder_decoder { labels } else { after_queries(&labels) };
        let written = labels.iter().map(|label| (*label).max(0)).collect();
        let mask = after_queries(&golden.ints("attention_mask"));
        Self { rows, ids: after_queries(&ids), mask, labels, written }
    }

    /// One row alone.
    pub(crate) fn row(&self, row: usize) -> Self {
        let of = |values: &[i32]| {
            let length = values.len() / self.rows;
            values[row * length..(row + 1) * length].to_vec()
        };
        let [ids, mask, labels, written] =
            [&self.ids, &self.mask, &self.labels, &self.written].map(|all| of(all));
        Self { rows: 1, ids, mask, labels, written }
    }

    /// The loss summed over the labels.
    pub(crate) fn loss(&self, model: &LanguageModel, prompt: Tensor<3>) -> Loss {
        self.weighted_loss(model, prompt, &[])
    }

    /// The same where each row has a weight of its own.
    pub(crate) fn weighted_loss(&self, model: &LanguageModel, prompt: Tensor<3>, weights: &[f32]) -> Loss {
        let given = Padded { ids: &self.ids, mask: &self.mask };
        let seen = vec![1; self.written.len()];
        let written = Padded { ids: &self.written, mask: &seen };
        let (prefix, text) = match model.is_encoder_decoder() {
            true => (given, written),
            false => (Padded::default(), given),
        };
        let texts = Texts { rows: self.rows, prefix, text, labels: &self.labels, weights };
        model.caption_loss(Some(prompt), &texts, &device()).unwrap()
    }
}

/// Layout, loss and gradient of a case's generate task.
fn generate_gradient(fixture: &Fixture, golden: &Tensors, tape: Tape) -> (FlatLayout, f64, Vec<f32>) {
    generate_gradient_in(fixture, golden, tape, &Placement::from(&device()), Compute::F32)
}

/// The same with frozen models at `place`, and products in `compute`.
pub(crate) fn generate_gradient_in(
    fixture: &Fixture,
    golden: &Tensors,
    mut tape: Tape,
    place: &Placement,
    compute: Compute,
) -> (FlatLayout, f64, Vec<f32>) {
    let mut frozen = Blip2::open(fixture.folder(), place).unwrap();
    compute_in(&mut frozen, compute).unwrap();
    let device = device().autodiff();
    let eps = fixture.json("config.json")["vision_config"]["layer_norm_eps"].as_f64().unwrap();
    let model = frozen.language_model();
    let mut generate = GenerateModel::new(frozen.qformer_config(), eps, model.width(), &device).unwrap();
    let style = NameStyle::HuggingFace { prefix: String::new() };
    let source = WeightSource::open(fixture.folder(), style).unwrap();
    load(&mut generate, "", &source, &device).unwrap();
    compute_in(&mut generate, compute).unwrap();

    let features = frozen.encoder().forward(golden.tensor("pixel_values")).unwrap();
    let prompt = generate.forward(Tensor::from_inner(features), &mut Dropout::off(), &mut tape).unwrap();
    let encoder_decoder = model.is_encoder_decoder();
    let (queries, image) = (frozen.qformer_config().queries, frozen.tokens().image);
    let texts = GoldenTexts::read(golden, queries, image, encoder_decoder);
    let loss = texts.loss(model, prompt);
    let count = counted(&texts.labels) as f64;
    let layout = FlatLayout::of(&mut generate).unwrap();
    let gradient = flat_gradient(&mut generate, &layout, tape, loss.objective / count);
    (layout, loss.value.read().unwrap() / count, gradient)
}

#[test]
fn blip2_loss_and_gradients() {
    for fixture in parts("blip2-opt").into_iter().chain(parts("blip2-t5")) {
        let golden = fixture.tensors("golden.safetensors");
        let what = fixture.folder().display().to_string();
        let (layout, value, whole) = generate_gradient(&fixture, &golden, Tape::whole());
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

        let (_, _, segmented) = generate_gradient(&fixture, &golden, Tape::segmented());
        assert_same_gradient(&what, &layout, &segmented, &whole);
        let (_, _, again) = generate_gradient(&fixture, &golden, Tape::segmented());
        assert!(segmented == again, "{what}: the same bits every time");
    }
}

/// The search that a name in `golden.json` stands for, e.g. `beam5_lp_minus1` or `beam3_rep1.5`.
pub(crate) fn search(name: &str, new_tokens: usize, eos: Vec<u32>) -> GenerateOptions {
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

pub(crate) fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Tokens that every search of the fixtures writes at most.
pub(crate) const NEW_TOKENS: usize = 8;

/// The prompt of the first image's searches, without image tokens.
pub(crate) fn first_prompt(fixture: &Fixture, model: &Blip2) -> Vec<u32> {
    let queries = model.qformer_config().queries;
    let ids = fixture.tensors("golden.safetensors").ints("input_ids");
    let length = match model.language_model().is_encoder_decoder() {
        true => {
            let rows = fixture.tensors("golden.safetensors").int_tensor::<2>("input_ids").dims()[0];
            ids.len() / rows
        }
        false => fixture.json("golden.json")["prompt_len"].as_u64().unwrap() as usize,
    };
    ids[queries..length].iter().map(|id| *id as u32).collect()
}

/// What the reference wrote after the prompt, or after the start token.
pub(crate) fn continuation(want: Vec<u32>, model: &Blip2, prompt: &[u32], eos: &[u32]) -> Vec<u32> {
    let skipped = match model.language_model().is_encoder_decoder() {
        true => 1,
        false => model.qformer_config().queries + prompt.len(),
    };
    let mut written = want[skipped..].to_vec();
    // The reference fills a text that ended early with padding.
    if let Some(end) = written.iter().position(|token| eos.contains(token)) {
        written.truncate(end + 1);
    }
    written
}

#[test]
fn blip2_generates_the_same_tokens() {
    for fixture in parts("blip2-opt").into_iter().chain(parts("blip2-t5")) {
        let model = Blip2::open(fixture.folder(), device()).unwrap();
        let pixels = fixture.tensors("golden.safetensors").tensor::<4>("pixel_values");
        let prompt = first_prompt(&fixture, &model);
        let golden = fixture.json("golden.json");
        let searches = golden["generate"].as_object().unwrap();
        assert!(!searches.is_empty());
        for (name, want) in searches {
            let options = search(name, NEW_TOKENS, model.tokens().eos.clone());
            let want = continuation(ids(want), &model, &prompt, &options.eos);
            let what = format!("{}: {name}", fixture.folder().display());
            let first = pixels.clone().narrow(0, 0, 1);
            let alone = model.generate(first, std::slice::from_ref(&prompt), &options).unwrap();
            assert_eq!(alone, std::slice::from_ref(&want), "{what}");
            let all = vec![prompt.clone(); pixels.dims()[0]];
            let batch = model.generate(pixels.clone(), &all, &options).unwrap();
            assert_eq!(batch[0], want, "{what}, in a batch");
        }
    }
}

#[test]
fn clip_features() {
    for fixture in parts("clip") {
        let golden = fixture.tensors("golden.safetensors");
        let device = device();
        let model = Clip::open(fixture.folder(), &device).unwrap();
        let images = model.image_features(golden.tensor("pixel_values")).unwrap();
        assert_close(&fixture, "image_embeds", images.clone(), golden.values("image_embeds"));
        let (ids, mask) = (golden.int_tensor("input_ids"), golden.int_tensor("attention_mask"));
        let texts = model.text_features(ids, mask).unwrap();
        assert_close(&fixture, "text_embeds", texts.clone(), golden.values("text_embeds"));
        let logits = images.matmul(texts.transpose()) * model.logit_scale();
        assert_close(&fixture, "logits_per_image", logits, golden.values("logits_per_image"));
        let encoder = ImageEncoder::open(fixture.folder(), &device).unwrap();
        let features = encoder.forward(golden.tensor("pixel_values")).unwrap();
        assert_close(&fixture, "vision_second_last", features, golden.values("vision_second_last"));
        let scale = f64::from(model.logit_scale());
        let want = fixture.json("golden.json")["logit_scale"].as_f64().unwrap();
        assert!((scale - want).abs() < 1e-4 * want, "{scale} is not {want}");
    }
}
