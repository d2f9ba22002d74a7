//! Members of a run in one process, over loopback.

use std::sync::Arc;
use std::time::Duration;

use blip2_collective::{Exchange, Limits, Member, World, deal_slots};
use blip2_dataset::corpus::manifest::Manifest;
use blip2_proto::transport::Transport;
use blip2_worker::step::{Peers, StepBytes};
use blip2_worker::{BatchRange, TrainState, WorkerConfig, start_loader};

const DEADLINE: Duration = Duration::from_secs(60);

/// Losses of every step, the final parameters, and what every step moved.
pub(crate) type Trained = (Vec<f64>, Vec<f32>, Vec<StepBytes>);

/// What each member of a run with `members` members comes to.
pub(crate) fn train(config: &WorkerConfig, members: usize) -> Vec<Trained> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let columns = config.first_stage().unwrap().settings.task.columns(&config.data.columns);
    let manifest = Arc::new(runtime.block_on(Manifest::open(&config.data.train, &columns)).unwrap());
    let bind = || {
        Exchange::bind("127.0.0.1:0".parse().unwrap(), "token".into(), Limits::default(), Transport::plain())
    };
    let exchanges: Vec<Exchange> = (0..members).map(|_| runtime.block_on(bind()).unwrap()).collect();
    let slots = deal_slots(config.train.slots, members).unwrap();
    let world: Vec<Member> = exchanges
        .iter()
        .zip(&slots)
        .enumerate()
        .map(|(id, (exchange, slots))| Member {
            id: id as u32,
            address: exchange.local_addr().to_string(),
            slots: slots.clone(),
        })
        .collect();
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = exchanges
            .iter()
            .enumerate()
            .map(|(rank, exchange)| {
                let world = World { epoch: 1, rank, members: world.clone() };
                let (manifest, handle) = (manifest.clone(), runtime.handle().clone());
                scope.spawn(move || member(config, world, exchange, manifest, &handle))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    exchanges.iter().for_each(|exchange| runtime.block_on(exchange.shutdown()));
    results
}

fn member(
    config: &WorkerConfig,
    world: World,
    exchange: &Exchange,
    manifest: Arc<Manifest>,
    runtime: &tokio::runtime::Handle,
) -> Trained {
    let frozen = config.frozen_models().unwrap();
    let device = frozen.device.clone().autodiff();
    let mut state = TrainState::fresh(config, frozen.sizes, &device).unwrap();
    let evaluates = config.eval.every_steps > 0;
    exchange.set_world(world.clone());
    let (mut losses, mut bytes) = (Vec::new(), Vec::new());
    let mut step = 0;
    for stage in config.trained_stages() {
        let steps = stage.settings.steps;
        if state.stage.number != stage.number {
            state = state.enter(stage.clone(), config, frozen.sizes, &device).unwrap();
        }
        let held_out = evaluates.then(|| runtime.block_on(frozen.read_held_out(config, &stage)).unwrap());
        let range = BatchRange { stage, first_step: 0, slots: world.own().unwrap().slots.clone() };
        let loader = start_loader(config, &frozen, manifest.clone(), runtime.clone(), range).unwrap();
        for stage_step in 0..steps {
            let batch = loader.next(DEADLINE).unwrap();
            let peers = Peers { exchange, runtime, world: &world, step, deadline: DEADLINE };
            let mut gradient = frozen.gradient(&mut state, &peers, stage_step, &batch).unwrap();
            losses.extend(gradient.values.iter().map(|(_, value)| *value));
            if let Some(rows) = &held_out {
                let values = frozen.evaluate(Ok(rows), &state, &peers, stage_step, &gradient).unwrap();
                losses.extend(values.iter().map(|(_, value)| *value));
            }
            frozen.apply(&mut state, stage_step, &mut gradient).unwrap();
            bytes.push(gradient.bytes);
            step += 1;
        }
    }
    (losses, state.parameters, bytes)
}

/// What a run comes to, which is the same for 1, 2 and 4 members, with and without overlap.
pub(crate) fn train_alike(config: &mut WorkerConfig) -> Trained {
    let alone = train(config, 1).remove(0);
    assert!(alone.1.iter().all(|parameter| parameter.is_finite()));
    for overlap in [true, false] {
        config.train.overlap = overlap;
        for members in [1, 2, 4] {
            assert_all_like(&alone, config, members);
        }
    }
    alone
}

pub(crate) fn assert_all_like(alone: &Trained, config: &WorkerConfig, members: usize) {
    let what = format!("of {members}, {:?}, overlap {}", config.train.wire, config.train.overlap);
    for (rank, result) in train(config, members).into_iter().enumerate() {
        assert_eq!(result.0, alone.0, "losses of member {rank} {what}");
        assert!(result.1 == alone.1, "parameters of member {rank} {what}");
    }
}
