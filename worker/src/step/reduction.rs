//! The sum of a step's gradient over all slots, part by part.
//!
//! A member adds up its own slots. With the last of them a part is complete as soon as the backward pass has left
//! the segments the part belongs to; it then travels while the segments below are differentiated. One thread, joined
//! before the step goes on, drives all parts in flight; the first error ends them all.

use std::ops::Range;

use blip2_collective::{CollectiveError, SumTree, TreeAccumulator, TreePartial};
use blip2_model::parts::{GradientParts, PartBuffers};
use blip2_model::tape::Tape;
use burn::tensor::Tensor;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::Members;
use super::times::{StepTimes, timed};
use crate::error::{Result, WorkerError};
use crate::state::TrainState;

/// What is summed, and how.
pub(super) struct SumPlan<'a> {
    pub(super) parts: &'a GradientParts,
    /// For the gradient.
    pub(super) tree: SumTree,
    /// This member's slots.
    pub(super) slots: Range<u32>,
    /// Whether parts travel before the backward pass is over.
    pub(super) overlap: bool,
}

/// Sums over all slots, equal on every member.
#[derive(Debug, PartialEq)]
pub(super) struct Summed {
    /// In the state's layout.
    pub(super) gradients: Vec<f32>,
    /// What the slots gave besides, always summed in float32.
    pub(super) values: Vec<f32>,
}

impl Summed {
    /// Takes any buffer for the gradients, all of which the parts will overwrite.
    fn empty(plan: &SumPlan<'_>, mut buffer: Vec<f32>) -> Self {
        buffer.resize(plan.parts.len(), 0.0);
        Self { gradients: buffer, values: Vec::new() }
    }

    fn place(&mut self, plan: &SumPlan<'_>, what: Item, sum: Vec<f32>) {
        match what {
            Item::Part(part) => plan.parts.parts()[part].copy_into(&sum, &mut self.gradients),
            Item::Values => self.values = sum,
        }
    }
}

/// One thing that is summed by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    Part(usize),
    Values,
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

/// Where the own sums go.
enum Target<'a> {
    /// A member that holds all slots has the sum.
    Alone(&'a mut Summed),
    Peers(mpsc::Sender<Message>),
}

/// An item while the own slots come in.
struct OpenSum {
    sum: TreeAccumulator,
    slots_left: usize,
}

/// Adds up a member's own slots, in slot order.
pub(super) struct OwnSums<'a> {
    plan: &'a SumPlan<'a>,
    target: Target<'a>,
    /// One for each part; `None` when it is complete.
    parts: Vec<Option<OpenSum>>,
    values: Option<OpenSum>,
    /// Complete sums that wait for the end of the backward pass.
    held: Vec<OwnSum>,
}

impl<'a> OwnSums<'a> {
    fn new(plan: &'a SumPlan<'a>, target: Target<'a>) -> Result<Self> {
        let open = |item: Item| -> Result<Option<OpenSum>> {
            let sum = TreeAccumulator::new(&item.tree(plan)?, plan.slots.clone());
            Ok(Some(OpenSum { sum, slots_left: plan.slots.len() }))
        };
        let parts =
            (0..plan.parts.parts().len()).map(|part| open(Item::Part(part))).collect::<Result<_>>()?;
        Ok(Self { plan, target, parts, values: open(Item::Values)?, held: Vec::new() })
    }

    /// Differentiates the next slot's objective and adds its gradient, segment by segment.
    pub(super) fn backward(
        &mut self,
        state: &mut TrainState,
        tape: Tape,
        objective: Tensor<1>,
    ) -> Result<()> {
        let mut buffers: PartBuffers<'_> = self.plan.parts.buffers();
        tape.backward(objective, |segment, gradients| {
            for (part, values) in state.take_gradients(&mut buffers, gradients, segment)? {
                self.push_part(part, values)?;
            }
            Ok(())
        })
    }

    /// Adds the next slot's values.
    pub(super) fn push_values(&mut self, values: Vec<f32>) -> Result<()> {
        match push(&mut self.values, values)? {
            Some(partials) => self.complete((Item::Values, partials)),
            None => Ok(()),
        }
    }

    /// Adds the next slot's gradient of one part.
    fn push_part(&mut self, part: usize, gradient: Vec<f32>) -> Result<()> {
        match push(&mut self.parts[part], gradient)? {
            Some(partials) => self.complete((Item::Part(part), partials)),
            None => Ok(()),
        }
    }

    fn complete(&mut self, (item, mut partials): OwnSum) -> Result<()> {
        match &mut self.target {
            Target::Alone(summed) => match (partials.pop(), partials.is_empty()) {
                (Some(root), true) => {
                    summed.place(self.plan, item, root.data);
                    Ok(())
                }
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
    fn finish(self) -> Result<()> {
        match self.target {
            Target::Alone(_) => Ok(()),
            Target::Peers(reducer) => {
                self.held.into_iter().try_for_each(|sum| send(&reducer, Message::Sum(sum)))?;
                send(&reducer, Message::ThatIsAll)
            }
        }
    }
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
    reducer.try_send(message).map_err(|_| WorkerError::Collective(CollectiveError::Closed))
}

impl Members<'_> {
    /// The sums over all slots of what `fill` adds for the own ones, whose times go to `times`; the gradients are in
    /// `buffer`, whatever it held.
    ///
    /// # Errors
    /// That of `fill`, or the first of a reduction; nothing is in flight when this returns.
    pub(super) fn sum(
        &self,
        plan: &SumPlan<'_>,
        buffer: Vec<f32>,
        times: &mut StepTimes,
        fill: impl FnOnce(&mut OwnSums<'_>, &mut StepTimes) -> Result<()>,
    ) -> Result<Summed> {
        if self.world.members.len() == 1 {
            let mut summed = Summed::empty(plan, buffer);
            let mut sums = OwnSums::new(plan, Target::Alone(&mut summed))?;
            fill(&mut sums, times)?;
            sums.finish()?;
            return Ok(summed);
        }
        // Every part, the values, and the end.
        let (sender, receiver) = mpsc::channel(plan.parts.parts().len() + 2);
        let mut sums = OwnSums::new(plan, Target::Peers(sender))?;
        std::thread::scope(|scope| {
            let reducer = std::thread::Builder::new()
                .name("reduce".into())
                .spawn_scoped(scope, || self.runtime.block_on(self.reduce(plan, buffer, receiver)))
                .map_err(|error| WorkerError::Protocol(format!("the reducing thread: {error}")))?;
            // Without an error all sums are on their way after this; with one the channel closes early, which ends
            // the reductions.
            let filled = fill(&mut sums, times).and_then(|()| sums.finish());
            let reduced = timed(&mut times.exchange, || reducer.join());
            let reduced = reduced.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            match (filled, reduced) {
                (Ok(()), reduced) => reduced,
                // The channel was closed by the reductions: their error is the reason.
                (Err(WorkerError::Collective(CollectiveError::Closed)), Err(error)) => Err(error),
                (Err(error), _) => Err(error),
            }
        })
    }

    /// Sums over all members what arrives, all of it at a time.
    async fn reduce(
        &self,
        plan: &SumPlan<'_>,
        buffer: Vec<f32>,
        mut arriving: mpsc::Receiver<Message>,
    ) -> Result<Summed> {
        let mut summed = Summed::empty(plan, buffer);
        let mut running = FuturesUnordered::new();
        let mut more = true;
        loop {
            tokio::select! {
                biased;
                message = arriving.recv(), if more => match message {
                    Some(Message::Sum(own)) => running.push(self.reduce_one(plan, own)),
                    Some(Message::ThatIsAll) => more = false,
                    None => return Err(CollectiveError::Closed.into()),
                },
                Some(done) = running.next() => {
                    let (item, sum): (Item, Vec<f32>) = done?;
                    summed.place(plan, item, sum);
                }
                else => return Ok(summed),
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
    use std::time::{Duration, Instant};

    use blip2_collective::{Exchange, Limits, Member, Transport, World, deal_slots};
    use blip2_model::tensors::FlatLayout;

    use super::*;

    const SLOTS: u32 = 8;

    fn parts() -> GradientParts {
        let layer = |index: usize| format!("Qformer.bert.encoder.layer.{index}.weight");
        let mut shapes: Vec<(String, Vec<usize>)> = (0..3).map(|index| (layer(index), vec![700])).collect();
        shapes.push(("query_tokens".into(), vec![33]));
        shapes.push(("temp".into(), vec![1]));
        GradientParts::of(&FlatLayout::new(shapes), 1)
    }

    fn value(slot: u32, element: usize) -> f32 {
        let hash = (element as u32 ^ (slot << 20)).wrapping_mul(0x9E37_79B9);
        (hash >> 8) as f32 * 10f32.powi((hash % 7) as i32 - 3)
    }

    /// Gives every own slot's gradient and values.
    fn fill(sums: &mut OwnSums<'_>) -> Result<()> {
        for slot in sums.plan.slots.clone() {
            sums.push_values(vec![value(slot, 1), slot as f32])?;
            for (part, spec) in sums.plan.parts.parts().iter().enumerate() {
                let elements = spec.ranges.iter().cloned().flatten();
                sums.push_part(part, elements.map(|element| value(slot, element)).collect())?;
            }
        }
        Ok(())
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
            fill: impl FnOnce(&mut OwnSums<'_>) -> Result<()>,
        ) -> Result<Summed> {
            let world = World { epoch: 1, rank, members: self.world.clone() };
            let members = Members {
                exchange: &self.exchanges[rank],
                runtime: self.runtime.handle(),
                world: &world,
                step: 0,
                deadline: Duration::from_secs(60),
            };
            let parts = parts();
            let tree = SumTree::new(SLOTS).unwrap();
            let plan = SumPlan { parts: &parts, tree, slots: self.world[rank].slots.clone(), overlap };
            members.sum(&plan, vec![f32::NAN; 7], &mut StepTimes::default(), |sums, _| fill(sums))
        }
    }

    #[test]
    fn neither_the_members_nor_the_overlap_change_a_bit() {
        let alone = Group::new(1).sum(0, true, fill).unwrap();
        assert_eq!(alone.gradients.len(), 2134);
        assert_eq!(alone.values[1], 28.0);
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

    #[test]
    fn an_abort_ends_all_parts_and_the_backward_pass() {
        let group = Group::new(2);
        let started = Instant::now();
        // The other member never comes; its absence is not waited for.
        let result = group.sum(0, true, |sums| {
            fill(sums)?;
            group.exchanges[0].abort(1, "a member is lost");
            let reducer = match &sums.target {
                Target::Peers(reducer) => reducer.clone(),
                Target::Alone(_) => unreachable!("two members"),
            };
            group.runtime.block_on(reducer.closed());
            send(&reducer, Message::ThatIsAll)
        });
        let error = result.unwrap_err().to_string();
        assert!(error.contains("a member is lost"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn an_error_of_the_computation_ends_the_parts_in_flight() {
        let group = Group::new(2);
        let started = Instant::now();
        let result = group.sum(0, true, |sums| {
            fill(sums)?;
            Err(WorkerError::Protocol("the device is gone".into()))
        });
        assert!(result.unwrap_err().to_string().contains("the device is gone"));
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}
