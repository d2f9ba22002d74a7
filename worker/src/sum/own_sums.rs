//! The sums over a member's own slots: part by part, each complete with the last of them, and where they go.

use std::ops::Range;
use std::sync::mpsc as threads;

use blip2_collective::{SumTree, TreeAccumulator, TreePartial};
use blip2_tensors::train::buckets::{BucketBuffers, GradientBuckets, SegmentGradients};
use burn::tensor::Device;
use tokio::sync::mpsc;

use super::landing::{Item, Landing, closed};
use super::times::Stopwatch;
use super::traffic::bytes_of;
use crate::error::{Result, WorkerError};

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
    pub(super) fn tag(self) -> String {
        match self {
            Self::Part(part) => format!("gradients/{part:03}"),
            Self::Values => "values".into(),
        }
    }

    pub(super) fn tree(self, plan: &SumPlan<'_>) -> Result<SumTree> {
        match self {
            Self::Part(_) => Ok(plan.tree),
            Self::Values => Ok(SumTree::new(plan.tree.slots())?),
        }
    }
}

/// An item summed over the own slots.
pub(super) type OwnSum = (Item, Vec<TreePartial>);

/// What the reducing thread is told; a channel that closes without the last message tells it to give up.
#[derive(Debug)]
pub(super) enum Message {
    Sum(OwnSum),
    ThatIsAll,
}

/// The way to the [`Landing`].
pub(super) enum Lander<'a> {
    Here(Box<Landing<'a>>),
    /// On its thread, which has room for all there is.
    There(threads::Sender<(Item, Vec<f32>)>),
}

impl Lander<'_> {
    pub(super) fn land(&mut self, item: Item, sum: Vec<f32>) -> Result<()> {
        match self {
            Self::Here(landing) => landing.land(item, sum),
            Self::There(landing) => landing.send((item, sum)).map_err(|_| closed()),
        }
    }
}

/// Where the own sums go.
pub(super) enum Target<'a> {
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
    pub(super) plan: &'a SumPlan<'a>,
    pub(super) target: Target<'a>,
    /// Of the slots that have begun to be differentiated, in their order.
    pub(super) buffers: Vec<BucketBuffers<'a>>,
    /// One for each part; `None` when it is complete.
    parts: Vec<Option<OpenSum>>,
    values: Option<OpenSum>,
    /// Of each slot.
    own_values: Vec<Vec<f32>>,
    /// Complete sums that wait for the end of the backward pass.
    held: Vec<OwnSum>,
    pub(super) watch: Stopwatch,
}

impl<'a> OwnSums<'a> {
    pub(super) fn new(plan: &'a SumPlan<'a>, target: Target<'a>, watch: Stopwatch) -> Result<Self> {
        let open = |item: Item| -> Result<Option<OpenSum>> {
            let sum = TreeAccumulator::new(&item.tree(plan)?, plan.slots.clone());
            Ok(Some(OpenSum { sum, slots_left: plan.slots.len() }))
        };
        let parts =
            (0..plan.parts.buckets().len()).map(|part| open(Item::Part(part))).collect::<Result<_>>()?;
        let (buffers, values) = (Vec::new(), open(Item::Values)?);
        Ok(Self { plan, target, buffers, parts, values, own_values: Vec::new(), held: Vec::new(), watch })
    }

    /// Reads what a segment gave the slot at `place` among the own ones from the device and adds it.
    pub(super) fn add_segment(&mut self, place: usize, gradients: SegmentGradients) -> Result<()> {
        let Some(buffers) = self.buffers.get_mut(place) else {
            return Err(WorkerError::Protocol(format!(
                "a gradient of own slot {place}, which has not begun"
            )));
        };
        let complete = self.watch.time(|times| &mut times.to_host, || buffers.read(gradients))?;
        complete.into_iter().try_for_each(|(part, values)| self.push_part(part, values))
    }

    /// Adds the next slot's values.
    pub(super) fn push_values(&mut self, values: Vec<f32>) -> Result<()> {
        self.own_values.push(values.clone());
        match push(&mut self.values, values)? {
            Some(partials) => self.complete((Item::Values, partials)),
            None => Ok(()),
        }
    }

    /// Adds the next slot's gradient of one part.
    pub(super) fn push_part(&mut self, part: usize, gradient: Vec<f32>) -> Result<()> {
        // Read tensor by tensor, then laid out as the bucket.
        self.watch.bytes.to_host += bytes_of(&gradient);
        self.watch.bytes.within_host += bytes_of(&gradient);
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
    pub(super) fn finish(self) -> Result<Finished<'a>> {
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
pub(super) struct Finished<'a> {
    /// Of a member that is alone.
    pub(super) lander: Option<Lander<'a>>,
    pub(super) own_values: Vec<Vec<f32>>,
    pub(super) watch: Stopwatch,
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
