//! Captions of images.

use std::path::{Path, PathBuf};

use blip2_evaluation::caption_tools::java::Java;
use blip2_evaluation::caption_tools::{meteor, ptb, spice};
use blip2_evaluation::error::captions::CaptionsError;
use blip2_evaluation::error::tools::ToolError;
use blip2_evaluation::metrics::bootstrap::{ScoreName, Scored};
use blip2_evaluation::metrics::captions::coco::{self, Source};
use blip2_evaluation::metrics::captions::corpus::{Corpus, ImageCaptions, TokenCorpus};
use blip2_evaluation::metrics::captions::scores::{CaptionNumbers, CaptionScores, ImageScores};
use blip2_evaluation::result_files;
use blip2_evaluation::sets::captioned::CaptionedImage;

use super::references::{Case, Judged, References};
use crate::error::CliError;

/// What makes words of captions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::commands::eval) enum Tokenizer {
    /// This program.
    Native,
    /// The toolkit's own, in a folder.
    Java(PathBuf),
}

impl Tokenizer {
    /// `ptb` or `java:FOLDER`.
    pub(in crate::commands::eval) fn parse(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("java:")) {
            ("ptb", _) => Ok(Self::Native),
            (_, Some(folder)) if !folder.is_empty() => Ok(Self::Java(folder.into())),
            _ => Err("ptb, or java:FOLDER with the folder of the toolkit's jar".to_owned()),
        }
    }
}

/// What compares captions.
#[derive(Debug, Clone)]
pub(in crate::commands::eval) struct CaptionScorer {
    /// What makes words of them.
    pub(in crate::commands::eval) tokenizer: Tokenizer,
    /// The folder of METEOR's jar, where it is run.
    pub(in crate::commands::eval) meteor: Option<PathBuf>,
    /// The folder of SPICE's jar, where it is run.
    pub(in crate::commands::eval) spice: Option<PathBuf>,
}

impl CaptionScorer {
    /// The scores of images' captions.
    pub(in crate::commands::eval) fn judged(&self, corpus: &Corpus) -> Result<Judged, CliError> {
        let words = self.words(corpus)?;
        let scores = self.scores(&words)?;
        let cases =
            corpus.images().iter().zip(&scores.images).map(|(image, scores)| case(image, scores)).collect();
        Ok(Judged { scored: Box::new(ScoredCaptions::new(scores)), cases })
    }

    fn scores(&self, words: &TokenCorpus) -> Result<CaptionScores, ToolError> {
        let java = Java::default();
        let mut scores = CaptionScores::of(words);
        if let Some(folder) = &self.meteor {
            scores = scores.with_meteor(&meteor::statistics(words, folder, &java)?)?;
        }
        if let Some(folder) = &self.spice {
            scores = scores.with_spice(&spice::scores(words, folder, &java)?)?;
        }
        Ok(scores)
    }

    fn words(&self, corpus: &Corpus) -> Result<TokenCorpus, ToolError> {
        match &self.tokenizer {
            Tokenizer::Native => Ok(corpus.tokenized()),
            Tokenizer::Java(folder) => ptb::tokenized(corpus, folder, &Java::default()),
        }
    }

    /// What the reader of the scores must know of how they were made.
    pub(in crate::commands::eval) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        match &self.tokenizer {
            Tokenizer::Native => {
                notes.push("words by the native tokenizer (--tokenizer java:FOLDER)".to_owned())
            }
            Tokenizer::Java(folder) => notes.push(format!("words by the tokenizer in {}", folder.display())),
        }
        let absent = [("METEOR", "--meteor", &self.meteor), ("SPICE", "--spice", &self.spice)];
        for (metric, flag, folder) in absent {
            if folder.is_none() {
                notes.push(format!("without {metric}, which its own program computes ({flag} FOLDER)"));
            }
        }
        notes
    }
}

/// Captions that people wrote, and what compares others with them.
pub(in crate::commands::eval) struct CaptionReferences {
    origin: String,
    content: Vec<u8>,
    scorer: CaptionScorer,
}

impl CaptionReferences {
    /// Reads the references.
    pub(in crate::commands::eval) fn read(path: &Path, scorer: CaptionScorer) -> Result<Self, CliError> {
        Ok(Self { origin: path.display().to_string(), content: content(path)?, scorer })
    }

    /// Of captions that were read from `path`.
    pub(in crate::commands::eval) fn of(
        path: &Path,
        images: Vec<CaptionedImage>,
        scorer: CaptionScorer,
    ) -> Self {
        let image = |CaptionedImage { id, captions }: CaptionedImage| ImageCaptions {
            image: id,
            references: captions,
            hypothesis: String::new(),
        };
        let images: Vec<ImageCaptions> = images.into_iter().map(image).collect();
        let content = result_files::caption_references(&images).to_string().into_bytes();
        Self { origin: path.display().to_string(), content, scorer }
    }
}

fn content(path: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(path).map_err(|error| CliError::failed(format!("{}: {error}", path.display())))
}

/// Captions that are no set to score are bad input: the files are what was typed.
pub(in crate::commands::eval) fn unusable(error: CaptionsError) -> CliError {
    CliError::BadInput(error.to_string())
}

impl References for CaptionReferences {
    fn judge(&self, results: &Path) -> Result<Judged, CliError> {
        let (origin, written) = (results.display().to_string(), content(results)?);
        let annotations = Source { origin: &self.origin, content: &self.content };
        let corpus =
            coco::corpus(annotations, Source { origin: &origin, content: &written }).map_err(unusable)?;
        self.scorer.judged(&corpus)
    }

    fn notes(&self) -> Vec<String> {
        self.scorer.notes()
    }
}

fn case(image: &ImageCaptions, scores: &ImageScores) -> Case {
    Case {
        key: format!("image {}", image.image),
        asked: None,
        expected: image.references.join(" | "),
        given: image.hypothesis.clone(),
        thumbnail: None,
        score: format!("CIDEr {:.2}", 100.0 * scores.cider),
        order: scores.cider,
    }
}

/// Numbers of captions, times 100.
struct ScoredCaptions {
    names: Vec<ScoreName>,
    scores: CaptionScores,
}

impl ScoredCaptions {
    fn new(scores: CaptionScores) -> Self {
        let names = scores.corpus().named().into_iter().map(|(name, _)| ScoreName::overall(name)).collect();
        Self { names, scores }
    }
}

fn hundredfold(numbers: &CaptionNumbers) -> impl Iterator<Item = f64> {
    numbers.named().into_iter().map(|(_, value)| 100.0 * value)
}

impl Scored for ScoredCaptions {
    fn names(&self) -> &[ScoreName] {
        &self.names
    }

    fn items(&self) -> Vec<usize> {
        vec![self.images(); self.names.len()]
    }

    fn values(&self) -> Vec<f64> {
        hundredfold(&self.scores.corpus()).collect()
    }

    fn images(&self) -> usize {
        self.scores.images.len()
    }

    fn over(&self, draw: &[usize]) -> Vec<Option<f64>> {
        hundredfold(&self.scores.of_draw(draw)).map(Some).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tokenizer_is_native_or_in_a_folder() {
        assert_eq!(Tokenizer::parse("ptb"), Ok(Tokenizer::Native));
        assert_eq!(Tokenizer::parse("java:jars"), Ok(Tokenizer::Java("jars".into())));
        for odd in ["java:", "java", "", "stanford"] {
            assert!(Tokenizer::parse(odd).unwrap_err().contains("java:FOLDER"), "{odd}");
        }
    }
}
