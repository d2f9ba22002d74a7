//! What a member holds between steps: the parameters and moments of the stage it is in.

use std::cell::OnceCell;
use std::path::Path;
use std::sync::Arc;

use blip2_evaluation::fault::Fault as _;
use blip2_model::vision::{EVA_PREFIX, read_with_positions, with_positions};
use blip2_model_files::weights::{WeightSource, is_of_adapter};
use blip2_tensors::train::buckets::{BUCKET_ELEMENTS, GradientBuckets};
use blip2_tensors::train::flat::{FlatLayout, FlatTensor};
use blip2_tensors::train::optimizer::{Magnitudes, Moments};
use burn::tensor::Device;
use bytes::Bytes;

use crate::checkpoint::{NamedState, encode_part};
use crate::config::WorkerConfig;
use crate::config::stage::NumberedStage;
use crate::error::{Result, WorkerError};
use crate::frozen_models::FrozenSizes;
use crate::published_sizes::compare_folder;
use crate::sum::next::{NextBuffers, NextState};
use crate::task::{ModelShape, TaskModel};
use crate::text_half::{self, TextHalf};

/// A tensor that a stage may continue with.
type Previous = Result<Option<Vec<f32>>>;

/// Parameters and optimizer state after a number of committed steps.
///
/// The flat float32 buffers are the truth; the model's tensors are a copy on the device.
#[derive(Debug)]
pub struct TrainState {
    /// The stage that the parameters are of.
    pub stage: NumberedStage,
    /// Its task, with the model on the autodiff device.
    pub(crate) task: Box<dyn TaskModel>,
    /// Places of the trainable tensors in the buffers.
    pub layout: FlatLayout,
    /// The layout's buckets in the order in which a backward pass completes them.
    pub buckets: Arc<GradientBuckets>,
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

/// The model of a stage with zeros in it.
///
/// # Errors
/// [`WorkerError::Configuration`] where the Q-Former cannot have these sizes.
pub(crate) fn empty_model(
    stage: &NumberedStage,
    config: &WorkerConfig,
    sizes: FrozenSizes,
    device: &Device,
) -> Result<Box<dyn TaskModel>> {
    let model = stage.settings.model(&config.model);
    let shape = ModelShape { stage: stage.number, train: &config.train, model: &model, sizes };
    stage.settings.task.trained().model(&shape, device)
}

/// What a stage trains, in the buckets of its gradient, of sizes alone: no tensor is filled.
///
/// # Errors
/// As of a run that begins: sizes that no model can have, a folder that a trained encoder or adapters are of.
pub(crate) fn trained_buckets(
    stage: &NumberedStage,
    config: &WorkerConfig,
    sizes: FrozenSizes,
) -> Result<GradientBuckets> {
    let layout = empty_model(stage, config, sizes, &Device::flex())?.tensors().layout()?;
    Ok(GradientBuckets::of(&layout, BUCKET_ELEMENTS))
}

/// Refuses weights with adapters of the language model that a stage without such would forget.
fn keeps_adapters(stage: &NumberedStage, init: &WeightSource) -> Result<()> {
    let lost = init.names().find(|name| is_of_adapter(name)).filter(|_| stage.settings.task.lora().is_none());
    let Some(lost) = lost else { return Ok(()) };
    let name = stage.name();
    Err(WorkerError::Configuration(format!(
        "{} has adapters of the language model, `{lost}` first, which stage `{name}` would forget: set \
         stages.{name}.lora as they were trained, or export that run merged and name the folder as \
         model.language_model and model.init_checkpoint",
        init.origin().display(),
    )))
}

/// Whether a tensor is one of a trained image encoder. Weights and stages of a frozen one have none of them:
/// then they are those of the encoder's own file.
pub(crate) fn is_of_encoder(tensor: &str) -> bool {
    tensor.strip_prefix(EVA_PREFIX).is_some_and(|rest| rest.starts_with('.'))
}

/// What is wrong with the weights that a run begins with.
fn of_init(config: &WorkerConfig, error: impl Into<WorkerError>) -> WorkerError {
    WorkerError::of_model("model.init_checkpoint", &config.model.init_checkpoint, error)
}

/// What is wrong where a stage that begins with trained parameters has none.
fn nothing_to_continue(stage: &NumberedStage) -> WorkerError {
    let (name, task) = (stage.name(), stage.settings.task.name());
    WorkerError::Configuration(format!(
        "stage `{name}` ({task}) begins with trained parameters: name those of the second stage of pre-training in \
         model.init_checkpoint, or let stages that train them come before it"
    ))
}

/// The weights that a run begins with, if it names some.
fn open_init(config: &WorkerConfig) -> Result<Option<WeightSource>> {
    let init = Path::new(&config.model.init_checkpoint);
    if init.as_os_str().is_empty() {
        return Ok(None);
    }
    let source = compare_folder(&config.model, init).and_then(|()| Ok(WeightSource::open_published(init)?));
    source.map(Some).map_err(|error| of_init(config, error))
}

impl TrainState {
    /// The state before the first step: initialised, or from `model.init_checkpoint`.
    pub fn fresh(config: &WorkerConfig, sizes: FrozenSizes, device: &Device) -> Result<Self> {
        let init = open_init(config)?;
        let mut state = Self::begun(config.first_stage()?, config, sizes, device)?;
        if let Some(init) = &init {
            keeps_adapters(&state.stage, init)?;
        }
        let Some(init) = init else {
            return match state.stage.settings.task.continues() {
                true => Err(nothing_to_continue(&state.stage)),
                false => Ok(state),
            };
        };
        if state.stage.settings.task.trained().weight_names().init_is_whole {
            let begun_anew = state.overlay(&init).map_err(|error| of_init(config, error))?;
            if !begun_anew.is_empty() {
                let from = init.origin().display();
                tracing::info!(%from, tensors = begun_anew.join(", "), "not in these weights, so begun anew");
            }
        } else {
            state.take_over("model.init_checkpoint", |name, shape| match init.contains(name) {
                true => {
                    let read = read_with_positions(&init, name, shape);
                    read.map(Some).map_err(|error| of_init(config, error))
                }
                false => Ok(None),
            })?;
        }
        state.write_model(device)?;
        Ok(state)
    }

    /// The state of `stage` with its initial values.
    pub(crate) fn begun(
        stage: NumberedStage,
        config: &WorkerConfig,
        sizes: FrozenSizes,
        device: &Device,
    ) -> Result<Self> {
        let mut model = empty_model(&stage, config, sizes, device)?;
        let folder = config.model.qformer_init.as_str();
        let of_bert = |error| WorkerError::of_model("model.qformer_init", folder, error);
        let bert = match stage.settings.task.needs().bert && !folder.is_empty() {
            true => Some(WeightSource::open_bert(Path::new(folder)).map_err(of_bert)?),
            false => None,
        };
        let begun = model.initialise(config.train.seed, bert.as_ref(), device);
        begun.map_err(|error| if bert.is_some() { of_bert(error) } else { error.into() })?;
        Self::of(stage, model)
    }

    fn of(stage: NumberedStage, mut task: Box<dyn TaskModel>) -> Result<Self> {
        let layout = task.tensors().layout()?;
        let layout = layout.with_learning_rate_scales(|name| task.learning_rate_scale(name))?;
        let parameters = task.tensors().read(&layout)?;
        let moments = Moments::zeros(layout.len());
        let buckets = Arc::new(GradientBuckets::of(&layout, BUCKET_ELEMENTS));
        Ok(Self {
            stage,
            task,
            layout,
            buckets,
            parameters,
            moments,
            spare: Vec::new(),
            spare_next: NextBuffers::default(),
            magnitudes: None,
        })
    }

    /// Takes from another stage's tensors what the state has in common with them, by name; what only its task
    /// has may be new. `origin` is what an error calls them.
    fn take_over(&mut self, origin: &str, previous: impl Fn(&str, &[usize]) -> Previous) -> Result<()> {
        let names = self.stage.settings.task.trained().weight_names();
        let (mut missing, text_half) = (Vec::new(), OnceCell::new());
        // Opened once, where something is missing.
        let in_text_half = |tensor: &FlatTensor| -> Previous {
            // The encoder that was trained for other images is not the one to continue with.
            if is_of_encoder(&tensor.name) {
                return Ok(None);
            }
            let opened = match text_half.get() {
                Some(opened) => opened,
                None => {
                    let opened = TextHalf::open(&self.stage)?;
                    text_half.get_or_init(|| opened)
                }
            };
            opened.as_ref().map_or(Ok(None), |opened| opened.find(tensor))
        };
        let (mut has_encoder, mut without_encoder) = (false, Vec::new());
        for tensor in self.layout.tensors() {
            let found = match previous(&tensor.name, &tensor.shape)? {
                Some(values) => Some(values),
                None => in_text_half(tensor)?,
            };
            match found {
                Some(values) => {
                    has_encoder |= is_of_encoder(&tensor.name);
                    self.parameters[tensor.range()].copy_from_slice(&values);
                }
                None if names.may_begin_anew(&tensor.name) => {}
                None if is_of_encoder(&tensor.name) => without_encoder.push(tensor.name.as_str()),
                None => missing.push(tensor.name.as_str()),
            }
        }
        if has_encoder {
            missing.extend(without_encoder);
        }
        let [first, ..] = &missing[..] else { return Ok(()) };
        if self.stage.settings.task.trained().text_half() == Some("") {
            let tensors = self.layout.tensors().len();
            return Err(text_half::not_named(&self.stage, origin, missing.len(), tensors, first));
        }
        Err(WorkerError::Configuration(format!(
            "{origin} lacks {} of the {} tensors that stage `{}` ({}) continues with, `{first}` first: is it a checkpoint of \
             this model?",
            missing.len(),
            self.layout.tensors().len(),
            self.stage.name(),
            self.stage.settings.task.name(),
        )))
    }

    /// Puts every tensor of published weights of the task into the state; the names of those that they may
    /// lack and lack.
    pub(crate) fn overlay(&mut self, source: &WeightSource) -> Result<Vec<String>> {
        let published = self.stage.settings.task.trained().weight_names();
        let encoder = self.layout.tensors().iter().filter(|tensor| is_of_encoder(&tensor.name));
        let has_encoder = encoder.map(|tensor| &tensor.name).any(|name| source.contains(name));
        let mut begun_anew = Vec::new();
        for tensor in self.layout.tensors() {
            let optional = published.not_published.iter().any(|start| tensor.name.starts_with(start));
            let may_lack = match is_of_encoder(&tensor.name) {
                true => !has_encoder,
                false => is_of_adapter(&tensor.name) || optional && !source.is_lavis(),
            };
            if may_lack && !source.contains(&tensor.name) {
                begun_anew.push(tensor.name.clone());
                continue;
            }
            let values = read_with_positions(source, &tensor.name, &tensor.shape)?;
            self.parameters[tensor.range()].copy_from_slice(&values);
        }
        // An adapter's name is that of a map of the language model, whose own weights are used elsewhere.
        let own = self.layout.tensors().iter().filter(|tensor| !is_of_adapter(&tensor.name));
        let names: Vec<String> = own.map(|tensor| tensor.name.clone()).collect();
        source.check_unused(&names, published.unused)?;
        Ok(begun_anew)
    }

    /// The state that `stage` begins with, from the end of this one.
    pub fn enter(
        &self,
        stage: NumberedStage,
        config: &WorkerConfig,
        sizes: FrozenSizes,
        device: &Device,
    ) -> Result<Self> {
        let mut next = Self::begun(stage, config, sizes, device)?;
        let origin = format!("the end of stage `{}`", self.stage.name());
        next.take_over(&origin, |name, shape| {
            let Some(stored) = self.layout.get(name) else { return Ok(None) };
            Ok(with_positions(name, (&self.parameters[stored.range()], stored.shape.as_slice()), shape)?)
        })?;
        next.write_model(device)?;
        Ok(next)
    }

    /// A state of `stage` read from a checkpoint or a peer.
    ///
    /// # Errors
    /// Tensors of another task or another model, or values that are not finite.
    pub fn restore(
        stage: NumberedStage,
        config: &WorkerConfig,
        sizes: FrozenSizes,
        stored: &NamedState,
        device: &Device,
    ) -> Result<Self> {
        stored.check_finite()?;
        let model = empty_model(&stage, config, sizes, device)?;
        let mut state = Self::of(stage, model)?;
        let what = format!("stage `{}` ({})", state.stage.name(), state.stage.settings.task.name());
        stored.fill(&what, &state.layout, &mut state.parameters, &mut state.moments)?;
        state.write_model(device)?;
        Ok(state)
    }

    /// Part `index` of `count` of the state, as a safetensors file.
    pub(crate) fn encode_part(&self, index: u32, count: u32) -> Result<Bytes> {
        encode_part(&self.layout, &self.parameters, &self.moments, (index, count))
    }

    /// Copies the master parameters into the model's tensors.
    pub fn write_model(&mut self, device: &Device) -> Result<()> {
        self.task.tensors().write(&self.layout, &self.parameters, device)
    }

    /// A model of the state's stage with these parameters, on a device without autodiff.
    pub(crate) fn model_with(
        &self,
        parameters: &[f32],
        shape: &ModelShape<'_>,
        device: &Device,
    ) -> Result<Box<dyn TaskModel>> {
        let mut model = self.stage.settings.task.trained().model(shape, device)?;
        model.tensors().write(&self.layout, parameters, device)?;
        Ok(model)
    }

    /// Takes up the state that a step leads to.
    pub(crate) fn take_up(&mut self, next: NextState) -> Result<()> {
        let NextState { mut buffers, placed } = next;
        std::mem::swap(&mut self.parameters, &mut buffers.parameters);
        std::mem::swap(&mut self.moments, &mut buffers.moments);
        self.spare_next = buffers;
        self.task.tensors().install(&self.layout, placed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROJECTION: &str = "opt_proj.";

    #[test]
    fn a_stage_names_what_its_beginning_lacks() {
        let mut config = WorkerConfig::default();
        let qformer = &mut config.model.qformer;
        (qformer.hidden, qformer.layers, qformer.heads, qformer.intermediate) = (8, 1, 2, 8);
        let sizes = FrozenSizes { image_width: 4, vocab: 5, language_width: 6 };
        let device = Device::flex().autodiff();
        let generate = config.stage("generate").unwrap();
        let start = |origin, lacking: &'static str| {
            let previous = move |name: &str, shape: &[usize]| -> Previous {
                Ok((!name.starts_with(lacking)).then(|| vec![0.5; shape.iter().product()]))
            };
            let mut state = TrainState::begun(generate.clone(), &config, sizes, &device)?;
            state.take_over(origin, previous).map(|()| state)
        };
        let error = start("model.init_checkpoint", "ln_vision.").unwrap_err().to_string();
        assert!(error.contains("lacks 2 of") && error.contains("`ln_vision.bias` first"), "{error}");
        assert!(error.contains("stage `generate` (generate)"), "{error}");
        let projected = start("the end of stage `represent`", PROJECTION).unwrap();
        let of = |name| {
            let tensor = projected.layout.get(name).unwrap();
            projected.parameters[tensor.range()].to_vec()
        };
        assert!(of("ln_vision.bias").iter().all(|value| *value == 0.5));
        assert!(of("opt_proj.weight").iter().all(|value| *value != 0.5));
    }

    #[test]
    fn a_checkpoint_of_another_task_is_refused_by_name() {
        let mut config = WorkerConfig::default();
        let qformer = &mut config.model.qformer;
        (qformer.hidden, qformer.layers, qformer.heads, qformer.intermediate) = (8, 1, 2, 8);
        let sizes = FrozenSizes { image_width: 4, vocab: 5, language_width: 6 };
        let device = Device::flex();
        let [contrast, generate] = ["represent", "generate"].map(|name| config.stage(name).unwrap());
        for (stored, asked) in [(&contrast, &generate), (&generate, &contrast)] {
            let state = TrainState::begun(stored.clone(), &config, sizes, &device).unwrap();
            let part = state.encode_part(0, 1).unwrap();
            let named = NamedState::decode("a checkpoint", &[part]).unwrap();
            let restored = TrainState::restore(asked.clone(), &config, sizes, &named, &device);
            let error = restored.unwrap_err().to_string();
            let task = asked.settings.task.name();
            assert!(error.contains(&format!("({task})")) && error.contains("tensor `"), "{error}");
        }
    }
}
