//! Which samples were used with which rows: a sum of digests that does not depend on the order.

use std::iter::Sum;
use std::ops::{Add, AddAssign};

/// Domain separator: with the fields behind it one block of BLAKE3, which is what an audit's time goes into.
const CONTEXT: &[u8; 17] = b"blip2 coverage v1";

/// A number of samples and the sum of their digests modulo 2^128.
///
/// Two sets of (stage, sample, row) have the same coverage only if they are the same: a sample that is
/// missing, doubled or was used with another row changes the digest.
///
/// ```
/// use blip2_dataset::coverage::Coverage;
/// let (a, b) = (Coverage::of(1, 7, (0, 2, 31)), Coverage::of(1, 8, (3, 0, 5)));
/// assert_eq!(a + b, b + a);
/// assert_eq!((a + b).samples, 2);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Samples used.
    pub samples: u64,
    /// Sum of their digests.
    pub digest: u128,
}

impl Coverage {
    /// That of one sample (its global index within the stage) and the row it really used: index of the file
    /// in the manifest, row group, row.
    pub fn of(stage: u32, sample: u64, (file, row_group, row): (u32, u32, u32)) -> Self {
        let mut fields = [0; CONTEXT.len() + 24];
        fields[..17].copy_from_slice(CONTEXT);
        fields[17..21].copy_from_slice(&stage.to_le_bytes());
        fields[21..29].copy_from_slice(&sample.to_le_bytes());
        fields[29..33].copy_from_slice(&file.to_le_bytes());
        fields[33..37].copy_from_slice(&row_group.to_le_bytes());
        fields[37..41].copy_from_slice(&row.to_le_bytes());
        let hash = blake3::hash(&fields);
        let mut low = [0; 16];
        low.copy_from_slice(&hash.as_bytes()[..16]);
        Self { samples: 1, digest: u128::from_le_bytes(low) }
    }

    /// This without `other`, which must be in it.
    pub(crate) fn without(self, other: Self) -> Self {
        Self {
            samples: self.samples.wrapping_sub(other.samples),
            digest: self.digest.wrapping_sub(other.digest),
        }
    }
}

impl AddAssign for Coverage {
    fn add_assign(&mut self, other: Self) {
        self.samples = self.samples.wrapping_add(other.samples);
        self.digest = self.digest.wrapping_add(other.digest);
    }
}

impl Add for Coverage {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl Sum for Coverage {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Sample = (u32, u64, (u32, u32, u32));

    fn some() -> Vec<Sample> {
        (0..40).map(|i| (1, u64::from(i), (i % 3, i / 7, 2 * i))).collect()
    }

    fn total<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> Coverage {
        samples.into_iter().map(|(stage, sample, row)| Coverage::of(*stage, *sample, *row)).sum()
    }

    #[test]
    fn the_order_does_not_matter_and_every_change_does() {
        let base = some();
        let wanted = total(&base);
        assert_eq!(total(base.iter().rev()), wanted);
        let mut parts = total(&base[20..]);
        parts += total(&base[..20]);
        assert_eq!(parts, wanted);

        let changed = |change: fn(&mut Vec<Sample>)| {
            let mut samples = some();
            change(&mut samples);
            total(&samples).digest
        };
        for digest in [
            changed(|samples| samples.truncate(39)),
            changed(|samples| samples.push(samples[3])),
            changed(|samples| samples[5] = samples[4]),
            changed(|samples| samples[5].0 = 2),
            changed(|samples| samples[5].1 += 1000),
            changed(|samples| samples[5].2.0 += 1),
            changed(|samples| samples[5].2.1 += 1),
            changed(|samples| samples[5].2.2 += 1),
            changed(|samples| {
                // The same samples and the same rows, two of them exchanged.
                let row = samples[5].2;
                samples[5].2 = samples[6].2;
                samples[6].2 = row;
            }),
        ] {
            assert_ne!(digest, wanted.digest);
        }
    }

    /// Pins the construction: COMMIT objects carry these numbers.
    #[test]
    fn the_digest_is_pinned() {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"blip2 coverage v1").update(&[2, 0, 0, 0]).update(&[3, 1, 0, 0, 0, 0, 0, 0]);
        hasher.update(&[4, 0, 0, 0]).update(&[5, 0, 0, 0]).update(&[6, 0, 0, 0]);
        let mut low = [0; 16];
        low.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        let found = Coverage::of(2, 259, (4, 5, 6));
        assert_eq!(found, Coverage { samples: 1, digest: u128::from_le_bytes(low) });
        assert_eq!((found + found).without(found), found);
    }
}
