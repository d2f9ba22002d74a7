//! The calling side of an exchange: connections to the peers.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use blip2_proto::v1::exchange_client::ExchangeClient;
use blip2_proto::v1::{Chunk, FetchRowsRequest, FetchStateRequest, PushHeader};
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{FutureExt, stream};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::service::pieces;
use crate::{CollectiveError, Limits, Member, Result, Transport, World};

/// Pause between two attempts to reach a peer.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Connections to the peers, made when first used and again when broken.
#[derive(Debug)]
pub(crate) struct Peers {
    token: String,
    limits: Limits,
    transport: Transport,
    channels: Mutex<BTreeMap<String, Channel>>,
}

impl Peers {
    pub(crate) fn new(token: String, limits: Limits, transport: Transport) -> Self {
        Self { token, limits, transport, channels: Mutex::default() }
    }

    /// Forgets connections to others than the members of `world`.
    pub(crate) fn keep(&self, world: &World) {
        self.channels().retain(|address, _| world.members.iter().any(|member| member.address == *address));
    }

    fn channels(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Channel>> {
        // A map of handles is consistent at every statement, so a poisoned lock is still good.
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn client(&self, address: &str) -> std::result::Result<ExchangeClient<Channel>, Status> {
        let known = self.channels().get(address).cloned();
        let channel = match known {
            Some(channel) => channel,
            None => {
                let connecting = self.transport.connect(address, self.limits.connect_timeout);
                let channel = connecting.await.map_err(Status::unavailable)?;
                self.channels().insert(address.to_owned(), channel.clone());
                channel
            }
        };
        Ok(ExchangeClient::new(channel).max_decoding_message_size(self.limits.message()))
    }

    /// Calls a peer, again while it cannot be reached, for `connect_timeout` at most.
    async fn reach<'a, T>(
        &self,
        address: &str,
        call: impl Fn(ExchangeClient<Channel>) -> BoxFuture<'a, std::result::Result<T, Status>> + Send,
    ) -> std::result::Result<T, Status> {
        let mut unreachable_since: Option<Instant> = None;
        loop {
            let answer = match self.client(address).await {
                Ok(client) => call(client).await,
                Err(status) => Err(status),
            };
            let status = match answer {
                Err(status) if is_transport(&status) => status,
                answer => return answer,
            };
            self.channels().remove(address);
            if unreachable_since.get_or_insert_with(Instant::now).elapsed() >= self.limits.connect_timeout {
                return Err(status);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Sends one buffer, given in pieces, to a member.
    pub(crate) async fn push(&self, to: &Member, header: PushHeader, buffer: &[Bytes]) -> Result<()> {
        let header = PushHeader {
            token: self.token.clone(),
            length: buffer.iter().map(|part| part.len() as u64).sum(),
            ..header
        };
        let size = self.limits.chunk();
        let sent = self
            .reach(&to.address, |mut client| {
                let mut chunks: Vec<Chunk> = buffer
                    .iter()
                    .flat_map(|part| pieces(part.clone(), size))
                    .map(|data| Chunk { header: None, data })
                    .collect();
                match chunks.first_mut() {
                    Some(first) => first.header = Some(header.clone()),
                    None => chunks.push(Chunk { header: Some(header.clone()), data: Bytes::new() }),
                }
                async move { client.push(stream::iter(chunks)).await }.boxed()
            })
            .await;
        sent.map(|_| ()).map_err(|status| failure(to, status))
    }

    /// Fetches rows that a member has published, in the order asked for.
    pub(crate) async fn rows(
        &self,
        from: &Member,
        epoch: u64,
        step: u64,
        rows: &[u64],
    ) -> Result<Vec<(u64, Bytes)>> {
        let most = self.limits.max_buffer_bytes;
        let fetched = self
            .reach(&from.address, |client| {
                let request =
                    FetchRowsRequest { token: self.token.clone(), epoch, step, rows: rows.to_vec() };
                read_rows(client, request, most).boxed()
            })
            .await;
        fetched.map_err(|status| failure(from, status))
    }

    /// Fetches the state after `step` steps.
    pub(crate) async fn state(&self, address: &str, step: u64) -> Result<Bytes> {
        let most = self.limits.max_state_bytes;
        let fetched = self
            .reach(address, |client| {
                read_state(
                    client,
                    FetchStateRequest { token: self.token.clone(), step, ..FetchStateRequest::default() },
                    most,
                )
                .boxed()
            })
            .await;
        fetched.map_err(|status| CollectiveError::State {
            address: address.to_owned(),
            step,
            reason: status.message().to_owned(),
        })
    }
}

/// Reads the rows of a request, in its order, of at most `most` bytes together.
async fn read_rows(
    mut client: ExchangeClient<Channel>,
    request: FetchRowsRequest,
    most: u64,
) -> std::result::Result<Vec<(u64, Bytes)>, Status> {
    let rows = request.rows.clone();
    let mut chunks = client.fetch_rows(request).await?.into_inner();
    let (mut found, mut total) = (Vec::with_capacity(rows.len()), 0u64);
    let mut parts: Vec<Bytes> = Vec::new();
    while let Some(chunk) = chunks.message().await? {
        total += chunk.data.len() as u64;
        if total > most || rows.get(found.len()) != Some(&chunk.row) {
            return Err(Status::data_loss(format!(
                "row {} after {total} bytes is not what was asked for (at most {most} bytes)",
                chunk.row
            )));
        }
        parts.push(chunk.data);
        if chunk.last {
            found.push((chunk.row, joined(&mut parts)));
        }
    }
    if found.len() != rows.len() {
        return Err(Status::data_loss(format!("{} rows of {}", found.len(), rows.len())));
    }
    Ok(found)
}

/// Reads a state of at most `most` bytes.
async fn read_state(
    mut client: ExchangeClient<Channel>,
    request: FetchStateRequest,
    most: u64,
) -> std::result::Result<Bytes, Status> {
    let mut chunks = client.fetch_state(request).await?.into_inner();
    let mut state = BytesMut::new();
    while let Some(chunk) = chunks.message().await? {
        if (state.len() + chunk.data.len()) as u64 > most {
            return Err(Status::data_loss(format!("the state is larger than {most} bytes")));
        }
        state.extend_from_slice(&chunk.data);
    }
    Ok(state.freeze())
}

fn joined(parts: &mut Vec<Bytes>) -> Bytes {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let whole: BytesMut = parts.drain(..).fold(BytesMut::new(), |mut whole, part| {
        whole.extend_from_slice(&part);
        whole
    });
    whole.freeze()
}

/// Whether the call failed below the peer's answer. A transport error carries its cause, an answer does not.
fn is_transport(status: &Status) -> bool {
    use std::error::Error;
    status.code() == Code::Unavailable || status.source().is_some() && status.code() != Code::InvalidArgument
}

fn failure(member: &Member, status: Status) -> CollectiveError {
    if is_transport(&status) {
        return CollectiveError::PeerLost {
            member: member.id,
            address: member.address.clone(),
            reason: status.message().to_owned(),
        };
    }
    CollectiveError::Refused { member: member.id, reason: status.message().to_owned() }
}
