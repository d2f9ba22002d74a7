//! Gradients of rows of raw image features on their way home: from whoever used a row as a negative to who
//! holds it, where the image encoder goes on with them.
//!
//! Each use travels by itself, in float32, with the number of the row that used it before it. What a member
//! would add up before it sent it depended on which rows it holds, and the bits with it.

use blip2_collective::{CollectiveError, Received, World};
use blip2_model::objectives::contrast::NegativeGradient;
use blip2_tensors::device::cast::in_f32;
use blip2_tensors::device::read_back::all_bytes;
use burn::tensor::{Device, Tensor, TensorData};
use bytes::Bytes;

use super::peers::Peers;
use super::row_buffers::{OnHost, RowUse, numbered, numbered_bytes, outgoing_bytes, read_numbers, uses};
use super::times::Stopwatch;
use crate::error::{Result, WorkerError};

/// Names the exchange within its step.
const ROW_GRADIENTS: &str = "row gradients";

/// The uses of rows whose gradients members owe each other, by rank: rows that used another, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WayHome {
    /// Own rows that used another member's.
    owed: Vec<Vec<usize>>,
    /// Another member's rows that used one of these.
    due: Vec<Vec<usize>>,
    /// For each row of the global batch, the row that it used.
    used: Vec<usize>,
}

impl WayHome {
    /// `used` says for each row of the global batch, whose slots have `rows_per_slot` rows, the row whose
    /// features it used.
    ///
    /// # Errors
    /// A row in no member's slots.
    pub(crate) fn of(used: &[usize], world: &World, rows_per_slot: usize) -> Result<Self> {
        let none = vec![Vec::new(); world.members.len()];
        let mut way = Self { owed: none.clone(), due: none, used: used.to_vec() };
        for RowUse { row, user, owner, .. } in uses(used, world, rows_per_slot)? {
            match (user == world.rank, owner == world.rank) {
                (true, false) => way.owed[owner].push(row),
                (false, true) => way.due[user].push(row),
                _ => {}
            }
        }
        Ok(way)
    }

    /// Sends the gradients that are others', and returns those of the rows here, own uses among them.
    ///
    /// # Errors
    /// A use among these whose gradient is missing; a member that is lost, silent or sends something else, by
    /// name; a device that fails.
    pub(crate) fn exchange(
        self,
        peers: &Peers<'_>,
        found: Vec<NegativeGradient>,
        device: &Device,
        watch: &mut Stopwatch,
    ) -> Result<Vec<NegativeGradient>> {
        let away: Vec<usize> = self.owed.concat();
        let (leaving, mut here): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|gradient| away.contains(&gradient.text));
        let shape = leaving.first().or(here.first()).map(|gradient| gradient.gradient.dims());
        let Some([_, positions, width]) = shape else { return Ok(here) };
        let row_bytes = size_of::<f32>() * positions * width;
        let outgoing = self.outgoing(leaving, row_bytes, watch)?;
        let due: Vec<u64> = self.due.iter().map(|rows| numbered_bytes(rows.len(), row_bytes)).collect();
        watch.bytes.sent_rows += outgoing_bytes(&outgoing);
        let all =
            watch.time(|times| &mut times.exchange, || peers.all_to_all(ROW_GRADIENTS, &outgoing, &due))?;
        for ((member, buffer), rows) in peers.world.members.iter().zip(&all).zip(&self.due) {
            let arrived = self.arrived(peers.step, member.id, buffer, rows, ([positions, width], device))?;
            watch.bytes.copy_to_device((rows.len() * row_bytes) as u64);
            here.extend(arrived);
        }
        Ok(here)
    }

    /// What is pushed to each member: the rows' numbers, then the gradients from where they were read to.
    fn outgoing(
        &self,
        leaving: Vec<NegativeGradient>,
        row_bytes: usize,
        watch: &mut Stopwatch,
    ) -> Result<Vec<Vec<Bytes>>> {
        let rows: Vec<usize> = leaving.iter().map(|gradient| gradient.text).collect();
        let gradients = leaving.into_iter().map(|gradient| in_f32(gradient.gradient));
        let read = watch.time(|times| &mut times.to_host, || all_bytes(gradients))?;
        let read: Vec<Bytes> = read.into_iter().map(|bytes| Bytes::from_owner(OnHost(bytes))).collect();
        watch.bytes.to_host += read.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
        let of_row = |row: &usize| {
            let at = rows.iter().position(|found| found == row);
            let bytes = at.and_then(|at| read.get(at)).filter(|bytes| bytes.len() == row_bytes);
            let missing = || WorkerError::Protocol(format!("row {row} has no gradient of its negative"));
            bytes.cloned().ok_or_else(missing)
        };
        let buffer = |rows: &Vec<usize>| -> Result<Vec<Bytes>> {
            let values = rows.iter().map(of_row).collect::<Result<Vec<_>>>()?;
            Ok(numbered(rows, values.into_iter()))
        };
        self.owed.iter().map(buffer).collect()
    }

    /// The gradients that a member owed, which are those of `rows`.
    ///
    /// # Errors
    /// Other rows than those, by the sender's name.
    fn arrived(
        &self,
        step: u64,
        member: u32,
        buffer: &Received,
        rows: &[usize],
        ([positions, width], device): ([usize; 2], &Device),
    ) -> Result<Vec<NegativeGradient>> {
        let mut reader = buffer.reader();
        if let Some((sent, row)) = read_numbers(&mut reader, rows)? {
            let reason = format!(
                "the gradient of what row {sent} used, where row {row} used one of these: its batch or its \
                 similarities are others than here"
            );
            let tag = ROW_GRADIENTS.to_owned();
            return Err(CollectiveError::Unexpected { member, step, tag, reason }.into());
        }
        let mut gradient = |row: &usize| -> Result<NegativeGradient> {
            let mut values = vec![0.0f32; positions * width];
            reader.read(bytemuck::cast_slice_mut(&mut values))?;
            let gradient = Tensor::from_data(TensorData::new(values, [1, positions, width]), device);
            Ok(NegativeGradient { text: *row, image: self.used[*row], gradient })
        };
        rows.iter().map(&mut gradient).collect()
    }
}

#[cfg(test)]
mod tests {
    use blip2_collective::Member;
    use blip2_model::objectives::contrast::{add_negatives, negative_gradients};
    use blip2_tensors::device::read_back::floats;
    use burn::tensor::Int;

    use super::*;

    const ROWS: usize = 8;
    const SHAPE: [usize; 2] = [3, 4];

    fn world(rank: usize, members: u32) -> World {
        let slots = 4 / members;
        let member =
            |id: u32| Member { id: 10 + id, address: String::new(), slots: id * slots..(id + 1) * slots };
        World { epoch: 1, rank, members: (0..members).map(member).collect() }
    }

    /// What each row's negative got as a gradient, or what the row's own image did.
    fn wave(speed: f32) -> Tensor<3> {
        let count = (ROWS * SHAPE[0] * SHAPE[1]) as i64;
        let wave = Tensor::<1, Int>::arange(0..count, &Device::flex()).float() * speed;
        (wave.sin() * 1e3).reshape([ROWS, SHAPE[0], SHAPE[1]])
    }

    /// Slots of two rows.
    fn of_rows(first: usize, count: usize, used: &[usize]) -> Vec<NegativeGradient> {
        let gradient = wave(0.31).narrow(0, first, count);
        negative_gradients(first, &used[first..first + count], gradient).unwrap()
    }

    /// The bits of the gradients of all images with so many members.
    fn at_home(members: u32, used: &[usize]) -> Vec<u32> {
        let rows = ROWS / members as usize;
        let ways: Vec<WayHome> =
            (0..members as usize).map(|rank| WayHome::of(used, &world(rank, members), 2).unwrap()).collect();
        let (row_bytes, device) = (4 * SHAPE[0] * SHAPE[1], Device::flex());
        let mut here: Vec<Vec<NegativeGradient>> = Vec::new();
        let mut sent: Vec<Vec<Vec<Bytes>>> = Vec::new();
        for (rank, way) in ways.iter().enumerate() {
            let away = way.owed.concat();
            let (leaving, staying): (Vec<_>, Vec<_>) =
                of_rows(rank * rows, rows, used).into_iter().partition(|one| away.contains(&one.text));
            sent.push(way.outgoing(leaving, row_bytes, &mut Stopwatch::default()).unwrap());
            here.push(staying);
        }
        for (rank, way) in ways.iter().enumerate() {
            for (from, buffers) in sent.iter().enumerate().rev() {
                let buffer: Received = Bytes::from(buffers[rank].concat()).into();
                let to = (SHAPE, &device);
                here[rank].extend(way.arrived(0, 10 + from as u32, &buffer, &way.due[from], to).unwrap());
            }
        }
        let mut bits = Vec::new();
        for (rank, arrived) in here.into_iter().enumerate() {
            for first in (rank * rows..(rank + 1) * rows).step_by(2) {
                let own = |one: &&NegativeGradient| (first..first + 2).contains(&one.image);
                let of_slot = arrived.iter().filter(own).cloned().collect();
                let sums = add_negatives(wave(0.73).narrow(0, first, 2), first, of_slot).unwrap();
                bits.extend(floats(sums).unwrap().into_iter().map(f32::to_bits));
            }
        }
        bits
    }

    #[test]
    fn what_a_member_owes_is_what_the_others_are_due() {
        for seed in 0..50usize {
            let used: Vec<usize> =
                (0..ROWS).map(|row| (row * 7 + seed * 13 + row * row * seed) % ROWS).collect();
            for members in [2, 4] {
                let all: Vec<WayHome> = (0..members as usize)
                    .map(|rank| WayHome::of(&used, &world(rank, members), 2).unwrap())
                    .collect();
                for (debtor, owes) in all.iter().enumerate() {
                    for (owner, owed) in all.iter().enumerate() {
                        assert_eq!(owes.owed[owner], owed.due[debtor], "{used:?}");
                    }
                    assert!(owes.owed[debtor].is_empty() && owes.due[debtor].is_empty());
                }
            }
        }
    }

    #[test]
    fn an_image_s_gradient_has_the_same_bits_for_any_number_of_members() {
        for used in [[4, 4, 6, 2, 0, 5, 7, 0], [3, 3, 3, 1, 3, 3, 3, 3], [7, 6, 5, 4, 3, 2, 1, 0]] {
            let alone = at_home(1, &used);
            assert_eq!(alone.len(), ROWS * SHAPE[0] * SHAPE[1]);
            for members in [2, 4] {
                assert_eq!(at_home(members, &used), alone, "{members} members, {used:?}");
            }
        }
    }

    #[test]
    fn what_is_missing_or_of_another_row_is_refused() {
        let used = [4, 4, 6, 2, 0, 5, 7, 0];
        let way = WayHome::of(&used, &world(0, 2), 2).unwrap();
        assert_eq!(way.owed, [vec![], vec![0, 1, 2]]);
        let none = way.outgoing(Vec::new(), 48, &mut Stopwatch::default()).unwrap_err().to_string();
        assert!(none.contains("row 0 has no gradient"), "{none}");
        let other = WayHome { owed: vec![vec![5], vec![]], due: vec![vec![], vec![]], used: used.to_vec() };
        let sent = other.outgoing(of_rows(5, 1, &used), 48, &mut Stopwatch::default()).unwrap();
        let buffer: Received = Bytes::from(sent[0].concat()).into();
        let error = way.arrived(7, 11, &buffer, &way.due[1][..1], (SHAPE, &Device::flex())).unwrap_err();
        let WorkerError::Collective(error) = error else { panic!("{error}") };
        assert_eq!(error.suspects(), [11]);
        assert!(error.to_string().contains("row 5 used") && error.to_string().contains("row 4"), "{error}");
    }
}
