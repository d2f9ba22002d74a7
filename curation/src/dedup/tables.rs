//! Hashes that share 28 bits, compared in full.

use std::io;

/// Tables: one of 4 blocks of 16 bits, and one of 4 blocks of the other 48.
pub(super) const TABLES: u32 = 16;
/// Different hashes of one key that each is compared with: a flood of them costs no more than this.
const MOST_COMPARED: usize = 4096;

/// The 28 bits of a table: those of its two blocks.
pub(super) fn key(hash: u64, table: u32) -> u64 {
    let (outer, inner) = (16 * (table / 4), 12 * (table % 4));
    // The chosen block comes to the end, the others follow in a circle.
    let turned = hash.rotate_right(outer);
    let (block, others) = (turned & 0xffff, turned >> 16);
    (block << 12) | ((others >> inner) & 0xfff)
}

/// Gives every near pair of one table's records (key, hash, place in two words, ascending) to `found`: the
/// later place, distance plus one, and the earlier place. Of equal hashes all are paired with their first
/// alone.
pub(super) fn pairs_of_table(
    sorted: impl Iterator<Item = io::Result<[u64; 4]>>,
    most_bits: u32,
    mut found: impl FnMut([u64; 5]) -> io::Result<()>,
) -> io::Result<()> {
    let mut key = None;
    // The different hashes of the key, with their first places.
    let mut seen: Vec<[u64; 3]> = Vec::new();
    for record in sorted {
        let [now, hash, high, low] = record?;
        if key.replace(now) != Some(now) {
            seen.clear();
        }
        if let Some([_, first_high, first_low]) = seen.last().filter(|last| last[0] == hash) {
            found([high, low, 1, *first_high, *first_low])?;
            continue;
        }
        for [other, other_high, other_low] in seen.iter().rev().take(MOST_COMPARED) {
            let bits = (hash ^ other).count_ones();
            if bits > most_bits {
                continue;
            }
            let (here, there) = ([high, low], [*other_high, *other_low]);
            let (later, earlier) = if here > there { (here, there) } else { (there, here) };
            found([later[0], later[1], u64::from(bits) + 1, earlier[0], earlier[1]])?;
        }
        seen.push([hash, high, low]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However three bits differ, one table does not see it.
    #[test]
    fn some_table_brings_every_near_pair_together() {
        let hash = 0x0123_4567_89ab_cdef_u64;
        for a in 0..64 {
            for b in a..64 {
                for c in b..64 {
                    // Bits that are named twice are flipped once.
                    let other = hash ^ ((1 << a) | (1 << b) | (1 << c));
                    assert!((0..TABLES).any(|table| key(hash, table) == key(other, table)), "{a} {b} {c}");
                }
            }
        }
        assert!((0..TABLES).all(|table| key(u64::MAX, table) == (1 << 28) - 1));
    }
}
