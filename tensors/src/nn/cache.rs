//! What a language model keeps of the positions it has read.

use burn::tensor::Tensor;

use crate::nn::attention::KeyValue;
use crate::nn::rows::moved_rows;

/// Positions that a cache grows by: what it holds is copied once in so many tokens.
const CHUNK: usize = 64;

/// Keys and values of the positions that a model has read, for each layer.
#[derive(Debug, Clone, Default)]
pub struct KeyValueCache {
    layers: Vec<Layer>,
}

impl KeyValueCache {
    /// Positions read.
    pub fn length(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.length)
    }

    /// Makes row `i` what row `parents[i]` was; rows that stay in place are not copied.
    pub fn follow(&mut self, parents: &[usize]) {
        follow(self.layers.iter_mut().map(|layer| &mut layer.held), parents);
    }

    /// Adds what layer `index` read after the positions it has, and returns all of them; the layers come in
    /// order.
    ///
    /// The result shares the cache's memory: it must be gone before the layer reads on, or that copies.
    pub fn read(&mut self, index: usize, new: KeyValue) -> KeyValue {
        match self.layers.get_mut(index) {
            Some(layer) => layer.append(new),
            None => {
                // Whoever reads once, as in training, pays for no room.
                self.layers.push(Layer { length: new.length(), held: new.clone() });
                new
            }
        }
    }
}

/// Makes row `i` of each what row `parents[i]` was, where that is another.
pub fn follow<'a>(layers: impl Iterator<Item = &'a mut KeyValue>, parents: &[usize]) {
    let mut moved = None;
    for layer in layers {
        let [rows, ..] = layer.key.dims();
        let moved = moved.get_or_insert_with(|| moved_rows(parents, rows, &layer.key.device()));
        let Some(moved) = moved else { return };
        layer.key = layer.key.clone().select(0, moved.clone());
        layer.value = layer.value.clone().select(0, moved.clone());
    }
}

/// Keys and values of one layer.
#[derive(Debug, Clone)]
struct Layer {
    /// The positions read, and room for more behind them.
    held: KeyValue,
    /// Positions read.
    length: usize,
}

impl Layer {
    fn append(&mut self, new: KeyValue) -> KeyValue {
        let (start, end) = (self.length, self.length + new.length());
        if end > self.held.length() {
            let room = end.next_multiple_of(CHUNK);
            for held in [&mut self.held.key, &mut self.held.value] {
                *held = with_room(held.clone().narrow(2, 0, start), room);
            }
        }
        write(&mut self.held.key, start, new.key);
        write(&mut self.held.value, start, new.value);
        self.length = end;
        let seen = |held: &Tensor<4>| held.clone().narrow(2, 0, end);
        KeyValue { key: seen(&self.held.key), value: seen(&self.held.value) }
    }
}

/// The positions of `held`, and zeros behind them up to `room`.
fn with_room(held: Tensor<4>, room: usize) -> Tensor<4> {
    let [rows, heads, length, width] = held.dims();
    let larger = Tensor::zeros([rows, heads, room, width], (&held.device(), held.dtype()));
    larger.slice_assign([0..rows, 0..heads, 0..length, 0..width], held)
}

/// Puts `new` at the positions from `start` on; in place, because nobody else holds the tensor meanwhile.
fn write(held: &mut Tensor<4>, start: usize, new: Tensor<4>) {
    let [rows, heads, length, width] = new.dims();
    let own = std::mem::replace(held, new.clone());
    *held = own.slice_assign([0..rows, 0..heads, start..start + length, 0..width], new);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::read_back::floats;
    use burn::tensor::{Device, TensorData};

    /// Keys of two rows, one head and `length` positions that start at `first`; values are their negatives.
    fn numbers(first: usize, length: usize) -> KeyValue {
        let values: Vec<f32> =
            (0..2).flat_map(|row| (first..first + length).map(move |p| (100 * row + p) as f32)).collect();
        let key = Tensor::from_data(TensorData::new(values, [2, 1, length, 1]), &Device::flex());
        KeyValue { value: -key.clone(), key }
    }

    #[test]
    fn what_was_read_in_pieces_is_there_at_once() {
        let mut cache = KeyValueCache::default();
        let mut length = 0;
        for piece in [3, 1, 1, CHUNK, 2 * CHUNK, 1] {
            let seen = cache.read(0, numbers(length, piece));
            length += piece;
            assert_eq!((cache.length(), seen.length()), (length, length));
            assert_eq!(floats(seen.key).unwrap(), floats(numbers(0, length).key).unwrap());
            assert_eq!(floats(seen.value).unwrap(), floats(numbers(0, length).value).unwrap());
        }
    }

    #[test]
    fn a_token_is_written_in_place() {
        let room = TensorData::zeros::<f32, _>([2, 1, CHUNK, 1]);
        let address = room.as_bytes().as_ptr();
        let key = Tensor::<4>::from_data(room, &Device::flex());
        let held = KeyValue { value: key.zeros_like(), key };
        let mut layer = Layer { held, length: 0 };
        for token in 0..CHUNK {
            let seen = layer.append(numbers(token, 1));
            assert_eq!(floats(seen.key.narrow(2, token, 1)).unwrap(), [token as f32, (100 + token) as f32]);
        }
        assert_eq!(layer.held.key.into_data().as_bytes().as_ptr(), address, "the memory is that of before");
    }

    #[test]
    fn rows_follow_their_parents() {
        let mut cache = KeyValueCache::default();
        cache.read(0, numbers(0, 2));
        cache.read(0, numbers(2, 1));
        cache.follow(&[0, 1]);
        cache.follow(&[1, 1, 0]);
        let new = Tensor::from_data([[[[3.0]]], [[[4.0]]], [[[5.0]]]], &Device::flex());
        let seen = cache.read(0, KeyValue { key: new.clone(), value: new });
        let want = [100.0, 101.0, 102.0, 3.0, 100.0, 101.0, 102.0, 4.0, 0.0, 1.0, 2.0, 5.0];
        assert_eq!(floats(seen.key).unwrap(), want);
    }
}
