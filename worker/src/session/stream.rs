//! An open session: messages of both directions, in order.

use std::error::Error;
use std::time::Duration;

use blip2_proto::bounds::{MAX_CONTROL_MESSAGE, bounded_from_coordinator};
use blip2_proto::text::{MAX_TEXT, visible};
use blip2_proto::token::with_token;
use blip2_proto::transport::{ConnectError, Transport};
use blip2_proto::v1::coordinator_client::CoordinatorClient;
use blip2_proto::v1::coordinator_message::Kind as FromCoordinator;
use blip2_proto::v1::worker_message::Kind as ToCoordinator;
use blip2_proto::v1::{CoordinatorMessage, WorkerMessage};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Messages that may wait to be sent; a coordinator that lets more pile up is gone.
const WAITING: usize = 64;

/// The stream to a coordinator; dropping it ends the session.
pub(super) struct Stream {
    address: String,
    outgoing: mpsc::Sender<WorkerMessage>,
    incoming: Streaming<CoordinatorMessage>,
}

impl Stream {
    /// Opens a session with the coordinator at `address`.
    pub(super) async fn open(
        transport: &Transport,
        address: &str,
        token: &str,
        within: Duration,
    ) -> Result<Self, ConnectError> {
        let opening = async {
            let channel = transport.connect_watched(address, within).await?;
            let mut client = CoordinatorClient::new(channel)
                .max_decoding_message_size(MAX_CONTROL_MESSAGE)
                .max_encoding_message_size(MAX_CONTROL_MESSAGE);
            let (outgoing, messages) = mpsc::channel(WAITING);
            let answer = client.session(with_token(ReceiverStream::new(messages), token)).await;
            let incoming = answer.map_err(|status| not_opened(transport, &status))?.into_inner();
            Ok(Self { address: address.to_owned(), outgoing, incoming })
        };
        match tokio::time::timeout(within, opening).await {
            Ok(opened) => opened.map_err(|error: ConnectError| ConnectError {
                reason: format!("{address}: {}", error.reason),
                ..error
            }),
            Err(_) => Err(format!("{address} does not answer within {:.1} s", within.as_secs_f64()).into()),
        }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Sends a message without waiting.
    pub(super) fn send(&self, message: ToCoordinator) -> Result<(), String> {
        let sent = self.outgoing.try_send(WorkerMessage { kind: Some(message) });
        sent.map_err(|_| format!("{} takes no more messages", self.address))
    }

    /// The next message, or why there is none any more. Nothing is lost when it is not waited for.
    pub(super) async fn next(&mut self) -> Result<FromCoordinator, String> {
        loop {
            match self.incoming.message().await {
                Ok(Some(CoordinatorMessage { kind: Some(message) })) => {
                    return bounded_from_coordinator(message)
                        .map_err(|error| format!("{}: {error}", self.address));
                }
                // Of a newer version, or empty: nothing this member could follow.
                Ok(Some(CoordinatorMessage { kind: None })) => {}
                Ok(None) => return Err(format!("{} closed the session", self.address)),
                Err(status) => {
                    return Err(format!("{}: {}", self.address, visible(status.message(), MAX_TEXT)));
                }
            }
        }
    }
}

/// Why the call was not answered: what the transport says beneath it, or the other side.
fn not_opened(transport: &Transport, status: &Status) -> ConnectError {
    let Some(cause) = status.source() else { return visible(status.message(), MAX_TEXT).into() };
    let mut error = ConnectError::of(cause);
    // The other side hangs up without a word that arrives.
    if transport.is_encrypted() && !error.untrusted {
        error.reason +=
            "; with TLS this is what a certificate that the other side does not accept looks like";
    }
    error
}
