//! Llama once more, in float64 and one number at a time, to compare with.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Int, Tensor};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;

use super::{Llama, LlamaConfig, RopeScaling};
use crate::language::family;
use blip2_tensors::device::read_back::floats;

/// Published names, shapes and values.
struct Weights(BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl Weights {
    fn of(config: &LlamaConfig) -> Self {
        let (width, inner) = (config.width, config.intermediate);
        let (queries, keys) = (config.heads * config.head_width(), config.key_heads() * config.head_width());
        let mut shapes = vec![
            ("model.embed_tokens.weight".to_string(), vec![config.vocab_size, width]),
            ("model.norm.weight".to_string(), vec![width]),
        ];
        for layer in 0..config.depth {
            for (name, shape) in [
                ("input_layernorm", vec![width]),
                ("post_attention_layernorm", vec![width]),
                ("self_attn.q_proj", vec![queries, width]),
                ("self_attn.k_proj", vec![keys, width]),
                ("self_attn.v_proj", vec![keys, width]),
                ("self_attn.o_proj", vec![width, queries]),
                ("mlp.gate_proj", vec![inner, width]),
                ("mlp.up_proj", vec![inner, width]),
                ("mlp.down_proj", vec![width, inner]),
            ] {
                shapes.push((format!("model.layers.{layer}.{name}.weight"), shape));
            }
        }
        if !config.tie_word_embeddings {
            shapes.push(("lm_head.weight".into(), vec![config.vocab_size, width]));
        }
        let mut seed = 0.0_f64;
        let mut next = || {
            seed += 0.7311;
            (seed.sin() * 0.8) as f32
        };
        let named = shapes.into_iter().map(|(name, shape)| {
            let values = (0..shape.iter().product()).map(|_| next()).collect();
            (name, (shape, values))
        });
        Self(named.collect())
    }

    fn write(&self, folder: &Path) {
        let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = (self.0.iter())
            .map(|(name, (shape, values))| {
                (name, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
            })
            .collect();
        let views = bytes.iter().map(|(name, shape, bytes)| {
            (name.as_str(), TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap())
        });
        safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
    }

    fn vector(&self, name: &str) -> Vec<f64> {
        self.0[name].1.iter().map(|value| f64::from(*value)).collect()
    }

    /// `W·x` with the matrix called `name`.
    fn map(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let matrix = self.vector(&format!("{name}.weight"));
        matrix.chunks(x.len()).map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
    }

    fn norm(&self, name: &str, x: &[f64], epsilon: f64) -> Vec<f64> {
        let size = (x.iter().map(|value| value * value).sum::<f64>() / x.len() as f64 + epsilon).sqrt();
        let scale = self.vector(&format!("{name}.weight"));
        x.iter().zip(scale).map(|(value, scale)| value / size * scale).collect()
    }
}

/// The head's vector as complex numbers, each turned by its own angle.
fn turned(head: &[f64], position: usize, config: &LlamaConfig) -> Vec<f64> {
    let slower = match config.rope_scaling {
        Some(RopeScaling::Linear { factor }) => factor,
        _ => 1.0,
    };
    let half = head.len() / 2;
    let mut out = vec![0.0; head.len()];
    for i in 0..half {
        let angle = position as f64 / slower / config.rope_theta.powf(2.0 * i as f64 / head.len() as f64);
        let (sin, cos) = angle.sin_cos();
        out[i] = head[i] * cos - head[i + half] * sin;
        out[i + half] = head[i] * sin + head[i + half] * cos;
    }
    out
}

/// Scores of every next token at every position.
fn logits(config: &LlamaConfig, weights: &Weights, ids: &[usize]) -> Vec<f64> {
    let (epsilon, size) = (config.rms_norm_eps, config.head_width());
    let table = weights.vector("model.embed_tokens.weight");
    let row = |id: usize| table[id * config.width..(id + 1) * config.width].to_vec();
    let mut x: Vec<Vec<f64>> = ids.iter().map(|id| row(*id)).collect();
    for layer in 0..config.depth {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let normed: Vec<_> = x.iter().map(|x| weights.norm(&name("input_layernorm"), x, epsilon)).collect();
        let heads = |part: &str, rotate: bool| -> Vec<Vec<Vec<f64>>> {
            let turn = |position: usize, head: &[f64]| match rotate {
                true => turned(head, position, config),
                false => head.to_vec(),
            };
            let of = |(position, x): (usize, &Vec<f64>)| {
                let all = weights.map(&name(part), x);
                all.chunks(size).map(|head| turn(position, head)).collect()
            };
            normed.iter().enumerate().map(of).collect()
        };
        let (queries, keys, values) = (
            heads("self_attn.q_proj", true),
            heads("self_attn.k_proj", true),
            heads("self_attn.v_proj", false),
        );
        for position in 0..x.len() {
            let mut attended = Vec::new();
            for (head, query) in queries[position].iter().enumerate() {
                let shared = head * config.key_heads() / config.heads;
                let score = |key: &Vec<Vec<f64>>| -> f64 {
                    let product: f64 = query.iter().zip(&key[shared]).map(|(a, b)| a * b).sum();
                    (product / (size as f64).sqrt()).exp()
                };
                let scores: Vec<f64> = keys[..=position].iter().map(score).collect();
                let sum: f64 = scores.iter().sum();
                attended.extend((0..size).map(|i| {
                    scores.iter().zip(&values).map(|(s, value)| s / sum * value[shared][i]).sum::<f64>()
                }));
            }
            let output = weights.map(&name("self_attn.o_proj"), &attended);
            x[position].iter_mut().zip(output).for_each(|(x, output)| *x += output);
            let normed = weights.norm(&name("post_attention_layernorm"), &x[position], epsilon);
            let gate = weights.map(&name("mlp.gate_proj"), &normed);
            let up = weights.map(&name("mlp.up_proj"), &normed);
            let inner: Vec<f64> = gate.iter().zip(up).map(|(g, up)| g / (1.0 + (-g).exp()) * up).collect();
            let output = weights.map(&name("mlp.down_proj"), &inner);
            x[position].iter_mut().zip(output).for_each(|(x, output)| *x += output);
        }
    }
    let head = if config.tie_word_embeddings { "model.embed_tokens" } else { "lm_head" };
    x.iter().flat_map(|x| weights.map(head, &weights.norm("model.norm", x, epsilon))).collect()
}

fn compare(config: &LlamaConfig) {
    let folder = tempfile::tempdir().unwrap();
    let weights = Weights::of(config);
    weights.write(folder.path());
    let mut section = serde_json::to_value(config).unwrap();
    section["model_type"] = json!("llama");
    std::fs::write(folder.path().join("config.json"), section.to_string()).unwrap();
    let model = family::open::<Llama>(folder.path(), &Device::flex()).unwrap();
    assert_eq!(model.config(), config);

    let ids = [1, 7, 3, 3, 10, 2, 9];
    let input: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
    let input = Tensor::<1, Int>::from_ints(input.as_slice(), &Device::flex()).unsqueeze::<2>();
    let mask = Tensor::ones([1, ids.len()], &Device::flex());
    let got = floats(model.forward(model.embed(input), mask).unwrap()).unwrap();
    let want = logits(config, &weights, &ids);
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    assert!(largest > 0.1, "the reference says nothing: {largest}");
    for (index, (got, want)) in got.iter().zip(&want).enumerate() {
        let difference = (f64::from(*got) - want).abs();
        assert!(difference < 2e-5 * largest, "score {index} is {got}, the reference says {want}");
    }
}

#[test]
fn scores_equal_those_in_float64() {
    let shared_keys = LlamaConfig {
        width: 12,
        depth: 3,
        heads: 6,
        key_heads: Some(2),
        head_width: Some(4),
        intermediate: 20,
        vocab_size: 11,
        max_position_embeddings: 16,
        rope_theta: 100.0,
        ..LlamaConfig::default()
    };
    compare(&shared_keys);
    compare(&LlamaConfig { rope_scaling: Some(RopeScaling::Linear { factor: 4.0 }), ..shared_keys.clone() });
    let own_keys = LlamaConfig {
        heads: 3,
        key_heads: None,
        head_width: None,
        tie_word_embeddings: true,
        rope_theta: 10_000.0,
        ..shared_keys
    };
    compare(&own_keys);
}
