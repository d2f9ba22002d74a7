//! Numbers from scores alone, whoever computed them.

pub mod captions;
pub mod retrieval;
