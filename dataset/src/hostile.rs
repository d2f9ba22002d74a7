//! Data made to harm or merely odd, case by case: it is read as documented or refused with one clear reason.

mod captions;
mod parquet;
mod rows;
