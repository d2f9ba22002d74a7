//! Circles: what uses each other, directly or through others.
//!
//! Seen from outside a folder and its file (`store.rs` with `store/`) are one module, so a circle of files is
//! one of two: a circle between neighbours, or a file that uses its own folder and is used by it.

use std::collections::{BTreeMap, BTreeSet};

use super::room::Room;

/// Files of a crate that use each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Circle {
    /// Modules, from the crate's root: neighbours, or one that uses its own folder and is used by it.
    pub modules: Vec<String>,
    /// The uses that make the circle, as paths of files.
    pub arrows: Vec<(String, String)>,
}

/// A module's name in lists: from the crate's root, which is `crate`.
pub(super) fn name(module: &[String]) -> String {
    if module.is_empty() { "crate".into() } else { module.join("::") }
}

/// Every circle of a crate; there is no circle of files where this is empty.
pub fn of(room: &Room) -> Vec<Circle> {
    let mut found = between_neighbours(room);
    found.extend((0..room.files.len()).filter_map(|file| with_own_folder(room, file)));
    found
}

fn between_neighbours(room: &Room) -> Vec<Circle> {
    let depth = room.files.iter().map(|file| file.module.len()).max().unwrap_or(0);
    (1..=depth).flat_map(|depth| at_depth(room, depth)).collect()
}

fn at_depth(room: &Room, depth: usize) -> Vec<Circle> {
    let place = |file: usize| room.files[file].module.get(..depth);
    let modules: BTreeSet<&[String]> = (0..room.files.len()).filter_map(place).collect();
    let modules: Vec<&[String]> = modules.into_iter().collect();
    let node = |file: usize| place(file).and_then(|own| modules.binary_search(&own).ok());
    let neighbours = |a: usize, b: usize| a != b && modules[a][..depth - 1] == modules[b][..depth - 1];
    let arrows = room.arrows().filter_map(|(from, to)| {
        let (a, b) = (node(from)?, node(to)?);
        neighbours(a, b).then_some((a, b, from, to))
    });
    let arrows: Vec<(usize, usize, usize, usize)> = arrows.collect();
    let mut uses = BTreeMap::<_, BTreeSet<_>>::new();
    arrows.iter().for_each(|(a, b, _, _)| {
        uses.entry(*a).or_default().insert(*b);
    });
    let circle = |members: Vec<usize>| {
        let inside = arrows.iter().filter(|(a, b, _, _)| members.contains(a) && members.contains(b));
        Circle {
            modules: members.iter().map(|node| name(modules[*node])).collect(),
            arrows: inside.map(|(_, _, from, to)| room.shown(*from, *to)).collect(),
        }
    };
    components(modules.len(), &uses).into_iter().map(circle).collect()
}

fn with_own_folder(room: &Room, file: usize) -> Option<Circle> {
    let own = &room.files[file];
    let below = |other: usize| {
        let other = &room.files[other];
        other.module.len() > own.module.len() && other.module.starts_with(&own.module)
    };
    let down: Vec<_> = room.arrows().filter(|(from, to)| *from == file && below(*to)).collect();
    let up: Vec<_> = room.arrows().filter(|(from, to)| *to == file && below(*from)).collect();
    (!down.is_empty() && !up.is_empty()).then(|| Circle {
        modules: vec![name(&own.module)],
        arrows: down.into_iter().chain(up).map(|(from, to)| room.shown(from, to)).collect(),
    })
}

/// Groups of two or more nodes each of which reaches all others of its group, in order.
fn components(nodes: usize, uses: &BTreeMap<usize, BTreeSet<usize>>) -> Vec<Vec<usize>> {
    let reached: Vec<BTreeSet<usize>> = (0..nodes).map(|node| reach(node, uses)).collect();
    let group = |node: usize| -> Vec<usize> {
        reached[node].iter().copied().filter(|other| reached[*other].contains(&node)).collect()
    };
    let found: BTreeSet<Vec<usize>> = (0..nodes).map(group).filter(|group| group.len() > 1).collect();
    found.into_iter().collect()
}

/// What a node uses, directly or not.
fn reach(node: usize, uses: &BTreeMap<usize, BTreeSet<usize>>) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut next = vec![node];
    while let Some(node) = next.pop() {
        let others = uses.get(&node).into_iter().flatten().copied();
        let fresh: Vec<usize> = others.filter(|other| !reached.contains(other)).collect();
        reached.extend(&fresh);
        next.extend(fresh);
    }
    reached
}

/// The floor of each node: one above the highest that it uses, those of a circle on one floor; the lowest
/// is 0.
pub(super) fn floors(nodes: usize, uses: &BTreeMap<usize, BTreeSet<usize>>) -> Vec<usize> {
    let circles = components(nodes, uses);
    let circle = |node: usize| circles.iter().position(|circle| circle.contains(&node));
    let mut floors = vec![0; nodes];
    // A floor rises at most once for every node below it.
    for _ in 0..nodes {
        for (node, others) in uses {
            for other in others.iter().filter(|other| *other != node) {
                let same = circle(*node).is_some() && circle(*node) == circle(*other);
                floors[*node] = floors[*node].max(floors[*other] + usize::from(!same));
            }
        }
    }
    floors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrows::{Crate, File};

    fn uses(arrows: &[(usize, usize)]) -> BTreeMap<usize, BTreeSet<usize>> {
        let mut uses = BTreeMap::<_, BTreeSet<_>>::new();
        arrows.iter().for_each(|(from, to)| {
            uses.entry(*from).or_default().insert(*to);
        });
        uses
    }

    #[test]
    fn components_are_found_and_share_a_floor() {
        let uses = uses(&[(0, 1), (1, 2), (2, 1), (2, 3), (4, 5), (5, 6), (6, 4)]);
        assert_eq!(components(7, &uses), [vec![1, 2], vec![4, 5, 6]]);
        assert_eq!(floors(7, &uses), [2, 1, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn folders_are_one_with_their_file() {
        let files = ["", "a", "a::x", "b", "b::y"].map(|module| File {
            path: module.into(),
            module: module.split("::").filter(|name| !name.is_empty()).map(String::from).collect(),
            lines: 1,
        });
        let room = |arrows: &[(usize, usize)]| Room {
            about: Crate::default(),
            files: files.to_vec(),
            uses: uses(arrows),
            outside: BTreeMap::new(),
        };
        let modules = |arrows: &[(usize, usize)]| -> Vec<Vec<String>> {
            of(&room(arrows)).into_iter().map(|circle| circle.modules).collect()
        };
        // No file of these is in a circle of files, yet the two modules use each other.
        assert_eq!(modules(&[(2, 3), (4, 1)]), [["a", "b"]]);
        assert_eq!(modules(&[(1, 2), (2, 1)]), [["a"]]);
        assert!(modules(&[(0, 1), (1, 2), (2, 4), (3, 4), (0, 4)]).is_empty());
    }
}
