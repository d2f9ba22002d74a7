//! The sum of a step's gradient over all slots, part by part, on threads beside the one that computes.
//!
//! The computing thread gives each segment's gradient away as soon as the segment is differentiated, and goes
//! on with the one below. A *collecting* thread reads it from the device and adds up the member's own slots;
//! with the last of them a part is complete as soon as the backward pass has left the segments the part
//! belongs to. Where there are other members a *reducing* thread drives all parts in flight between them.
//! What arrives goes to the *landing* thread ([`Landing`]). All are joined before the step goes on; the first
//! error ends them all. Without overlap the computing thread does it all itself, but for the reduction, which
//! begins when the backward pass is over.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::mpsc as threads;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use blip2_collective::{CollectiveError, SumTree, TreeAccumulator, TreePartial};
use blip2_tensors::error::TensorError;
use blip2_tensors::nn::tensors::NamedTensors;
use blip2_tensors::train::buckets::{BucketBuffers, GradientBuckets, SegmentGradients};
use blip2_tensors::train::tape::Tape;
use burn::tensor::{Device, Tensor};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::landing::{Item, Landed, Landing, closed};
use super::peers::Peers;
use super::times::Stopwatch;
use crate::error::{Result, WorkerError};

/// Segments whose gradients may wait on the device to be read: the computing thread waits when there are
/// more.
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
    /// Gives tensors away to be read. What is to produce them is launched before: a device that joins
    /// operations into kernels would else end the joining at whatever operation the other thread's read
    /// meets, so that kernels, and with them the last bits, differed from run to run.
    fn give(&self, job: Job<'a>) -> Result<()> {
        self.device.flush().map_err(|error| TensorError::Device(error.to_string()))?;
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
    /// The sums over all slots of what `fill` gives for the own ones, taken up by `landing`; `fill`'s times
    /// go to `watch`.
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
            // Without an error all sums are on their way after this; with one the channel closes early, which
            // ends all.
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
mod tests;
