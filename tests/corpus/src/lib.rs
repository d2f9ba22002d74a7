//! Small Parquet files for tests: images of one colour each, captions of known words, and rows that are
//! spoilt; images made to harm; how properties are tested.

pub mod hostile;
pub mod properties;

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, ListBuilder, RecordBatch, StringArray, StringBuilder};
use image::{ImageFormat, Rgb, RgbImage};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use sha2::Digest;

/// A small JPEG.
pub fn one_image() -> Vec<u8> {
    Row::good(1).image
}

/// Rows of a file to write: images of one colour each, captions of known words.
#[derive(Debug, Clone)]
pub struct Corpus {
    rows: Vec<Row>,
    row_group: usize,
    caption_column: String,
    alternatives: bool,
    questions: bool,
}

#[derive(Debug, Clone)]
struct Row {
    image: Vec<u8>,
    caption: Option<String>,
    status: String,
    sha256: String,
}

impl Default for Corpus {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            row_group: 1000,
            caption_column: "caption".to_owned(),
            alternatives: false,
            questions: false,
        }
    }
}

impl Corpus {
    /// `rows` good rows.
    pub fn with_rows(rows: usize) -> Self {
        Self { rows: (0..rows).map(Row::good).collect(), ..Self::default() }
    }

    /// Rows of a row group.
    pub fn row_group(self, row_group: usize) -> Self {
        Self { row_group, ..self }
    }

    /// Adds a `captions` list: every caption, and the caption followed by "flag".
    pub fn with_alternatives(self) -> Self {
        Self { alternatives: true, ..self }
    }

    /// Adds a `question` with `answers`, which are the caption's words, the first one twice, and the image's
    /// `file`, the same for every three rows.
    pub fn with_questions(self) -> Self {
        Self { questions: true, ..self }
    }

    /// Another name for the caption column.
    pub fn captions_named(self, name: &str) -> Self {
        Self { caption_column: name.to_owned(), ..self }
    }

    /// Cuts a row's image in half, with a hash to match.
    pub fn truncated(mut self, row: usize) -> Self {
        let half = self.rows[row].image.len() / 2;
        self.rows[row].image.truncate(half);
        self.rows[row].sha256 = hex_sha256(&self.rows[row].image);
        self
    }

    /// Sets a row's image, with a hash to match.
    pub fn image(mut self, row: usize, encoded: &[u8]) -> Self {
        self.rows[row].image = encoded.to_vec();
        self.rows[row].sha256 = hex_sha256(encoded);
        self
    }

    /// Removes a row's caption.
    pub fn captionless(mut self, row: usize) -> Self {
        self.rows[row].caption = None;
        self
    }

    /// Sets a row's caption.
    pub fn caption(mut self, row: usize, caption: &str) -> Self {
        self.rows[row].caption = Some(caption.to_owned());
        self
    }

    /// Marks a row's download as failed.
    pub fn failed(mut self, row: usize) -> Self {
        self.rows[row].status = "failed_to_download".to_owned();
        self
    }

    /// Spoils a row's hash.
    pub fn wrong_hash(mut self, row: usize) -> Self {
        self.rows[row].sha256 = "0".repeat(64);
        self
    }

    /// Writes the file.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, path: &str) {
        let text = |values: Vec<Option<String>>| Arc::new(StringArray::from(values)) as ArrayRef;
        let keys = (0..self.rows.len()).map(|row| Some(format!("key-{row}")));
        let column = |value: fn(&Row) -> Option<String>| text(self.rows.iter().map(value).collect());
        let images = BinaryArray::from_iter_values(self.rows.iter().map(|row| &row.image));
        let mut columns = vec![
            ("key", text(keys.collect()), true),
            (self.caption_column.as_str(), column(|row| row.caption.clone()), true),
            ("status", column(|row| Some(row.status.clone())), true),
            ("sha256", column(|row| Some(row.sha256.clone())), true),
            ("jpg", Arc::new(images) as ArrayRef, true),
        ];
        if self.alternatives {
            let mut lists = ListBuilder::new(StringBuilder::new());
            for caption in self.rows.iter().map(|row| row.caption.clone().unwrap_or_default()) {
                lists.append_value([Some(caption.clone()), Some(format!("{caption} flag"))]);
            }
            columns.push(("captions", Arc::new(lists.finish()), true));
        }
        if self.questions {
            let mut answers = ListBuilder::new(StringBuilder::new());
            for caption in self.rows.iter().map(|row| row.caption.clone().unwrap_or_default()) {
                answers
                    .append_value(caption.split(' ').next().into_iter().chain(caption.split(' ')).map(Some));
            }
            let asked = (0..self.rows.len()).map(|row| Some(format!("What is No. {row}?")));
            let files = (0..self.rows.len()).map(|row| Some(format!("file-{}.jpg", row / 3)));
            columns.push(("question", text(asked.collect()), true));
            columns.push(("answers", Arc::new(answers.finish()), true));
            columns.push(("file", text(files.collect()), true));
        }
        let batch = RecordBatch::try_from_iter_with_nullable(columns).expect("columns of one length");
        let properties =
            WriterProperties::builder().set_max_row_group_row_count(Some(self.row_group)).build();
        let file = std::fs::File::create(path).expect("the file can be created");
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("a writer");
        writer.write(&batch).expect("rows are written");
        writer.close().expect("the footer is written");
    }
}

impl Row {
    fn good(row: usize) -> Self {
        let colour = Rgb([(row * 13 % 256) as u8, (row * 57 % 256) as u8, (row * 101 % 256) as u8]);
        let mut image = Cursor::new(Vec::new());
        RgbImage::from_pixel(12, 10, colour).write_to(&mut image, ImageFormat::Jpeg).expect("a JPEG");
        let image = image.into_inner();
        let words = ["red", "apple", "cat", "face", "flag", "heart", "hand"];
        let caption = format!("{} {}", words[row % 7], words[row / 7 % 7]);
        Self { sha256: hex_sha256(&image), image, caption: Some(caption), status: "success".to_owned() }
    }
}

fn hex_sha256(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
