//! Which texts belong to which image.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::answer_files::coco::{CocoCaption, CocoImage};
use crate::answer_files::entries::Entries;
use crate::answer_files::parse::{Opening, opening, parse};
use crate::file_error::{FileError, Result};
use crate::row_id::RowId;

/// Images in the order of a matrix' rows, texts in that of its columns.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pairs {
    /// Texts of each image, in order, each once; one at least.
    texts_of_image: Vec<Vec<usize>>,
    /// The first image of each text.
    image_of_text: Vec<usize>,
    /// Names of the images, where the file has them.
    images: Vec<String>,
    /// The texts themselves, where the file has them.
    texts: Vec<String>,
}

impl Pairs {
    /// How many images there are.
    pub fn images(&self) -> usize {
        self.texts_of_image.len()
    }

    /// The first image of each text.
    pub fn image_of_text(&self) -> &[usize] {
        &self.image_of_text
    }

    /// Texts of an image.
    pub fn texts_of_image(&self, image: usize) -> &[usize] {
        &self.texts_of_image[image]
    }

    /// Whether they belong together.
    pub fn belongs(&self, image: usize, text: usize) -> bool {
        self.texts_of_image[image].binary_search(&text).is_ok()
    }

    /// The image's name, or its number.
    pub fn image_name(&self, image: usize) -> String {
        self.images.get(image).cloned().unwrap_or_else(|| format!("image {image}"))
    }

    /// The text, or its number.
    pub fn text(&self, text: usize) -> String {
        self.texts.get(text).cloned().unwrap_or_else(|| format!("text {text}"))
    }
}

impl Pairs {
    /// Of images' names with their texts, one image after the other.
    ///
    /// # Errors
    /// In words: an image without a text.
    pub fn of_captions(images: Vec<(String, Vec<String>)>) -> std::result::Result<Self, String> {
        let mut pairs = Self::default();
        for (name, captions) in images {
            pairs.add(name, captions);
        }
        let (images, texts) = (pairs.texts_of_image.len(), pairs.texts.len());
        pairs.checked(images, texts)
    }

    fn add(&mut self, name: String, captions: Vec<String>) {
        let first = self.texts.len();
        self.texts_of_image.push((first..first + captions.len()).collect());
        self.images.push(name);
        self.texts.extend(captions);
    }
}

/// Any of the objects.
#[derive(Deserialize)]
struct Object {
    #[serde(alias = "captions_of_picture")]
    captions_of_image: Option<Vec<usize>>,
    img2txt: Option<Entries<Vec<usize>>>,
    images: Option<Vec<CocoImage>>,
    annotations: Option<Vec<CocoCaption<Option<String>>>>,
}

/// An entry of a list: an image's texts, or their numbers.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a list of numbers of texts, or {image, caption: [texts]}")]
enum Entry {
    Numbers(Vec<usize>),
    Captioned { image: RowId, caption: Captions },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Captions {
    One(String),
    Several(Vec<String>),
}

/// Reads, for `images` rows and `texts` columns, any of
/// - `[[0, 1], [2], …]`: the texts of each image;
/// - `{"img2txt": {"0": [0, 1], …}}`;
/// - `{"captions_of_image": [2, 1, …]}`: how many texts each has, one image after the other;
/// - `[{image, caption: [texts]}, …]`, as Karpathy's splits: rows and columns in this order;
/// - COCO's `{"images": [{id}], "annotations": [{image_id, caption}]}`: rows in the order of the images,
///   columns in that of the annotations.
///
/// # Errors
/// A file that cannot be read or is of another form, another number of images or texts, an image without a
/// text, and a text without an image.
pub fn read(path: &Path, images: usize, texts: usize) -> Result<Pairs> {
    let pairs = match opening(path)? {
        Opening::List => of_list(parse(path)?),
        Opening::Object => of_object(parse(path)?),
    };
    let pairs = pairs.and_then(|pairs| pairs.checked(images, texts));
    pairs.map_err(|reason| FileError::unusable(path, reason))
}

fn of_list(entries: Vec<Entry>) -> std::result::Result<Pairs, String> {
    let mut pairs = Pairs::default();
    for entry in entries {
        match entry {
            Entry::Numbers(texts) => pairs.texts_of_image.push(texts),
            Entry::Captioned { image, caption } => {
                let captions = match caption {
                    Captions::One(caption) => vec![caption],
                    Captions::Several(captions) => captions,
                };
                pairs.add(image.to_string(), captions);
            }
        }
    }
    let is_mixed = !pairs.images.is_empty() && pairs.images.len() != pairs.texts_of_image.len();
    if is_mixed { Err("mixes numbers and captions".to_owned()) } else { Ok(pairs) }
}

fn of_object(object: Object) -> std::result::Result<Pairs, String> {
    match object {
        Object { captions_of_image: Some(counts), .. } => of_counts(&counts),
        Object { img2txt: Some(texts), .. } => of_numbered(texts),
        Object { images: Some(images), annotations: Some(captions), .. } => of_coco(images, captions),
        _ => Err("has none of `captions_of_image`, `img2txt`, and `images` with `annotations`".to_owned()),
    }
}

fn of_counts(counts: &[usize]) -> std::result::Result<Pairs, String> {
    let total = counts.iter().try_fold(0_usize, |total, count| total.checked_add(*count));
    if total.is_none_or(|total| total > MOST_TEXTS) {
        return Err(format!("has more than {MOST_TEXTS} texts"));
    }
    let mut first = 0;
    let texts_of_image = counts.iter().map(|count| {
        first += count;
        (first - count..first).collect()
    });
    Ok(Pairs { texts_of_image: texts_of_image.collect(), ..Pairs::default() })
}

/// Texts beyond which there are none.
const MOST_TEXTS: usize = 1 << 28;

fn of_numbered(Entries(texts): Entries<Vec<usize>>) -> std::result::Result<Pairs, String> {
    let mut numbered = BTreeMap::new();
    for (image, texts) in texts {
        let number: usize = image.parse().map_err(|_| format!("`{image}` is no number of an image"))?;
        if numbered.insert(number, texts).is_some() {
            return Err(format!("image {number} is there twice"));
        }
    }
    if let Some(missing) = (0..numbered.len()).find(|number| !numbered.contains_key(number)) {
        return Err(format!("image {missing} has no texts"));
    }
    Ok(Pairs { texts_of_image: numbered.into_values().collect(), ..Pairs::default() })
}

fn of_coco(
    images: Vec<CocoImage>,
    captions: Vec<CocoCaption<Option<String>>>,
) -> std::result::Result<Pairs, String> {
    let mut rows = BTreeMap::new();
    for (row, image) in images.iter().enumerate() {
        if rows.insert(&image.id, row).is_some() {
            return Err(format!("image {} is there twice", image.id));
        }
    }
    let mut texts_of_image = vec![Vec::new(); images.len()];
    for (column, caption) in captions.iter().enumerate() {
        let row = rows.get(&caption.image_id).ok_or_else(|| {
            format!("caption {column} is of image {}, which is not among the images", caption.image_id)
        })?;
        texts_of_image[*row].push(column);
    }
    let texts: Option<Vec<String>> = captions.into_iter().map(|caption| caption.caption).collect();
    Ok(Pairs {
        texts_of_image,
        images: images.into_iter().map(CocoImage::into_name).collect(),
        texts: texts.unwrap_or_default(),
        ..Pairs::default()
    })
}

impl Pairs {
    fn checked(mut self, images: usize, texts: usize) -> std::result::Result<Self, String> {
        if self.texts_of_image.len() != images {
            return Err(format!("has {} images, the similarities {images}", self.texts_of_image.len()));
        }
        let mut owners = vec![None; texts];
        for (image, own) in self.texts_of_image.iter_mut().enumerate() {
            own.sort_unstable();
            own.dedup();
            if own.is_empty() {
                return Err(format!("image {image} has no texts"));
            }
            for text in own {
                let owner = owners.get_mut(*text);
                let owner =
                    owner.ok_or_else(|| format!("image {image} has text {text}, of {texts} texts from 0"))?;
                owner.get_or_insert(image);
            }
        }
        let owner =
            |(text, owner): (usize, Option<usize>)| owner.ok_or_else(|| format!("text {text} has no image"));
        self.image_of_text =
            owners.into_iter().enumerate().map(owner).collect::<std::result::Result<_, _>>()?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(json: &str) -> Result<Pairs> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), json).unwrap();
        read(file.path(), 2, 3)
    }

    #[test]
    fn every_form_says_the_same() {
        let forms = [
            "[[0, 1], [2]]",
            r#"{"captions_of_image": [2, 1]}"#,
            r#"{"img2txt": {"1": [2], "0": [1, 0]}, "txt2img": {"0": 0}}"#,
            r#"[{"image": "a.jpg", "caption": ["x", "y"]}, {"image": "b.jpg", "caption": "z"}]"#,
            r#"{"images": [{"id": 7, "file_name": "a.jpg"}, {"id": 5, "file_name": "b.jpg"}],
                "annotations": [{"image_id": 7, "id": 1, "caption": "x"}, {"image_id": 7, "caption": "y"},
                {"image_id": 5, "caption": "z"}]}"#,
        ];
        for (form, is_named) in forms.into_iter().zip([false, false, false, true, true]) {
            let pairs = reading(form).unwrap();
            assert_eq!(pairs.image_of_text(), [0, 0, 1], "{form}");
            assert_eq!(pairs.texts_of_image(0), [0, 1], "{form}");
            assert!(pairs.belongs(1, 2) && !pairs.belongs(1, 0), "{form}");
            let (image, text) = if is_named { ("b.jpg", "z") } else { ("image 1", "text 2") };
            assert_eq!((pairs.image_name(1).as_str(), pairs.text(2).as_str()), (image, text));
        }
    }

    #[test]
    fn what_does_not_fit_the_matrix_is_refused() {
        for (json, word) in [
            ("[[0, 1, 2]]", "has 1 images, the similarities 2"),
            ("[[0, 1], [3]]", "of 3 texts from 0"),
            ("[[0, 1], [1]]", "text 2 has no image"),
            ("[[0, 1, 2], []]", "image 1 has no texts"),
            ("[[0, 1], [-2]]", "a list of numbers"),
            (r#"[[0, 1], {"image": 1, "caption": []}]"#, "mixes"),
            (r#"{"img2txt": {"0": [0], "2": [1, 2]}}"#, "image 1 has no texts"),
            (r#"{"img2txt": {"x": [0]}}"#, "no number"),
            (r#"{"img2txt": {"0": [0], "00": [1]}}"#, "twice"),
            (r#"{"captions_of_image": [18446744073709551615, 2]}"#, "more than"),
            (r#"{"captions_of_image": [99999999999, 2]}"#, "more than"),
            (r#"{"images": [{"id": 1}, {"id": 1}], "annotations": []}"#, "twice"),
            (r#"{"images": [{"id": 1}], "annotations": [{"image_id": 2}]}"#, "not among"),
            ("{}", "has none of"),
            ("7", "no JSON list"),
        ] {
            let error = reading(json).unwrap_err().to_string();
            assert!(error.contains(word), "{json}: {error}");
        }
    }
}
