//! The formats of files with named tensors: safetensors, PyTorch's and GGUF, alone or as shards of a folder.

pub(super) mod container;
mod encoding;
pub(super) mod folder;
pub(super) mod gguf;
pub(super) mod open;
mod pytorch;
mod safetensors;

pub use folder::is_weight_file;
pub use gguf::is_gguf;
