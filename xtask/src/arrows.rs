//! Which crate uses which, and which file uses which inside a crate, as the source says it.
//!
//! Knows names and paths, not types: a method called on another file's type is no arrow, the `use` of that
//! type is. What is compiled for tests alone is left out.

pub mod circles;
mod names;
pub mod page;
mod paths;
mod room;
mod source;
mod workspace;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;

pub use room::{File, Room};
pub use workspace::{Crate, crates};

/// The crates of the repository at `root`, the highest floor first: none uses one before it.
///
/// # Errors
///
/// When cargo cannot be asked, or a file cannot be read or parsed: with its path.
pub fn read(root: &Path) -> Result<Vec<Room>, String> {
    let rooms: Result<Vec<Room>, String> =
        workspace::crates(root)?.into_iter().map(|about| room(root, about)).collect();
    let rooms = rooms?;
    let number = |name: &String| rooms.iter().position(|room| &room.about.name == name);
    let uses = rooms.iter().map(|room| room.about.uses.iter().filter_map(number).collect());
    let floors = circles::floors(rooms.len(), &uses.enumerate().collect());
    let mut placed: Vec<(usize, Room)> = floors.into_iter().zip(rooms).collect();
    placed.sort_by_key(|(floor, room)| (Reverse(*floor), room.about.name.clone()));
    Ok(placed.into_iter().map(|(_, room)| room).collect())
}

fn room(root: &Path, about: Crate) -> Result<Room, String> {
    let mut room = Room { about, files: Vec::new(), uses: BTreeMap::new(), outside: BTreeMap::new() };
    for target in &room.about.targets {
        let tree = source::read(root, target)?;
        let begin = room.files.len();
        let named = names::named(&tree);
        for (from, to) in named.arrows {
            room.uses.entry(begin + from).or_default().insert(begin + to);
        }
        for (from, path) in named.outside {
            room.outside.entry(begin + from).or_default().insert(path);
        }
        room.files.extend(tree.files);
    }
    Ok(room)
}
