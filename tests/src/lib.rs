//! What the end-to-end tests share: the binary, runs of it with a deadline, small corpora, the decoders of
//! foreign bytes.

pub mod cluster;
pub mod corpus;
pub mod decoders;
pub mod faulty_proxy;
pub mod file_server;
pub mod http;
pub mod mutation;
pub mod need;
pub mod process;
pub mod relay;
pub mod run;
