//! The formats of files with named tensors: safetensors, PyTorch's and GGUF, alone or as shards of a folder.

pub(crate) mod container;
mod encoding;
pub(crate) mod folder;
pub(crate) mod gguf;
pub(crate) mod open;
mod pytorch;
mod safetensors;

pub use folder::is_weight_file;
pub use gguf::is_gguf;
