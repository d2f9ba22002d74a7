//! The gRPC contract between the coordinator and the workers, and among the workers.
//!
//! `coordinator.proto` is a worker's life in a run: one bidirectional stream, ordered both ways. `exchange.proto` is
//! what members send each other inside a step. `curation.proto` hands out the tasks of a curation. Bulk fields (`Chunk`, `RowChunk`, `StateChunk`) are [`bytes::Bytes`]:
//! a received chunk is a view of the frame it came in.

mod bounds;
pub mod drill;
mod text;
mod token;

pub use bounds::{
    MAX_IDENTIFIER, TooLong, bounded_from_coordinator, bounded_from_worker, bounded_status, is_identifier,
};
pub use text::{MAX_TEXT, visible};
pub use token::{TOKEN_HEADER, same_token, shown_token, token_header, with_token};

/// Longest message between a worker and a coordinator, in bytes: a ledger names every row quarantined since a checkpoint.
pub const MAX_CONTROL_MESSAGE: usize = 32 << 20;

/// Longest message of one that has not shown the run's token, in bytes: a Hello without a ledger.
pub const MAX_STRANGER_MESSAGE: usize = 8 << 10;

/// Version 1 of the contract, as generated.
pub mod v1 {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    tonic::include_proto!("blip2.v1");
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::v1;

    #[test]
    fn a_decoded_chunk_shares_the_frame_it_came_in() {
        let chunk = v1::Chunk { header: None, data: bytes::Bytes::from(vec![7u8; 4096]) };
        let frame = bytes::Bytes::from(chunk.encode_to_vec());
        let decoded = v1::Chunk::decode(frame.clone()).expect("what was encoded decodes");
        let (start, end) = (frame.as_ptr() as usize, frame.as_ptr() as usize + frame.len());
        assert!((start..end).contains(&(decoded.data.as_ptr() as usize)));
        assert_eq!(decoded, chunk);
    }
}
