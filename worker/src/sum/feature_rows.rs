//! Rows of raw image features between members: who pushes which of them to whom, and when.
//!
//! Every member knows which row of the global batch needs whose features. So an owner pushes each member the
//! rows it needs, each once, without being asked, and who receives them knows which will come. They go in
//! rounds: in the first what the members' first slots need, then what their second ones need besides, and so
//! on. They travel in the numbers they were computed in, so that bf16 takes half the bytes and nothing is
//! rounded on the way.

use std::collections::BTreeSet;
use std::ops::Range;

use blip2_collective::{CollectiveError, Received, World};
use blip2_tensors::device::read_back::all_bytes;
use burn::tensor::{Device, Tensor, TensorData};
use bytes::Bytes;

use super::peers::Peers;
use super::row_buffers::{OnHost, RowUse, numbered, numbered_bytes, outgoing_bytes, read_numbers, uses};
use super::times::Stopwatch;
use crate::error::{Result, WorkerError};

/// Names the exchange within its step, with the round's number.
const ROWS: &str = "rows";

/// The rows that members need of each other, by round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowTraffic {
    rounds: Vec<Round>,
}

/// By rank, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Round {
    /// Own rows that another member needs.
    lent: Vec<Vec<usize>>,
    /// Rows of another member that are needed here.
    due: Vec<Vec<usize>>,
}

impl RowTraffic {
    /// `needs` says for each row of the global batch, whose slots have `rows_per_slot` rows, the row whose
    /// features it needs. There are as many rounds as the member with most slots has of them.
    ///
    /// # Errors
    /// A row in no member's slots.
    pub(super) fn of(needs: &[usize], world: &World, rows_per_slot: usize) -> Result<Self> {
        let none = vec![Vec::new(); world.members.len()];
        let mut rounds = vec![Round { lent: none.clone(), due: none }; world.most_slots()];
        let mut on_the_way = BTreeSet::new();
        for RowUse { needed, user, owner, round, .. } in uses(needs, world, rows_per_slot)? {
            if owner == user || !on_the_way.insert((user, needed)) {
                continue;
            }
            if owner == world.rank {
                rounds[round].lent[user].push(needed);
            }
            if user == world.rank {
                rounds[round].due[owner].push(needed);
            }
        }
        for rows in rounds.iter_mut().flat_map(|round| round.lent.iter_mut().chain(&mut round.due)) {
            rows.sort_unstable();
        }
        Ok(Self { rounds })
    }

    /// Own rows that anybody needs, each once.
    fn lent_rows(&self) -> Vec<usize> {
        let mut rows: Vec<usize> = self.rounds.iter().flat_map(|round| round.lent.concat()).collect();
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    /// The rounds as they are to be exchanged, one after the other: all rows of `own` that others need are
    /// read from the device, which is waited for once.
    ///
    /// # Errors
    /// A device that fails.
    pub(super) fn packed(self, own: &OwnFeatures, watch: &mut Stopwatch) -> Result<Vec<PackedRound>> {
        let rows = self.lent_rows();
        let read = watch.time(|times| &mut times.to_host, || own.read(&rows))?;
        watch.bytes.to_host += read.len() as u64;
        let row_bytes = own.row_bytes();
        let piece = |row: &usize| {
            // A member's rows are among those of all.
            let at = rows.binary_search(row).unwrap_or_default() * row_bytes;
            read.slice(at..at + row_bytes)
        };
        let pack = |(number, Round { lent, due }): (usize, Round)| PackedRound {
            number,
            outgoing: lent.iter().map(|rows| numbered(rows, rows.iter().map(piece))).collect(),
            due,
            row_bytes,
        };
        Ok(self.rounds.into_iter().enumerate().map(pack).collect())
    }
}

/// A round that can be exchanged.
#[derive(Debug)]
pub(super) struct PackedRound {
    number: usize,
    /// What is pushed to each member: the rows' numbers, then the rows from where they were read to.
    outgoing: Vec<Vec<Bytes>>,
    /// The rows that are due of each.
    due: Vec<Vec<usize>>,
    row_bytes: usize,
}

impl PackedRound {
    /// Bytes that are sent.
    pub(super) fn bytes(&self) -> u64 {
        outgoing_bytes(&self.outgoing)
    }

    /// Whether this member has nothing to send or to wait for.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes() == 0 && self.due.iter().all(Vec::is_empty)
    }

    /// Pushes what others need, and takes what is needed here.
    ///
    /// # Errors
    /// A member that is lost, silent or sends another number of bytes, by name.
    pub(super) fn exchange(self, peers: &Peers<'_>) -> Result<ArrivedRound> {
        if self.is_empty() {
            let buffers = self.due.iter().map(|_| Received::default()).collect();
            return Ok(ArrivedRound { rows: self.due, buffers });
        }
        let due: Vec<u64> = self.due.iter().map(|rows| numbered_bytes(rows.len(), self.row_bytes)).collect();
        let tag = format!("{ROWS} {}", self.number);
        let buffers = peers.all_to_all(&tag, &self.outgoing, &due)?;
        Ok(ArrivedRound { rows: self.due, buffers })
    }
}

/// What came in a round.
#[derive(Debug)]
pub(super) struct ArrivedRound {
    /// Of each member, by rank: the rows that should have come, and the buffer.
    rows: Vec<Vec<usize>>,
    buffers: Vec<Received>,
}

/// The features of the own slots' rows, where they were computed.
#[derive(Debug)]
pub(crate) struct OwnFeatures {
    first_row: usize,
    /// `[b, P, Dv]` each.
    slots: Vec<Tensor<3>>,
}

impl OwnFeatures {
    /// Of one slot or more, in their order; `first_row` is the first one's in the global batch.
    pub(crate) fn new(first_row: usize, slots: Vec<Tensor<3>>) -> Self {
        Self { first_row, slots }
    }

    /// The first row, and how many rows a slot has.
    pub(super) fn place(&self) -> (usize, usize) {
        (self.first_row, self.dims()[0])
    }

    fn dims(&self) -> [usize; 3] {
        self.slots.first().map_or([0; 3], Tensor::dims)
    }

    fn row_bytes(&self) -> usize {
        let [_, positions, width] = self.dims();
        self.slots.first().map_or(0, |slot| slot.dtype().size() * positions * width)
    }

    fn rows(&self) -> Range<usize> {
        self.first_row..self.first_row + self.dims()[0] * self.slots.len()
    }

    /// A row, `[1, P, Dv]`, if it is one of these.
    fn row(&self, row: usize) -> Option<Tensor<3>> {
        let per_slot = self.dims()[0];
        let at = self.rows().contains(&row).then(|| row - self.first_row)?;
        Some(self.slots.get(at / per_slot)?.clone().narrow(0, at % per_slot, 1))
    }

    /// The bytes of some rows one after the other; the device is waited for once.
    fn read(&self, rows: &[usize]) -> Result<Bytes> {
        if rows.is_empty() {
            return Ok(Bytes::new());
        }
        let row = |row: &usize| {
            self.row(*row).ok_or_else(|| WorkerError::Protocol(format!("row {row} is not held here")))
        };
        let rows = Tensor::cat(rows.iter().map(row).collect::<Result<Vec<_>>>()?, 0);
        let read = all_bytes([rows])?.into_iter().next();
        Ok(read.map_or_else(Bytes::new, |bytes| Bytes::from_owner(OnHost(bytes))))
    }
}

/// Features of other members' rows, as they came.
#[derive(Debug, Default)]
pub(super) struct BorrowedRows {
    /// Of each round that brought any: the rows' numbers, and `[rows, P, Dv]`.
    rounds: Vec<(Vec<usize>, Tensor<3>)>,
}

impl BorrowedRows {
    /// Brings what came in a round to the device.
    ///
    /// # Errors
    /// Other rows than those that should have come, by the sender's name.
    pub(super) fn take_in(
        &mut self,
        arrived: ArrivedRound,
        (own, peers, device): (&OwnFeatures, &Peers<'_>, &Device),
        watch: &mut Stopwatch,
    ) -> Result<()> {
        let ids = peers.world.members.iter().map(|member| member.id);
        let buffers: Vec<_> = ids.zip(&arrived.buffers).zip(&arrived.rows).collect();
        let joined = watch.time(|times| &mut times.exchange, || joined(peers.step, &buffers, own, device))?;
        if let Some(features) = joined {
            let rows = arrived.rows.concat();
            watch.bytes.copy_to_device((rows.len() * own.row_bytes()) as u64);
            self.rounds.push((rows, features));
        }
        Ok(())
    }

    /// A row, `[1, P, Dv]`, own or borrowed.
    ///
    /// # Errors
    /// It is neither.
    pub(super) fn or_own(&self, row: usize, own: &OwnFeatures) -> Result<Tensor<3>> {
        let borrowed = || {
            let found = |(rows, features): &(Vec<usize>, Tensor<3>)| {
                let at = rows.iter().position(|borrowed| *borrowed == row)?;
                Some(features.clone().narrow(0, at, 1))
            };
            self.rounds.iter().find_map(found)
        };
        own.row(row)
            .or_else(borrowed)
            .ok_or_else(|| WorkerError::Protocol(format!("the features of row {row} did not come")))
    }
}

/// Rows of all senders on the device; each buffer comes with its sender's id and the rows that it should
/// hold.
///
/// # Errors
/// Other rows than those, by the sender's name.
fn joined(
    step: u64,
    buffers: &[((u32, &Received), &Vec<usize>)],
    own: &OwnFeatures,
    device: &Device,
) -> Result<Option<Tensor<3>>> {
    let [_, positions, width] = own.dims();
    let count: usize = buffers.iter().map(|(_, rows)| rows.len()).sum();
    let Some(dtype) = own.slots.first().map(Tensor::dtype).filter(|_| count > 0) else { return Ok(None) };
    let mut features = vec![0; count * own.row_bytes()];
    let mut rest = &mut features[..];
    for ((member, buffer), rows) in buffers {
        let mut reader = buffer.reader();
        if let Some((sent, row)) = read_numbers(&mut reader, rows)? {
            let reason = format!(
                "the features of row {sent} where row {row} was drawn: its batch or its similarities are others \
                 than here"
            );
            let (member, tag) = (*member, ROWS.to_owned());
            return Err(CollectiveError::Unexpected { member, step, tag, reason }.into());
        }
        let (place, after) = rest.split_at_mut(rows.len() * own.row_bytes());
        reader.read(place)?;
        rest = after;
    }
    let data = TensorData::from_bytes_vec(features, [count, positions, width], dtype);
    Ok(Some(Tensor::from_data(data, (device, dtype))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use blip2_collective::Member;
    use burn::tensor::{DType, Int};

    const ROWS: usize = 8;

    fn features(dtype: DType) -> Tensor<3> {
        let values = Tensor::<1, Int>::arange(0..(ROWS * 3 * 4) as i64, &Device::flex()).float();
        (values * 0.37).sin().reshape([ROWS, 3, 4]).cast(dtype)
    }

    fn world(rank: usize, members: u32) -> World {
        let slots = 4 / members;
        let member =
            |id: u32| Member { id: 10 + id, address: String::new(), slots: id * slots..(id + 1) * slots };
        World { epoch: 1, rank, members: (0..members).map(member).collect() }
    }

    fn own(world: &World, dtype: DType) -> OwnFeatures {
        let slots = world.own().unwrap().slots.clone();
        let slot = |slot: u32| features(dtype).narrow(0, 2 * slot as usize, 2);
        OwnFeatures::new(2 * slots.start as usize, slots.map(slot).collect())
    }

    fn as_received(pieces: &[Bytes]) -> Received {
        Bytes::from(pieces.concat()).into()
    }

    /// What a member lends and is due in each round, by rank.
    fn rounds(needs: &[usize], world: &World) -> Vec<[Vec<Vec<usize>>; 2]> {
        let traffic = RowTraffic::of(needs, world, 2).unwrap();
        traffic.rounds.into_iter().map(|Round { lent, due }| [lent, due]).collect()
    }

    #[test]
    fn rows_go_to_who_needs_them_once_and_nowhere_else() {
        // Two members of two slots of two rows. The first one's first slot needs row 4 twice, its second one
        // rows 4 and 6; the second member's second slot needs row 0, and 1.
        let needs = [4, 4, 6, 4, 4, 5, 1, 0];
        let first = [
            [vec![vec![], vec![]], vec![vec![], vec![4]]],
            [vec![vec![], vec![0, 1]], vec![vec![], vec![6]]],
        ];
        assert_eq!(rounds(&needs, &world(0, 2)), first);
        let second = [
            [vec![vec![4], vec![]], vec![vec![], vec![]]],
            [vec![vec![6], vec![]], vec![vec![0, 1], vec![]]],
        ];
        assert_eq!(rounds(&needs, &world(1, 2)), second);
        let alone = rounds(&needs, &world(0, 1));
        assert!(alone.len() == 4 && alone.concat().concat().concat().is_empty(), "{alone:?}");
        let refused = |needs: &[usize]| RowTraffic::of(needs, &world(0, 2), 2).unwrap_err().to_string();
        assert!(refused(&[0; 10]).contains("slot 4"));
        assert!(refused(&[9; 8]).contains("row 9"));
    }

    #[test]
    fn members_of_different_numbers_of_slots_have_the_rounds_of_the_one_with_most() {
        let mut world = world(0, 2);
        (world.members[0].slots, world.members[1].slots) = (0..3, 3..4);
        let first = rounds(&[6, 1, 2, 7, 7, 6, 0, 2], &world);
        assert_eq!(
            first.iter().map(|[lent, _]| lent[1].clone()).collect::<Vec<_>>(),
            [vec![0, 2], vec![], vec![]]
        );
        assert_eq!(
            first.iter().map(|[_, due]| due[1].clone()).collect::<Vec<_>>(),
            [vec![6], vec![7], vec![]]
        );
    }

    #[test]
    fn what_a_member_lends_is_what_the_others_are_due_whatever_is_drawn() {
        for seed in 0..50usize {
            let needs: Vec<usize> =
                (0..ROWS).map(|row| (row * 7 + seed * 13 + row * row * seed) % ROWS).collect();
            for members in [2, 4] {
                let all: Vec<_> =
                    (0..members as usize).map(|rank| rounds(&needs, &world(rank, members))).collect();
                for (lender, lends) in all.iter().enumerate() {
                    for (user, uses) in all.iter().enumerate() {
                        for (lends, uses) in lends.iter().zip(uses) {
                            assert_eq!(lends[0][user], uses[1][lender], "{needs:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rows_arrive_as_they_were_in_as_many_bytes_as_they_need() {
        let (device, needs) = (Device::flex(), [4, 4, 6, 2, 0, 5, 7, 0]);
        for (dtype, bytes) in [(DType::F32, 4), (DType::BF16, 2)] {
            let [lender, user] = [1, 0].map(|rank| own(&world(rank, 2), dtype));
            let mut watch = Stopwatch::default();
            let lent = RowTraffic::of(&needs, &world(1, 2), 2).unwrap().packed(&lender, &mut watch).unwrap();
            let due = RowTraffic::of(&needs, &world(0, 2), 2).unwrap().packed(&user, &mut watch).unwrap();
            // Rows 4 and 6 leave the one, row 0 the other.
            assert_eq!(watch.bytes.to_host, 3 * 3 * 4 * bytes as u64);
            let mut borrowed = BorrowedRows::default();
            for (lent, due) in lent.into_iter().zip(due) {
                assert_eq!(lent.bytes(), 8 + 3 * 4 * bytes as u64);
                let received = as_received(&lent.outgoing[0]);
                let joined = joined(0, &[((11, &received), &due.due[1])], &user, &device).unwrap();
                borrowed.rounds.extend(joined.map(|features| (due.due.concat(), features)));
            }
            for row in [0, 3, 4, 6] {
                let found = borrowed.or_own(row, &user).unwrap().into_data();
                assert_eq!(found, features(dtype).narrow(0, row, 1).into_data(), "row {row}");
            }
            assert!(borrowed.or_own(5, &user).unwrap_err().to_string().contains("row 5"));
        }
    }

    /// bf16 values that travel in two bytes are those that travelled in four.
    #[test]
    fn half_the_bytes_are_the_same_numbers() {
        let narrow = features(DType::BF16);
        let sent = own(&world(0, 1), DType::BF16).read(&(0..ROWS).collect::<Vec<_>>()).unwrap();
        let data = TensorData::from_bytes_vec(sent.to_vec(), [ROWS, 3, 4], DType::BF16);
        let arrived = Tensor::<3>::from_data(data, (&Device::flex(), DType::BF16));
        assert_eq!(arrived.cast(DType::F32).into_data(), narrow.cast(DType::F32).into_data());
    }

    #[test]
    fn other_rows_than_were_drawn_are_refused_by_their_sender_s_name() {
        let user = own(&world(0, 2), DType::F32);
        let lender = own(&world(1, 2), DType::F32);
        let round = Round { lent: vec![vec![5], vec![]], due: vec![vec![], vec![]] };
        let packed = RowTraffic { rounds: vec![round] }.packed(&lender, &mut Stopwatch::default()).unwrap();
        let received = as_received(&packed[0].outgoing[0]);
        let error = joined(7, &[((11, &received), &vec![4])], &user, &Device::flex()).unwrap_err();
        let WorkerError::Collective(error) = error else { panic!("{error}") };
        assert_eq!(error.suspects(), [11]);
        let text = error.to_string();
        assert!(text.contains("rows of step 7") && text.contains("row 5 where row 4"), "{text}");
    }
}
