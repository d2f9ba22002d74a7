//! Where the columns of one file are.

use arrow::datatypes::{DataType, Schema};

use super::find::{Roles, TextRole};
use super::kinds::{is_answer, is_binary, is_caption, is_image, is_text};
use super::names::{ColumnNames, HashOf};
use crate::error::{DatasetError, Result};

/// The columns of one file: indices into its schema, ascending in no particular order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileColumns {
    pub(super) image: usize,
    /// Text or lists of text.
    pub(super) captions: Vec<usize>,
    pub(super) key: Option<usize>,
    pub(super) status: Option<usize>,
    pub(super) sha256: Option<usize>,
    pub(super) hash_of: HashOf,
    /// Only where asked for: training does not read it.
    pub(super) url: Option<usize>,
    /// Only where rows are questions.
    pub(super) question: Option<usize>,
    pub(super) answers: Option<usize>,
    pub(super) image_id: Option<usize>,
    /// Ids of images are hashes of their bytes.
    pub(super) hashes_images: bool,
}

impl FileColumns {
    /// Finds the columns in a file's schema and checks their types. Columns of Arrow's null type are absent
    /// ones.
    ///
    /// # Errors
    /// [`DatasetError::MissingColumn`], [`DatasetError::RepeatedColumn`], [`DatasetError::ColumnType`].
    pub(crate) fn find(schema: &Schema, names: &ColumnNames, file: &str) -> Result<Self> {
        let roles = Roles { schema, names, file };
        let (question, answers) = match names.captions_too {
            true => (roles.named(&names.question)?, roles.named(&names.answers)?),
            false => (
                roles.required("question", &names.question, is_text)?,
                roles.required("answers", &names.answers, is_answer)?,
            ),
        };
        let asks = question.is_some() && answers.is_some();
        let columns = Self {
            image: roles.image()?,
            captions: match roles.captions() {
                Err(DatasetError::MissingColumn { .. }) if asks => Vec::new(),
                found => found?,
            },
            key: roles.optional(TextRole::Key)?,
            status: roles.named(&names.status)?,
            sha256: roles.named(&names.sha256)?,
            hash_of: names.sha256_of,
            url: None,
            question: question.filter(|_| asks),
            answers: answers.filter(|_| asks),
            image_id: match names.hashes_images() {
                true => None,
                false => roles.required("image_id", &names.image_id, |_| true)?,
            },
            hashes_images: names.hashes_images(),
        };
        columns.check_types(schema, file)?;
        Ok(columns)
    }

    /// With the images' sources, if the file has them.
    pub(crate) fn with_url(self, schema: &Schema, names: &ColumnNames) -> Self {
        let url = Roles { schema, names, file: "" }.optional(TextRole::Url).ok().flatten();
        let url = url.filter(|place| is_text(schema.field(*place).data_type()));
        Self { url, ..self }
    }

    /// Of a file that records the hash of every row group: it was written by ingestion or curation, which
    /// record the SHA-256 of what they store.
    pub(crate) fn with_stored_hash(self) -> Self {
        let hash_of = if self.hash_of == HashOf::Auto { HashOf::Stored } else { self.hash_of };
        Self { hash_of, ..self }
    }

    /// Whether it is found out from the rows whose hashes are recorded.
    pub(crate) fn finds_out(&self) -> bool {
        self.hash_of == HashOf::Auto
    }

    /// Index of the column that says which downloads failed.
    pub(crate) fn status(&self) -> Option<usize> {
        self.status
    }

    /// Indices of all columns to read.
    pub(crate) fn projection(&self) -> Vec<usize> {
        let asked = [self.question, self.answers, self.image_id];
        let optional = [self.key, self.status, self.sha256, self.url].into_iter().chain(asked).flatten();
        let mut indices: Vec<_> = self.captions.iter().copied().chain([self.image]).chain(optional).collect();
        indices.sort_unstable();
        indices.dedup();
        indices
    }

    fn check_types(&self, schema: &Schema, file: &str) -> Result<()> {
        let check = |index: usize, wanted: &'static str, accepts: fn(&DataType) -> bool| {
            let field = schema.field(index);
            if accepts(field.data_type()) {
                return Ok(());
            }
            Err(DatasetError::ColumnType {
                file: file.to_owned(),
                column: field.name().clone(),
                found: field.data_type().to_string(),
                wanted,
            })
        };
        check(self.image, "binary (or a structure with binary `bytes`)", is_image)?;
        for caption in &self.captions {
            check(*caption, "text, a list of text, or a list of structures with `text`", is_caption)?;
        }
        if let Some(question) = self.question {
            check(question, "text", is_text)?;
        }
        if let Some(answers) = self.answers {
            check(answers, "text, a list of text, or a list of structures with `answer`", is_answer)?;
        }
        if let Some(status) = self.status {
            check(status, "text", is_text)?;
        }
        self.sha256
            .map_or(Ok(()), |sha256| check(sha256, "text or binary", |kind| is_text(kind) || is_binary(kind)))
    }
}
