//! What lies in the place of a model: files, tensors, tokenizer, and what is wrong with them; no weights are
//! read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use blip2_dataset::text::TextEncoding;
use blip2_model_files::tokenizer::TokenizerKind;
use blip2_model_files::weights::WeightSource;
use blip2_store::fetch::is_weight_file;
use blip2_store::secret_url::{redacted, redacted_text};
use serde::Serialize;

use crate::tokenizer::open_tokenizer;

/// Room for any probe of a tokenizer.
pub const PROBE_LENGTH: usize = 32;

/// A part of a configuration's models: its files and what they hold.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PartReport {
    /// Which part.
    pub part: &'static str,
    /// The key that names it.
    pub key: &'static str,
    /// Its place as configured, without credentials.
    pub place: String,
    /// What it is, in words.
    pub kind: String,
    /// Files with weights.
    pub files: Vec<FileReport>,
    /// Tensors in them.
    pub tensors: usize,
    /// Their elements.
    pub elements: usize,
    /// Elements that this part is made of, where that was compared tensor by tensor.
    pub parameters: Option<usize>,
    /// Numbers of the tensors.
    pub dtypes: Vec<String>,
    /// Its tokenizer, if it is asked for one.
    pub tokenizer: Option<TokenizerReport>,
    /// What does not fit.
    pub problems: Vec<String>,
}

/// A file.
#[derive(Debug, Clone, Serialize)]
pub struct FileReport {
    /// Where.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
}

/// A tokenizer.
#[derive(Debug, Clone, Serialize)]
pub struct TokenizerReport {
    /// The file that is read.
    pub file: PathBuf,
    /// `Json`, `SentencePiece`, `BytePairs`, `WordPieces` or `Gguf`.
    pub kind: String,
    /// Tokens.
    pub tokens: usize,
    /// What is added to it.
    pub added: Option<String>,
}

impl PartReport {
    /// The part that `key` names, and whether anything is there.
    pub fn open(part: &'static str, key: &'static str, place: &str) -> Self {
        let mut report = Self { part, key, place: redacted(place), ..Self::default() };
        if place.is_empty() {
            report.problems.push("is not set".into());
        } else if !Path::new(place).exists() {
            report
                .problems
                .push("there is no such folder or file (paths are relative to the current directory)".into());
        }
        report
    }

    /// Whether nothing is wrong so far.
    pub fn is_there(&self) -> bool {
        self.problems.is_empty()
    }

    /// Lists the files and tensors of `source`.
    pub fn list(&mut self, source: &WeightSource) {
        let (mut dtypes, mut files) = (BTreeSet::new(), BTreeSet::new());
        for tensor in source.tensors() {
            self.tensors += 1;
            self.elements += tensor.shape.iter().product::<usize>();
            dtypes.insert(tensor.dtype);
            files.insert(tensor.file);
        }
        let length = |path: &PathBuf| std::fs::metadata(path).map_or(0, |found| found.len());
        self.files = files.into_iter().map(|path| FileReport { bytes: length(&path), path }).collect();
        self.dtypes = dtypes.into_iter().collect();
    }

    /// Lists the files with weights in a folder, or the file. Whoever compares them has said what is wrong
    /// with them.
    pub fn list_weights(&mut self, path: &Path) {
        let alone = || {
            let entries = std::fs::read_dir(path).ok()?.flatten().map(|entry| entry.path());
            entries.filter(|file| is_weight_file(&file.to_string_lossy())).min()
        };
        let source = WeightSource::open_published(path).ok();
        let source = source.or_else(|| WeightSource::open_published(&alone()?).ok());
        if let Some(source) = source {
            self.list(&source);
        }
    }

    /// The value, or one more problem.
    pub fn note<T, E: std::fmt::Display>(&mut self, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                let text = redacted_problem(&error);
                if !self.problems.contains(&text) {
                    self.problems.push(text);
                }
                None
            }
        }
    }

    /// The tokenizer of a folder, with room for texts of `length` tokens.
    pub fn note_tokenizer(&mut self, path: &Path, length: usize) {
        let encoding = TextEncoding::new(length.max(PROBE_LENGTH), 0);
        let opened = self.note(open_tokenizer(path, encoding));
        if let (Some(encoder), Ok((kind, file))) = (opened, TokenizerKind::of(path)) {
            self.tokenizer = Some(TokenizerReport {
                file,
                kind: format!("{kind:?}"),
                tokens: encoder.vocab_size(),
                added: None,
            });
        }
    }
}

/// The error's text without what the report says beside it.
fn redacted_problem(error: &impl std::fmt::Display) -> String {
    let text = redacted_text(&error.to_string());
    text.strip_prefix("configuration: ").map(str::to_owned).unwrap_or(text)
}
