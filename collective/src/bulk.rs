//! The calls of the `Bulk` service, on the wire the gRPC that its `.proto` says, in memory without its copies.

mod call;
mod frame;
mod service;

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use tonic::Status;
use tonic::body::Body;

pub(crate) use call::{Call, open, state};
#[doc(hidden)]
pub use frame::read_bulk_messages;
pub(crate) use frame::{MAX_HEAD, Piece, put_head};
pub(crate) use service::{BulkService, check_token, within};

use frame::{Deframer, Fault};

/// The service's paths.
const PUSH: &str = "/blip2.v1.Bulk/Push";
const FETCH_STATE: &str = "/blip2.v1.Bulk/FetchState";

/// The messages of a body, piece by piece.
struct Messages {
    body: Body,
    deframer: Deframer,
    input: Bytes,
    /// Silence after which the sender is given up.
    idle: Duration,
    /// What the peer says of its call at its end.
    end: Option<Status>,
}

impl Messages {
    fn new(body: Body, largest: usize, idle: Duration) -> Self {
        Self { body, deframer: Deframer::new(largest), input: Bytes::new(), idle, end: None }
    }

    async fn next(&mut self) -> Result<Option<Piece>, Status> {
        loop {
            if let Some(piece) = self.deframer.next(&mut self.input).map_err(status)? {
                return Ok(Some(piece));
            }
            let frame = tokio::time::timeout(self.idle, self.body.frame()).await.map_err(|_| {
                Status::deadline_exceeded(format!("nothing sent for {:.0} s", self.idle.as_secs_f64()))
            })?;
            match frame {
                Some(frame) => match frame?.into_data() {
                    Ok(data) => self.input = data,
                    Err(frame) => {
                        self.end = frame.trailers_ref().and_then(Status::from_header_map);
                    }
                },
                None => return self.deframer.end().map(|()| None).map_err(status),
            }
        }
    }
}

fn status(fault: Fault) -> Status {
    let reason = fault.to_string();
    match fault {
        Fault::TooLarge(..) => Status::out_of_range(reason),
        Fault::Compressed => Status::unimplemented(reason),
        Fault::Malformed(_) | Fault::Cut => Status::invalid_argument(reason),
    }
}
