//! Tensors in the files that published models come in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use blip2_model::blip2::export::{Precision, export_lavis};
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor};
use blip2_tensors::train::flat::FlatLayout;
use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;

/// Tensors by name: shape and values.
pub(crate) type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

pub(crate) fn asset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/backbones").join(name)
}

pub(crate) fn fill(model: &mut impl NamedTensors, scale: f32) {
    let layout = FlatLayout::of(model).unwrap();
    let flat: Vec<f32> = (0..layout.len()).map(|i| (i as f32 * 0.37).sin() * scale).collect();
    layout.write(model, &flat, &Device::flex()).unwrap();
}

pub(crate) fn tensors_of(model: &mut impl NamedTensors) -> Tensors {
    let layout = FlatLayout::of(model).unwrap();
    let flat = layout.read(model).unwrap();
    let of = |tensor: &blip2_tensors::train::flat::FlatTensor| {
        (tensor.name.clone(), (tensor.shape.clone(), flat[tensor.range()].to_vec()))
    };
    layout.tensors().iter().map(of).collect()
}

pub(crate) fn tensors_in(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let of = |(name, view): (String, TensorView<'_>)| {
        assert_eq!(view.dtype(), Dtype::F32);
        let values = view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        (name, (view.shape().to_vec(), values.collect()))
    };
    file.tensors().into_iter().map(of).collect()
}

pub(crate) fn write_safetensors(path: &Path, tensors: &Tensors) {
    let bytes: BTreeMap<&String, Vec<u8>> = (tensors.iter())
        .map(|(name, (_, values))| (name, values.iter().flat_map(|value| value.to_le_bytes()).collect()))
        .collect();
    let views = tensors.iter().map(|(name, (shape, _))| {
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), &bytes[name]).unwrap())
    });
    safetensors::serialize_to_file(views.collect::<Vec<_>>(), None, path).unwrap();
}

/// Writes what `torch.save` would of a state dictionary.
pub(crate) fn write_pytorch(path: &Path, tensors: &Tensors, precision: Precision) {
    struct Listed<'a>(&'a Tensors);
    impl NamedTensors for Listed<'_> {
        fn visit_tensors<V: TensorVisitor>(&mut self, _: &str, visitor: &mut V) -> Result<(), V::Error> {
            let device = Device::flex();
            self.0.iter().try_for_each(|(name, (shape, values))| {
                let data = TensorData::new(values.clone(), shape.clone());
                match shape.len() {
                    1 => visitor.visit(name, &mut Param::from_tensor(Tensor::<1>::from_data(data, &device))),
                    2 => visitor.visit(name, &mut Param::from_tensor(Tensor::<2>::from_data(data, &device))),
                    3 => visitor.visit(name, &mut Param::from_tensor(Tensor::<3>::from_data(data, &device))),
                    _ => visitor.visit(name, &mut Param::from_tensor(Tensor::<4>::from_data(data, &device))),
                }
            })
        }
    }
    let file = path.with_extension("pth");
    export_lavis(&file, &mut Listed(tensors), Some("opt_model"), precision).unwrap();
    std::fs::rename(file, path).unwrap();
}

pub(crate) fn write_json(path: &Path, value: &Value) {
    std::fs::write(path, value.to_string()).unwrap();
}

pub(crate) fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
