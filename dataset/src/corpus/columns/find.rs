//! Which column of a file has which role: the one that is named, or one that the published data sets use.

use std::collections::BTreeSet;
use std::sync::Mutex;

use arrow::datatypes::Schema;

use super::kinds::{is_caption, is_image, is_nothing, is_text};
use super::names::ColumnNames;
use crate::error::{DatasetError, Result};

/// Columns of images, by preference.
const IMAGES: [&str; 8] = ["jpg", "png", "webp", "image", "jpeg", "img", "picture", "image_bytes"];

/// How many of them are so common that a column of another type is an error.
const COMMON_IMAGES: usize = 4;

/// A role that is text, and found by a name or by one of the names that are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextRole {
    Caption,
    Key,
    Url,
    /// Path of an image, in a list.
    Path,
}

impl TextRole {
    /// Names in use, by preference: LAION, DataComp, Conceptual Captions, LAION-COCO, recaptioned sets, COCO
    /// and Flickr30k as Hugging Face has them.
    pub(crate) fn known(self) -> &'static [&'static str] {
        match self {
            Self::Caption => &[
                "caption",
                "captions",
                "text",
                "alt_text",
                "alttext",
                "alt",
                "top_caption",
                "re_caption",
                "recaption",
                "all_captions",
                "sentences",
                "sentence",
                "txt",
                "description",
                "comment",
                "raw",
                "caption_text",
                "image_caption",
                "image_description",
                "raw_caption",
                "org_caption",
                "prompt",
                "title",
            ],
            Self::Key => &["key", "__key__", "uid", "sample_id", "image_id", "id"],
            Self::Url => &["url", "image_url", "img_url", "image_link", "source_url"],
            Self::Path => &[
                "image",
                "image_path",
                "path",
                "file_name",
                "filename",
                "filepath",
                "file_path",
                "file",
                "img",
                "img_path",
                "image_file",
                "image_name",
                "picture",
                "jpg",
            ],
        }
    }

    /// Its key below `data.columns`.
    fn key(self) -> &'static str {
        match self {
            Self::Caption => "caption",
            Self::Key => "key",
            Self::Url => "url",
            Self::Path => "image",
        }
    }
}

/// The schema of a file, and what its columns are to be called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Roles<'a> {
    pub(crate) schema: &'a Schema,
    pub(crate) names: &'a ColumnNames,
    pub(crate) file: &'a str,
}

impl Roles<'_> {
    /// The column of that name, if it is there and has values.
    pub(crate) fn named(&self, name: &str) -> Result<Option<usize>> {
        self.place(|found| !name.is_empty() && found == name)
    }

    /// The image's column.
    pub(super) fn image(&self) -> Result<usize> {
        if let Some(place) = self.named(&self.names.image)? {
            return Ok(place);
        }
        // The case of letters is a matter of taste; of a column that only might be meant, the type is not.
        for name in IMAGES {
            let found = match self.named(name)? {
                None => self.place(|found| found.eq_ignore_ascii_case(name))?,
                found => found,
            };
            if let Some(place) = found.filter(|place| is_image(self.schema.field(*place).data_type())) {
                return Ok(place);
            }
        }
        // Of these the type is what is wrong.
        for name in &IMAGES[..COMMON_IMAGES] {
            if let Some(place) = self.named(name)? {
                return Ok(place);
            }
        }
        let wanted = format!("image (`{}`)", self.names.image);
        Err(self.missing(wanted, "image", &self.names.image, is_image))
    }

    /// The captions' columns: both are kept, since a row whose list is empty falls back to its single
    /// caption.
    pub(crate) fn captions(&self) -> Result<Vec<usize>> {
        let mut found = Vec::new();
        for name in [&self.names.captions, &self.names.caption] {
            found.extend(self.named(name)?);
        }
        found.dedup();
        let (names, defaults) = (self.names, ColumnNames::default());
        if found.is_empty() && names.caption == defaults.caption && names.captions == defaults.captions {
            found.extend(self.known(TextRole::Caption, is_caption)?);
        }
        if found.is_empty() {
            let wanted = format!("caption (`{}` or `{}`)", names.caption, names.captions);
            return Err(self.missing(wanted, "caption", &names.caption, is_caption));
        }
        Ok(found)
    }

    /// The column that a role has been given, if it has.
    pub(super) fn required(
        &self,
        key: &str,
        name: &str,
        accepts: fn(&arrow::datatypes::DataType) -> bool,
    ) -> Result<Option<usize>> {
        if name.is_empty() {
            return Ok(None);
        }
        let found = self.named(name)?;
        found.map(Some).ok_or_else(|| self.missing(format!("{key} (`{name}`)"), key, name, accepts))
    }

    /// The column of a role that a file need not have.
    pub(crate) fn optional(&self, role: TextRole) -> Result<Option<usize>> {
        let defaults = ColumnNames::default();
        let (name, default) = match role {
            TextRole::Caption => (&self.names.caption, &defaults.caption),
            TextRole::Key => (&self.names.key, &defaults.key),
            TextRole::Url => (&self.names.url, &defaults.url),
            TextRole::Path => (&self.names.image, &defaults.image),
        };
        match self.named(name)? {
            Some(place) => Ok(Some(place)),
            None if name == default => self.known(role, |_| true),
            None => Ok(None),
        }
    }

    /// A text column that a file has to have.
    pub(crate) fn needed(&self, role: TextRole) -> Result<usize> {
        if let Some(place) = self.optional(role)? {
            return Ok(place);
        }
        let known: Vec<_> = role.known().iter().take(4).map(|name| format!("`{name}`")).collect();
        let wanted = format!("{} ({} or the like)", role.key(), known.join(", "));
        Err(self.missing(wanted, role.key(), role.known()[0], is_text))
    }

    /// The first of the names in use that a column of the right type has; which one it is, is said once.
    fn known(
        &self,
        role: TextRole,
        accepts: fn(&arrow::datatypes::DataType) -> bool,
    ) -> Result<Option<usize>> {
        for name in role.known() {
            let place = self.place(|found| found.eq_ignore_ascii_case(name))?;
            if let Some(place) = place.filter(|place| accepts(self.schema.field(*place).data_type())) {
                if role == TextRole::Caption {
                    say_once(self.file, self.schema.field(place).name());
                }
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// The column whose name is accepted; those without a value are not there.
    fn place(&self, accepts: impl Fn(&str) -> bool) -> Result<Option<usize>> {
        let mut places = self.schema.fields().iter().enumerate();
        let mut next = || places.find(|(_, field)| accepts(field.name()) && !is_nothing(field.data_type()));
        let (first, second) = (next(), next());
        match (first, second) {
            (Some((_, one)), Some((_, other))) if one.name() == other.name() => {
                Err(DatasetError::RepeatedColumn { file: self.file.to_owned(), column: one.name().clone() })
            }
            (first, _) => Ok(first.map(|(place, _)| place)),
        }
    }

    /// The error of a role that no column has: it names the column that comes nearest.
    fn missing(
        &self,
        wanted: String,
        key: &str,
        name: &str,
        accepts: fn(&arrow::datatypes::DataType) -> bool,
    ) -> DatasetError {
        let fields = self.schema.fields();
        let likeness = |found: &str| {
            let (found, name) = (found.to_ascii_lowercase(), name.to_ascii_lowercase());
            let whole = strsim::normalized_damerau_levenshtein(&found, &name);
            // `image_bytes` is nearer to `image` than `mage` is far from it.
            if found.contains(&name) || found.contains(key) { whole.max(0.9) } else { whole }
        };
        let usable = fields.iter().filter(|field| accepts(field.data_type()));
        let nearest = usable.max_by(|a, b| likeness(a.name()).total_cmp(&likeness(b.name())));
        let remedy = match nearest {
            Some(field) => format!("`{0}` comes nearest: data.columns.{key} = \"{0}\"", field.name()),
            None => format!("name yours with data.columns.{key}, once it is of a type that can be read"),
        };
        DatasetError::MissingColumn {
            file: self.file.to_owned(),
            wanted,
            found: fields.iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", "),
            remedy: format!("{remedy} (of `blip2 corpus` and `blip2 eval`: --column {key}=NAME)"),
        }
    }
}

/// Says where captions are read from; once for each name, since a corpus has many files.
fn say_once(file: &str, column: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut said = SAID.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if said.insert(column.to_owned()) {
        tracing::info!(
            file,
            column,
            "captions are read from this column; data.columns.caption names another"
        );
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};

    use super::*;

    fn schema(fields: &[(&str, DataType)]) -> Schema {
        Schema::new(
            fields.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect::<Vec<_>>(),
        )
    }

    fn captions(schema: &Schema, names: &ColumnNames) -> Result<Vec<String>> {
        let found = Roles { schema, names, file: "f.parquet" }.captions()?;
        Ok(found.into_iter().map(|place| schema.field(place).name().clone()).collect())
    }

    #[test]
    fn captions_of_the_published_sets_are_found() {
        let defaults = ColumnNames::default();
        for (columns, wanted) in [
            (&["URL", "TEXT", "top_caption"][..], "TEXT"),
            (&["uid", "url", "alt_text", "re_caption"], "alt_text"),
            (&["url", "top_caption", "all_captions"], "top_caption"),
            (&["image_url", "Caption"], "Caption"),
            (&["re_caption"], "re_caption"),
            (&["caption", "TEXT"], "caption"),
        ] {
            let fields: Vec<_> = columns.iter().map(|name| (*name, DataType::Utf8)).collect();
            assert_eq!(captions(&schema(&fields), &defaults).unwrap(), [wanted], "{columns:?}");
        }
        // A number is no caption, and a name that was given is meant.
        let mixed = schema(&[("text", DataType::Int64), ("alt", DataType::Utf8)]);
        assert_eq!(captions(&mixed, &defaults).unwrap(), ["alt"]);
        let named = ColumnNames { caption: "alt_txet".into(), ..ColumnNames::default() };
        let error = captions(&schema(&[("alt_text", DataType::Utf8)]), &named).unwrap_err().to_string();
        assert!(error.contains("data.columns.caption = \"alt_text\""), "{error}");
    }

    #[test]
    fn what_is_missing_is_named_with_the_nearest() {
        let columns = schema(&[
            ("photo_bytes", DataType::Binary),
            ("my_captoin", DataType::Utf8),
            ("width", DataType::Int32),
        ]);
        let names = ColumnNames::default();
        let error = captions(&columns, &names).unwrap_err().to_string();
        assert!(
            error.contains("data.columns.caption = \"my_captoin\"") && error.contains("--column"),
            "{error}"
        );
        let error = Roles { schema: &columns, names: &names, file: "f" }.image().unwrap_err().to_string();
        assert!(error.contains("data.columns.image = \"photo_bytes\""), "{error}");
    }

    #[test]
    fn a_column_named_twice_is_refused_and_one_of_nothing_is_absent() {
        let names = ColumnNames::default();
        let twice = schema(&[("caption", DataType::Utf8), ("caption", DataType::Utf8)]);
        assert!(
            matches!(captions(&twice, &names), Err(DatasetError::RepeatedColumn { column, .. }) if column == "caption")
        );
        let nothing = schema(&[
            ("captions", DataType::new_list(DataType::Null, true)),
            ("caption", DataType::Null),
            ("TEXT", DataType::Utf8),
        ]);
        assert_eq!(captions(&nothing, &names).unwrap(), ["TEXT"]);
    }
}
