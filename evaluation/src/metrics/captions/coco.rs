//! Files of captions: COCO's annotations and results, which NoCaps has too, and the lists of Karpathy's
//! splits as LAVIS ships them.
//!
//! | file | form |
//! |---|---|
//! | annotations | `{"images": [{"id": …}], "annotations": [{"image_id": …, "caption": "…"}]}` |
//! | or a list | `[{"image": "val2014/COCO_val2014_000000391895.jpg", "caption": ["…", …]}]`, or one caption a row |
//! | results | `[{"image_id": …, "caption": "…"}]` |
//!
//! As in the toolkit the results' images have to be those of the annotations, all of them, each once.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::corpus::{Corpus, ImageCaptions};
use crate::error::captions::{CaptionsError, Result};
use crate::row_id::RowId;

/// A file's content, and what messages call it.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Its name.
    pub origin: &'a str,
    /// JSON.
    pub content: &'a [u8],
}

impl Source<'_> {
    fn read<T: DeserializeOwned>(&self, expected: &str) -> Result<T> {
        serde_json::from_slice(self.content).map_err(|error| CaptionsError::Form {
            origin: self.origin.to_owned(),
            what: format!("{error}; expected is {expected}"),
        })
    }

    /// What the first character says that it is.
    fn is_list(&self) -> bool {
        self.content.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[')
    }
}

#[derive(Deserialize)]
struct Annotations {
    images: Vec<Image>,
    annotations: Vec<Caption>,
}

#[derive(Deserialize)]
struct Image {
    id: RowId,
}

#[derive(Deserialize)]
struct Caption {
    image_id: RowId,
    caption: String,
}

/// A row of a list.
#[derive(Deserialize)]
struct Row {
    image: String,
    caption: OneOrMore,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// The captions of both files together.
///
/// # Errors
/// Content of another form; results for unknown images, images without a result or with two, images without
/// a reference: with the first few ids.
pub fn corpus(annotations: Source<'_>, results: Source<'_>) -> Result<Corpus> {
    let references = if annotations.is_list() { listed(annotations)? } else { annotated(annotations)? };
    let results_of: Vec<Caption> = results.read(r#"[{"image_id": 1, "caption": "a dog"}, …]"#)?;

    let captioned: BTreeSet<&RowId> = results_of.iter().map(|result| &result.image_id).collect();
    let unknown = captioned.iter().filter(|image| !references.contains_key(**image));
    let unknown: Vec<String> = unknown.map(ToString::to_string).collect();
    let (origin, of) = (results.origin.to_owned(), annotations.origin.to_owned());
    if !unknown.is_empty() {
        return Err(CaptionsError::Unknown { results: origin, annotations: of, images: unknown });
    }
    let missing = references.keys().filter(|image| !captioned.contains(image));
    let missing: Vec<String> = missing.map(ToString::to_string).collect();
    if !missing.is_empty() {
        return Err(CaptionsError::Missing { results: origin, annotations: of, images: missing });
    }
    let images = results_of.into_iter().map(|result| ImageCaptions {
        references: references.get(&result.image_id).cloned().unwrap_or_default(),
        image: result.image_id,
        hypothesis: result.caption,
    });
    Corpus::new(images.collect())
}

/// References by image, of COCO's form. Captions of images that are not listed are left out, as by the
/// toolkit.
fn annotated(source: Source<'_>) -> Result<BTreeMap<RowId, Vec<String>>> {
    let read: Annotations = source.read(
        r#"{"images": [{"id": 1}, …], "annotations": [{"image_id": 1, "caption": "a dog"}, …]} or a list"#,
    )?;
    let mut references: BTreeMap<_, _> =
        read.images.into_iter().map(|image| (image.id, Vec::new())).collect();
    for Caption { image_id, caption } in read.annotations {
        if let Some(captions) = references.get_mut(&image_id) {
            captions.push(caption);
        }
    }
    Ok(references)
}

/// References by image, of a list.
fn listed(source: Source<'_>) -> Result<BTreeMap<RowId, Vec<String>>> {
    let rows: Vec<Row> =
        source.read(r#"[{"image": "folder/name_000012.jpg", "caption": ["a dog", …]}, …]"#)?;
    let mut references: BTreeMap<RowId, Vec<String>> = BTreeMap::new();
    for Row { image, caption } in rows {
        let captions = references.entry(id_of_file(&image)).or_default();
        match caption {
            OneOrMore::One(caption) => captions.push(caption),
            OneOrMore::More(several) => captions.extend(several),
        }
    }
    Ok(references)
}

/// The number behind the last `_` of a file's name, as LAVIS takes it; the name where there is none.
pub(crate) fn id_of_file(path: &str) -> RowId {
    let name = path.rsplit('/').next().unwrap_or(path);
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let number = stem.rsplit('_').next().unwrap_or(stem);
    number.parse().map_or_else(|_| RowId::Text(stem.to_owned()), RowId::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANNOTATIONS: &str = r#"{"images": [{"id": 7}, {"id": 3}], "annotations": [
        {"image_id": 3, "id": 1, "caption": "three"}, {"image_id": 7, "id": 2, "caption": "seven"},
        {"image_id": 3, "id": 3, "caption": "and three"}, {"image_id": 8, "id": 4, "caption": "not listed"}]}"#;

    fn read(annotations: &str, results: &str) -> Result<Corpus> {
        corpus(
            Source { origin: "references.json", content: annotations.as_bytes() },
            Source { origin: "results.json", content: results.as_bytes() },
        )
    }

    fn message(annotations: &str, results: &str) -> String {
        read(annotations, results).unwrap_err().to_string()
    }

    #[test]
    fn references_keep_the_files_order() {
        let results = r#"[{"image_id": 7, "caption": "a"}, {"image_id": 3, "caption": "b"}]"#;
        let corpus = read(ANNOTATIONS, results).unwrap();
        assert_eq!(corpus.images()[0].references, ["three", "and three"]);
        assert_eq!(corpus.images()[0].hypothesis, "b");
        assert_eq!(corpus.images()[1].image, RowId::Number(7));
    }

    #[test]
    fn every_image_needs_one_caption_and_no_other() {
        let one = r#"{"image_id": 7, "caption": "a"}"#;
        let missing = message(ANNOTATIONS, &format!("[{one}]"));
        assert!(missing.starts_with("results.json") && missing.contains(": 3"), "{missing}");
        let unknown = message(ANNOTATIONS, &format!(r#"[{one}, {{"image_id": 9, "caption": "b"}}]"#));
        assert!(unknown.contains("not in references.json: 9"), "{unknown}");
        let other = r#"{"image_id": 3, "caption": "b"}"#;
        let twice = message(ANNOTATIONS, &format!("[{one}, {other}, {one}]"));
        assert!(twice.contains("more than one generated caption: 7"), "{twice}");
    }

    #[test]
    fn another_form_is_named_with_its_place() {
        let form = message(ANNOTATIONS, r#"[{"image_id": 7}]"#);
        assert!(form.contains("results.json: missing field `caption`") && form.contains("line 1"), "{form}");
        let form = message("{}", "[]");
        assert!(form.contains("references.json: missing field `images`"), "{form}");
    }

    #[test]
    fn lists_have_their_ids_in_names() {
        let list = r#" [{"image": "val2014/COCO_val2014_000000000007.jpg", "caption": ["a", "b"]},
            {"image": "flickr/x.jpg", "caption": "c"}, {"image": "flickr/x.jpg", "caption": "d"}]"#;
        let results = r#"[{"image_id": "x", "caption": "e"}, {"image_id": 7, "caption": "f"}]"#;
        let corpus = read(list, results).unwrap();
        assert_eq!(corpus.images()[0].image, RowId::Number(7));
        assert_eq!(corpus.images()[0].references, ["a", "b"]);
        assert_eq!(corpus.images()[1].references, ["c", "d"]);
    }
}
