//! What a member holds between steps: the parameters and moments of the stage it is in.

use std::path::Path;
use std::sync::Arc;

use blip2_model::files::weights::{WeightSource, initialise};
use blip2_model::nn::tensors::compute_in;
use blip2_model::objectives::contrast::ContrastModel;
use blip2_model::objectives::generate::GenerateModel;
use blip2_model::qformer::QFormerConfig;
use blip2_model::train::buckets::{BUCKET_ELEMENTS, GradientBuckets, SegmentGradients};
use blip2_model::train::flat::FlatLayout;
use blip2_model::train::optimizer::{Magnitudes, Moments};
use blip2_model::train::placed::PlacedTensors;
use blip2_model::train::tape::Segment;
use burn::tensor::{Device, Gradients};

use crate::checkpoint::NamedState;
use crate::config::WorkerConfig;
use crate::error::{Result, WorkerError};
use crate::import::{compare_folder, overlay};
use crate::open::SeededValues;

/// How the projection's tensors begin, which only stage 2 has.
const PROJECTION: &str = "opt_proj.";

/// Whether a tensor is one that only stage 2 has, and that may begin anew there.
pub(crate) fn is_projection(name: &str) -> bool {
    name.starts_with(PROJECTION)
}

/// A tensor that stage 2 may continue with.
type Previous = Result<Option<Vec<f32>>>;

/// Sizes that come from the frozen parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrozenSizes {
    /// Width of the image encoder's features.
    pub image_width: usize,
    /// Rows of the Q-Former's word table.
    pub vocab: usize,
    /// Width of the language model's embeddings; 0 without stage 2.
    pub language_width: usize,
}

/// The model of a stage.
#[derive(Debug)]
pub enum StageModel {
    /// Representation learning.
    Stage1(Box<ContrastModel>),
    /// Generative learning.
    Stage2(Box<GenerateModel>),
}

/// Parameters and optimizer state after a number of committed steps.
///
/// The flat float32 buffers are the truth; the model's tensors are a copy on the device.
#[derive(Debug)]
pub struct TrainState {
    /// 1 or 2.
    pub stage: u32,
    /// The model on the autodiff device.
    pub model: StageModel,
    /// Places of the trainable tensors in the buffers.
    pub layout: FlatLayout,
    /// The layout's parts in the order in which a backward pass completes them.
    pub parts: Arc<GradientBuckets>,
    /// Master copy.
    pub parameters: Vec<f32>,
    /// AdamW's moments.
    pub moments: Moments,
    /// The last step's gradient buffer, for the next one: fresh pages cost more time than the values in them.
    pub(crate) spare: Vec<f32>,
    /// Buffers for the state after the next step.
    pub(crate) spare_next: NextBuffers,
    /// Bounds of the values, as far as they are known.
    pub(crate) magnitudes: Option<Magnitudes>,
}

/// Parameters and moments in buffers, of a state to be or of one that was.
#[derive(Debug, Clone)]
pub(crate) struct NextBuffers {
    pub(crate) parameters: Vec<f32>,
    pub(crate) moments: Moments,
}

impl Default for NextBuffers {
    fn default() -> Self {
        Self { parameters: Vec::new(), moments: Moments::zeros(0) }
    }
}

/// What a step makes of a state, computed before the step is committed.
#[derive(Debug)]
pub(crate) struct NextState {
    /// In the state's layout.
    pub(crate) buffers: NextBuffers,
    /// The parameters on the device.
    pub(crate) placed: PlacedTensors,
}

impl StageModel {
    /// Takes what `segment` gave the model's tensors out of `gradients`.
    pub(crate) fn take_gradients(
        &mut self,
        gradients: &mut Gradients,
        segment: Segment,
    ) -> Result<SegmentGradients> {
        Ok(match self {
            Self::Stage1(model) => SegmentGradients::take(model.as_mut(), gradients, segment)?,
            Self::Stage2(model) => SegmentGradients::take(model.as_mut(), gradients, segment)?,
        })
    }

    /// The stage-1 model, in stage 1.
    pub(crate) fn stage1(&self) -> Result<&ContrastModel> {
        match self {
            Self::Stage1(model) => Ok(model),
            Self::Stage2(_) => Err(WorkerError::Protocol("a stage-1 step with a stage-2 state".into())),
        }
    }

    /// The stage-2 model, in stage 2.
    pub(crate) fn stage2(&self) -> Result<&GenerateModel> {
        match self {
            Self::Stage2(model) => Ok(model),
            Self::Stage1(_) => Err(WorkerError::Protocol("a stage-2 step with a stage-1 state".into())),
        }
    }

    fn layout(&mut self) -> Result<FlatLayout> {
        Ok(match self {
            Self::Stage1(model) => FlatLayout::of(model.as_mut())?,
            Self::Stage2(model) => FlatLayout::of(model.as_mut())?,
        })
    }

    fn read(&mut self, layout: &FlatLayout) -> Result<Vec<f32>> {
        Ok(match self {
            Self::Stage1(model) => layout.read(model.as_mut())?,
            Self::Stage2(model) => layout.read(model.as_mut())?,
        })
    }
}

fn qformer(config: &WorkerConfig, sizes: FrozenSizes) -> QFormerConfig {
    config.model.qformer_config(sizes.image_width, sizes.vocab)
}

/// A stage-1 model of zeros, whose products are computed as `train.compute` says.
pub(crate) fn empty_stage1(
    config: &WorkerConfig,
    sizes: FrozenSizes,
    device: &Device,
) -> Result<ContrastModel> {
    let embed_dim = config.model.qformer.embed_dim;
    let eps = config.model.ln_vision_eps;
    let mut model = ContrastModel::new(&qformer(config, sizes), embed_dim, eps, device).map_err(of_sizes)?;
    compute_in(&mut model, config.train.compute)?;
    Ok(model)
}

/// A stage-2 model of zeros, whose products are computed as `train.compute` says.
pub(crate) fn empty_stage2(
    config: &WorkerConfig,
    sizes: FrozenSizes,
    device: &Device,
) -> Result<GenerateModel> {
    let eps = config.model.ln_vision_eps;
    let mut model =
        GenerateModel::new(&qformer(config, sizes), eps, sizes.language_width, device).map_err(of_sizes)?;
    compute_in(&mut model, config.train.compute)?;
    Ok(model)
}

/// What is wrong with the Q-Former's sizes.
fn of_sizes(error: blip2_model::error::ModelError) -> WorkerError {
    WorkerError::Configuration(format!("model.qformer: {error}"))
}

/// What is wrong with the weights that a run begins with.
fn of_init(config: &WorkerConfig, error: impl Into<WorkerError>) -> WorkerError {
    WorkerError::of_model("model.init_checkpoint", &config.model.init_checkpoint, error)
}

impl TrainState {
    /// The state before the first step: initialised, or from `model.init_checkpoint`.
    pub fn fresh(config: &WorkerConfig, sizes: FrozenSizes, device: &Device) -> Result<Self> {
        let init = &config.model.init_checkpoint;
        let init = match init.is_empty() {
            true => None,
            false => {
                let source = compare_folder(config, Path::new(init))
                    .and_then(|()| Ok(WeightSource::open_published(Path::new(init))?));
                Some(source.map_err(|error| of_init(config, error))?)
            }
        };
        if config.stage1.steps > 0 {
            Self::fresh_stage1(config, sizes, init.as_ref(), device)
        } else {
            let previous = |name: &str, shape: &[usize]| match &init {
                Some(init) if init.contains(name) => {
                    init.read(name, shape).map(Some).map_err(|error| of_init(config, error))
                }
                _ => Ok(None),
            };
            let origin = init.as_ref().map(|_| "model.init_checkpoint");
            Self::fresh_stage2(config, sizes, origin, previous, device)
        }
    }

    fn fresh_stage1(
        config: &WorkerConfig,
        sizes: FrozenSizes,
        init: Option<&WeightSource>,
        device: &Device,
    ) -> Result<Self> {
        let mut model = empty_stage1(config, sizes, device)?;
        let folder = config.model.qformer_init.as_str();
        let of_bert = |error| WorkerError::of_model("model.qformer_init", folder, error);
        let bert = match folder {
            "" => None,
            folder => Some(WeightSource::open_bert(Path::new(folder)).map_err(of_bert)?),
        };
        let mut values = SeededValues::new(config.train.seed);
        let begun = model.initialise(config.stage1.temperature, &mut values, bert.as_ref(), device);
        begun.map_err(of_bert)?;
        let mut state = Self::new(1, StageModel::Stage1(Box::new(model)))?;
        if let Some(init) = init {
            let begun_anew = overlay(&mut state, init).map_err(|error| of_init(config, error))?;
            if !begun_anew.is_empty() {
                let from = init.origin().display();
                tracing::info!(%from, tensors = begun_anew.join(", "), "not in these weights, so begun anew");
            }
            state.write_model(device)?;
        }
        Ok(state)
    }

    /// Stage 2 takes from stage 1 what it has in common with it, by name; the projection may be new. `origin` is what an
    /// error calls the tensors `previous`, of which all but the projection must be there; without it, there are none.
    fn fresh_stage2(
        config: &WorkerConfig,
        sizes: FrozenSizes,
        origin: Option<&str>,
        previous: impl Fn(&str, &[usize]) -> Previous,
        device: &Device,
    ) -> Result<Self> {
        let mut model = empty_stage2(config, sizes, device)?;
        initialise(&mut model, "", &mut SeededValues::new(config.train.seed), device)?;
        let mut state = Self::new(2, StageModel::Stage2(Box::new(model)))?;
        let mut missing = Vec::new();
        for tensor in state.layout.tensors() {
            match previous(&tensor.name, &tensor.shape)? {
                Some(values) => state.parameters[tensor.range()].copy_from_slice(&values),
                None if tensor.name.starts_with(PROJECTION) => {}
                None => missing.push(tensor.name.as_str()),
            }
        }
        if let (Some(origin), [first, ..]) = (origin, &missing[..]) {
            return Err(WorkerError::Configuration(format!(
                "{origin} lacks {} of the {} tensors that stage 2 continues with, `{first}` first: is it a checkpoint of \
                 this model?",
                missing.len(),
                state.layout.tensors().len()
            )));
        }
        state.write_model(device)?;
        Ok(state)
    }

    fn new(stage: u32, mut model: StageModel) -> Result<Self> {
        let layout = model.layout()?;
        let parameters = model.read(&layout)?;
        let moments = Moments::zeros(layout.len());
        let parts = Arc::new(GradientBuckets::of(&layout, BUCKET_ELEMENTS));
        Ok(Self {
            stage,
            model,
            layout,
            parts,
            parameters,
            moments,
            spare: Vec::new(),
            spare_next: NextBuffers::default(),
            magnitudes: None,
        })
    }

    /// Stage 2's state from the end of stage 1.
    pub fn enter_stage2(&self, config: &WorkerConfig, sizes: FrozenSizes, device: &Device) -> Result<Self> {
        let previous = |name: &str, shape: &[usize]| {
            let stored = self.layout.get(name).filter(|tensor| tensor.shape == shape);
            Ok(stored.map(|tensor| self.parameters[tensor.range()].to_vec()))
        };
        Self::fresh_stage2(config, sizes, Some("stage 1"), previous, device)
    }

    /// A state read from a checkpoint or a peer; its stage is told by the tensors it has.
    pub fn restore(
        config: &WorkerConfig,
        sizes: FrozenSizes,
        stored: &NamedState,
        device: &Device,
    ) -> Result<Self> {
        stored.check_finite()?;
        let stage = stored.stage();
        let model = match stage {
            1 => StageModel::Stage1(Box::new(empty_stage1(config, sizes, device)?)),
            _ => StageModel::Stage2(Box::new(empty_stage2(config, sizes, device)?)),
        };
        let mut state = Self::new(stage, model)?;
        stored.fill(&state.layout, &mut state.parameters, &mut state.moments)?;
        state.write_model(device)?;
        Ok(state)
    }

    /// Copies the master parameters into the model's tensors.
    pub fn write_model(&mut self, device: &Device) -> Result<()> {
        match &mut self.model {
            StageModel::Stage1(model) => self.layout.write(model.as_mut(), &self.parameters, device)?,
            StageModel::Stage2(model) => self.layout.write(model.as_mut(), &self.parameters, device)?,
        }
        Ok(())
    }

    /// The temperature of the contrastive loss: the master copy's, for which no device is waited for.
    pub(crate) fn temperature(&self) -> Result<f32> {
        let place = self.layout.get("temp").and_then(|temp| self.parameters.get(temp.offset));
        place.copied().ok_or_else(|| WorkerError::Protocol("a stage-1 step without a temperature".into()))
    }

    /// Takes up the state that a step leads to.
    pub(crate) fn take_up(&mut self, next: NextState) -> Result<()> {
        let NextState { mut buffers, placed } = next;
        std::mem::swap(&mut self.parameters, &mut buffers.parameters);
        std::mem::swap(&mut self.moments, &mut buffers.moments);
        self.spare_next = buffers;
        match &mut self.model {
            StageModel::Stage1(model) => placed.install(&self.layout, model.as_mut())?,
            StageModel::Stage2(model) => placed.install(&self.layout, model.as_mut())?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stage_2_names_what_its_beginning_lacks() {
        let mut config = WorkerConfig::default();
        let qformer = &mut config.model.qformer;
        (qformer.hidden, qformer.layers, qformer.heads, qformer.intermediate) = (8, 1, 2, 8);
        let sizes = FrozenSizes { image_width: 4, vocab: 5, language_width: 6 };
        let start = |origin, lacking: &'static str| {
            let previous = move |name: &str, shape: &[usize]| -> Previous {
                Ok((!name.starts_with(lacking)).then(|| vec![0.5; shape.iter().product()]))
            };
            TrainState::fresh_stage2(&config, sizes, origin, previous, &Device::flex().autodiff())
        };
        let error = start(Some("model.init_checkpoint"), "ln_vision.").unwrap_err().to_string();
        assert!(error.contains("lacks 2 of") && error.contains("`ln_vision.bias` first"), "{error}");
        let projected = start(Some("stage 1"), PROJECTION).unwrap();
        let of = |name| {
            let tensor = projected.layout.get(name).unwrap();
            projected.parameters[tensor.range()].to_vec()
        };
        assert!(of("ln_vision.bias").iter().all(|value| *value == 0.5));
        assert!(of("opt_proj.weight").iter().all(|value| *value != 0.5));
        assert!(start(None, "").is_ok());
    }
}
