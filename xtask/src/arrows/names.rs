//! What a path leads to: through imports and re-exports to the file in which it is written.

use std::collections::BTreeSet;

use super::paths::paths;
use super::source::{Name, Tree};

/// Imports of imports that are followed; a re-export through more files than this is not read by people
/// either.
const DEPTH: usize = 16;

/// Where a path leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Module(usize),
    /// Something that the module holds.
    Item(usize),
}

/// What the files of a target name.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// Every pair of files of which the first uses the second.
    pub(super) arrows: BTreeSet<(usize, usize)>,
    /// Every pair of a file and a path in it that leads to no file of this target.
    pub(super) outside: BTreeSet<(usize, String)>,
}

pub(super) fn named(tree: &Tree) -> Named {
    let mut found = Named::default();
    for (number, module) in tree.modules.iter().enumerate() {
        let imports = module.names.values().filter_map(|name| match name {
            Name::Import(path) => Some(path.clone()),
            _ => None,
        });
        for path in imports.chain(module.globs.clone()).chain(paths(module.code.clone())) {
            let Some(place) = resolve(tree, number, &path, DEPTH) else {
                found.outside.insert((module.file, path.join("::")));
                continue;
            };
            let (Place::Module(to) | Place::Item(to)) = place;
            let to = tree.modules[to].file;
            if to != module.file {
                found.arrows.insert((module.file, to));
            }
        }
    }
    found
}

fn resolve(tree: &Tree, from: usize, path: &[String], depth: usize) -> Option<Place> {
    let (first, rest) = path.split_first()?;
    let begin = match first.as_str() {
        "crate" => Place::Module(0),
        "self" => Place::Module(from),
        "super" => Place::Module(tree.modules[from].above?),
        name => look_up(tree, from, name, depth)?,
    };
    follow(tree, begin, rest, depth)
}

fn follow(tree: &Tree, begin: Place, rest: &[String], depth: usize) -> Option<Place> {
    let mut place = begin;
    for name in rest {
        let Place::Module(module) = place else { return Some(place) };
        place = match name.as_str() {
            "super" => Place::Module(tree.modules[module].above?),
            name => look_up(tree, module, name, depth)?,
        };
    }
    Some(place)
}

fn look_up(tree: &Tree, module: usize, name: &str, depth: usize) -> Option<Place> {
    let depth = depth.checked_sub(1)?;
    match tree.modules[module].names.get(name) {
        Some(Name::Module(below)) => Some(Place::Module(*below)),
        Some(Name::Here) => Some(Place::Item(module)),
        Some(Name::Import(path)) => imported(tree, module, path, name, depth),
        None => tree.modules[module].globs.iter().find_map(|glob| {
            let Place::Module(other) = imported(tree, module, glob, name, depth)? else { return None };
            look_up(tree, other, name, depth)
        }),
    }
}

/// An import's path; one that begins with its own name is another crate's (`use tokio;`).
fn imported(tree: &Tree, module: usize, path: &[String], name: &str, depth: usize) -> Option<Place> {
    if path.first().is_some_and(|first| first == name) {
        return None;
    }
    resolve(tree, module, path, depth)
}
