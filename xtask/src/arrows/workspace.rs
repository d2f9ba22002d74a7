//! The members of the workspace, from `cargo metadata`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A member of the workspace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Crate {
    /// As in its `Cargo.toml`.
    pub name: String,
    /// Its folder, from the repository's root.
    pub folder: PathBuf,
    /// Members that it is built or tested with.
    pub uses: BTreeSet<String>,
    /// Everything that it is built or tested with, members and others.
    pub needs: BTreeSet<String>,
    /// The first file of its library and of each of its programs.
    pub(super) targets: Vec<PathBuf>,
}

/// All members of the workspace at `root`.
///
/// # Errors
///
/// When cargo cannot describe them.
pub fn crates(root: &Path) -> Result<Vec<Crate>, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata names no packages")?;
    let root = root.canonicalize().map_err(|error| format!("{}: {error}", root.display()))?;
    let members: BTreeSet<String> = packages.iter().map(|package| text(&package["name"])).collect();
    Ok(packages.iter().map(|package| member(package, &members, &root)).collect())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn member(package: &Value, members: &BTreeSet<String>, root: &Path) -> Crate {
    let inside = |value: &Value| {
        let path = PathBuf::from(text(value));
        path.strip_prefix(root).map(Path::to_path_buf).unwrap_or(path)
    };
    let of = |list: &str| package[list].as_array().cloned().unwrap_or_default();
    let needs: BTreeSet<String> = of("dependencies").iter().map(|need| text(&need["name"])).collect();
    let shipped = |target: &&Value| {
        let kinds = target["kind"].as_array().cloned().unwrap_or_default();
        kinds.iter().any(|kind| ["lib", "bin", "cdylib"].contains(&kind.as_str().unwrap_or_default()))
    };
    Crate {
        name: text(&package["name"]),
        folder: inside(&package["manifest_path"]).parent().unwrap_or(Path::new("")).to_path_buf(),
        uses: needs.intersection(members).cloned().collect(),
        needs,
        targets: of("targets").iter().filter(shipped).map(|target| inside(&target["src_path"])).collect(),
    }
}
