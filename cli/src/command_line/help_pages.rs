//! What every `--help` says is committed, so that a change of the command line is seen where it is reviewed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Command;

use super::whole;

/// Columns of the pages, whatever the terminal has: the most that clap takes by itself.
const WIDTH: usize = 100;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/help")
}

/// The words that name each command below `command`, which is named by `path`; hidden ones too.
fn paths(command: &Command, path: &[String], found: &mut Vec<Vec<String>>) {
    found.push(path.to_vec());
    for sub in command.get_subcommands() {
        paths(sub, &[path, &[sub.get_name().to_owned()]].concat(), found);
    }
}

/// The name of the page's file and the page, of every command.
fn pages() -> BTreeMap<String, String> {
    let mut all = Vec::new();
    paths(&whole(), &["blip2".to_owned()], &mut all);
    let page = |path: Vec<String>| {
        let name = format!("{}.txt", path.join("-"));
        let typed = path.into_iter().chain(["--help".to_owned()]);
        let help = whole().term_width(WIDTH).try_get_matches_from(typed).expect_err("help");
        // Editors and git dislike what clap leaves at the ends of lines.
        let lines: Vec<String> =
            help.to_string().lines().map(|line| line.trim_end().to_owned() + "\n").collect();
        (name, lines.concat())
    };
    all.into_iter().map(page).collect()
}

/// The pages as they are committed.
fn committed() -> BTreeMap<String, String> {
    let Ok(entries) = std::fs::read_dir(folder()) else { return BTreeMap::new() };
    let page = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.expect("a file").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, std::fs::read_to_string(&path).expect("a page"))
    };
    entries.map(page).collect()
}

#[test]
fn every_help_is_as_it_is_committed() {
    let (said, kept) = (pages(), committed());
    if std::env::var_os("BLIP2_BLESS").is_some() {
        std::fs::create_dir_all(folder()).expect("a folder");
        for old in kept.keys().filter(|name| !said.contains_key(*name)) {
            std::fs::remove_file(folder().join(old)).expect("removed");
        }
        for (name, page) in &said {
            std::fs::write(folder().join(name), page).expect("written");
        }
        return;
    }
    let told = "BLIP2_BLESS=1 cargo test --release -p blip2 writes cli/tests/help anew";
    let names = |pages: &BTreeMap<String, String>| pages.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&said), names(&kept), "commands came or went: {told}");
    for (name, page) in &said {
        assert!(*page == kept[name], "{name} is old: {told}\n{page}");
    }
}
