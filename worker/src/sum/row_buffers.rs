//! What rows that travel between members have in common: whose each is, and the numbers that go before them.

use blip2_collective::{ReceivedReader, World};
use bytes::Bytes;

use crate::error::{Result, WorkerError};

/// A row's number goes before the values of all, so that a disagreement about which they are is noticed.
pub(super) type RowNumber = u64;

/// A row of the global batch that needs another's features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowUse {
    /// The row.
    pub(super) row: usize,
    /// The row whose features it needs.
    pub(super) needed: usize,
    /// The ranks of who holds the one and the other.
    pub(super) user: usize,
    pub(super) owner: usize,
    /// The place of the row's slot among its holder's.
    pub(super) round: usize,
}

/// The uses of rows, in the order of who uses them: `needs` says for each row of the global batch, whose
/// slots have `rows_per_slot` rows, the row whose features it needs.
///
/// # Errors
/// A row in no member's slots.
pub(super) fn uses(needs: &[usize], world: &World, rows_per_slot: usize) -> Result<Vec<RowUse>> {
    let holder = |row: usize| {
        let slot = (row / rows_per_slot.max(1)) as u32;
        let holders = world.members.iter().enumerate();
        let mut places = holders
            .filter_map(|(rank, member)| Some((rank, member.slots.clone().position(|own| own == slot)?)));
        places.next().ok_or_else(|| WorkerError::Protocol(format!("nobody holds slot {slot}")))
    };
    let holders = (0..needs.len()).map(holder).collect::<Result<Vec<_>>>()?;
    let of = |(row, ((user, round), needed)): (usize, (&(usize, usize), &usize))| -> Result<RowUse> {
        let (owner, _) = holders
            .get(*needed)
            .ok_or_else(|| WorkerError::Protocol(format!("row {needed} in a batch of {}", needs.len())))?;
        Ok(RowUse { row, needed: *needed, user: *user, owner: *owner, round: *round })
    };
    holders.iter().zip(needs).enumerate().map(of).collect()
}

/// A buffer of the rows' numbers and then of their values.
pub(super) fn numbered(rows: &[usize], values: impl Iterator<Item = Bytes>) -> Vec<Bytes> {
    let numbers = rows.iter().flat_map(|row| (*row as RowNumber).to_le_bytes()).collect::<Bytes>();
    let pieces = std::iter::once(numbers).chain(values);
    pieces.filter(|piece| !piece.is_empty()).collect()
}

/// The bytes of a buffer of `rows` rows, whose values have `row_bytes` each.
pub(super) fn numbered_bytes(rows: usize, row_bytes: usize) -> u64 {
    (rows * (size_of::<RowNumber>() + row_bytes)) as u64
}

/// The bytes of the pieces that go to all members.
pub(super) fn outgoing_bytes(outgoing: &[Vec<Bytes>]) -> u64 {
    outgoing.iter().flatten().map(|piece| piece.len() as u64).sum()
}

/// Reads the numbers before the values of `rows`: the first that is another, and the one that it should be.
///
/// # Errors
/// A buffer that is too short for them.
pub(super) fn read_numbers(
    reader: &mut ReceivedReader<'_>,
    rows: &[usize],
) -> Result<Option<(RowNumber, usize)>> {
    let mut odd = None;
    for row in rows {
        let mut number = [0; size_of::<RowNumber>()];
        reader.read(&mut number)?;
        let sent = RowNumber::from_le_bytes(number);
        if sent != *row as RowNumber && odd.is_none() {
            odd = Some((sent, *row));
        }
    }
    Ok(odd)
}

/// What was read from a device, sent from where it lies.
pub(super) struct OnHost(pub(super) burn::tensor::Bytes);

impl AsRef<[u8]> for OnHost {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
