//! A corpus: Parquet files of images and captions, what is in them, and how they are made, shown and checked.
//!
//! [`columns`] says which column means what. A [`manifest`] pins the files of a run with the rows of their
//! row groups. [`ingest`] makes a corpus of what the field publishes, [`survey`] and [`one_row`] show one,
//! [`verify`] checks one, [`samples`] reads a small one whole, and [`simulated`] writes one that has the
//! shape alone.

pub mod archive_name;
pub mod columns;
pub mod ingest;
pub mod manifest;
pub mod one_row;
pub mod parquet_file;
pub mod row_group_file;
mod row_group_hash;
pub mod samples;
pub mod simulated;
pub mod survey;
pub mod verify;
