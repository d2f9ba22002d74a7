//! A file of weights, by what its beginning says it is.

use std::path::Path;

use super::container::{Container, OpenFile};
use super::{gguf, pytorch, safetensors};
use crate::error::ModelError;
use crate::lfs::{LFS_POINTER, is_lfs_pointer, lfs_reason};

/// Opens a single file.
pub(crate) fn open_file(path: &Path) -> Result<Container, ModelError> {
    let file = OpenFile::open(path)?;
    let beginning = file.bytes(0, LFS_POINTER.len().min(file.size as usize))?;
    if is_lfs_pointer(&beginning) {
        return Err(file.error(lfs_reason()));
    }
    let magic = &beginning[..4.min(beginning.len())];
    if magic == gguf::MAGIC {
        return gguf::tensors(path);
    }
    if pytorch::is_pytorch(path, magic) {
        return pytorch::open(path);
    }
    safetensors::open(file)
}
