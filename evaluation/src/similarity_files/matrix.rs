//! A matrix, how its numbers are read, and the matrices of one file.

use std::io::Read;

use half::{bf16, f16};

/// Numbers of a matrix beyond which it is not read: 16 GiB.
pub(super) const MOST_NUMBERS: usize = 1 << 32;
/// Bytes that are read at once; whole numbers of every type.
const PIECE: usize = 1 << 20;

/// Rows of numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// How many rows.
    pub rows: usize,
    /// How many numbers in each.
    pub columns: usize,
    /// One row after the other.
    pub values: Vec<f32>,
}

/// Similarities of the same images and texts; one of both at least.
#[derive(Debug, Clone, PartialEq)]
pub struct SimilarityFile {
    /// `[images, texts]`, of all pairs.
    pub all: Option<Matrix>,
    /// `[images, texts]` and `[texts, images]`: the best few of each row, scored anew.
    pub reranked: Option<(Matrix, Matrix)>,
}

/// A type of numbers that float32 holds without loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NumberType {
    F32,
    F16,
    Bf16,
}

impl NumberType {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// So many numbers, least byte first.
    pub(super) fn read(self, from: &mut impl Read, numbers: usize) -> std::io::Result<Vec<f32>> {
        let mut left = numbers * self.bytes();
        let mut values = Vec::new();
        let mut piece = vec![0; PIECE.min(left)];
        while left > 0 {
            let bytes = &mut piece[..PIECE.min(left)];
            from.read_exact(bytes)?;
            match self {
                Self::F32 => {
                    values.extend(bytes.as_chunks().0.iter().map(|number| f32::from_le_bytes(*number)))
                }
                Self::F16 => {
                    values.extend(
                        bytes.as_chunks().0.iter().map(|number| f16::from_le_bytes(*number).to_f32()),
                    );
                }
                Self::Bf16 => {
                    values.extend(
                        bytes.as_chunks().0.iter().map(|number| bf16::from_le_bytes(*number).to_f32()),
                    );
                }
            }
            left -= bytes.len();
        }
        Ok(values)
    }
}

impl Matrix {
    /// The matrix with rows as columns.
    pub(super) fn transposed(self) -> Self {
        let at = |row: usize, column: usize| self.values[row * self.columns + column];
        let values =
            (0..self.columns).flat_map(|column| (0..self.rows).map(move |row| at(row, column))).collect();
        Self { rows: self.columns, columns: self.rows, values }
    }
}
