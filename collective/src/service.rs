//! The served side of an exchange.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use blip2_proto::same_token;
use blip2_proto::v1::exchange_server::Exchange;
use blip2_proto::v1::{
    Chunk, FetchRowsRequest, FetchStateRequest, PushHeader, PushReply, RowChunk, StateChunk,
};
use bytes::Bytes;
use futures::{Stream, stream};
use tonic::{Request, Response, Status, Streaming};

use crate::mailbox::{MailKey, Mailbox, Refusal};
use crate::segments::Segments;

type Reply<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Answers the peers from a mailbox. A message that is refused ends its own call and nothing else.
#[derive(Debug)]
pub(crate) struct ExchangeService {
    pub(crate) token: String,
    pub(crate) mailbox: Arc<Mailbox>,
}

impl ExchangeService {
    fn check_token(&self, token: &str) -> Result<(), Status> {
        if same_token(&self.token, token) {
            return Ok(());
        }
        Err(Status::unauthenticated("the token is not this run's"))
    }

    async fn receive(&self, chunks: &mut Streaming<Chunk>) -> Result<(), Status> {
        let idle = self.mailbox.limits.idle_timeout;
        let first =
            next_chunk(chunks, idle).await?.ok_or_else(|| Status::invalid_argument("an empty stream"))?;
        let header = first.header.ok_or_else(|| Status::invalid_argument("the first chunk has no header"))?;
        self.check_token(&header.token)?;
        let PushHeader { epoch, step, tag, from_member, length, .. } = header;
        let key = MailKey { epoch, step, tag, from: from_member };
        let room = match self.mailbox.admit(&key, length) {
            // The peer sends again what it does not know to have arrived.
            Err(Refusal::Duplicate) => return Ok(()),
            admitted => admitted.map_err(status)?,
        };
        let mut mail = Segments::default();
        let mut next = Some(first.data);
        while let Some(data) = next {
            if !mail.is_aligned() || (mail.len() + data.len()) as u64 > length {
                return Err(Status::invalid_argument(format!(
                    "{} bytes after {} of {length}: chunks but the last are multiples of four bytes",
                    data.len(),
                    mail.len()
                )));
            }
            mail.push(data);
            next = next_chunk(chunks, idle).await?.map(|chunk| chunk.data);
        }
        if mail.len() as u64 != length {
            return Err(Status::invalid_argument(format!("{} bytes of {length} announced", mail.len())));
        }
        match self.mailbox.deliver(room, key, mail) {
            Err(Refusal::Duplicate) => Ok(()),
            delivered => delivered.map_err(status),
        }
    }
}

async fn next_chunk(chunks: &mut Streaming<Chunk>, idle: Duration) -> Result<Option<Chunk>, Status> {
    match tokio::time::timeout(idle, chunks.message()).await {
        Ok(chunk) => chunk,
        Err(_) => Err(Status::deadline_exceeded(format!("nothing sent for {:.0} s", idle.as_secs_f64()))),
    }
}

#[tonic::async_trait]
impl Exchange for ExchangeService {
    type FetchRowsStream = Reply<RowChunk>;
    type FetchStateStream = Reply<StateChunk>;

    async fn push(&self, request: Request<Streaming<Chunk>>) -> Result<Response<PushReply>, Status> {
        self.receive(&mut request.into_inner()).await?;
        Ok(Response::new(PushReply {}))
    }

    async fn fetch_rows(
        &self,
        request: Request<FetchRowsRequest>,
    ) -> Result<Response<Self::FetchRowsStream>, Status> {
        let FetchRowsRequest { token, epoch, step, rows } = request.into_inner();
        self.check_token(&token)?;
        let published = within(self.mailbox.limits.publish_wait, self.mailbox.rows(epoch, step)).await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            let data = published.get(&row).ok_or_else(|| {
                status(Refusal::NotFound(format!("row {row} is not published for step {step}")))
            })?;
            found.push((row, data.clone()));
        }
        let size = self.mailbox.limits.chunk();
        let chunks = found.into_iter().flat_map(move |(row, data)| {
            let pieces = pieces(data, size);
            let last = pieces.len() - 1;
            pieces
                .into_iter()
                .enumerate()
                .map(move |(place, data)| Ok(RowChunk { row, data, last: place == last }))
        });
        Ok(Response::new(Box::pin(stream::iter(chunks))))
    }

    async fn fetch_state(
        &self,
        request: Request<FetchStateRequest>,
    ) -> Result<Response<Self::FetchStateStream>, Status> {
        let FetchStateRequest { token, step, .. } = request.into_inner();
        self.check_token(&token)?;
        let state = within(self.mailbox.limits.publish_wait, self.mailbox.state(step)).await?;
        let size = self.mailbox.limits.chunk();
        let chunks = (0..state.len())
            .flat_map(move |piece| pieces(state[piece].clone(), size))
            .map(|data| Ok(StateChunk { data, total: 0 }));
        Ok(Response::new(Box::pin(stream::iter(chunks))))
    }
}

/// Cuts a buffer into messages without copying; an empty buffer is one empty message.
pub(crate) fn pieces(data: Bytes, size: usize) -> Vec<Bytes> {
    if data.is_empty() {
        return vec![data];
    }
    (0..data.len()).step_by(size).map(|start| data.slice(start..data.len().min(start + size))).collect()
}

async fn within<T>(wait: Duration, answer: impl Future<Output = Result<T, Refusal>>) -> Result<T, Status> {
    match tokio::time::timeout(wait, answer).await {
        Ok(answer) => answer.map_err(status),
        Err(_) => Err(Status::deadline_exceeded(format!("not published within {:.0} s", wait.as_secs_f64()))),
    }
}

fn status(refusal: Refusal) -> Status {
    match refusal {
        Refusal::TooLarge(reason) => Status::resource_exhausted(reason),
        Refusal::Stale(reason) => Status::failed_precondition(reason),
        Refusal::Stranger(reason) => Status::permission_denied(reason),
        Refusal::Malformed(reason) => Status::invalid_argument(reason),
        Refusal::Duplicate => Status::already_exists("this buffer is here already"),
        Refusal::NotFound(reason) => Status::not_found(reason),
        Refusal::Closed => Status::unavailable("the exchange is shut down"),
    }
}
