//! What the columns are to be called, and whose SHA-256 one of them holds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whose SHA-256 a file records beside its images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HashOf {
    /// Found from the first rows of each row group: where hardly any hash is that of the stored bytes, none
    /// is compared.
    #[default]
    Auto,
    /// Of the stored bytes: a row with another is not used.
    Stored,
    /// Of what was downloaded, before it was resized and encoded anew, as img2dataset records it: not
    /// compared.
    Download,
}

/// Names of the columns, as img2dataset writes them by default.
///
/// `image` and one of `caption` and `captions` are needed; the others are used when a file has them. An empty
/// name switches an optional column off. Where a name is the default and a file has no such column, the names
/// that the published data sets use are looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ColumnNames {
    /// Column with the image files' bytes; if absent, the first of `jpg`, `png`, `webp`, `image`, `jpeg`,
    /// `img`, `picture` that exists.
    pub image: String,
    /// Column with one caption (text), or several (list of text); if both this and `captions` are absent and
    /// neither was named otherwise, the first of `TEXT`, `alt_text`, `top_caption`, `re_caption` and their
    /// like that exists.
    pub caption: String,
    /// Column with a list of captions, of which one is drawn each time; preferred to `caption`. A list of
    /// text, or of structures as curation writes them: their `text`, where `dropped` is null or not there.
    pub captions: String,
    /// Column with a name for the row, used in reports.
    pub key: String,
    /// Column that is `success` for usable rows; the others are passed over and counted.
    pub status: String,
    /// Column with the SHA-256 of the image bytes, as hexadecimal text or 32 bytes, checked where it is that
    /// of the stored ones.
    pub sha256: String,
    /// Whose hash it is: `stored`, `download` (as img2dataset records it: not checked), or `auto`, found from
    /// the first rows of a row group.
    pub sha256_of: HashOf,
    /// Column with the image's URL.
    pub url: String,
    /// Column with a question on the image (text), for tasks that answer; a file need have no captions then.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(extend("x-stored-if-set" = true))]
    pub question: String,
    /// Column with the answer to the question (text), or with those of several people (a list of text, or of
    /// structures with `answer`).
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(extend("x-stored-if-set" = true))]
    pub answers: String,
    /// Column that tells images apart, such as a file name or a number: rows of one value show one image;
    /// `blake3` stands for the hash of the image file's bytes.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(extend("x-stored-if-set" = true))]
    pub image_id: String,
    /// Whether a row, or a file, without a question is one of captions: a task says it, no configuration.
    #[serde(skip)]
    pub captions_too: bool,
}

/// The name that stands for the hash of the image file's bytes, in the place of a column of ids.
const HASHED: &str = "blake3";

impl ColumnNames {
    /// Whether rows are questions with their answers, or some of them may be.
    pub fn ask(&self) -> bool {
        !self.question.is_empty() || self.captions_too
    }

    /// The same where rows and files without a question are those of captions.
    pub fn with_captions_too(&self) -> Self {
        Self { captions_too: true, ..self.clone() }
    }

    /// The same for a reader of captions, to whom questions are nothing.
    pub fn without_questions(&self) -> Self {
        Self { question: String::new(), answers: String::new(), ..self.clone() }
    }

    /// The same for a reader that tells images apart, by the hash of their bytes where no column is named.
    pub fn with_image_ids(self) -> Self {
        match self.image_id.is_empty() {
            true => Self { image_id: HASHED.into(), ..self },
            false => self,
        }
    }

    /// Whether ids of images are hashes of their bytes.
    pub(super) fn hashes_images(&self) -> bool {
        self.image_id == HASHED
    }
}

impl Default for ColumnNames {
    fn default() -> Self {
        Self {
            image: "jpg".into(),
            caption: "caption".into(),
            captions: "captions".into(),
            key: "key".into(),
            status: "status".into(),
            sha256: "sha256".into(),
            sha256_of: HashOf::Auto,
            url: "url".into(),
            question: String::new(),
            answers: String::new(),
            image_id: String::new(),
            captions_too: false,
        }
    }
}
