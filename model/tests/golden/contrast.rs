//! Stage 1 against the reference: activations, losses, gradients in both modes, and six AdamW steps.

use blip2_model::objectives::contrast::{
    Contrast, ContrastModel, GlobalBatch, GlobalFeatures, GradientMode, Side, SlotBatch, SlotContext,
    SlotForward,
};
use blip2_model::padded::computed_length;
use blip2_model::qformer::QFormerConfig;
use blip2_model::vision::{EvaConfig, EvaVit};
use blip2_model_files::weights::{NameStyle, WeightSource, load};
use blip2_tensors::device::compute::Compute;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::nn::tensors::compute_in;
use blip2_tensors::train::flat::FlatLayout;
use blip2_tensors::train::optimizer::{AdamW, Moments};
use blip2_tensors::train::tape::Tape;
use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;

use crate::fixture::{
    Fixture, assert_close, assert_relative, assert_same_gradient, cases, device, flat_gradient,
};

pub(crate) struct Case {
    fixture: Fixture,
    meta: Value,
    encoder: EvaVit,
    model: ContrastModel,
    layout: FlatLayout,
    device: Device,
    tape: fn() -> Tape,
}

pub(crate) fn size(meta: &Value, section: &str, field: &str) -> usize {
    meta[section][field].as_u64().unwrap_or_else(|| panic!("meta.json: {section}.{field}")) as usize
}

/// The result of one forward and backward pass over the whole batch.
struct Step {
    losses: [f64; 3],
    negatives: Vec<usize>,
    gradients: Vec<f32>,
}

/// The image encoder, on a plain device, and what reads its features, with the fixture's weights.
pub(crate) fn models(fixture: &Fixture, meta: &Value) -> (EvaVit, ContrastModel) {
    let plain = device();
    let device = plain.clone().autodiff();
    let source = WeightSource::open(&fixture.path("weights.safetensors"), NameStyle::Lavis).unwrap();
    let width = size(meta, "vision", "width");
    let vision = EvaConfig {
        width,
        depth: size(meta, "vision", "depth"),
        heads: size(meta, "vision", "heads"),
        intermediate: (width as f64 * meta["vision"]["mlp_ratio"].as_f64().unwrap()) as usize,
        image_size: meta["image_size"].as_u64().unwrap() as usize,
        patch_size: meta["patch_size"].as_u64().unwrap() as usize,
        layer_norm_eps: meta["vision"]["layer_norm_eps"].as_f64().unwrap(),
    };
    let mut encoder = EvaVit::new(&vision, &plain);
    load(&mut encoder, "visual_encoder", &source, &plain).unwrap();
    let config = QFormerConfig::new(width)
        .with_hidden(size(meta, "qformer", "hidden"))
        .with_layers(size(meta, "qformer", "layers"))
        .with_heads(size(meta, "qformer", "heads"))
        .with_intermediate(size(meta, "qformer", "intermediate"))
        .with_vocab(size(meta, "qformer", "vocab"))
        .with_max_positions(size(meta, "qformer", "max_positions"))
        .with_queries(size(meta, "qformer", "queries"))
        .with_cross_attention_frequency(size(meta, "qformer", "cross_attention_freq"))
        .with_layer_norm_eps(meta["qformer"]["layer_norm_eps"].as_f64().unwrap())
        .with_dropout(0.0);
    let eps = meta["vision"]["ln_vision_eps"].as_f64().unwrap();
    let mut model = ContrastModel::new(&config, size(meta, "qformer", "embed_dim"), eps, &device).unwrap();
    load(&mut model, "", &source, &device).unwrap();
    (encoder, model)
}

impl Case {
    pub(crate) fn open(fixture: Fixture) -> Self {
        let meta: Value = fixture.json("meta.json");
        let (encoder, mut model) = models(&fixture, &meta);
        let layout = FlatLayout::of(&mut model).unwrap();
        let device = device().autodiff();
        Self { fixture, meta, encoder, model, layout, device, tape: Tape::segmented }
    }

    fn decoder_start(&self) -> i32 {
        size(&self.meta, "tokens", "dec") as i32
    }

    fn slot(&self, image_features: Tensor<3>, ids: &[i32], mask: &[i32], text_length: usize) -> SlotBatch {
        SlotBatch { image_features, ids: ids.to_vec(), mask: mask.to_vec(), text_length }
    }

    fn global(&self, forward: &SlotForward, ids: &[i32], mask: &[i32], text_length: usize) -> GlobalBatch {
        let values = |data: TensorData| data.as_slice::<f32>().unwrap().to_vec();
        let [_, queries, embed_dim] = forward.image_feats.dims();
        GlobalBatch {
            queries,
            embed_dim,
            text_length,
            image_feats: values(forward.image_feats.clone().inner().into_data()),
            text_feats: values(forward.text_feat.clone().inner().into_data()),
            ids: ids.to_vec(),
            mask: mask.to_vec(),
        }
    }

    fn contrast(&self, global: &GlobalFeatures) -> Contrast {
        let smoothing = self.meta["label_smoothing"]["itc"].as_f64().unwrap();
        let temperature = self.model.temperature().unwrap();
        global.contrast(temperature, smoothing).unwrap()
    }

    /// One step over the batch as `slots` equal slots, whose gradients are summed.
    fn step(
        &mut self,
        pixels: Tensor<4>,
        ids: &[i32],
        mask: &[i32],
        slots: usize,
        mode: GradientMode,
    ) -> Step {
        let rows = pixels.dims()[0];
        let (length, per_slot) = (ids.len() / rows, rows / slots);
        let features = self.encoder.forward(pixels).unwrap();
        let whole = self.slot(features.clone(), ids, mask, length);
        let forward = self.model.features(whole, &mut Dropout::off(), Tape::whole()).unwrap();
        let global = self.global(&forward, ids, mask, length);
        let on_device = global.features(&self.device.clone().inner()).unwrap();
        let contrast = self.contrast(&on_device);
        let arg_max = |side, row| {
            let weights = contrast.negative_weights(side, row);
            (0..rows).fold(0, |best, i| if weights[i] > weights[best] { i } else { best })
        };
        let images: Vec<usize> = (0..rows).map(|row| arg_max(Side::Image, row)).collect();
        let texts: Vec<usize> = (0..rows).map(|row| arg_max(Side::Text, row)).collect();

        let mut step = Step {
            losses: [contrast.loss, 0.0, 0.0],
            negatives: [images.clone(), texts.clone()].concat(),
            gradients: vec![0.0; self.layout.len()],
        };
        for slot in 0..slots {
            let own = slot * per_slot..(slot + 1) * per_slot;
            let tokens = own.start * length..own.end * length;
            let own_features = features.clone().narrow(0, own.start, per_slot);
            let batch = self.slot(own_features, &ids[tokens.clone()], &mask[tokens], length);
            let forward = self.model.features(batch, &mut Dropout::off(), (self.tape)()).unwrap();
            let negative_images = Tensor::cat(
                images[own.clone()].iter().map(|row| features.clone().narrow(0, *row, 1)).collect(),
                0,
            );
            let context = SlotContext {
                global: &global,
                features: &on_device,
                contrast: &contrast,
                first_row: own.start,
                negative_images,
                negative_texts: &texts[own.clone()],
                mode,
                smoothing: self.meta["label_smoothing"]["itg"].as_f64().unwrap(),
                decoder_start: self.decoder_start(),
            };
            let loss = self.model.slot_loss(forward, &context, &mut Dropout::off()).unwrap();
            step.losses[1] += loss.matching.read().unwrap();
            step.losses[2] += loss.captioning.read().unwrap();
            let flat = flat_gradient(&mut self.model, &self.layout, loss.tape, loss.objective);
            step.gradients.iter_mut().zip(flat).for_each(|(sum, g)| *sum += g);
        }
        step
    }

    /// Losses and the exact gradient of the case's batch as one slot, with products in `compute`.
    pub(crate) fn step_in(&mut self, compute: Compute) -> ([f64; 3], Vec<f32>) {
        let golden = self.fixture.tensors("activations.safetensors");
        let (ids, mask) = (golden.ints("input_ids"), golden.ints("attention_mask"));
        compute_in(&mut self.model, compute).unwrap();
        let step = self.step(golden.tensor::<4>("image"), &ids, &mask, 1, GradientMode::Exact);
        (step.losses, step.gradients)
    }

    pub(crate) fn expected_losses(value: &Value) -> [f64; 3] {
        ["loss_itc", "loss_itm", "loss_lm"].map(|name| value[name].as_f64().unwrap())
    }

    pub(crate) fn picks(value: &Value) -> Vec<usize> {
        value.as_array().unwrap().iter().map(|pick| pick.as_u64().unwrap() as usize).collect()
    }
}

pub(crate) fn assert_losses(what: &str, got: [f64; 3], want: [f64; 3], tolerance: f64) {
    for (name, (got, want)) in ["itc", "itm", "lm"].iter().zip(got.iter().zip(want)) {
        assert!((got - want).abs() < tolerance, "{what}: {name} {got}, reference {want}");
    }
}

#[test]
fn activations() {
    for fixture in cases("stage1-") {
        let case = Case::open(fixture);
        let golden = case.fixture.tensors("activations.safetensors");
        let features = case.encoder.forward(golden.tensor::<4>("image")).unwrap();
        assert_close(&case.fixture, "vit_output", features.clone(), golden.values("vit_output"));
        let (ids, mask) = (golden.ints("input_ids"), golden.ints("attention_mask"));
        let length = ids.len() / features.dims()[0];
        let batch = case.slot(features, &ids, &mask, length);
        let forward = case.model.features(batch, &mut Dropout::off(), Tape::whole()).unwrap();
        for (name, got) in [
            ("image_embeds", &forward.image_embeds),
            ("query_output", &forward.query_output),
            ("image_feats", &forward.image_feats),
        ] {
            assert_close(&case.fixture, name, got.clone().inner(), golden.values(name));
        }
        let longest = mask.chunks(length).map(|row| row.iter().sum::<i32>() as usize).max().unwrap();
        let computed = computed_length(longest, length);
        let want = first_positions(golden.values("text_output"), computed);
        assert_close(&case.fixture, "text_output", forward.text_output.clone().inner(), want);
        let text_feat = forward.text_feat.clone().inner();
        assert_close(&case.fixture, "text_feat", text_feat, golden.values("text_feat"));
        let matched = case.model.matched_logits(&forward).unwrap().inner();
        assert_close(&case.fixture, "itm_matched_logits", matched, golden.values("itm_matched_logits"));
        let start = case.decoder_start();
        let captions = case.model.caption_logits(&forward, start, &mut Dropout::off()).unwrap().inner();
        let want = first_positions(golden.values("itg_logits"), computed);
        assert_close(&case.fixture, "itg_logits", captions, want);
    }
}

/// Of values `[b, T, width]` those of the first `kept` positions.
fn first_positions((shape, values): ([usize; 3], Vec<f32>), kept: usize) -> ([usize; 3], Vec<f32>) {
    let [rows, length, width] = shape;
    let values = values.chunks(length * width).flat_map(|row| &row[..kept * width]).copied().collect();
    ([rows, kept, width], values)
}

#[test]
fn padding_behind_all_texts_is_not_computed_and_changes_no_bit() {
    for fixture in cases("stage1-") {
        let mut case = Case::open(fixture);
        let golden = case.fixture.tensors("activations.safetensors");
        let rows = case.meta["batch"].as_u64().unwrap() as usize;
        let mut step = |longer: usize| {
            let padded = |values: &[i32]| -> Vec<i32> {
                let row = |row: &[i32]| [row, &vec![0; longer]].concat();
                values.chunks(values.len() / rows).flat_map(row).collect()
            };
            let (ids, mask) = (padded(&golden.ints("input_ids")), padded(&golden.ints("attention_mask")));
            case.step(golden.tensor::<4>("image"), &ids, &mask, rows, GradientMode::Exact)
        };
        // Ten tokens are computed at twelve positions either way; the table of positions has no thousand.
        let (short, long) = (step(2), step(1000));
        assert_eq!(short.losses, long.losses);
        assert!(short.gradients == long.gradients, "{}", case.fixture.name());
    }
}

#[test]
fn losses_and_gradients_in_one_slot_and_in_many() {
    for fixture in cases("stage1-") {
        let mut case = Case::open(fixture);
        let golden = case.fixture.tensors("activations.safetensors");
        let (ids, mask) = (golden.ints("input_ids"), golden.ints("attention_mask"));
        let rows = case.meta["batch"].as_u64().unwrap() as usize;
        for (mode, file) in [
            (GradientMode::Exact, "gradients_exact.safetensors"),
            (GradientMode::KeysDetached, "gradients_keys_detached.safetensors"),
        ] {
            let want = case.fixture.tensors(file);
            for slots in [1, rows] {
                let what = format!("{} {file} {slots} slots", case.fixture.name());
                let step = case.step(golden.tensor::<4>("image"), &ids, &mask, slots, mode);
                assert_losses(&what, step.losses, Case::expected_losses(&case.meta["losses"]), 2e-5);
                assert_eq!(step.negatives, Case::picks(&case.meta["negative_picks"]), "{what}");
                let mut compared = 0;
                for tensor in case.layout.tensors() {
                    let Some(want) = want.find(&tensor.name) else { continue };
                    assert_relative(&what, &tensor.name, &step.gradients[tensor.range()], &want);
                    compared += 1;
                }
                assert_eq!(compared, want.len(), "{what}: every gradient of the reference has a tensor");
            }
        }
    }
}

#[test]
fn the_segmented_gradient_is_the_whole_one() {
    for fixture in cases("stage1-") {
        let mut case = Case::open(fixture);
        let golden = case.fixture.tensors("activations.safetensors");
        let (ids, mask) = (golden.ints("input_ids"), golden.ints("attention_mask"));
        for mode in [GradientMode::Exact, GradientMode::KeysDetached] {
            let what = format!("{} {mode:?}", case.fixture.name());
            let mut gradient = |tape: fn() -> Tape| {
                case.tape = tape;
                case.step(golden.tensor::<4>("image"), &ids, &mask, 2, mode).gradients
            };
            let (whole, segmented) = (gradient(Tape::whole), gradient(Tape::segmented));
            assert!(segmented == gradient(Tape::segmented), "{what}: the same bits every time");
            assert_same_gradient(&what, &case.layout, &segmented, &whole);
        }
    }
}

#[test]
fn six_steps_of_adamw() {
    for fixture in cases("stage1-") {
        let mut case = Case::open(fixture);
        let batches = case.fixture.tensors("trajectory_batches.safetensors");
        let optimizer = &case.meta["optimizer"];
        let adamw = AdamW {
            beta1: optimizer["betas"][0].as_f64().unwrap(),
            beta2: optimizer["betas"][1].as_f64().unwrap(),
            epsilon: optimizer["eps"].as_f64().unwrap(),
            weight_decay: optimizer["weight_decay"].as_f64().unwrap(),
        };
        let learning_rate = optimizer["lr"].as_f64().unwrap();
        let mut parameters = case.layout.read(&mut case.model).unwrap();
        let mut moments = Moments::zeros(parameters.len());
        let trajectory = case.meta["trajectory"].as_array().unwrap().clone();
        assert!(!trajectory.is_empty());
        for (index, want) in trajectory.iter().enumerate() {
            let what = format!("{} step {index}", case.fixture.name());
            let (pixels, ids, mask) = batches.batch(index);
            let step = case.step(pixels, &ids, &mask, 1, GradientMode::KeysDetached);
            assert_losses(&what, step.losses, Case::expected_losses(want), 1e-3);
            assert_eq!(step.negatives, Case::picks(&want["negatives"]), "{what}");
            let update = index as u64 + 1;
            adamw.apply(&case.layout, update, learning_rate, &mut parameters, &step.gradients, &mut moments);
            case.layout.write(&mut case.model, &parameters, &case.device).unwrap();
        }
    }
}
