//! The sum of a step's gradient over all slots, part by part, on threads beside the one that computes.
//!
//! The computing thread gives each segment's gradient away as soon as the segment is differentiated, and goes on with the one
//! below. A *collecting* thread reads it from the device and adds up the member's own slots; with the last of them a part is
//! complete as soon as the backward pass has left the segments the part belongs to. Where there are other members a *reducing*
//! thread drives all parts in flight between them. What arrives goes to the *landing* thread ([`Landing`]). All are joined
//! before the step goes on; the first error ends them all. Without overlap the computing thread does it all itself, but for the
//! reduction, which begins when the backward pass is over.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::mpsc as threads;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use blip2_collective::{CollectiveError, SumTree, TreeAccumulator, TreePartial};
use blip2_model::error::ModelError;
use blip2_model::nn::tensors::NamedTensors;
use blip2_model::train::buckets::{BucketBuffers, GradientBuckets, SegmentGradients};
use blip2_model::train::tape::Tape;
use burn::tensor::{Device, Tensor};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::landing::{Item, Landed, Landing, closed};
use super::peers::Peers;
use super::times::Stopwatch;
use crate::error::{Result, WorkerError};

/// Segments whose gradients may wait on the device to be read: the computing thread waits when there are more.
const SEGMENTS_AHEAD: usize = 4;

/// What is summed, and how.
pub(crate) struct SumPlan<'a> {
    pub(crate) parts: &'a GradientBuckets,
    /// For the gradient.
    pub(crate) tree: SumTree,
    /// This member's slots.
    pub(crate) slots: Range<u32>,
    /// Whether parts are read, added up and sent, and their updates made, before the backward pass is over.
    pub(crate) overlap: bool,
    /// Where the slots are computed.
    pub(crate) device: Device,
}

impl Item {
    fn tag(self) -> String {
        match self {
            Self::Part(part) => format!("gradients/{part:03}"),
            Self::Values => "values".into(),
        }
    }

    fn tree(self, plan: &SumPlan<'_>) -> Result<SumTree> {
        match self {
            Self::Part(_) => Ok(plan.tree),
            Self::Values => Ok(SumTree::new(plan.tree.slots())?),
        }
    }
}

/// An item summed over the own slots.
type OwnSum = (Item, Vec<TreePartial>);

/// What the reducing thread is told; a channel that closes without the last message tells it to give up.
#[derive(Debug)]
enum Message {
    Sum(OwnSum),
    ThatIsAll,
}

/// The way to the [`Landing`].
enum Lander<'a> {
    Here(Box<Landing<'a>>),
    /// On its thread, which has room for all there is.
    There(threads::Sender<(Item, Vec<f32>)>),
}

impl Lander<'_> {
    fn land(&mut self, item: Item, sum: Vec<f32>) -> Result<()> {
        match self {
            Self::Here(landing) => landing.land(item, sum),
            Self::There(landing) => landing.send((item, sum)).map_err(|_| closed()),
        }
    }
}

/// Where the own sums go.
enum Target<'a> {
    /// A member that holds all slots has the sum.
    Alone(Lander<'a>),
    Peers(mpsc::Sender<Message>),
}

/// An item while the own slots come in.
struct OpenSum {
    sum: TreeAccumulator,
    slots_left: usize,
}

/// Adds up a member's own slots, in slot order.
pub(crate) struct OwnSums<'a> {
    plan: &'a SumPlan<'a>,
    target: Target<'a>,
    /// Of the slot that is being differentiated.
    buffers: BucketBuffers<'a>,
    /// One for each part; `None` when it is complete.
    parts: Vec<Option<OpenSum>>,
    values: Option<OpenSum>,
    /// Of each slot.
    own_values: Vec<Vec<f32>>,
    /// Complete sums that wait for the end of the backward pass.
    held: Vec<OwnSum>,
    watch: Stopwatch,
}

impl<'a> OwnSums<'a> {
    fn new(plan: &'a SumPlan<'a>, target: Target<'a>, watch: Stopwatch) -> Result<Self> {
        let open = |item: Item| -> Result<Option<OpenSum>> {
            let sum = TreeAccumulator::new(&item.tree(plan)?, plan.slots.clone());
            Ok(Some(OpenSum { sum, slots_left: plan.slots.len() }))
        };
        let parts =
            (0..plan.parts.buckets().len()).map(|part| open(Item::Part(part))).collect::<Result<_>>()?;
        let (buffers, values) = (plan.parts.buffers(), open(Item::Values)?);
        Ok(Self { plan, target, buffers, parts, values, own_values: Vec::new(), held: Vec::new(), watch })
    }

    /// Reads what a segment of the slot gave from the device and adds it.
    fn add_segment(&mut self, gradients: SegmentGradients) -> Result<()> {
        let buffers = &mut self.buffers;
        let complete = self.watch.time(|times| &mut times.to_host, || buffers.read(gradients))?;
        complete.into_iter().try_for_each(|(part, values)| self.push_part(part, values))
    }

    /// Adds the next slot's values.
    fn push_values(&mut self, values: Vec<f32>) -> Result<()> {
        self.own_values.push(values.clone());
        match push(&mut self.values, values)? {
            Some(partials) => self.complete((Item::Values, partials)),
            None => Ok(()),
        }
    }

    /// Adds the next slot's gradient of one part.
    fn push_part(&mut self, part: usize, gradient: Vec<f32>) -> Result<()> {
        let sum = &mut self.parts[part];
        match self.watch.time(|times| &mut times.adding, || push(sum, gradient))? {
            Some(partials) => self.complete((Item::Part(part), partials)),
            None => Ok(()),
        }
    }

    fn complete(&mut self, (item, mut partials): OwnSum) -> Result<()> {
        match &mut self.target {
            Target::Alone(lander) => match (partials.pop(), partials.is_empty()) {
                (Some(root), true) => lander.land(item, root.data),
                _ => Err(WorkerError::Protocol("a world of one member that does not hold all slots".into())),
            },
            Target::Peers(_) if !self.plan.overlap => {
                self.held.push((item, partials));
                Ok(())
            }
            Target::Peers(reducer) => send(reducer, Message::Sum((item, partials))),
        }
    }

    /// Hands on what was held.
    fn finish(self) -> Result<Finished<'a>> {
        let lander = match self.target {
            Target::Alone(lander) => Some(lander),
            Target::Peers(reducer) => {
                self.held.into_iter().try_for_each(|sum| send(&reducer, Message::Sum(sum)))?;
                send(&reducer, Message::ThatIsAll)?;
                None
            }
        };
        Ok(Finished { lander, own_values: self.own_values, watch: self.watch })
    }
}

/// What is left of the own sums when all slots are in.
struct Finished<'a> {
    /// Of a member that is alone.
    lander: Option<Lander<'a>>,
    own_values: Vec<Vec<f32>>,
    watch: Stopwatch,
}

/// The sum's partials, after the last slot.
fn push(open: &mut Option<OpenSum>, values: Vec<f32>) -> Result<Option<Vec<TreePartial>>> {
    let Some(sum) = open else {
        return Err(WorkerError::Protocol("a slot more than the assignment has".into()));
    };
    sum.sum.push(values)?;
    sum.slots_left -= 1;
    match open.take_if(|sum| sum.slots_left == 0) {
        Some(sum) => Ok(Some(sum.sum.finish()?)),
        None => Ok(None),
    }
}

/// The channel has room for everything there is to send, so it refuses only when the reductions have failed.
fn send(reducer: &mpsc::Sender<Message>, message: Message) -> Result<()> {
    reducer.try_send(message).map_err(|_| closed())
}

/// Something to be done with the own sums.
pub(crate) type Job<'a> = Box<dyn FnOnce(&mut OwnSums<'a>) -> Result<()> + Send + 'a>;

/// What the collecting thread is told; a channel that closes without the last message tells it to give up.
pub(crate) enum Given<'a> {
    Job(Job<'a>),
    ThatIsAll,
}

/// Takes the own slots' gradients from the computing thread, in slot order.
pub(crate) enum Slots<'a> {
    Here(Box<OwnSums<'a>>),
    There(Collector<'a>),
}

/// The way to the collecting thread.
pub(crate) struct Collector<'a> {
    sender: threads::SyncSender<Given<'a>>,
    device: Device,
}

impl<'a> Collector<'a> {
    /// Gives tensors away to be read. What is to produce them is launched before: a device that joins operations into kernels
    /// would else end the joining at whatever operation the other thread's read meets, so that kernels, and with them the last
    /// bits, differed from run to run.
    fn give(&self, job: Job<'a>) -> Result<()> {
        self.device.flush().map_err(|error| ModelError::Device(error.to_string()))?;
        self.sender.send(Given::Job(job)).map_err(|_| closed())
    }
}

impl<'a> Slots<'a> {
    /// Differentiates the next slot's objective and gives its gradient away, segment by segment.
    pub(crate) fn backward(
        &mut self,
        model: &mut impl NamedTensors,
        tape: Tape,
        objective: Tensor<1>,
        watch: &mut Stopwatch,
    ) -> Result<()> {
        self.give(|sums| {
            sums.buffers = sums.plan.parts.buffers();
            Ok(())
        })?;
        let started = std::time::Instant::now();
        let mut given = 0.0;
        let result = tape.backward(objective, |segment, gradients| {
            watch.wait();
            let giving = std::time::Instant::now();
            let gradients = SegmentGradients::take(model, gradients, segment)?;
            self.give(move |sums| sums.add_segment(gradients))?;
            given += giving.elapsed().as_secs_f64();
            Ok(())
        });
        watch.times.backward += started.elapsed().as_secs_f64() - given;
        result
    }

    /// Adds the next slot's values, which may still have to be read from the device.
    pub(crate) fn push_values(&mut self, read: impl FnOnce() -> Result<Vec<f32>> + Send + 'a) -> Result<()> {
        self.give(move |sums| {
            let values = sums.watch.time(|times| &mut times.to_host, read)?;
            sums.push_values(values)
        })
    }

    fn give(&mut self, job: impl FnOnce(&mut OwnSums<'a>) -> Result<()> + Send + 'a) -> Result<()> {
        match self {
            Self::Here(sums) => job(sums),
            Self::There(collector) => collector.give(Box::new(job)),
        }
    }
}

/// Follows what the computing thread gives.
fn collect<'a>(
    mut sums: OwnSums<'a>,
    given: &threads::Receiver<Given<'a>>,
) -> Result<(Vec<Vec<f32>>, Stopwatch)> {
    loop {
        match given.recv() {
            Ok(Given::Job(job)) => job(&mut sums)?,
            Ok(Given::ThatIsAll) => {
                let Finished { own_values, watch, .. } = sums.finish()?;
                return Ok((own_values, watch));
            }
            Err(_) => return Err(closed()),
        }
    }
}

/// Takes up all sums.
fn land(
    mut landing: Landing<'_>,
    arriving: &threads::Receiver<(Item, Vec<f32>)>,
) -> Result<(Landed, Stopwatch)> {
    while let Ok((item, sum)) = arriving.recv() {
        landing.land(item, sum)?;
    }
    let mut watch = Stopwatch::default();
    Ok((landing.finish(&mut watch)?, watch))
}

/// Starts a thread of the sum.
fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    let spawned = Builder::new().name(name.into()).spawn_scoped(scope, work);
    spawned.map_err(|error| WorkerError::Protocol(format!("the thread \"{name}\": {error}")))
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The error that says most: a channel is closed because something else has failed.
fn first_error<const N: usize>(errors: [Option<WorkerError>; N]) -> Option<WorkerError> {
    let is_closed = |error: &WorkerError| matches!(error, WorkerError::Collective(CollectiveError::Closed));
    let mut errors: Vec<WorkerError> = errors.into_iter().flatten().collect();
    let telling = errors.iter().position(|error| !is_closed(error));
    (!errors.is_empty()).then(|| errors.swap_remove(telling.unwrap_or(0)))
}

impl Peers<'_> {
    /// The sums over all slots of what `fill` gives for the own ones, taken up by `landing`; `fill`'s times go to `watch`.
    ///
    /// # Errors
    /// That of `fill`, or the first of a reduction; nothing is in flight when this returns.
    pub(crate) fn sum(
        &self,
        plan: &SumPlan<'_>,
        landing: Landing<'_>,
        watch: &mut Stopwatch,
        fill: impl FnOnce(&mut Slots<'_>, &mut Stopwatch) -> Result<()>,
    ) -> Result<Landed> {
        match plan.overlap {
            true => self.sum_beside(plan, landing, watch, fill),
            false => self.sum_after(plan, landing, watch, fill),
        }
    }

    /// Everything in its turn.
    fn sum_after(
        &self,
        plan: &SumPlan<'_>,
        landing: Landing<'_>,
        watch: &mut Stopwatch,
        fill: impl FnOnce(&mut Slots<'_>, &mut Stopwatch) -> Result<()>,
    ) -> Result<Landed> {
        let landing = Box::new(landing);
        let fill = |target, watch: &mut Stopwatch| {
            let mut slots = Slots::Here(Box::new(OwnSums::new(plan, target, watch.another())?));
            fill(&mut slots, watch)?;
            let Slots::Here(sums) = slots else { return Err(closed()) };
            let finished = sums.finish()?;
            watch.times += finished.watch.times;
            Ok((finished.lander, finished.own_values))
        };
        let (lander, own_values) = if self.world.members.len() == 1 {
            fill(Target::Alone(Lander::Here(landing)), watch)?
        } else {
            let (sender, receiver) = mpsc::channel(plan.parts.buckets().len() + 2);
            let (_, own_values) = fill(Target::Peers(sender), watch)?;
            let reduced = self.reduce(plan, Lander::Here(landing), receiver);
            (Some(watch.time(|times| &mut times.exchange, || self.runtime.block_on(reduced))?), own_values)
        };
        match lander {
            Some(Lander::Here(landing)) => Ok(Landed { own_values, ..landing.finish(watch)? }),
            _ => Err(closed()),
        }
    }

    /// Everything as soon as it can be done.
    fn sum_beside(
        &self,
        plan: &SumPlan<'_>,
        landing: Landing<'_>,
        watch: &mut Stopwatch,
        fill: impl FnOnce(&mut Slots<'_>, &mut Stopwatch) -> Result<()>,
    ) -> Result<Landed> {
        let (landings, arriving) = threads::channel();
        let (giver, given) = threads::sync_channel(SEGMENTS_AHEAD);
        let updated = landing.updated();
        std::thread::scope(|scope| {
            let lander = spawn(scope, "land", move || land(landing, &arriving))?;
            let (target, reducer) = if self.world.members.len() == 1 {
                (Target::Alone(Lander::There(landings)), None)
            } else {
                // Every part, the values, and the end.
                let (sender, receiver) = mpsc::channel(plan.parts.buckets().len() + 2);
                let reduce = move || {
                    let reduced = self.reduce(plan, Lander::There(landings), receiver);
                    self.runtime.block_on(reduced).map(drop)
                };
                (Target::Peers(sender), Some(spawn(scope, "reduce", reduce)?))
            };
            let sums = OwnSums::new(plan, target, watch.another())?;
            let collector = spawn(scope, "collect", move || collect(sums, &given))?;
            let mut slots = Slots::There(Collector { sender: giver, device: plan.device.clone() });
            let filled = fill(&mut slots, watch);
            let early = updated.load(Ordering::Acquire);
            // Without an error all sums are on their way after this; with one the channel closes early, which ends all.
            let filled = match (&slots, filled) {
                (Slots::There(collector), Ok(())) => {
                    collector.sender.send(Given::ThatIsAll).map_err(|_| closed())
                }
                (_, filled) => filled,
            };
            drop(slots);
            let (collected, reduced, landed) = watch.time(
                |times| &mut times.exchange,
                || (joined(collector), reducer.map_or(Ok(()), joined), joined(lander)),
            );
            let parts = plan.parts.buckets().len();
            tracing::debug!(early, parts, "parts were updated before the backward pass was over");
            match (filled, collected, reduced, landed) {
                (Ok(()), Ok((own_values, own)), Ok(()), Ok((landed, landing))) => {
                    watch.times += own.times;
                    watch.times += landing.times;
                    Ok(Landed { own_values, ..landed })
                }
                (filled, collected, reduced, landed) => {
                    let errors = [filled.err(), collected.err(), reduced.err(), landed.err()];
                    Err(first_error(errors).unwrap_or_else(closed))
                }
            }
        })
    }

    /// Sums over all members what arrives, all of it at a time, and lands it.
    async fn reduce<'l>(
        &self,
        plan: &SumPlan<'_>,
        mut lander: Lander<'l>,
        mut arriving: mpsc::Receiver<Message>,
    ) -> Result<Lander<'l>> {
        let mut running = FuturesUnordered::new();
        let mut more = true;
        loop {
            tokio::select! {
                biased;
                message = arriving.recv(), if more => match message {
                    Some(Message::Sum(own)) => running.push(self.reduce_one(plan, own)),
                    Some(Message::ThatIsAll) => more = false,
                    None => return Err(closed()),
                },
                Some(done) = running.next() => {
                    let (item, sum): (Item, Vec<f32>) = done?;
                    lander.land(item, sum)?;
                }
                else => return Ok(lander),
            }
        }
    }

    async fn reduce_one(&self, plan: &SumPlan<'_>, (item, partials): OwnSum) -> Result<(Item, Vec<f32>)> {
        let (tag, tree) = (item.tag(), item.tree(plan)?);
        let sum = self.exchange.tree_all_reduce(self.step, &tag, partials, &tree, self.deadline).await?;
        Ok((item, sum))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use blip2_collective::{Exchange, Limits, Member, World, deal_slots};
    use blip2_model::train::flat::FlatLayout;
    use blip2_model::train::optimizer::{AdamW, Moments};
    use blip2_proto::transport::Transport;
    use burn::tensor::Device;

    use super::super::landing::{Beside, LandingPlan};
    use super::*;
    use crate::step::next::NextBuffers;

    const SLOTS: u32 = 8;
    /// A wait that ends by this alone does not end: what is wrong then is that a test hangs.
    const NEVER: Duration = Duration::from_secs(24 * 3600);

    fn parts() -> GradientBuckets {
        let layer = |index: usize| format!("Qformer.bert.encoder.layer.{index}.weight");
        let mut shapes: Vec<(String, Vec<usize>)> = (0..3).map(|index| (layer(index), vec![700])).collect();
        shapes.push(("query_tokens".into(), vec![33]));
        shapes.push(("temp".into(), vec![1]));
        GradientBuckets::of(&FlatLayout::new(shapes), 1)
    }

    fn value(slot: u32, element: usize) -> f32 {
        let hash = (element as u32 ^ (slot << 20)).wrapping_mul(0x9E37_79B9);
        (hash >> 8) as f32 * 10f32.powi((hash % 7) as i32 - 3)
    }

    /// What slot `slot` gives for part `part`.
    fn gradient(parts: &GradientBuckets, part: usize, slot: u32) -> Vec<f32> {
        let elements = parts.buckets()[part].ranges.iter().cloned().flatten();
        elements.map(|element| value(slot, element)).collect()
    }

    fn give_values(slots: &mut Slots<'_>, slot: u32) -> Result<()> {
        slots.push_values(move || Ok(vec![value(slot, 1), slot as f32]))
    }

    fn give_part(slots: &mut Slots<'_>, part: usize, slot: u32) -> Result<()> {
        let values = gradient(&parts(), part, slot);
        slots.give(move |sums| sums.push_part(part, values))
    }

    /// Gives every own slot's gradient and values.
    fn fill(slots: &mut Slots<'_>, own: Range<u32>) -> Result<()> {
        for slot in own {
            give_values(slots, slot)?;
            (0..parts().buckets().len()).try_for_each(|part| give_part(slots, part, slot))?;
        }
        Ok(())
    }

    fn unclipped() -> LandingPlan {
        LandingPlan {
            adamw: AdamW { beta1: 0.9, beta2: 0.98, epsilon: 1e-8, weight_decay: 0.05 },
            update: 1,
            learning_rate: 0.1,
            clip_norm: 0.0,
            bounded: None,
            divisor: None,
        }
    }

    struct Group {
        runtime: tokio::runtime::Runtime,
        exchanges: Vec<Exchange>,
        world: Vec<Member>,
    }

    impl Group {
        fn new(members: usize) -> Self {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            let runtime = runtime.unwrap();
            let address = "127.0.0.1:0".parse().unwrap();
            let bind = || Exchange::bind(address, "token".into(), Limits::default(), Transport::plain());
            let exchanges: Vec<Exchange> = (0..members).map(|_| runtime.block_on(bind()).unwrap()).collect();
            let slots = deal_slots(SLOTS, members).unwrap();
            let world = exchanges.iter().zip(slots).enumerate().map(|(id, (exchange, slots))| Member {
                id: id as u32,
                address: exchange.local_addr().to_string(),
                slots,
            });
            let world: Vec<Member> = world.collect();
            for (rank, exchange) in exchanges.iter().enumerate() {
                exchange.set_world(World { epoch: 1, rank, members: world.clone() });
            }
            Self { runtime, exchanges, world }
        }

        /// What member `rank` gets.
        fn sum(
            &self,
            rank: usize,
            overlap: bool,
            fill: impl FnOnce(&mut Slots<'_>, Range<u32>) -> Result<()>,
        ) -> Result<(Vec<f32>, Vec<f32>)> {
            let parts = parts();
            let landing = Landing::new(unclipped(), &parts, vec![f32::NAN; 7], None, Stopwatch::default());
            self.land(rank, overlap, landing, &parts, fill)
        }

        fn land(
            &self,
            rank: usize,
            overlap: bool,
            landing: Landing<'_>,
            parts: &GradientBuckets,
            fill: impl FnOnce(&mut Slots<'_>, Range<u32>) -> Result<()>,
        ) -> Result<(Vec<f32>, Vec<f32>)> {
            let world = World { epoch: 1, rank, members: self.world.clone() };
            let members = Peers {
                exchange: &self.exchanges[rank],
                runtime: self.runtime.handle(),
                world: &world,
                step: 0,
                deadline: NEVER,
            };
            let tree = SumTree::new(SLOTS).unwrap();
            let own = self.world[rank].slots.clone();
            let device = Device::flex();
            let plan = SumPlan { parts, tree, slots: own.clone(), overlap, device };
            let fill = |slots: &mut Slots<'_>, _: &mut Stopwatch| fill(slots, own);
            let landed = members.sum(&plan, landing, &mut Stopwatch::default(), fill)?;
            Ok((landed.gradients, landed.values))
        }
    }

    #[test]
    fn neither_the_members_nor_the_overlap_change_a_bit() {
        let alone = Group::new(1).sum(0, true, fill).unwrap();
        assert_eq!(alone.0.len(), 2134);
        assert_eq!(alone.1[1], 28.0);
        assert!(Group::new(1).sum(0, false, fill).unwrap() == alone);
        for members in [2, 4] {
            for overlap in [true, false] {
                let group = Group::new(members);
                std::thread::scope(|scope| {
                    let all = (0..members).map(|rank| {
                        let group = &group;
                        scope.spawn(move || group.sum(rank, overlap, fill).unwrap())
                    });
                    for member in all.collect::<Vec<_>>() {
                        assert!(member.join().unwrap() == alone, "{members} members, overlap {overlap}");
                    }
                });
            }
        }
    }

    /// The next part is given when the update of the one before it is made: were one to wait for the other, it would never be.
    #[test]
    fn a_part_is_summed_and_updated_before_the_next_is_there() {
        for members in [1, 2] {
            let group = Group::new(members);
            let member = |rank: usize| {
                let parts = parts();
                let (parameters, moments) = (vec![1.0; parts.len()], Moments::zeros(parts.len()));
                let (buffers, device) = (NextBuffers::default(), Device::flex().autodiff());
                let beside = Some(Beside { parameters: &parameters, moments: &moments, buffers, device });
                let landing = Landing::new(unclipped(), &parts, Vec::new(), beside, Stopwatch::default());
                let updated = landing.updated();
                let fill = |slots: &mut Slots<'_>, mut own: Range<u32>| {
                    let last = own.next_back().unwrap();
                    fill(slots, own)?;
                    give_values(slots, last)?;
                    for part in 0..parts.buckets().len() {
                        while updated.load(Ordering::Acquire) < part {
                            std::thread::yield_now();
                        }
                        give_part(slots, part, last)?;
                    }
                    Ok(())
                };
                group.land(rank, true, landing, &parts, fill).unwrap();
                assert_eq!(updated.load(Ordering::Acquire), parts.buckets().len());
            };
            std::thread::scope(|scope| {
                let member = &member;
                for rank in 0..members {
                    scope.spawn(move || member(rank));
                }
            });
        }
    }

    #[test]
    fn an_abort_ends_all_parts_and_the_backward_pass() {
        let group = Group::new(2);
        // The other member never comes; its absence is not waited for.
        let result = group.sum(0, true, |slots, own| {
            fill(slots, own.clone())?;
            group.exchanges[0].abort(1, "a member is lost");
            // Whatever is given after the reducer heard of it is refused.
            loop {
                slots.give(|sums| match &sums.target {
                    Target::Peers(reducer) if reducer.is_closed() => Err(closed()),
                    _ => Ok(()),
                })?;
            }
        });
        let error = result.unwrap_err().to_string();
        assert!(error.contains("a member is lost"), "{error}");
    }

    #[test]
    fn an_error_of_the_computation_ends_the_parts_in_flight() {
        let group = Group::new(2);
        let result = group.sum(0, true, |slots, own| {
            fill(slots, own)?;
            Err(WorkerError::Protocol("the device is gone".into()))
        });
        assert!(result.unwrap_err().to_string().contains("the device is gone"));
    }

    #[test]
    fn an_error_while_sums_are_taken_up_is_the_reason_that_is_told() {
        for overlap in [true, false] {
            let result = Group::new(1).sum(0, overlap, |slots, own| {
                fill(slots, own.clone())?;
                // A slot more than there are.
                give_values(slots, own.end)
            });
            let error = result.unwrap_err().to_string();
            assert!(error.contains("a slot more"), "{error}");
        }
    }
}
