//! Inputs that are nearly right: seeded mutations of kept ones.

use blip2_random::KeyedRng;

/// Longest input made.
const MAX_BYTES: usize = 64 << 10;
/// Changes to one input, at most.
const MAX_CHANGES: u64 = 4;
/// Lengths and counts that decoders get wrong.
const ODD_NUMBERS: [u64; 10] =
    [0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, 0xffff_ffff_ffff_ffff];

/// Makes inputs of kept ones; the same for the same key.
#[derive(Debug)]
pub struct Mutator<'a> {
    random: KeyedRng,
    kept: &'a [Vec<u8>],
    words: &'a [&'a str],
}

impl<'a> Mutator<'a> {
    /// Of these inputs and words.
    ///
    /// # Panics
    /// There is no input.
    pub fn new(seed: u64, purpose: &str, kept: &'a [Vec<u8>], words: &'a [&'a str]) -> Self {
        assert!(!kept.is_empty(), "{purpose}: no input is kept");
        Self { random: KeyedRng::new(seed, purpose, &[]), kept, words }
    }

    /// The next input.
    pub fn make(&mut self) -> Vec<u8> {
        let mut bytes = self.any_kept().to_vec();
        for _ in 0..=self.random.below(MAX_CHANGES) {
            self.change(&mut bytes);
        }
        bytes.truncate(MAX_BYTES);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        match self.random.below(9) {
            0 | 1 => self.flip_a_bit(bytes),
            2 => self.set_a_byte(bytes),
            3 => self.cut_off(bytes),
            4 => self.remove(bytes),
            5 => self.repeat(bytes),
            6 => self.splice(bytes),
            7 => self.put_a_number(bytes),
            _ => self.put_a_word(bytes),
        }
    }

    fn flip_a_bit(&mut self, bytes: &mut [u8]) {
        if let Some(place) = self.place(bytes) {
            bytes[place] ^= 1 << self.random.below(8);
        }
    }

    fn set_a_byte(&mut self, bytes: &mut [u8]) {
        if let Some(place) = self.place(bytes) {
            bytes[place] = self.random.below(256) as u8;
        }
    }

    fn cut_off(&mut self, bytes: &mut Vec<u8>) {
        let length = self.below(bytes.len() + 1);
        bytes.truncate(length);
    }

    fn remove(&mut self, bytes: &mut Vec<u8>) {
        let (start, end) = self.range(bytes);
        bytes.drain(start..end);
    }

    fn repeat(&mut self, bytes: &mut Vec<u8>) {
        let (start, end) = self.range(bytes);
        let piece = bytes[start..end].to_vec();
        let place = self.below(bytes.len() + 1);
        bytes.splice(place..place, piece);
    }

    /// Puts a piece of another input in place of one here.
    fn splice(&mut self, bytes: &mut Vec<u8>) {
        let other = self.any_kept();
        let (from, to) = self.range(other);
        let (start, end) = self.range(bytes);
        bytes.splice(start..end, other[from..to].iter().copied());
    }

    /// Writes a number over one to eight bytes, in either order, or as a variable-length one.
    fn put_a_number(&mut self, bytes: &mut Vec<u8>) {
        let Some(place) = self.place(bytes) else { return };
        let odd = ODD_NUMBERS[self.below(ODD_NUMBERS.len())];
        let number = match self.random.below(3) {
            0 => bytes.len() as u64,
            1 => odd.wrapping_sub(self.random.below(16)),
            _ => odd,
        };
        let width = 1usize << self.random.below(4);
        let piece = match self.random.below(3) {
            0 => number.to_le_bytes()[..width].to_vec(),
            1 => number.to_be_bytes()[8 - width..].to_vec(),
            _ => variable_length(number),
        };
        let end = bytes.len().min(place + piece.len());
        bytes.splice(place..end, piece);
    }

    fn put_a_word(&mut self, bytes: &mut Vec<u8>) {
        if self.words.is_empty() {
            return self.flip_a_bit(bytes);
        }
        let word = self.words[self.below(self.words.len())];
        let place = self.below(bytes.len() + 1);
        bytes.splice(place..place, word.bytes());
    }

    fn any_kept(&mut self) -> &'a [u8] {
        &self.kept[self.below(self.kept.len())]
    }

    fn place(&mut self, bytes: &[u8]) -> Option<usize> {
        (!bytes.is_empty()).then(|| self.below(bytes.len()))
    }

    /// A range of at most a few hundred bytes, which may be empty.
    fn range(&mut self, bytes: &[u8]) -> (usize, usize) {
        let start = self.below(bytes.len() + 1);
        let most = 1 << self.random.below(10);
        let length = self.below((bytes.len() - start).min(most) + 1);
        (start, start + length)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.random.below(limit as u64) as usize
    }
}

/// A number as protocol buffers and Parquet's footers write it.
fn variable_length(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_always_makes_the_same_inputs_and_they_differ() {
        let kept = [b"a first input".to_vec(), b"and a second one".to_vec(), Vec::new()];
        let made = |seed| {
            let mut mutator = Mutator::new(seed, "test", &kept, &["word"]);
            (0..500).map(|_| mutator.make()).collect::<Vec<_>>()
        };
        assert_eq!(made(1), made(1));
        assert_ne!(made(1), made(2));
        let different: std::collections::BTreeSet<_> = made(1).into_iter().collect();
        assert!(different.len() > 300, "{}", different.len());
    }

    #[test]
    fn variable_lengths_are_as_prost_reads_them() {
        for number in ODD_NUMBERS {
            let bytes = variable_length(number);
            let read = prost::encoding::decode_varint(&mut bytes.as_slice()).expect("a number");
            assert_eq!(read, number);
        }
    }
}
