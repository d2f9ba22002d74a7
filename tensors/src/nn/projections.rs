//! The four maps of an attention block, under the names that each family gives them.

use burn::module::Module;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{DType, Device, Tensor, module};

use crate::device::compute::Compute;
use crate::fused;
use crate::nn::attention::KeyValue;
use crate::nn::attention::{merge_heads, split_heads};
use crate::nn::cache::KeyValueCache;
use crate::nn::causal::Visible;
use crate::nn::dropout::Dropout;
use crate::nn::layers::Linear;
use crate::nn::tensors::{NamedTensors, TensorVisitor, join};

/// Sizes of [`Projections`].
#[derive(Debug, Clone, Copy)]
pub struct ProjectionSizes {
    /// Width of what goes in and comes out.
    pub width: usize,
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of keys and values; a divisor of `heads`, each shared by as many query heads.
    pub key_heads: usize,
    /// Width of one head.
    pub head_width: usize,
    /// Whether the maps have a bias.
    pub bias: bool,
    /// Whether scores are divided by the root of a head's width.
    pub scaled: bool,
}

impl ProjectionSizes {
    /// Biased maps whose heads share the width.
    pub fn square(width: usize, heads: usize) -> Self {
        Self { width, heads, key_heads: heads, head_width: width / heads, bias: true, scaled: true }
    }
}

/// Query, key, value and output maps.
#[derive(Module, Debug)]
pub struct Projections {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    heads: usize,
    key_heads: usize,
    scaled: bool,
}

impl Projections {
    /// Zeros, to be loaded.
    pub fn new(sizes: ProjectionSizes, device: &Device) -> Self {
        let ProjectionSizes { width, heads, key_heads, head_width, bias, scaled } = sizes;
        Self {
            query: Linear::new(width, heads * head_width, bias, device),
            key: Linear::new(width, key_heads * head_width, bias, device),
            value: Linear::new(width, key_heads * head_width, bias, device),
            output: Linear::new(heads * head_width, width, bias, device),
            heads,
            key_heads,
            scaled,
        }
    }

    /// The numbers that the matrices are kept in.
    pub fn kept_in(&self) -> DType {
        self.query.kept_in()
    }

    /// `[b, length, width]` to `[b, heads, length, head width]`.
    pub fn query(&self, x: Tensor<3>) -> Tensor<4> {
        split_heads(self.query.forward(x), self.heads)
    }

    /// Keys and values of `x [b, length, width]`.
    pub fn key_value(&self, x: Tensor<3>) -> KeyValue {
        KeyValue {
            key: split_heads(self.key.forward(x.clone()), self.key_heads),
            value: split_heads(self.value.forward(x), self.key_heads),
        }
    }

    /// Attention of queries as [`Projections::query`] gives them, and the output map.
    ///
    /// # Shapes
    /// - query `[b, heads, q, head width]`, the last of the positions in `seen`; a mask has one head where
    ///   key heads are shared; output `[b, q, width]`
    pub fn attend(&self, query: Tensor<4>, seen: KeyValue, visible: &Visible) -> Tensor<3> {
        self.attend_dropped(query, seen, visible, &mut Dropout::off())
    }

    /// Attention of `x` to itself and to the positions of layer `index` in the cache, to which its own are
    /// added; `turn` gives queries and keys their positions, where these are not in `x`.
    ///
    /// # Shapes
    /// - x and output `[b, n, width]`
    pub fn attend_cached(
        &self,
        x: Tensor<3>,
        (cache, index): (&mut KeyValueCache, usize),
        turn: impl Fn(Tensor<4>) -> Tensor<4>,
        visible: &Visible,
    ) -> Tensor<3> {
        let query = turn(self.query(x.clone()));
        let KeyValue { key, value } = self.key_value(x);
        let seen = cache.read(index, KeyValue { key: turn(key), value });
        self.attend(query, seen, visible)
    }

    /// [`Projections::attend`] with dropout on the attention's probabilities.
    pub fn attend_dropped(
        &self,
        query: Tensor<4>,
        seen: KeyValue,
        visible: &Visible,
        dropout: &mut Dropout,
    ) -> Tensor<3> {
        let [batch, heads, rows, width] = query.dims();
        let (positions, KeyValue { key, value }) = (seen.length(), seen);
        let compute = self.query.compute;
        let is_f32 = query.dtype() == DType::F32 && compute == Compute::F32;
        let is_plain = self.key_heads == heads && dropout.is_off() && is_f32;
        if matches!(visible, Visible::Causal) && is_plain {
            let scale = (!self.scaled).then_some(1.0);
            let options = AttentionModuleOptions { scale, softcap: None, is_causal: true };
            return self.output(module::attention(query, key, value, None, None, options));
        }
        let scale = if self.scaled { 1.0 / (width as f64).sqrt() } else { 1.0 };
        // The scores are float32 where queries are bf16: scaled there, nothing is rounded.
        let (query, scale) = match query.dtype() {
            DType::BF16 => (query, scale),
            _ if self.scaled => (query * scale, 1.0),
            _ => (query, 1.0),
        };
        let mask = visible.mask(rows, positions, &query.device());
        let attended = if self.key_heads == heads {
            fused::attention(query, key, value, mask, scale, dropout.next_mask(), compute)
        } else {
            // Queries that share a key head are more rows of one product: keys are not repeated.
            let shared = heads / self.key_heads;
            let query = query.reshape([batch, self.key_heads, shared * rows, width]);
            let mask = mask.map(|mask| mask.repeat_dim(2, shared));
            fused::attention(query, key, value, mask, scale, dropout.next_mask(), compute)
                .reshape([batch, heads, rows, width])
        };
        self.output(attended)
    }

    /// The output map of `[b, heads, length, head width]`.
    pub fn output(&self, attended: Tensor<4>) -> Tensor<3> {
        self.output.forward(merge_heads(attended))
    }

    /// Visits the maps; `names` are those of query, key, value and output.
    pub fn visit_named<V: TensorVisitor>(
        &mut self,
        prefix: &str,
        names: [&str; 4],
        visitor: &mut V,
    ) -> Result<(), V::Error> {
        let maps = [&mut self.query, &mut self.key, &mut self.value, &mut self.output];
        maps.into_iter()
            .zip(names)
            .try_for_each(|(map, name)| map.visit_tensors(&join(prefix, name), visitor))
    }
}
