//! Gates on the text of the repository: lengths, one style of modules, and documents that point at what is
//! there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use xtask::{links, text};

/// Lines beyond which a file is two. Those that are longer: with the lines they may have, which may only
/// become fewer.
const LINES: usize = 500;
const LONGER: &[(&str, usize)] = &[("tensors/src/train/optimizer.rs", 526)];

/// Files with lines of comment that are too long, and how many: they may only become fewer.
const LONG_COMMENTS: &[(&str, usize)] = &[];

/// Documents with lines that are too long, and how many: they may only become fewer.
const LONG_LINES: &[(&str, usize)] = &[("cli/src/config/introduction.md", 5), ("docs/configuration.md", 6)];

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
fn every_page_is_in_the_index_and_in_the_book() {
    let documents = files("md");
    let indices = ["docs/README.md", "docs/SUMMARY.md"].map(Path::new);
    for index in indices {
        let linked: BTreeSet<PathBuf> =
            links::links(index, &documents[index]).into_iter().map(|(path, _)| path).collect();
        let pages =
            documents.keys().filter(|path| path.starts_with("docs") && !indices.contains(&path.as_path()));
        let found = pages.filter(|path| !linked.contains(*path)).map(|path| path.display().to_string());
        nothing(&format!("pages that {} does not link to", index.display()), found.collect());
    }
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
    let is_module = |name: &str| root().join(name).exists() || root().join(format!("{name}.rs")).exists();
    let first = |path: &PathBuf| Some(path.iter().next()?.to_str()?.to_owned());
    let folders: BTreeSet<String> =
        all.iter().filter(|path| path.iter().count() > 1).filter_map(first).collect();
    let mut missing = Vec::new();
    for (path, text) in files("md") {
        // What changed was once called otherwise, and other people's crates have files too.
        if path.ends_with("CHANGELOG.md") || path.ends_with("0004-own-hub-download.md") {
            continue;
        }
        let names = links::named_files(&text).into_iter().filter(|name| !is_there(name));
        let modules = links::named_modules(&text, &folders).into_iter().filter(|name| !is_module(name));
        missing.extend(names.chain(modules).map(|name| format!("{} names {name}", path.display())));
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
