//! Texts compared with one image by the matching head, where nothing is trained.

use burn::tensor::{Int, Tensor};

use super::model::ContrastModel;
use crate::qformer::ImageKeyValues;
use blip2_model_files::error::ModelError;
use blip2_tensors::nn::attention::KeyValue;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::train::tape::Tape;

impl ContrastModel {
    /// What the Q-Former attends to of an image, computed once for all texts.
    ///
    /// # Shapes
    /// - image_features `[1, P, Dv]`
    pub fn image_key_values(&self, image_features: Tensor<3>) -> ImageKeyValues {
        self.qformer.image_key_values(self.image_embeds(image_features))
    }

    /// Logits (1: matched) of texts with one image: the mean over the queries of the head's.
    ///
    /// # Shapes
    /// - image: keys and values of one image; ids and mask `[b, T]`; output `[b, 2]`
    pub fn match_logits(
        &self,
        image: &ImageKeyValues,
        ids: Tensor<2, Int>,
        mask: Tensor<2, Int>,
    ) -> Result<Tensor<2>, ModelError> {
        let rows = ids.dims()[0];
        let image = image.iter().map(|layer| layer.as_ref().map(|layer| for_rows(layer, rows))).collect();
        let (dropout, tape) = (&mut Dropout::off(), &mut Tape::whole());
        let output = self.qformer.forward_joint(self.queries(rows), ids, mask, &image, dropout, tape)?;
        // The head is affine, so the mean of the logits is the logits of the mean.
        Ok(self.itm_head.forward(output.mean_dim(1).squeeze_dim::<2>(1)))
    }
}

/// One image's keys and values, for each of so many texts.
fn for_rows(image: &KeyValue, rows: usize) -> KeyValue {
    let [_, heads, length, width] = image.key.dims();
    let shape = [rows, heads, length, width];
    KeyValue { key: image.key.clone().expand(shape), value: image.value.clone().expand(shape) }
}
