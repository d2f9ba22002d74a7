//! Every kind on a tiny sample, what is killed and run again, and the way into the loader.

mod archives;
mod kinds;
mod lists;
mod resuming;

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use blip2_store::Location;
use image::{ImageFormat, Rgb, RgbImage};

use super::*;
use crate::corpus::columns::ColumnNames;
use crate::corpus::manifest::Manifest;
use crate::corpus::samples::{EvaluationSet, read_all};
use crate::error::{DatasetError, Result};
use crate::quarantine::QuarantineList;

/// An image of one colour.
fn image(shade: u8, format: ImageFormat) -> Vec<u8> {
    let mut encoded = Cursor::new(Vec::new());
    RgbImage::from_pixel(24, 16, Rgb([shade, 90, 200])).write_to(&mut encoded, format).unwrap();
    encoded.into_inner()
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A temporary folder with `source` for what is ingested and `out`.
struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> String {
        text(&self.folder.path().join(name))
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        text(&path)
    }

    async fn ingest(&self, sources: &[String], settings: IngestSettings) -> Result<IngestSummary> {
        let out = Location::parse(&self.path("out")).unwrap();
        ingest(sources, &out, settings, Share::WHOLE, |_| ()).await
    }

    async fn read(&self) -> EvaluationSet {
        let sources = [self.path("out/part-*.parquet")];
        read_all(&sources, &ColumnNames::default(), 1 << 20).await.unwrap()
    }

    /// Everything that was written, by its path.
    fn written(&self) -> BTreeMap<String, Vec<u8>> {
        files_below(&self.folder.path().join("out"))
    }
}

fn files_below(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let name = text(path.strip_prefix(root).unwrap());
                    found.insert(name, std::fs::read(path).unwrap());
                }
            }
        }
    }
    found
}

/// A WebDataset archive of members with their contents.
fn archive(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Archive of `rows` good rows.
fn good_archive(rows: u8) -> Vec<u8> {
    let members: Vec<(String, Vec<u8>)> = (0..rows)
        .flat_map(|row| {
            let image = image(row, ImageFormat::Png);
            [(format!("{row:05}.png"), image), (format!("{row:05}.txt"), format!("row {row}").into_bytes())]
        })
        .collect();
    archive(&members.iter().map(|(name, content)| (name.as_str(), content.clone())).collect::<Vec<_>>())
}
