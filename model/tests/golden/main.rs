//! Comparison with numbers of the reference implementations.
//!
//! `BLIP2_GOLDEN_DIR` names the folder of cases; without it, the repository's own `tests/golden` is used.

mod blip;
mod contrast;
mod fixture;
mod huggingface;
mod instruct;
mod lora;
mod mixed;
mod narrow;
mod operations;
mod retrieval;
