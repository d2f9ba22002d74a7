//! The whole of BLIP-2: image and prompt in, scores or text out.

pub mod asking;
mod config;
pub mod export;
mod model;
mod retrieval;
mod tokens;

pub use config::PublishedQFormer;
pub use model::Blip2;
pub use retrieval::Blip2Retrieval;
pub use tokens::PromptTokens;
