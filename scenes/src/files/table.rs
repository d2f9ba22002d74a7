//! Rows as Parquet: img2dataset's columns, those of questions, and the scene.

use std::fs::File;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int32Array, ListBuilder, RecordBatch, StringArray, StringBuilder};
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::compose::Composed;
use crate::error::{Result, ScenesError};

/// Rows of a row group.
pub(super) const ROW_GROUP: u64 = 256;

/// Small drawings keep their edges at this quality.
const JPEG_QUALITY: u8 = 92;

/// A Parquet file being written.
pub(super) struct Table {
    path: PathBuf,
    writer: Option<ArrowWriter<File>>,
}

impl Table {
    /// The file is made with the first rows: a split without rows has none.
    pub(super) fn create(path: &Path) -> Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(ScenesError::file(path, error)),
            _ => Ok(Self { path: path.to_owned(), writer: None }),
        }
    }

    /// A row group.
    pub(super) fn write(&mut self, rows: &[Composed]) -> Result<()> {
        let failed = |error: String| ScenesError::file(&self.path, error);
        let batch = batch(rows).map_err(failed)?;
        if self.writer.is_none() {
            let properties = WriterProperties::builder()
                .set_max_row_group_row_count(Some(ROW_GROUP as usize))
                // The version of the writer would make the bytes depend on it.
                .set_created_by("blip2-scenes".to_owned())
                .build();
            let file = File::create(&self.path).map_err(|error| failed(error.to_string()))?;
            let writer = ArrowWriter::try_new(file, batch.schema(), Some(properties));
            self.writer = Some(writer.map_err(|error| failed(error.to_string()))?);
        }
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.write(&batch).and_then(|()| writer.flush()).map_err(|error| failed(error.to_string()))
    }

    /// Writes the footer.
    pub(super) fn close(self) -> Result<()> {
        let closed = self.writer.map(ArrowWriter::close).transpose();
        closed.map(|_| ()).map_err(|error| ScenesError::file(&self.path, error))
    }
}

fn batch(rows: &[Composed]) -> std::result::Result<RecordBatch, String> {
    let encoded: Vec<Vec<u8>> =
        rows.par_iter().map(|row| jpeg(&row.image)).collect::<std::result::Result<_, _>>()?;
    let texts = |of: &dyn Fn(&Composed) -> String| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(of(row))).collect::<StringArray>())
    };
    let sides = |of: fn(&RgbImage) -> u32| -> ArrayRef {
        Arc::new(rows.iter().map(|row| of(&row.image) as i32).collect::<Int32Array>())
    };
    let hashes = encoded.iter().map(|jpeg| {
        let digest = Sha256::digest(jpeg);
        Some(digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    });
    let mut answers = ListBuilder::new(StringBuilder::new());
    rows.iter().for_each(|row| answers.append_value([Some(&row.answer)]));
    let scenes = rows.iter().map(|row| serde_json::to_string(&row.structure).map(Some));
    let scenes: StringArray =
        scenes.collect::<std::result::Result<_, _>>().map_err(|error| error.to_string())?;
    let columns: [(&str, ArrayRef); 13] = [
        ("key", texts(&|row| row.key.clone())),
        ("url", texts(&|row| format!("scene://{}", row.key))),
        ("caption", texts(&|row| row.caption.clone())),
        ("status", texts(&|_| "success".to_owned())),
        ("width", sides(RgbImage::width)),
        ("height", sides(RgbImage::height)),
        ("sha256", Arc::new(hashes.collect::<StringArray>())),
        ("source", texts(&|_| "scenes".to_owned())),
        ("question", texts(&|row| row.question.text())),
        ("question_type", texts(&|row| row.question.kind().name().to_owned())),
        ("answers", Arc::new(answers.finish())),
        ("scene", Arc::new(scenes)),
        ("jpg", Arc::new(BinaryArray::from_iter_values(&encoded))),
    ];
    RecordBatch::try_from_iter(columns).map_err(|error| error.to_string())
}

fn jpeg(image: &RgbImage) -> std::result::Result<Vec<u8>, String> {
    let mut encoded = Cursor::new(Vec::new());
    let encoder = JpegEncoder::new_with_quality(&mut encoded, JPEG_QUALITY);
    image.write_with_encoder(encoder).map_err(|error| error.to_string())?;
    Ok(encoded.into_inner())
}
