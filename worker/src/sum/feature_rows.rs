//! Rows of raw image features between members.
//!
//! Every member knows which row of the global batch needs whose features. So an owner pushes each member the
//! rows it needs, each once, without being asked, and who receives them knows which will come. They travel in
//! the numbers they were computed in, so that bf16 takes half the bytes and nothing is rounded on the way.

use std::ops::Range;

use blip2_collective::{CollectiveError, Received, World};
use blip2_tensors::device::read_back::all_bytes;
use burn::tensor::{Device, Tensor, TensorData};
use bytes::Bytes;

use super::peers::Peers;
use super::row_buffers::{OnHost, RowNumber, RowUse, numbered, read_numbers, uses};
use super::times::Stopwatch;
use crate::error::{Result, WorkerError};

/// Names the exchange within its step.
const ROWS: &str = "rows";

/// The rows that members need of each other, by rank, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowTraffic {
    /// Own rows that another member needs.
    lent: Vec<Vec<usize>>,
    /// Rows of another member that are needed here.
    due: Vec<Vec<usize>>,
}

impl RowTraffic {
    /// `needs` says for each row of the global batch, whose slots have `rows_per_slot` rows, the row whose
    /// features it needs.
    ///
    /// # Errors
    /// A row in no member's slots.
    pub(crate) fn of(needs: &[usize], world: &World, rows_per_slot: usize) -> Result<Self> {
        let none = vec![Vec::new(); world.members.len()];
        let mut traffic = Self { lent: none.clone(), due: none };
        for RowUse { needed, user, owner, .. } in uses(needs, world, rows_per_slot)? {
            if owner == user {
                continue;
            }
            if owner == world.rank {
                traffic.lent[user].push(needed);
            }
            if user == world.rank {
                traffic.due[owner].push(needed);
            }
        }
        for rows in traffic.lent.iter_mut().chain(&mut traffic.due) {
            rows.sort_unstable();
            rows.dedup();
        }
        Ok(traffic)
    }

    /// Own rows that anybody needs, each once.
    fn lent_rows(&self) -> Vec<usize> {
        let mut rows = self.lent.concat();
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    /// Pushes the rows of `own` that others need, and takes those that are needed here.
    ///
    /// # Errors
    /// A member that is lost, silent or sends something else, by name; a device that fails.
    pub(crate) fn exchange(
        self,
        peers: &Peers<'_>,
        own: &OwnFeatures,
        device: &Device,
        watch: &mut Stopwatch,
    ) -> Result<BorrowedRows> {
        let row_bytes = own.row_bytes();
        let outgoing = self.outgoing(own, watch)?;
        let due: Vec<u64> =
            self.due.iter().map(|rows| (rows.len() * (size_of::<RowNumber>() + row_bytes)) as u64).collect();
        let before = peers.sent();
        let all = watch.time(|times| &mut times.exchange, || peers.all_to_all(ROWS, &outgoing, &due))?;
        watch.bytes.sent_rows += peers.sent() - before;
        let features = watch.time(
            |times| &mut times.exchange,
            || {
                let ids = peers.world.members.iter().map(|member| member.id);
                let buffers: Vec<_> = ids.zip(&all).zip(&self.due).collect();
                joined(peers.step, &buffers, own, device)
            },
        )?;
        let rows = self.due.concat();
        watch.bytes.copy_to_device((rows.len() * row_bytes) as u64);
        Ok(BorrowedRows { rows, features })
    }

    /// What is pushed to each member: the rows' numbers, then the rows from where they were read to.
    fn outgoing(&self, own: &OwnFeatures, watch: &mut Stopwatch) -> Result<Vec<Vec<Bytes>>> {
        let rows = self.lent_rows();
        let read = watch.time(|times| &mut times.to_host, || own.read(&rows))?;
        watch.bytes.to_host += read.len() as u64;
        let row_bytes = own.row_bytes();
        let piece = |row: &usize| {
            // A member's rows are among those of all.
            let at = rows.binary_search(row).unwrap_or_default() * row_bytes;
            read.slice(at..at + row_bytes)
        };
        Ok(self.lent.iter().map(|rows| numbered(rows, rows.iter().map(piece))).collect())
    }
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

/// Features of other members' rows.
#[derive(Debug)]
pub(crate) struct BorrowedRows {
    /// Their numbers, ascending.
    rows: Vec<usize>,
    /// `[rows, P, Dv]`, if there are any.
    features: Option<Tensor<3>>,
}

impl BorrowedRows {
    /// A row, `[1, P, Dv]`, own or borrowed.
    ///
    /// # Errors
    /// It is neither.
    pub(crate) fn or_own(&self, row: usize, own: &OwnFeatures) -> Result<Tensor<3>> {
        let borrowed = || {
            let at = self.rows.binary_search(&row).ok()?;
            Some(self.features.clone()?.narrow(0, at, 1))
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

    #[test]
    fn rows_go_to_who_needs_them_once_and_nowhere_else() {
        // Two members of four rows: rows 4 and 6 are needed by the first, twice the one; 0 by the second.
        let needs = [4, 4, 6, 2, 0, 5, 7, 0];
        let first = RowTraffic::of(&needs, &world(0, 2), 2).unwrap();
        assert_eq!((&first.lent, &first.due), (&vec![vec![], vec![0]], &vec![vec![], vec![4, 6]]));
        let second = RowTraffic::of(&needs, &world(1, 2), 2).unwrap();
        assert_eq!((&second.lent, &second.due), (&vec![vec![4, 6], vec![]], &vec![vec![0], vec![]]));
        let alone = RowTraffic::of(&needs, &world(0, 1), 2).unwrap();
        assert!(alone.lent_rows().is_empty() && alone.due.concat().is_empty());
        assert!(RowTraffic::of(&[0; 10], &world(0, 2), 2).unwrap_err().to_string().contains("slot 4"));
        assert!(RowTraffic::of(&[9; 8], &world(0, 2), 2).unwrap_err().to_string().contains("row 9"));
    }

    #[test]
    fn what_a_member_lends_is_what_the_others_are_due_whatever_is_drawn() {
        for seed in 0..50usize {
            let needs: Vec<usize> =
                (0..ROWS).map(|row| (row * 7 + seed * 13 + row * row * seed) % ROWS).collect();
            for members in [2, 4] {
                let all: Vec<RowTraffic> = (0..members as usize)
                    .map(|rank| RowTraffic::of(&needs, &world(rank, members), 2).unwrap())
                    .collect();
                for (lender, lends) in all.iter().enumerate() {
                    for (user, uses) in all.iter().enumerate() {
                        assert_eq!(lends.lent[user], uses.due[lender], "{needs:?}");
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
            let lent = RowTraffic::of(&needs, &world(1, 2), 2).unwrap();
            let mut watch = Stopwatch::default();
            let outgoing = lent.outgoing(&lender, &mut watch).unwrap();
            assert_eq!(outgoing[0].iter().map(Bytes::len).sum::<usize>(), 2 * (8 + 3 * 4 * bytes));
            assert_eq!((watch.bytes.to_host, outgoing[1].len()), (2 * 3 * 4 * bytes as u64, 0));
            let due = RowTraffic::of(&needs, &world(0, 2), 2).unwrap().due;
            let received = as_received(&outgoing[0]);
            let arrived = joined(0, &[((11, &received), &due[1])], &user, &device).unwrap();
            let borrowed = BorrowedRows { rows: due.concat(), features: arrived };
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
        let lent = RowTraffic { lent: vec![vec![5], vec![]], due: vec![vec![], vec![]] };
        let outgoing = lent.outgoing(&lender, &mut Stopwatch::default()).unwrap();
        let received = as_received(&outgoing[0]);
        let error = joined(7, &[((11, &received), &vec![4])], &user, &Device::flex()).unwrap_err();
        let WorkerError::Collective(error) = error else { panic!("{error}") };
        assert_eq!(error.suspects(), [11]);
        let text = error.to_string();
        assert!(text.contains("rows of step 7") && text.contains("row 5 where row 4"), "{text}");
    }
}
