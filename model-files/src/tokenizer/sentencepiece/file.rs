//! SentencePiece's own file, `tokenizer.model` or `spiece.model`.

use std::path::Path;

use prost::Message;
use serde_json::Value;

use super::pairs::{Piece, from_pieces};
use super::unigram;
use crate::error::ModelError;
use crate::read::read_file;
use crate::tokenizer::pairs::NORMAL;

/// What the file leaves to its folder.
#[derive(Debug, Clone, Copy)]
pub(in crate::tokenizer) struct Settings {
    /// Whether a tokenizer of pairs puts its start token in front of every text.
    pub(in crate::tokenizer) starts: bool,
    /// Tokens `<extra_id_N>` that a tokenizer of unigrams has behind its pieces.
    pub(in crate::tokenizer) extra_ids: usize,
    /// Rows of the model's token table, where they are known.
    pub(in crate::tokenizer) vocabulary: Option<usize>,
}

/// The part of SentencePiece's `ModelProto` that is read.
#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<PieceProto>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<TrainerSpec>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<NormalizerSpec>,
}

#[derive(Clone, PartialEq, Message)]
struct PieceProto {
    #[prost(string, optional, tag = "1")]
    piece: Option<String>,
    #[prost(float, optional, tag = "2")]
    score: Option<f32>,
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct TrainerSpec {
    #[prost(int32, optional, tag = "3")]
    model_type: Option<i32>,
    #[prost(bool, optional, tag = "24")]
    treat_whitespace_as_suffix: Option<bool>,
    #[prost(int32, optional, tag = "41")]
    bos_id: Option<i32>,
    #[prost(int32, optional, tag = "42")]
    eos_id: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct NormalizerSpec {
    #[prost(bytes = "vec", optional, tag = "2")]
    precompiled_charsmap: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "3")]
    add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    remove_extra_whitespaces: Option<bool>,
    #[prost(bool, optional, tag = "5")]
    escape_whitespaces: Option<bool>,
}

/// `model_type` of tokenizers that choose the likeliest pieces, which is also that of files that do not say
/// it, and of those that join pairs.
const UNIGRAMS: i32 = 1;
const PAIRS: i32 = 2;

/// The id of the end token where the file does not say it.
const END: i32 = 2;

/// The id of the start token where the file does not say it.
const START: i32 = 1;

/// The tokenizer in the format of the `tokenizers` library.
///
/// # Errors
/// A file that is none of SentencePiece's, or a kind of tokenizer that neither Llama nor T5 has.
pub(in crate::tokenizer) fn tokenizer(path: &Path, settings: &Settings) -> Result<Value, ModelError> {
    let bytes = read_file(path)?;
    let error = |reason: String| ModelError::Config { path: path.into(), reason };
    let model = ModelProto::decode(bytes.as_slice())
        .map_err(|reason| error(format!("not a SentencePiece model: {reason}")))?;
    let kind = model.trainer.as_ref().and_then(|trainer| trainer.model_type).unwrap_or(UNIGRAMS);
    if kind != UNIGRAMS {
        check(&model, kind).map_err(error)?;
    }
    let pieces: Vec<Piece<'_>> = (model.pieces.iter())
        .map(|piece| Piece {
            text: piece.piece(),
            score: f64::from(piece.score()),
            kind: piece.kind.map_or(NORMAL, i64::from),
        })
        .collect();
    let trainer = model.trainer.clone().unwrap_or_default();
    if kind == UNIGRAMS {
        let form = unigram_form(&model, settings).map_err(error)?;
        return unigram::tokenizer(&pieces, &form).map_err(error);
    }
    let start = usize::try_from(trainer.bos_id.unwrap_or(START)).ok().filter(|_| settings.starts);
    from_pieces(&pieces, start).map_err(error)
}

/// How texts become unigrams.
fn unigram_form<'a>(model: &'a ModelProto, settings: &Settings) -> Result<unigram::Form<'a>, String> {
    let trainer = model.trainer.clone().unwrap_or_default();
    let normalizer = model.normalizer.as_ref();
    let says = |field: fn(&NormalizerSpec) -> Option<bool>| normalizer.and_then(field).unwrap_or(true);
    if trainer.treat_whitespace_as_suffix == Some(true)
        || !says(|normalizer| normalizer.escape_whitespaces)
        || !says(|normalizer| normalizer.add_dummy_prefix)
    {
        return Err(format!("it marks spaces otherwise than T5: {CONVERT}"));
    }
    let pieces = model.pieces.len();
    Ok(unigram::Form {
        characters: normalizer.map_or(&[], NormalizerSpec::precompiled_charsmap),
        single_spaces: says(|normalizer| normalizer.remove_extra_whitespaces),
        end: usize::try_from(trainer.eos_id.unwrap_or(END)).ok().filter(|end| *end < pieces),
        extra_ids: match settings.vocabulary {
            Some(rows) => settings.extra_ids.min(rows.saturating_sub(pieces)),
            None => settings.extra_ids,
        },
    })
}

/// What to do about a tokenizer that is not read.
const CONVERT: &str = "convert it to a tokenizer.json with `transformers` and put that beside it";

fn check(model: &ModelProto, kind: i32) -> Result<(), String> {
    let normalizer = model.normalizer.clone().unwrap_or_default();
    let refused = if kind != PAIRS {
        "its model_type is neither BPE nor unigram"
    } else if !normalizer.precompiled_charsmap().is_empty() {
        "it normalises characters"
    } else if normalizer.remove_extra_whitespaces.unwrap_or(true) {
        "it removes extra spaces"
    } else if !normalizer.add_dummy_prefix.unwrap_or(true) {
        "it puts no space in front of a text"
    } else {
        return Ok(());
    };
    Err(format!("{refused}, unlike Llama's: {CONVERT}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use tokenizers::Tokenizer;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/sentencepiece").join(name)
    }

    const FILE: &str = "tokenizer.model";

    fn settings(starts: bool) -> Settings {
        Settings { starts, extra_ids: 100, vocabulary: None }
    }

    fn read(starts: bool) -> Tokenizer {
        serde_json::from_value(tokenizer(&fixture(FILE), &settings(starts)).unwrap()).unwrap()
    }

    #[test]
    fn texts_are_cut_and_joined_as_by_the_reference() {
        let tokenizer = read(false);
        let cases: Value = serde_json::from_slice(&std::fs::read(fixture("ids.json")).unwrap()).unwrap();
        for case in cases.as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let want: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            assert_eq!(tokenizer.encode(text, true).unwrap().get_ids(), want, "{text:?}");
            assert_eq!(tokenizer.decode(&want, true).unwrap(), text);
        }
    }

    /// T5's kind, as SentencePiece itself cuts texts.
    #[test]
    fn unigrams_are_those_of_the_reference() {
        let fixture =
            |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/spiece").join(name);
        let path = fixture("spiece.model");
        let read = |vocabulary| {
            let settings = Settings { starts: true, extra_ids: 100, vocabulary };
            let value = tokenizer(&path, &settings).unwrap();
            serde_json::from_value::<Tokenizer>(value).unwrap()
        };
        let tokenizer = read(None);
        let cases: Value = serde_json::from_slice(&std::fs::read(fixture("ids.json")).unwrap()).unwrap();
        for case in cases.as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let want: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            assert_eq!(tokenizer.encode(text, true).unwrap().get_ids(), want, "{text:?}");
        }
        let ids = tokenizer.encode("a red apple", true).unwrap().get_ids().to_vec();
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), "a red apple");
        assert_eq!(tokenizer.token_to_id("<extra_id_99>"), Some(400));
        assert_eq!(tokenizer.token_to_id("<extra_id_0>"), Some(499));
        // No more of them than the model has rows.
        assert_eq!(read(Some(410)).get_vocab_size(true), 410);
    }

    #[test]
    fn the_start_token_is_put_in_front() {
        let ids = read(true).encode("a photo", true).unwrap().get_ids().to_vec();
        assert_eq!((ids[0], &ids[1..]), (1, read(false).encode("a photo", true).unwrap().get_ids()));
    }

    #[test]
    fn other_tokenizers_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let bytes = std::fs::read(fixture(FILE)).unwrap();
        let changed = |change: fn(&mut ModelProto)| {
            let mut model = ModelProto::decode(bytes.as_slice()).unwrap();
            change(&mut model);
            std::fs::write(&path, model.encode_to_vec()).unwrap();
            tokenizer(&path, &settings(true)).unwrap_err().to_string()
        };
        for (change, reason) in [
            (
                (|model| model.trainer.as_mut().unwrap().model_type = Some(4)) as fn(&mut ModelProto),
                "neither BPE",
            ),
            (|model| model.normalizer.as_mut().unwrap().precompiled_charsmap = Some(vec![1]), "normalises"),
            (|model| model.normalizer.as_mut().unwrap().remove_extra_whitespaces = None, "extra spaces"),
            (|model| model.normalizer.as_mut().unwrap().add_dummy_prefix = Some(false), "no space"),
            (|model| model.pieces.clear(), "0 pieces"),
        ] {
            let error = changed(change);
            assert!(error.contains(reason) && error.contains(FILE), "{error}");
        }
        std::fs::write(&path, "no protocol buffer").unwrap();
        assert!(
            tokenizer(&path, &settings(true)).unwrap_err().to_string().contains("not a SentencePiece model")
        );
    }
}
