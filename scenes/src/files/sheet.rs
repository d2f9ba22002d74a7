//! Some rows of every split at a glance.

use std::fmt::Write as _;
use std::path::Path;

use image::imageops::replace;
use image::{Rgb, RgbImage};

use crate::compose::Composed;
use crate::error::{Result, ScenesError};
use crate::split::Split;

/// Rows of each split that are shown.
const SHOWN: u64 = 32;

/// Images in a line.
const COLUMNS: u64 = 16;

/// Pixels between images.
const GAP: u32 = 4;

/// The images, and what is said of them in the same order.
#[derive(Default)]
pub(super) struct Sheet {
    image: RgbImage,
    lines: String,
}

impl Sheet {
    /// Adds the row with this number of a split, if it is one of the first.
    pub(super) fn show(&mut self, split: Split, number: u64, row: &Composed) {
        if number >= SHOWN {
            return;
        }
        let cell = row.image.width() + GAP;
        let lines = SHOWN.div_ceil(COLUMNS);
        if self.image.is_empty() {
            let height = lines as u32 * Split::ALL.len() as u32 * cell + GAP;
            self.image = RgbImage::from_pixel(COLUMNS as u32 * cell + GAP, height, Rgb([96; 3]));
        }
        let place = Split::ALL.iter().position(|own| *own == split).unwrap_or(0) as u64;
        let line = place * lines + number / COLUMNS;
        let at = |index: u64| (index * u64::from(cell) + u64::from(GAP)) as i64;
        replace(&mut self.image, &row.image, at(number % COLUMNS), at(line));
        let (question, answer) = (row.question.text(), &row.answer);
        // Writing to a string cannot fail.
        let _ = writeln!(self.lines, "{}\t{}\t{question} {answer}", row.key, row.caption);
    }

    /// Writes `contact-sheet.png`, and `contact-sheet.txt` with key, caption, question and answer.
    pub(super) fn write(self, folder: &Path) -> Result<()> {
        let text = folder.join("contact-sheet.txt");
        std::fs::write(&text, self.lines).map_err(|error| ScenesError::file(&text, error))?;
        if self.image.is_empty() {
            return Ok(());
        }
        let path = folder.join("contact-sheet.png");
        self.image.save(&path).map_err(|error| ScenesError::file(&path, error))
    }
}
