//! What a caption's image tells a language model about it.

use blip2_dataset::corpus::samples::Sample;
use blip2_model::objectives::generate::GenerateModel;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::train::tape::Tape;
use burn::tensor::{Int, Tensor, TensorData};

use crate::captions::{caption, other_rows};
use crate::error::{EvaluationError, Result};
use crate::sample_encoder::{BATCH, SampleEncoder};

/// Mean loss per caption token of a set, without the token that starts a text. With an encoder-decoder, the
/// first words of a caption are read in all three cases and the loss is that of the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CaptionLosses {
    /// Each caption behind its own image.
    pub with_images: f64,
    /// Each caption behind another caption's image.
    pub shuffled: f64,
    /// Captions alone, without a soft prompt.
    pub language_model: f64,
}

/// The loss of captions, summed over their predicted tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SummedLoss {
    /// In nats.
    pub sum: f64,
    /// Predicted tokens.
    pub tokens: usize,
}

/// A frozen language model, as a run asks it for captions.
pub trait CaptionModel {
    /// What it fails with.
    type Error: From<EvaluationError>;

    /// The loss of `captions`, each behind its row of the soft prompts `[b, queries, width]`, or without.
    ///
    /// # Errors
    /// A caption that the tokenizer refuses, a device that fails.
    fn caption_loss(
        &self,
        soft_prompts: Option<Tensor<3>>,
        captions: &[String],
    ) -> Result<SummedLoss, Self::Error>;
}

/// The losses of the samples' first captions; `seed` chooses whose image is another's.
///
/// # Errors
/// No samples, an image that cannot be prepared, a loss that is not finite.
pub fn caption_losses<M: CaptionModel>(
    images: &SampleEncoder,
    model: &GenerateModel,
    language_model: &M,
    samples: &[&Sample],
    seed: u64,
) -> Result<CaptionLosses, M::Error> {
    if samples.is_empty() {
        let reason = "no caption that the language model's tokenizer can take";
        return Err(EvaluationError::Configuration(format!("evaluation set: {reason}")).into());
    }
    let prompts = soft_prompts(images, model, samples)?;
    let captions: Vec<String> = samples.iter().map(|sample| caption(sample)).collect();
    let order: Vec<i32> = other_rows(&captions, seed).into_iter().map(|row| row as i32).collect();
    let order = Tensor::<1, Int>::from_data(TensorData::new(order, [samples.len()]), images.device());
    let shuffled = prompts.clone().select(0, order);
    let mean = |prompts, what| mean_loss(language_model, prompts, &captions, what);
    Ok(CaptionLosses {
        with_images: mean(Some(prompts), "with pictures")?,
        shuffled: mean(Some(shuffled), "with others' pictures")?,
        language_model: mean(None, "without pictures")?,
    })
}

/// `[samples, queries, width]`.
fn soft_prompts(images: &SampleEncoder, model: &GenerateModel, samples: &[&Sample]) -> Result<Tensor<3>> {
    let mut prompts = Vec::new();
    for features in images.image_features(samples) {
        prompts.push(model.forward(features?, &mut Dropout::off(), &mut Tape::whole())?);
    }
    Ok(Tensor::cat(prompts, 0))
}

fn mean_loss<M: CaptionModel>(
    language_model: &M,
    prompts: Option<Tensor<3>>,
    captions: &[String],
    what: &str,
) -> Result<f64, M::Error> {
    let (mut sum, mut count) = (0.0, 0);
    for (index, captions) in captions.chunks(BATCH).enumerate() {
        let prompt = prompts.as_ref().map(|all| all.clone().narrow(0, index * BATCH, captions.len()));
        let loss = language_model.caption_loss(prompt, captions)?;
        sum += loss.sum;
        count += loss.tokens;
    }
    let mean = sum / count.max(1) as f64;
    Ok(EvaluationError::unless_finite(mean, || format!("the loss of captions {what}"))?)
}
