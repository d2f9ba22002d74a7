//! How numbers travel.

use bytes::{BufMut, Bytes, BytesMut};
use half::bf16;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(target_endian = "big")]
compile_error!("buffers travel as little-endian f32 and are viewed in place");

/// The format in which the sums of a [`crate::SumTree`] travel, and to which each of them is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Wire {
    /// Four bytes a number; nothing is rounded.
    #[default]
    F32,
    /// Two bytes a number. Every node of the tree, whether it travels or not, is rounded to the nearest
    /// bfloat16, ties to even; the additions themselves are in f32.
    Bf16,
}

impl std::fmt::Display for Wire {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

impl std::str::FromStr for Wire {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            _ => Err(format!("{text:?} is no wire format: use f32 or bf16")),
        }
    }
}

impl Wire {
    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    /// Rounds to what travels exactly.
    pub(crate) fn round(self, values: &mut [f32]) {
        if self == Self::Bf16 {
            values.iter_mut().for_each(|value| *value = rounded(*value));
        }
    }

    /// Adds `values` to `out` and rounds.
    pub(crate) fn add_floats(self, values: &[f32], out: &mut [f32]) {
        let pairs = out.iter_mut().zip(values);
        match self {
            Self::F32 => pairs.for_each(|(sum, value)| *sum += value),
            Self::Bf16 => pairs.for_each(|(sum, value)| *sum = rounded(*sum + value)),
        }
    }

    /// Appends `values` as they travel.
    pub(crate) fn encode(self, values: &[f32], into: &mut BytesMut) {
        match self {
            Self::F32 => into.put_slice(bytemuck::cast_slice(values)),
            Self::Bf16 => {
                let start = into.len();
                into.resize(start + 2 * values.len(), 0);
                let (places, _) = into[start..].as_chunks_mut::<2>();
                for (place, value) in places.iter_mut().zip(values) {
                    *place = high_half(*value).to_le_bytes();
                }
            }
        }
    }

    /// Writes the numbers that travelled in `pieces` to `out`.
    pub(crate) fn copy(self, pieces: &[Bytes], out: &mut [f32]) {
        match self {
            Self::F32 => {
                let mut out: &mut [u8] = bytemuck::cast_slice_mut(out);
                for piece in pieces {
                    let (place, rest) = out.split_at_mut(piece.len());
                    place.copy_from_slice(piece);
                    out = rest;
                }
            }
            Self::Bf16 => each::<2>(pieces, out, |place, bytes| *place = widened(bytes)),
        }
    }

    /// Adds the numbers that travelled in `pieces` to `out`.
    pub(crate) fn add(self, pieces: &[Bytes], out: &mut [f32]) {
        match self {
            Self::F32 => each::<4>(pieces, out, |place, bytes| *place += f32::from_le_bytes(bytes)),
            Self::Bf16 => each::<2>(pieces, out, |place, bytes| *place = rounded(*place + widened(bytes))),
        }
    }
}

/// Applies `apply` to each place of `out` and its `N` bytes, of which `pieces` hold no more than `out` has
/// places; a number may be cut by the end of a piece.
#[inline(always)]
fn each<const N: usize>(pieces: &[Bytes], out: &mut [f32], apply: impl Fn(&mut f32, [u8; N])) {
    let mut places = out;
    let (mut cut, mut held) = ([0u8; N], 0);
    for piece in pieces {
        let mut bytes = &piece[..];
        if held > 0 {
            let more = bytes.len().min(N - held);
            cut[held..held + more].copy_from_slice(&bytes[..more]);
            held += more;
            bytes = &bytes[more..];
            if held < N {
                continue;
            }
            let (place, rest) = std::mem::take(&mut places).split_at_mut(1);
            apply(&mut place[0], cut);
            places = rest;
        }
        let (numbers, rest) = bytes.as_chunks::<N>();
        let (now, later) = std::mem::take(&mut places).split_at_mut(numbers.len());
        for (place, bytes) in now.iter_mut().zip(numbers) {
            apply(place, *bytes);
        }
        places = later;
        cut[..rest.len()].copy_from_slice(rest);
        held = rest.len();
    }
}

/// The upper half of the nearest bfloat16. Written without a branch so that it is done many at a time.
#[inline(always)]
fn high_half(value: f32) -> u16 {
    let bits = value.to_bits();
    let nearest = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1));
    // Rounding up could turn a NaN into an infinity: keep its upper half and make it quiet.
    let kept = bits | 0x0040_0000;
    let bits = if value.is_nan() { kept } else { nearest };
    (bits >> 16) as u16
}

#[inline(always)]
fn rounded(value: f32) -> f32 {
    f32::from_bits(u32::from(high_half(value)) << 16)
}

#[inline(always)]
fn widened(bytes: [u8; 2]) -> f32 {
    bf16::from_le_bytes(bytes).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Floats of all magnitudes, ties, infinities and NaNs among them.
    fn values() -> Vec<f32> {
        let ties =
            [0x3F80_8000u32, 0x3F81_8000, 0x7F7F_FFFF, 0x7F80_0000, 0xFF80_0000, 0x7F80_0001, 0x7FFF_FFFF];
        let spread = (0..5000u32).map(|i| i.wrapping_mul(0x9E37_79B9));
        ties.into_iter().chain(spread).map(f32::from_bits).collect()
    }

    #[test]
    fn rounding_is_that_of_the_half_crate() {
        for value in values() {
            let expected = bf16::from_f32(value);
            assert_eq!(high_half(value), expected.to_bits(), "{value}");
            assert_eq!(rounded(value).to_bits(), expected.to_f32().to_bits(), "{value}");
        }
    }

    #[test]
    fn numbers_survive_any_cut() {
        let finite: Vec<f32> = values().into_iter().filter(|value| value.is_finite()).collect();
        for wire in [Wire::F32, Wire::Bf16] {
            let mut sent = finite.clone();
            wire.round(&mut sent);
            let mut encoded = BytesMut::new();
            wire.encode(&finite, &mut encoded);
            assert_eq!(encoded.len(), finite.len() * wire.bytes());
            let encoded = encoded.freeze();
            for size in [1, 3, 4, 7, 1001, 1 << 20] {
                let cut = (0..encoded.len())
                    .step_by(size)
                    .map(|at| encoded.slice(at..encoded.len().min(at + size)));
                let pieces: Vec<Bytes> = cut.collect();
                let mut copied = vec![0.0; sent.len()];
                wire.copy(&pieces, &mut copied);
                assert_eq!(copied, sent);
                let mut added = vec![1.5; sent.len()];
                wire.add(&pieces, &mut added);
                let mut expected: Vec<f32> = sent.iter().map(|value| 1.5 + value).collect();
                wire.round(&mut expected);
                assert_eq!(added, expected);
            }
        }
    }

    #[test]
    fn names_are_read_and_written() {
        for wire in [Wire::F32, Wire::Bf16] {
            assert_eq!(wire.to_string().parse(), Ok(wire));
        }
        assert!("f16".parse::<Wire>().expect_err("no such format").contains("bf16"));
    }
}
