//! The gRPC contract between the coordinator and the workers, and among the workers; and how their processes
//! connect.
//!
//! - [`v1`] is the contract as generated. `coordinator.proto` is a worker's life in a run: one bidirectional
//!   stream, ordered both ways. `exchange.proto` is what members send each other inside a step.
//!   `leases.proto` hands out the tasks of a curation or an evaluation. Bulk fields (`Chunk`, `StateChunk`)
//!   are [`bytes::Bytes`]: a received chunk is a view of the frame it came in.
//! - [`bounds`] says how long messages and their fields may be, [`text`] makes the text of others fit to be
//!   shown.
//! - [`transport`] decides about sockets, HTTP/2 and TLS, [`token`] about who is let in.
//! - [`drill`] rehearses faults at named places.
//!
//! It knows no run, no corpus and no model: what messages mean is the business of those who send them.

pub mod bounds;
pub mod drill;
pub mod text;
pub mod token;
pub mod transport;

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
