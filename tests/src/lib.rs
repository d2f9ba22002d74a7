//! What the end-to-end tests share: the binary, runs of it with a deadline, small corpora, certificates and
//! secrets, the decoders of foreign bytes.

pub mod authority;
pub mod cluster;
pub mod corpus;
pub mod decoders;
pub mod faulty_proxy;
pub mod file_server;
pub mod http;
pub mod mutation;
pub mod need;
pub mod pool;
pub mod process;
pub mod relay;
pub mod run;
pub mod secrets;
