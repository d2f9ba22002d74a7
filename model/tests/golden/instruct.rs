//! A question in the Q-Former, with the image encoder trained, against InstructBLIP of `transformers`.

use blip2_model::blip2::{Blip2, PublishedQFormer};
use blip2_model::language::LanguageModel;
use blip2_model::language::generation::GenerateOptions;
use blip2_model::objectives::generate::GenerateModel;
use blip2_model::padded::Padded;
use blip2_model::trained_encoder::{EncoderForward, TrainedEncoder, WithEncoder};
use blip2_model::vision::ImageEncoder;
use blip2_model_files::error::ModelError;
use blip2_model_files::weights::{NameStyle, WeightSource, load};
use blip2_tensors::device::read_back::floats;
use blip2_tensors::nn::drop_path::DropPath;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::train::buckets::GradientBuckets;
use blip2_tensors::train::flat::FlatLayout;
use blip2_tensors::train::loss::{IGNORED, counted};
use blip2_tensors::train::tape::{Segment, Tape};
use burn::tensor::{Gradients, Int, Tensor, TensorData};
use serde_json::Value;

use crate::fixture::{
    ACTIVATION_TOLERANCE, Fixture, GRADIENT_TOLERANCE, Tensors, assert_close, assert_within, cases, device,
    is_cpu, largest_difference,
};
use crate::huggingface::{GoldenTexts, ids};

/// Largest difference of a row's loss, which is a sum over tokens.
const LOSS_TOLERANCE: f64 = 2e-5;

/// How much further from the reference the case with T5 may be on other devices than on the CPU. Its scores
/// are not scaled, so that its softmax passes on what `exp` rounds: the CPU's logits, of 3.4 at most, are
/// 2.3e-5 from the reference's, those of a driver whose `exp` is good to 1e-6 are 7.0e-5.
const T5_ON_DEVICES: f64 = 2.0;

struct Case {
    fixture: Fixture,
    golden: Tensors,
    json: Value,
    language: LanguageModel,
    model: WithEncoder<GenerateModel>,
    layout: FlatLayout,
    texts: GoldenTexts,
    question_ids: Vec<i32>,
    question_mask: Vec<i32>,
}

/// Both families of all cases.
fn all() -> Vec<Case> {
    let families = |case: Fixture| ["opt", "t5"].map(|family| Case::open(case.part(family).unwrap()));
    cases("instruct-").into_iter().flat_map(families).collect()
}

impl Case {
    fn open(fixture: Fixture) -> Self {
        let (golden, json) = (fixture.tensors("golden.safetensors"), fixture.json("golden.json"));
        let language = LanguageModel::open(fixture.folder(), device()).unwrap();
        let encoder = ImageEncoder::open(fixture.folder(), device()).unwrap();
        let PublishedQFormer { config, ln_vision_eps, .. } =
            PublishedQFormer::of_folder(fixture.folder()).unwrap().unwrap();
        let device = device().autodiff();
        let mut model =
            GenerateModel::reading_questions(&config, ln_vision_eps, language.width(), &device).unwrap();
        let source = WeightSource::open(fixture.folder(), NameStyle::hugging_face()).unwrap();
        load(&mut model, "", &source, &device).unwrap();
        let mut model = WithEncoder { encoder: TrainedEncoder::new(encoder).unwrap(), model };
        let layout = FlatLayout::of(&mut model).unwrap();
        let image = fixture.json("config.json")["image_token_index"].as_u64().unwrap() as u32;
        let texts = GoldenTexts::read(&golden, config.queries, image, language.is_encoder_decoder());
        let (question_ids, question_mask) =
            (golden.ints("qformer_input_ids"), golden.ints("qformer_attention_mask"));
        Self { fixture, golden, json, language, model, layout, texts, question_ids, question_mask }
    }

    fn images(&self) -> EncoderForward {
        self.model.encoder.forward(self.golden.tensor("pixel_values"), DropPath::off()).unwrap()
    }

    fn questions(&self) -> Padded<'_> {
        Padded { ids: &self.question_ids, mask: &self.question_mask }
    }

    fn numbers(&self, name: &str) -> Vec<f64> {
        self.json[name].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
    }

    /// The gradient of the rows' losses times `weights` with their sum, and each row's loss.
    fn gradient(&mut self, weights: &[f64]) -> (Vec<f64>, Vec<f32>) {
        let (images, mut tape) = (self.images(), Tape::segmented());
        let leaf = images.leaf();
        let questions = self.questions();
        let prompt =
            self.model.model.forward_asked(leaf.clone(), questions, &mut Dropout::off(), &mut tape).unwrap();
        let (mut losses, mut objective) = (Vec::new(), None);
        for (row, weight) in weights.iter().enumerate() {
            let loss = self.texts.row(row).loss(&self.language, prompt.clone().narrow(0, row, 1));
            losses.push(loss.value.read().unwrap());
            let share = loss.objective * *weight;
            objective = Some(match objective {
                Some(sum) => sum + share,
                None => share,
            });
        }
        let buckets = GradientBuckets::of(&self.layout, 1);
        let (mut buffers, mut flat, mut of_features) =
            (buckets.buffers(), vec![0.0; self.layout.len()], None);
        let encoder = self.model.encoder.clone();
        let mut collect = |segment, gradients: &mut Gradients| {
            if segment == Segment::Inputs {
                of_features = leaf.grad_remove(gradients);
            }
            for (bucket, values) in buffers.take(&mut self.model, gradients, segment)? {
                buckets.buckets()[bucket].copy_into(&values, &mut flat);
            }
            Ok::<_, ModelError>(())
        };
        tape.backward(objective.unwrap(), &mut collect).unwrap();
        let of_features = of_features.unwrap();
        let mut collect = |segment, gradients: &mut Gradients| {
            for (bucket, values) in buffers.take(&mut self.model, gradients, segment)? {
                buckets.buckets()[bucket].copy_into(&values, &mut flat);
            }
            Ok::<_, ModelError>(())
        };
        encoder.backward(images, of_features, &mut collect).unwrap();
        (losses, flat)
    }

    /// Compares with all gradients that the fixture has of an objective; all of them have a tensor.
    /// How much further from the reference this may be than on the CPU.
    fn slack(&self) -> f64 {
        if is_cpu() || !self.language.is_encoder_decoder() { 1.0 } else { T5_ON_DEVICES }
    }

    fn assert_gradients(&self, objective: &str, got: &[f32]) {
        let prefix = format!("grad.{objective}.");
        let what = format!("{} {objective}", self.fixture.name());
        let mut compared = 0;
        for tensor in self.layout.tensors() {
            let spellings = NameStyle::hugging_face().spellings(&tensor.name);
            let find = |spelling: &String| self.golden.find(&format!("{prefix}{spelling}"));
            let Some(want) = spellings.iter().find_map(find) else { continue };
            let tolerance = self.slack() * GRADIENT_TOLERANCE;
            assert_within(tolerance, &what, &tensor.name, &got[tensor.range()], &want);
            compared += 1;
        }
        let wanted = self.golden.names().into_iter().filter(|name| name.starts_with(&prefix)).count();
        assert!(wanted > 0 && compared == wanted, "{what}: {compared} of {wanted}");
    }
}

#[test]
fn queries_beside_a_question_and_what_the_language_model_makes_of_them() {
    for case in all() {
        let (golden, generate) = (&case.golden, &case.model.model);
        let features = case.images().features;
        let normed = generate.ln_vision.forward(features.clone()).inner();
        assert_close(&case.fixture, "vision", normed, golden.values("vision"));
        let (dropout, tape) = (&mut Dropout::off(), &mut Tape::whole());
        let alone = generate.query_output(features.clone(), dropout, tape).unwrap().inner();
        let without = golden.values("qformer_without_question");
        assert_close(&case.fixture, "qformer_without_question", alone, without);
        let asked = generate.query_output_asked(features.clone(), case.questions(), dropout, tape).unwrap();
        let [rows, queries, hidden] = asked.dims();
        let ([_, all, _], values) = golden.values::<3>("qformer");
        let want = values.chunks(all * hidden).flat_map(|row| row[..queries * hidden].iter().copied());
        let want = ([rows, queries, hidden], want.collect());
        assert_close(&case.fixture, "qformer", asked.inner(), want);

        let prompt = generate.forward_asked(features, case.questions(), dropout, tape).unwrap().inner();
        let tensor = |values: &[i32]| -> Tensor<2, Int> {
            let shape = [rows, values.len() / rows];
            Tensor::from_data(TensorData::new(values.to_vec(), shape), &device())
        };
        let text = case.language.embed(tensor(&case.texts.ids));
        let (inputs, mask) = (Tensor::cat(vec![prompt, text], 1), golden.int_tensor("attention_mask"));
        let (shape, want) = golden.values::<3>("logits");
        let logits = match case.language.decoder_start() {
            Some(start) => {
                let written = tensor(&case.texts.written);
                let length = written.dims()[1];
                let start = Tensor::full([rows, 1], start as i32, &device());
                let written = Tensor::cat(vec![start, written], 1).narrow(1, 0, length);
                case.language.scores_of_written(inputs, mask, written).unwrap()
            }
            None => case.language.forward(inputs, mask).unwrap(),
        };
        assert_eq!(logits.dims(), shape, "{}", case.fixture.name());
        // What follows an answer is padding, which the reference masks in its decoder.
        let labels = golden.ints("labels");
        let counts = |row: usize| !case.language.is_encoder_decoder() || labels[row] != IGNORED;
        let counted = |values: &[f32]| -> Vec<f32> {
            let rows = values.chunks(shape[2]).enumerate().filter(|(row, _)| counts(*row));
            rows.flat_map(|(_, row)| row.iter().copied()).collect()
        };
        let difference = largest_difference(&counted(&floats(logits).unwrap()), &counted(&want));
        let allowed = case.slack() * ACTIVATION_TOLERANCE;
        assert!(difference < allowed, "{}: logits differ by {difference}", case.fixture.name());
    }
}

#[test]
fn more_padding_of_the_questions_changes_nothing() {
    for case in all() {
        let features = case.images().features;
        let output = |questions: Padded<'_>| {
            let (dropout, tape) = (&mut Dropout::off(), &mut Tape::whole());
            let output = case.model.model.query_output_asked(features.clone(), questions, dropout, tape);
            floats(output.unwrap().inner()).unwrap()
        };
        let longer = |values: &[i32], padding: i32| -> Vec<i32> {
            let length = values.len() / case.texts.rows;
            values.chunks(length).flat_map(|row| [row, &[padding; 3]].concat()).collect()
        };
        let (ids, mask) = (longer(&case.question_ids, 0), longer(&case.question_mask, 0));
        let padded = output(Padded { ids: &ids, mask: &mask });
        let difference = largest_difference(&padded, &output(case.questions()));
        assert!(difference < 1e-6, "{}: {difference}", case.fixture.name());
    }
}

#[test]
fn losses_and_gradients_by_token_and_by_answer() {
    for mut case in all() {
        let tokens = counted(&case.texts.labels) as f64;
        let (losses, gradient) = case.gradient(&vec![1.0 / tokens; case.texts.rows]);
        case.assert_gradients("token_mean", &gradient);
        let near = |name: &str, got: f64, want: f64| {
            let far = (got - want).abs();
            assert!(far < LOSS_TOLERANCE * want.abs().max(1.0), "{name}: {got}, reference {want}");
        };
        for (row, (got, want)) in losses.iter().zip(case.numbers("row_sum")).enumerate() {
            near("row_sum", *got, want);
            let count = counted(&case.texts.row(row).labels) as f64;
            near("row_mean", got / count, case.numbers("row_mean")[row]);
        }
        let mean = losses.iter().sum::<f64>() / tokens;
        near("loss_token_mean", mean, case.json["loss_token_mean"].as_f64().unwrap());

        let questions = case.numbers("picture_of_row").into_iter().fold(0.0, f64::max) + 1.0;
        let weights: Vec<f64> =
            case.numbers("answer_weights").into_iter().map(|weight| weight / questions).collect();
        let (losses, gradient) = case.gradient(&weights);
        case.assert_gradients("answer_weighted", &gradient);
        let weighted: f64 = losses.iter().zip(&weights).map(|(loss, weight)| loss * weight).sum();
        near("loss_answer_weighted", weighted, case.json["loss_answer_weighted"].as_f64().unwrap());
        // All rows at once, each with its weight.
        let (features, weights) = (case.images().features, weights.iter().map(|weight| *weight as f32));
        let (dropout, tape) = (&mut Dropout::off(), &mut Tape::whole());
        let prompt = case.model.model.forward_asked(features, case.questions(), dropout, tape).unwrap();
        let at_once = case.texts.weighted_loss(&case.language, prompt, &weights.collect::<Vec<_>>());
        near("loss_answer_weighted at once", at_once.value.read().unwrap(), weighted);
    }
}

/// The folder of InstructBLIP as a whole writes what `transformers` does, whatever the search.
#[test]
fn the_whole_model_writes_the_same_tokens() {
    for case in all() {
        let model = Blip2::open(case.fixture.folder(), device()).unwrap();
        assert!(model.reads_questions());
        let (encoder_decoder, queries) =
            (model.language_model().is_encoder_decoder(), model.qformer_config().queries);
        let features = model.encoder().forward(case.golden.tensor("pixel_values")).unwrap();
        let rows = case.numbers("picture_of_row");
        let searches = case.json["generate"].as_array().unwrap();
        assert!(searches.len() >= 12, "greedy and three beam searches of each image");
        for search in searches {
            let number = |name: &str| search[name].as_f64();
            let options = GenerateOptions {
                beams: number("num_beams").unwrap() as usize,
                max_new_tokens: number("max_new_tokens").unwrap() as usize,
                min_new_tokens: number("min_new_tokens").unwrap_or_default() as usize,
                length_penalty: number("length_penalty").unwrap_or(1.0),
                eos: model.tokens().eos.clone(),
                ..GenerateOptions::default()
            };
            let row = rows.iter().position(|picture| Some(*picture) == number("picture")).unwrap();
            let question: Vec<i32> = ids(&search["question"]).into_iter().map(|id| id as i32).collect();
            let questions = Padded { ids: &question, mask: &vec![1; question.len()] };
            let soft = model.soft_prompt_asked(features.clone().narrow(0, row, 1), questions).unwrap();
            let prompt = ids(&search["prompt"])[queries..].to_vec();
            let given = if encoder_decoder { 1 } else { queries + prompt.len() };
            let mut want = ids(&search["tokens"])[given..].to_vec();
            if let Some(end) = want.iter().position(|token| options.eos.contains(token)) {
                want.truncate(end + 1);
            }
            let written = model.generate_from(soft, &[prompt], &options, &|_| false).unwrap();
            assert_eq!(written, [want], "{}: {search}", case.fixture.name());
        }
    }
}
