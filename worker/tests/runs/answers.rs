//! Questions on images are learned.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use blip2_collective::{Exchange, Limits, Member, World};
use blip2_dataset::corpus::manifest::Manifest;
use blip2_dataset::corpus::samples::{Sample, read_first};
use blip2_evaluation::captioning::Captioner;
use blip2_evaluation::writing::{Asked, ImageWriter as _};
use blip2_images::RgbImage;
use blip2_model::blip2::Blip2;
use blip2_model::language::generation::GenerateOptions;
use blip2_model_files::weights::{NameStyle, WeightSource, is_of_adapter};
use blip2_proto::transport::Transport;
use blip2_tensors::train::flat::FlatLayout;
use blip2_worker::evaluate::{Evaluator, Scores};
use blip2_worker::export::{ExportOptions, Layout, export};
use blip2_worker::settings::lora::LoraSettings;
use blip2_worker::step::Peers;
use blip2_worker::task::TaskSettings;
use blip2_worker::{BatchRange, NamedState, Place, TrainState, WorkerConfig, check, start_loader};
use burn::tensor::Device;

use crate::{asked, instructed};

const DEADLINE: Duration = Duration::from_secs(60);

/// Steps of the run, and after how many of them it is looked which answers are right: when few are sure, and
/// at the end.
const STEPS: u64 = 640;
const LOOKED_AT: u64 = 160;

#[test]
fn one_word_answers_to_questions_on_64_images_are_learned() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = asked::config(folder.path(), "backbones/opt-tiny", 2, 8);
    config.model.qformer.dropout = 0.0;
    let stage = config.stages.last_mut().unwrap();
    if let TaskSettings::Vqa(vqa) = &mut stage.task {
        // The longer question has 18 tokens with its prompt: padding costs time.
        (vqa.prompt_length, vqa.answer_length) = (20, 3);
    }
    stage.steps = STEPS;
    (stage.optimizer.learning_rate, stage.optimizer.warmup_steps) = (2e-3, 20);
    (config.eval.data, config.eval.rows, config.eval.every_steps) =
        (config.data.train.clone(), 64, LOOKED_AT);
    let looks = looks(&config);
    let accuracies: Vec<f64> = looks.iter().map(|(accuracy, _)| *accuracy).collect();
    let (unsure, begun) = &looks[0];
    answers_of_an_evaluation_are_those_of_the_run(&config, begun, *unsure);
    let (learned, ended) = looks.last().unwrap();
    assert!(*learned == 1.0 && *unsure < 0.9, "{accuracies:?}");
    answers_depend_on_the_image(&config, ended);
}

/// Rows of the run's questions, and what answers them.
struct Asker {
    rows: Vec<Sample>,
    images: Vec<RgbImage>,
    asked: Vec<Asked>,
}

impl Asker {
    fn new(config: &WorkerConfig) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let columns = &config.data.columns;
        let rows = read_first(&config.data.train, columns, config.data.max_pixels, 64, Some);
        let (rows, _) = runtime.block_on(rows).unwrap();
        let images = rows.iter().map(|row| row.image.clone()).collect();
        let text = |row: &Sample| row.question.as_ref().unwrap().text.clone();
        let asked = rows.iter().map(|row| Asked { prompt: String::new(), question: text(row) }).collect();
        Self { rows, images, asked }
    }

    /// What a checkpoint answers to each question on the image of this row, so many at a time.
    fn answers(
        &self,
        config: &WorkerConfig,
        stored: &NamedState,
        images: &[usize],
        batch: usize,
    ) -> Vec<String> {
        let stage = config.first_stage().unwrap();
        let answerer = Evaluator::open(config).unwrap().answerer(&stage, stored, batch).unwrap();
        assert_eq!(answerer.own_prompt().as_deref(), Some("Question: {} Answer:"));
        let options = GenerateOptions { max_new_tokens: 3, ..GenerateOptions::default() };
        let texts = answerer.texts(&self.images, images, &self.asked, &options.into()).unwrap();
        assert_eq!(texts.len(), 64);
        texts.into_iter().map(|text| text.text).collect()
    }

    /// How many of the answers are right.
    fn right(&self, answers: &[String]) -> usize {
        let expected = self.rows.iter().map(|row| row.question.as_ref().unwrap().answers.most_frequent());
        expected.zip(answers).filter(|(expected, answer)| expected == answer).count()
    }
}

/// What the run measures beside its steps is what is answered where sets are evaluated, to the letter, and
/// whatever else is answered at the same time.
fn answers_of_an_evaluation_are_those_of_the_run(config: &WorkerConfig, stored: &NamedState, accuracy: f64) {
    let asker = Asker::new(config);
    let own: Vec<usize> = (0..64).collect();
    let answers = asker.answers(config, stored, &own, 10);
    assert_eq!(asker.right(&answers) as f64 / 64.0, accuracy);
    // Alone nothing is padded; among others the shorter of the two questions is.
    assert_eq!(asker.answers(config, stored, &own, 1), answers);
    let stage = config.first_stage().unwrap();
    let scores = Evaluator::open(config).unwrap().scores(&stage, stored, &asker.rows).unwrap();
    let Scores::Answers(scores) = scores else { panic!("{scores:?}") };
    let written: Vec<String> = scores.written.into_iter().map(|written| written.text).collect();
    assert_eq!((written, scores.accuracy), (answers, accuracy));
}

/// Of the image of the row after the next, of which the same is asked, its own word is answered and no other.
fn answers_depend_on_the_image(config: &WorkerConfig, stored: &NamedState) {
    let asker = Asker::new(config);
    let other: Vec<usize> = (0..64).map(|row| (row + 2) % 64).collect();
    let answers = asker.answers(config, stored, &other, 64);
    assert_eq!(asker.right(&answers), 0, "{answers:?}");
    let own = |row: usize| asker.rows[row].question.as_ref().unwrap().answers.most_frequent();
    assert!(other.iter().zip(&answers).all(|(row, answer)| own(*row) == answer), "{answers:?}");
}

/// The accuracies on the held-out rows, each with the state that it is of.
fn looks(config: &WorkerConfig) -> Vec<(f64, NamedState)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let manifest = runtime.block_on(Manifest::open(&config.data.train, &config.data.columns)).unwrap();
    let bind =
        Exchange::bind("127.0.0.1:0".parse().unwrap(), "token".into(), Limits::default(), Transport::plain());
    let exchange = runtime.block_on(bind).unwrap();
    let alone = Member { id: 0, address: exchange.local_addr().to_string(), slots: 0..config.train.slots };
    let world = World { epoch: 1, rank: 0, members: vec![alone] };
    exchange.set_world(world.clone());
    let frozen = config.frozen_models().unwrap();
    let mut state = TrainState::fresh(config, frozen.sizes, &frozen.device.clone().autodiff()).unwrap();
    let stage = config.first_stage().unwrap();
    let steps = stage.settings.steps;
    let held_out = runtime.block_on(frozen.read_held_out(config, &stage)).unwrap();
    let range = BatchRange { stage, first_step: 0, slots: 0..config.train.slots };
    let loader = start_loader(config, &frozen, Arc::new(manifest), runtime.handle().clone(), range).unwrap();
    let mut looks = Vec::new();
    for step in 0..steps {
        let batch = loader.next(DEADLINE).unwrap();
        let peers =
            Peers { exchange: &exchange, runtime: runtime.handle(), world: &world, step, deadline: DEADLINE };
        let mut gradient = frozen.gradient(&mut state, &peers, step, &batch).unwrap();
        let mut accuracy = None;
        if (step + 1) % LOOKED_AT == 0 {
            // Of the state that the step leads to.
            let values = frozen.evaluate(Ok(&held_out), &state, &peers, step, &gradient).unwrap();
            let found = values.iter().find(|(name, _)| *name == "eval_accuracy");
            accuracy = Some(found.unwrap_or_else(|| panic!("{values:?}")).1);
        }
        frozen.apply(&mut state, step, &mut gradient).unwrap();
        looks.extend(accuracy.map(|accuracy| (accuracy, stored(&state))));
    }
    drop(loader);
    runtime.block_on(exchange.shutdown());
    looks
}

#[test]
fn the_text_half_comes_from_the_first_stage_and_the_rest_from_the_second() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = asked::config(folder.path(), "backbones/opt-tiny", 4, 8);
    let frozen = config.frozen_models().unwrap();
    let device = frozen.device.clone().autodiff();
    let state = TrainState::fresh(&config, frozen.sizes, &device).unwrap();
    let stored = |file: &str| std::fs::read(folder.path().join(file)).unwrap();
    let (first, second) = (stored("stage1.safetensors"), stored("stage2.safetensors"));
    let [first, second] =
        [&first, &second].map(|bytes| safetensors::SafeTensors::deserialize(bytes).unwrap());
    let mut of_first = 0;
    for tensor in state.layout.tensors() {
        let own: Vec<u8> = state.parameters[tensor.range()].iter().flat_map(|v| v.to_le_bytes()).collect();
        let from = second.tensor(&tensor.name).or_else(|_| {
            of_first += 1;
            first.tensor(&tensor.name)
        });
        assert!(from.unwrap().data() == own, "{}", tensor.name);
    }
    assert!(of_first > 4, "word and position tables and each layer's parts: {of_first}");

    let begin =
        |config: &WorkerConfig| TrainState::fresh(config, frozen.sizes, &device).unwrap_err().to_string();
    let vqa = |config: &mut WorkerConfig, text_half: &str| {
        let Some(TaskSettings::Vqa(vqa)) = config.stages.last_mut().map(|stage| &mut stage.task) else {
            panic!("the last stage answers")
        };
        vqa.text_half = text_half.into();
    };
    vqa(&mut config, "");
    let none = begin(&config);
    assert!(none.contains("stages.answer.text_half") && none.contains("Qformer.bert"), "{none}");
    // A file of the second stage has no text half either.
    let second = config.model.init_checkpoint.clone();
    vqa(&mut config, &second);
    assert!(begin(&config).contains("lacks"), "{}", begin(&config));
    vqa(&mut config, "no/such/file.pth");
    assert!(begin(&config).contains("stages.answer.text_half = \"no/such/file.pth\""), "{}", begin(&config));
    config.model.init_checkpoint.clear();
    assert!(begin(&config).contains("model.init_checkpoint"), "{}", begin(&config));
}

/// They begin as nothing, so that no weights need have them.
#[test]
fn a_run_with_adapters_passes_what_is_looked_at_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = asked::config(folder.path(), "backbones/opt-tiny", 4, 8);
    let Some(TaskSettings::Vqa(vqa)) = config.stages.last_mut().map(|stage| &mut stage.task) else {
        panic!("the last stage answers")
    };
    vqa.lora.rank = 2;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let manifest = runtime.block_on(Manifest::open(&config.data.train, &config.data.columns)).unwrap();
    let valid = config.validate().unwrap();
    check(&valid, Arc::new(manifest), runtime.handle().clone(), Place::Elsewhere, DEADLINE).unwrap();
}

/// The state as a checkpoint has it.
fn stored(state: &TrainState) -> NamedState {
    // Any moments will do: they are not exported.
    let parts = ["parameters.", "first_moments.", "second_moments."].map(|kind| asked::weights(state, kind));
    NamedState::decode("test", &parts.map(Into::into)).unwrap()
}

#[test]
fn what_is_trained_to_answer_becomes_a_folder_of_instructblip() {
    for backbone in ["backbones/opt-tiny", "backbones/t5-scenes"] {
        let folder = tempfile::tempdir().unwrap();
        let answers = asked::config(folder.path(), backbone, 4, 8);
        let instructions = instructed::config(folder.path(), backbone, 4, 8);
        for (config, instructs) in [(answers, false), (instructions, true)] {
            let frozen = config.frozen_models().unwrap();
            let state = TrainState::fresh(&config, frozen.sizes, &frozen.device.clone().autodiff()).unwrap();
            let (stage, out) = (config.first_stage().unwrap(), folder.path().join(instructs.to_string()));
            let options = ExportOptions::default();
            export(&config, &stage, &stored(&state), Layout::HuggingFace, &options, &out).unwrap();
            let read = Blip2::open(&out, Device::flex()).unwrap();
            let mut trained = read.trained().clone();
            assert_eq!(FlatLayout::of(&mut trained).unwrap(), state.layout);
            assert!(state.layout.read(&mut trained).unwrap() == state.parameters);
            // Answers end as captions do, what an instruction asks for with the end token.
            let own_end = frozen.language.as_ref().unwrap().model.special_tokens().eos;
            let ends_as_captions = !instructs && backbone.ends_with("opt-tiny");
            assert_eq!(read.tokens().eos == own_end, !ends_as_captions, "{backbone}");
            let captioner = Captioner::open_on(&out, Device::flex()).unwrap();
            let asked = captioner.question("What is this?");
            let word = if backbone.ends_with("t5-scenes") { "Short answer:" } else { "Answer:" };
            let prompt = match instructs {
                true => "what is this?".to_owned(),
                false => format!("Question: what is this? {word}"),
            };
            assert_eq!((asked.prompt, asked.qformer.as_str()), (prompt, "what is this?"));
        }
    }
}

#[test]
fn adapters_of_instructions_are_merged_in_a_folder_or_stand_by_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = instructed::config(folder.path(), "backbones/opt-tiny", 4, 8);
    let Some(TaskSettings::Instruct(instruct)) = config.stages.last_mut().map(|stage| &mut stage.task) else {
        panic!("the last stage instructs")
    };
    instruct.lora = LoraSettings { rank: 2, alpha: 3.0, ..LoraSettings::default() };
    let frozen = config.frozen_models().unwrap();
    let mut state = TrainState::fresh(&config, frozen.sizes, &frozen.device.clone().autodiff()).unwrap();
    let adapters: Vec<_> =
        state.layout.tensors().iter().filter(|tensor| is_of_adapter(&tensor.name)).cloned().collect();
    for (at, value) in adapters.iter().flat_map(|tensor| tensor.range()).enumerate() {
        state.parameters[value] = (at as f32 * 0.7311).sin() * 0.2;
    }
    let (stage, options, state) = (config.first_stage().unwrap(), ExportOptions::default(), stored(&state));
    let write = |layout, name: &str| {
        let out = folder.path().join(name);
        export(&config, &stage, &state, layout, &options, &out).map(|()| out)
    };

    let merged = write(Layout::HuggingFace, "merged").unwrap();
    assert!(Captioner::open_on(&merged, Device::flex()).unwrap().reads_questions());
    let q_proj = adapters[0].name.split(".q_proj").next().unwrap();
    let values = |folder: &Path, map: &str| {
        let source = WeightSource::open_huggingface(folder).unwrap();
        let name = format!("{q_proj}.{map}.weight");
        let width = adapters[0].shape[1];
        source.read(&name, &[width, width]).unwrap()
    };
    let own = Path::new(&config.model.language_model);
    assert_ne!(values(&merged, "q_proj"), values(own, "q_proj"));
    assert_eq!(values(&merged, "k_proj"), values(own, "k_proj"));

    let alone = write(Layout::Peft, "adapter").unwrap();
    let source = WeightSource::open(&alone.join("adapter_model.safetensors"), NameStyle::Lavis).unwrap();
    assert_eq!(source.names().count(), adapters.len());
}
