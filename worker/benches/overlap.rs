//! Seconds of a step with and without the overlap of reduction and backward pass, with members in this
//! process.
//!
//! `cargo bench -p blip2-worker --bench overlap -- [HIDDEN] [LAYERS] [MEMBERS] [ROUNDS]`. The variants take
//! turns, so that a busy machine is as unkind to each. Run it in a network namespace of its own with `tc
//! netem` on `lo` to see what a slow link costs.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use blip2_collective::{Exchange, Limits, Member, World, deal_slots};
use blip2_dataset::corpus::manifest::Manifest;
use blip2_proto::transport::Transport;
use blip2_worker::frozen_models::FrozenModels;
use blip2_worker::settings::train::Wire;
use blip2_worker::step::{Peers, StepTimes};
use blip2_worker::{BatchRange, TrainState, WorkerConfig, start_loader};

const DEADLINE: Duration = Duration::from_secs(300);

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn config(hidden: usize, layers: usize, members: usize) -> WorkerConfig {
    let assets =
        |path: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets").join(path).display().to_string();
    let mut config = WorkerConfig::default();
    config.train.slots = members.next_power_of_two() as u32;
    config.data.train = vec![assets("corpus/train-*.parquet")];
    config.data.window_row_groups = 1;
    config.model.image_encoder = assets("backbones/eva-tiny");
    config.model.qformer_tokenizer = assets("backbones/qformer-tokenizer");
    let sizes = &mut config.model.qformer;
    (sizes.hidden, sizes.layers, sizes.heads, sizes.intermediate) = (hidden, layers, hidden / 64, 4 * hidden);
    (config.stages[0].steps, config.stages[0].batch) = (1_000, 2 * config.train.slots);
    config
}

/// Seconds of each round and the times of the last step of member 0, for each variant.
fn measure(
    variants: &[WorkerConfig],
    members: usize,
    rounds: usize,
) -> Result<Vec<(Vec<f64>, StepTimes)>, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let data = &variants[0].data;
    let manifest = Arc::new(runtime.block_on(Manifest::open(&data.train, &data.columns))?);
    let slots = deal_slots(variants[0].train.slots, members)?;
    let mut exchanges = Vec::new();
    for _ in 0..members {
        let (address, limits) = ("127.0.0.1:0".parse()?, Limits::default());
        exchanges.push(runtime.block_on(Exchange::bind(
            address,
            "token".into(),
            limits,
            Transport::plain(),
        ))?);
    }
    let addresses = exchanges.iter().map(|exchange| exchange.local_addr().to_string());
    let world: Vec<Member> = addresses
        .zip(slots)
        .enumerate()
        .map(|(id, (address, slots))| Member { id: id as u32, address, slots })
        .collect();
    let barrier = std::sync::Barrier::new(members);
    let measured = std::thread::scope(|scope| {
        let threads: Vec<_> = exchanges
            .iter()
            .enumerate()
            .map(|(rank, exchange)| {
                let world = World { epoch: 1, rank, members: world.clone() };
                let (manifest, handle, barrier) = (manifest.clone(), runtime.handle().clone(), &barrier);
                scope.spawn(move || member(variants, world, exchange, manifest, &handle, barrier, rounds))
            })
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join().map_err(|_| "a member panicked"));
        joined.collect::<Result<Vec<_>, _>>()
    })?;
    exchanges.iter().for_each(|exchange| runtime.block_on(exchange.shutdown()));
    measured.into_iter().next().unwrap_or_else(|| Err("no members".into()))
}

fn member(
    variants: &[WorkerConfig],
    world: World,
    exchange: &Exchange,
    manifest: Arc<Manifest>,
    runtime: &tokio::runtime::Handle,
    barrier: &std::sync::Barrier,
    rounds: usize,
) -> Result<Vec<(Vec<f64>, StepTimes)>, Failure> {
    let parts: Vec<FrozenModels> =
        variants.iter().map(|config| config.frozen_models()).collect::<Result<_, _>>()?;
    let mut state = TrainState::fresh(&variants[0], parts[0].sizes, &parts[0].device.clone().autodiff())?;
    exchange.set_world(world.clone());
    let range =
        BatchRange { stage: variants[0].first_stage()?, first_step: 0, slots: world.own()?.slots.clone() };
    let loader = start_loader(&variants[0], &parts[0], manifest, runtime.clone(), range)?;
    let batch = loader.next(DEADLINE)?;
    let mut results = vec![(Vec::new(), StepTimes::default()); variants.len()];
    let mut step = 0;
    for round in 0..=rounds {
        for (parts, (seconds, times)) in parts.iter().zip(&mut results) {
            let members = Peers { exchange, runtime, world: &world, step, deadline: DEADLINE };
            barrier.wait();
            let started = Instant::now();
            let gradient = parts.gradient(&mut state, &members, 0, &batch)?;
            // The first round warms up.
            if round > 0 {
                seconds.push(started.elapsed().as_secs_f64());
            }
            *times = gradient.times;
            step += 1;
        }
    }
    Ok(results)
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |at: usize, otherwise: usize| -> usize {
        arguments.get(at).and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    };
    let (hidden, layers, members, rounds) = (number(0, 384), number(1, 6), number(2, 2), number(3, 5));
    let base = config(hidden, layers, members);
    let variants: Vec<WorkerConfig> = [Wire::F32, Wire::Bf16]
        .into_iter()
        .flat_map(|wire| [true, false].map(|overlap| (wire, overlap)))
        .map(|(wire, overlap)| {
            let mut config = base.clone();
            (config.train.wire, config.train.overlap) = (wire, overlap);
            config
        })
        .collect();
    for (config, (mut seconds, times)) in variants.iter().zip(measure(&variants, members, rounds)?) {
        seconds.sort_by(f64::total_cmp);
        let StepTimes { encoder, forward, backward, exchange, .. } = times;
        println!(
            "{members} members, {}, overlap {:5}: median {:.3} s, best {:.3} s (last: encoder {encoder:.3}, forward {forward:.3}, \
             backward {backward:.3}, exchange {exchange:.3})",
            config.train.wire,
            config.train.overlap,
            seconds[seconds.len() / 2],
            seconds[0],
        );
    }
    Ok(())
}
