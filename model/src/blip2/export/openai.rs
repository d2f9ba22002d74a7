//! An image encoder in CLIP's layout as LAVIS's files have it: under OpenAI's names, with one map for
//! queries, keys and values.

use std::collections::BTreeMap;

use burn::module::Param;
use burn::tensor::Tensor;

use blip2_model_files::weights::{LavisClip, lavis_clip};
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor};

/// A model whose trained image encoder, if it is one of CLIP's, is visited under OpenAI's names.
pub(super) struct WithOpenAiNames<'a, M>(pub(super) &'a mut M);

impl<M: NamedTensors> NamedTensors for WithOpenAiNames<'_, M> {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        self.0.visit_tensors(prefix, &mut Renaming { visitor, thirds: BTreeMap::new() })
    }
}

struct Renaming<'a, V> {
    visitor: &'a mut V,
    /// The thirds that are there, one after the other, of maps that are not whole yet.
    thirds: BTreeMap<String, [Option<Tensor<1>>; 3]>,
}

impl<V: TensorVisitor> TensorVisitor for Renaming<'_, V> {
    type Error = V::Error;

    fn visit<const D: usize>(&mut self, name: &str, tensor: &mut Param<Tensor<D>>) -> Result<(), V::Error> {
        let (fused, third) = match lavis_clip(name) {
            None => return self.visitor.visit(name, tensor),
            Some(LavisClip::Whole(name)) => return self.visitor.visit(&name, tensor),
            Some(LavisClip::Third(fused, third)) => (fused, third),
        };
        let values = tensor.val();
        let mut shape = values.dims();
        let thirds = self.thirds.entry(fused.clone()).or_default();
        thirds[third] = Some(values.reshape([shape.iter().product::<usize>()]));
        let [Some(queries), Some(keys), Some(values)] = thirds else { return Ok(()) };
        let whole = Tensor::cat(vec![queries.clone(), keys.clone(), values.clone()], 0);
        self.thirds.remove(&fused);
        shape[0] *= 3;
        self.visitor.visit(&fused, &mut Param::initialized(tensor.id, whole.reshape(shape)))
    }
}
