//! What the cuts of the tape cost: seconds and peak memory of a slot of the contrast task, forward and
//! backward.
//!
//! `cargo bench -p blip2-model --bench backward -- whole|segmented [LAYERS] [HIDDEN] [ROWS] [STEPS]`, one
//! process each, since a process has one peak of memory.

use std::time::Instant;

use blip2_model::objectives::contrast::{ContrastModel, GlobalBatch, GradientMode, SlotBatch, SlotContext};
use blip2_model::qformer::QFormerConfig;
use blip2_model_files::error::ModelError;
use blip2_model_files::weights::InitialValues;
use blip2_tensors::device::read_back::floats;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::train::buckets::{BUCKET_ELEMENTS, GradientBuckets};
use blip2_tensors::train::flat::FlatLayout;
use blip2_tensors::train::tape::Tape;
use burn::tensor::{Device, Int, Tensor};

/// Widths of the image features and of the contrastive space, patches, tokens.
const SIZES: (usize, usize, usize, usize) = (1408, 256, 257, 32);

struct Wave;

impl InitialValues for Wave {
    fn normal(&mut self, name: &str, count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + name.len()) as f32 * 0.37).sin()).collect()
    }

    fn uniform(&mut self, name: &str, count: usize) -> Vec<f32> {
        self.normal(name, count)
    }
}

fn main() -> Result<(), ModelError> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |at: usize, otherwise: usize| -> usize {
        arguments.get(at).and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    };
    let segmented = match arguments.first().map(String::as_str) {
        Some("whole") => false,
        Some("segmented") => true,
        _ => return Err(ModelError::input("first argument", "whole or segmented")),
    };
    let (layers, hidden, rows, steps) = (number(1, 12), number(2, 768), number(3, 4), number(4, 5));
    let (width, embed_dim, patches, length) = SIZES;
    let device = Device::flex().autodiff();
    let config = QFormerConfig::new(width)
        .with_layers(layers)
        .with_hidden(hidden)
        .with_heads(hidden / 64)
        .with_intermediate(4 * hidden);
    let mut model = ContrastModel::new(&config, embed_dim, 1e-5, &device)?;
    model.initialise(0.07, &mut Wave, None, &device)?;
    let layout = FlatLayout::of(&mut model)?;
    let parts = GradientBuckets::of(&layout, BUCKET_ELEMENTS);
    let features = Tensor::<1, Int>::arange(0..(rows * patches * width) as i64, &Device::flex());
    let features = (features.float() * 0.61).sin().reshape([rows, patches, width]);
    let ids: Vec<i32> = (0..rows * length).map(|at| 1000 + at as i32).collect();
    let mask = vec![1; ids.len()];
    let batch = SlotBatch { image_features: features.clone(), ids, mask, text_length: length };

    let mut seconds = Vec::new();
    for step in 0..=steps {
        let started = Instant::now();
        let tape = if segmented { Tape::segmented() } else { Tape::whole() };
        let mut dropout = Dropout::keyed(0.1, step as u32);
        let forward = model.features(batch.clone(), &mut dropout, tape)?;
        let global = GlobalBatch {
            queries: config.queries,
            embed_dim,
            text_length: length,
            image_feats: floats(forward.image_feats.clone().inner())?,
            text_feats: floats(forward.text_feat.clone().inner())?,
            ids: batch.ids.clone(),
            mask: batch.mask.clone(),
        };
        let contrast = global.contrast(model.temperature()?, 0.1, &Device::flex())?;
        let negatives: Vec<usize> = (0..rows).map(|row| (row + 1) % rows).collect();
        let context = SlotContext {
            global: &global,
            contrast: &contrast,
            first_row: 0,
            negative_images: features.clone(),
            negative_texts: &negatives,
            mode: GradientMode::Exact,
            smoothing: 0.1,
            decoder_start: 1,
        };
        let loss = model.slot_loss(forward, &context, &mut dropout)?;
        let mut buffers = parts.buffers();
        loss.tape.backward(loss.objective, |segment, gradients| {
            // What is complete would travel now.
            buffers.take(&mut model, gradients, segment).map(drop)
        })?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    // The first step warms up.
    seconds.remove(0);
    seconds.sort_by(f64::total_cmp);
    let (median, best) = (seconds[seconds.len() / 2], seconds[0]);
    let parameters = layout.len() as f64 / 1e6;
    let count = parts.buckets().len();
    let mode = if segmented { "segmented" } else { "whole" };
    println!(
        "{mode}: {parameters:.0}M parameters, {count} parts: median {median:.3} s, best {best:.3} s{}",
        peak()
    );
    Ok(())
}

/// The process's peak memory, where the system tells it.
fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or_else(String::new, |peak| format!(", peak memory {}", peak.trim()))
}
