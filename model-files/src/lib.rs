//! The files of published models: weights, configurations, tokenizers and image processors, as folders have
//! them, whatever format they are in.
//!
//! The crate knows how files spell the names of tensors and how they lay them out; what the tensors are for,
//! it does not know. A model is to it what lists its tensors
//! ([`NamedTensors`](blip2_tensors::nn::tensors::NamedTensors)). Every length that a file says is bounded by
//! the file before anything is allocated.
//!
//! | module | holds |
//! |---|---|
//! | [`weights`] | tensors in and out under any of their published names, and what they begin with |
//! | [`formats`] | safetensors, PyTorch's files and GGUF, alone or as shards |
//! | [`config`], [`image_processor`] | `config.json`, and how images are prepared |
//! | [`tokenizer`] | any published tokenizer as the content of a `tokenizer.json` |
//! | [`read`], [`lfs`] | small files; pointers that stand for files that were not fetched |
//! | [`error`] | what can go wrong |

pub mod config;
pub mod error;
pub mod formats;
pub mod image_processor;
pub mod lfs;
pub mod read;
pub mod tokenizer;
pub mod weights;
