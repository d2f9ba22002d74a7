//! What a language model's passes keep for the gradient of what they read.

/// What a language model's passes keep of a text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LanguageKept {
    /// Numbers in those of its matrices: inputs of norms and activations, queries, keys and values.
    pub narrow: usize,
    /// float32 numbers: probabilities, and scores over the vocabulary with their gradient.
    pub wide: usize,
}
