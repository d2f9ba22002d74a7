//! Folders of InstructBLIP: what is asked is read by the Q-Former too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use blip2_dataset::text::TextEncoding;
use blip2_evaluation::captioning::{Captioner, Decoding, PromptPair};
use blip2_evaluation::image_transform::ImageTransform;
use blip2_evaluation::tokenizer::open_tokenizer;
use blip2_model::blip2::asking::{Asking, QFormerReads};
use blip2_model::blip2::export::{ExportOptions, Tokenizers, export_instructblip};
use blip2_model::blip2::{Blip2, PromptTokens};
use blip2_model::language::LanguageModel;
use blip2_model::language::generation::{GenerateOptions, Sampling};
use blip2_model::language::llama::LlamaConfig;
use blip2_model::objectives::generate::GenerateModel;
use blip2_model::padded::Padded;
use blip2_model::qformer::QFormerConfig;
use blip2_model::vision::ImageEncoder;
use blip2_model_files::tokenizer::QFormerTokenizer;
use blip2_tensors::device::read_back::floats;
use blip2_tensors::nn::tensors::NamedTensors;
use blip2_tensors::train::flat::FlatLayout;
use burn::tensor::{Device, Int, Tensor, TensorData};
use image::{Rgb, RgbImage};
use serde_json::{Value, json};

const QUESTIONS: [&str; 2] = ["what colour is the heart?", "how many?"];

fn asset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/backbones").join(name)
}

/// Values between `-scale` and `scale` that look drawn: of waves no two questions would be told apart.
fn fill(model: &mut impl NamedTensors, scale: f32) {
    let layout = FlatLayout::of(model).unwrap();
    let scrambled = |number: usize| {
        let once = (number as u32).wrapping_add(1).wrapping_mul(0x9E37_79B1);
        (once ^ (once >> 15)).wrapping_mul(0x85EB_CA77)
    };
    let unit = |number: usize| (scrambled(number) >> 8) as f32 / (1 << 23) as f32 - 1.0;
    let flat: Vec<f32> = (0..layout.len()).map(|number| unit(number) * scale).collect();
    layout.write(model, &flat, &Device::flex()).unwrap();
}

/// The families, with the folder of their tokenizer.
fn families() -> [(LanguageModel, &'static str); 3] {
    let open = |name: &str| LanguageModel::open(&asset(name), Device::flex()).unwrap();
    let config = LlamaConfig {
        width: 16,
        depth: 2,
        heads: 4,
        key_heads: Some(2),
        intermediate: 24,
        vocab_size: 4096,
        // The token that the tokenizer puts in front.
        bos_token_id: 2,
        ..LlamaConfig::default()
    };
    let mut llama = LanguageModel::zeros(&config, &Device::flex()).unwrap();
    // Smaller values would score all words alike.
    fill(&mut llama, 1.5);
    [(open("opt-tiny"), "opt-tiny"), (open("t5-scenes"), "t5-scenes"), (llama, "opt-tiny")]
}

/// Writes a folder of arbitrary weights of this size around a small Q-Former that reads questions.
fn export(
    (mut language_model, tokenizer): (LanguageModel, &str),
    qformer: QFormerReads,
    scale: f32,
    folder: &Path,
) {
    let device = Device::flex();
    let encoder = ImageEncoder::open(&asset("eva-tiny"), &device).unwrap();
    let sizes = QFormerConfig::new(encoder.width())
        .with_hidden(32)
        .with_layers(2)
        .with_heads(2)
        .with_intermediate(48)
        .with_vocab(4096)
        .with_max_positions(64)
        .with_queries(4);
    let width = language_model.width();
    let mut trained = GenerateModel::reading_questions(&sizes, 1e-6, width, &device).unwrap();
    fill(&mut trained, scale);
    let tokenizers = Tokenizers { language: &asset(tokenizer), qformer: &asset("qformer-tokenizer") };
    let tokens = PromptTokens::choose_or_add(tokenizers.language, language_model.special_tokens()).unwrap();
    language_model.grow_vocabulary(tokens.image as usize + 1);
    let asking = Asking { qformer, ..Asking::published(language_model.is_encoder_decoder()) };
    let model = Blip2::from_parts(encoder, trained, language_model, sizes, tokens).unwrap();
    export_instructblip(folder, &mut model.with_asking(asking), tokenizers, &ExportOptions::default())
        .unwrap();
}

/// Texts that are drawn by the same numbers: they differ where the scores do, and a little is enough.
fn same_draws(texts: usize) -> Decoding {
    let sampling = Sampling { temperature: 2.0, seed: 3, numbers: vec![0; texts], ..Sampling::default() };
    GenerateOptions { max_new_tokens: 8, sampling: Some(sampling), ..Default::default() }.into()
}

/// Words to ask about, of more and fewer tokens.
fn words() -> impl Iterator<Item = &'static str> {
    ["apple", "a dog", "the red heart", "it", "on the flag of a country", "hand", "this", "a star"]
        .into_iter()
}

/// An image of the encoder's own size, which nothing resizes.
fn image(number: u32) -> RgbImage {
    let pixel = |x: u32, y: u32| Rgb([(x * 3 + number * 40) as u8, (y * 4) as u8, ((x * y) % 251) as u8]);
    RgbImage::from_fn(64, 64, pixel)
}

#[test]
fn the_qformer_reads_the_question_or_the_whole_prompt() {
    let [(opt, tokenizer), _, _] = families();
    let place = tempfile::tempdir().unwrap();
    for reads in [QFormerReads::Question, QFormerReads::Prompt] {
        let folder = place.path().join(format!("{reads:?}"));
        export((opt.clone(), tokenizer), reads, 0.3, &folder);
        let captioner = Captioner::open_on(&folder, Device::flex()).unwrap();
        assert!(captioner.reads_questions());
        let asked = captioner.question("What COLOUR is the heart?!");
        assert_eq!(asked.prompt, "Question: what colour is the heart? Answer:");
        let read = match reads {
            QFormerReads::Question => "what colour is the heart?",
            QFormerReads::Prompt => "Question: what colour is the heart? Answer:",
        };
        assert_eq!(asked.qformer, read);
        assert_eq!(captioner.question_prompt(), None, "it is the published one");
        let path = folder.join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config["question_prompt"] = "Q: {} A:".into();
        std::fs::write(&path, config.to_string()).unwrap();
        let other = Captioner::open_on(&folder, Device::flex()).unwrap();
        assert_eq!(other.question_prompt(), Some("Q: {} A:"));
    }
}

/// A turn is asked in the words in which the folder's model was trained.
#[test]
fn turns_of_a_dialogue_are_worded_as_the_folder_says() {
    let [(opt, opt_tokenizer), (t5, t5_tokenizer), _] = families();
    let place = tempfile::tempdir().unwrap();
    let open = |name: &str| Captioner::open_on(&place.path().join(name), Device::flex()).unwrap();
    export((t5, t5_tokenizer), QFormerReads::Question, 0.3, &place.path().join("t5"));
    let t5 = open("t5");
    let turn = t5.turn("What COLOUR is it?!");
    let words = "Question: what colour is it? Short answer:";
    assert_eq!((turn.question.as_str(), turn.words.as_str()), ("what colour is it?", words));
    assert_eq!(t5.turns_begin_with(), Some("Question:"));
    // The Q-Former reads no other turn, or all that the language model reads.
    assert_eq!(t5.asked(&turn.question, format!("before. {words}")).qformer, "what colour is it?");

    export((opt, opt_tokenizer), QFormerReads::Prompt, 0.3, &place.path().join("instruct"));
    let path = place.path().join("instruct/config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["question_prompt"] = "{}".into();
    std::fs::write(&path, config.to_string()).unwrap();
    let instructed = open("instruct");
    let turn = instructed.turn("Describe the heart.");
    assert_eq!((turn.words.as_str(), instructed.turns_begin_with()), ("describe the heart", None));
    assert_eq!(instructed.asked(&turn.question, "a. b".into()), PromptPair::both("a. b"));
}

#[test]
fn what_is_written_depends_on_what_the_qformer_reads_and_not_on_what_is_read_beside_it() {
    let place = tempfile::tempdir().unwrap();
    for (number, (language_model, tokenizer)) in families().into_iter().enumerate() {
        let folder = place.path().join(number.to_string());
        export((language_model, tokenizer), QFormerReads::Question, 0.3, &folder);
        let captioner = Captioner::open_on(&folder, Device::flex()).unwrap();
        let asked: Vec<PromptPair> = words()
            .map(|word| PromptPair { prompt: "Question:".into(), qformer: format!("what is {word}?") })
            .collect();
        let seen = captioner.encode(&vec![image(0); asked.len()]).unwrap();
        let decoding = same_draws(asked.len());
        let together = captioner.answer(&seen, &asked, &decoding).unwrap();
        let different: BTreeSet<_> = together.iter().map(|texts| &texts[0].tokens).collect();
        assert!(different.len() > 1, "family {number}: other questions on the same image");
        let alone = captioner.encode(&[image(0)]).unwrap();
        let alone = captioner.answer(&alone, &asked[1..2], &same_draws(1)).unwrap();
        assert_eq!(alone, together[1..2], "family {number}: padding is not read");
        // One text for both, as published.
        let both = [PromptPair::both("Question:")];
        let first = captioner.encode(&[image(0)]).unwrap();
        let prompts = ["Question:".to_owned()];
        let written = captioner.generate(&first, &prompts, &same_draws(1)).unwrap();
        assert_eq!(written, captioner.answer(&first, &both, &same_draws(1)).unwrap());
    }
}

#[test]
fn of_a_text_that_is_longer_than_the_positions_the_end_is_read() {
    let [(opt, tokenizer), _, _] = families();
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("model");
    export((opt, tokenizer), QFormerReads::Question, 0.3, &folder);
    let captioner = Captioner::open_on(&folder, Device::flex()).unwrap();
    let long = "red ".repeat(80);
    let asked: Vec<PromptPair> = [format!("blue {long}apple")]
        .into_iter()
        .chain(words().map(|word| format!("{long}{word}")))
        .map(|qformer| PromptPair { prompt: String::new(), qformer })
        .collect();
    let seen = captioner.encode(&vec![image(0); asked.len()]).unwrap();
    let written = captioner.answer(&seen, &asked, &same_draws(asked.len())).unwrap();
    assert_eq!(written[0], written[1], "what is in front is left out");
    let different: BTreeSet<_> = written.iter().map(|texts| &texts[0].tokens).collect();
    assert!(different.len() > 1, "the end is read");
}

/// What this program makes of a folder: the scores of the first token behind each prompt, and the texts of
/// searches with so many beams.
fn ours(folder: &Path, paths: &[PathBuf; 2], searches: &[usize]) -> Value {
    let device = Device::flex();
    let (model, captioner) =
        (Blip2::open(folder, &device).unwrap(), Captioner::open_on(folder, device.clone()).unwrap());
    let images = [image(0), image(1)];
    images.iter().zip(paths).for_each(|(image, path)| image.save(path).unwrap());
    let language = model.language_model();
    let words = open_tokenizer(folder, TextEncoding::new(64, 1)).unwrap();
    let qformer = QFormerTokenizer::open(folder).unwrap();
    let qformer = blip2_dataset::text::TextEncoder::from_json(
        &qformer.content,
        &qformer.origin,
        TextEncoding::new(64, 0),
    );
    let qformer = qformer.unwrap();
    let pixels = ImageTransform::new(model.processor()).tensor(images.iter(), &device).unwrap();
    let features = model.encoder().forward(pixels).unwrap();
    let row = |values: Vec<i32>| -> Tensor<2, Int> {
        let shape = [1, values.len()];
        Tensor::from_data(TensorData::new(values, shape), &device)
    };
    let (mut asked, mut rows) = (Vec::new(), Vec::new());
    for (number, question) in QUESTIONS.iter().enumerate() {
        let one = captioner.question(question);
        let read: Vec<i32> =
            qformer.encode_plain(&one.qformer).unwrap().into_iter().map(|id| id as i32).collect();
        let questions = Padded { ids: &read, mask: &vec![1; read.len()] };
        let soft = model.soft_prompt_asked(features.clone().narrow(0, number, 1), questions).unwrap();
        let mut ids = vec![model.tokens().image as i32; model.qformer_config().queries];
        ids.extend(words.encode_plain(&one.prompt).unwrap().into_iter().map(|id| id as i32));
        let mask = row(vec![1; ids.len()]);
        let inputs = model.inputs_of(soft, row(ids)).unwrap();
        let scores = match language.decoder_start() {
            Some(start) => language.scores_of_written(inputs, mask, row(vec![start as i32])).unwrap(),
            None => language.forward(inputs, mask).unwrap(),
        };
        let [_, length, _] = scores.dims();
        rows.push(floats(scores.narrow(1, length - 1, 1)).unwrap());
        asked.push(one);
    }
    let seen = captioner.encode(&images).unwrap();
    let written = |beams: usize| -> Vec<Vec<u32>> {
        let options = GenerateOptions { max_new_tokens: 8, beams, ..Default::default() };
        let texts = captioner.answer(&seen, &asked, &options.into()).unwrap();
        texts.into_iter().flatten().map(|caption| caption.tokens).collect()
    };
    let texts: Vec<(usize, Vec<Vec<u32>>)> = searches.iter().map(|beams| (*beams, written(*beams))).collect();
    let entries = asked.iter().enumerate().map(|(number, asked)| {
        let written: BTreeMap<String, &Vec<u32>> =
            texts.iter().map(|(beams, rows)| (beams.to_string(), &rows[number])).collect();
        json!({
            "image": paths[number], "prompt": asked.prompt, "qformer": asked.qformer, "logits": rows[number],
            "written": written,
        })
    });
    json!({ "folder": folder, "asked": entries.collect::<Vec<_>>() })
}

/// `transformers` loads what is exported of each family, and computes and writes the same.
#[test]
#[ignore = "runs the user's PyTorch: BLIP2_PYTHON names a Python that has it with transformers"]
fn transformers_computes_and_writes_the_same() {
    let python = std::env::var_os("BLIP2_PYTHON").expect("BLIP2_PYTHON names a Python");
    let place = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/transformers/check_instructblip.py");
    for (number, (language_model, tokenizer)) in families().into_iter().enumerate() {
        for reads in [QFormerReads::Question, QFormerReads::Prompt] {
            let folder = place.path().join(format!("{number}-{reads:?}"));
            export((language_model.clone(), tokenizer), reads, 0.3, &folder);
            let paths = [0, 1].map(|image| place.path().join(format!("{image}.png")));
            let expected = place.path().join("ours.json");
            std::fs::write(&expected, ours(&folder, &paths, &[1, 3]).to_string()).unwrap();
            let run = Command::new(&python).arg(&script).arg(&expected).output().unwrap();
            let said = [run.stdout, run.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
            assert!(run.status.success(), "family {number}, {reads:?}: {}{}", said[0], said[1]);
            print!("{}", said[0]);
        }
    }
}
