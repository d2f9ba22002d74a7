//! The values of all slots that every slot's loss refers to.

use burn::tensor::{Device, Tensor, TensorData};

use super::contrastive::Contrast;
use blip2_model_files::error::ModelError;
use blip2_tensors::device::read_back::floats;

/// Features, token ids and masks of the global batch, in the order of its rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GlobalBatch {
    /// Queries of an image.
    pub queries: usize,
    /// Width of the contrastive space.
    pub embed_dim: usize,
    /// Tokens of a text.
    pub text_length: usize,
    /// `[N, queries, embed_dim]`, normalised.
    pub image_feats: Vec<f32>,
    /// `[N, embed_dim]`, normalised.
    pub text_feats: Vec<f32>,
    /// `[N, text_length]`.
    pub ids: Vec<i32>,
    /// `[N, text_length]`.
    pub mask: Vec<i32>,
}

/// The features of a [`GlobalBatch`] on a device.
#[derive(Debug, Clone)]
pub struct GlobalFeatures {
    rows: usize,
    queries: usize,
    /// `[N·queries, embed_dim]`.
    pub(super) images: Tensor<2>,
    /// `[N, embed_dim]`.
    pub(super) texts: Tensor<2>,
}

impl GlobalFeatures {
    /// The contrastive loss and all that follows from the similarities.
    ///
    /// # Errors
    /// A device that fails.
    pub fn contrast(&self, temperature: f32, smoothing: f64) -> Result<Contrast, ModelError> {
        Ok(Contrast::new(self.similarity(temperature)?, self.rows, smoothing))
    }

    /// The same where some rows have the same image: `images` holds the id of each row's.
    ///
    /// # Errors
    /// Not an id for each row, or a device that fails.
    pub fn contrast_of_images(
        &self,
        images: &[u64],
        temperature: f32,
        smoothing: f64,
    ) -> Result<Contrast, ModelError> {
        if images.len() != self.rows {
            let reason = format!("{} for {} rows", images.len(), self.rows);
            return Err(ModelError::input("image ids", reason));
        }
        Ok(Contrast::of_images(self.similarity(temperature)?, images, smoothing))
    }

    /// Similarities over the temperature, image-major.
    fn similarity(&self, temperature: f32) -> Result<Vec<f32>, ModelError> {
        let (rows, queries) = (self.rows, self.queries);
        let similarity = self
            .images
            .clone()
            .matmul(self.texts.clone().transpose())
            .reshape([rows, queries, rows])
            .max_dim(1)
            .reshape([rows, rows])
            / temperature;
        Ok(floats(similarity)?)
    }
}

impl GlobalBatch {
    /// Number of pairs.
    pub fn rows(&self) -> usize {
        self.ids.len().checked_div(self.text_length).unwrap_or(0)
    }

    /// Number of tokens the captioning loss predicts: every real token but the first of each text.
    pub fn caption_tokens(&self) -> usize {
        if self.text_length == 0 {
            return 0;
        }
        self.mask.chunks(self.text_length).map(|row| row[1..].iter().filter(|m| **m != 0).count()).sum()
    }

    /// Rows with a feature that is not finite.
    pub fn odd_rows(&self) -> Vec<usize> {
        let odd = |values: &[f32], width: usize, row: usize| {
            values.get(row * width..(row + 1) * width).is_some_and(|of| of.iter().any(|v| !v.is_finite()))
        };
        let (images, texts) = (self.queries * self.embed_dim, self.embed_dim);
        let is_odd = |row: &usize| odd(&self.image_feats, images, *row) || odd(&self.text_feats, texts, *row);
        (0..self.rows()).filter(is_odd).collect()
    }

    /// Checks that the parts fit together.
    pub fn validate(&self) -> Result<(), ModelError> {
        let rows = self.rows();
        let fits = self.mask.len() == self.ids.len()
            && rows * self.text_length == self.ids.len()
            && self.image_feats.len() == rows * self.queries * self.embed_dim
            && self.text_feats.len() == rows * self.embed_dim;
        if rows < 2 {
            let reason = format!("{rows} pairs; contrast and negatives need two or more");
            return Err(ModelError::input("global batch", reason));
        }
        if !fits {
            return Err(ModelError::input("global batch", "features and texts of different numbers of rows"));
        }
        Ok(())
    }

    /// The features on `device`, where the similarities of all slots are computed.
    ///
    /// # Errors
    /// Parts that do not fit together, or fewer than two pairs.
    pub fn features(&self, device: &Device) -> Result<GlobalFeatures, ModelError> {
        self.validate()?;
        let (rows, queries, width) = (self.rows(), self.queries, self.embed_dim);
        let images = TensorData::new(self.image_feats.clone(), [rows * queries, width]);
        let texts = TensorData::new(self.text_feats.clone(), [rows, width]);
        let [images, texts] = [images, texts].map(|values| Tensor::from_data(values, device));
        Ok(GlobalFeatures { rows, queries, images, texts })
    }

    /// Ids and mask of text `row`.
    pub(super) fn text(&self, row: usize) -> (&[i32], &[i32]) {
        let range = row * self.text_length..(row + 1) * self.text_length;
        (&self.ids[range.clone()], &self.mask[range])
    }
}
