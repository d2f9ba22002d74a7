//! The splits as files: Parquet, a contact sheet, and texts for language models.

mod sheet;
mod table;
mod texts;

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::compose::{Composed, Composer};
use crate::error::{Result, ScenesError};
use crate::split::Split;

/// How much to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// Rows to train on.
    pub train: u64,
    /// Rows of each other split.
    pub held_out: u64,
}

impl Rows {
    fn of(self, split: Split) -> u64 {
        if split == Split::Train { self.train } else { self.held_out }
    }
}

/// Where the file of a split's rows is.
pub fn table_path(folder: &Path, split: Split) -> PathBuf {
    folder.join(format!("{}-00000.parquet", split.name()))
}

/// Writes all splits into a folder: `SPLIT-00000.parquet`, `contact-sheet.png` with `contact-sheet.txt`, and
/// the texts of the training scenes as `text/captions.txt` and `text/questions.txt`.
///
/// # Errors
/// [`ScenesError::File`].
pub fn write(composer: &Composer, rows: Rows, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder.join("text")).map_err(|error| ScenesError::file(folder, error))?;
    let (mut sheet, mut texts) = (sheet::Sheet::default(), texts::Texts::default());
    for split in Split::ALL {
        let mut table = table::Table::create(&table_path(folder, split))?;
        for (first, composed) in parts(composer, split, rows.of(split)) {
            (first..).zip(&composed).for_each(|(number, row)| sheet.show(split, number, row));
            if split == Split::Train {
                composed.iter().for_each(|row| texts.add(row));
            }
            table.write(&composed)?;
        }
        table.close()?;
    }
    sheet.write(folder)?;
    texts.write(&folder.join("text"))
}

/// The rows of a split, a row group at a time; each row is computed on any thread.
fn parts(composer: &Composer, split: Split, rows: u64) -> impl Iterator<Item = (u64, Vec<Composed>)> {
    (0..rows).step_by(table::ROW_GROUP as usize).map(move |first| {
        let numbers = first..(first + table::ROW_GROUP).min(rows);
        (first, numbers.into_par_iter().map(|number| composer.compose(split, number)).collect())
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::compose::SIZE;
    use crate::grammar::{Question, parse};
    use crate::split::combinations;

    fn written() -> tempfile::TempDir {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/corpus");
        let folder = tempfile::tempdir().unwrap();
        let composer = Composer::open(&corpus, SIZE, 5).unwrap();
        write(&composer, Rows { train: 300, held_out: 40 }, folder.path()).unwrap();
        folder
    }

    #[test]
    fn the_same_seed_writes_the_same_bytes() {
        let (one, other) = (written(), rayon_of_one(written));
        let files =
            ["train-00000.parquet", "drawings-00000.parquet", "contact-sheet.png", "text/captions.txt"];
        for file in files {
            let read = |folder: &tempfile::TempDir| std::fs::read(folder.path().join(file)).unwrap();
            assert!(read(&one) == read(&other), "{file}");
        }
    }

    fn rayon_of_one<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(work)
    }

    #[test]
    fn texts_tell_nothing_that_is_held_out() {
        let folder = written();
        let lines = |name: &str| {
            let text = std::fs::read_to_string(folder.path().join("text").join(name)).unwrap();
            text.lines().map(str::to_owned).collect::<BTreeSet<String>>()
        };
        let captions = lines("captions.txt");
        assert!(captions.len() > 300, "both captions of a pair: {}", captions.len());
        for caption in captions {
            let scene = parse(&caption).expect("a caption");
            assert!(!combinations(&scene).iter().any(|combination| combination.is_held_out()), "{caption}");
        }
        for line in lines("questions.txt") {
            let [caption, question, answer] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
            let (scene, question) = (parse(caption).unwrap(), Question::parse(question).unwrap());
            assert_eq!(question.answer(&scene).as_deref(), Some(answer), "{line}");
        }
    }
}
