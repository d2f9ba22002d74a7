//! The sum of a step's gradient over all slots, part by part, on threads beside the one that computes.
//!
//! The computing thread gives each segment's gradient away as soon as the segment is differentiated, and goes
//! on with the one below. A *collecting* thread reads it from the device and adds up the member's own slots;
//! with the last of them a part is complete as soon as the backward pass has left the segments the part
//! belongs to. Where there are other members a *reducing* thread drives all parts in flight between them.
//! What arrives goes to the *landing* thread ([`Landing`]). All are joined before the step goes on; the first
//! error ends them all. Without overlap the computing thread does it all itself, but for the reduction, which
//! begins when the backward pass is over.

use std::sync::atomic::Ordering;
use std::sync::mpsc as threads;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use blip2_collective::CollectiveError;
use blip2_tensors::device::Queue;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::landing::{Item, Landed, Landing, closed};
use super::own_sums::{Finished, Lander, Message, OwnSum, OwnSums, SumPlan, Target};
use super::peers::Peers;
use super::slots::{Collector, Given, Slots, Way};
use super::times::{COLLECT, COMPUTE, Stopwatch};
use crate::error::{Result, WorkerError};

/// Segments whose gradients may wait on the device to be read: the computing thread waits when there are
/// more.
const SEGMENTS_AHEAD: usize = 4;

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

/// Starts a thread of a step.
pub(super) fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    let spawned = Builder::new().name(name.into()).spawn_scoped(scope, work);
    spawned.map_err(|error| WorkerError::Protocol(format!("the thread \"{name}\": {error}")))
}

pub(super) fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The error that says most: a channel is closed because something else has failed.
pub(super) fn first_error<const N: usize>(errors: [Option<WorkerError>; N]) -> Option<WorkerError> {
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
            let mut slots =
                Slots::new(Way::Here(Box::new(OwnSums::new(plan, target, watch.another(COMPUTE))?)));
            fill(&mut slots, watch)?;
            let Way::Here(sums) = slots.way else { return Err(closed()) };
            let finished = sums.finish()?;
            watch.take_in(finished.watch);
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
            let lander = spawn(scope, "land", move || Queue::Writes.during(|| land(landing, &arriving)))?;
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
            let sums = OwnSums::new(plan, target, watch.another(COLLECT))?;
            let collector = spawn(scope, "collect", move || Queue::Reads.during(|| collect(sums, &given)))?;
            let collecting = Collector { sender: giver, device: plan.device.clone() };
            let mut slots = Slots::new(Way::There(collecting));
            let filled = fill(&mut slots, watch);
            let early = updated.load(Ordering::Acquire);
            // Without an error all sums are on their way after this; with one the channel closes early, which
            // ends all.
            let filled = match (&slots.way, filled) {
                (Way::There(collector), Ok(())) => {
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
                    watch.take_in(own);
                    watch.take_in(landing);
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
