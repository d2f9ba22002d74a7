//! What a stage of a run does, one file a task.

mod contrast;
mod generate;
