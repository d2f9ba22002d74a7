//! Bytes that say nothing, sent to learn how fast a way is.

use std::time::{Duration, Instant};

use blip2_proto::token::with_token;
use blip2_proto::v1::diagnostics_client::DiagnosticsClient;
use blip2_proto::v1::{GiveRequest, ProbeChunk};
use bytes::Bytes;
use futures::stream::{self, Stream};
use tonic::Status;
use tonic::transport::Channel;

/// Bytes of a measurement in one direction, at most.
pub const MOST_PROBED: u64 = 64 << 20;
/// Bytes of a message.
const CHUNK: u64 = 1 << 18;
/// After this long a slow way is measured well enough.
const LONG_ENOUGH: Duration = Duration::from_secs(3);
/// A way that takes longer is not measured.
const GIVE_UP: Duration = Duration::from_secs(20);

/// How fast a way is, in bytes a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bandwidth {
    /// To the member.
    pub to: f64,
    /// From it.
    pub from: f64,
}

/// Messages of so many bytes in all.
pub(crate) fn chunks(bytes: u64) -> impl Iterator<Item = ProbeChunk> {
    static NOTHING: [u8; CHUNK as usize] = [0; CHUNK as usize];
    let sizes = (0..bytes.div_ceil(CHUNK)).map(move |index| CHUNK.min(bytes - index * CHUNK));
    sizes.map(|size| ProbeChunk { data: Bytes::from_static(&NOTHING[..size as usize]) })
}

/// Measures the way to a member of the run with this token, and back, with `bytes` each or as many as three
/// seconds take.
///
/// # Errors
/// The member's refusal: it is measured by somebody else, does not know of this, or takes no such token; or
/// the way is too slow to be measured.
pub async fn measure(channel: Channel, token: &str, bytes: u64) -> Result<Bandwidth, Status> {
    let mut client = DiagnosticsClient::new(channel);
    let slow = |_| Status::deadline_exceeded(format!("it takes more than {GIVE_UP:?}"));
    let to = tokio::time::timeout(GIVE_UP, to_member(&mut client, token, bytes)).await.map_err(slow)??;
    let from =
        tokio::time::timeout(GIVE_UP, from_member(&mut client, token, bytes)).await.map_err(slow)??;
    Ok(Bandwidth { to, from })
}

async fn to_member(client: &mut DiagnosticsClient<Channel>, token: &str, bytes: u64) -> Result<f64, Status> {
    let began = Instant::now();
    let request = with_token(for_a_while(bytes, began), token);
    let taken = client.take_bytes(request).await?.into_inner().bytes;
    rate(taken, began)
}

fn for_a_while(bytes: u64, began: Instant) -> impl Stream<Item = ProbeChunk> {
    stream::iter(chunks(bytes).take_while(move |_| began.elapsed() < LONG_ENOUGH))
}

async fn from_member(
    client: &mut DiagnosticsClient<Channel>,
    token: &str,
    bytes: u64,
) -> Result<f64, Status> {
    let request = with_token(GiveRequest { bytes }, token);
    let began = Instant::now();
    let mut chunks = client.give_bytes(request).await?.into_inner();
    let mut given = 0;
    while began.elapsed() < LONG_ENOUGH
        && let Some(chunk) = chunks.message().await?
    {
        given += chunk.data.len() as u64;
    }
    rate(given, began)
}

fn rate(bytes: u64, began: Instant) -> Result<f64, Status> {
    let seconds = began.elapsed().as_secs_f64();
    match bytes > 0 && seconds > 0.0 {
        true => Ok(bytes as f64 / seconds),
        false => Err(Status::data_loss("no byte arrived")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_of_so_many_bytes_in_all() {
        for bytes in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 7] {
            assert_eq!(chunks(bytes).map(|chunk| chunk.data.len() as u64).sum::<u64>(), bytes);
            assert!(chunks(bytes).all(|chunk| !chunk.data.is_empty() && chunk.data.len() as u64 <= CHUNK));
        }
    }
}
