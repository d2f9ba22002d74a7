//! What a language model keeps of the positions it has read.

use burn::tensor::{Int, Tensor};

use crate::qformer::KeyValue;

/// Keys and values of the positions that a model has read, for each layer.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyValueCache {
    layers: Vec<KeyValue>,
}

impl KeyValueCache {
    /// Keys and values of other positions than those read, for each layer.
    pub(crate) fn of(layers: Vec<KeyValue>) -> Self {
        Self { layers }
    }

    /// Positions read.
    pub(crate) fn length(&self) -> usize {
        self.layers.first().map_or(0, KeyValue::length)
    }

    /// Makes row `i` what row `rows[i]` was.
    pub(crate) fn select(&mut self, rows: &Tensor<1, Int>) {
        for layer in &mut self.layers {
            layer.key = layer.key.clone().select(0, rows.clone());
            layer.value = layer.value.clone().select(0, rows.clone());
        }
    }

    /// Those of layer `index`.
    pub(crate) fn layer(&self, index: usize) -> &KeyValue {
        &self.layers[index]
    }

    /// Adds what layer `index` read after the positions it has, and returns all of them; the layers come in
    /// order.
    pub(crate) fn read(&mut self, index: usize, new: KeyValue) -> &KeyValue {
        match self.layers.get_mut(index) {
            Some(past) => *past = past.followed_by(&new),
            None => self.layers.push(new),
        }
        &self.layers[index]
    }
}
