//! SentencePiece's own file, `tokenizer.model`.

use std::path::Path;

use prost::Message;
use serde_json::Value;

use super::{Piece, from_pieces};
use crate::ModelError;
use crate::weights::pairs::NORMAL;

/// The file's name in a model's folder.
pub(crate) const FILE: &str = "tokenizer.model";

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
    #[prost(int32, optional, tag = "41")]
    bos_id: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct NormalizerSpec {
    #[prost(bytes = "vec", optional, tag = "2")]
    precompiled_charsmap: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "3")]
    add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    remove_extra_whitespaces: Option<bool>,
}

/// `model_type` of tokenizers that join pairs.
const PAIRS: i32 = 2;

/// The id of the start token where the file does not say it.
const START: i32 = 1;

/// The tokenizer in the format of the `tokenizers` library; `starts` puts the start token in front of every text.
///
/// # Errors
/// A file that is none of SentencePiece's, or a kind of tokenizer that Llama does not have.
pub(crate) fn tokenizer(path: &Path, starts: bool) -> Result<Value, ModelError> {
    let bytes = std::fs::read(path).map_err(|error| ModelError::io(path, error))?;
    let error = |reason: String| ModelError::Config { path: path.into(), reason };
    let model = ModelProto::decode(bytes.as_slice())
        .map_err(|reason| error(format!("not a SentencePiece model: {reason}")))?;
    check(&model).map_err(error)?;
    let pieces: Vec<Piece<'_>> = (model.pieces.iter())
        .map(|piece| Piece {
            text: piece.piece(),
            score: f64::from(piece.score()),
            kind: piece.kind.map_or(NORMAL, i64::from),
        })
        .collect();
    let start = model.trainer.as_ref().and_then(|trainer| trainer.bos_id).unwrap_or(START);
    let start = usize::try_from(start).ok().filter(|_| starts);
    from_pieces(&pieces, start).map_err(error)
}

fn check(model: &ModelProto) -> Result<(), String> {
    let normalizer = model.normalizer.clone().unwrap_or_default();
    let refused = if model.trainer.as_ref().and_then(|trainer| trainer.model_type) != Some(PAIRS) {
        "its model_type is not BPE"
    } else if !normalizer.precompiled_charsmap().is_empty() {
        "it normalises characters"
    } else if normalizer.remove_extra_whitespaces.unwrap_or(true) {
        "it removes extra spaces"
    } else if !normalizer.add_dummy_prefix.unwrap_or(true) {
        "it puts no space in front of a text"
    } else {
        return Ok(());
    };
    Err(format!(
        "{refused}, unlike Llama's: convert it to a tokenizer.json with `transformers` and put that beside it"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use tokenizers::Tokenizer;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/sentencepiece").join(name)
    }

    fn read(starts: bool) -> Tokenizer {
        serde_json::from_value(tokenizer(&fixture(FILE), starts).unwrap()).unwrap()
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
            tokenizer(&path, true).unwrap_err().to_string()
        };
        for (change, reason) in [
            ((|model| model.trainer = None) as fn(&mut ModelProto), "not BPE"),
            (|model| model.normalizer.as_mut().unwrap().precompiled_charsmap = Some(vec![1]), "normalises"),
            (|model| model.normalizer.as_mut().unwrap().remove_extra_whitespaces = None, "extra spaces"),
            (|model| model.normalizer.as_mut().unwrap().add_dummy_prefix = Some(false), "no space"),
            (|model| model.pieces.clear(), "0 pieces"),
        ] {
            let error = changed(change);
            assert!(error.contains(reason) && error.contains(FILE), "{error}");
        }
        std::fs::write(&path, "no protocol buffer").unwrap();
        assert!(tokenizer(&path, true).unwrap_err().to_string().contains("not a SentencePiece model"));
    }
}
