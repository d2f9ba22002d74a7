//! One member's end of the collectives.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use blip2_proto::bounds::MAX_STRANGER_MESSAGE;
use blip2_proto::v1::exchange_server::ExchangeServer;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{try_join, try_join_all};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::bulk::BulkService;
use crate::mailbox::Mailbox;
use crate::peers::{Peers, Sent};
use crate::round::Round;
use crate::service::ExchangeService;
use crate::{CollectiveError, Limits, Result, SumTree, TreePartial, World};
use blip2_proto::transport::{Guarded, Transport};

/// How long calls in progress may take to end at a shutdown.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(2);

/// Serves this member's peers and runs the collectives of its world.
///
/// All calls take `&self`; share it in an `Arc`. A tag names one collective of a step and is not used twice
/// in it.
#[derive(Debug)]
pub struct Exchange {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) peers: Peers,
    address: SocketAddr,
    stop: CancellationToken,
    server: Mutex<Option<JoinHandle<()>>>,
}

impl Exchange {
    /// Listens on `address` (port 0: any free one) and serves peers that show `token`, over `transport`.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(
        address: SocketAddr,
        token: String,
        limits: Limits,
        transport: Transport,
    ) -> Result<Self> {
        let refused = |error: std::io::Error| CollectiveError::Bind {
            address: address.to_string(),
            reason: error.to_string(),
        };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let mailbox = Arc::new(Mailbox::new(limits.clone()));
        let stop = CancellationToken::new();
        let bulk = BulkService { token: token.as_str().into(), mailbox: mailbox.clone() };
        let bulk = Guarded::new(&token, bulk.clone(), bulk);
        let service = ExchangeService { token: token.clone(), mailbox: mailbox.clone() };
        let taking = |largest: usize| ExchangeServer::new(service.clone()).max_decoding_message_size(largest);
        let service = Guarded::new(&token, taking(limits.message()), taking(MAX_STRANGER_MESSAGE));
        let routes = transport.server().add_service(bulk).add_service(service);
        let serving =
            routes.serve_with_incoming_shutdown(transport.listen(listener), stop.clone().cancelled_owned());
        #[expect(clippy::disallowed_methods, reason = "joined by `shutdown`")]
        let server = tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%address, %error, "the exchange server ended");
            }
        });
        Ok(Self {
            mailbox,
            peers: Peers::new(token, limits, transport),
            address,
            stop,
            server: Mutex::new(Some(server)),
        })
    }

    /// The address that is listened on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What this member has pushed to its peers since it listens.
    pub fn sent(&self) -> Sent {
        self.peers.sent()
    }

    /// Enters a membership epoch. Collectives of older ones end as aborted; an older epoch is ignored.
    pub fn set_world(&self, world: World) {
        self.peers.keep(&world);
        self.mailbox.set_world(world);
    }

    /// Ends every collective of `epoch` and of older ones at once.
    pub fn abort(&self, epoch: u64, reason: &str) {
        self.mailbox.abort(epoch, reason);
    }

    /// Ends all calls and the server, and waits for it.
    pub async fn shutdown(&self) {
        self.mailbox.close();
        self.stop.cancel();
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut server) = server
            && tokio::time::timeout(SHUTDOWN_WAIT, &mut server).await.is_err()
        {
            server.abort();
            // The task was aborted just now: its end carries no news.
            let _ = server.await;
        }
    }

    /// Gives `own` to all members and returns the buffers of all, by rank.
    ///
    /// # Errors
    /// See [`CollectiveError`]; after `deadline` the members not heard of are named.
    pub async fn all_gather(
        &self,
        step: u64,
        tag: &str,
        own: Bytes,
        deadline: Duration,
    ) -> Result<Vec<Bytes>> {
        let round = self.round(step, tag)?;
        let rank = round.world.rank;
        let gather = async {
            let send = round.with_peers(|_, peer| round.send(peer, own.clone()).boxed());
            let receive = round.with_peers(|_, peer| round.receive(peer).boxed());
            let (_, received) = try_join(send, receive).await?;
            Ok(received)
        };
        let mut all: Vec<Bytes> = round.within(deadline, gather).await?;
        all.insert(rank, own);
        Ok(all)
    }

    /// Sums over all slots: `partials` are this member's subtrees, as [`crate::TreeAccumulator`] yields them.
    ///
    /// Returns the sum, equal on every member, bit for bit whatever the number of members, in the memory of
    /// the first partial. Two hops: every member gets the partials of an equal range of elements and adds
    /// them in tree order; the ranges are then gathered. What travels is in the tree's [`crate::Wire`]
    /// format.
    ///
    /// # Errors
    /// See [`CollectiveError`]; after `deadline` the members not heard of are named.
    pub async fn tree_all_reduce(
        &self,
        step: u64,
        tag: &str,
        mut partials: Vec<TreePartial>,
        tree: &SumTree,
        deadline: Duration,
    ) -> Result<Vec<f32>> {
        let round = self.round(step, tag)?;
        round.check_partials(&partials, tree)?;
        // The subtree of a member that holds all slots is the whole tree.
        if round.world.members.len() == 1 {
            return Ok(partials.remove(0).data);
        }
        round.within(deadline, round.reduce(partials, *tree)).await
    }

    /// Makes rows of this member's slots available to its peers for `step`, in place of those published
    /// before.
    ///
    /// # Errors
    /// There is no world yet, or the exchange is shut down.
    pub fn publish_rows(&self, step: u64, rows: Vec<(u64, Bytes)>) -> Result<()> {
        self.mailbox.publish_rows(step, rows.into_iter().collect())
    }

    /// Fetches rows from the members that own them: pairs of a member's id and the rows wanted of it. The
    /// result has the same order. This member's own rows are answered from what it has published.
    ///
    /// # Errors
    /// See [`CollectiveError`]; after `deadline` the members not heard of are named.
    pub async fn fetch_rows(
        &self,
        step: u64,
        by_member: Vec<(u32, Vec<u64>)>,
        deadline: Duration,
    ) -> Result<Vec<(u64, Bytes)>> {
        let round = self.round(step, "rows")?;
        let fetches: Vec<_> =
            by_member.iter().map(|(member, rows)| round.fetch(*member, rows).boxed()).collect();
        let fetch = try_join_all(fetches);
        let found = round.within(deadline, fetch).await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Makes the state after `step` steps available to joiners.
    pub fn publish_state(&self, step: u64, state: Arc<Vec<Bytes>>) {
        self.mailbox.publish_state(step, Some(state));
    }

    /// Frees the published state; fetches in progress end well.
    pub fn clear_state(&self) {
        self.mailbox.publish_state(0, None);
    }

    /// Fetches the state after `step` steps from the member at `address`; needs no world.
    ///
    /// # Errors
    /// The peer cannot be reached, has another state, or does not answer within `deadline`.
    pub async fn fetch_state(&self, address: &str, step: u64, deadline: Duration) -> Result<Bytes> {
        match tokio::time::timeout(deadline, self.peers.state(address, step)).await {
            Ok(state) => state,
            Err(_) => Err(CollectiveError::State {
                address: address.to_owned(),
                step,
                reason: format!("no answer within {:.1} s", deadline.as_secs_f64()),
            }),
        }
    }

    fn round(&self, step: u64, tag: &str) -> Result<Round<'_>> {
        let world = self.mailbox.world()?;
        world.own()?;
        self.mailbox.enter_step(&world, step);
        Ok(Round::new(&self.mailbox, &self.peers, world, step, tag))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.mailbox.close();
        self.stop.cancel();
    }
}
