//! One member's end of the collectives.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use blip2_proto::v1::PushHeader;
use blip2_proto::v1::exchange_server::ExchangeServer;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, try_join, try_join_all};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::combine::{Source, combine_into};
use crate::mailbox::{MailKey, Mailbox};
use crate::peers::Peers;
use crate::segments::{Segments, bytes_of};
use crate::service::ExchangeService;
use crate::{CollectiveError, Limits, Member, Result, SumTree, Transport, TreeNode, TreePartial, World};

/// How long calls in progress may take to end at a shutdown.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(2);

/// Serves this member's peers and runs the collectives of its world.
///
/// All calls take `&self`; share it in an `Arc`. A tag names one collective of a step and is not used twice in it.
#[derive(Debug)]
pub struct Exchange {
    mailbox: Arc<Mailbox>,
    peers: Peers,
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
        let service = ExchangeServer::new(ExchangeService { token: token.clone(), mailbox: mailbox.clone() })
            .max_decoding_message_size(limits.message());
        let serving = transport
            .server()
            .add_service(service)
            .serve_with_incoming_shutdown(transport.listen(listener), stop.clone().cancelled_owned());
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
            let send = round.with_peers(|_, peer| round.send(peer, "", vec![own.clone()]).boxed());
            let receive = round.with_peers(|_, peer| round.receive(peer, "").boxed());
            let (_, received) = try_join(send, receive).await?;
            Ok(received)
        };
        let received: Vec<Segments> = round.within(deadline, gather).await?;
        let mut all: Vec<Bytes> = received.into_iter().map(Segments::into_bytes).collect();
        all.insert(rank, own);
        Ok(all)
    }

    /// Sums over all slots: `partials` are this member's subtrees, as [`crate::TreeAccumulator`] yields them.
    ///
    /// Returns the sum, equal on every member, bit for bit whatever the number of members. Two hops: every member gets
    /// the partials of an equal range of elements and adds them in tree order; the ranges are then gathered.
    ///
    /// # Errors
    /// See [`CollectiveError`]; after `deadline` the members not heard of are named.
    pub async fn tree_all_reduce(
        &self,
        step: u64,
        tag: &str,
        partials: Vec<TreePartial>,
        tree: &SumTree,
        deadline: Duration,
    ) -> Result<Vec<f32>> {
        let round = self.round(step, tag)?;
        let elements = round.check_partials(&partials, tree)?;
        if round.world.members.len() == 1 {
            let whole = 0..elements;
            let own = partials
                .into_iter()
                .map(|partial| (partial.node, Segments::from(bytes_of(partial.data))))
                .collect();
            return combined(own, Vec::new(), whole, *tree).await;
        }
        round.within(deadline, round.reduce(partials, *tree, elements)).await
    }

    /// Makes rows of this member's slots available to its peers for `step`, in place of those published before.
    ///
    /// # Errors
    /// There is no world yet, or the exchange is shut down.
    pub fn publish_rows(&self, step: u64, rows: Vec<(u64, Bytes)>) -> Result<()> {
        self.mailbox.publish_rows(step, rows.into_iter().collect())
    }

    /// Fetches rows from the members that own them: pairs of a member's id and the rows wanted of it. The result has
    /// the same order. This member's own rows are answered from what it has published.
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
        Ok(Round { exchange: self, world, step, tag: tag.to_owned(), pending: Mutex::default() })
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.mailbox.close();
        self.stop.cancel();
    }
}

/// One collective in progress.
struct Round<'a> {
    exchange: &'a Exchange,
    world: Arc<World>,
    step: u64,
    tag: String,
    /// Members with a send or a receive that has not ended.
    pending: Mutex<BTreeMap<u32, u32>>,
}

impl Round<'_> {
    /// Runs `work` until it is done, the epoch ends or the deadline passes.
    async fn within<T>(&self, deadline: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            error = self.exchange.mailbox.ended(self.world.epoch) => Err(error),
            done = tokio::time::timeout(deadline, work) => done.unwrap_or_else(|_| {
                let waiting_for: BTreeSet<u32> = self.pending().keys().copied().collect();
                Err(CollectiveError::Timeout {
                    step: self.step,
                    tag: self.tag.clone(),
                    waiting_for: waiting_for.into_iter().collect(),
                    seconds: deadline.as_secs_f64(),
                })
            }),
        }
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, u32>> {
        // Counts are consistent at every statement, so a poisoned lock is still good.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts `work` as pending with `member` until it ends.
    async fn pending_with<T>(&self, member: u32, work: impl Future<Output = T>) -> T {
        *self.pending().entry(member).or_default() += 1;
        let done = work.await;
        let mut pending = self.pending();
        if let Some(count) = pending.get_mut(&member) {
            *count -= 1;
            if *count == 0 {
                pending.remove(&member);
            }
        }
        done
    }

    /// The work with every peer, in rank order. Boxed: the compiler cannot prove nested opaque futures `Send`.
    async fn with_peers<'a, T: Send + 'a>(
        &'a self,
        work: impl Fn(usize, &'a Member) -> BoxFuture<'a, Result<T>> + Send,
    ) -> Result<Vec<T>> {
        let peers: Vec<BoxFuture<'a, Result<T>>> =
            self.world.peers().map(|(rank, peer)| work(rank, peer)).collect();
        try_join_all(peers).await
    }

    async fn send(&self, to: &Member, hop: &str, buffer: Vec<Bytes>) -> Result<()> {
        let header = PushHeader {
            epoch: self.world.epoch,
            step: self.step,
            tag: format!("{}{hop}", self.tag),
            from_member: self.world.own()?.id,
            ..PushHeader::default()
        };
        self.pending_with(to.id, self.exchange.peers.push(to, header, &buffer)).await
    }

    async fn receive(&self, from: &Member, hop: &str) -> Result<Segments> {
        let key = MailKey {
            epoch: self.world.epoch,
            step: self.step,
            tag: format!("{}{hop}", self.tag),
            from: from.id,
        };
        Ok(self.pending_with(from.id, self.exchange.mailbox.take(&key)).await)
    }

    async fn receive_exactly(&self, from: &Member, hop: &str, bytes: usize) -> Result<Segments> {
        let mail = self.receive(from, hop).await?;
        if mail.len() == bytes {
            return Ok(mail);
        }
        Err(CollectiveError::WrongLength {
            member: from.id,
            step: self.step,
            tag: format!("{}{hop}", self.tag),
            expected: bytes as u64,
            got: mail.len() as u64,
        })
    }

    async fn fetch(&self, member: u32, rows: &[u64]) -> Result<Vec<(u64, Bytes)>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        if self.world.own()?.id == member {
            let published =
                self.pending_with(member, self.exchange.mailbox.rows(self.world.epoch, self.step)).await;
            let published =
                published.map_err(|refusal| CollectiveError::Invalid(format!("own rows: {refusal:?}")))?;
            let find = |row: &u64| {
                let data = published.get(row).cloned();
                data.map(|data| (*row, data))
                    .ok_or_else(|| CollectiveError::Invalid(format!("own row {row} is not published")))
            };
            return rows.iter().map(find).collect();
        }
        let peer = self.world.members.iter().find(|peer| peer.id == member).ok_or_else(|| {
            CollectiveError::Invalid(format!("member {member} is not in epoch {}", self.world.epoch))
        })?;
        self.pending_with(member, self.exchange.peers.rows(peer, self.world.epoch, self.step, rows)).await
    }

    /// The number of elements, when the partials are this member's part of the tree.
    fn check_partials(&self, partials: &[TreePartial], tree: &SumTree) -> Result<usize> {
        let due = tree.nodes_of(self.world.own()?.slots.clone());
        let elements = partials.first().map_or(0, |partial| partial.data.len());
        let fits = partials.len() == due.len()
            && partials
                .iter()
                .zip(&due)
                .all(|(partial, node)| partial.node == *node && partial.data.len() == elements);
        if fits {
            return Ok(elements);
        }
        let nodes: Vec<TreeNode> = partials.iter().map(|partial| partial.node).collect();
        Err(CollectiveError::Invalid(format!(
            "{}: partials {nodes:?} of {elements} elements; due are {due:?}",
            self.tag
        )))
    }

    async fn reduce(&self, partials: Vec<TreePartial>, tree: SumTree, elements: usize) -> Result<Vec<f32>> {
        let world = &self.world;
        let ranges = element_ranges(elements, world.members.len());
        let own = ranges[world.rank].clone();
        let partials: Vec<(TreeNode, Bytes)> =
            partials.into_iter().map(|partial| (partial.node, bytes_of(partial.data))).collect();

        let scatter = self.with_peers(|rank, peer| {
            let range = 4 * ranges[rank].start..4 * ranges[rank].end;
            let parts = partials.iter().map(|(_, data)| data.slice(range.clone())).collect();
            self.send(peer, "/scatter", parts).boxed()
        });
        let collect = self.with_peers(|_, peer| {
            let nodes = tree.nodes_of(peer.slots.clone());
            let bytes = nodes.len() * 4 * own.len();
            async move { Ok((nodes, self.receive_exactly(peer, "/scatter", bytes).await?)) }.boxed()
        });
        let (_, received) = try_join(scatter, collect).await?;

        let partials = partials.into_iter().map(|(node, data)| (node, Segments::from(data))).collect();
        let sum = combined(partials, received, own.clone(), tree).await?;

        let sum = bytes_of(sum);
        let spread = self.with_peers(|_, peer| self.send(peer, "/gather", vec![sum.clone()]).boxed());
        let gather = self
            .with_peers(|rank, peer| self.receive_exactly(peer, "/gather", 4 * ranges[rank].len()).boxed());
        let (_, gathered) = try_join(spread, gather).await?;

        let mut by_rank = gathered;
        by_rank.insert(world.rank, Segments::from(sum));
        blocking(move || {
            let mut whole = vec![0.0f32; elements];
            for (range, part) in ranges.into_iter().zip(&by_rank) {
                part.copy_to(0, bytemuck::cast_slice_mut(&mut whole[range]));
            }
            Ok(whole)
        })
        .await
    }
}

/// Adds, off the I/O threads, the elements `range` of the own partials and the received ones, which hold that range
/// only, node after node.
async fn combined(
    own: Vec<(TreeNode, Segments)>,
    received: Vec<(Vec<TreeNode>, Segments)>,
    range: Range<usize>,
    tree: SumTree,
) -> Result<Vec<f32>> {
    blocking(move || {
        let mut sources: Vec<(TreeNode, Source)> = own
            .iter()
            .map(|(node, segments)| (*node, Source::Wire { segments, offset: 4 * range.start }))
            .collect();
        for (nodes, segments) in &received {
            let part = |(place, node): (usize, &TreeNode)| {
                (*node, Source::Wire { segments, offset: 4 * range.len() * place })
            };
            sources.extend(nodes.iter().enumerate().map(part));
        }
        let mut sum = vec![0.0f32; range.len()];
        combine_into(&sources, &tree, &mut sum)?;
        Ok(sum)
    })
    .await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    // The task is never aborted, so joining it fails only when the work panicked or the runtime is gone.
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(CollectiveError::Closed))
}

/// Cuts `elements` into one contiguous range a member, equal to within one.
fn element_ranges(elements: usize, members: usize) -> Vec<Range<usize>> {
    (0..members).map(|rank| elements * rank / members..elements * (rank + 1) / members).collect()
}
