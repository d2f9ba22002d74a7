//! The served side of an exchange.

use std::pin::Pin;
use std::sync::Arc;

use blip2_proto::v1::exchange_server::Exchange;
use blip2_proto::v1::{FetchRowsRequest, RowChunk};
use bytes::Bytes;
use futures::{Stream, stream};
use tonic::{Request, Response, Status};

use crate::bulk::{check_token, within};
use crate::mailbox::Mailbox;

type Reply<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Answers the peers from a mailbox. A message that is refused ends its own call and nothing else.
#[derive(Debug, Clone)]
pub(crate) struct ExchangeService {
    pub(crate) token: String,
    pub(crate) mailbox: Arc<Mailbox>,
}

#[tonic::async_trait]
impl Exchange for ExchangeService {
    type FetchRowsStream = Reply<RowChunk>;

    async fn fetch_rows(
        &self,
        request: Request<FetchRowsRequest>,
    ) -> Result<Response<Self::FetchRowsStream>, Status> {
        let extensions = request.extensions().clone();
        let FetchRowsRequest { token, epoch, step, rows } = request.into_inner();
        check_token(&self.token, &token, &extensions)?;
        let published = within(self.mailbox.limits.publish_wait, self.mailbox.rows(epoch, step)).await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            let data = published
                .get(&row)
                .ok_or_else(|| Status::not_found(format!("row {row} is not published for step {step}")))?;
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
}

/// Cuts a buffer into messages without copying; an empty buffer is one empty message.
fn pieces(data: Bytes, size: usize) -> Vec<Bytes> {
    if data.is_empty() {
        return vec![data];
    }
    (0..data.len()).step_by(size).map(|start| data.slice(start..data.len().min(start + size))).collect()
}
