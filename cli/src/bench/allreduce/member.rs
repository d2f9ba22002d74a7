//! A member process of `bench allreduce`: says where it is, hears of the others, sums.

use std::io::Read as _;
use std::time::{Duration, Instant};

use blip2_collective::{Exchange, Limits, Member, SumTree, TreePartial, World, deal_slots};
use blip2_proto::transport::Transport;
use bytes::Bytes;
use clap::Args;

use super::tcp::Neighbours;
use super::{Addresses, AllreduceArguments, Times, sent_bytes};
use crate::commands::print_json;
use crate::error::CliError;
use blip2_run::exit::Exit;

/// For a round.
const DEADLINE: Duration = Duration::from_secs(120);
/// For the other members to be introduced.
const INTRODUCED_WITHIN: Duration = Duration::from_secs(300);

/// Bytes of all addresses.
const MOST_INTRODUCTION: u64 = 64 << 10;

/// Which member this is.
#[derive(Debug, Args)]
pub(crate) struct MemberArguments {
    #[command(flatten)]
    run: AllreduceArguments,
    /// This member's place.
    #[arg(long)]
    rank: u32,
}

pub(in crate::bench) async fn run(arguments: MemberArguments) -> Result<Exit, CliError> {
    let MemberArguments { run, rank } = arguments;
    let rank = rank as usize;
    let bytes = 4 * run.elements as u64;
    let limits = Limits {
        max_buffer_bytes: bytes,
        max_held_bytes: bytes.saturating_mul(2).max(1 << 20),
        ..Limits::default()
    };
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let exchange =
        Exchange::bind(address, "bench".to_owned(), limits, Transport::plain()).await.map_err(failed)?;
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    print_json(&Addresses {
        exchange: exchange.local_addr().to_string(),
        tcp: listener.local_addr().map_err(failed)?.to_string(),
    })?;
    let all = introduced(run.members as usize).await?;
    let next = all[(rank + 1) % all.len()].tcp.clone();
    let neighbours = blocking(move || Neighbours::meet(&listener, &next)).await?;

    let tree = SumTree::new(run.members.next_power_of_two()).map_err(failed)?.on_wire(run.wire);
    let deal = deal_slots(tree.slots(), all.len()).map_err(failed)?;
    let members = all.iter().zip(&deal).enumerate().map(|(id, (addresses, slots))| Member {
        id: id as u32,
        address: addresses.exchange.clone(),
        slots: slots.clone(),
    });
    exchange.set_world(World { epoch: 1, rank, members: members.collect() });
    let bench =
        Bench { exchange, tree, slots: deal[rank].clone(), neighbours, sent: sent_bytes(&run) as u64 };
    let times = bench.rounds(run.elements, run.rounds).await?;
    bench.exchange.shutdown().await;
    print_json(&times)?;
    Ok(Exit::Done)
}

/// The addresses of all members, by rank.
async fn introduced(members: usize) -> Result<Vec<Addresses>, CliError> {
    let read = blocking(|| std::io::read_to_string(std::io::stdin().lock().take(MOST_INTRODUCTION)));
    let line = tokio::time::timeout(INTRODUCED_WITHIN, read).await.map_err(failed)??;
    let all: Vec<Addresses> = serde_json::from_str(&line).map_err(failed)?;
    if all.len() != members {
        return Err(failed(format!("{} addresses of {members} members", all.len())));
    }
    Ok(all)
}

struct Bench {
    exchange: Exchange,
    tree: SumTree,
    slots: std::ops::Range<u32>,
    neighbours: Neighbours,
    /// Bytes over bare TCP in a round.
    sent: u64,
}

impl Bench {
    /// Sums and bare streams in turn, so that both see the same machine.
    async fn rounds(&self, elements: usize, rounds: u32) -> Result<Times, CliError> {
        let mut times = Times { reduce: Vec::new(), tcp: Vec::new() };
        let mut buffer = vec![0.0f32; elements];
        for step in 0..=u64::from(rounds) {
            let partials = self.partials(buffer);
            self.barrier(step, "ready").await?;
            let began = Instant::now();
            let sum = self.exchange.tree_all_reduce(step, "sum", partials, &self.tree, DEADLINE).await;
            let reduce = began.elapsed().as_secs_f64();
            buffer = sum.map_err(failed)?;
            self.check(&buffer)?;
            self.barrier(step, "tcp").await?;
            let (neighbours, sent) = (self.neighbours.again().map_err(failed)?, self.sent);
            let tcp = blocking(move || neighbours.exchange(sent)).await?.as_secs_f64();
            // The first round grows the buffers of the system and the process.
            if step > 0 {
                times.reduce.push(reduce);
                times.tcp.push(tcp);
            }
        }
        self.barrier(u64::from(rounds) + 1, "end").await?;
        Ok(times)
    }

    /// Every slot holds ones, so every element of the sum is the number of slots.
    fn partials(&self, buffer: Vec<f32>) -> Vec<TreePartial> {
        let mut memory = Some(buffer);
        let nodes = self.tree.nodes_of(self.slots.clone()).into_iter();
        let mut length = 0;
        nodes
            .map(|node| {
                let mut data = memory.take().unwrap_or_else(|| vec![0.0; length]);
                length = data.len();
                data.fill(node.slots().len() as f32);
                TreePartial { node, data }
            })
            .collect()
    }

    fn check(&self, sum: &[f32]) -> Result<(), CliError> {
        let expected = self.tree.slots() as f32;
        match sum.iter().position(|value| *value != expected) {
            None => Ok(()),
            Some(place) => {
                Err(failed(format!("element {place} of the sum is {}, not {expected}", sum[place])))
            }
        }
    }

    async fn barrier(&self, step: u64, name: &str) -> Result<(), CliError> {
        self.exchange.all_gather(step, name, Bytes::new(), DEADLINE).await.map(|_| ()).map_err(failed)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, CliError> {
    tokio::task::spawn_blocking(work).await.map_err(failed)?.map_err(failed)
}

fn failed(error: impl ToString) -> CliError {
    CliError::failed(format!("bench allreduce: {}", error.to_string()))
}

#[cfg(test)]
mod tests {
    use blip2_collective::CollectiveError;

    use super::*;

    #[test]
    fn errors_name_the_bench() {
        assert!(failed(CollectiveError::NoWorld).to_string().starts_with("bench allreduce: no world"));
    }
}
