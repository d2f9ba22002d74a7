//! How numbers are written in weight files, and their float32 values.

use half::{bf16, f16};

/// How a tensor's numbers are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// IEEE double precision.
    F64,
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of single precision.
    Bf16,
    /// GGUF: 32 signed bytes times a half-precision scale.
    Q8_0,
    /// GGUF: 32 numbers of four bits times a half-precision scale, plus a half-precision minimum.
    Q4_1,
    /// Anything else, e.g. the integers of a buffer, by its name: it can be listed but not read.
    Other(String),
}

impl Encoding {
    /// What the format calls it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Other(name) => name.clone(),
            known => format!("{known:?}").to_uppercase(),
        }
    }

    /// Numbers and bytes of a block, the smallest piece that can be decoded; `None` for what cannot be read.
    pub(crate) fn block(&self) -> Option<(usize, usize)> {
        Some(match self {
            Self::F64 => (1, 8),
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q8_0 => (32, 34),
            Self::Q4_1 => (32, 20),
            Self::Other(_) => return None,
        })
    }

    /// Decodes whole blocks; `into` has as many numbers as `bytes` holds.
    pub(crate) fn decode(&self, bytes: &[u8], into: &mut [f32]) {
        match self {
            Self::F64 => each(bytes, into, |b: [u8; 8]| f64::from_le_bytes(b) as f32),
            Self::F32 => each(bytes, into, f32::from_le_bytes),
            Self::F16 => each(bytes, into, |b| f16::from_le_bytes(b).to_f32()),
            Self::Bf16 => each(bytes, into, |b| bf16::from_le_bytes(b).to_f32()),
            Self::Q8_0 => blocks::<34>(bytes, into, q8_0),
            Self::Q4_1 => blocks::<20>(bytes, into, q4_1),
            Self::Other(_) => {}
        }
    }
}

fn each<const N: usize>(bytes: &[u8], into: &mut [f32], convert: impl Fn([u8; N]) -> f32) {
    let (numbers, _) = bytes.as_chunks::<N>();
    into.iter_mut().zip(numbers).for_each(|(value, number)| *value = convert(*number));
}

fn blocks<const N: usize>(bytes: &[u8], into: &mut [f32], decode: fn(&[u8; N], &mut [f32])) {
    let (blocks, _) = bytes.as_chunks::<N>();
    into.chunks_exact_mut(32).zip(blocks).for_each(|(values, block)| decode(block, values));
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// `scale · q`.
fn q8_0(block: &[u8; 34], values: &mut [f32]) {
    let scale = half_at(block, 0);
    values.iter_mut().zip(&block[2..]).for_each(|(value, q)| *value = scale * f32::from(*q as i8));
}

/// `scale · q + minimum`; a byte's lower half is a number of the first sixteen, its upper half one of the
/// last.
fn q4_1(block: &[u8; 20], values: &mut [f32]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    let (first, last) = values.split_at_mut(16);
    for ((low, high), byte) in first.iter_mut().zip(last).zip(&block[4..]) {
        *low = scale * f32::from(byte & 15) + minimum;
        *high = scale * f32::from(byte >> 4) + minimum;
    }
}

/// Undoes llama.cpp's order of a query's or key's rows, in which the two halves of each head alternate.
///
/// `shape` is `[heads · width, columns]`, with an even width.
pub(crate) fn separate_halves(values: &mut [f32], shape: &[usize], heads: usize) {
    let [rows, columns] = shape[..] else { return };
    let half = rows / heads / 2;
    let mut rotated = vec![0.0; rows / heads * columns];
    for head in values.chunks_exact_mut(rotated.len()) {
        for (row, pair) in head.chunks_exact(columns).enumerate() {
            let to = (row % 2) * half + row / 2;
            rotated[to * columns..][..columns].copy_from_slice(pair);
        }
        head.copy_from_slice(&rotated);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(encoding: &Encoding, bytes: &[u8]) -> Vec<f32> {
        let (numbers, size) = encoding.block().unwrap();
        let mut values = vec![0.0; bytes.len() / size * numbers];
        encoding.decode(bytes, &mut values);
        values
    }

    #[test]
    fn plain_numbers() {
        assert_eq!(decoded(&Encoding::F64, &1.5f64.to_le_bytes()), [1.5]);
        assert_eq!(decoded(&Encoding::F16, &f16::from_f32(-2.5).to_le_bytes()), [-2.5]);
        assert_eq!(decoded(&Encoding::Bf16, &bf16::from_f32(3.0).to_le_bytes().repeat(2)), [3.0, 3.0]);
    }

    #[test]
    fn blocks_of_bytes() {
        let mut block = f16::from_f32(0.5).to_le_bytes().to_vec();
        block.extend((0..32).map(|i: i8| (i - 16) as u8));
        let want: Vec<f32> = (0..32).map(|i| 0.5 * (i - 16) as f32).collect();
        assert_eq!(decoded(&Encoding::Q8_0, &block), want);
    }

    #[test]
    fn blocks_of_half_bytes() {
        let mut block = f16::from_f32(0.25).to_le_bytes().to_vec();
        block.extend(f16::from_f32(-1.0).to_le_bytes());
        block.extend((0..16u8).map(|i| i | (15 - i) << 4));
        let values = decoded(&Encoding::Q4_1, &block.repeat(2));
        assert_eq!(
            (values.len(), values[0], values[3], values[16], values[31]),
            (64, -1.0, -0.25, 2.75, -1.0)
        );
        assert_eq!(values[..32], values[32..]);
    }
}
