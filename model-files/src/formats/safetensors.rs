//! The header of a safetensors file.

use std::sync::Arc;

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::container::{Container, OpenFile, Stored};
use super::encoding::Encoding;
use crate::error::ModelError;

/// Largest header that is read, as in the reference implementation.
const MAX_HEADER: u64 = 100_000_000;

pub(crate) fn open(file: OpenFile) -> Result<Container, ModelError> {
    let file = Arc::new(file);
    if file.size < 8 {
        return Err(file.error(format!("no header in {} bytes", file.size)));
    }
    let mut length = [0; 8];
    length.copy_from_slice(&file.bytes(0, 8)?);
    let length = u64::from_le_bytes(length);
    if length > (file.size - 8).min(MAX_HEADER) {
        let size = file.size;
        let reason = format!(
            "a header of {length} bytes in a file of {size}: truncated, or not one of .safetensors, .gguf and \
             PyTorch's .bin, .pt and .pth"
        );
        return Err(file.error(reason));
    }
    let header = file.bytes(8, length as usize)?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|e| file.error(format!("header: {e}")))?;
    let mut container = Container::default();
    for (name, info) in metadata.tensors() {
        let (start, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
        let (shape, encoding) = (info.shape.clone(), encoding(info.dtype));
        let length = Some(end.saturating_sub(start));
        let tensor = Stored::in_file(&name, shape, encoding, &file, 8 + header.len() as u64 + start, length)?;
        container.add(name, tensor);
    }
    Ok(container)
}

fn encoding(dtype: Dtype) -> Encoding {
    match dtype {
        Dtype::F64 => Encoding::F64,
        Dtype::F32 => Encoding::F32,
        Dtype::F16 => Encoding::F16,
        Dtype::BF16 => Encoding::Bf16,
        other => Encoding::Other(format!("{other:?}")),
    }
}
