//! Data made to harm or merely odd, case by case: it is read as documented or refused with one clear reason.

mod captions;
mod images;
mod parquet;
mod rows;

/// A reason is one line that a person can read.
fn is_clear(reason: &str) -> bool {
    !reason.is_empty() && reason.len() < 400 && !reason.contains('\n') && !reason.contains("panicked")
}
