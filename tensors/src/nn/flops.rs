//! Floating-point operations of linear maps and attention.

/// Operations forward and back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flops {
    /// Of the forward pass.
    pub forward: u64,
    /// Of the backward pass.
    pub backward: u64,
}

impl Flops {
    /// Both passes together.
    pub fn total(self) -> u64 {
        self.forward + self.backward
    }

    /// Maps whose weights are trained.
    pub fn trained(forward: usize) -> Self {
        Self { forward: forward as u64, backward: 2 * forward as u64 }
    }

    /// Maps whose weights are frozen, and products of which both factors have a gradient.
    pub fn frozen(maps: usize, attention: usize) -> Self {
        Self { forward: (maps + attention) as u64, backward: (maps + 2 * attention) as u64 }
    }

    /// The same `count` times.
    pub fn times(self, count: usize) -> Self {
        Self { forward: self.forward * count as u64, backward: self.backward * count as u64 }
    }
}

impl std::ops::Add for Flops {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { forward: self.forward + other.forward, backward: self.backward + other.backward }
    }
}

/// A linear map of `rows` vectors.
pub fn map(rows: usize, from: usize, to: usize) -> usize {
    2 * rows * from * to
}

/// Scores of `rows` queries with `keys`, and the mean of the values, over all heads of `width` together.
pub fn attend(rows: usize, keys: usize, width: usize) -> usize {
    4 * rows * keys * width
}
