//! Folders with the files that are published, made of the small tokenizers of `assets/`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokenizers::Tokenizer;

use super::content::TOKENIZER_JSON;
use super::settings::SETTINGS;
use super::*;
use crate::read::read_json;

const CAPTIONS: &[&str] = &[
    "a red apple on a table",
    "A photo of a dog's ball.",
    "flag: côte d'ivoire",
    "日本 🍎 naïve",
    "x",
    "two  spaces",
];

fn asset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/backbones").join(name)
}

fn asset_json(name: &str) -> Value {
    read_json(&asset(name).join(TOKENIZER_JSON)).unwrap()
}

fn ids(tokenizer: &Value, text: &str) -> Vec<u32> {
    let tokenizer: Tokenizer = serde_json::from_value(tokenizer.clone()).unwrap();
    tokenizer.encode(text, true).unwrap().get_ids().to_vec()
}

fn folder(files: &[(&str, String)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

/// The tokens in the order of their ids, one on each line.
fn vocab_txt(tokenizer: &Value, without: &[&str]) -> String {
    let table = tokenizer["model"]["vocab"].as_object().unwrap();
    let mut tokens: Vec<(u64, &str)> =
        table.iter().map(|(token, id)| (id.as_u64().unwrap(), token.as_str())).collect();
    let added = tokenizer["added_tokens"].as_array().unwrap();
    tokens.extend(
        added.iter().map(|token| (token["id"].as_u64().unwrap(), token["content"].as_str().unwrap())),
    );
    tokens.sort();
    tokens.dedup();
    let mut text = String::new();
    for (_, token) in tokens.iter().filter(|(_, token)| !without.contains(token)) {
        text += token;
        text += "\n";
    }
    text
}

/// `bert-base-uncased` before it had a `tokenizer.json`.
#[test]
fn words_pieces_of_a_vocab_txt_are_those_of_the_tokenizer_json() {
    let own = asset_json("bert-tiny");
    let bert = folder(&[("vocab.txt", vocab_txt(&own, &["[DEC]", "[ENC]"]))]);
    let read = tokenizer_json(bert.path()).unwrap();
    for text in CAPTIONS {
        assert_eq!(ids(&read, text), ids(&own, text), "{text:?}");
    }
    let cased = folder(&[
        ("vocab.txt", vocab_txt(&own, &["[DEC]"])),
        ("tokenizer_config.json", r#"{"do_lower_case": false}"#.into()),
    ]);
    assert_ne!(ids(&tokenizer_json(cased.path()).unwrap(), "A"), ids(&own, "A"));
    let other = folder(&[("vocab.txt", "a\nb\n".into())]);
    let error = tokenizer_json(other.path()).unwrap_err().to_string();
    assert!(error.contains("vocab.txt") && error.contains("`[UNK]`"), "{error}");
}

#[test]
fn a_start_token_is_added_behind_berts() {
    let own = asset_json("bert-tiny");
    let bert = folder(&[("vocab.txt", vocab_txt(&own, &["[DEC]", "[ENC]"]))]);
    let opened = QFormerTokenizer::open(bert.path()).unwrap();
    assert_eq!(opened.added, Some(1790));
    let tokenizer: Tokenizer = Tokenizer::from_bytes(&opened.content).unwrap();
    assert_eq!((tokenizer.token_to_id(DECODER_START), tokenizer.get_vocab_size(true)), (Some(1790), 1791));
    for text in CAPTIONS {
        assert_eq!(ids(&opened.value().unwrap(), text), ids(&own, text), "{text:?}");
    }
    // One that is there is left as it is, to the byte.
    let own = QFormerTokenizer::open(&asset("qformer-tokenizer")).unwrap();
    let bytes = std::fs::read(asset("qformer-tokenizer").join(TOKENIZER_JSON)).unwrap();
    assert!(own.added.is_none() && own.content == bytes);
    // The tokenizer of an exported folder, and the one beside InstructBLIP's language model.
    let mut exported = asset_json("qformer-tokenizer");
    let image = json!({"id": 1792, "content": "<image>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true});
    exported["added_tokens"].as_array_mut().unwrap().push(image);
    let whole = tempfile::tempdir().unwrap();
    std::fs::create_dir(whole.path().join("qformer_tokenizer")).unwrap();
    std::fs::write(whole.path().join("qformer_tokenizer/tokenizer.json"), exported.to_string()).unwrap();
    let opened = QFormerTokenizer::open(whole.path()).unwrap();
    let tokenizer: Tokenizer = Tokenizer::from_bytes(&opened.content).unwrap();
    assert_eq!((opened.added, tokenizer.get_vocab_size(true)), (None, 1792));
    let error = QFormerTokenizer::open(&asset("opt-tiny")).unwrap_err().to_string();
    assert!(error.contains("[CLS]") && error.contains("bert-base-uncased"), "{error}");
}

/// `facebook/opt-*`: the tokenizer of GPT-2 in two files, and its settings in one or two more.
#[test]
fn pairs_of_bytes_are_those_of_the_tokenizer_json() {
    let own = asset_json("opt-tiny");
    let mut table = own["model"]["vocab"].clone();
    for token in own["added_tokens"].as_array().unwrap() {
        table[token["content"].as_str().unwrap()] = token["id"].clone();
    }
    let mut merges = "#version: 0.2\n".to_string();
    for pair in own["model"]["merges"].as_array().unwrap() {
        let pair = pair
            .as_str()
            .map(str::to_string)
            .unwrap_or_else(|| format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()));
        merges += &pair;
        merges += "\n";
    }
    let settings = json!({"bos_token": {"content": "</s>"}, "eos_token": "</s>", "unk_token": "</s>",
        "pad_token": "<pad>", "add_bos_token": true, "tokenizer_class": "GPT2Tokenizer"});
    let files = [("vocab.json", table.to_string()), ("merges.txt", merges.clone())];
    let published = folder(&[&files[..], &[("tokenizer_config.json", settings.to_string())]].concat());
    for opt in [published, folder(&files)] {
        let read = tokenizer_json(opt.path()).unwrap();
        for text in CAPTIONS {
            assert_eq!(ids(&read, text), ids(&own, text), "{text:?}");
        }
        assert_eq!(ids(&read, "a</s>b"), ids(&own, "a</s>b"));
    }
    let plain =
        folder(&[&files[..], &[("tokenizer_config.json", r#"{"add_bos_token": false}"#.into())]].concat());
    assert_eq!(ids(&tokenizer_json(plain.path()).unwrap(), "a red"), ids(&own, "a red")[1..]);
    let broken = folder(&[("vocab.json", table.to_string()), ("merges.txt", "#version\nab\n".into())]);
    let error = tokenizer_json(broken.path()).unwrap_err().to_string();
    assert!(error.contains("merges.txt") && error.contains("line 2"), "{error}");
    let table = folder(&[("vocab.json", "[1]".into()), ("merges.txt", merges)]);
    assert!(tokenizer_json(table.path()).unwrap_err().to_string().contains("vocab.json"));
}

/// CLIP's, whose pairs end at words: the ids are those that `transformers` gives with the same two files.
#[test]
fn pairs_within_words_are_clips() {
    let table = json!({"a": 0, "p": 1, "l": 2, "e": 3, "a</w>": 4, "e</w>": 5, "ap": 6, "app": 7, "le</w>": 8,
        "apple</w>": 9, "<|startoftext|>": 10, "<|endoftext|>": 11});
    let merges = "#version: 0.2\na p\nap p\nl e</w>\napp le</w>\n";
    let clip = folder(&[("vocab.json", table.to_string()), ("merges.txt", merges.into())]);
    let read = tokenizer_json(clip.path()).unwrap();
    assert_eq!(ids(&read, " An  Apple a"), [10, 0, 9, 4, 11], "n is not in the vocabulary");
}

#[test]
fn pieces_stand_in_for_a_tokenizer_json() {
    let pieces = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/sentencepiece/tokenizer.model");
    let llama = tempfile::tempdir().unwrap();
    std::fs::copy(pieces, llama.path().join("tokenizer.model")).unwrap();
    assert!(tokenizer_json(llama.path()).unwrap()["post_processor"].is_object());
    std::fs::write(llama.path().join(SETTINGS), r#"{"add_bos_token": false}"#).unwrap();
    assert!(tokenizer_json(llama.path()).unwrap()["post_processor"].is_null());
    std::fs::write(llama.path().join(TOKENIZER_JSON), r#"{"model": 1}"#).unwrap();
    assert_eq!(tokenizer_json(llama.path()).unwrap()["model"], 1);
}

#[test]
fn a_folder_without_a_tokenizer_says_what_it_lacks() {
    let error = tokenizer_json(tempfile::tempdir().unwrap().path()).unwrap_err().to_string();
    assert!(error.contains("spiece.model") && error.contains("vocab.txt"), "{error}");
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n";
    for name in ["tokenizer.json", "spiece.model", "vocab.txt"] {
        let fetched = folder(&[(name, pointer.into())]);
        let error = tokenizer_content(fetched.path()).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("Git LFS"), "{error}");
    }
}
