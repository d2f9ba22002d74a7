//! A machine's cores, and which of them go with which card.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The cores that this process may use, by the node of memory they are at. A core is the numbers of its
/// hardware threads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cores(pub(crate) BTreeMap<u32, Vec<Vec<u32>>>);

impl Cores {
    /// What the kernel says below `root`, which is `/` but for tests. Nothing where it says nothing.
    pub(crate) fn read(root: &Path) -> Self {
        let text = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
        let status = text("proc/self/status");
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let allowed: BTreeSet<u32> = numbers(allowed.unwrap_or_default());
        let mut nodes = BTreeMap::new();
        for node in numbers(&text("sys/devices/system/node/online")) {
            let here = numbers(&text(&format!("sys/devices/system/node/node{node}/cpulist")));
            let mut left: BTreeSet<u32> = here.intersection(&allowed).copied().collect();
            let mut cores = Vec::new();
            while let Some(first) = left.pop_first() {
                let path = format!("sys/devices/system/cpu/cpu{first}/topology/thread_siblings_list");
                let siblings = numbers(&text(&path));
                let others: Vec<u32> = left.intersection(&siblings).copied().collect();
                left.retain(|other| !siblings.contains(other));
                cores.push(std::iter::once(first).chain(others).collect());
            }
            if !cores.is_empty() {
                nodes.insert(node, cores);
            }
        }
        Self(nodes)
    }

    /// Hardware threads for each worker, whose card is at the node of the same place in `cards`: workers with
    /// cards at a node divide its cores, and where a card's node is not known all divide all cores. Nothing
    /// for a worker of whom there are more than cores.
    pub(crate) fn deal(&self, cards: &[Option<u32>]) -> Vec<Vec<u32>> {
        let known: Option<Vec<u32>> =
            cards.iter().map(|node| node.filter(|node| self.0.contains_key(node))).collect();
        let all: Vec<&Vec<u32>> = self.0.values().flatten().collect();
        let share = |index: usize, count: usize, cores: &[&Vec<u32>]| {
            let part = index * cores.len() / count..(index + 1) * cores.len() / count;
            let mut threads: Vec<u32> = cores[part].iter().flat_map(|core| core.iter().copied()).collect();
            threads.sort_unstable();
            threads
        };
        let Some(known) = known else {
            return (0..cards.len()).map(|index| share(index, cards.len(), &all)).collect();
        };
        let of_worker = |(worker, node): (usize, &u32)| {
            let before = known[..worker].iter().filter(|other| *other == node).count();
            let count = known.iter().filter(|other| *other == node).count();
            let cores: Vec<&Vec<u32>> = self.0[node].iter().collect();
            share(before, count, &cores)
        };
        known.iter().enumerate().map(of_worker).collect()
    }
}

/// The node of the card at this place on the bus.
pub(crate) fn node_of(root: &Path, bus_id: &str) -> Option<u32> {
    let path = root.join(format!("sys/bus/pci/devices/{bus_id}/numa_node"));
    // -1: the machine has one node, or does not say.
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// `0-3,8` as the kernel writes sets of cores; what is none is nothing.
fn numbers(list: &str) -> BTreeSet<u32> {
    let ranges = list.trim().split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    });
    ranges.flatten().collect()
}

/// The set as `taskset -c` reads it.
pub(crate) fn list(threads: &[u32]) -> String {
    threads.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two nodes of four cores with two threads each, numbered as Linux does: the second threads after all
    /// the first.
    fn two_nodes() -> Cores {
        let cores = |first: u32| (first..first + 4).map(|core| vec![core, core + 8]).collect();
        Cores(BTreeMap::from([(0, cores(0)), (1, cores(4))]))
    }

    #[test]
    fn cores_go_with_the_cards_node() {
        let two = two_nodes();
        for (cards, expected) in [
            // One card a node: the whole node.
            (&[Some(0), Some(1)][..], &["0,1,2,3,8,9,10,11", "4,5,6,7,12,13,14,15"][..]),
            (&[Some(1), Some(1)], &["4,5,12,13", "6,7,14,15"]),
            (&[Some(0), Some(1), Some(0)], &["0,1,8,9", "4,5,6,7,12,13,14,15", "2,3,10,11"]),
            (&[Some(0)], &["0,1,2,3,8,9,10,11"]),
            // Not known of one: all divide all.
            (&[Some(0), None], &["0,1,2,3,8,9,10,11", "4,5,6,7,12,13,14,15"]),
            (&[Some(7), Some(0)], &["0,1,2,3,8,9,10,11", "4,5,6,7,12,13,14,15"]),
            (&[None, None, None], &["0,1,8,9", "2,3,4,10,11,12", "5,6,7,13,14,15"]),
            (&[], &[]),
        ] {
            let dealt: Vec<String> = two.deal(cards).iter().map(|threads| list(threads)).collect();
            assert_eq!(dealt, expected, "{cards:?}");
        }
        // More workers than cores: those without one are left to the kernel.
        let crowded = two.deal(&[Some(0); 5]);
        assert_eq!(crowded.iter().map(Vec::len).sum::<usize>(), 8);
        assert!(crowded.iter().any(Vec::is_empty));
        assert_eq!(Cores::default().deal(&[None, Some(0)]), [Vec::<u32>::new(), Vec::new()]);
    }

    #[test]
    fn cores_are_read_as_far_as_they_are_allowed() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(Cores::read(root.path()), Cores::default());
        write("proc/self/status", "Name:\tblip2\nCpus_allowed_list:\t0-1,3-7\n");
        write("sys/devices/system/node/online", "0-1\n");
        write("sys/devices/system/node/node0/cpulist", "0-1,4-5\n");
        write("sys/devices/system/node/node1/cpulist", "2-3,6-7\n");
        for core in 0..4 {
            for thread in [core, core + 4] {
                let path = format!("sys/devices/system/cpu/cpu{thread}/topology/thread_siblings_list");
                write(&path, &format!("{core},{}\n", core + 4));
            }
        }
        let expected = [(0, vec![vec![0, 4], vec![1, 5]]), (1, vec![vec![3, 7], vec![6]])];
        assert_eq!(Cores::read(root.path()), Cores(BTreeMap::from(expected)));
        write("sys/bus/pci/devices/0000:3b:00.0/numa_node", "1\n");
        write("sys/bus/pci/devices/0000:3c:00.0/numa_node", "-1\n");
        assert_eq!(node_of(root.path(), "0000:3b:00.0"), Some(1));
        assert_eq!(node_of(root.path(), "0000:3c:00.0"), None);
        assert_eq!(node_of(root.path(), "0000:3d:00.0"), None);
    }
}
