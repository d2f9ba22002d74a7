//! Rows of raw image features on their way: the members' first slots are computed with as soon as what they
//! need is here, while the rows of the next ones travel.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use burn::tensor::{Device, Tensor};

use super::feature_rows::{ArrivedRound, BorrowedRows, OwnFeatures, PackedRound, RowTraffic};
use super::landing::closed;
use super::peers::Peers;
use super::reduction::{joined, spawn};
use super::times::Stopwatch;
use crate::error::Result;

/// What rows are exchanged with and for.
pub(crate) struct RowLoans<'a> {
    pub(crate) peers: &'a Peers<'a>,
    pub(crate) device: &'a Device,
    /// The features of the own slots' rows.
    pub(crate) own: OwnFeatures,
    /// For each row of the global batch the row whose features it needs.
    pub(crate) needs: &'a [usize],
    /// Whether rows travel while slots are computed with.
    pub(crate) overlap: bool,
}

impl RowLoans<'_> {
    /// Does `work`, which is given for each of its slots the features that the slot's rows need. Own rows
    /// that others need are theirs when this returns.
    ///
    /// # Errors
    /// That of `work`; a member that is lost, silent or sends something else, by name; a device that fails.
    pub(crate) fn during<T>(
        self,
        watch: &mut Stopwatch,
        work: impl FnOnce(&mut ArrivingRows<'_>, &mut Stopwatch) -> Result<T>,
    ) -> Result<T> {
        let (_, rows_per_slot) = self.own.place();
        let traffic = RowTraffic::of(self.needs, self.peers.world, rows_per_slot)?;
        let rounds = traffic.packed(&self.own, watch)?;
        watch.bytes.sent_rows += rounds.iter().map(PackedRound::bytes).sum::<u64>();
        let later = rounds.iter().skip(1).any(|round| !round.is_empty());
        let (sender, arrived) = sync_channel(rounds.len());
        let peers = self.peers;
        let exchange = move || exchange(rounds, peers, &sender);
        if !(self.overlap && later) {
            watch.time(|times| &mut times.exchange, exchange);
            return ArrivingRows::new(&self, arrived).finished_after(watch, work);
        }
        std::thread::scope(|scope| {
            let thread = spawn(scope, "rows", exchange)?;
            let done = ArrivingRows::new(&self, arrived).finished_after(watch, work);
            joined(thread);
            done
        })
    }
}

/// Exchanges the rounds one after the other; ends with the first that fails, or when nobody waits for them.
fn exchange(rounds: Vec<PackedRound>, peers: &Peers<'_>, arrived: &SyncSender<Result<ArrivedRound>>) {
    for round in rounds {
        let exchanged = round.exchange(peers);
        let failed = exchanged.is_err();
        if arrived.send(exchanged).is_err() || failed {
            return;
        }
    }
}

/// The features that the rows of the own slots need, slot by slot.
pub(crate) struct ArrivingRows<'a> {
    loans: &'a RowLoans<'a>,
    rounds: Receiver<Result<ArrivedRound>>,
    borrowed: BorrowedRows,
    /// The next slot's place among the own ones.
    next: usize,
}

impl<'a> ArrivingRows<'a> {
    fn new(loans: &'a RowLoans<'a>, rounds: Receiver<Result<ArrivedRound>>) -> Self {
        Self { loans, rounds, borrowed: BorrowedRows::default(), next: 0 }
    }

    /// Of the next slot, `[b, P, Dv]`.
    ///
    /// # Errors
    /// A round that failed, and rows that did not come.
    pub(crate) fn of_next_slot(&mut self, watch: &mut Stopwatch) -> Result<Tensor<3>> {
        let RowLoans { peers, device, own, needs, .. } = self.loans;
        let arrived =
            watch.time(|times| &mut times.exchange, || self.rounds.recv().map_err(|_| closed()))??;
        self.borrowed.take_in(arrived, (own, peers, device), watch)?;
        let (first, rows_per_slot) = own.place();
        let first = first + self.next * rows_per_slot;
        self.next += 1;
        let rows = needs.get(first..first + rows_per_slot).unwrap_or_default();
        let rows = rows.iter().map(|row| self.borrowed.or_own(*row, own)).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(rows, 0))
    }

    /// What `work` comes to, once the rounds are over that only others need.
    fn finished_after<T>(
        mut self,
        watch: &mut Stopwatch,
        work: impl FnOnce(&mut Self, &mut Stopwatch) -> Result<T>,
    ) -> Result<T> {
        let done = work(&mut self, watch)?;
        watch
            .time(|times| &mut times.exchange, || self.rounds.iter().try_for_each(|round| round.map(drop)))?;
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::sum::test_members::TestMembers;

    const ROWS_PER_SLOT: usize = 2;
    /// Of eight rows in four slots; rows of both members of two need rows of the other, and one row twice.
    const NEEDS: [usize; 8] = [4, 1, 4, 6, 0, 3, 7, 1];

    /// The features of a row are its number.
    fn of_rows(rows: &[usize]) -> Tensor<3> {
        let numbers: Vec<f32> = rows.iter().flat_map(|row| [*row as f32; 6]).collect();
        Tensor::<1>::from_data(&numbers[..], &Device::flex()).reshape([rows.len(), 2, 3])
    }

    fn own(peers: &Peers<'_>) -> OwnFeatures {
        let slots = peers.world.own().unwrap().slots.clone();
        let rows = |slot: u32| [0, 1].map(|row| slot as usize * ROWS_PER_SLOT + row);
        OwnFeatures::new(rows(slots.start)[0], slots.map(|slot| of_rows(&rows(slot))).collect())
    }

    /// Whether the next slot of `arriving`, the one of this number, has the features that its rows need.
    fn is_right(arriving: &mut ArrivingRows<'_>, slot: u32) -> bool {
        let needs = &NEEDS[slot as usize * ROWS_PER_SLOT..][..ROWS_PER_SLOT];
        let found = arriving.of_next_slot(&mut Stopwatch::default()).unwrap();
        found.equal(of_rows(needs)).all().into_scalar::<bool>()
    }

    #[test]
    fn every_slot_gets_what_it_needs_whoever_holds_it() {
        for (members, overlap) in [(1, true), (2, true), (2, false), (3, true), (3, false), (4, true)] {
            let group = TestMembers::new(members, 4);
            let right = |rank: usize| {
                let (peers, device) = (group.peers(rank), Device::flex());
                let loans =
                    RowLoans { own: own(&peers), peers: &peers, device: &device, needs: &NEEDS, overlap };
                let mut slots = peers.world.own().unwrap().slots.clone();
                loans.during(&mut Stopwatch::default(), |arriving, _| {
                    Ok(slots.all(|slot| is_right(arriving, slot)))
                })
            };
            std::thread::scope(|scope| {
                let all: Vec<_> = (0..members).map(|rank| scope.spawn(move || right(rank))).collect();
                for (rank, one) in all.into_iter().enumerate() {
                    assert!(one.join().unwrap().unwrap(), "{members} members, {overlap}: {rank}");
                }
            });
        }
    }

    #[test]
    fn a_slot_is_there_while_what_the_next_one_needs_is_not() {
        let group = TestMembers::new(2, 4);
        let (computed, first_slot) = channel();
        std::thread::scope(|scope| {
            let (group, late) = (&group, scope);
            late.spawn(move || {
                let peers = group.peers(1);
                let traffic = RowTraffic::of(&NEEDS, peers.world, ROWS_PER_SLOT).unwrap();
                let rounds = traffic.packed(&own(&peers), &mut Stopwatch::default()).unwrap();
                for (number, round) in rounds.into_iter().enumerate() {
                    if number == 1 {
                        first_slot.recv().unwrap();
                    }
                    round.exchange(&peers).unwrap();
                }
            });
            let (peers, device) = (group.peers(0), Device::flex());
            let loans =
                RowLoans { own: own(&peers), peers: &peers, device: &device, needs: &NEEDS, overlap: true };
            let done = loans.during(&mut Stopwatch::default(), |arriving, _| {
                assert!(is_right(arriving, 0));
                computed.send(()).unwrap();
                assert!(is_right(arriving, 1));
                Ok(())
            });
            done.unwrap();
        });
    }

    #[test]
    fn a_round_that_fails_ends_the_work_and_a_work_that_fails_the_rounds() {
        for overlap in [true, false] {
            let group = TestMembers::new(2, 4);
            let (peers, device) = (group.peers(0), Device::flex());
            let loans =
                || RowLoans { own: own(&peers), peers: &peers, device: &device, needs: &NEEDS, overlap };
            group.exchanges[0].abort(1, "a member is lost");
            let failed =
                loans().during(&mut Stopwatch::default(), |arriving, watch| arriving.of_next_slot(watch));
            assert!(failed.unwrap_err().to_string().contains("a member is lost"));
            let failed = loans().during(&mut Stopwatch::default(), |_, _| -> Result<()> { Err(closed()) });
            assert_eq!(failed.unwrap_err().to_string(), closed().to_string());
        }
    }
}
