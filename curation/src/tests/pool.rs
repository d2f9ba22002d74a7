//! A small pool as Parquet: images of one colour each, texts of known words, and rows that are spoilt.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use image::{ImageFormat, Rgb, RgbImage};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use sha2::Digest;

/// Rows of a file to write.
pub(super) struct Pool {
    rows: Vec<Row>,
    row_group: usize,
}

struct Row {
    image: Vec<u8>,
    caption: Option<String>,
    sha256: String,
}

impl Pool {
    /// `rows` good rows.
    pub(super) fn with_rows(rows: usize) -> Self {
        Self { rows: (0..rows).map(Row::good).collect(), row_group: 1000 }
    }

    /// Rows of a row group.
    pub(super) fn row_group(self, row_group: usize) -> Self {
        Self { row_group, ..self }
    }

    /// Cuts a row's image in half, with a hash to match.
    pub(super) fn truncated(mut self, row: usize) -> Self {
        let row = &mut self.rows[row];
        row.image.truncate(row.image.len() / 2);
        row.sha256 = hex_sha256(&row.image);
        self
    }

    /// Removes a row's text.
    pub(super) fn captionless(mut self, row: usize) -> Self {
        self.rows[row].caption = None;
        self
    }

    /// Sets a row's text.
    pub(super) fn caption(mut self, row: usize, caption: &str) -> Self {
        self.rows[row].caption = Some(caption.to_owned());
        self
    }

    /// Spoils a row's hash.
    pub(super) fn wrong_hash(mut self, row: usize) -> Self {
        self.rows[row].sha256 = "0".repeat(64);
        self
    }

    /// Writes the file.
    pub(super) fn write(&self, path: &str) {
        let keys = StringArray::from_iter_values((0..self.rows.len()).map(|row| format!("key-{row}")));
        let captions: StringArray = self.rows.iter().map(|row| row.caption.clone()).collect();
        let hashes = StringArray::from_iter_values(self.rows.iter().map(|row| &row.sha256));
        let images = BinaryArray::from_iter_values(self.rows.iter().map(|row| &row.image));
        let columns: [(&str, ArrayRef); 4] = [
            ("key", Arc::new(keys)),
            ("caption", Arc::new(captions)),
            ("sha256", Arc::new(hashes)),
            ("jpg", Arc::new(images)),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let properties =
            WriterProperties::builder().set_max_row_group_row_count(Some(self.row_group)).build();
        let file = std::fs::File::create(path).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }
}

impl Row {
    fn good(row: usize) -> Self {
        let colour = Rgb([(row * 13 % 256) as u8, (row * 57 % 256) as u8, (row * 101 % 256) as u8]);
        let mut image = Cursor::new(Vec::new());
        RgbImage::from_pixel(12, 10, colour).write_to(&mut image, ImageFormat::Jpeg).unwrap();
        let image = image.into_inner();
        let words = ["red", "apple", "cat", "face", "flag", "heart", "hand"];
        let caption = format!("{} {}", words[row % 7], words[row / 7 % 7]);
        Self { sha256: hex_sha256(&image), image, caption: Some(caption) }
    }
}

fn hex_sha256(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
