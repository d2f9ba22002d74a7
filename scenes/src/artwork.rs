//! Drawings of things, read from the emoji corpus and cut out of their white.

mod cut;
mod resize;
mod sprite;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::{Array, BinaryArray, RecordBatch, StringArray};
use blip2_images::decode::decode_image;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::error::{Result, ScenesError};
use crate::words::{Thing, Vendor};

pub(crate) use sprite::Sprite;

/// The most pixels of a drawing.
const MAX_PIXELS: u64 = 1 << 20;

/// A thing as one artist has drawn it.
#[derive(Debug, Clone)]
pub struct Drawing {
    /// Its key in the corpus.
    pub key: String,
    sprite: Sprite,
}

impl Drawing {
    /// The drawing with its longer side `side` pixels long.
    pub(crate) fn at_size(&self, side: u32) -> Sprite {
        let longer = self.sprite.width.max(self.sprite.height);
        let scaled = |own: u32| ((own * side + longer / 2) / longer).max(1);
        resize::resize(&self.sprite, scaled(self.sprite.width), scaled(self.sprite.height))
    }
}

/// All drawings that scenes are made of.
#[derive(Debug, Clone)]
pub struct Artwork {
    drawings: BTreeMap<(Thing, Vendor), Drawing>,
}

impl Artwork {
    /// Reads the drawings of all things from a folder of the emoji corpus.
    ///
    /// # Errors
    /// [`ScenesError::File`]: a file that cannot be read; [`ScenesError::NoDrawing`]: another corpus.
    pub fn open(folder: &Path) -> Result<Self> {
        let mut drawings = BTreeMap::new();
        for path in parquet_files(folder)? {
            let file = File::open(&path).map_err(|error| ScenesError::file(&path, error))?;
            let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.build());
            for batch in reader.map_err(|error| ScenesError::file(&path, error))? {
                let batch = batch.map_err(|error| ScenesError::file(&path, error))?;
                read_drawings(&batch, &mut drawings).map_err(|reason| ScenesError::file(&path, reason))?;
            }
        }
        let wanted = || Thing::all().flat_map(|thing| Vendor::ALL.iter().map(move |vendor| (thing, *vendor)));
        if let Some((thing, vendor)) = wanted().find(|wanted| !drawings.contains_key(wanted)) {
            let (name, vendor) = (thing.drawn(), vendor.word());
            return Err(ScenesError::NoDrawing { folder: folder.to_owned(), name, vendor });
        }
        Ok(Self { drawings })
    }

    /// A thing as an artist has drawn it.
    pub fn drawing(&self, thing: Thing, vendor: Vendor) -> &Drawing {
        &self.drawings[&(thing, vendor)]
    }
}

/// The files of images, in the order of their names; those of other columns have other names.
fn parquet_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error: std::io::Error| ScenesError::file(folder, error);
    let mut files = Vec::new();
    for entry in folder.read_dir().map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.ends_with(".parquet") && (name.starts_with("train-") || name.starts_with("test-")) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_drawings(
    batch: &RecordBatch,
    drawings: &mut BTreeMap<(Thing, Vendor), Drawing>,
) -> std::result::Result<(), String> {
    let [keys, captions, sources] =
        ["key", "caption", "source"].map(|name| column::<StringArray>(batch, name));
    let (keys, captions, sources) = (keys?, captions?, sources?);
    let images = column::<BinaryArray>(batch, "jpg")?;
    for row in 0..batch.num_rows() {
        let thing = Thing::all().find(|thing| thing.drawn() == captions.value(row));
        let vendor = Vendor::ALL.iter().copied().find(|vendor| vendor.word() == sources.value(row));
        let Some(place) = thing.zip(vendor) else { continue };
        let key = keys.value(row).to_owned();
        let image = decode_image(images.value(row), MAX_PIXELS).map_err(|error| format!("{key}: {error}"))?;
        let sprite =
            cut::cut_out(&image).ok_or_else(|| ScenesError::EmptyDrawing { key: key.clone() }.to_string())?;
        drawings.entry(place).or_insert(Drawing { key, sprite });
    }
    Ok(())
}

fn column<'a, T: Array + 'static>(batch: &'a RecordBatch, name: &str) -> std::result::Result<&'a T, String> {
    let found = batch.column_by_name(name).and_then(|column| column.as_any().downcast_ref());
    found.ok_or_else(|| format!("it has no column `{name}` as the emoji corpus has it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drawing_is_there_and_has_an_outline() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/corpus");
        let artwork = Artwork::open(&folder).unwrap();
        for (thing, vendor) in Thing::all().flat_map(|thing| Vendor::ALL.iter().map(move |own| (thing, *own)))
        {
            let drawing = artwork.drawing(thing, vendor);
            let Sprite { width, height, pixels } = &drawing.sprite;
            let solid = pixels.iter().filter(|pixel| pixel[3] == 255).count() as u32;
            // A drawing from which white has leaked out has little left; one that kept its white is a square.
            let share = 100 * solid / (width * height);
            assert!(
                width.max(height) >= &44 && (10..=97).contains(&share),
                "{}: {share} % of {width} x {height}",
                drawing.key
            );
        }
    }

    #[test]
    fn another_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = Artwork::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("no drawing \"cat\" of google"), "{error}");
        assert!(Artwork::open(&folder.path().join("nowhere")).is_err());
    }
}
