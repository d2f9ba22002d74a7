//! Pixels that a scene's ground shows through.

/// Pixels with red, green, blue and opacity; the colours are not multiplied by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sprite {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Line by line.
    pub(crate) pixels: Vec<[u8; 4]>,
}
