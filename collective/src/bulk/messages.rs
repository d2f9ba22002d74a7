//! The messages of a call's body, as they arrive.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use tonic::Status;
use tonic::body::Body;

use super::frame::{Deframer, Fault, Piece};

/// The service's paths.
pub(super) const PUSH: &str = "/blip2.v1.Bulk/Push";
pub(super) const FETCH_STATE: &str = "/blip2.v1.Bulk/FetchState";

/// The messages of a body, piece by piece.
pub(super) struct Messages {
    body: Body,
    deframer: Deframer,
    input: Bytes,
    /// Silence after which the sender is given up.
    idle: Duration,
    /// What the peer says of its call at its end.
    pub(super) end: Option<Status>,
}

impl Messages {
    pub(super) fn new(body: Body, largest: usize, idle: Duration) -> Self {
        Self { body, deframer: Deframer::new(largest), input: Bytes::new(), idle, end: None }
    }

    pub(super) async fn next(&mut self) -> Result<Option<Piece>, Status> {
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
