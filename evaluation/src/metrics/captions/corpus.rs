//! Images with their generated caption and their references: as they were written, and as words.

use std::collections::BTreeMap;

use super::ptb::Tokenizer;
use crate::error::captions::{CaptionsError, Result};
use crate::row_id::RowId;

/// One image's captions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageCaptions {
    /// Which image.
    pub image: RowId,
    /// What people wrote, at least one, in the file's order.
    pub references: Vec<String>,
    /// What a model wrote.
    pub hypothesis: String,
}

/// Captions as they were written: at least one image, each once and with a reference, by ascending id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corpus(Vec<ImageCaptions>);

impl Corpus {
    /// Of these images, in any order.
    ///
    /// # Errors
    /// No image, images that are there twice, images without references.
    pub fn new(mut images: Vec<ImageCaptions>) -> Result<Self> {
        if images.is_empty() {
            return Err(CaptionsError::Empty);
        }
        images.sort_by(|one, other| one.image.cmp(&other.image));
        let mut counts = BTreeMap::new();
        for image in &images {
            *counts.entry(&image.image).or_insert(0_usize) += 1;
        }
        let twice: Vec<String> =
            counts.iter().filter(|(_, count)| **count > 1).map(|(image, _)| image.to_string()).collect();
        if !twice.is_empty() {
            return Err(CaptionsError::Twice { images: twice });
        }
        let without = images.iter().filter(|image| image.references.is_empty());
        let without: Vec<String> = without.map(|image| image.image.to_string()).collect();
        if !without.is_empty() {
            return Err(CaptionsError::NoReference { images: without });
        }
        Ok(Self(images))
    }

    /// The images.
    pub fn images(&self) -> &[ImageCaptions] {
        &self.0
    }

    /// In words, by the tokenizer of this crate.
    pub fn tokenized(&self) -> TokenCorpus {
        let mut tokenizer = Tokenizer::default();
        let words = |image: &ImageCaptions| ImageCaptions {
            image: image.image.clone(),
            references: image.references.iter().map(|caption| tokenizer.words(caption)).collect(),
            hypothesis: tokenizer.words(&image.hypothesis),
        };
        TokenCorpus(self.0.iter().map(words).collect())
    }

    /// In words that another tokenizer found: of each image first the references, then the generated caption.
    ///
    /// # Errors
    /// Another number of captions.
    pub fn with_words(&self, words: Vec<String>) -> Result<TokenCorpus> {
        let (found, expected) = (words.len(), self.captions().count());
        if found != expected {
            return Err(CaptionsError::Values { what: "tokenizer", found, images: expected });
        }
        let mut words = words.into_iter();
        let of = |image: &ImageCaptions| ImageCaptions {
            image: image.image.clone(),
            references: words.by_ref().take(image.references.len()).collect(),
            hypothesis: words.next().unwrap_or_default(),
        };
        Ok(TokenCorpus(self.0.iter().map(of).collect()))
    }

    /// All captions in the order of [`Corpus::with_words`].
    pub fn captions(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|image| image.references.iter().chain([&image.hypothesis]).map(String::as_str))
    }
}

/// A [`Corpus`] whose captions are words joined by single blanks, without marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenCorpus(Vec<ImageCaptions>);

impl TokenCorpus {
    /// The images, by ascending id.
    pub fn images(&self) -> &[ImageCaptions] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(image: RowId, references: &[&str]) -> ImageCaptions {
        let references = references.iter().map(|&reference| reference.to_owned()).collect();
        ImageCaptions { image, references, hypothesis: "A dog's here.".to_owned() }
    }

    #[test]
    fn images_are_sorted_and_there_once() {
        let ids = [RowId::Text("b".to_owned()), RowId::Number(10), RowId::Number(9)];
        let images = ids.clone().map(|id| image(id, &["one"]));
        let corpus = Corpus::new(images.to_vec()).unwrap();
        let sorted: Vec<_> = corpus.images().iter().map(|image| image.image.to_string()).collect();
        assert_eq!(sorted, ["9", "10", "b"]);
        let twice = Corpus::new([images[0].clone(), images[0].clone()].to_vec()).unwrap_err();
        assert!(matches!(&twice, CaptionsError::Twice { images } if images == &["b"]), "{twice}");
        assert!(matches!(Corpus::new(Vec::new()), Err(CaptionsError::Empty)));
        let without = Corpus::new(vec![image(RowId::Number(3), &[])]).unwrap_err();
        assert!(without.to_string().contains("reference caption: 3"), "{without}");
    }

    #[test]
    fn words_of_another_tokenizer_find_their_places() {
        let corpus = Corpus::new(vec![
            image(RowId::Number(1), &["One.", "Two."]),
            image(RowId::Number(2), &["Three."]),
        ])
        .unwrap();
        let tokenized = corpus.tokenized();
        assert_eq!(tokenized.images()[0].references, ["one", "two"]);
        assert_eq!(tokenized.images()[1].hypothesis, "a dog 's here");
        let words = ["one", "two", "a dog 's here", "three", "a dog 's here"].map(str::to_owned).to_vec();
        assert_eq!(corpus.with_words(words).unwrap(), tokenized);
        assert!(corpus.with_words(Vec::new()).is_err());
    }
}
