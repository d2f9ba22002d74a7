//! Items of a set, in their order.

use std::ops::Range;

use image::RgbImage;

use super::image_source::{ImageReader, ImageSource};
use crate::job_error::Result;

/// An item: what is asked of an image or said about it.
#[derive(Debug, Clone)]
pub struct Item<T> {
    /// The image's name in the set.
    pub name: String,
    /// Where the image is.
    pub(super) image: ImageSource,
    /// What is known of it.
    pub row: T,
}

/// What tells one row from another.
pub trait Identity {
    /// Ids and texts.
    fn identity(&self) -> String;
}

/// A set.
#[derive(Debug)]
pub struct ItemSet<T> {
    /// The items.
    pub items: Vec<Item<T>>,
    pub(super) reader: ImageReader,
}

impl<T: Identity> ItemSet<T> {
    /// BLAKE3 of images' names, ids and texts, in the set's order.
    pub fn digest(&self) -> String {
        let mut hash = blake3::Hasher::new();
        for item in &self.items {
            for part in [item.name.as_str(), &item.row.identity()] {
                hash.update(&(part.len() as u64).to_le_bytes());
                hash.update(part.as_bytes());
            }
        }
        hash.finalize().to_hex().to_string()
    }
}

impl<T> ItemSet<T> {
    /// The different images of some items, and which of them is each item's.
    ///
    /// # Errors
    /// An image that cannot be read or decoded: it is named.
    pub async fn images(&mut self, items: Range<usize>) -> Result<(Vec<RgbImage>, Vec<usize>)> {
        let (mut sources, mut images, mut places) = (Vec::<&ImageSource>::new(), Vec::new(), Vec::new());
        for item in &self.items[items] {
            // Those of one image mostly follow each other, and a unit is short.
            let place = match sources.iter().rposition(|source| **source == item.image) {
                Some(place) => place,
                None => {
                    images.push(self.reader.read(&item.name, &item.image).await?);
                    sources.push(&item.image);
                    images.len() - 1
                }
            };
            places.push(place);
        }
        Ok((images, places))
    }
}
