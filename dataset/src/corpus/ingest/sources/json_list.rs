//! JSON lists: COCO, Visual Genome, SBU, lists of `{image, caption}`, and one object on each line. Every item
//! is read by itself: an odd one is a row that cannot be used, and the others stay.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{BufRead, BufReader};
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::entry::{Entry, ListError, gather};
use super::line_reader;
use crate::corpus::columns::{ColumnNames, TextRole};
use crate::corpus::ingest::json::{TolerantJson, from_slice};
use crate::corpus::ingest::kind::SourceKind;
use crate::corpus::ingest::settings::IngestSettings;

/// The items of a list, each as what it should be or with what is wrong with it.
struct Items<T>(Vec<Result<T, String>>);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Items<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each<T>(PhantomData<T>);
        impl<'de, T: DeserializeOwned> Visitor<'de> for Each<T> {
            type Value = Items<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Items(Vec::new()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element::<Value>()? {
                    items.push(serde_json::from_value(item).map_err(|error| error.to_string()));
                }
                Ok(Items(items))
            }
        }
        deserializer.deserialize_any(Each(PhantomData))
    }
}

impl<T> Default for Items<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// COCO's official form and Karpathy's, in one; the fields tell them apart.
#[derive(Deserialize)]
struct CocoFile {
    images: Items<CocoImage>,
    #[serde(default)]
    annotations: Items<Annotation>,
}

#[derive(Deserialize)]
struct CocoImage {
    id: Option<Value>,
    cocoid: Option<Value>,
    file_name: Option<String>,
    filename: Option<String>,
    filepath: Option<String>,
    coco_url: Option<String>,
    split: Option<String>,
    sentences: Option<Value>,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: Value,
    caption: Value,
}

#[derive(Deserialize)]
struct SbuFile {
    image_urls: Items<String>,
    captions: Items<String>,
}

/// A file that is one JSON value.
pub(super) fn whole(reader: impl BufRead, settings: &IngestSettings) -> Result<Vec<Entry>, ListError> {
    let mut reader = BufReader::new(TolerantJson::new(reader));
    let unreadable = |reason: String| ListError::Unreadable(reason);
    let first = first_character(&mut reader).map_err(|error| unreadable(error.to_string()))?;
    let failed = |error: serde_json::Error| {
        let lines = "; with an object on each line it is of kind jsonl";
        let hint = if error.to_string().contains("trailing characters") { lines } else { "" };
        unreadable(format!("{error}{hint}"))
    };
    match (settings.kind, first) {
        (_, None) => Err(unreadable("it is empty".to_owned())),
        (_, Some(b'[')) => {
            let items: Items<Value> = serde_json::from_reader(reader).map_err(failed)?;
            Ok(gather(items.0.into_iter().map(|item| entry_of(item, settings))))
        }
        (SourceKind::Sbu, _) => serde_json::from_reader(reader).map_err(failed).and_then(sbu),
        _ => serde_json::from_reader(reader).map_err(failed).map(|file| coco(file, &settings.splits)),
    }
}

/// A file with an object on each line; a list of objects is read as well.
pub(super) fn lines(mut reader: impl BufRead, settings: &IngestSettings) -> Result<Vec<Entry>, ListError> {
    let failed = |error: std::io::Error| ListError::Unreadable(error.to_string());
    let beginning = reader.fill_buf().map_err(failed)?;
    let beginning = beginning.strip_prefix("\u{feff}".as_bytes()).unwrap_or(beginning);
    if beginning.trim_ascii_start().first() == Some(&b'[') {
        return whole(reader, settings);
    }
    let mut entries = Vec::new();
    while let Some(line) = line_reader::next(&mut reader).map_err(failed)? {
        let entry = match line.text {
            Ok(text) if text.trim().is_empty() => continue,
            Ok(text) => entry_of(from_slice(text.as_bytes()).map_err(|error| error.to_string()), settings),
            Err(reason) => Entry::faulty(reason),
        };
        entries.push(entry);
    }
    Ok(gather(entries))
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
    let mut captions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut faulty = Vec::new();
    for annotation in file.annotations.0 {
        match annotation {
            Ok(Annotation { image_id, caption }) => match id_text(&image_id) {
                Some(id) => captions.entry(id).or_default().extend(captions_of(&caption)),
                None => faulty.push(Entry::faulty(format!("an annotation is of image {image_id}"))),
            },
            Err(reason) => faulty.push(Entry::faulty(format!("an annotation: {reason}"))),
        }
    }
    let mut entries = Vec::new();
    let mut known = BTreeSet::new();
    for image in file.images.0 {
        let image = match image {
            Ok(image) => image,
            Err(reason) => {
                entries.push(Entry::faulty(format!("an image: {reason}")));
                continue;
            }
        };
        let own_id = image.id.as_ref().and_then(id_text);
        known.extend(own_id.clone());
        if !wanted(&image.split) {
            continue;
        }
        let id = image.cocoid.as_ref().and_then(id_text).or_else(|| own_id.clone());
        let name = image.file_name.or(image.filename);
        // Karpathy's folder, for those who keep it; and without.
        let in_folder = image.filepath.zip(name.as_ref()).map(|(folder, name)| format!("{folder}/{name}"));
        let sentences = image.sentences.iter().flat_map(captions_of);
        let annotated = own_id.and_then(|id| captions.get(&id).cloned()).unwrap_or_default();
        entries.push(Entry {
            key: id,
            names: in_folder.into_iter().chain(name).collect(),
            url: image.coco_url,
            captions: sentences.chain(annotated).collect(),
            fault: None,
        });
    }
    let strays = captions.keys().filter(|id| !known.contains(*id));
    let strays = strays.map(|id| Entry {
        key: Some(id.clone()),
        ..Entry::faulty(format!("annotations are of image {id}, which is not among the images"))
    });
    entries.extend(strays);
    entries.extend(faulty);
    entries
}

fn sbu(file: SbuFile) -> Result<Vec<Entry>, ListError> {
    let (urls, captions) = (file.image_urls.0, file.captions.0);
    if urls.len() != captions.len() {
        let reason = format!("{} URLs and {} captions", urls.len(), captions.len());
        return Err(ListError::Unreadable(reason));
    }
    let entry = |(url, caption): (Result<String, String>, Result<String, String>)| match (url, caption) {
        (Ok(url), Ok(caption)) => Entry { url: Some(url), captions: vec![caption], ..Entry::default() },
        (Err(reason), _) => Entry::faulty(format!("its URL: {reason}")),
        (_, Err(reason)) => Entry::faulty(format!("its caption: {reason}")),
    };
    Ok(urls.into_iter().zip(captions).map(entry).collect())
}

/// An item of a list: an image's name with captions, or Visual Genome's regions.
fn entry_of(item: Result<Value, String>, settings: &IngestSettings) -> Entry {
    let fields = match item {
        Ok(Value::Object(fields)) => fields,
        Ok(other) => {
            let shown: String = other.to_string().chars().take(40).collect();
            return Entry::faulty(format!("it is no object but {shown}"));
        }
        Err(reason) => return Entry::faulty(reason),
    };
    let (names, defaults) = (&settings.columns, ColumnNames::default());
    let role = |role, name: &str, default: &str| field(&fields, role, name, name == default);
    let image = role(TextRole::Path, &names.image, &defaults.image).and_then(path_of);
    let mut url = role(TextRole::Url, &names.url, &defaults.url).and_then(Value::as_str).map(str::to_owned);
    let image = image.filter(|name| match is_url(name) {
        true => {
            url.get_or_insert_with(|| name.clone());
            false
        }
        false => true,
    });
    let id = ["id", "image_id"].iter().find_map(|name| fields.get(*name).and_then(id_text));
    let own_key =
        [names.key.as_str(), "__key__", "uid"].iter().find_map(|name| fields.get(*name).and_then(id_text));
    let lists_regions = !matches!(settings.kind, SourceKind::Jsonl);
    let places = match (&image, &url, &id) {
        (Some(name), ..) => vec![name.clone()],
        (None, None, Some(id)) if lists_regions => {
            ["VG_100K/", "VG_100K_2/", ""].map(|at| format!("{at}{id}.jpg")).into()
        }
        _ => Vec::new(),
    };
    // What is null or empty leaves the place to the next.
    let several = fields.get(&names.captions).map(captions_of).filter(|found| !found.is_empty());
    let captions = several.or_else(|| {
        let one = role(TextRole::Caption, &names.caption, &defaults.caption).map(captions_of);
        one.filter(|found| !found.is_empty())
    });
    let captions = captions.or_else(|| fields.get("regions").map(captions_of)).unwrap_or_default();
    Entry { key: own_key.or(image).or(id), names: places, url, captions, fault: None }
}

/// The first field of a role that is not null.
fn field<'a>(
    fields: &'a Map<String, Value>,
    role: TextRole,
    name: &str,
    by_default: bool,
) -> Option<&'a Value> {
    let there = |name: &str| fields.get(name).filter(|value| !value.is_null());
    if let Some(found) = there(name) {
        return Some(found);
    }
    let known = role.known().iter().filter(|_| by_default);
    let like = |known: &&str| {
        there(known).or_else(|| {
            let mut fields = fields.iter();
            fields
                .find(|(name, value)| !value.is_null() && name.eq_ignore_ascii_case(known))
                .map(|found| found.1)
        })
    };
    known.into_iter().find_map(like)
}

/// An image's path: a text, or a structure that holds it.
fn path_of(value: &Value) -> Option<String> {
    match value {
        Value::String(name) => Some(name.clone()),
        Value::Object(fields) => {
            let named = ["path", "file_name", "filename"].iter().find_map(|name| fields.get(*name)?.as_str());
            named.map(str::to_owned)
        }
        _ => None,
    }
}

pub(super) fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// An identifier: a whole number or a text.
fn id_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => match number.as_f64() {
            // COCO's numbers as some programs write them: 9.0.
            Some(whole) if !number.is_i64() && !number.is_u64() && whole.fract() == 0.0 => {
                Some(format!("{whole:.0}"))
            }
            _ => Some(number.to_string()),
        },
        _ => None,
    }
}

/// Captions in a value: a text, a list, or a structure with a text; what is neither is passed over.
pub(super) fn captions_of(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(captions_of).collect(),
        Value::Object(fields) => {
            let texts = ["raw", "text", "caption", "captions", "phrase", "sentence"];
            let found = texts.iter().filter_map(|name| fields.get(*name).map(captions_of));
            found.into_iter().find(|found| !found.is_empty()).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::ingest::row::RejectReason;

    fn read(text: &str, kind: SourceKind) -> Result<Vec<Entry>, ListError> {
        whole(text.as_bytes(), &IngestSettings::new(kind))
    }

    fn jsonl(text: &str) -> Vec<Entry> {
        lines(text.as_bytes(), &IngestSettings::new(SourceKind::Jsonl)).unwrap()
    }

    fn faults(entries: &[Entry]) -> usize {
        entries.iter().filter(|entry| entry.fault.is_some()).count()
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
    fn odd_items_of_coco_are_rows_of_their_own() {
        let odd = "\u{feff}{\"images\":[null,7,{\"id\":\"a\",\"file_name\":\"a.jpg\",\"size\":NaN},{\"id\":2.0,\"file_name\":\"b.jpg\"},
            {\"id\":3,\"file_name\":[]}],\"annotations\":[null,{\"image_id\":\"a\",\"caption\":\"one\"},
            {\"image_id\":2,\"caption\":\"two\"},{\"image_id\":99,\"caption\":\"stray\"},{\"image_id\":2,\"caption\":null}]}";
        let entries = read(odd, SourceKind::Coco).unwrap();
        let good: Vec<_> = entries.iter().filter(|entry| entry.fault.is_none()).collect();
        assert_eq!(
            (good.len(), good[0].captions.join(""), good[1].captions.join("")),
            (2, "one".into(), "two".into())
        );
        // Two odd images, one without a name that is a text, a stray annotation and one that is null.
        assert_eq!(faults(&entries), 5, "{entries:?}");
    }

    #[test]
    fn lists_gather_the_captions_of_an_image() {
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
    fn odd_items_of_a_list_do_not_end_it() {
        let odd = r#"[null, 3, "x", {"image":"a.jpg","captions":null,"caption":"one"}, {"image":5,"caption":"y"},
            {"image":"b.jpg","caption":7}, {"image":"c.jpg","captions":[null,"three",4]}, []]"#;
        let entries = read(odd, SourceKind::Coco).unwrap();
        assert_eq!((entries.len(), faults(&entries)), (8, 4));
        let captions: Vec<_> = entries.iter().map(|entry| entry.captions.join("|")).collect();
        assert_eq!(captions, ["", "", "", "one", "y", "", "three", ""]);
        assert_eq!(entries[4].row(4, &None).image.unwrap_err().0, RejectReason::MalformedRow);
    }

    #[test]
    fn sbu_has_columns() {
        let entries =
            read(r#"{"image_urls":["http://f/a.jpg"],"captions":["c"],"user_ids":["u"]}"#, SourceKind::Sbu);
        assert_eq!(entries.unwrap()[0].url.as_deref(), Some("http://f/a.jpg"));
        let odd =
            read(r#"{"image_urls":["http://f/a.jpg",null],"captions":[1,"c"]}"#, SourceKind::Sbu).unwrap();
        assert_eq!((odd.len(), faults(&odd)), (2, 2));
        assert!(read(r#"{"image_urls":["a"],"captions":[]}"#, SourceKind::Sbu).is_err());
        assert!(read("", SourceKind::Coco).is_err());
        assert!(read("[{]", SourceKind::VisualGenome).is_err());
    }

    #[test]
    fn an_object_on_each_line() {
        let text = "\u{feff}{\"file_name\":\"a.png\",\"text\":\"one\",\"score\":NaN}\r\n\r\nbroken\r{\"file_name\":\"b.png\",\
            \"TEXT\":\"two\"}\nnull\n{\"image\":{\"path\":\"c.png\"},\"captions\":[\"three\"]}\n{\"image\":\"http://h/d.png\",\
            \"caption\":\"four\"}";
        let entries = jsonl(text);
        let shown: Vec<_> =
            entries.iter().map(|entry| (entry.names.join(""), entry.captions.join(""))).collect();
        let pair = |name: &str, caption: &str| (name.to_owned(), caption.to_owned());
        assert_eq!(
            shown,
            [
                pair("a.png", "one"),
                pair("", ""),
                pair("b.png", "two"),
                pair("", ""),
                pair("c.png", "three"),
                pair("", "four")
            ]
        );
        assert_eq!(faults(&entries), 2);
        assert_eq!(entries[5].url.as_deref(), Some("http://h/d.png"));
        assert_eq!(jsonl(r#" [{"image":"a.png","caption":"x"}]"#).len(), 1);
        let error = read("{\"images\":[]}\n{\"images\":[]}", SourceKind::Coco).unwrap_err();
        assert!(matches!(&error, ListError::Unreadable(reason) if reason.contains("jsonl")), "{error:?}");
    }
}
