//! Images and captions as COCO's annotations have them.

use serde::Deserialize;

use crate::row_id::RowId;

/// An image.
#[derive(Deserialize)]
pub(crate) struct CocoImage {
    pub(crate) id: RowId,
    file_name: Option<String>,
}

impl CocoImage {
    /// The name of its file, or its id where it has none.
    pub(crate) fn into_name(self) -> String {
        self.file_name.unwrap_or_else(|| self.id.to_string())
    }
}

/// A caption; with `Option<String>` for its text, one that may have none.
#[derive(Deserialize)]
pub(crate) struct CocoCaption<T = String> {
    pub(crate) image_id: RowId,
    pub(crate) caption: T,
}
