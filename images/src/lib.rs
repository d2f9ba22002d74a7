//! Images: encoded bytes to RGB, and RGB to what a model takes.
//!
//! | module | holds |
//! |---|---|
//! | [`decode`] | JPEG, PNG, WebP, GIF, BMP and TIFF to RGB, within a number of pixels |
//! | [`transform`] | the training crop, decoded as small as it may be, and the transforms of evaluation |
//!
//! All of it is a function of bytes, settings and draws: it knows no file, no store and no row. Bytes come
//! from strangers: whatever they are, the answer is an image of the size that was asked for, or one reason.

pub mod decode;
mod error;
mod guard;
#[cfg(test)]
mod hostile;
mod jpeg;
mod reduced;
pub mod transform;

pub use error::ImageError;
pub use image::RgbImage;
