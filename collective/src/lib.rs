//! Moving buffers between the members of a run.
//!
//! An [`Exchange`] is one member's end: it serves its peers and calls them. Every collective belongs to an
//! epoch (a fixed [`World`] of members), a step and a tag, has a deadline, and ends at once when its epoch is
//! aborted.
//!
//! Buffers that all need are gathered ([`Exchange::all_gather`]). Where each needs other parts, and both
//! sides know which, every member pushes to each other member what is due to it ([`Exchange::all_to_all`]):
//! nothing is asked for.
//!
//! Sums are taken over *slots*, not over members: [`SumTree`] fixes one binary tree over the slots, a member
//! adds the subtrees it owns ([`TreeAccumulator`]), and [`Exchange::tree_all_reduce`] adds the rest in tree
//! order. Which member owns which slot therefore changes no bit of the result.
//!
//! The last collectives are remembered ([`journal`]) and told in the log when one does not get on. How fast
//! the way to a member is can be measured by whoever has the token ([`probe`]).
//!
//! Why not ring all-reduce: its order of additions depends on the ring. Reduce-scatter plus all-gather moves
//! the same bytes in two hops and leaves the order to the tree.

mod additions;
mod bulk;
mod diagnostics;
mod error;
mod exchange;
mod inbox;
pub mod journal;
mod limits;
mod mailbox;
mod peers;
pub mod probe;
mod received;
mod reduce;
mod round;
mod tree;
mod wire;
mod world;

#[doc(hidden)]
pub use bulk::read_bulk_messages;
pub use error::{CollectiveError, Result};
pub use exchange::Exchange;
pub use limits::Limits;
pub use peers::Sent;
pub use received::{Received, ReceivedReader};
pub use tree::{SumTree, TreeAccumulator, TreeNode, TreePartial};
pub use wire::Wire;
pub use world::{Member, World, deal_slots};
