//! How fast whole training steps are: the run's own code over made-up weights, pictures and texts.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use blip2_collective::{Exchange, Limits, Member, World, deal_slots};
use blip2_dataset::coverage::Coverage;
use blip2_dataset::loader::{SlotBatch, StepBatch};
use blip2_dataset::text::{TextEncoder, TextEncoding};
use blip2_model::language::{LanguageModel, LanguageSizes};
use blip2_model::objectives::flops::{self, BatchShape, image_encoder};
use blip2_model::vision::{EncoderSizes, ImageEncoder};
use blip2_model_files::weights::randomise;
use blip2_proto::transport::Transport;
use blip2_random::KeyedRng;
use blip2_tensors::nn::flops::Flops;
use blip2_tensors::nn::tensors::compute_in;
use blip2_worker::config::stage::StageSettings;
use blip2_worker::frozen_models::{FrozenModels, FrozenSizes};
use blip2_worker::language::Language;
use blip2_worker::open::{compute, device, placement};
use blip2_worker::settings::model::{FrozenDtype, QFormerSettings};
use blip2_worker::settings::train::{Compute, Wire};
use blip2_worker::step::{Peers, StepBytes, StepGradient, StepTimes};
use blip2_worker::task::TaskSettings;
use blip2_worker::task::contrast::ContrastSettings;
use blip2_worker::task::generate::GenerateSettings;
use blip2_worker::{Result, TrainState, WorkerConfig, WorkerError};
use burn::tensor::MemoryPoolUsage;

use super::texts;

/// How long a collective may take.
const DEADLINE: Duration = Duration::from_secs(600);
/// Number of the run's only stage.
const STAGE: u32 = 1;
/// Words that made-up captions have; their second half is padding.
const WORDS: usize = 997;

/// Sizes of the models of a run, whose task is `generate` with a language model and `contrast` without.
#[derive(Debug, Clone)]
pub(super) struct StepSizes {
    /// Frozen.
    pub(super) encoder: EncoderSizes,
    /// Trained.
    pub(super) qformer: QFormerSettings,
    /// Rows of the Q-Former's word table.
    pub(super) vocab: usize,
    /// Frozen.
    pub(super) language: Option<Arc<dyn LanguageSizes>>,
    /// Tokens of a text.
    pub(super) text_length: usize,
    /// Whether the encoder is trained as well: then the parameters alone can be measured.
    pub(super) trains_encoder: bool,
}

/// What is done at a time, and where.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StepLoad {
    /// Pairs of a step.
    pub(super) batch: u32,
    /// Pairs of a slot; the number of slots is a power of two.
    pub(super) micro_batch: u32,
    /// As `train.device` names it.
    pub(super) device: String,
    /// Numbers of the frozen models' matrices.
    pub(super) frozen_dtype: FrozenDtype,
    /// Numbers of the products in what is trained.
    pub(super) compute: Compute,
    /// `train.tf32`.
    pub(super) tf32: bool,
    /// `train.wire`.
    pub(super) wire: Wire,
    /// `train.overlap`.
    pub(super) overlap: bool,
    /// Members that share the step, all of them on the device.
    pub(super) members: usize,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TimedStep {
    /// Seconds from the batch to the new parameters on the device.
    pub(super) total: f64,
    /// Where the first member's went.
    pub(super) times: StepTimes,
    /// What all members moved.
    pub(super) bytes: StepBytes,
    /// The loss of the batch.
    pub(super) loss: f64,
}

/// A run that steps over made-up batches.
pub(super) struct StepSpeed {
    frozen: FrozenModels,
    members: Vec<BenchMember>,
    sizes: StepSizes,
    load: StepLoad,
    runtime: tokio::runtime::Handle,
    step: u64,
}

/// One of its members.
struct BenchMember {
    state: TrainState,
    exchange: Exchange,
    world: World,
}

impl StepSpeed {
    /// Makes the models.
    ///
    /// # Errors
    /// A device that is not there, sizes that no model can have, a batch that cannot be cut.
    pub(super) fn new(sizes: StepSizes, load: StepLoad, runtime: tokio::runtime::Handle) -> Result<Self> {
        let config = config(&sizes, &load)?;
        let device = device(&load.device, load.tf32)?;
        compute(&config.train, &device)?;
        let place = placement(&config.model, &device)?;
        let encoder = ImageEncoder::random(&sizes.encoder, &place)?;
        let mut language = None;
        if let Some(of) = &sizes.language {
            let mut model = LanguageModel::zeros(&**of, &device)?;
            randomise(&mut model, &place)?;
            compute_in(&mut model, config.train.compute)?;
            language = Some(Language::of(model, words(sizes.text_length)?, config.train.seed, STAGE));
        }
        let frozen = FrozenSizes {
            image_width: sizes.encoder.width(),
            vocab: sizes.vocab,
            language_width: sizes.language.as_ref().map_or(0, |of| of.width()),
        };
        let exchanges = (0..load.members).map(|_| exchange(&runtime)).collect::<Result<Vec<_>>>()?;
        let world: Vec<Member> = deal_slots(config.train.slots, load.members)?
            .into_iter()
            .zip(&exchanges)
            .zip(0..)
            .map(|((slots, exchange), id)| Member { id, address: exchange.local_addr().to_string(), slots })
            .collect();
        let autodiff = device.clone().autodiff();
        let member = |(rank, exchange): (usize, Exchange)| {
            let world = World { epoch: 1, rank, members: world.clone() };
            exchange.set_world(world.clone());
            Ok(BenchMember { state: TrainState::fresh(&config, frozen, &autodiff)?, exchange, world })
        };
        let members = exchanges.into_iter().enumerate().map(member).collect::<Result<_>>()?;
        let frozen = FrozenModels::of(&config.train, &config.model, frozen, device, encoder, language);
        Ok(Self { frozen, members, sizes, load, runtime, step: 0 })
    }

    /// Elements that are trained.
    pub(super) fn parameters(&self) -> usize {
        self.members.first().map_or(0, |member| member.state.layout.len())
    }

    /// Operations of a step, by formula: padding behind all texts is not computed.
    pub(super) fn flops(&self) -> Flops {
        let StepSizes { encoder, language, text_length, .. } = &self.sizes;
        let qformer = self.frozen.model.qformer_config(encoder.width(), self.sizes.vocab);
        let pairs = self.load.batch as usize;
        let computed = texts::computed(*text_length);
        let batch = BatchShape { pairs, positions: encoder.tokens(), text_length: computed };
        let trained = match language {
            None => flops::contrast(&qformer, self.frozen.model.qformer.embed_dim, batch),
            Some(language) => {
                let prefix = if language.decoder_start().is_some() { computed } else { 0 };
                flops::generate(&qformer, &**language, prefix, batch)
            }
        };
        let frozen = image_encoder(encoder).forward * pairs as u64;
        Flops { forward: trained.forward + frozen, ..trained }
    }

    /// What the device's memory holds, where it says so.
    pub(super) fn memory(&self) -> Option<MemoryPoolUsage> {
        self.frozen.device.memory_pool_usage()
    }

    /// Does the next step; `measured`: the device is waited for after each part, and no part runs beside
    /// another.
    ///
    /// # Errors
    /// A device that fails, losses that are no numbers.
    pub(super) fn step(&mut self, measured: bool) -> Result<TimedStep> {
        self.frozen.measured = measured;
        let failed =
            |error: burn::tensor::ExecutionError| WorkerError::Protocol(format!("the device: {error}"));
        let batches: Vec<StepBatch> = self
            .members
            .iter()
            .map(|member| Ok(self.batch(member.world.own()?.slots.clone())))
            .collect::<Result<_>>()?;
        self.frozen.device.sync().map_err(failed)?;
        let started = Instant::now();
        let (frozen, runtime, step) = (&self.frozen, &self.runtime, self.step);
        let done: Vec<Result<StepGradient>> = std::thread::scope(|scope| {
            let members = self.members.iter_mut().zip(batches);
            let threads: Vec<_> = members
                .map(|(member, batch)| scope.spawn(move || member.step(frozen, runtime, step, &batch)))
                .collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            threads.into_iter().map(join).collect()
        });
        let done = done.into_iter().collect::<Result<Vec<_>>>()?;
        self.frozen.device.sync().map_err(failed)?;
        let total = started.elapsed().as_secs_f64();
        self.step += 1;
        let mut bytes = StepBytes::default();
        done.iter().for_each(|gradient| bytes += gradient.bytes);
        let first = done.first().ok_or_else(|| WorkerError::Protocol("a step without members".into()))?;
        let loss = first.values.first().map_or(f64::NAN, |(_, loss)| *loss);
        Ok(TimedStep { total, times: first.times, bytes, loss })
    }

    /// Random pictures and words.
    fn batch(&self, slots: Range<u32>) -> StepBatch {
        let (rows, length) = (self.load.micro_batch as usize, self.sizes.text_length);
        let size = self.sizes.encoder.image_size();
        let vocabulary = match &self.frozen.language {
            Some(language) => language.model.special_tokens().vocab_size,
            None => self.sizes.vocab - 1,
        };
        let slots = slots.map(|slot| {
            let mut rng = KeyedRng::new(0, "pictures and words", &[self.step, u64::from(slot)]);
            let pixels = (0..rows * 3 * size * size / 8).flat_map(|_| rng.next_u64().to_le_bytes());
            let mut pixels: Vec<u8> = pixels.collect();
            pixels.resize(rows * 3 * size * size, 0);
            let ids = (0..rows * length).map(|_| rng.below(vocabulary as u64) as i32).collect();
            // Start and end are tokens too.
            let caption_words = texts::tokens(length).saturating_sub(2).max(1);
            let caption =
                |_| (0..caption_words).map(|_| format!("w{}", rng.below(WORDS as u64))).collect::<Vec<_>>();
            let captions = (0..rows).map(caption).map(|words| words.join(" ")).collect();
            let first = self.step * u64::from(self.load.batch) + u64::from(slot) * rows as u64;
            SlotBatch {
                slot,
                pixels: pixels.into(),
                ids,
                mask: texts::mask(rows, length),
                captions,
                questions: Vec::new(),
                image_ids: (first..first + rows as u64).collect(),
                samples: (first..first + rows as u64).collect(),
                addresses: Vec::new(),
                keys: Vec::new(),
                coverage: Coverage::default(),
                quarantined: Vec::new(),
            }
        });
        StepBatch { step: self.step, slots: slots.collect(), waited: Duration::ZERO }
    }
}

impl BenchMember {
    /// The next step, applied.
    fn step(
        &mut self,
        frozen: &FrozenModels,
        runtime: &tokio::runtime::Handle,
        step: u64,
        batch: &StepBatch,
    ) -> Result<StepGradient> {
        let Self { state, exchange, world } = self;
        let peers = Peers { exchange, runtime, world, step, deadline: DEADLINE };
        let mut gradient = frozen.gradient(state, &peers, step, batch)?;
        if let Some(odd) = &gradient.non_finite {
            let what = odd.term.clone();
            return Err(WorkerError::NonFinite { place: "a step over random numbers".into(), tensor: what });
        }
        frozen.apply(state, step, &mut gradient)?;
        Ok(gradient)
    }
}

/// A member's end of the collectives, over loopback.
fn exchange(runtime: &tokio::runtime::Handle) -> Result<Exchange> {
    let bind = Exchange::bind(
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        "bench".into(),
        Limits::default(),
        Transport::plain(),
    );
    Ok(runtime.block_on(bind)?)
}

/// The run's configuration.
fn config(sizes: &StepSizes, load: &StepLoad) -> Result<WorkerConfig> {
    let refuse = |reason: String| Err(WorkerError::Configuration(reason));
    let (batch, micro_batch) = (load.batch, load.micro_batch);
    let slots = batch.checked_div(micro_batch).unwrap_or(0);
    if slots == 0 || batch % micro_batch != 0 || !slots.is_power_of_two() {
        return refuse(format!("a batch of {batch} is not 1, 2, 4, … micro-batches of {micro_batch}"));
    }
    if sizes.language.is_none() && batch < 2 {
        return refuse("a batch of 1: contrast needs two pairs or more".into());
    }
    if load.members == 0 || load.members > slots as usize {
        let members = load.members;
        return refuse(format!("{members} members for {slots} slots: leave no member without one"));
    }
    let mut config = WorkerConfig::default();
    config.train.slots = slots;
    config.train.device = load.device.clone();
    config.train.compute = load.compute;
    config.train.tf32 = load.tf32;
    config.train.wire = load.wire;
    config.train.overlap = load.overlap;
    config.model.frozen_dtype = load.frozen_dtype;
    config.model.qformer = sizes.qformer.clone();
    let text_length = sizes.text_length;
    let task = match sizes.language {
        None => TaskSettings::Contrast(ContrastSettings { text_length, ..ContrastSettings::default() }),
        Some(_) => TaskSettings::Generate(GenerateSettings { text_length, ..GenerateSettings::default() }),
    };
    // No step is the last, and the schedule is that of a long run.
    config.stages = vec![StageSettings { steps: 100_000, batch, ..StageSettings::of("measured", task) }];
    Ok(config)
}

/// A tokenizer of the words `w0`, `w1`, … for texts of `length` tokens.
fn words(length: usize) -> Result<TextEncoder> {
    let named = (0..WORDS).map(|word| format!("\"w{word}\": {}", word + 3));
    let vocabulary =
        ["\"<pad>\": 0", "\"</s>\": 1", "\"<unk>\": 2"].into_iter().map(str::to_owned).chain(named);
    let vocabulary = vocabulary.collect::<Vec<_>>().join(", ");
    let json = format!(
        r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {{"type": "WhitespaceSplit"}}, "post_processor": null, "decoder": null,
            "model": {{"type": "WordLevel", "unk_token": "<unk>", "vocab": {{{vocabulary}}}}}}}"#
    );
    Ok(TextEncoder::from_json(json.as_bytes(), Path::new("made-up words"), TextEncoding::new(length, 0))?)
}

#[cfg(test)]
mod tests {
    use blip2_model::language::opt::OptConfig;
    use blip2_model::language::t5::T5Config;
    use blip2_model::vision::EvaConfig;

    use super::*;

    fn sizes(language: Option<Arc<dyn LanguageSizes>>) -> StepSizes {
        let encoder = EvaConfig {
            width: 8,
            depth: 1,
            heads: 2,
            intermediate: 8,
            image_size: 28,
            ..EvaConfig::default()
        };
        let qformer = QFormerSettings {
            hidden: 8,
            layers: 2,
            heads: 2,
            intermediate: 8,
            queries: 3,
            max_positions: 8,
            embed_dim: 4,
            ..QFormerSettings::default()
        };
        let encoder = EncoderSizes::Eva(encoder);
        StepSizes { encoder, qformer, vocab: 50, language, text_length: 6, trains_encoder: false }
    }

    fn load(batch: u32, micro_batch: u32) -> StepLoad {
        let (device, frozen_dtype) = ("cpu".to_owned(), FrozenDtype::F32);
        let (compute, tf32, wire, overlap, members) = (Compute::F32, false, Wire::F32, true, 1);
        StepLoad { batch, micro_batch, device, frozen_dtype, compute, tf32, wire, overlap, members }
    }

    #[test]
    fn each_stage_is_stepped_and_each_part_of_it_timed() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let opt = OptConfig {
            width: 8,
            depth: 1,
            heads: 2,
            intermediate: 8,
            vocab_size: 40,
            ..OptConfig::default()
        };
        let t5 = T5Config {
            width: 8,
            head_width: 4,
            heads: 2,
            intermediate: 8,
            depth: 1,
            vocab_size: 1100,
            feed_forward_proj: "gated-gelu".into(),
            ..T5Config::default()
        };
        for language in [None, Some(Arc::new(opt) as Arc<dyn LanguageSizes>), Some(Arc::new(t5))] {
            let mut speed = StepSpeed::new(sizes(language), load(4, 2), runtime.handle().clone()).unwrap();
            let before = speed.members[0].state.parameters.clone();
            let timed = speed.step(true).unwrap();
            assert_ne!(before, speed.members[0].state.parameters);
            assert!(timed.loss.is_finite() && speed.flops().backward > 0);
            for (part, seconds) in timed.times.named() {
                assert_eq!(seconds > 0.0, part != "exchange" || speed.sizes.language.is_none(), "{part}");
            }
            assert!(speed.step(false).unwrap().total > 0.0);
        }
    }

    #[test]
    fn batches_that_cannot_be_cut_are_refused() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for (batch, micro_batch, reason) in
            [(6, 2, "micro-batches of 2"), (4, 3, "of 3"), (4, 8, "of 8"), (1, 1, "two pairs")]
        {
            let error = StepSpeed::new(sizes(None), load(batch, micro_batch), runtime.handle().clone());
            let error = error.err().unwrap().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
