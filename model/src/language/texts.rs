//! Texts as a language model reads and predicts them.

use burn::tensor::{Device, Int, Tensor};

use crate::padded::{Padded, columns, computed_length, used};
use blip2_model_files::error::ModelError;
use blip2_tensors::train::loss::{IGNORED, Loss, cross_entropy, weighted_cross_entropy};

/// The texts of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Texts<'a> {
    /// Number of texts.
    pub rows: usize,
    /// What is read before each text and not predicted, or nothing; padded on the left for decoder-only
    /// models, on either side for encoders.
    pub prefix: Padded<'a>,
    /// What is predicted, padded on the right.
    pub text: Padded<'a>,
    /// The token predicted at each place of `text`, or [`IGNORED`].
    pub labels: &'a [i32],
    /// Factor of each text's loss; empty: 1 for each.
    pub weights: &'a [f32],
}

impl Texts<'_> {
    /// Requires that ids, masks and labels fit.
    pub(super) fn check(&self) -> Result<(), ModelError> {
        let refuse = |reason: String| Err(ModelError::input("texts", reason));
        for (what, part) in [("prefix", self.prefix), ("text", self.text)] {
            let (ids, mask, rows) = (part.ids.len(), part.mask.len(), self.rows);
            if ids != mask || rows == 0 || !ids.is_multiple_of(rows) {
                return refuse(format!("{what}: {ids} ids and {mask} mask values for {rows} rows"));
            }
        }
        let (labels, ids) = (self.labels.len(), self.text.ids.len());
        if ids == 0 || labels != ids {
            return refuse(format!("{labels} labels for {ids} ids"));
        }
        if !self.weights.is_empty() && self.weights.len() != self.rows {
            return refuse(format!("{} weights for {} rows", self.weights.len(), self.rows));
        }
        Ok(())
    }

    /// What is predicted, without the positions that are padding in all texts.
    pub(super) fn predicted(&self, device: &Device) -> Predicted {
        let text = self.text;
        let length = text.ids.len() / self.rows;
        let alive = text.mask.iter().zip(self.labels).map(|(mask, label)| *mask != 0 || *label != IGNORED);
        let positions = 0..computed_length(used(length, alive), length);
        let (ids, mask) = text.tensors(self.rows, &positions, device);
        Predicted { ids, mask, labels: columns(self.labels, length, &positions) }
    }
}

/// Texts on a device, `[b, T]` each.
pub(super) struct Predicted {
    pub(super) ids: Tensor<2, Int>,
    pub(super) mask: Tensor<2, Int>,
    /// Row-major.
    pub(super) labels: Vec<i32>,
}

/// What is read before a text, with its mask; absent where nothing is.
pub(crate) type Context = Option<(Tensor<3>, Tensor<2, Int>)>;

/// Inputs and masks, one after the other.
pub(super) fn followed_by(
    (first, first_mask): (Tensor<3>, Tensor<2, Int>),
    (second, second_mask): (Tensor<3>, Tensor<2, Int>),
) -> (Tensor<3>, Tensor<2, Int>) {
    (Tensor::cat(vec![first, second], 1), Tensor::cat(vec![first_mask, second_mask], 1))
}

/// The cross-entropy of the texts' scores, summed over the places that have a label; `weights` are the texts'
/// or none.
///
/// # Shapes
/// - logits `[texts, places, classes]`; one label a place
pub(super) fn sum_over_labels(
    logits: Tensor<3>,
    labels: &[i32],
    weights: &[f32],
) -> Result<Loss, ModelError> {
    let [texts, places, classes] = logits.dims();
    let logits = logits.reshape([texts * places, classes]);
    if weights.is_empty() {
        return Ok(cross_entropy(logits, labels, 0.0, 1.0)?);
    }
    let weights: Vec<f32> = weights.iter().flat_map(|weight| std::iter::repeat_n(*weight, places)).collect();
    Ok(weighted_cross_entropy(logits, labels, &weights)?)
}
