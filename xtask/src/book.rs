//! The documentation as a book: the pages of the repository, laid out as `docs/SUMMARY.md` says, built by
//! `mdbook`.
//!
//! Pages stay where they are read on the forge too, so links between them go through folders above `docs/`.
//! The book's source is therefore a copy of them under their own paths.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use xtask::{links, text};

use crate::cuda::Error;
use crate::files::{create, read, take, write};
use crate::repository;

/// The version that builds the book.
const MDBOOK: &str = "0.5.4";
const SUMMARY: &str = "docs/SUMMARY.md";
const SETTINGS: &str = "docs/book.toml";

/// Lays out the pages, builds the book into `book/html` of the target folder, and follows its links.
pub(crate) fn run() -> Result<bool, Error> {
    let target = repository::target_folder()?;
    let book = target.join("book");
    lay_out(&repository::workspace(), &book)?;
    let mdbook = program(&target.join("tools"))?;
    let built = Command::new(&mdbook).arg("build").arg(&book).output();
    let built = built.map_err(|error| format!("{}: {error}", mdbook.display()))?;
    let said = String::from_utf8_lossy(&built.stderr);
    // A page that is not as it was meant is a warning of its.
    if !built.status.success() || said.contains("WARN") {
        return Err(format!("mdbook: {said}").into());
    }
    let dead = dead_links(&book.join("html"))?;
    dead.iter().for_each(|line| eprintln!("{line}"));
    println!("{}", book.join("html/index.html").display());
    Ok(dead.is_empty())
}

/// `mdbook` of the right version: that of the machine, or one that is installed into `tools` first.
fn program(tools: &Path) -> Result<PathBuf, Error> {
    let installed = tools.join("bin/mdbook");
    for candidate in [PathBuf::from("mdbook"), installed.clone()] {
        let version = Command::new(&candidate).arg("--version").output();
        let is_right = |said: &[u8]| String::from_utf8_lossy(said).trim() == format!("mdbook v{MDBOOK}");
        if version.is_ok_and(|ended| is_right(&ended.stdout)) {
            return Ok(candidate);
        }
    }
    let mut cargo = repository::cargo();
    cargo.args(["install", "mdbook", "--version", MDBOOK, "--locked", "--quiet"]);
    cargo.args(["--no-default-features", "--features", "search"]);
    // It is built to be used once a change, not to be fast.
    cargo.arg("--root").arg(tools).env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0");
    let status = cargo.status().map_err(|error| format!("cargo: {error}"))?;
    match status.success() {
        true => Ok(installed),
        false => Err(Error::Unavailable(format!("mdbook {MDBOOK} cannot be installed here"))),
    }
}

/// Copies the pages of the summary, and what they show, below `book/source` under their own paths.
fn lay_out(root: &Path, book: &Path) -> Result<(), String> {
    let source = book.join("source");
    if source.exists() {
        std::fs::remove_dir_all(&source).map_err(|error| format!("{}: {error}", source.display()))?;
    }
    create(&source)?;
    take(&root.join(SETTINGS), &book.join("book.toml"))?;
    let summary = read(&root.join(SUMMARY))?;
    write(&source.join("SUMMARY.md"), &indexed(&from_root(&summary)))?;
    let known: BTreeSet<PathBuf> = text::files(root)?.into_iter().collect();
    for (page, _) in links::links(Path::new(SUMMARY), &summary) {
        let text = read(&root.join(&page))?;
        create(source.join(&page).parent().unwrap_or(&source))?;
        write(&source.join(indexed(&page.display().to_string())), &indexed(&text))?;
        for (shown, _) in links::links(&page, &text) {
            // Other pages come by themselves; a folder has none.
            if known.contains(&shown) && shown.extension().is_none_or(|end| end != "md") {
                take(&root.join(&shown), &source.join(&shown))?;
            }
        }
    }
    Ok(())
}

/// Paths and links with the first page of a folder as the book calls it.
fn indexed(text: &str) -> String {
    match text.strip_suffix("README.md") {
        Some(folder) => format!("{folder}index.md"),
        None => text.replace("README.md)", "index.md)").replace("README.md#", "index.md#"),
    }
}

/// The summary with its links from the repository's root instead of `docs/`.
fn from_root(summary: &str) -> String {
    let moved = summary.split("](").enumerate().map(|(number, part)| match part.split_once(')') {
        Some((target, rest)) if number > 0 => {
            format!("]({}){rest}", links::resolve(Path::new(SUMMARY), target).0.display())
        }
        _ => part.to_owned(),
    });
    moved.collect()
}

/// Links of the built pages that lead nowhere, a line each.
fn dead_links(html: &Path) -> Result<Vec<String>, String> {
    let mut pages = BTreeMap::new();
    let mut folders = vec![html.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for path in crate::files::listed(&folder)? {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "html") {
                let text = read(&path)?;
                pages.insert(path, text);
            }
        }
    }
    let dead = |page: &Path, text: &str| -> Vec<String> {
        let targets = text.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
        let inside = targets.filter(|target| !target.contains(':') && !target.is_empty());
        let is_dead = |target: &&str| {
            let (path, heading) = links::resolve(page, target);
            match pages.get(&path) {
                Some(text) => heading.is_some_and(|heading| !text.contains(&format!("id=\"{heading}\""))),
                None => !path.is_file(),
            }
        };
        inside.filter(is_dead).map(|target| format!("{}: {target} leads nowhere", page.display())).collect()
    };
    // The page that is shown for a missing one belongs to no folder, and `print.html` repeats all pages.
    let own = pages.iter().filter(|(page, _)| !page.ends_with("404.html") && !page.ends_with("print.html"));
    Ok(own.flat_map(|(page, text)| dead(page, text)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_lie_where_their_links_lead() {
        let folder = tempfile::tempdir().unwrap();
        lay_out(&repository::workspace(), folder.path()).unwrap();
        let source = folder.path().join("source");
        let summary = read(&source.join("SUMMARY.md")).unwrap();
        assert!(summary.contains("](docs/architecture.md)") && summary.contains("](index.md)"), "{summary}");
        for path in ["index.md", "docs/report-row.png", "docs/examples/smollm2-loss.svg", "k8s/index.md"] {
            assert!(source.join(path).is_file(), "{path}");
        }
        assert!(folder.path().join("book.toml").is_file());
    }

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let html = folder.path();
        create(&html.join("docs")).unwrap();
        write(&html.join("index.html"), "<a href=\"docs/a.html#part\"></a><a href=\"https://x.y\"></a>")
            .unwrap();
        write(&html.join("docs/a.html"), "<h1 id=\"part\"></h1><a href=\"../index.html\"></a>").unwrap();
        assert_eq!(dead_links(html).unwrap(), Vec::<String>::new());
        write(&html.join("docs/b.html"), "<a href=\"a.html#no\"></a><a href=\"no.html\"></a>").unwrap();
        assert_eq!(dead_links(html).unwrap().len(), 2);
    }
}
