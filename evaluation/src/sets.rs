//! Sets that a model is evaluated on: images with captions, and images with questions.
//!
//! They are read in the data sets' own forms, from tables of one's own (CSV, JSONL, Parquet) or from a folder
//! of images. An item is small; its image is read when it is needed.

pub mod captioned;
mod image_folder;
mod image_source;
pub mod item;
pub mod own_references;
mod own_rows;
mod parquet_rows;
pub mod questioned;
