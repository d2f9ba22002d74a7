//! One slot's passes and its share of the three losses.

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::contrastive::{Contrast, GradientMode};
use super::global::{GlobalBatch, GlobalFeatures};
use super::model::ContrastModel;
use crate::padded::{Padded, columns};
use crate::qformer::ImageKeyValues;
use blip2_model_files::error::ModelError;
use blip2_tensors::device::cast::in_f32;
use blip2_tensors::error::TensorError;
use blip2_tensors::nn::attention::KeyValue;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::nn::layers::Embedding;
use blip2_tensors::train::loss::{IGNORED, Loss, LossValue, cross_entropy};
use blip2_tensors::train::tape::{Segment, Tape};

/// A slot's inputs.
#[derive(Debug, Clone)]
pub struct SlotBatch {
    /// The encoder's output, `[b, P, Dv]`, before `ln_vision`; a leaf where the encoder is trained, which has
    /// a gradient after [`Segment::Inputs`].
    pub image_features: Tensor<3>,
    /// Token ids, `[b, T]`, row-major.
    pub ids: Vec<i32>,
    /// 1 for a token, 0 for padding, as `ids`.
    pub mask: Vec<i32>,
    /// Tokens of a text, `T`.
    pub text_length: usize,
}

/// A slot's first half: its graph is alive until [`ContrastModel::slot_loss`].
#[derive(Debug)]
pub struct SlotForward {
    /// After `ln_vision`, `[b, P, Dv]`.
    pub image_embeds: Tensor<3>,
    /// The query-only pass's output, `[b, queries, hidden]`.
    pub query_output: Tensor<3>,
    /// The text-only pass's output, `[b, t, hidden]`: of the `T` positions those that are
    /// [computed](crate::padded::computed_length).
    pub text_output: Tensor<3>,
    /// Normalised, `[b, queries, embed_dim]`.
    pub image_feats: Tensor<3>,
    /// Normalised, `[b, embed_dim]`.
    pub text_feat: Tensor<2>,
    image: ImageKeyValues,
    cache: Vec<KeyValue>,
    batch: SlotBatch,
    tape: Tape,
}

/// A slot's share of the global losses.
#[derive(Debug)]
pub struct SlotLoss {
    /// To differentiate: its gradient, summed over slots, is the global loss's.
    pub objective: Tensor<1>,
    /// The cuts below `objective`.
    pub tape: Tape,
    /// Share of the matching loss.
    pub matching: LossValue,
    /// Share of the captioning loss.
    pub captioning: LossValue,
}

/// What a slot's loss needs besides its own forward pass.
#[derive(Debug)]
pub struct SlotContext<'a> {
    /// All slots' values.
    pub global: &'a GlobalBatch,
    /// Their features on the device.
    pub features: &'a GlobalFeatures,
    /// The contrastive loss of all slots.
    pub contrast: &'a Contrast,
    /// The slot's first row in the global batch.
    pub first_row: usize,
    /// For each of the slot's texts, the raw features of its negative image, `[b, P, Dv]`; a leaf as those of
    /// [`SlotBatch`].
    pub negative_images: Tensor<3>,
    /// For each of the slot's images, the global row of its negative text.
    pub negative_texts: &'a [usize],
    /// How the contrastive loss is differentiated.
    pub mode: GradientMode,
    /// Label smoothing of the captioning loss.
    pub smoothing: f64,
    /// Id of `[DEC]`, which starts a caption.
    pub decoder_start: i32,
}

impl SlotBatch {
    fn rows(&self) -> usize {
        self.image_features.dims()[0]
    }

    fn texts(&self) -> Padded<'_> {
        Padded { ids: &self.ids, mask: &self.mask }
    }

    fn validate(&self, image_width: usize) -> Result<(), ModelError> {
        let [rows, _, width] = self.image_features.dims();
        if width != image_width {
            let reason = format!("features of width {width}, the model was made for {image_width}");
            return Err(ModelError::input("image features", reason));
        }
        if self.ids.len() != rows * self.text_length || self.mask.len() != self.ids.len() {
            let reason = format!("{} ids for {rows} texts of {}", self.ids.len(), self.text_length);
            return Err(ModelError::input("texts", reason));
        }
        Ok(())
    }
}

/// `x / max(‖x‖, 1e-12)` over the last dimension.
fn normalise<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let norm = x.clone().square().sum_dim(D - 1).sqrt().clamp_min(1e-12);
    x / norm
}

impl ContrastModel {
    pub(super) fn queries(&self, rows: usize) -> Tensor<3> {
        let [_, queries, hidden] = self.query_tokens.val().dims();
        self.query_tokens.val().expand([rows, queries, hidden])
    }

    /// What the Q-Former sees of features, which may be bf16: float32, as all that is trained.
    pub(super) fn image_embeds(&self, image_features: Tensor<3>) -> Tensor<3> {
        self.ln_vision.forward(in_f32(image_features))
    }

    fn device(&self) -> Device {
        self.temp.val().device()
    }

    /// The temperature's present value.
    pub fn temperature(&self) -> Result<f32, ModelError> {
        Ok(self
            .temp
            .val()
            .inner()
            .try_into_scalar::<f32>()
            .map_err(|e| TensorError::Device(format!("{e:?}")))?)
    }

    /// Normalised image features alone, for retrieval.
    ///
    /// # Shapes
    /// - image_features `[b, P, Dv]`; output `[b, queries, embed_dim]`
    pub fn image_feats(&self, image_features: Tensor<3>) -> Tensor<3> {
        let rows = image_features.dims()[0];
        let image = self.qformer.image_key_values(self.image_embeds(image_features));
        let queries = self.queries(rows);
        let (output, _) =
            self.qformer.forward_queries(queries, &image, &mut Dropout::off(), &mut Tape::whole());
        normalise(self.vision_proj.forward(output))
    }

    /// Normalised text features alone, for retrieval.
    ///
    /// # Shapes
    /// - ids and mask `[b, T]`; output `[b, embed_dim]`
    pub fn text_feats(&self, ids: Tensor<2, Int>, mask: Tensor<2, Int>) -> Result<Tensor<2>, ModelError> {
        let output = self.qformer.forward_text(ids, mask, &mut Dropout::off(), &mut Tape::whole())?;
        Ok(normalise(self.text_proj.forward(output.narrow(1, 0, 1).squeeze_dim::<2>(1))))
    }

    /// The query-only and the text-only pass of one slot, on a new `tape`.
    pub fn features(
        &self,
        batch: SlotBatch,
        dropout: &mut Dropout,
        mut tape: Tape,
    ) -> Result<SlotForward, ModelError> {
        batch.validate(self.ln_vision.weight.val().dims()[0])?;
        let rows = batch.rows();
        let image_embeds = tape.cut(Segment::Inputs, self.image_embeds(batch.image_features.clone()));
        let image = self.qformer.image_key_values(image_embeds.clone());
        let queries = self.queries(rows);
        let (query_output, cache) = self.qformer.forward_queries(queries, &image, dropout, &mut tape);
        let (ids, mask) = batch.texts().computed_tensors(rows, &self.device());
        let text_output = self.qformer.forward_text(ids, mask, dropout, &mut tape)?;
        let image_feats = normalise(self.vision_proj.forward(query_output.clone()));
        let first = text_output.clone().narrow(1, 0, 1).squeeze_dim::<2>(1);
        let text_feat = normalise(self.text_proj.forward(first));
        Ok(SlotForward {
            image_embeds,
            query_output,
            text_output,
            image_feats,
            text_feat,
            image,
            cache,
            batch,
            tape,
        })
    }

    /// The slot's share of the three losses.
    pub fn slot_loss(
        &self,
        mut forward: SlotForward,
        context: &SlotContext<'_>,
        dropout: &mut Dropout,
    ) -> Result<SlotLoss, ModelError> {
        let mut tape = std::mem::take(&mut forward.tape);
        let contrastive = self.contrastive_objective(&forward, context);
        let matching = self.matching_loss(&forward, context, dropout, &mut tape)?;
        let captioning = self.captioning_loss(&forward, context, dropout, &mut tape)?;
        Ok(SlotLoss {
            objective: contrastive + matching.objective + captioning.objective,
            tape,
            matching: matching.value,
            captioning: captioning.value,
        })
    }

    /// Similarities of the slot's live rows times the known gradient of the loss with respect to them.
    ///
    /// In exact mode the temperature's gradient is the image half's alone, which covers every pair once.
    fn contrastive_objective(&self, forward: &SlotForward, context: &SlotContext<'_>) -> Tensor<1> {
        let device = self.device().inner();
        let (global, rows) = (context.global, forward.batch.rows());
        let own = context.first_row..context.first_row + rows;
        let (total, queries, width) = (global.rows(), global.queries, global.embed_dim);
        let temp = self.temp.val().unsqueeze::<2>();

        let images = forward.image_feats.clone().reshape([rows * queries, width]);
        let similarity = images
            .matmul(context.features.texts.clone().transpose())
            .reshape([rows, queries, total])
            .max_dim(1)
            .reshape([rows, total]);
        let gradient = context.contrast.image_gradient(own.clone(), context.mode);
        let gradient = Tensor::<2>::from_data(TensorData::new(gradient, [rows, total]), &device);
        let image_half = (similarity / temp.clone() * gradient).sum();

        let temp = match context.mode {
            GradientMode::Exact => temp.detach(),
            GradientMode::KeysDetached => temp,
        };
        let similarity = context
            .features
            .images
            .clone()
            .matmul(forward.text_feat.clone().transpose())
            .reshape([total, queries, rows])
            .max_dim(1)
            .reshape([total, rows]);
        let gradient = context.contrast.text_gradient(own, context.mode);
        let gradient = Tensor::<2>::from_data(TensorData::new(gradient, [total, rows]), &device);
        image_half + (similarity / temp * gradient).sum()
    }

    /// Own pairs, own texts with negative images, own images with negative texts: `3b` rows.
    fn matching_loss(
        &self,
        forward: &SlotForward,
        context: &SlotContext<'_>,
        dropout: &mut Dropout,
        tape: &mut Tape,
    ) -> Result<Loss, ModelError> {
        let batch = &forward.batch;
        let rows = batch.rows();
        if context.negative_texts.len() != rows || context.negative_images.dims()[0] != rows {
            return Err(ModelError::input("negatives", format!("not one for each of {rows} rows")));
        }
        let (mut ids, mut mask) = (batch.ids.repeat(2), batch.mask.repeat(2));
        for row in context.negative_texts {
            let (text_ids, text_mask) = context.global.text(*row);
            ids.extend_from_slice(text_ids);
            mask.extend_from_slice(text_mask);
        }
        let negative_embeds = self.image_embeds(context.negative_images.clone());
        let negative_embeds = tape.cut(Segment::Inputs, negative_embeds);
        let negative = self.qformer.image_key_values(negative_embeds);
        let image = forward.image.iter().zip(&negative).map(|pair| match pair {
            (Some(own), Some(negative)) => Some(KeyValue::stack_batches(&[own, negative, own])),
            _ => None,
        });
        let texts = Padded { ids: &ids, mask: &mask };
        let logits = self.matching_logits(texts, &image.collect(), 3 * rows, dropout, tape)?;
        // Without another image in the batch there is no negative: these rows do not count.
        let (negative, parts) = if context.contrast.has_negatives() { (0, 3) } else { (IGNORED, 1) };
        let labels: Vec<i32> = (0..3 * rows).map(|row| if row < rows { 1 } else { negative }).collect();
        Ok(cross_entropy(logits, &labels, 0.0, 1.0 / (parts * context.global.rows()) as f64)?)
    }

    /// Logits `[rows, 2]` (1: matched) of texts with the images behind `image`.
    fn matching_logits(
        &self,
        texts: Padded<'_>,
        image: &ImageKeyValues,
        rows: usize,
        dropout: &mut Dropout,
        tape: &mut Tape,
    ) -> Result<Tensor<2>, ModelError> {
        let (ids, mask) = texts.computed_tensors(rows, &self.device());
        let output = self.qformer.forward_joint(self.queries(rows), ids, mask, image, dropout, tape)?;
        // The head is affine, so the mean of the logits is the logits of the mean.
        Ok(self.itm_head.forward(output.mean_dim(1).squeeze_dim::<2>(1)))
    }

    /// Matching logits of the slot's own pairs, `[b, 2]`, without dropout.
    pub fn matched_logits(&self, forward: &SlotForward) -> Result<Tensor<2>, ModelError> {
        let batch = &forward.batch;
        let (dropout, tape) = (&mut Dropout::off(), &mut Tape::whole());
        self.matching_logits(batch.texts(), &forward.image, batch.rows(), dropout, tape)
    }

    /// Captioning logits of the slot's own texts over the cached queries, `[b, t, vocab]`, as long as
    /// [`SlotForward::text_output`].
    pub fn caption_logits(
        &self,
        forward: &SlotForward,
        decoder_start: i32,
        dropout: &mut Dropout,
    ) -> Result<Tensor<3>, ModelError> {
        let hidden = self.caption_hidden(forward, decoder_start, dropout, &mut Tape::whole())?;
        Ok(self.caption_head.forward(hidden, self.word_table()?))
    }

    fn word_table(&self) -> Result<&Embedding, ModelError> {
        match &self.qformer.text {
            Some(text) => Ok(&text.word),
            None => Err(ModelError::input("Q-Former", "it has no text tables")),
        }
    }

    fn caption_hidden(
        &self,
        forward: &SlotForward,
        decoder_start: i32,
        dropout: &mut Dropout,
        tape: &mut Tape,
    ) -> Result<Tensor<3>, ModelError> {
        let batch = &forward.batch;
        let mut ids = batch.ids.clone();
        ids.iter_mut().step_by(batch.text_length).for_each(|first| *first = decoder_start);
        let texts = Padded { ids: &ids, mask: &batch.mask };
        let (ids, mask) = texts.computed_tensors(batch.rows(), &self.device());
        self.qformer.forward_caption(ids, mask, &forward.cache, dropout, tape)
    }

    fn captioning_loss(
        &self,
        forward: &SlotForward,
        context: &SlotContext<'_>,
        dropout: &mut Dropout,
        tape: &mut Tape,
    ) -> Result<Loss, ModelError> {
        let batch = &forward.batch;
        let hidden = self.caption_hidden(forward, context.decoder_start, dropout, tape)?;
        let [rows, length, _] = hidden.dims();
        // The last position predicts nothing.
        let logits = self.caption_head.forward(hidden.narrow(1, 0, length - 1), self.word_table()?);
        let classes = logits.dims()[2];
        let labels = (batch.ids.iter().zip(&batch.mask))
            .map(|(id, mask)| if *mask == 0 { IGNORED } else { *id })
            .collect::<Vec<_>>();
        let labels = columns(&labels, batch.text_length, &(1..length));
        let scale = 1.0 / context.global.caption_tokens().max(1) as f64;
        Ok(cross_entropy(logits.reshape([rows * (length - 1), classes]), &labels, context.smoothing, scale)?)
    }
}
