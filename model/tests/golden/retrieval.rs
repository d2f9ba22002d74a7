//! Fine-tuning for retrieval against the reference: the image encoder is trained, some rows have the same
//! image, learning rates shrink layer by layer, and pairs are ranked anew.

use std::collections::BTreeMap;

use blip2_model::objectives::contrast::{
    Contrast, ContrastModel, GlobalBatch, GradientMode, Side, SlotBatch, SlotContext, add_negatives,
    negative_gradients,
};
use blip2_model::trained_encoder::{TrainedEncoder, WithEncoder};
use blip2_model::vision::ImageEncoder;
use blip2_model_files::error::ModelError;
use blip2_tensors::device::read_back::floats;
use blip2_tensors::nn::drop_path::DropPath;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::train::buckets::GradientBuckets;
use blip2_tensors::train::flat::FlatLayout;
use blip2_tensors::train::layer_decay::LayerDecay;
use blip2_tensors::train::optimizer::{AdamW, Moments};
use blip2_tensors::train::tape::{Segment, Tape};
use burn::tensor::{Gradients, Tensor};
use serde_json::Value;

use crate::contrast::{Case, assert_losses, models, size};
use crate::fixture::{Fixture, assert_relative, cases, device, largest_difference};

/// Largest difference of a similarity, a weight or a score.
const TOLERANCE: f64 = 5e-5;

/// Largest difference of what a step made of a tensor, relative to the norm of the change.
const CHANGE_TOLERANCE: f64 = 2e-2;

/// A batch of pairs.
struct Pairs {
    pixels: Tensor<4>,
    ids: Vec<i32>,
    mask: Vec<i32>,
    images: Vec<u64>,
}

struct Retrieval {
    fixture: Fixture,
    meta: Value,
    model: WithEncoder<ContrastModel>,
    layout: FlatLayout,
    /// Whether the gradients of negatives come home in the opposite order.
    backwards: bool,
}

/// The result of one forward and backward pass over the whole batch.
struct Step {
    losses: [f64; 3],
    negatives: Vec<usize>,
    /// Of the image features, all of the batch.
    of_features: Vec<f32>,
    gradients: Vec<f32>,
}

fn numbers(value: &Value) -> Vec<f32> {
    match value.as_array() {
        Some(values) => values.iter().flat_map(numbers).collect(),
        None => vec![value.as_f64().unwrap() as f32],
    }
}

fn assert_near(what: &str, got: &[f32], want: &[f32]) {
    let difference = largest_difference(got, want);
    assert!(difference < TOLERANCE, "{what} differs by {difference}");
}

impl Retrieval {
    fn open(fixture: Fixture) -> Self {
        let meta = fixture.json("meta.json");
        let (encoder, model) = models(&fixture, &meta);
        let encoder = TrainedEncoder::new(ImageEncoder::Eva(encoder)).unwrap();
        let mut model = WithEncoder { encoder, model };
        let layout = FlatLayout::of(&mut model).unwrap();
        Self { fixture, meta, model, layout, backwards: false }
    }

    fn pairs(&self, file: &str, prefix: &str) -> Pairs {
        let file = self.fixture.tensors(file);
        let name = |part: &str| format!("{prefix}{part}");
        Pairs {
            pixels: file.tensor(&name("image")),
            ids: file.ints(&name("input_ids")),
            mask: file.ints(&name("attention_mask")),
            images: file.ints(&name("image_id")).into_iter().map(|id| id as u64).collect(),
        }
    }

    fn batch(&self) -> Pairs {
        self.pairs("batch.safetensors", "")
    }

    /// The contrastive loss of a batch, whose image features are `features`.
    fn contrast(&self, pairs: &Pairs, with_ids: bool, features: Tensor<3>) -> (GlobalBatch, Contrast) {
        let (rows, model) = (features.dims()[0], &self.model.model);
        let text_length = pairs.ids.len() / rows;
        let (ids, mask) = (pairs.ids.clone(), pairs.mask.clone());
        let batch = SlotBatch { image_features: features, ids, mask, text_length };
        let forward = model.features(batch, &mut Dropout::off(), Tape::whole()).unwrap();
        let [_, queries, embed_dim] = forward.image_feats.dims();
        let global = GlobalBatch {
            queries,
            embed_dim,
            text_length,
            image_feats: floats(forward.image_feats.inner()).unwrap(),
            text_feats: floats(forward.text_feat.inner()).unwrap(),
            ids: pairs.ids.clone(),
            mask: pairs.mask.clone(),
        };
        let smoothing = self.meta["label_smoothing"]["itc"].as_f64().unwrap();
        let temperature = model.temperature().unwrap();
        let on_device = global.features(&device()).unwrap();
        let contrast = match with_ids {
            true => on_device.contrast_of_images(&pairs.images, temperature, smoothing),
            false => on_device.contrast(temperature, smoothing),
        };
        (global, contrast.unwrap())
    }

    /// One step over the batch as `slots` equal slots, whose gradients are summed.
    fn step(&mut self, pairs: &Pairs, with_ids: bool, slots: usize, mode: GradientMode) -> Step {
        let rows = pairs.pixels.dims()[0];
        let (length, per_slot) = (pairs.ids.len() / rows, rows / slots);
        let encoder = self.model.encoder.clone();
        let passes: Vec<_> = (0..slots)
            .map(|slot| pairs.pixels.clone().narrow(0, slot * per_slot, per_slot))
            .map(|pixels| encoder.forward(pixels, DropPath::off()).unwrap())
            .collect();
        let features = Tensor::cat(passes.iter().map(|pass| pass.features.clone()).collect(), 0);
        let (global, contrast) = self.contrast(pairs, with_ids, features.clone());
        let on_device = global.features(&device()).unwrap();
        let arg_max = |side, row| {
            let weights = contrast.negative_weights(side, row);
            (0..rows).fold(0, |best, i| if weights[i] > weights[best] { i } else { best })
        };
        let images: Vec<usize> = (0..rows).map(|row| arg_max(Side::Image, row)).collect();
        let texts: Vec<usize> = (0..rows).map(|row| arg_max(Side::Text, row)).collect();
        let mut step = Step {
            losses: [contrast.loss, 0.0, 0.0],
            negatives: [images.clone(), texts.clone()].concat(),
            of_features: Vec::new(),
            gradients: vec![0.0; self.layout.len()],
        };
        let buckets = GradientBuckets::of(&self.layout, 1);
        let (mut of_slots, mut sent) = (Vec::new(), Vec::new());
        for (slot, pass) in passes.into_iter().enumerate() {
            let own = slot * per_slot..(slot + 1) * per_slot;
            let tokens = own.start * length..own.end * length;
            let leaf = pass.leaf();
            let batch = SlotBatch {
                image_features: leaf.clone(),
                ids: pairs.ids[tokens.clone()].to_vec(),
                mask: pairs.mask[tokens].to_vec(),
                text_length: length,
            };
            let forward = self.model.model.features(batch, &mut Dropout::off(), Tape::segmented()).unwrap();
            let negatives =
                images[own.clone()].iter().map(|row| features.clone().narrow(0, *row, 1)).collect();
            let negatives = Tensor::<3>::from_inner(Tensor::cat(negatives, 0)).require_grad();
            let context = SlotContext {
                global: &global,
                features: &on_device,
                contrast: &contrast,
                first_row: own.start,
                negative_images: negatives.clone(),
                negative_texts: &texts[own.clone()],
                mode,
                smoothing: self.meta["label_smoothing"]["itg"].as_f64().unwrap(),
                decoder_start: size(&self.meta, "tokens", "dec") as i32,
            };
            let loss = self.model.model.slot_loss(forward, &context, &mut Dropout::off()).unwrap();
            step.losses[1] += loss.matching.read().unwrap();
            step.losses[2] += loss.captioning.read().unwrap();
            let (mut buffers, mut of_own, mut of_negatives) = (buckets.buffers(), None, None);
            let mut flat = vec![0.0; self.layout.len()];
            let collect = |segment, gradients: &mut Gradients| {
                if segment == Segment::Inputs {
                    of_own = leaf.grad_remove(gradients);
                    of_negatives = negatives.grad_remove(gradients);
                }
                for (bucket, values) in buffers.take(&mut self.model, gradients, segment)? {
                    buckets.buckets()[bucket].copy_into(&values, &mut flat);
                }
                Ok::<_, ModelError>(())
            };
            loss.tape.backward(loss.objective, collect).unwrap();
            sent.extend(negative_gradients(own.start, &images[own.clone()], of_negatives.unwrap()).unwrap());
            of_slots.push((own, pass, of_own.unwrap(), buffers, flat));
        }
        if self.backwards {
            sent.reverse();
        }
        for (own, pass, gradient, mut buffers, mut flat) in of_slots {
            let arrived = sent.iter().filter(|negative| own.contains(&negative.image)).cloned().collect();
            let gradient = add_negatives(gradient, own.start, arrived).unwrap();
            step.of_features.extend(floats(gradient.clone()).unwrap());
            let mut last = None;
            let collect = |segment, gradients: &mut Gradients| {
                for (bucket, values) in buffers.take(&mut self.model, gradients, segment)? {
                    buckets.buckets()[bucket].copy_into(&values, &mut flat);
                    last = Some(bucket);
                }
                Ok::<_, ModelError>(())
            };
            encoder.backward(pass, gradient, collect).unwrap();
            assert_eq!(last, Some(buckets.buckets().len() - 1), "the last segment completes the last bucket");
            step.gradients.iter_mut().zip(flat).for_each(|(sum, g)| *sum += g);
        }
        step
    }

    /// The reference's values in the place of one of our tensors, and its own tensors in there; it has no key
    /// bias in the encoder.
    fn reference(&self, name: &str, find: impl Fn(&str) -> Option<Vec<f32>>) -> Option<(Vec<f32>, usize)> {
        let Some(stem) = name.strip_suffix("qkv.bias") else { return Some((find(name)?, 1)) };
        let [query, value] = ["q_bias", "v_bias"].map(|part| find(&format!("{stem}{part}")));
        let (query, value) = (query?, value?);
        Some(([&query[..], &vec![0.0; query.len()], &value].concat(), 2))
    }
}

#[test]
fn similarities_weights_and_losses_by_image_ids() {
    for fixture in cases("retrieval-") {
        let mut case = Retrieval::open(fixture);
        let pairs = case.batch();
        let features = case.model.encoder.features(pairs.pixels.clone(), DropPath::off()).unwrap();
        let (_, contrast) = case.contrast(&pairs, true, features.clone());
        let rows = contrast.rows();
        for (side, want) in [(Side::Image, "weights_t2i"), (Side::Text, "weights_i2t")] {
            let weights = (0..rows).flat_map(|row| contrast.negative_weights(side, row));
            let weights: Vec<f32> = weights.map(|weight| weight as f32).collect();
            assert_near(want, &weights, &numbers(&case.meta[want]));
        }
        // Loss and gradient know the targets; the gradient of a row is softmax - target over twice the rows.
        let similarity = numbers(&case.meta["similarity_i2t"]);
        let targets = numbers(&case.meta["itc_targets"]);
        let gradient = contrast.image_gradient(0..rows, GradientMode::KeysDetached);
        for row in 0..rows {
            let range = row * rows..(row + 1) * rows;
            let exponentials: Vec<f64> =
                similarity[range.clone()].iter().map(|s| f64::from(*s).exp()).collect();
            let sum: f64 = exponentials.iter().sum();
            let of_target = |at: usize| {
                exponentials[at] / sum - 2.0 * rows as f64 * f64::from(gradient[range.start + at])
            };
            let got: Vec<f32> = (0..rows).map(|at| of_target(at) as f32).collect();
            assert_near("itc_targets", &got, &targets[range]);
        }
        for (with_ids, losses, picks) in [
            (true, "losses", "negative_picks"),
            (false, "losses_without_ids", "negative_picks_without_ids"),
            (false, "losses_all_ids_different", "negative_picks_all_ids_different"),
        ] {
            let step = case.step(&pairs, with_ids, 1, GradientMode::Exact);
            assert_losses(losses, step.losses, Case::expected_losses(&case.meta[losses]), 2e-5);
            assert_eq!(step.negatives, Case::picks(&case.meta[picks]), "{picks}");
        }
    }
}

#[test]
fn gradients_in_both_modes_with_the_encoder_trained() {
    for fixture in cases("retrieval-") {
        let mut case = Retrieval::open(fixture);
        let pairs = case.batch();
        for (mode, file) in [
            (GradientMode::KeysDetached, "gradients_keys_detached.safetensors"),
            (GradientMode::Exact, "gradients_exact.safetensors"),
        ] {
            let want = case.fixture.tensors(file);
            let mut whole = Vec::new();
            for slots in [1, 2, 3, 6] {
                let what = format!("{} {file} {slots} slots", case.fixture.name());
                let step = case.step(&pairs, true, slots, mode);
                assert_losses(&what, step.losses, Case::expected_losses(&case.meta["losses"]), 2e-5);
                assert_eq!(step.negatives, Case::picks(&case.meta["negative_picks"]), "{what}");
                let mut compared = 0;
                for tensor in case.layout.tensors() {
                    let Some((want, count)) = case.reference(&tensor.name, |name| want.find(name)) else {
                        panic!("{what}: the reference has no {}", tensor.name);
                    };
                    assert_relative(&what, &tensor.name, &step.gradients[tensor.range()], &want);
                    compared += count;
                }
                assert_eq!(compared, want.len(), "{what}: every gradient of the reference has a tensor");
                if whole.is_empty() {
                    whole = step.of_features;
                } else {
                    // Products of fewer rows are rounded otherwise.
                    assert_relative(&what, "the image features", &step.of_features, &whole);
                }
            }
        }
    }
}

#[test]
fn the_order_in_which_gradients_come_home_changes_no_bit() {
    for fixture in cases("retrieval-") {
        let mut case = Retrieval::open(fixture);
        let pairs = case.batch();
        for slots in [1, 3, 6] {
            let mut gradient = |backwards| {
                case.backwards = backwards;
                let step = case.step(&pairs, true, slots, GradientMode::Exact);
                let values = step.of_features.into_iter().chain(step.gradients);
                values.map(f32::to_bits).collect::<Vec<u32>>()
            };
            assert!(gradient(false) == gradient(true), "{slots} slots");
        }
    }
}

#[test]
fn learning_rates_shrink_as_in_the_reference() {
    for fixture in cases("retrieval-") {
        let case = Retrieval::open(fixture);
        let depth = size(&case.meta, "vision", "depth");
        for (decay, groups) in case.meta["layer_decay"].as_object().unwrap() {
            let decay = LayerDecay::new(decay.parse().unwrap(), depth).unwrap();
            let layout = case.layout.clone().with_learning_rate_scales(|name| decay.scale(name)).unwrap();
            let groups: BTreeMap<String, &Value> =
                groups.as_object().unwrap().iter().map(|(name, group)| (own_name(name), group)).collect();
            assert_eq!(groups.len(), layout.tensors().len());
            for tensor in layout.tensors() {
                let group = groups[&tensor.name];
                let (scale, weight_decay) = (group[0].as_f64().unwrap(), group[1].as_f64().unwrap());
                assert!((tensor.learning_rate_scale - scale).abs() < 1e-12, "{}: {scale}", tensor.name);
                // A single number, which the reference decays in some versions and not in others.
                if tensor.name != "temp" {
                    assert_eq!(tensor.decays(), weight_decay > 0.0, "{}", tensor.name);
                }
            }
        }
        let published = &case.meta["published_layers"]["eva_vit_g"];
        let depth = published["num_layers"].as_u64().unwrap() as usize;
        let decay = LayerDecay::new(0.95, depth).unwrap();
        for (name, layer) in published["layer_of"].as_object().unwrap() {
            let want = published["scales_0.95"][layer.as_u64().unwrap() as usize].as_f64().unwrap();
            let scale = decay.scale(&format!("visual_encoder.{}", own_name(name)));
            assert!((scale - want).abs() < 1e-12, "{name}: {scale} and {want}");
        }
    }
}

/// Our name of a tensor that the reference's optimizer has.
fn own_name(name: &str) -> String {
    name.replace("attn.q_bias", "attn.qkv.bias").replace("attn.v_bias", "attn.qkv.bias")
}

#[test]
fn three_steps_of_adamw_with_layer_decay() {
    for fixture in cases("retrieval-") {
        let mut case = Retrieval::open(fixture);
        let optimizer = case.meta["optimizer"].clone();
        let number = |name: &str| optimizer[name].as_f64().unwrap();
        let adamw = AdamW {
            beta1: optimizer["betas"][0].as_f64().unwrap(),
            beta2: optimizer["betas"][1].as_f64().unwrap(),
            epsilon: number("eps"),
            weight_decay: number("weight_decay"),
        };
        let decay = LayerDecay::new(number("layer_decay"), size(&case.meta, "vision", "depth")).unwrap();
        let layout = case.layout.clone().with_learning_rate_scales(|name| decay.scale(name)).unwrap();
        let before = layout.read(&mut case.model).unwrap();
        let (mut parameters, mut moments) = (before.clone(), Moments::zeros(before.len()));
        let trajectory = case.meta["trajectory"].as_array().unwrap().clone();
        assert!(!trajectory.is_empty());
        for (index, want) in trajectory.iter().enumerate() {
            let what = format!("{} step {index}", case.fixture.name());
            let pairs = case.pairs("trajectory_batches.safetensors", &format!("step{index}."));
            let step = case.step(&pairs, true, 1, GradientMode::KeysDetached);
            assert_losses(&what, step.losses, Case::expected_losses(want), 1e-3);
            assert_eq!(step.negatives, Case::picks(&want["negatives"]), "{what}");
            let (update, rate) = (index as u64 + 1, number("lr"));
            adamw.apply(&layout, update, rate, &mut parameters, &step.gradients, &mut moments);
            layout.write(&mut case.model, &parameters, &device().autodiff()).unwrap();
        }
        let want = case.fixture.tensors("trajectory_final.safetensors");
        let norm = |values: &mut dyn Iterator<Item = f32>| {
            values.map(|value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt()
        };
        let mut compared = 0;
        for tensor in layout.tensors() {
            let Some((want, count)) = case.reference(&tensor.name, |name| want.find(name)) else { continue };
            let (got, before) = (&parameters[tensor.range()], &before[tensor.range()]);
            let change = norm(&mut want.iter().zip(before).map(|(a, b)| a - b));
            let difference = norm(&mut want.iter().zip(got).map(|(a, b)| a - b));
            assert!(
                difference < CHANGE_TOLERANCE * change,
                "{} differs by {difference} after a change of {change}",
                tensor.name
            );
            compared += count;
        }
        assert_eq!(compared, want.len());
    }
}

#[test]
fn the_first_few_are_ranked_anew_by_matching() {
    for fixture in cases("retrieval-") {
        let case = Retrieval::open(fixture);
        let golden = case.fixture.tensors("evaluation.safetensors");
        let most = size(&case.meta, "evaluation", "k");
        let model = &case.model.model;
        let features = case.model.encoder.features(golden.tensor("images"), DropPath::off()).unwrap();
        let text_feats =
            model.text_feats(golden.int_tensor("input_ids"), golden.int_tensor("attention_mask")).unwrap();
        let image_feats = model.image_feats(features.clone());
        let ([images, queries, width], [texts, _]) = (image_feats.dims(), text_feats.dims());
        let cosines = image_feats.reshape([images * queries, width]).matmul(text_feats.transpose());
        let cosines = cosines.reshape([images, queries, texts]).max_dim(1).inner();
        let cosines = floats(cosines).unwrap();
        assert_near("cosine", &cosines, &golden.find("cosine").unwrap());

        let (ids, mask) = (golden.int_tensor("input_ids"), golden.int_tensor("attention_mask"));
        let cosine = |image: usize, text: usize| cosines[image * texts + text];
        // Of all pairs at once; a pair's score does not depend on the others'.
        let mut matching = Vec::new();
        for image in 0..images {
            let image = model.image_key_values(features.clone().narrow(0, image, 1));
            let logits = model.match_logits(&image, ids.clone(), mask.clone()).unwrap().narrow(1, 1, 1);
            matching.push(floats(logits.inner()).unwrap());
        }
        let first = |others: usize, score: &dyn Fn(usize) -> f32| {
            let mut order: Vec<usize> = (0..others).collect();
            order.sort_by(|a, b| score(*b).total_cmp(&score(*a)));
            order.truncate(most);
            order
        };
        let (mut of_images, mut of_texts) = (vec![-100.0; images * texts], vec![-100.0; images * texts]);
        for image in 0..images {
            for text in first(texts, &|text| cosine(image, text)) {
                of_images[image * texts + text] = matching[image][text] + cosine(image, text);
            }
        }
        for text in 0..texts {
            for image in first(images, &|image| cosine(image, text)) {
                of_texts[text * images + image] = matching[image][text] + cosine(image, text);
            }
        }
        assert_near("scores_i2t", &of_images, &golden.find("scores_i2t").unwrap());
        assert_near("scores_t2i", &of_texts, &golden.find("scores_t2i").unwrap());
    }
}
