//! Numbers from scores alone, whoever computed them.

pub mod retrieval;
