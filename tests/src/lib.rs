//! What the end-to-end tests share: the binary, runs of it with a deadline, small corpora.

pub mod corpus;
pub mod process;
pub mod run;
