//! Random numbers that are a function of their key, and permutations in constant memory.
//!
//! Nothing here has hidden state: two processes that name the same key draw the same numbers, in any order.

/// Domain separator: a changed construction must change it, so that old and new draws cannot be mistaken.
const DOMAIN: &[u8] = b"blip2 keyed random v1";

/// Rounds of the Feistel network: twice what a pseudo-random permutation needs in theory.
const FEISTEL_ROUNDS: usize = 8;

/// Hash of `(seed, purpose, parts)`, injective in its inputs.
fn keyed_hasher(seed: u64, purpose: &str, parts: &[u64]) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.update(DOMAIN);
    hasher.update(&seed.to_le_bytes());
    hasher.update(&(purpose.len() as u64).to_le_bytes());
    hasher.update(purpose.as_bytes());
    for part in parts {
        hasher.update(&part.to_le_bytes());
    }
    hasher
}

/// A stream of random numbers that depends on its key alone: BLAKE3's extendable output.
///
/// ```
/// use blip2_random::KeyedRng;
/// let mut a = KeyedRng::new(42, "crop", &[1, 7]);
/// let mut b = KeyedRng::new(42, "crop", &[1, 7]);
/// assert_eq!(a.next_u64(), b.next_u64());
/// ```
#[derive(Clone)]
pub struct KeyedRng {
    stream: blake3::OutputReader,
    block: [u8; 64],
    used: usize,
}

impl KeyedRng {
    /// The generator of `purpose` for `parts` (e.g. stage and sample) in the run with this `seed`.
    pub fn new(seed: u64, purpose: &str, parts: &[u64]) -> Self {
        Self { stream: keyed_hasher(seed, purpose, parts).finalize_xof(), block: [0; 64], used: 64 }
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        if self.used == self.block.len() {
            self.stream.fill(&mut self.block);
            self.used = 0;
        }
        let mut word = [0; 8];
        word.copy_from_slice(&self.block[self.used..self.used + 8]);
        self.used += 8;
        u64::from_le_bytes(word)
    }

    /// Uniform in `[0, 1)`, a multiple of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in `0..n` without bias (Lemire's method); 0 when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        let threshold = n.wrapping_neg().checked_rem(n).unwrap_or(0);
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// Standard normal (Box-Muller over `libm`, so that the bits do not depend on the platform).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * libm::log(1.0 - self.uniform())).sqrt();
        radius * libm::cos(std::f64::consts::TAU * self.uniform())
    }
}

impl std::fmt::Debug for KeyedRng {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyedRng").field("position", &self.stream.position()).finish_non_exhaustive()
    }
}

/// A bijection on `0..len` drawn by a key, in constant memory: a balanced Feistel network with cycle walking.
///
/// ```
/// use blip2_random::KeyedPermutation;
/// let shuffle = KeyedPermutation::new(7, 1000);
/// assert_eq!(shuffle.invert(shuffle.apply(123)), 123);
/// ```
#[derive(Debug, Clone)]
pub struct KeyedPermutation {
    len: u64,
    half_bits: u32,
    round_keys: [u64; FEISTEL_ROUNDS],
}

impl KeyedPermutation {
    /// The permutation of `0..len` that `key` selects.
    pub fn new(key: u64, len: u64) -> Self {
        Self::from_rng(KeyedRng::new(key, "permutation", &[]), len)
    }

    /// The permutation of `0..len` for a purpose and its parts, as in [`KeyedRng::new`].
    pub fn keyed(seed: u64, purpose: &str, parts: &[u64], len: u64) -> Self {
        Self::from_rng(KeyedRng::new(seed, purpose, parts), len)
    }

    fn from_rng(mut rng: KeyedRng, len: u64) -> Self {
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        let half_bits = bits.div_ceil(2).max(1);
        Self { len, half_bits, round_keys: std::array::from_fn(|_| rng.next_u64()) }
    }

    /// Length of the domain.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the domain is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The image of `i`.
    ///
    /// # Panics
    /// If `i` is outside `0..len`: walking the cycle would not end inside the domain.
    pub fn apply(&self, i: u64) -> u64 {
        self.walk(i, |value| self.forward(value))
    }

    /// The value whose image is `i`.
    ///
    /// # Panics
    /// As [`KeyedPermutation::apply`].
    pub fn invert(&self, i: u64) -> u64 {
        self.walk(i, |value| self.backward(value))
    }

    fn walk(&self, i: u64, step: impl Fn(u64) -> u64) -> u64 {
        assert!(i < self.len, "index {i} outside a permutation of {}", self.len);
        let mut value = step(i);
        while value >= self.len {
            value = step(value);
        }
        value
    }

    fn forward(&self, value: u64) -> u64 {
        let (mut left, mut right) = self.split(value);
        for key in &self.round_keys {
            (left, right) = (right, left ^ self.round(right, *key));
        }
        (left << self.half_bits) | right
    }

    fn backward(&self, value: u64) -> u64 {
        let (mut left, mut right) = self.split(value);
        for key in self.round_keys.iter().rev() {
            (left, right) = (right ^ self.round(left, *key), left);
        }
        (left << self.half_bits) | right
    }

    fn split(&self, value: u64) -> (u64, u64) {
        (value >> self.half_bits, value & self.half_mask())
    }

    fn half_mask(&self) -> u64 {
        (1 << self.half_bits) - 1
    }

    /// The round function: MurmurHash3's finaliser over the half and the round key.
    fn round(&self, half: u64, key: u64) -> u64 {
        let mut mixed = half ^ key;
        mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        (mixed ^ (mixed >> 33)) & self.half_mask()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use blip2_test_corpus::properties::cases;

    #[test]
    fn streams_depend_on_every_part_of_the_key() {
        let first = |seed, purpose, parts: &[u64]| KeyedRng::new(seed, purpose, parts).next_u64();
        let base = first(1, "a", &[2, 3]);
        assert_eq!(base, first(1, "a", &[2, 3]));
        for other in
            [first(2, "a", &[2, 3]), first(1, "b", &[2, 3]), first(1, "a", &[3, 2]), first(1, "a", &[2])]
        {
            assert_ne!(base, other);
        }
    }

    /// Pins the construction: a change of these numbers changes every run's data order.
    #[test]
    fn first_words_are_pinned() {
        let mut rng = KeyedRng::new(42, "crop", &[1, 7]);
        let words: Vec<u64> = (0..9).map(|_| rng.next_u64()).collect();
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"blip2 keyed random v1").update(&42u64.to_le_bytes()).update(&4u64.to_le_bytes());
        hasher.update(b"crop").update(&1u64.to_le_bytes()).update(&7u64.to_le_bytes());
        let mut expected = [0u8; 72];
        hasher.finalize_xof().fill(&mut expected);
        for (word, bytes) in words.iter().zip(expected.chunks_exact(8)) {
            assert_eq!(word.to_le_bytes(), bytes);
        }
    }

    #[test]
    fn below_is_in_range_and_even() {
        let mut rng = KeyedRng::new(3, "below", &[]);
        let mut counts = [0u32; 6];
        for _ in 0..60_000 {
            counts[rng.below(6) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (9_600..10_400).contains(count)), "{counts:?}");
        assert_eq!(rng.below(1), 0);
        assert_eq!(rng.below(0), 0);
        assert!(rng.below(u64::MAX) < u64::MAX);
    }

    #[test]
    fn moments_of_uniform_and_normal() {
        let mut rng = KeyedRng::new(9, "moments", &[]);
        let n = 50_000;
        let uniform: f64 = (0..n).map(|_| rng.uniform()).sum::<f64>() / f64::from(n);
        assert!((uniform - 0.5).abs() < 0.01);
        let normal: Vec<f64> = (0..n).map(|_| rng.normal()).collect();
        let mean = normal.iter().sum::<f64>() / f64::from(n);
        let variance = normal.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n);
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
    }

    proptest! {
        #![proptest_config(cases(200))]

        #[test]
        fn a_permutation_takes_every_place_once(key in any::<u64>(), len in 1u64..3000) {
            let shuffle = KeyedPermutation::new(key, len);
            let mut seen = vec![false; len as usize];
            for i in 0..len {
                let image = shuffle.apply(i);
                prop_assert!(image < len && !std::mem::replace(&mut seen[image as usize], true), "{} twice", image);
                prop_assert_eq!(shuffle.invert(image), i);
            }
        }

        /// Of lengths that nobody walks through, powers of two and their neighbours among them.
        #[test]
        fn a_long_permutation_inverts(
            key in any::<u64>(),
            len in prop_oneof![
                1..=u64::MAX,
                (1u32..64, 0u64..3).prop_map(|(bits, beside)| ((1u64 << bits) + beside).saturating_sub(1).max(1)),
            ],
            places in prop::collection::vec(any::<u64>(), 1..20),
        ) {
            let shuffle = KeyedPermutation::new(key, len);
            for i in places.into_iter().map(|place| place % len).chain([0, len - 1]) {
                let image = shuffle.apply(i);
                prop_assert!(image < len);
                prop_assert_eq!(shuffle.invert(image), i);
            }
        }
    }

    #[test]
    fn permutations_mix_and_differ_by_key() {
        let (a, b) = (KeyedPermutation::new(1, 10_000), KeyedPermutation::new(2, 10_000));
        let equal = (0..10_000).filter(|i| a.apply(*i) == b.apply(*i)).count();
        assert!(equal < 20, "{equal} of 10,000 images agree");
        let neighbours = (0..9_999).filter(|i| a.apply(*i).abs_diff(a.apply(i + 1)) == 1).count();
        assert!(neighbours < 20, "{neighbours} neighbours stayed neighbours");
    }
}
