//! What a step costs beyond its passes, for so many trained parameters: the gradient's sum over the members,
//! its norm, and AdamW. No model is made.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use blip2_collective::{Exchange, Limits, Member, SumTree, TreeAccumulator, World, deal_slots};
use blip2_model::objectives::contrast::ContrastModel;
use blip2_model::objectives::generate::GenerateModel;
use blip2_model::trained_encoder::{TrainedEncoder, WithEncoder};
use blip2_model::vision::ImageEncoder;
use blip2_proto::transport::Transport;
use blip2_tensors::device::placement::Placement;
use blip2_tensors::nn::tensors::NamedTensors;
use blip2_tensors::train::buckets::{BUCKET_ELEMENTS, GradientBuckets};
use blip2_tensors::train::flat::FlatLayout;
use blip2_tensors::train::optimizer::{AdamWStep, Moments, NormParts};
use blip2_worker::settings::model::ModelSettings;
use blip2_worker::settings::optimizer::OptimizerSettings;
use blip2_worker::{Result, WorkerError};
use burn::tensor::Device;
use serde::Serialize;

use super::speed::StepSizes;
use crate::bench::rounds::median;
use blip2_telemetry::process::peak_memory_bytes;

/// How long the sum of a bucket may take.
const DEADLINE: Duration = Duration::from_secs(600);
/// Numbers of a parameter that are held: itself and two moments.
const NUMBERS: u64 = 3;
/// Every value of the gradient that a member gives; the sum of a few is exact.
const GRADIENT: f32 = 0.125;

/// How the parameters are measured.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ParameterLoad {
    pub(super) preset: String,
    /// Members that the gradient is summed over, over loopback.
    pub(super) members: usize,
    /// Rounds after one to warm up.
    pub(super) steps: u32,
    /// Whether AdamW writes beside the state, as with `train.overlap`.
    pub(super) beside: bool,
}

/// Medians over the rounds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ParameterReport {
    preset: String,
    parameters: usize,
    tensors: usize,
    buckets: usize,
    members: usize,
    steps: u32,
    /// Bytes of the gradient, and of parameters and moments: a checkpoint, or what a joiner takes.
    gradient_bytes: u64,
    state_bytes: u64,
    /// Seconds of the gradient's sum over the members, bucket after bucket; nothing alone.
    wire_s: f64,
    /// Bytes that a member sent for it.
    sent_bytes: u64,
    /// Seconds of its norm, and of AdamW.
    norm_s: f64,
    optimizer_s: f64,
    /// Most bytes of the process, where the system tells it.
    peak_bytes: Option<u64>,
}

/// What a round took.
#[derive(Debug, Clone, Copy, Default)]
struct Round {
    wire: f64,
    norm: f64,
    optimizer: f64,
}

/// Measures the parameters that are trained of a run of these sizes.
///
/// # Errors
/// Sizes that no model can have, or members that do not reach each other.
pub(super) fn measure(
    sizes: &StepSizes,
    load: &ParameterLoad,
    runtime: &tokio::runtime::Handle,
) -> Result<ParameterReport> {
    let buckets = GradientBuckets::of(&layout(sizes)?, BUCKET_ELEMENTS);
    let members = Members::new(load.members, runtime)?;
    let mut state = Landed::new(buckets.layout(), load.beside);
    let mut rounds = Vec::new();
    let mut sent = 0;
    for step in 0..=load.steps {
        let before = members.exchanges[0].sent().bytes;
        rounds.push(round(&buckets, &members, u64::from(step), &mut state)?);
        sent = members.exchanges[0].sent().bytes - before;
    }
    // The first grows buffers and connections.
    let of = |part: fn(&Round) -> f64| median(rounds[1..].iter().map(part).collect());
    let parameters = buckets.len();
    Ok(ParameterReport {
        preset: load.preset.clone(),
        parameters,
        tensors: buckets.layout().tensors().len(),
        buckets: buckets.buckets().len(),
        members: load.members,
        steps: load.steps,
        gradient_bytes: 4 * parameters as u64,
        state_bytes: 4 * NUMBERS * parameters as u64,
        wire_s: of(|round| round.wire),
        sent_bytes: sent,
        norm_s: of(|round| round.norm),
        optimizer_s: of(|round| round.optimizer),
        peak_bytes: peak_memory_bytes(),
    })
}

/// In words.
pub(super) fn text(report: &ParameterReport) -> String {
    let gigabytes = |bytes: u64| format!("{:.2} GB", bytes as f64 / 1e9);
    let process =
        report.peak_bytes.map_or_else(String::new, |bytes| format!(", process {}", gigabytes(bytes)));
    format!(
        "{} alone: {:.1}M trained parameters in {} tensors and {} buckets, gradient {}, state {}{process}\n  sum over {} \
         members {:.3} s (sent {}), norm {:.3} s, AdamW {:.3} s\n",
        report.preset,
        report.parameters as f64 / 1e6,
        report.tensors,
        report.buckets,
        gigabytes(report.gradient_bytes),
        gigabytes(report.state_bytes),
        report.members,
        report.wire_s,
        gigabytes(report.sent_bytes),
        report.norm_s,
        report.optimizer_s,
    )
}

/// The places of what is trained.
fn layout(sizes: &StepSizes) -> Result<FlatLayout> {
    let device = Device::flex();
    let settings = ModelSettings { qformer: sizes.qformer.clone(), ..ModelSettings::default() };
    let qformer = settings.qformer_config(sizes.encoder.width(), sizes.vocab);
    let epsilon = settings.ln_vision_eps;
    match &sizes.language {
        Some(language) => {
            with_encoder(sizes, GenerateModel::new(&qformer, epsilon, language.width(), &device)?)
        }
        None => with_encoder(sizes, ContrastModel::new(&qformer, sizes.qformer.embed_dim, epsilon, &device)?),
    }
}

fn with_encoder(sizes: &StepSizes, mut model: impl NamedTensors) -> Result<FlatLayout> {
    if !sizes.trains_encoder {
        return Ok(FlatLayout::of(&mut model)?);
    }
    let encoder = ImageEncoder::zeros(&sizes.encoder, &Placement::from(&Device::flex()))?;
    let mut whole = WithEncoder { encoder: TrainedEncoder::unwritten(encoder), model };
    Ok(FlatLayout::of(&mut whole)?)
}

/// Ends of the collectives, over loopback.
struct Members<'a> {
    exchanges: Vec<Exchange>,
    world: Vec<Member>,
    tree: SumTree,
    runtime: &'a tokio::runtime::Handle,
}

impl<'a> Members<'a> {
    fn new(count: usize, runtime: &'a tokio::runtime::Handle) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let bind = || Exchange::bind(address, "bench".into(), Limits::default(), Transport::plain());
        let exchanges = (0..count).map(|_| Ok(runtime.block_on(bind())?)).collect::<Result<Vec<_>>>()?;
        let tree = SumTree::new(count.next_power_of_two() as u32)?;
        let dealt = deal_slots(tree.slots(), count)?;
        let world = exchanges.iter().zip(dealt).zip(0..).map(|((exchange, slots), id)| Member {
            id,
            address: exchange.local_addr().to_string(),
            slots,
        });
        let world: Vec<Member> = world.collect();
        for (rank, exchange) in exchanges.iter().enumerate() {
            exchange.set_world(World { epoch: 1, rank, members: world.clone() });
        }
        Ok(Self { exchanges, world, tree, runtime })
    }

    /// The sum of a bucket of `length`, as the member of this rank gets it.
    fn sum(&self, rank: usize, step: u64, bucket: usize, length: usize) -> Result<Vec<f32>> {
        let own = self.world[rank].slots.clone();
        let mut partials = TreeAccumulator::new(&self.tree, own.clone());
        for _ in own {
            partials.push(vec![GRADIENT; length])?;
        }
        let (tag, partials) = (format!("gradients/{bucket:03}"), partials.finish()?);
        let reduced = self.exchanges[rank].tree_all_reduce(step, &tag, partials, &self.tree, DEADLINE);
        Ok(self.runtime.block_on(reduced)?)
    }
}

/// The state of the first member.
struct Landed {
    gradients: Vec<f32>,
    parameters: Vec<f32>,
    moments: Moments,
    next: Option<(Vec<f32>, Moments)>,
}

impl Landed {
    fn new(layout: &FlatLayout, beside: bool) -> Self {
        let zeros = || (vec![0.0; layout.len()], Moments::zeros(layout.len()));
        let (parameters, moments) = zeros();
        Self { gradients: vec![0.0; layout.len()], parameters, moments, next: beside.then(zeros) }
    }
}

/// One round of all members; the first one's times.
fn round(buckets: &GradientBuckets, members: &Members<'_>, step: u64, state: &mut Landed) -> Result<Round> {
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..members.exchanges.len())
            .map(|rank| {
                scope.spawn(move || {
                    let mut all = buckets.buckets().iter().enumerate();
                    all.try_for_each(|(number, bucket)| {
                        members.sum(rank, step, number, bucket.len()).map(drop)
                    })
                })
            })
            .collect();
        let first = of_first(buckets, members, step, state);
        for other in others {
            other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        first
    })
}

fn of_first(
    buckets: &GradientBuckets,
    members: &Members<'_>,
    step: u64,
    state: &mut Landed,
) -> Result<Round> {
    let mut times = Round::default();
    let mut norm = NormParts::new(buckets.len());
    for (number, bucket) in buckets.buckets().iter().enumerate() {
        let started = Instant::now();
        let sum = members.sum(0, step, number, bucket.len())?;
        if members.exchanges.len() > 1 {
            times.wire += started.elapsed().as_secs_f64();
        }
        bucket.copy_into(&sum, &mut state.gradients);
        let started = Instant::now();
        norm.add(&state.gradients, &bucket.ranges);
        times.norm += started.elapsed().as_secs_f64();
    }
    if !norm.norm().is_finite() {
        return Err(WorkerError::Protocol("the norm of made-up gradients is no number".into()));
    }
    let started = Instant::now();
    update(buckets.layout(), step, state);
    times.optimizer = started.elapsed().as_secs_f64();
    Ok(times)
}

/// AdamW, as the step has it.
fn update(layout: &FlatLayout, step: u64, state: &mut Landed) {
    let settings = OptimizerSettings::default();
    let (adamw, learning_rate) = (settings.adamw(), settings.learning_rate);
    let Landed { gradients, parameters, moments, next } = state;
    let Some((next_parameters, next_moments)) = next else {
        return adamw.apply(layout, step + 1, learning_rate, parameters, gradients, moments);
    };
    let of = AdamWStep { update: step + 1, learning_rate, factor: 1.0 };
    for tensor in layout.tensors() {
        adamw.apply_beside(tensor, of, gradients, (parameters, moments), (next_parameters, next_moments));
    }
    std::mem::swap(parameters, next_parameters);
    std::mem::swap(moments, next_moments);
}

#[cfg(test)]
mod tests {
    use blip2_model::language::opt::OptConfig;
    use blip2_model::vision::{EncoderSizes, EvaConfig};
    use blip2_tensors::train::flat::FlatTensor;
    use blip2_worker::settings::model::QFormerSettings;
    use std::sync::Arc;

    use super::super::preset::{Preset, Sizes};
    use super::*;

    /// A trained encoder and a projection to a small language model.
    fn sizes() -> StepSizes {
        let encoder = EvaConfig {
            width: 8,
            depth: 2,
            heads: 2,
            intermediate: 8,
            image_size: 28,
            ..EvaConfig::default()
        };
        let qformer =
            QFormerSettings { hidden: 8, layers: 2, heads: 2, intermediate: 8, ..QFormerSettings::default() };
        StepSizes {
            encoder: EncoderSizes::Eva(encoder),
            qformer,
            vocab: 50,
            language: Some(Arc::new(OptConfig { width: 16, ..OptConfig::default() })),
            text_length: 6,
            trains_encoder: true,
        }
    }

    #[test]
    fn the_paper_s_encoder_is_counted_and_not_made() {
        let Sizes::Run(caption) = Preset::CaptionVitG.sizes(8, 0.0) else { panic!("a run") };
        let layout = layout(&caption).unwrap();
        let encoder = layout.tensors().iter().filter(|tensor| tensor.name.starts_with("visual_encoder."));
        assert_eq!(encoder.map(FlatTensor::len).sum::<usize>(), 986_540_800);
        assert!((1_090_000_000..1_100_000_000).contains(&layout.len()), "{}", layout.len());
    }

    #[test]
    fn sum_norm_and_update_are_timed_and_the_parameters_move() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        for (members, beside) in [(1, true), (2, true), (3, false)] {
            let load = ParameterLoad { preset: "small".into(), members, steps: 2, beside };
            let report = measure(&sizes(), &load, runtime.handle()).unwrap();
            assert_eq!((report.wire_s > 0.0, report.sent_bytes > 0), (members > 1, members > 1));
            assert!(report.norm_s > 0.0 && report.optimizer_s > 0.0);
            assert_eq!(report.state_bytes, 12 * report.parameters as u64);
            assert!(text(&report).contains("trained parameters in"), "{}", text(&report));
        }
        let layout = layout(&sizes()).unwrap();
        for name in ["visual_encoder.blocks.1.mlp.fc2.weight", "opt_proj.weight", "query_tokens"] {
            assert!(layout.get(name).is_some(), "{name}");
        }
        for beside in [true, false] {
            let mut state = Landed::new(&layout, beside);
            state.gradients.fill(GRADIENT);
            update(&layout, 0, &mut state);
            assert!(state.parameters.iter().all(|parameter| *parameter < 0.0), "beside: {beside}");
        }
    }
}
