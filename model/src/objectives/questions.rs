//! The queries of the generate task with a question beside them (InstructBLIP, arXiv 2305.06500, section
//! 3.1): their self-attention mixes with the text, so that they look in the image for what is asked.

use burn::tensor::{Device, Int, Tensor};

use super::generate::GenerateModel;
use crate::padded::Padded;
use crate::qformer::QFormerConfig;
use blip2_model_files::error::ModelError;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::train::tape::Tape;

/// Ids and mask of a question for each of `rows` images, `[rows, t]`, in the Q-Former's own tokens.
fn tensors(
    questions: Padded<'_>,
    rows: usize,
    device: &Device,
) -> Result<(Tensor<2, Int>, Tensor<2, Int>), ModelError> {
    let Padded { ids, mask } = questions;
    let length = ids.len().checked_div(rows).unwrap_or(0);
    if length == 0 || length * rows != ids.len() || mask.len() != ids.len() {
        let reason = format!(
            "{} ids and {} of a mask, which are not as many for each of {rows} images",
            ids.len(),
            mask.len()
        );
        return Err(ModelError::input("questions", reason));
    }
    Ok(questions.computed_tensors(rows, device))
}

impl GenerateModel {
    /// A model of zeros whose Q-Former reads text too: with word and position tables and the text's
    /// feed-forward parts, as the contrast task has them.
    ///
    /// # Errors
    /// Sizes that no model can have.
    pub fn reading_questions(
        config: &QFormerConfig,
        ln_vision_eps: f64,
        language_width: usize,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let model = Self::new(config, ln_vision_eps, language_width, device)?;
        Ok(Self { qformer: config.init(true, device), ..model })
    }

    /// The queries' outputs beside a question each, before the projection: the matching pass of the contrast
    /// task without its head. `tape` is cut as in [`GenerateModel::query_output`].
    ///
    /// # Shapes
    /// - image_features `[b, P, Dv]`, before `ln_vision`; questions `[b, T]`, padded on the right, in the
    ///   Q-Former's own tokens; output `[b, queries, hidden]`
    ///
    /// # Errors
    /// Features of another width, questions that do not fit, a Q-Former without text tables.
    pub fn query_output_asked(
        &self,
        image_features: Tensor<3>,
        questions: Padded<'_>,
        dropout: &mut Dropout,
        tape: &mut Tape,
    ) -> Result<Tensor<3>, ModelError> {
        let (rows, device) = (image_features.dims()[0], self.query_tokens.val().device());
        let (ids, mask) = tensors(questions, rows, &device)?;
        let image = self.image_key_values(image_features, tape)?;
        self.qformer.forward_joint(self.queries(rows), ids, mask, &image, dropout, tape)
    }

    /// The soft prompt of images with a question each.
    ///
    /// # Shapes
    /// - image_features `[b, P, Dv]`, before `ln_vision`; output `[b, queries, language width]`
    ///
    /// # Errors
    /// As [`GenerateModel::query_output_asked`].
    pub fn forward_asked(
        &self,
        image_features: Tensor<3>,
        questions: Padded<'_>,
        dropout: &mut Dropout,
        tape: &mut Tape,
    ) -> Result<Tensor<3>, ModelError> {
        Ok(self.opt_proj.forward(self.query_output_asked(image_features, questions, dropout, tape)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filled::filled;
    use blip2_tensors::device::read_back::floats;

    fn small() -> QFormerConfig {
        QFormerConfig::new(6)
            .with_hidden(8)
            .with_layers(2)
            .with_heads(2)
            .with_intermediate(12)
            .with_vocab(20)
            .with_max_positions(8)
            .with_queries(3)
            .with_dropout(0.0)
    }

    fn outputs(model: &GenerateModel, ids: &[i32], mask: &[i32]) -> Result<Vec<f32>, ModelError> {
        let device = Device::flex();
        let features = Tensor::<1, Int>::arange(0..2 * 4 * 6, &device).float().sin().reshape([2, 4, 6]);
        let (dropout, tape) = (&mut Dropout::off(), &mut Tape::whole());
        Ok(floats(model.query_output_asked(features, Padded { ids, mask }, dropout, tape)?)?)
    }

    #[test]
    fn queries_see_the_question_and_not_its_padding() {
        let model = GenerateModel::reading_questions(&small(), 1e-5, 10, &Device::flex()).unwrap();
        let model = filled(model);
        let asked = outputs(&model, &[2, 7, 3, 2, 9, 3], &[1; 6]).unwrap();
        let padded =
            outputs(&model, &[2, 7, 3, 0, 11, 2, 9, 3, 0, 12], &[1, 1, 1, 0, 0, 1, 1, 1, 0, 0]).unwrap();
        let other = outputs(&model, &[2, 8, 3, 2, 9, 3], &[1; 6]).unwrap();
        let far = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far(&asked, &padded) < 1e-6, "{}", far(&asked, &padded));
        // Only the first image was asked something else.
        let half = asked.len() / 2;
        assert!(far(&asked[..half], &other[..half]) > 1e-4);
        assert_eq!(asked[half..], other[half..]);
    }

    #[test]
    fn questions_that_do_not_fit_are_refused() {
        let device = Device::flex();
        let model = filled(GenerateModel::reading_questions(&small(), 1e-5, 10, &device).unwrap());
        for (ids, mask) in [(&[2, 3, 4][..], &[1, 1, 1][..]), (&[], &[]), (&[2, 3], &[1])] {
            let error = outputs(&model, ids, mask).unwrap_err().to_string();
            assert!(error.contains("2 images"), "{error}");
        }
        let deaf = filled(GenerateModel::new(&small(), 1e-5, 10, &device).unwrap());
        assert!(outputs(&deaf, &[2, 3], &[1, 1]).unwrap_err().to_string().contains("text tables"));
    }
}
