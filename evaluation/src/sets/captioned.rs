//! Images with captions: COCO's and NoCaps' annotations, Karpathy's lists, tables and folders of one's own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use blip2_dataset::corpus::columns::ColumnNames;
use blip2_store::Location;
use serde::Deserialize;

use super::image_folder::ImageFolder;
use super::image_source::{ImageReader, ImageSource};
use super::item::{Identity, Item, ItemSet};
use super::{own_rows, parquet_rows};
use crate::answer_files::coco::{CocoCaption, CocoImage};
use crate::answer_files::entries::Several;
use crate::answer_files::parse::{Opening, opening, parse};
use crate::file_error::FileError;
use crate::job_error::Result;
use crate::metrics::captions::coco::id_of_file;
use crate::row_id::RowId;

/// An image's id, and what people wrote about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptionedImage {
    /// As results name it.
    pub id: RowId,
    /// None where nobody wrote any.
    pub captions: Vec<String>,
}

impl Identity for CaptionedImage {
    fn identity(&self) -> String {
        format!("{}\n{}", self.id, self.captions.join("\n"))
    }
}

/// An image as a file names it.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    file: String,
    row: CaptionedImage,
}

#[derive(Deserialize)]
struct Annotations {
    images: Vec<CocoImage>,
    #[serde(default)]
    annotations: Vec<CocoCaption>,
}

/// A row of Karpathy's splits, and of LAVIS's NoCaps, whose images have an id.
#[derive(Deserialize)]
struct ListedImage {
    image: String,
    img_id: Option<RowId>,
    caption: Option<Several<String>>,
}

/// Reads a set. One source that ends in `.json` is a data set's file, one that ends in `.csv`, `.tsv` or
/// `.jsonl` a table, a folder without Parquet files a folder of images; all else are Parquet files. `columns`
/// names those of tables and Parquet files that are not called as usual. `images` is the folder of the images
/// that files name; without it, the file's own.
///
/// # Errors
/// Files that cannot be read or are of another form, and images that are not there.
pub async fn read(
    sources: &[String],
    images: Option<&str>,
    columns: &ColumnNames,
    max_pixels: u64,
) -> Result<ItemSet<CaptionedImage>> {
    let named = match sources {
        [source] if source.ends_with(".json") => {
            has_no_columns(source, columns)?;
            of_json(Path::new(source))?
        }
        [source] if own_rows::is_table(source) => {
            by_image(own_rows::read(Path::new(source), columns, false)?)
        }
        [source] if is_image_folder(source) => {
            has_no_columns(source, columns)?;
            return of_folder(source, max_pixels).await;
        }
        _ => return of_parquet(sources, columns, max_pixels).await,
    };
    let folder = ImageFolder::open(folder_of(&sources[0], images)?).await?;
    let item = |Named { file, row }: Named| {
        Ok(Item { image: ImageSource::File(folder.find(&file)?), name: file, row })
    };
    let items = named.into_iter().map(item).collect::<Result<_>>()?;
    Ok(ItemSet { items, reader: ImageReader::new(Vec::new(), max_pixels) })
}

/// Refuses names of columns where there are no columns.
pub(super) fn has_no_columns(source: &str, columns: &ColumnNames) -> Result<(), FileError> {
    if *columns == ColumnNames::default() {
        return Ok(());
    }
    let reason = "has no columns that could be called otherwise: tables and Parquet files have";
    Err(FileError::unusable(Path::new(source), reason))
}

/// Where the images lie that a file names.
pub(super) fn folder_of(file: &str, images: Option<&str>) -> Result<Location> {
    let beside = || Path::new(file).parent().map(|folder| folder.to_string_lossy().into_owned());
    let folder = images.map(str::to_owned).or_else(beside).filter(|folder| !folder.is_empty());
    Ok(Location::parse(folder.as_deref().unwrap_or(".").trim_end_matches('/'))?)
}

/// Whether it is a folder of this machine without a Parquet file.
fn is_image_folder(source: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(source) else { return false };
    let is_parquet = |name: &Path| name.extension().is_some_and(|ending| ending == "parquet");
    !entries.flatten().any(|entry| is_parquet(&entry.path()))
}

fn of_json(path: &Path) -> Result<Vec<Named>, FileError> {
    let named = match opening(path)? {
        Opening::Object => of_coco(parse(path)?),
        Opening::List => of_list(parse(path)?),
    };
    let mut seen = BTreeSet::new();
    match named.iter().find(|named| !seen.insert(&named.row.id)) {
        None if named.is_empty() => Err(FileError::unusable(path, "has no images")),
        None => Ok(named),
        Some(Named { row, .. }) => Err(FileError::unusable(path, format!("image {} is there twice", row.id))),
    }
}

fn of_coco(read: Annotations) -> Vec<Named> {
    let mut captions: BTreeMap<RowId, Vec<String>> = BTreeMap::new();
    for CocoCaption { image_id, caption } in read.annotations {
        captions.entry(image_id).or_default().push(caption);
    }
    let named = |image: CocoImage| {
        let id = image.id.clone();
        let captions = captions.remove(&id).unwrap_or_default();
        Named { file: image.into_name(), row: CaptionedImage { id, captions } }
    };
    read.images.into_iter().map(named).collect()
}

/// Images in the order of their first rows.
fn of_list(rows: Vec<ListedImage>) -> Vec<Named> {
    let (mut images, mut places): (Vec<Named>, BTreeMap<RowId, usize>) = Default::default();
    for ListedImage { image, img_id, caption } in rows {
        let id = img_id.unwrap_or_else(|| id_of_file(&image));
        let place = *places.entry(id.clone()).or_insert(images.len());
        if place == images.len() {
            images.push(Named { file: image, row: CaptionedImage { id, captions: Vec::new() } });
        }
        images[place].row.captions.extend(caption.map(|captions| captions.0).unwrap_or_default());
    }
    images
}

/// Rows of one image are one image, whose name is its id.
fn by_image(rows: Vec<own_rows::OwnRow>) -> Vec<Named> {
    let (mut images, mut places): (Vec<Named>, BTreeMap<String, usize>) = Default::default();
    for row in rows {
        let place = *places.entry(row.image.clone()).or_insert(images.len());
        if place == images.len() {
            let id = RowId::from(row.image.as_str());
            images.push(Named { file: row.image, row: CaptionedImage { id, captions: Vec::new() } });
        }
        images[place].row.captions.extend(row.captions);
    }
    images
}

/// The images that a table of one's own names, with their captions.
pub(super) fn of_table(path: &Path, columns: &ColumnNames) -> Result<Vec<CaptionedImage>, FileError> {
    Ok(by_image(own_rows::read(path, columns, false)?).into_iter().map(|named| named.row).collect())
}

async fn of_folder(source: &str, max_pixels: u64) -> Result<ItemSet<CaptionedImage>> {
    let folder = ImageFolder::open(Location::parse(source.trim_end_matches('/'))?).await?;
    let item = |(path, location): &(String, Location)| Item {
        name: path.clone(),
        image: ImageSource::File(location.clone()),
        row: CaptionedImage { id: RowId::from(path.as_str()), captions: Vec::new() },
    };
    let items: Vec<_> = folder.all().iter().map(item).collect();
    if items.is_empty() {
        return Err(FileError::unusable(Path::new(source), "has no images").into());
    }
    Ok(ItemSet { items, reader: ImageReader::new(Vec::new(), max_pixels) })
}

pub(super) async fn of_parquet(
    sources: &[String],
    columns: &ColumnNames,
    max_pixels: u64,
) -> Result<ItemSet<CaptionedImage>> {
    let (files, rows) = parquet_rows::read(sources, columns).await?;
    // Keys that are no names give way to the rows' numbers.
    let keys: BTreeSet<&str> = rows.iter().map(|row| row.key.as_str()).collect();
    let are_names = keys.len() == rows.len() && !keys.contains("");
    let items = rows.iter().enumerate().map(|(number, row)| {
        let name = if are_names { row.key.clone() } else { number.to_string() };
        let row_of = CaptionedImage { id: RowId::from(name.as_str()), captions: row.texts.clone() };
        Item { name, image: row.image.clone(), row: row_of }
    });
    Ok(ItemSet { items: items.collect(), reader: ImageReader::new(files, max_pixels) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(content: &str) -> Result<Vec<Named>, FileError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        of_json(file.path())
    }

    fn shown(named: &[Named]) -> Vec<(&str, String, usize)> {
        let show = |named: &Named| (named.row.id.to_string(), named.row.captions.len());
        named.iter().map(|named| (named.file.as_str(), show(named).0, show(named).1)).collect()
    }

    #[test]
    fn the_data_sets_forms_are_read_in_their_order() {
        let coco = reading(
            r#"{"images": [{"id": 9, "file_name": "b.jpg"}, {"id": 3}], "annotations":
               [{"image_id": 3, "caption": "x"}, {"image_id": 9, "caption": "y"}, {"image_id": 3, "caption": "z"}]}"#,
        );
        let coco = coco.unwrap();
        assert_eq!(shown(&coco), [("b.jpg", "9".into(), 1), ("3", "3".into(), 2)]);
        let list = reading(
            r#"[{"image": "val/COCO_val2014_000000000042.jpg", "caption": ["a", "b"]},
               {"image": "x.jpg", "img_id": 7}, {"image": "y.jpg", "caption": "c"}, {"image": "y.jpg", "caption": "d"}]"#,
        );
        let list = list.unwrap();
        let expected = [
            ("val/COCO_val2014_000000000042.jpg", "42".into(), 2),
            ("x.jpg", "7".into(), 0),
            ("y.jpg", "y".into(), 2),
        ];
        assert_eq!(shown(&list), expected);
    }

    #[test]
    fn a_file_of_another_form_is_refused() {
        for (content, word) in [
            ("[]", "no images"),
            (r#"{"images": [{"id": 1}, {"id": 1}]}"#, "image 1 is there twice"),
            (r#"{"questions": []}"#, "images"),
        ] {
            let error = reading(content).unwrap_err().to_string();
            assert!(error.contains(word), "{content}: {error}");
        }
    }
}
