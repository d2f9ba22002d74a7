//! Gates on the text of the repository: lengths, one style of modules, and documents that point at what is
//! there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use xtask::{links, text};

/// Lines beyond which a file is two. Those that are longer: with the lines they may have, which may only
/// become fewer.
const LINES: usize = 500;
const LONGER: &[(&str, usize)] = &[
    ("model/src/train/optimizer.rs", 526),
    ("model/tests/published/main.rs", 540),
    ("tests/tests/simulation/coordinator_process.rs", 538),
];

/// Files with lines of comment that are too long, and how many: they may only become fewer.
const LONG_COMMENTS: &[(&str, usize)] = &[
    ("cli/src/arguments.rs", 13),
    ("cli/src/bench/step.rs", 1),
    ("cli/src/bench/step/speed.rs", 1),
    ("cli/src/commands/checkpoint.rs", 3),
    ("cli/src/commands/curate/run.rs", 1),
    ("cli/src/commands/quickstart/survival.rs", 1),
    ("cli/src/commands/status/source.rs", 3),
    ("cli/src/commands/train.rs", 2),
    ("cli/src/commands/worker.rs", 1),
    ("cli/src/lib.rs", 1),
    ("cli/src/metrics.rs", 4),
    ("cli/src/report/chart.rs", 1),
    ("cli/src/run_folder.rs", 5),
    ("cli/src/run_folder/beginning.rs", 2),
    ("cli/src/run_folder/corpus.rs", 2),
    ("cli/src/session.rs", 4),
    ("cli/src/stored_status.rs", 3),
    ("collective/src/bulk/frame.rs", 2),
    ("coordinator/src/machine.rs", 3),
    ("coordinator/src/machine/cadence.rs", 1),
    ("coordinator/src/machine/complaints.rs", 4),
    ("coordinator/src/machine/holding.rs", 5),
    ("coordinator/src/machine/invariants.rs", 1),
    ("coordinator/src/machine/membership.rs", 1),
    ("coordinator/src/machine/non_finite.rs", 1),
    ("coordinator/src/machine/progress.rs", 1),
    ("coordinator/src/machine/saving.rs", 1),
    ("coordinator/src/machine/settling.rs", 3),
    ("coordinator/src/server.rs", 6),
    ("coordinator/src/standby.rs", 5),
    ("curation/src/models.rs", 2),
    ("curation/src/settings.rs", 1),
    ("curation/src/worker/lease_client.rs", 1),
    ("dataset/src/image/decode.rs", 3),
    ("dataset/src/image/reduced.rs", 1),
    ("dataset/src/lib.rs", 10),
    ("dataset/src/loader/reads.rs", 3),
    ("dataset/src/loader/reads/next_use.rs", 2),
    ("dataset/src/plan/bijection.rs", 2),
    ("dataset/src/store.rs", 4),
    ("dataset/src/store/put_create.rs", 3),
    ("dataset/src/text.rs", 6),
    ("evaluation/src/captioning.rs", 1),
    ("model/src/blip2/export/tokenizer.rs", 4),
    ("model/src/files/tokenizer.rs", 3),
    ("model/src/files/weights.rs", 2),
    ("model/src/files/weights/source.rs", 5),
    ("proto/src/transport.rs", 7),
    ("proto/src/transport/gate.rs", 3),
    ("proto/src/transport/socket.rs", 2),
    ("xtask/src/cuda/counts.rs", 1),
];

/// Documents with lines that are too long, and how many: they may only become fewer.
const LONG_LINES: &[(&str, usize)] = &[
    ("CHANGELOG.md", 37),
    ("CONTRIBUTING.md", 1),
    ("README.md", 6),
    ("cli/src/config/introduction.md", 6),
    ("docs/configuration.md", 6),
    ("docs/curation.md", 7),
    ("docs/models.md", 11),
    ("docs/performance.md", 7),
    ("docs/testing.md", 15),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All files with this extension, with their text.
fn files(extension: &str) -> BTreeMap<PathBuf, String> {
    let paths = text::files(&root()).expect("git lists the files");
    let own = paths.into_iter().filter(|path| path.extension().is_some_and(|end| end == extension));
    own.map(|path| {
        let text = std::fs::read_to_string(root().join(&path)).expect("a text");
        (path, text)
    })
    .collect()
}

/// Fails with what was found, unless it is nothing.
fn nothing(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

/// A list of exceptions may only shrink: what was found beyond it, and what in it is no longer needed.
fn against(known: &[(&str, usize)], found: &BTreeMap<String, usize>) -> Vec<String> {
    let allowed: BTreeMap<&str, usize> = known.iter().copied().collect();
    let beyond =
        found.iter().filter(|(path, count)| allowed.get(path.as_str()).is_none_or(|most| *count > most));
    let fewer = known.iter().filter(|(path, most)| found.get(*path).is_none_or(|count| count < most));
    beyond
        .map(|(path, count)| format!("{path}: {count}"))
        .chain(
            fewer.map(|(path, most)| format!("{path}: fewer than {most} now: lower the number in this test")),
        )
        .collect()
}

#[test]
fn lines_of_comment_fit_a_window() {
    let found = counted("rs", |text| text::long_comments(text).len());
    nothing(&format!("comments of more than {} columns", text::COMMENT), against(LONG_COMMENTS, &found));
}

#[test]
fn lines_of_documents_fit_a_window() {
    let found = counted("md", |text| text::long_lines(text).len());
    nothing(&format!("lines of more than {} columns", text::DOCUMENT), against(LONG_LINES, &found));
}

/// Files with this extension of which something is there, and how much.
fn counted(extension: &str, count: impl Fn(&str) -> usize) -> BTreeMap<String, usize> {
    let counts = files(extension).into_iter().map(|(path, text)| (path.display().to_string(), count(&text)));
    counts.filter(|(_, count)| *count > 0).collect()
}

#[test]
fn a_file_is_one_idea() {
    let lengths = counted("rs", |text| text.lines().count());
    let found = lengths.into_iter().filter(|(_, lines)| *lines > LINES).collect();
    nothing(&format!("files of more than {LINES} lines"), against(LONGER, &found));
}

#[test]
fn a_module_is_a_file_with_its_folder() {
    let found = files("rs").into_keys().filter(|path| path.ends_with("mod.rs"));
    // A module that several tests share has no other place: cargo takes every file in `tests/` for a test.
    let found = found.filter(|path| path.iter().rev().nth(2).is_none_or(|folder| folder != "tests"));
    nothing("name.rs with name/, not name/mod.rs", found.map(|path| path.display().to_string()).collect());
}

#[test]
fn every_page_is_in_the_index() {
    let documents = files("md");
    let index = Path::new("docs/README.md");
    let linked: BTreeSet<PathBuf> =
        links::links(index, &documents[index]).into_iter().map(|(path, _)| path).collect();
    let pages = documents.keys().filter(|path| path.starts_with("docs") && *path != index);
    let found = pages.filter(|path| !linked.contains(*path)).map(|path| path.display().to_string());
    nothing("pages that docs/README.md does not link to", found.collect());
}

#[test]
fn links_lead_somewhere() {
    let documents = files("md");
    let mut broken = Vec::new();
    // Parts of pages that are put together from code have links as the page has them.
    let pages = documents.iter().filter(|(path, _)| !path.iter().any(|folder| folder == "src"));
    for (path, text) in pages {
        for (target, heading) in links::links(path, text) {
            let there = root().join(&target).exists();
            let known = heading.as_ref().is_none_or(|heading| {
                documents.get(&target).is_some_and(|text| links::headings(text).contains(heading))
            });
            if !there || !known {
                let heading = heading.map(|heading| format!("#{heading}")).unwrap_or_default();
                broken.push(format!("{} links to {}{heading}", path.display(), target.display()));
            }
        }
    }
    nothing("links that lead nowhere", broken);
}

#[test]
fn files_that_documents_name_are_there() {
    let all = text::files(&root()).expect("git lists the files");
    let is_there = |name: &str| all.iter().any(|path| path.ends_with(name));
    let mut missing = Vec::new();
    for (path, text) in files("md") {
        // What changed was once called otherwise, and other people's crates have files too.
        if path.ends_with("CHANGELOG.md") || path.ends_with("0004-own-hub-download.md") {
            continue;
        }
        let names = links::named_files(&text).into_iter().filter(|name| !is_there(name));
        missing.extend(names.map(|name| format!("{} names {name}", path.display())));
    }
    nothing("files that are not there", missing);
}

#[test]
fn tests_are_skipped_by_one_list() {
    let word = format!("{}skipped:", '"');
    let found = files("rs")
        .into_iter()
        .filter(|(path, text)| text.contains(&word) && path != Path::new("tests/src/need.rs"));
    nothing(
        "tests that skip themselves; use blip2_tests::need",
        found.map(|(path, _)| path.display().to_string()).collect(),
    );
}
