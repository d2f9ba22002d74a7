//! What the binary is built from: a bill of materials in CycloneDX 1.5.
//!
//! Written here, since the crate for it (`cyclonedx-bom`) takes a minute to build and changes the features of
//! crates that everything stands on.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::files::read;
use crate::repository;

/// The package whose binary it is.
const PROGRAM: &str = "blip2";

/// What `cargo tree` says of a package that is linked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    license: String,
    /// A crate of this repository, which has no checksum.
    is_own: bool,
}

/// `Cargo.lock`.
#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

/// The bill of the binary for `target` with these features, as JSON: a function of `Cargo.lock` and the
/// manifests.
pub(crate) fn bill(features: &[String], target: &str) -> Result<String, String> {
    let mut cargo = repository::cargo();
    cargo.args(["tree", "--locked", "--package", PROGRAM, "--target", target, "--edges", "normal"]);
    cargo.args(["--prefix", "depth", "--format", "|{p}|{l}"]);
    if !features.is_empty() {
        cargo.arg("--features").arg(features.join(","));
    }
    let ended = cargo.output().map_err(|error| format!("cargo tree: {error}"))?;
    if !ended.status.success() {
        return Err(format!("cargo tree: {}", String::from_utf8_lossy(&ended.stderr)));
    }
    let linked = linked(&String::from_utf8_lossy(&ended.stdout))?;
    let path = repository::workspace().join("Cargo.lock");
    let lock = toml::from_str(&read(&path)?).map_err(|error| format!("{}: {error}", path.display()))?;
    let bill = bill_of(&linked, &lock)?;
    serde_json::to_string_pretty(&bill).map_err(|error| error.to_string())
}

/// Each package that is linked, with those it uses. A line of `tree` is `DEPTH|NAME vVERSION …|LICENSE`; what
/// a package uses stands below it once, at the first place.
fn linked(tree: &str) -> Result<BTreeMap<Package, BTreeSet<Package>>, String> {
    let mut found: BTreeMap<Package, BTreeSet<Package>> = BTreeMap::new();
    let mut above: Vec<Package> = Vec::new();
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let unknown = || format!("cargo tree says `{line}`");
        let (depth, rest) = line.split_once('|').ok_or_else(unknown)?;
        let (package, license) = rest.split_once('|').ok_or_else(unknown)?;
        let depth: usize = depth.parse().map_err(|_| unknown())?;
        let (name, more) = package.split_once(" v").ok_or_else(unknown)?;
        let (version, more) = more.split_once(' ').unwrap_or((more, ""));
        let package = Package {
            name: name.to_owned(),
            version: version.to_owned(),
            license: license.trim_end_matches("(*)").trim().to_owned(),
            is_own: more.contains('/'),
        };
        above.truncate(depth);
        if let Some(user) = above.last() {
            found.entry(user.clone()).or_default().insert(package.clone());
        }
        found.entry(package.clone()).or_default();
        above.push(package);
    }
    Ok(found)
}

fn bill_of(linked: &BTreeMap<Package, BTreeSet<Package>>, lock: &Lock) -> Result<Value, String> {
    let mut program = None;
    let mut components = Vec::new();
    for package in linked.keys() {
        let component = component(package, lock)?;
        match package.name == PROGRAM {
            true => program = Some(component),
            false => components.push(component),
        }
    }
    let dependencies = linked.iter().map(|(package, uses)| {
        json!({ "ref": purl(package), "dependsOn": uses.iter().map(purl).collect::<Vec<_>>() })
    });
    // No serial number and no time of day: the same bill for the same sources.
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": program },
        "components": components,
        "dependencies": dependencies.collect::<Vec<_>>(),
    }))
}

fn purl(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version)
}

fn component(package: &Package, lock: &Lock) -> Result<Value, String> {
    let Package { name, version, license, is_own } = package;
    let purl = purl(package);
    let kind = if name == PROGRAM { "application" } else { "library" };
    let mut component =
        json!({ "type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl });
    if !license.is_empty() {
        // `MIT/Apache-2.0` is how it was once written.
        let canonical =
            spdx::Expression::canonicalize(license).map_err(|error| format!("{name}: {error}"))?;
        component["licenses"] = json!([{ "expression": canonical.as_deref().unwrap_or(license) }]);
    }
    let locked = lock.package.iter().find(|locked| locked.name == *name && locked.version == *version);
    match locked.and_then(|locked| locked.checksum.as_deref()) {
        Some(checksum) => component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]),
        None if *is_own => {}
        None => return Err(format!("Cargo.lock has no checksum of {name} {version}")),
    }
    Ok(component)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_read_with_what_each_uses() {
        let tree = "0|a v1.0.0 (/here/a)|MIT\n1|b v2.1.0 (proc-macro)|Apache-2.0 AND ISC\n2|c v3.0.0|\n1|c v3.0.0| (*)\n";
        let found = linked(tree).unwrap();
        let uses = |name: &str| -> Vec<&str> {
            let (_, uses) = found.iter().find(|(package, _)| package.name == name).unwrap();
            uses.iter().map(|package| package.name.as_str()).collect()
        };
        assert_eq!((uses("a"), uses("b"), uses("c")), (vec!["b", "c"], vec!["c"], vec![]));
        let own: Vec<bool> = found.keys().map(|package| package.is_own).collect();
        assert_eq!(own, [true, false, false]);
        assert!(linked("what").unwrap_err().contains("what"));
    }

    #[test]
    fn the_bill_has_what_is_linked_and_nothing_of_tests() {
        let read = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
        let text = bill(&[], "x86_64-unknown-linux-gnu").unwrap();
        assert_eq!(text, bill(&[], "x86_64-unknown-linux-gnu").unwrap(), "twice the same");
        let bom = read(&text);
        assert_eq!(bom["metadata"]["component"]["name"], PROGRAM);
        let components = bom["components"].as_array().unwrap();
        let named = |name: &str| components.iter().find(|component| component["name"] == name);
        for name in ["burn", "tonic", "parquet", "object_store", "tokio", "blip2-coordinator"] {
            assert!(named(name).is_some(), "{name}");
        }
        // Of tests, of builds, of another system, of another feature.
        for name in ["rcgen", "xtask", "blip2-tests", "tonic-prost-build", "windows-sys", "burn-cuda"] {
            assert!(named(name).is_none(), "{name}");
        }
        let ring = named("ring").unwrap();
        assert_eq!(ring["hashes"][0]["content"].as_str().unwrap().len(), 64);
        assert_eq!(ring["licenses"][0]["expression"], "Apache-2.0 AND ISC");
        assert_eq!(
            named("snap").unwrap()["purl"],
            format!("pkg:cargo/snap@{}", named("snap").unwrap()["version"].as_str().unwrap())
        );
        let dependencies = bom["dependencies"].as_array().unwrap();
        assert_eq!(dependencies.len(), components.len() + 1);
        let known: BTreeSet<&str> = dependencies.iter().map(|one| one["ref"].as_str().unwrap()).collect();
        let mut used = dependencies.iter().flat_map(|one| one["dependsOn"].as_array().unwrap());
        assert!(used.all(|name| known.contains(name.as_str().unwrap())));
        let cuda = read(&bill(&["blip2/cuda".into()], "x86_64-unknown-linux-gnu").unwrap());
        assert!(
            cuda["components"].as_array().unwrap().iter().any(|component| component["name"] == "burn-cuda")
        );
    }
}
