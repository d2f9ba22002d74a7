//! Images: encoded bytes to RGB, and RGB to what a model takes.

pub mod decode;
mod guard;
mod jpeg;
mod reduced;
pub mod transform;

pub use image::RgbImage;
