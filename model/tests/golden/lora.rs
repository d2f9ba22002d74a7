//! Adapters of all families against `peft`: scores, loss, and the gradients of both matrices.

use std::path::PathBuf;

use blip2_model::adapters::{AdapterSizes, Adapters};
use blip2_model::language::{LanguageModel, Texts};
use blip2_model::padded::Padded;
use blip2_tensors::device::read_back::floats;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::train::flat::FlatLayout;
use blip2_tensors::train::loss::Loss;
use burn::tensor::Tensor;
use serde_json::Value;

use crate::fixture::{
    ACTIVATION_TOLERANCE, Fixture, Tensors, assert_relative, cases, device, largest_difference,
};
use crate::huggingface::parts;

/// Largest difference of the loss, relative to it.
const LOSS_TOLERANCE: f64 = 1e-6;

/// How the names of an adapter begin in `peft`'s files.
const PEFT: &str = "base_model.model.";

struct Case {
    fixture: Fixture,
    golden: Tensors,
    base: LanguageModel,
    adapters: Adapters,
    layout: FlatLayout,
    values: Vec<f32>,
}

/// All families of all cases; the models of OPT and T5 are those of the cases of `transformers`.
fn all() -> Vec<Case> {
    let families =
        |case: Fixture| ["opt", "t5", "llama"].map(|family| Case::open(case.part(family).unwrap()));
    cases("lora-").into_iter().flat_map(families).collect()
}

impl Case {
    fn open(fixture: Fixture) -> Self {
        let config = fixture.json("adapter_config.json");
        let folder: PathBuf = match fixture.name().as_str() {
            "llama" => fixture.folder().into(),
            family => parts(&format!("blip2-{family}")).remove(0).folder().into(),
        };
        let mut base = LanguageModel::open(&folder, device()).unwrap();
        let targets = config["target_modules"].as_array().unwrap().iter();
        let sizes = AdapterSizes {
            rank: config["r"].as_u64().unwrap() as usize,
            alpha: config["lora_alpha"].as_f64().unwrap(),
            targets: targets.map(|target| target.as_str().unwrap().to_owned()).collect(),
        };
        let adapters = Adapters::new(&mut base, &sizes, &device()).unwrap();
        let mut case = Self {
            golden: fixture.tensors("golden.safetensors"),
            layout: FlatLayout::of(&mut adapters.clone()).unwrap(),
            values: Vec::new(),
            fixture,
            base,
            adapters,
        };
        let stored = case.fixture.tensors("adapter_model.safetensors");
        assert_eq!(stored.len(), case.layout.tensors().len());
        case.values = case.in_layout(&stored, PEFT);
        case
    }

    /// The values of tensors that are called as the adapters' are, behind `before`.
    fn in_layout(&self, of: &Tensors, before: &str) -> Vec<f32> {
        let prefix = format!("{}.", self.base.prefix());
        let named = |name: &str| of.find(&format!("{before}{}", name.strip_prefix(&prefix).unwrap()));
        let tensors = self.layout.tensors().iter();
        tensors.flat_map(|tensor| named(&tensor.name).unwrap_or_else(|| panic!("{}", tensor.name))).collect()
    }

    fn loss(&self, model: &LanguageModel, prompt: Tensor<3>) -> Loss {
        let rows = prompt.dims()[0];
        let [prefix, text] = ["prefix", "text"].map(|part| self.golden.ints(part));
        let (labels, ones) = (self.golden.ints("labels"), vec![1; prefix.len().max(text.len())]);
        let prefix = Padded { ids: &prefix, mask: &ones[..prefix.len()] };
        let text = Padded { ids: &text, mask: &ones[..text.len()] };
        let texts = Texts { rows, prefix, text, labels: &labels, weights: &[] };
        model.caption_loss(Some(prompt), &texts, &device()).unwrap()
    }

    /// Scores of the text, where the model reads prompt and prefix before it.
    fn scores(&self, model: &LanguageModel) -> Tensor<3> {
        let read = |part: &str| model.embed(self.golden.int_tensor(part));
        let before = Tensor::cat(vec![self.golden.tensor("prompt"), read("prefix")], 1);
        let [rows, length, _] = before.dims();
        let ones = |length| Tensor::ones([rows, length], &device());
        let text = self.golden.int_tensor::<2>("text");
        let written = text.dims()[1];
        match model.decoder_start() {
            Some(start) => {
                let labels = self.golden.int_tensor::<2>("labels").clamp_min(0);
                let start = Tensor::full([rows, 1], start as i32, &device());
                let shifted = Tensor::cat(vec![start, labels], 1).narrow(1, 0, written);
                model.scores_of_written(before, ones(length), shifted).unwrap()
            }
            None => {
                let inputs = Tensor::cat(vec![before, read("text")], 1);
                let all = model.forward(inputs, ones(length + written)).unwrap();
                all.narrow(1, length - 1, written)
            }
        }
    }

    fn adapted(&self, device: &burn::tensor::Device) -> (Adapters, LanguageModel) {
        let mut adapters = self.adapters.clone();
        self.layout.write(&mut adapters, &self.values, device).unwrap();
        let adapted = adapters.applied(&self.base, &mut Dropout::off()).unwrap();
        (adapters, adapted)
    }
}

#[test]
fn adapters_and_what_they_are_merged_to_score_as_peft() {
    for case in all() {
        let (adapters, adapted) = case.adapted(&device());
        let (_, want) = case.golden.values::<3>("logits");
        // Scores of T5 are some twenty times as large as those of the others.
        let largest = want.iter().fold(1.0, |most: f64, score| most.max(f64::from(score.abs())));
        let merged = adapters.merged(case.base.clone()).unwrap();
        for (what, model) in [("adapted", &adapted), ("merged", &merged)] {
            let apart = largest_difference(&floats(case.scores(model)).unwrap(), &want);
            assert!(apart < ACTIVATION_TOLERANCE * largest, "{} {what}: {apart}", case.fixture.name());
        }
        let plain = largest_difference(&floats(case.scores(&case.base)).unwrap(), &want);
        assert!(plain > 0.1, "{}: without adapters it is another model, by {plain}", case.fixture.name());
    }
}

#[test]
fn losses_and_gradients_are_those_of_peft() {
    for case in all() {
        let name = case.fixture.name();
        let (mut adapters, adapted) = case.adapted(&device().autodiff());
        let prompt = Tensor::<3>::from_inner(case.golden.tensor("prompt")).require_grad();
        let loss = case.loss(&adapted, prompt.clone());
        let (got, want) = (loss.value.read().unwrap(), case.fixture.json("golden.json")["loss"].clone());
        let want = Value::as_f64(&want).unwrap();
        assert!((got / want - 1.0).abs() < LOSS_TOLERANCE, "{name}: {got}, peft {want}");
        let mut gradients = loss.objective.backward();
        let of_prompt = floats(prompt.grad_remove(&mut gradients).unwrap()).unwrap();
        assert_relative(&name, "prompt", &of_prompt, &case.golden.find("grad.prompt").unwrap());
        let got = crate::fixture::gradients_of(&mut adapters, &case.layout, &mut gradients);
        let want = case.in_layout(&case.golden, "grad.");
        for tensor in case.layout.tensors() {
            assert_relative(&name, &tensor.name, &got[tensor.range()], &want[tensor.range()]);
        }
    }
}
