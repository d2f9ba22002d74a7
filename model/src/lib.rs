//! BLIP-2's models on burn: image encoders, the Q-Former and what it is trained for, frozen language models.
//!
//! The crate knows nothing of storage, networks or processes: it maps tensors to tensors, and reads models
//! from folders and writes them there. What models are built of and trained with is in [`blip2_tensors`],
//! what their files look like in [`blip2_model_files`]. Its floors, from the ground up; each knows those
//! above it in this list, and none below:
//!
//! - [`vision`]: image encoders in the EVA and the CLIP layout.
//! - [`padded`]: texts of one length, and how much of it is computed.
//! - [`trained_encoder`]: one that is trained, its gradient block by block.
//! - [`qformer`]: the Querying Transformer.
//! - [`language`]: the frozen language models behind one interface, and text from them.
//! - [`by_name`]: sizes of published models, where their folders are not there.
//! - [`adapters`]: what is trained beside a language model that stays frozen.
//! - [`objectives`]: the losses that train the Q-Former.
//! - [`clip`]: the reference retriever and ranker; [`blip`]: captioner and filter, for curation.
//! - [`blip2`]: the whole model, and its export to published layouts.

pub mod adapters;
pub mod blip;
pub mod blip2;
pub mod by_name;
pub mod clip;
#[cfg(test)]
mod filled;
pub mod language;
pub mod objectives;
pub mod padded;
#[cfg(test)]
mod published;
pub mod qformer;
pub mod trained_encoder;
pub mod vision;
