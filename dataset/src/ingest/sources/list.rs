//! JSON lists that name their pictures: COCO, Visual Genome, SBU.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};

use serde::Deserialize;

use crate::error::{DatasetError, Result};
use crate::ingest::fetch::ObjectReader;
use crate::ingest::folder::{NameTemplate, key_of};
use crate::ingest::row::{Picture, RejectReason, SourceRow};
use crate::ingest::sources::SourceKind;
use crate::store::Location;

/// A picture with its captions.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Entry {
    key: Option<String>,
    /// Where it may lie in the folder; empty: where the kind's name template says.
    names: Vec<String>,
    url: Option<String>,
    captions: Vec<String>,
}

/// COCO's official form and Karpathy's, in one; the fields tell them apart.
#[derive(Deserialize)]
struct CocoFile {
    images: Vec<CocoImage>,
    annotations: Option<Vec<Annotation>>,
}

#[derive(Deserialize)]
struct CocoImage {
    id: Option<u64>,
    cocoid: Option<u64>,
    file_name: Option<String>,
    filename: Option<String>,
    filepath: Option<String>,
    coco_url: Option<String>,
    split: Option<String>,
    sentences: Option<Vec<Sentence>>,
}

#[derive(Deserialize)]
struct Sentence {
    raw: String,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: u64,
    caption: String,
}

/// An item of a list: of Visual Genome's regions, or a picture's name with captions.
#[derive(Deserialize)]
struct Item {
    id: Option<u64>,
    image_id: Option<serde_json::Value>,
    regions: Option<Vec<Region>>,
    image: Option<String>,
    url: Option<String>,
    caption: Option<OneOrMany>,
}

#[derive(Deserialize)]
struct Region {
    phrase: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct SbuFile {
    image_urls: Vec<String>,
    captions: Vec<String>,
}

impl Entry {
    pub(super) fn row(&self, row: u64, template: &Option<NameTemplate>) -> SourceRow {
        let names = match (self.names.is_empty(), template) {
            (true, Some(template)) => vec![template.fill(row, self.url.as_deref())],
            _ => self.names.clone(),
        };
        let picture = match names.iter().all(String::is_empty) {
            true => {
                Err((RejectReason::MalformedRow, "it does not say what its picture is called".to_owned()))
            }
            false => Ok(Picture::Named(names)),
        };
        SourceRow {
            row,
            key: self.key.clone().unwrap_or_else(|| key_of(row)),
            captions: self.captions.clone(),
            url: self.url.clone(),
            picture,
        }
    }
}

/// All entries of a list, in its order. The list is held in memory while the job runs.
pub(super) async fn read(
    location: &Location,
    bytes: u64,
    kind: SourceKind,
    splits: &[String],
) -> Result<Vec<Entry>> {
    let (reader, failure) = ObjectReader::start(location, 0..bytes);
    let splits = splits.to_vec();
    let parsed = tokio::task::spawn_blocking(move || parse(BufReader::new(reader), kind, &splits)).await;
    let parsed = parsed.map_err(|error| DatasetError::Thread { reason: error.to_string() })?;
    parsed.map_err(|reason| {
        let reason = format!("{location}: {reason}; is it of kind {kind}?");
        failure.take().unwrap_or(DatasetError::Malformed { what: "list", reason })
    })
}

fn parse(mut reader: impl BufRead, kind: SourceKind, splits: &[String]) -> Result<Vec<Entry>, String> {
    let is_list = first_character(&mut reader).map_err(|error| error.to_string())? == Some(b'[');
    let text = |error: serde_json::Error| error.to_string();
    match (kind, is_list) {
        (_, true) => serde_json::from_reader(reader).map_err(text).map(items),
        (SourceKind::Sbu, false) => serde_json::from_reader(reader).map_err(text).and_then(sbu),
        (_, false) => serde_json::from_reader(reader).map_err(text).map(|file| coco(file, splits)),
    }
}

/// The first character that is no space; it stays in the reader.
fn first_character(reader: &mut impl BufRead) -> std::io::Result<Option<u8>> {
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(None);
        }
        let spaces = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let found = buffer.get(spaces).copied();
        reader.consume(spaces);
        if found.is_some() {
            return Ok(found);
        }
    }
}

fn coco(file: CocoFile, splits: &[String]) -> Vec<Entry> {
    let wanted = |split: &Option<String>| split.as_ref().is_none_or(|split| splits.contains(split));
    let mut captions: HashMap<u64, Vec<String>> = HashMap::new();
    for annotation in file.annotations.into_iter().flatten() {
        captions.entry(annotation.image_id).or_default().push(annotation.caption);
    }
    let entry = |image: CocoImage| {
        let id = image.cocoid.or(image.id);
        let name = image.file_name.or(image.filename);
        // Karpathy's folder, for those who keep it; and without.
        let in_folder = image.filepath.zip(name.as_ref()).map(|(folder, name)| format!("{folder}/{name}"));
        let sentences = image.sentences.into_iter().flatten().map(|sentence| sentence.raw);
        let annotated = image.id.and_then(|id| captions.remove(&id)).unwrap_or_default();
        Entry {
            key: id.map(|id| id.to_string()),
            names: in_folder.into_iter().chain(name).collect(),
            url: image.coco_url,
            captions: sentences.chain(annotated).collect(),
        }
    };
    file.images.into_iter().filter(|image| wanted(&image.split)).map(entry).collect()
}

/// Items of one picture become one entry, where the first of them stands.
fn items(items: Vec<Item>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for item in items {
        let id = item.id.or_else(|| item.image_id.as_ref().and_then(serde_json::Value::as_u64));
        let names = match (&item.image, &item.url, id) {
            (Some(name), ..) => vec![name.clone()],
            (None, Some(_), _) => Vec::new(),
            (None, None, Some(id)) => ["VG_100K/", "VG_100K_2/", ""].map(|at| format!("{at}{id}.jpg")).into(),
            (None, None, None) => vec![String::new()],
        };
        let captions = match item.caption {
            Some(OneOrMany::One(caption)) => vec![caption],
            Some(OneOrMany::Many(captions)) => captions,
            None => item.regions.into_iter().flatten().map(|region| region.phrase).collect(),
        };
        let known = item.image.as_ref().and_then(|name| places.get(name).copied());
        match known {
            Some(place) => entries[place].captions.extend(captions),
            None => {
                if let Some(name) = &item.image {
                    places.insert(name.clone(), entries.len());
                }
                let key = match &item.image {
                    Some(name) => Some(name.clone()),
                    None => id.map(|id| id.to_string()),
                };
                entries.push(Entry { key, names, url: item.url, captions });
            }
        }
    }
    entries
}

fn sbu(file: SbuFile) -> Result<Vec<Entry>, String> {
    if file.image_urls.len() != file.captions.len() {
        return Err(format!("{} URLs and {} captions", file.image_urls.len(), file.captions.len()));
    }
    let entry = |(url, caption): (String, String)| Entry {
        url: Some(url),
        captions: vec![caption],
        ..Entry::default()
    };
    Ok(file.image_urls.into_iter().zip(file.captions).map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, kind: SourceKind) -> Result<Vec<Entry>, String> {
        parse(text.as_bytes(), kind, &["train".to_owned(), "restval".to_owned()])
    }

    #[test]
    fn official_and_karpathy_files_of_coco() {
        let official = r#"{"info":{},"images":[{"id":9,"file_name":"COCO_9.jpg","coco_url":"http://c/9"},
            {"id":4,"file_name":"COCO_4.jpg"}],"annotations":[{"image_id":4,"id":1,"caption":"four"},
            {"image_id":9,"id":2,"caption":"nine"},{"image_id":9,"id":3,"caption":"neun"}]}"#;
        let entries = read(official, SourceKind::Coco).unwrap();
        assert_eq!(entries[0].captions, ["nine", "neun"]);
        assert_eq!((entries[1].key.as_deref(), entries[1].names.len()), (Some("4"), 1));
        let karpathy = r#" {"images":[
            {"filepath":"val2014","filename":"a.jpg","cocoid":1,"split":"restval","sentences":[{"raw":"x","tokens":["x"]}]},
            {"filepath":"val2014","filename":"b.jpg","cocoid":2,"split":"test","sentences":[{"raw":"y"}]}],"dataset":"coco"}"#;
        let entries = read(karpathy, SourceKind::Coco).unwrap();
        assert_eq!(entries.len(), 1, "held-out splits are left out");
        assert_eq!(entries[0].names, ["val2014/a.jpg", "a.jpg"]);
    }

    #[test]
    fn lists_gather_the_captions_of_a_picture() {
        let blip = r#"[{"image":"a.jpg","caption":"1","image_id":"coco_1"},{"image":"b.jpg","caption":["2","3"]},
            {"image":"a.jpg","caption":"4"}]"#;
        let entries = read(blip, SourceKind::Coco).unwrap();
        assert_eq!((entries.len(), entries[0].captions.join("")), (2, "14".to_owned()));
        let regions =
            r#"[{"id":7,"regions":[{"phrase":"a tree","image_id":7},{"phrase":"sky","image_id":7}]}]"#;
        let entries = read(regions, SourceKind::VisualGenome).unwrap();
        assert_eq!(entries[0].names, ["VG_100K/7.jpg", "VG_100K_2/7.jpg", "7.jpg"]);
        assert_eq!(entries[0].captions, ["a tree", "sky"]);
    }

    #[test]
    fn sbu_has_columns() {
        let entries =
            read(r#"{"image_urls":["http://f/a.jpg"],"captions":["c"],"user_ids":["u"]}"#, SourceKind::Sbu);
        assert_eq!(entries.unwrap()[0].url.as_deref(), Some("http://f/a.jpg"));
        assert!(read(r#"{"image_urls":["a"],"captions":[]}"#, SourceKind::Sbu).is_err());
        assert!(read("", SourceKind::Coco).is_err());
        assert!(read("[{]", SourceKind::VisualGenome).is_err());
    }

    #[test]
    fn an_item_that_names_nothing_is_a_malformed_row() {
        let entries = read(r#"[{"caption":"x"}]"#, SourceKind::Coco).unwrap();
        assert_eq!(entries[0].row(0, &None).picture.unwrap_err().0, RejectReason::MalformedRow);
    }
}
