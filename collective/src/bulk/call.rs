//! The calling side.

use std::convert::Infallible;
use std::time::Duration;

use blip2_proto::token::token_header;
use blip2_proto::v1::{FetchStateRequest, PushHeader, StateHeader};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use prost::Message;
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::ServiceExt;

use super::frame::{Piece, put_head};
use super::messages::{FETCH_STATE, Messages, PUSH};

/// Messages that wait for the connection: enough to keep it busy, few enough to stay in the cache.
const AHEAD: usize = 2;

/// A push in progress: where its messages go, and its end.
pub(crate) struct Call<F> {
    /// Takes whole messages; dropping it ends the buffer.
    pub(crate) messages: mpsc::Sender<Bytes>,
    /// What the peer answers.
    pub(crate) answer: F,
}

/// Starts pushing a buffer.
pub(crate) fn open(channel: Channel, header: &PushHeader) -> Call<impl Future<Output = Result<(), Status>>> {
    let (messages, mut waiting) = mpsc::channel::<Bytes>(AHEAD);
    let token = header.token.clone();
    let mut first = BytesMut::new();
    put_head(Some(&header.encode_to_vec()), 0, &mut first);
    let rest = stream::poll_fn(move |context| waiting.poll_recv(context));
    let bytes = stream::iter([first.freeze()]).chain(rest);
    let body = StreamBody::new(bytes.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes))));
    let answer = async move {
        let mut body = call(channel, PUSH, &token, Body::new(body)).await?.into_body();
        while let Some(frame) = body.frame().await {
            if let Some(trailers) = frame?.trailers_ref() {
                return ended(Status::from_header_map(trailers));
            }
        }
        ended(None)
    };
    Call { messages, answer }
}

/// Asks for part of a state; gives its whole length and hands the part's bytes to `take` as they come.
pub(crate) async fn state(
    channel: Channel,
    request: &FetchStateRequest,
    largest: usize,
    idle: Duration,
    mut take: impl FnMut(u64, &[u8]) -> Result<(), Status>,
) -> Result<u64, Status> {
    let mut message = BytesMut::new();
    let encoded = request.encode_to_vec();
    message.extend_from_slice(&[0]);
    message.extend_from_slice(&(encoded.len() as u32).to_be_bytes());
    message.extend_from_slice(&encoded);
    let body = Body::new(Full::new(message.freeze()));
    let answer = call(channel, FETCH_STATE, &request.token, body).await?;
    let mut messages = Messages::new(answer.into_body(), largest, idle);
    let mut total = None;
    while let Some(piece) = messages.next().await? {
        match (piece, total) {
            (Piece::Header(header), None) => {
                let header = StateHeader::decode(header)
                    .map_err(|error| Status::data_loss(format!("the answer's header: {error}")))?;
                total = Some(header.total);
            }
            (Piece::Data(data), Some(total)) => take(total, &data)?,
            _ => return Err(Status::data_loss("the answer's header is not where it belongs")),
        }
    }
    ended(messages.end)?;
    total.ok_or_else(|| Status::data_loss("an empty answer"))
}

async fn call(
    channel: Channel,
    path: &'static str,
    token: &str,
    body: Body,
) -> Result<Response<Body>, Status> {
    let mut request = Request::new(body);
    *request.headers_mut() = token_header(token);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(path);
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    let answer = channel.oneshot(request).await.map_err(|error| Status::from_error(error.into()))?;
    match Status::from_header_map(answer.headers()) {
        Some(status) if status.code() != Code::Ok => Err(status),
        _ if answer.status() != http::StatusCode::OK => {
            Err(Status::unknown(format!("the peer answered with HTTP {}", answer.status())))
        }
        _ => Ok(answer),
    }
}

fn ended(status: Option<Status>) -> Result<(), Status> {
    match status {
        Some(status) if status.code() == Code::Ok => Ok(()),
        Some(status) => Err(status),
        None => Err(Status::unavailable("the connection ended before the call did")),
    }
}
