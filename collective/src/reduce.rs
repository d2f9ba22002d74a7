//! The sum over all slots, in two hops that overlap.
//!
//! Every member owns an equal range of the elements. It sends the others' ranges of its subtrees to their
//! owners; adds, block by block as they arrive, the others' subtrees to its own range, in place; sends each
//! block of the sum as soon as it is there; and writes the sums of the other ranges over its own subtrees, in
//! place. A range is overwritten only after its owner has taken and added it, so that a range which must be
//! sent again, because a connection broke, is read only where the owner still needs it.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures::future::{BoxFuture, join_all, try_join_all};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, TryStreamExt};
use tokio::sync::{mpsc, watch};

use crate::additions::{Additions, BLOCK, Block};
use crate::bulk::{MAX_HEAD, put_head};
use crate::mailbox::{MailKey, Mailbox};
use crate::round::{Hop, Round};
use crate::{CollectiveError, Member, Result, SumTree, TreeNode, TreePartial, Wire};

/// A member's range of the buffer in which the sum arises.
type Part<'a> = Mutex<&'a mut [f32]>;

fn lock<'m, 'a>(part: &'m Part<'a>) -> MutexGuard<'m, &'a mut [f32]> {
    // Numbers are consistent at every statement, so a poisoned lock is still good.
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Round<'_> {
    /// The number of elements, when the partials are this member's part of the tree.
    pub(crate) fn check_partials(&self, partials: &[TreePartial], tree: &SumTree) -> Result<usize> {
        let due = tree.nodes_of(self.world.own()?.slots.clone());
        let elements = partials.first().map_or(0, |partial| partial.data.len());
        let fits = !partials.is_empty()
            && partials.len() == due.len()
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

    /// Sums `partials`, which [`Round::check_partials`] has found good.
    pub(crate) async fn reduce(&self, mut partials: Vec<TreePartial>, tree: SumTree) -> Result<Vec<f32>> {
        let mut home = partials.remove(0);
        let ranges = element_ranges(home.data.len(), self.world.members.len());
        let parts = split(&mut home.data, &ranges);
        let own = &parts[self.world.rank];
        let (summed, sums) = watch::channel(0);

        let work: FuturesUnordered<BoxFuture<'_, Result<()>>> = FuturesUnordered::new();
        let adding =
            Adding { home: home.node, others: &partials, own: ranges[self.world.rank].clone(), tree };
        work.push(self.add(adding, own, summed).boxed());
        for (rank, peer) in self.world.peers() {
            work.push(self.send_part(peer, Hop::Parts, &parts[rank], tree.wire(), None).boxed());
            for (place, partial) in partials.iter().enumerate() {
                let data = &partial.data[ranges[rank].clone()];
                work.push(self.send_floats(peer, place + 1, data, tree.wire()).boxed());
            }
            work.push(self.send_part(peer, Hop::Sums, own, tree.wire(), Some(sums.clone())).boxed());
            work.push(self.receive_part(peer, Hop::Sums, &parts[rank], tree.wire()).boxed());
        }
        work.try_collect::<()>().await?;
        drop(parts);
        Ok(home.data)
    }

    /// Sends a part; with `ready`, as far as that many of its elements are there.
    async fn send_part(
        &self,
        to: &Member,
        hop: Hop,
        part: &Part<'_>,
        wire: Wire,
        ready: Option<watch::Receiver<usize>>,
    ) -> Result<()> {
        let elements = lock(part).len();
        let size = self.mailbox.limits.chunk() / wire.bytes();
        let feed = |messages: mpsc::Sender<Bytes>| {
            let mut ready = ready.clone();
            async move {
                let mut buffers = Buffers::default();
                let mut at = 0;
                while at < elements {
                    let end = elements.min(at + size);
                    if let Some(ready) = &mut ready
                        && ready.wait_for(|ready| *ready >= end).await.is_err()
                    {
                        return;
                    }
                    let message = buffers.message(wire, &lock(part)[at..end]);
                    if messages.send(message).await.is_err() {
                        return;
                    }
                    at = end;
                }
            }
            .boxed()
        };
        self.push(to, hop, hop.name(0), elements * wire.bytes(), feed).await
    }

    /// Sends this member's range `data` of a further subtree.
    async fn send_floats(&self, to: &Member, place: usize, data: &[f32], wire: Wire) -> Result<()> {
        let size = self.mailbox.limits.chunk() / wire.bytes();
        let feed = |messages: mpsc::Sender<Bytes>| {
            async move {
                let mut buffers = Buffers::default();
                for values in data.chunks(size) {
                    if messages.send(buffers.message(wire, values)).await.is_err() {
                        return;
                    }
                }
            }
            .boxed()
        };
        self.push(to, Hop::Parts, Hop::Parts.name(place), data.len() * wire.bytes(), feed).await
    }

    /// Writes what a member sends over a part.
    async fn receive_part(&self, from: &Member, hop: Hop, part: &Part<'_>, wire: Wire) -> Result<()> {
        let elements = lock(part).len();
        self.pending_with(hop, from.id, async {
            let mut incoming = self.incoming(from, &hop.name(0), elements * wire.bytes()).await?;
            let mut block = Vec::new();
            let mut at = 0;
            while at < elements {
                let end = elements.min(at + BLOCK);
                incoming.read((end - at) * wire.bytes(), &mut block).await;
                wire.copy(&block, &mut lock(part)[at..end]);
                at = end;
            }
            Ok(())
        })
        .await
    }

    /// Adds all subtrees of this member's range, and says how far it is.
    async fn add(&self, adding: Adding<'_>, own: &Part<'_>, summed: watch::Sender<usize>) -> Result<()> {
        let Adding { home, others, own: range, tree } = adding;
        let wire = tree.wire();
        let mut nodes: Vec<TreeNode> = others.iter().map(|partial| partial.node).collect();
        let mut due: Vec<BoxFuture<'_, Result<(u32, Incoming)>>> = Vec::new();
        for (_, peer) in self.world.peers() {
            for (place, node) in tree.nodes_of(peer.slots.clone()).into_iter().enumerate() {
                let bytes = range.len() * wire.bytes();
                let arrives = async move {
                    let name = Hop::Parts.name(place);
                    let arrives = self.incoming(peer, &name, bytes);
                    Ok((peer.id, self.pending_with(Hop::Parts, peer.id, arrives).await?))
                };
                due.push(arrives.boxed());
                nodes.push(node);
            }
        }
        let mut incoming = try_join_all(due).await?;
        let additions = Additions::plan(home, &nodes, &tree)?;
        let mut scratch = additions.scratch();
        let mut received: Vec<Vec<Bytes>> = vec![Vec::new(); incoming.len()];
        let mut at = 0;
        while at < range.len() {
            let end = range.len().min(at + BLOCK);
            let bytes = (end - at) * wire.bytes();
            let reads = incoming.iter_mut().zip(&mut received).map(|((peer, incoming), block)| {
                self.pending_with(Hop::Parts, *peer, incoming.read(bytes, block))
            });
            join_all(reads).await;
            let floats = others.iter().map(|partial| Block::Floats(&partial.data[range.clone()][at..end]));
            let blocks: Vec<Block> = floats.chain(received.iter().map(|block| Block::Wire(block))).collect();
            additions.run(wire, &blocks, &mut lock(own)[at..end], &mut scratch);
            at = end;
            summed.send_replace(at);
        }
        Ok(())
    }

    /// What a member sends, once it is known to have the length due.
    async fn incoming(&self, from: &Member, hop: &str, due: usize) -> Result<Incoming<'_>> {
        let key = self.key(from, hop);
        let mailbox = self.mailbox;
        let length = mailbox.length(&key).await;
        if length != due as u64 {
            return Err(self.wrong_length(&key, due as u64, length));
        }
        Ok(Incoming { mailbox, key, rest: Bytes::new() })
    }
}

/// What is added to what.
struct Adding<'a> {
    home: TreeNode,
    others: &'a [TreePartial],
    own: Range<usize>,
    tree: SumTree,
}

/// A buffer that is read as it arrives.
struct Incoming<'a> {
    mailbox: &'a Mailbox,
    key: MailKey,
    rest: Bytes,
}

impl Incoming<'_> {
    /// Waits for the next `bytes` bytes and puts them, in the pieces they came in, into `block`.
    async fn read(&mut self, mut bytes: usize, block: &mut Vec<Bytes>) {
        block.clear();
        while bytes > 0 {
            if self.rest.is_empty() {
                match self.mailbox.next(&self.key).await {
                    Some(piece) => self.rest = piece,
                    // The length was checked and the bytes are counted, so nothing is due after the last.
                    None => return,
                }
            }
            let piece = self.rest.split_to(bytes.min(self.rest.len()));
            bytes -= piece.len();
            block.push(piece);
        }
    }
}

/// Message buffers in use again and again, so that they stay in the cache.
#[derive(Debug, Default)]
struct Buffers {
    free: std::collections::VecDeque<BytesMut>,
}

impl Buffers {
    /// A message that carries `values`.
    fn message(&mut self, wire: Wire, values: &[f32]) -> Bytes {
        let data = values.len() * wire.bytes();
        // The oldest is the first that the connection has let go.
        let reclaimed = self.free.front_mut().is_some_and(|oldest| oldest.try_reclaim(MAX_HEAD + data));
        let mut buffer = match self.free.pop_front_if(|_| reclaimed) {
            Some(oldest) => oldest,
            None => BytesMut::with_capacity(MAX_HEAD + data),
        };
        put_head(None, data, &mut buffer);
        wire.encode(values, &mut buffer);
        let message = buffer.split().freeze();
        self.free.push_back(buffer);
        message
    }
}

/// Cuts `elements` into one contiguous range a member, equal to within one.
fn element_ranges(elements: usize, members: usize) -> Vec<Range<usize>> {
    (0..members).map(|rank| elements * rank / members..elements * (rank + 1) / members).collect()
}

fn split<'a>(mut data: &'a mut [f32], ranges: &[Range<usize>]) -> Vec<Part<'a>> {
    let mut parts = Vec::with_capacity(ranges.len());
    for range in ranges {
        let (part, rest) = data.split_at_mut(range.len());
        parts.push(Mutex::new(part));
        data = rest;
    }
    parts
}
