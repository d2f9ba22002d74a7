//! The special tokens of prompts.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::language::SpecialTokens;
use blip2_model_files::config::FolderConfig;
use blip2_model_files::error::ModelError;
use blip2_model_files::tokenizer::ids::{IMAGE, first_free, id_of_image};
use blip2_model_files::tokenizer::{TokenizerKind, named_token, settings, tokenizer_json};

/// Token ids that prompts are made of and texts end with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptTokens {
    /// Marks the place of one query.
    pub image: u32,
    /// What an empty prompt consists of: the start token, or the end token for an encoder.
    pub bos: u32,
    /// Fills a batch.
    pub pad: u32,
    /// Any of these ends a text.
    pub eos: Vec<u32>,
}

/// A line feed in a byte-level vocabulary.
const NEWLINE: &str = "Ċ";

impl PromptTokens {
    /// The tokens of a BLIP-2 folder: its `config.json` names the one that marks images, or, in folders of
    /// before there was one, it is chosen as [`PromptTokens::choose_or_add`] does.
    pub(crate) fn read(
        folder: &Path,
        config: &FolderConfig,
        language: SpecialTokens,
    ) -> Result<Self, ModelError> {
        #[derive(Deserialize)]
        struct Image {
            #[serde(alias = "image_token_id")]
            image_token_index: Option<u32>,
        }
        let SpecialTokens { bos, pad, eos, .. } = language.clone();
        let image = match config.parse()? {
            Image { image_token_index: Some(image) } => image,
            _ => Self::choose_or_add(folder, language)?.image,
        };
        Ok(Self { image, bos, pad, eos })
    }

    /// The tokens for training and exporting with the language model's own tokenizer: a line feed ends a
    /// caption of OPT, the model's own end token one of the other families, and images are marked by
    /// `<image>` or, where the tokenizer has none, by a special token that no text produces.
    ///
    /// # Errors
    /// A tokenizer without a line feed where one is needed, or without a special token to spare.
    pub fn choose(tokenizer: &Path, language: impl Into<SpecialTokens>) -> Result<Self, ModelError> {
        Self::find(tokenizer, language.into(), false)
    }

    /// As [`PromptTokens::choose`]; where no special token is to spare, images are marked by one that the
    /// tokenizer does not have yet, with the next id. The vocabulary may have to be raised for it
    /// ([`LanguageModel::grow_vocabulary`](crate::language::LanguageModel::grow_vocabulary)).
    ///
    /// # Errors
    /// A tokenizer without a line feed where one is needed.
    pub fn choose_or_add(tokenizer: &Path, language: impl Into<SpecialTokens>) -> Result<Self, ModelError> {
        Self::find(tokenizer, language.into(), true)
    }

    /// `grows`: the vocabulary may be raised.
    fn find(tokenizer: &Path, language: SpecialTokens, grows: bool) -> Result<Self, ModelError> {
        let (_, path) = TokenizerKind::of(tokenizer)?;
        let value = tokenizer_json(tokenizer)?;
        let error = |reason: &str| ModelError::Config { path: path.clone(), reason: reason.into() };
        let eos = if language.captions_end_with_newline {
            let end = value.pointer("/model/vocab").and_then(|vocabulary| vocabulary.get(NEWLINE));
            let end = (end.and_then(Value::as_u64))
                .ok_or_else(|| error("no line feed in a byte-level vocabulary: captions end with one"))?;
            vec![end as u32]
        } else {
            language.eos.clone()
        };
        let image = match id_of_image(&value).filter(|_| grows) {
            Some(image) => Some(image),
            None => image_token(&value, tokenizer, &language)?.or_else(|| grows.then(|| first_free(&value))),
        };
        let image = image.ok_or_else(|| {
            error("no special token is free to mark pictures: add `<image>` to the tokenizer")
        })?;
        Ok(Self { image, bos: language.bos, pad: language.pad, eos })
    }

    pub(super) fn validate(&self, vocabulary: usize) -> Result<(), ModelError> {
        let all = [self.image, self.bos, self.pad].into_iter().chain(self.eos.iter().copied());
        for token in all {
            if token as usize >= vocabulary {
                let reason = format!("special token {token}, the language model has {vocabulary}");
                return Err(ModelError::input("parts of BLIP-2", reason));
            }
        }
        if [self.bos, self.pad].contains(&self.image) || self.eos.contains(&self.image) {
            let reason = format!("the image token {} is also the start, pad or end token", self.image);
            return Err(ModelError::input("parts of BLIP-2", reason));
        }
        Ok(())
    }
}

/// `<image>`, or the special token with the smallest id that has no other meaning.
fn image_token(value: &Value, tokenizer: &Path, language: &SpecialTokens) -> Result<Option<u32>, ModelError> {
    let special: Vec<(u32, &str)> = (value["added_tokens"].as_array().into_iter().flatten())
        .filter(|token| token["special"].as_bool() == Some(true))
        .filter_map(|token| Some((u32::try_from(token["id"].as_u64()?).ok()?, token["content"].as_str()?)))
        .filter(|(id, _)| (*id as usize) < language.vocab_size)
        .collect();
    if let Some((id, _)) = special.iter().find(|(_, content)| *content == IMAGE) {
        return Ok(Some(*id));
    }
    // A GGUF file has no settings: its special tokens are among the language model's.
    let settings = settings(tokenizer)?;
    let named: BTreeSet<&str> = (["bos_token", "eos_token", "pad_token", "unk_token"].iter())
        .filter_map(|field| named_token(&settings, field))
        .collect();
    let mut taken = language.eos.clone();
    taken.extend([language.bos, language.pad]);
    taken.extend(value.pointer("/model/unk_id").and_then(Value::as_u64).map(|id| id as u32));
    let unknown = value.pointer("/model/unk_token").and_then(Value::as_str);
    let is_free =
        |id: &u32, content: &str| !taken.contains(id) && !named.contains(content) && Some(content) != unknown;
    let free = special.iter().filter(|(id, content)| is_free(id, content));
    Ok(free.map(|(id, _)| *id).min())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::LanguageSizes;
    use crate::language::opt::OptConfig;
    use crate::language::t5::T5Config;
    use serde_json::json;

    fn choose(tokens: &[(u32, &str)], newline: &str) -> Result<PromptTokens, ModelError> {
        choose_for(OptConfig { vocab_size: 20, ..OptConfig::default() }.special_tokens(), tokens, newline)
    }

    fn choose_for(
        language: impl Into<SpecialTokens>,
        tokens: &[(u32, &str)],
        newline: &str,
    ) -> Result<PromptTokens, ModelError> {
        let folder = tempfile::tempdir().unwrap();
        let added: Vec<Value> = (tokens.iter())
            .map(|(id, content)| json!({"id": id, "content": content, "special": true}))
            .collect();
        let tokenizer = json!({"added_tokens": added, "model": {"vocab": {newline: 7}}});
        std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        let settings = json!({"bos_token": "</s>", "unk_token": {"content": "<unk>"}});
        std::fs::write(folder.path().join("tokenizer_config.json"), settings.to_string()).unwrap();
        PromptTokens::choose(folder.path(), language)
    }

    #[test]
    fn the_image_token_is_one_that_no_text_produces() {
        let own =
            choose(&[(0, "<s>"), (1, "<pad>"), (2, "</s>"), (3, "<unk>"), (9, "<image>")], "Ċ").unwrap();
        assert_eq!(own, PromptTokens { image: 9, bos: 2, pad: 1, eos: vec![7] });
        let borrowed = choose(&[(1, "<pad>"), (2, "</s>"), (3, "<unk>"), (5, "<mask>"), (4, "<s>")], "Ċ");
        assert_eq!(borrowed.unwrap().image, 4);
        let none =
            choose(&[(1, "<pad>"), (2, "</s>"), (3, "<unk>"), (99, "<image>")], "Ċ").unwrap_err().to_string();
        assert!(none.contains("<image>"), "{none}");
        let no_end = choose(&[(0, "<s>")], "x").unwrap_err().to_string();
        assert!(no_end.contains("line feed"), "{no_end}");
    }

    #[test]
    fn an_encoders_own_end_token_ends_captions() {
        let config = T5Config { vocab_size: 20, ..T5Config::default() };
        let tokens = [(0, "<pad>"), (1, "</s>"), (2, "<unk>"), (18, "<extra_id_1>"), (19, "<extra_id_0>")];
        let chosen = choose_for(config.special_tokens(), &tokens, "no line feed").unwrap();
        assert_eq!(chosen, PromptTokens { image: 18, bos: 1, pad: 0, eos: vec![1] });
    }
}
