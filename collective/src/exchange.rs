//! One member's end of the collectives.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::try_join;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::bulk::BulkService;
use crate::diagnostics::{Diagnostics, TraceSource};
use crate::journal::{Entry, Journal, Kind};
use crate::mailbox::Mailbox;
use crate::peers::{Peers, Sent};
use crate::round::Round;
use crate::{CollectiveError, Limits, Received, Result, SumTree, TreePartial, World};
use blip2_proto::transport::{Guarded, Transport, bind};
use blip2_proto::v1::diagnostics_server::DiagnosticsServer;

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
    journal: Journal,
    trace: TraceSource,
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
        let listener = bind(address).and_then(TcpListener::from_std).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let mailbox = Arc::new(Mailbox::new(limits.clone()));
        let stop = CancellationToken::new();
        let bulk = BulkService { token: token.as_str().into(), mailbox: mailbox.clone() };
        let bulk = Guarded::new(&token, bulk.clone(), bulk);
        let trace = TraceSource::default();
        let diagnostics = DiagnosticsServer::new(Diagnostics::new(trace.clone()));
        let diagnostics = Guarded::new(&token, diagnostics.clone(), diagnostics);
        let routes = transport.server().add_service(bulk).add_service(diagnostics);
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
            journal: Journal::default(),
            trace,
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

    /// This member's collectives of a step that are remembered, oldest first, those in progress among them.
    pub fn collectives_of(&self, step: u64) -> Vec<Entry> {
        self.journal.of(step)
    }

    /// Gives what `source` says to whoever asks this member for its trace and shows the token.
    pub fn show_trace(&self, source: impl Fn() -> String + Send + Sync + 'static) {
        self.trace.set(source);
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
    ) -> Result<Vec<Received>> {
        let round = self.round(step, tag)?;
        let rank = round.world.rank;
        let pieces = [own.clone()];
        let gather = async {
            let send = round.with_peers(|_, peer| round.send(peer, &pieces).boxed());
            let receive = round.with_peers(|_, peer| round.receive(peer, None).boxed());
            let (_, received) = try_join(send, receive).await?;
            Ok(received)
        };
        let line = self.journal.begin(Kind::AllGather, round.world.epoch, step, tag, own.len() as u64);
        let mut all: Vec<Received> = line.ended(round.within(deadline, gather).await)?;
        all.insert(rank, own.into());
        Ok(all)
    }

    /// Pushes to each member the buffer that is due to it, from the pieces it lies in, and returns the
    /// buffers that the members owe, of `due` bytes; all by rank, this member's own are empty.
    ///
    /// Both sides know who owes whom how much: where that is nothing, nothing is sent and nobody waited for.
    ///
    /// # Errors
    /// See [`CollectiveError`]; a buffer of another length than is due is its sender's fault, and after
    /// `deadline` the members not heard of are named.
    pub async fn all_to_all(
        &self,
        step: u64,
        tag: &str,
        outgoing: &[Vec<Bytes>],
        due: &[u64],
        deadline: Duration,
    ) -> Result<Vec<Received>> {
        let round = self.round(step, tag)?;
        let (rank, members) = (round.world.rank, round.world.members.len());
        let to_itself = outgoing.get(rank).is_some_and(|own| !own.is_empty())
            || due.get(rank).is_some_and(|due| *due > 0);
        if outgoing.len() != members || due.len() != members || to_itself {
            return Err(CollectiveError::Invalid(format!(
                "{tag}: buffers for {} and of {} members; there are {members}, and a member owes itself nothing",
                outgoing.len(),
                due.len()
            )));
        }
        let exchange = async {
            let send = round.with_peers(|rank, peer| round.send_due(peer, &outgoing[rank]).boxed());
            let receive = round.with_peers(|rank, peer| round.receive_due(peer, due[rank]).boxed());
            let (_, received) = try_join(send, receive).await?;
            Ok(received)
        };
        let bytes = outgoing.iter().flatten().map(|piece| piece.len() as u64).sum();
        let line = self.journal.begin(Kind::AllToAll, round.world.epoch, step, tag, bytes);
        let mut all = line.ended(round.within(deadline, exchange).await)?;
        all.insert(rank, Received::default());
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
        let bytes = partials.iter().map(|partial| size_of_val(partial.data.as_slice()) as u64).sum();
        let line = self.journal.begin(Kind::AllReduce, round.world.epoch, step, tag, bytes);
        line.ended(round.within(deadline, round.reduce(partials, *tree)).await)
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
