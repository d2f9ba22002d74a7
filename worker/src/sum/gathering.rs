//! Buffers that all members give to all in rounds, while the next ones are computed.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use blip2_collective::Received;
use bytes::Bytes;

use super::landing::closed;
use super::peers::Peers;
use super::reduction::{first_error, joined, spawn};
use super::times::Stopwatch;
use crate::error::Result;

/// Takes this member's buffers, in the order of the rounds.
pub(crate) struct Giver {
    buffers: SyncSender<Bytes>,
    given: usize,
}

impl Giver {
    /// Gives all members the next buffer.
    ///
    /// # Errors
    /// The gathering is over, because it failed.
    pub(crate) fn give(&mut self, buffer: Bytes) -> Result<()> {
        self.given += 1;
        self.buffers.send(buffer).map_err(|_| closed())
    }
}

impl Peers<'_> {
    /// Does `work`, which gives a buffer as soon as it has one, and gathers those of all members meanwhile:
    /// of each by its rank, one for each of `rounds`, empty where a member gave fewer.
    ///
    /// # Errors
    /// That of `work`; a member that is lost or silent, by name.
    pub(crate) fn gather_beside<T>(
        &self,
        tag: &str,
        rounds: usize,
        watch: &mut Stopwatch,
        work: impl FnOnce(&mut Giver, &mut Stopwatch) -> Result<T>,
    ) -> Result<(T, Vec<Vec<Received>>)> {
        let (buffers, given) = sync_channel(rounds);
        std::thread::scope(|scope| {
            let thread = spawn(scope, "gather", move || self.gather_rounds(tag, rounds, &given))?;
            let mut giver = Giver { buffers, given: 0 };
            let done = work(&mut giver, watch);
            if done.is_ok() {
                // Others have more to give. Where the gathering has failed it says so below.
                (giver.given..rounds).try_for_each(|_| giver.buffers.send(Bytes::new())).unwrap_or_default();
            }
            drop(giver);
            match (done, watch.time(|times| &mut times.exchange, || joined(thread))) {
                (Ok(done), Ok(gathered)) => Ok((done, gathered)),
                (done, gathered) => Err(first_error([done.err(), gathered.err()]).unwrap_or_else(closed)),
            }
        })
    }

    fn gather_rounds(&self, tag: &str, rounds: usize, given: &Receiver<Bytes>) -> Result<Vec<Vec<Received>>> {
        let mut all: Vec<Vec<Received>> = self.world.members.iter().map(|_| Vec::new()).collect();
        for round in 0..rounds {
            let own = given.recv().map_err(|_| closed())?;
            for (member, buffer) in all.iter_mut().zip(self.all_gather(&format!("{tag} {round}"), own)?) {
                member.push(buffer);
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::error::WorkerError;
    use crate::sum::test_members::TestMembers;

    fn bytes(gathered: &[Vec<Received>]) -> Vec<Vec<Vec<u8>>> {
        let read = |buffer: &Received| {
            let mut bytes = vec![0; buffer.len()];
            buffer.reader().read(&mut bytes).unwrap();
            bytes
        };
        gathered.iter().map(|rounds| rounds.iter().map(read).collect()).collect()
    }

    #[test]
    fn all_get_what_each_gave_in_its_rounds() {
        // Slots 0 and 1, 2, 3.
        let group = TestMembers::new(3, 4);
        let gather = |rank: usize| {
            let peers = group.peers(rank);
            let slots = peers.world.own().unwrap().slots.clone();
            let rounds = peers.world.most_slots();
            let give = |giver: &mut Giver, _: &mut Stopwatch| {
                slots.clone().try_for_each(|slot| giver.give(Bytes::from(vec![slot as u8; 3])))
            };
            bytes(&peers.gather_beside("slots", rounds, &mut Stopwatch::default(), give).unwrap().1)
        };
        let expected = [[vec![0; 3], vec![1; 3]], [vec![2; 3], vec![]], [vec![3; 3], vec![]]];
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..3).map(|rank| scope.spawn(move || gather(rank))).collect();
            all.into_iter().for_each(|one| assert_eq!(one.join().unwrap(), expected));
        });
    }

    #[test]
    fn a_buffer_is_with_the_others_before_the_next_one_is_given() {
        let group = TestMembers::new(2, 4);
        let (arrived, first) = channel();
        std::thread::scope(|scope| {
            let group = &group;
            scope.spawn(move || {
                let gather =
                    |round| group.peers(1).all_gather(&format!("slots {round}"), Bytes::new()).unwrap();
                gather(0);
                arrived.send(()).unwrap();
                gather(1);
            });
            let give = |giver: &mut Giver, _: &mut Stopwatch| {
                giver.give(Bytes::from_static(b"first"))?;
                first.recv().unwrap();
                giver.give(Bytes::from_static(b"second"))
            };
            group.peers(0).gather_beside("slots", 2, &mut Stopwatch::default(), give).unwrap();
        });
    }

    #[test]
    fn what_fails_first_is_told_and_ends_the_other() {
        let group = TestMembers::new(2, 4);
        let watch = &mut Stopwatch::default();
        group.exchanges[0].abort(1, "a member is lost");
        let give = |giver: &mut Giver, _: &mut Stopwatch| (0..9).try_for_each(|_| giver.give(Bytes::new()));
        let failed = group.peers(0).gather_beside("slots", 2, watch, give).unwrap_err();
        assert!(failed.to_string().contains("a member is lost"), "{failed}");
        let odd =
            |_: &mut Giver, _: &mut Stopwatch| -> Result<()> { Err(WorkerError::Protocol("odd".into())) };
        let failed = TestMembers::new(2, 4).peers(0).gather_beside("slots", 2, watch, odd).unwrap_err();
        assert!(failed.to_string().contains("odd"), "{failed}");
    }
}
