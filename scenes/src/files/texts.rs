//! What is said of the training scenes, for language models.

use std::path::Path;

use crate::compose::Composed;
use crate::error::{Result, ScenesError};
use crate::grammar::{Question, answerable, captions};
use crate::scene::Scene;

/// A sentence a line.
#[derive(Default)]
pub(super) struct Texts {
    captions: String,
    questions: String,
}

impl Texts {
    /// All captions of the row's scene; all of its questions, and the row's own, with a caption and the
    /// answer.
    pub(super) fn add(&mut self, row: &Composed) {
        let scene: &Scene = &row.structure.scene;
        let mut asked = answerable(scene);
        if matches!(row.question, Question::Presence(_)) {
            asked.push(row.question);
        }
        for caption in captions(scene) {
            self.captions.push_str(&caption);
            self.captions.push('\n');
        }
        for question in asked {
            let answer = question.answer(scene).unwrap_or_default();
            self.questions.push_str(&format!("{}\t{}\t{answer}\n", row.caption, question.text()));
        }
    }

    /// Writes `captions.txt` and `questions.txt`.
    pub(super) fn write(self, folder: &Path) -> Result<()> {
        for (name, text) in [("captions.txt", self.captions), ("questions.txt", self.questions)] {
            let path = folder.join(name);
            std::fs::write(&path, text).map_err(|error| ScenesError::file(&path, error))?;
        }
        Ok(())
    }
}
