//! Images: encoded bytes to RGB, and RGB to what a model takes.

pub mod decode;
mod jpeg;
pub mod transform;

pub use image::RgbImage;
