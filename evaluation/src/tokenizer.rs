//! The tokenizer of a model's folder.

use std::path::Path;

use blip2_dataset::text::{TextEncoder, TextEncoding};
use blip2_model_files::tokenizer::{TokenizerKind, tokenizer_content};

use crate::error::Result;

/// The tokenizer of a model's folder, whatever files it is in, or the one inside a GGUF file.
///
/// # Errors
/// No tokenizer there, or one that cannot be used.
pub fn open_tokenizer(model: &Path, encoding: TextEncoding) -> Result<TextEncoder> {
    let (_, origin) = TokenizerKind::of(model)?;
    Ok(TextEncoder::from_json(&tokenizer_content(model)?, &origin, encoding)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_sentence_pieces_has_a_tokenizer() {
        let folder = tempfile::tempdir().unwrap();
        let missing = open_tokenizer(folder.path(), TextEncoding::new(16, 0)).unwrap_err().to_string();
        assert!(missing.contains("tokenizer.json"), "{missing}");
        let pieces =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/sentencepiece/tokenizer.model");
        std::fs::copy(pieces, folder.path().join("tokenizer.model")).unwrap();
        let encoder = open_tokenizer(folder.path(), TextEncoding::new(16, 0)).unwrap();
        let ids = encoder.encode("a photo").unwrap().ids;
        // The start token, and the two pieces that SentencePiece finds.
        assert_eq!(ids[..3], [1, 391, 275]);
    }
}
