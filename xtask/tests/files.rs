//! Gates on the files of the crates: no circle, no room that outgrows the others, and files that are
//! functions of what they are given.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use xtask::arrows::{self, Room, circles};
use xtask::text;

/// Neighbours that use each other in a circle, by crate and modules: the list may only shrink.
const NEIGHBOURS: &[(&str, &str)] = &[];

/// Files that use their own folder and are used by it: the list may only shrink.
///
/// A state machine whose `impl` blocks fill a folder is of this kind, and the mildest of circles: seen from
/// outside, file and folder are one module.
const WITH_OWN_FOLDER: &[(&str, &str)] = &[];

/// The most that one room holds of the program's lines, in hundredths.
const SHARE: usize = 20;

/// The most MiB that all files of the repository have together: whoever tries the program waits for them.
const REPOSITORY: u64 = 45;

/// What is a function of what it is given, as far as it is not for tests: files, or modules with all that
/// lies in their folders.
const PURE: &[&str] = &[
    "collective/src/additions.rs",
    "collective/src/tree.rs",
    "coordinator/src/machine",
    "curation/src/rules.rs",
    "curation/src/select.rs",
    "dataset/src/plan.rs",
    "dataset/src/plan/candidates.rs",
    "dataset/src/plan/mixture.rs",
    "dataset/src/plan/place.rs",
    "dataset/src/plan/sample_plan.rs",
    "dataset/src/plan/sequence.rs",
    "dataset/src/plan/source_order.rs",
    "dataset/src/plan/view.rs",
    "evaluation/src/metrics",
    "images/src/decode",
    "images/src/guard.rs",
    "images/src/jpeg",
    "images/src/reduced.rs",
    "images/src/transform/crop.rs",
    "images/src/transform/evaluate.rs",
    "images/src/transform/pixels.rs",
    "images/src/transform/resize.rs",
    "leases/src/tasks.rs",
    "model/src/language/generation",
    "model/src/objectives",
    "model/src/qformer",
    "pages/src",
    "random/src/lib.rs",
    "tensors/src/fused",
    "tensors/src/nn",
    "tensors/src/train",
    "worker/src/member",
    "worker/src/task",
];

/// What a pure file never names: clocks, threads, processes, disks, networks, and what has an order of its
/// own.
const IMPURE: &[&str] = &[
    "object_store",
    "std::collections::HashMap",
    "std::collections::HashSet",
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "tokio",
    "tonic",
];

static ROOMS: LazyLock<Vec<Room>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    arrows::read(&root).expect("the source can be read")
});

/// Fails with what was found, unless it is nothing.
fn nothing(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn neighbours_use_each_other_in_no_circle() {
    against(NEIGHBOURS, |modules| modules > 1);
}

#[test]
fn files_that_use_their_folder_are_not_used_by_it() {
    against(WITH_OWN_FOLDER, |modules| modules == 1);
}

/// Compares the circles of so many modules with those that are known.
fn against(known: &[(&str, &str)], kind: impl Fn(usize) -> bool) {
    let circles = ROOMS.iter().flat_map(|room| {
        let own = circles::of(room).into_iter().filter(|circle| kind(circle.modules.len()));
        own.map(|circle| (room.about.name.as_str(), circle.modules.join(" ")))
    });
    let found: BTreeSet<(&str, String)> = circles.collect();
    let known: BTreeSet<(&str, String)> =
        known.iter().map(|(name, modules)| (*name, (*modules).into())).collect();
    let shown = |circle: &(&str, String)| format!("(\"{}\", \"{}\"),", circle.0, circle.1);
    let fresh: Vec<String> = found.difference(&known).map(shown).collect();
    nothing("circles of files; `cargo xtask arrows --circles` names the uses that make them", &fresh);
    let gone: Vec<String> = known.difference(&found).map(shown).collect();
    nothing("circles that are no more; take them from the list in this test", &gone);
}

#[test]
fn no_room_outgrows_the_others() {
    let program: Vec<&Room> = ROOMS.iter().filter(|room| room.of_the_program()).collect();
    let whole: usize = program.iter().map(|room| room.lines()).sum();
    let found = program.iter().filter(|room| 100 * room.lines() > SHARE * whole);
    let found: Vec<String> = found
        .map(|room| format!("{} holds {} of {whole} lines, tests left out", room.about.name, room.lines()))
        .collect();
    nothing("rooms that hold too much of the program", &found);
}

#[test]
fn pure_files_are_functions_of_what_they_are_given() {
    let within =
        |path: &Path, pure: &str| path == Path::new(pure) || path.with_extension("").starts_with(pure);
    let mut unseen: BTreeSet<&str> = PURE.iter().copied().collect();
    let mut found = Vec::new();
    for room in ROOMS.iter() {
        for (number, file) in room.files.iter().enumerate() {
            let Some(pure) = PURE.iter().find(|pure| within(&file.path, pure)) else { continue };
            unseen.remove(pure);
            let outside = room.outside.get(&number).into_iter().flatten();
            let impure = outside.filter(|path| IMPURE.iter().any(|name| begins(path, name)));
            found.extend(impure.map(|path| format!("{} names {path}", file.path.display())));
        }
    }
    nothing("what pure files must not know", &found);
    let unseen: Vec<String> = unseen.into_iter().map(String::from).collect();
    nothing("pure files that are not there: correct the list in this test", &unseen);
}

/// Whether a path is `name` or something in it.
fn begins(path: &str, name: &str) -> bool {
    path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[test]
fn the_repository_is_soon_fetched() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let size = |path: &PathBuf| std::fs::metadata(root.join(path)).map_or(0, |file| file.len());
    let mut files: Vec<(u64, PathBuf)> = text::files(&root)
        .expect("git lists the files")
        .into_iter()
        .map(|path| (size(&path), path))
        .collect();
    files.sort_unstable_by(|one, other| other.cmp(one));
    let all: u64 = files.iter().map(|(bytes, _)| bytes).sum();
    let largest = files.iter().take(10).map(|(bytes, path)| format!("{bytes} {}", path.display()));
    assert!(
        all <= REPOSITORY << 20,
        "the files have {all} bytes together, more than {REPOSITORY} MiB. The largest of them:\n{}\n\
         Make smaller what has grown: models of fewer tokens or layers, images compressed more",
        largest.collect::<Vec<_>>().join("\n")
    );
}
