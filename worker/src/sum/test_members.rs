//! Members of one process that reach each other over loopback.

use std::time::Duration;

use blip2_collective::{Exchange, Limits, Member, World, deal_slots};
use blip2_proto::transport::Transport;

use super::peers::Peers;

/// A wait that ends by this alone does not end: what is wrong then is that a test hangs.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// Members that share slots.
pub(super) struct TestMembers {
    runtime: tokio::runtime::Runtime,
    pub(super) exchanges: Vec<Exchange>,
    pub(super) worlds: Vec<World>,
}

impl TestMembers {
    pub(super) fn new(members: usize, slots: u32) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        let bind = || Exchange::bind(address, "token".into(), Limits::default(), Transport::plain());
        let exchanges: Vec<Exchange> = (0..members).map(|_| runtime.block_on(bind()).unwrap()).collect();
        let slots = deal_slots(slots, members).unwrap();
        let member = |(id, (exchange, slots)): (usize, (&Exchange, _))| Member {
            id: id as u32,
            address: exchange.local_addr().to_string(),
            slots,
        };
        let all: Vec<Member> = exchanges.iter().zip(slots).enumerate().map(member).collect();
        let worlds: Vec<World> =
            (0..members).map(|rank| World { epoch: 1, rank, members: all.clone() }).collect();
        for (exchange, world) in exchanges.iter().zip(&worlds) {
            exchange.set_world(world.clone());
        }
        Self { runtime, exchanges, worlds }
    }

    /// The way of member `rank` to the others.
    pub(super) fn peers(&self, rank: usize) -> Peers<'_> {
        Peers {
            exchange: &self.exchanges[rank],
            runtime: self.runtime.handle(),
            world: &self.worlds[rank],
            step: 0,
            deadline: NEVER,
        }
    }
}
