//! Files that `torch.save` wrote: archives, and the older streams of pickles. Nothing in them is executed.

use std::path::Path;

use pytorch_reader::{DType, PytorchReader};

use super::container::{Container, Place, Stored};
use super::encoding::Encoding;
use crate::error::ModelError;

/// Keys under which a checkpoint keeps its state dictionary beside other things: `model` in LAVIS, `module`
/// in DeepSpeed.
const HOLDERS: &[&str] = &["model", "state_dict", "model_state_dict", "module"];

/// Whether a file is PyTorch's: an archive, or one of the names that such files have.
pub(crate) fn is_pytorch(path: &Path, magic: &[u8]) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    magic.starts_with(b"PK\x03\x04") || matches!(extension, Some("bin" | "pt" | "pth"))
}

/// The tensors of the state dictionary, which is the file's content or lies under one of [`HOLDERS`].
pub(crate) fn open(path: &Path) -> Result<Container, ModelError> {
    let held = HOLDERS.iter().find_map(|holder| PytorchReader::with_top_level_key(path, holder).ok());
    let reader = match held.filter(|reader| !reader.is_empty()) {
        Some(reader) => reader,
        None => PytorchReader::new(path)
            .map_err(|error| ModelError::Format { path: path.into(), reason: error.to_string() })?,
    };
    let mut container = Container::default();
    for (name, tensor) in reader.into_tensors() {
        let (shape, encoding) = (tensor.shape().to_vec(), encoding(tensor.dtype()));
        let place = Place::Pytorch { path: path.to_path_buf(), tensor };
        container.add(name.clone(), Stored { name, shape, encoding, place });
    }
    Ok(container)
}

fn encoding(dtype: DType) -> Encoding {
    match dtype {
        DType::F64 => Encoding::F64,
        DType::F32 => Encoding::F32,
        DType::F16 => Encoding::F16,
        DType::BF16 => Encoding::Bf16,
        other => Encoding::Other(format!("{other:?}")),
    }
}
