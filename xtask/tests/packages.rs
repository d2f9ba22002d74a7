//! Gates on the packages that the program is built from: their licences and sources are those of `deny.toml`,
//! which `cargo deny` reads too, the tests are built of the same ones, and what is changed in `vendor/` is
//! among them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use spdx::{Expression, ParseMode};

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
    exceptions: Vec<Exception>,
    clarify: Vec<Clarified>,
}

/// Licences of one crate besides those of all.
#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

/// The licence of a crate whose manifest does not say it.
#[derive(Deserialize)]
struct Clarified {
    #[serde(rename = "crate")]
    name: String,
    expression: String,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Banned>,
}

#[derive(Deserialize)]
struct Banned {
    #[serde(rename = "crate")]
    name: String,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize, Clone)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn deny() -> Deny {
    toml::from_str(&std::fs::read_to_string(root().join("deny.toml")).unwrap()).unwrap()
}

/// What cargo prints for `arguments`.
fn cargo(arguments: &[&str]) -> Vec<u8> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let ended = cargo.current_dir(root()).args(arguments).arg("--locked").output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    ended.stdout
}

/// All packages of `Cargo.lock`, with every feature.
fn packages() -> Vec<Package> {
    let metadata = cargo(&["metadata", "--format-version=1", "--all-features"]);
    let Metadata { packages } = serde_json::from_slice(&metadata).unwrap();
    assert!(packages.len() > 500, "{} packages", packages.len());
    packages
}

/// What is wrong with these packages, a line each.
fn faults(deny: &Deny, packages: &[Package]) -> Vec<String> {
    let everywhere: BTreeSet<&str> = deny.licenses.allow.iter().map(String::as_str).collect();
    let mut exceptions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for exception in &deny.licenses.exceptions {
        let allowed = exceptions.entry(&exception.name).or_default();
        allowed.extend(exception.allow.iter().map(String::as_str));
    }
    let banned: BTreeSet<&str> = deny.bans.deny.iter().map(|banned| banned.name.as_str()).collect();
    let fault = |package: &Package| -> Option<String> {
        let clarified = deny.licenses.clarify.iter().find(|clarified| clarified.name == package.name);
        let license = clarified.map(|clarified| &clarified.expression).or(package.license.as_ref());
        let Some(license) = license else { return Some("names no licence".into()) };
        let Ok(expression) = Expression::parse_mode(license, ParseMode::LAX) else {
            return Some(format!("has a licence that is no SPDX expression: {license}"));
        };
        let own = exceptions.get(package.name.as_str());
        let is_allowed = expression.evaluate(|required| {
            let name = required.to_string();
            everywhere.contains(name.as_str()) || own.is_some_and(|own| own.contains(name.as_str()))
        });
        if !is_allowed {
            return Some(format!("has a licence that deny.toml does not allow: {license}"));
        }
        if banned.contains(package.name.as_str()) {
            return Some("is banned by deny.toml".into());
        }
        let source = package.source.as_deref().unwrap_or(CRATES_IO);
        (source != CRATES_IO).then(|| format!("comes from {source}"))
    };
    let line = |package: &Package| {
        fault(package).map(|fault| format!("{} {} {fault}", package.name, package.version))
    };
    packages.iter().filter_map(line).collect()
}

#[test]
fn packages_have_licences_and_sources_that_are_allowed() {
    let faults = faults(&deny(), &packages());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A package of another version would take the place of one that is changed here, with a warning alone.
#[test]
fn what_is_changed_here_is_what_the_program_is_built_of() {
    let packages = packages();
    let changed = std::fs::read_dir(root().join("vendor")).unwrap().flatten();
    let changed: Vec<String> =
        changed.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert!(!changed.is_empty());
    for name in changed {
        let found: Vec<&Package> = packages.iter().filter(|package| package.name == name).collect();
        let ours = matches!(found[..], [Package { source: None, .. }]);
        assert!(ours, "vendor/{name} is not what the program is built of, or not all: update it");
    }
}

#[test]
fn what_is_no_longer_needed_is_not_excepted() {
    let (deny, packages) = (deny(), packages());
    let names: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let excepted = deny.licenses.exceptions.iter().map(|exception| exception.name.as_str());
    let clarified = deny.licenses.clarify.iter().map(|clarified| clarified.name.as_str());
    let idle: Vec<&str> = excepted.chain(clarified).filter(|name| !names.contains(name)).collect();
    assert!(idle.is_empty(), "deny.toml excepts what nobody uses: {idle:?}");
}

/// Packages and their features, as they are built for the machine that runs them.
fn built(arguments: &[&str]) -> BTreeSet<String> {
    let told = cargo(&[&["tree", "--prefix=none", "--format={p} {f}"], arguments].concat());
    let told = String::from_utf8(told).unwrap();
    told.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
}

#[test]
fn the_tests_build_takes_over_all_that_the_program_was_built_of() {
    let program = built(&["--edges=normal,no-proc-macro"]);
    let tests = built(&["--workspace", "--edges=normal,dev,no-proc-macro"]);
    assert!(program.len() > 300, "{} packages", program.len());
    let again: Vec<&String> = program.difference(&tests).collect();
    assert!(
        again.is_empty(),
        "`cargo test --workspace` builds these anew, with what depends on them, since something in the workspace \
         asks for other features: {again:#?}; a member that does belongs to `default-members`"
    );
}

#[test]
fn each_fault_is_found() {
    let deny = deny();
    let good = Package {
        name: "good".into(),
        version: "1.0.0".into(),
        license: Some("GPL-3.0-only OR MIT/Apache-2.0".into()),
        source: Some(CRATES_IO.into()),
    };
    let found = |change: &dyn Fn(&mut Package)| {
        let mut package = good.clone();
        change(&mut package);
        faults(&deny, &[package]).join("\n")
    };
    assert_eq!(found(&|_| ()), "");
    assert!(found(&|package| package.license = None).contains("names no licence"));
    assert!(found(&|package| package.license = Some("as you like".into())).contains("SPDX"));
    assert!(found(&|package| package.license = Some("MIT AND GPL-3.0-only".into())).contains("not allow"));
    let mpl = |name: &'static str| {
        found(&move |package| (package.name, package.license) = (name.into(), Some("MPL-2.0".into())))
    };
    assert_eq!(mpl("colored"), "");
    assert!(mpl("good").contains("not allow"));
    assert!(found(&|package| package.name = "openssl-sys".into()).contains("banned"));
    assert!(found(&|package| package.source = Some("git+https://a.b/c".into())).contains("git+"));
}
