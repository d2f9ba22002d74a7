//! The served side.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use blip2_proto::token::same_token;
use blip2_proto::v1::{FetchStateRequest, PushHeader, StateHeader};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use http::header::CONTENT_TYPE;
use http::{Extensions, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Limited, StreamBody};
use prost::Message;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;

use super::frame::{MAX_HEAD, Piece, put_head};
use super::messages::{FETCH_STATE, Messages, PUSH};
use crate::mailbox::{Admission, MailKey, Mailbox, State};
use blip2_proto::transport::authenticate;

/// Largest request of a fetch.
const MAX_REQUEST: usize = 4096;

/// Answers the bulk calls of the peers from a mailbox. What is refused ends its own call and nothing else.
#[derive(Debug, Clone)]
pub(crate) struct BulkService {
    pub(crate) token: Arc<str>,
    pub(crate) mailbox: Arc<Mailbox>,
}

impl NamedService for BulkService {
    const NAME: &'static str = "blip2.v1.Bulk";
}

impl tower::Service<Request<Body>> for BulkService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let answer = match parts.uri.path() {
                PUSH => service.push(&parts.extensions, body).await,
                FETCH_STATE => service.fetch_state(&parts.extensions, body).await,
                _ => Err(Status::unimplemented("there is no such call")),
            };
            Ok(answer.unwrap_or_else(Status::into_http))
        })
    }
}

impl BulkService {
    async fn push(&self, extensions: &Extensions, body: Body) -> Result<Response<Body>, Status> {
        let limits = &self.mailbox.limits;
        let mut messages = Messages::new(body, limits.message(), limits.idle_timeout);
        let header = match messages.next().await? {
            Some(Piece::Header(header)) => PushHeader::decode(header)
                .map_err(|error| Status::invalid_argument(format!("the header: {error}")))?,
            Some(Piece::Data(_)) => return Err(Status::invalid_argument("the first chunk has no header")),
            None => return Err(Status::invalid_argument("an empty stream")),
        };
        check_token(&self.token, &header.token, extensions)?;
        let PushHeader { epoch, step, tag, from_member, length, .. } = header;
        let key = MailKey { epoch, step, tag, from: from_member };
        // The peer may send again what it does not know to have arrived.
        if let Admission::Wanted(mut delivery) = self.mailbox.admit(&key, length)? {
            while let Some(piece) = messages.next().await? {
                match piece {
                    Piece::Data(data) => delivery.push(data)?,
                    Piece::Header(_) => return Err(Status::invalid_argument("a second header")),
                }
            }
            delivery.finish()?;
        }
        // The reply has no fields: an empty message.
        let mut empty = BytesMut::new();
        put_head(None, 0, &mut empty);
        Ok(answered(stream::iter([empty.freeze()])))
    }

    async fn fetch_state(&self, extensions: &Extensions, body: Body) -> Result<Response<Body>, Status> {
        let body = Limited::new(body, MAX_REQUEST).collect().await;
        let body =
            body.map_err(|error| Status::invalid_argument(format!("the request: {error}")))?.to_bytes();
        let malformed = || Status::invalid_argument("the request is no single uncompressed message");
        let [0, a, b, c, d, message @ ..] = &body[..] else { return Err(malformed()) };
        if u32::from_be_bytes([*a, *b, *c, *d]) as usize != message.len() {
            return Err(malformed());
        }
        let request = FetchStateRequest::decode(message)
            .map_err(|error| Status::invalid_argument(format!("the request: {error}")))?;
        check_token(&self.token, &request.token, extensions)?;
        let wait = self.mailbox.limits.publish_wait;
        let state = within(wait, self.mailbox.state(request.step)).await?;
        let total: u64 = state.iter().map(|piece| piece.len() as u64).sum();
        let FetchStateRequest { offset, length, .. } = request;
        if offset > total {
            return Err(Status::invalid_argument(format!("offset {offset} in a state of {total} bytes")));
        }
        let length = if length == 0 { total - offset } else { length.min(total - offset) };
        Ok(answered(state_messages(state, total, offset, length, self.mailbox.limits.chunk())))
    }
}

/// Takes note of a connection over which the right token is shown.
fn check_token(ours: &str, shown: &str, extensions: &Extensions) -> Result<(), Status> {
    if !same_token(ours, shown) {
        return Err(Status::unauthenticated("the token is not this run's"));
    }
    authenticate(extensions);
    Ok(())
}

/// The bytes of the messages that carry a window of a state. The state itself is sent where it lies.
fn state_messages(
    state: State,
    total: u64,
    offset: u64,
    length: u64,
    size: usize,
) -> impl Stream<Item = Bytes> + Send + 'static {
    let mut first = BytesMut::new();
    put_head(Some(&StateHeader { total }.encode_to_vec()), 0, &mut first);
    let mut start = 0;
    let windows: Vec<(usize, std::ops::Range<usize>)> = (0..state.len())
        .filter_map(|piece| {
            let bytes = state[piece].len() as u64;
            let from = offset.saturating_sub(start).min(bytes);
            let to = (offset + length).saturating_sub(start).min(bytes);
            start += bytes;
            (from < to).then_some((piece, from as usize..to as usize))
        })
        .collect();
    let data = windows.into_iter().flat_map(move |(piece, window)| {
        let state = state.clone();
        window.clone().step_by(size).flat_map(move |at| {
            let data = state[piece].slice(at..window.end.min(at + size));
            let mut head = BytesMut::with_capacity(MAX_HEAD);
            put_head(None, data.len(), &mut head);
            [head.freeze(), data]
        })
    });
    stream::iter(std::iter::once(first.freeze()).chain(data))
}

/// A good answer.
fn answered(bytes: impl Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = bytes.map(Frame::data).chain(stream::iter([Frame::trailers(trailers)]));
    let mut answer = Response::new(Body::new(StreamBody::new(frames.map(Ok::<_, Infallible>))));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer
}

/// Waits for what is to be published.
async fn within<T>(
    wait: Duration,
    answer: impl Future<Output = Result<T, crate::mailbox::Refusal>>,
) -> Result<T, Status> {
    match tokio::time::timeout(wait, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Status::deadline_exceeded(format!("not published within {:.0} s", wait.as_secs_f64()))),
    }
}
