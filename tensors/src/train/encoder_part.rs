//! The parts of an image encoder that tensors belong to, by their names.

use crate::train::tape::Segment;

/// How the names of a trained image encoder begin, in either layout.
const PREFIX: &str = "visual_encoder.";

/// How a block's names go on, before its number: in the EVA layout and in CLIP's.
const BLOCKS: [&str; 2] = ["blocks.", "encoder.layers."];

/// Where in an image encoder a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EncoderPart {
    /// Before the first block, and counted to the layer below it: class, positions, EVA's patches.
    Embeddings,
    /// CLIP's patches and the norm before its first block.
    Beginning,
    /// A block.
    Block(usize),
}

impl EncoderPart {
    /// The part that the tensor `name` is of; none outside an image encoder.
    pub(crate) fn of(name: &str) -> Option<Self> {
        let rest = name.strip_prefix(PREFIX)?;
        let block = BLOCKS.iter().find_map(|stem| rest.strip_prefix(stem)?.split('.').next()?.parse().ok());
        Some(match block {
            Some(block) => Self::Block(block),
            None if ["embeddings.patch_embedding.", "pre_layrnorm."]
                .iter()
                .any(|own| rest.starts_with(own)) =>
            {
                Self::Beginning
            }
            None => Self::Embeddings,
        })
    }

    /// The segment that completes the part's gradient.
    pub(crate) fn segment(self) -> Segment {
        match self {
            Self::Block(block) => Segment::Block(block),
            Self::Embeddings | Self::Beginning => Segment::Patches,
        }
    }
}
