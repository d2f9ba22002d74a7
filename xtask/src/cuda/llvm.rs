//! LLVM laid out as `tracel-llvm-bundler` expects what it would download: archives, headers, and an
//! `llvm-config`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::files::{create, ends_with, executable, listed, read, take, write};

/// The part of the wheels that is LLVM.
const INSIDE: &str = "mlc_llvm_static/static";

/// Back ends besides those that are kept: the host's, for the compiler's own constants, and the card's.
const OTHER_TARGETS: [&str; 18] = [
    "AArch64",
    "AMDGPU",
    "ARM",
    "AVR",
    "BPF",
    "Hexagon",
    "Lanai",
    "LoongArch",
    "Mips",
    "MSP430",
    "PowerPC",
    "RISCV",
    "Sparc",
    "SPIRV",
    "SystemZ",
    "VE",
    "WebAssembly",
    "XCore",
];
const TARGETS: [&str; 2] = ["X86", "NVPTX"];

/// What the bundler links, in LLVM's names of components.
const COMPONENTS: [&str; 16] = [
    "core",
    "analysis",
    "irreader",
    "bitreader",
    "bitwriter",
    "linker",
    "passes",
    "target",
    "executionengine",
    "mcjit",
    "interpreter",
    "orcjit",
    "orcdebugging",
    "native",
    "x86",
    "nvptx",
];

/// Copies LLVM out of the unpacked wheels to `prefix`; the number of archives that are linked.
pub(crate) fn lay_out(wheels: &[PathBuf], prefix: &Path) -> Result<usize, String> {
    if prefix.is_dir() {
        std::fs::remove_dir_all(prefix).map_err(|error| format!("{}: {error}", prefix.display()))?;
    }
    for wheel in wheels {
        copy(&wheel.join(INSIDE), prefix, Path::new(""))?;
    }
    shorten_lists(&prefix.join("include/llvm/Config/mlc-all"))?;
    let description = read(&prefix.join("share/mlc-llvm-static/base.json"))?;
    let description: Value =
        serde_json::from_str(&description).map_err(|error| format!("base.json: {error}"))?;
    let libraries = libraries(&description)?;
    if let Some(missing) = libraries.iter().find(|name| !prefix.join(format!("lib/lib{name}.a")).is_file()) {
        return Err(format!("the wheels lack lib{missing}.a"));
    }
    let config = prefix.join("bin/llvm-config");
    create(&prefix.join("bin"))?;
    write(&config, &llvm_config(&description, &libraries)?)?;
    executable(&config)?;
    Ok(libraries.len())
}

fn copy(from: &Path, to: &Path, below: &Path) -> Result<(), String> {
    for path in listed(&from.join(below))? {
        let file = path.file_name().unwrap_or_default();
        let name = below.join(file);
        if path.is_dir() {
            // Programs are not needed.
            if name != Path::new("bin") {
                copy(from, to, &name)?;
            }
        } else if !of_other_target(&file.to_string_lossy()) {
            take(&path, &to.join(&name))?;
        }
    }
    Ok(())
}

/// `libLLVMARMCodeGen.a`, not `libLLVMARM.h` or the like: a part's name begins with a capital.
fn of_other_target(file: &str) -> bool {
    let Some(name) = file.strip_prefix("libLLVM") else { return false };
    OTHER_TARGETS.iter().any(|target| {
        name.strip_prefix(target)
            .is_some_and(|part| part.starts_with(|letter: char| letter.is_ascii_uppercase()))
    })
}

/// The headers' lists of targets, all of which the bundler's wrappers initialise.
fn shorten_lists(folder: &Path) -> Result<(), String> {
    for file in listed(folder)?.iter().filter(|file| ends_with(file, "def")) {
        let text = read(file)?;
        let kept: String = text.split_inclusive('\n').filter(|line| is_kept(line)).collect();
        write(file, &kept)?;
    }
    Ok(())
}

/// `LLVM_TARGET(ARM)` goes; everything that is no such line stays.
fn is_kept(line: &str) -> bool {
    let target = || line.strip_prefix("LLVM_")?.split_once('(')?.1.split_once(')').map(|(name, _)| name);
    let is_word = |name: &&str| name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    target().filter(is_word).is_none_or(|name| TARGETS.contains(&name))
}

/// Archives in an order in which each comes before those that it needs.
fn libraries(description: &Value) -> Result<Vec<String>, String> {
    let mut order = Order {
        graph: &description["profiles"]["all"]["components"],
        seen: BTreeSet::new(),
        names: Vec::new(),
    };
    for component in COMPONENTS {
        order.visit(component)?;
    }
    order.names.reverse();
    Ok(order.names)
}

struct Order<'a> {
    graph: &'a Value,
    seen: BTreeSet<String>,
    names: Vec<String>,
}

impl Order<'_> {
    fn visit(&mut self, component: &str) -> Result<(), String> {
        if !self.seen.insert(component.to_owned()) {
            return Ok(());
        }
        let part = &self.graph[component];
        let requires = part["requires"].as_array().ok_or_else(|| format!("base.json has no {component}"))?;
        for name in requires.iter().filter_map(Value::as_str) {
            self.visit(&name.to_lowercase())?;
        }
        self.names.extend(part["library"].as_str().filter(|name| !name.is_empty()).map(str::to_owned));
        Ok(())
    }
}

/// A script that answers what the bundler asks of `llvm-config`.
fn llvm_config(description: &Value, libraries: &[String]) -> Result<String, String> {
    let flags = |name: &str| {
        let list =
            description["flags"][name].as_array().ok_or_else(|| format!("base.json has no flags {name}"))?;
        Ok::<_, String>(list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "))
    };
    let version = description["llvm_version"].as_str().ok_or("base.json has no llvm_version")?;
    let linked: Vec<String> = libraries.iter().map(|name| format!("-l{name}")).collect();
    let files: Vec<String> = libraries.iter().map(|name| format!("lib{name}.a")).collect();
    Ok(format!(
        r#"#!/bin/sh
prefix=$(cd "$(dirname "$0")/.." && pwd)
for question in "$@"; do
    case "$question" in
        --link-static) ;;
        --version) echo {version} ;;
        --libdir) echo "$prefix/lib" ;;
        --includedir) echo "$prefix/include" ;;
        --cflags) echo "-I$prefix/include {}" ;;
        --cxxflags) echo "-I$prefix/include {}" ;;
        --libs) echo "{}" ;;
        --libnames) echo "{}" ;;
        --system-libs) echo "{}" ;;
        *) echo "$0: $question is not answered here" >&2; exit 1 ;;
    esac
done
"#,
        flags("cflags")?,
        flags("cxxflags")?,
        linked.join(" "),
        files.join(" "),
        flags("system-libs")?,
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn other_back_ends_are_left_out_by_their_names() {
        for file in ["libLLVMARMCodeGen.a", "libLLVMAArch64Desc.a", "libLLVMVEInfo.a"] {
            assert!(of_other_target(file), "{file}");
        }
        for file in
            ["libLLVMX86CodeGen.a", "libLLVMNVPTXInfo.a", "libLLVMVectorize.a", "libLLVMAnalysis.a", "ARM.h"]
        {
            assert!(!of_other_target(file), "{file}");
        }
        assert!(!is_kept("LLVM_TARGET(ARM)\n") && is_kept("LLVM_TARGET(X86)\n"));
        assert!(is_kept("#undef LLVM_TARGET\n") && is_kept("#define LLVM_TARGET(TargetName) x\n"));
    }

    #[test]
    fn archives_come_before_those_they_need() {
        let part =
            |library: Option<&str>, requires: &[&str]| json!({"library": library, "requires": requires});
        let mut components = serde_json::Map::new();
        for name in COMPONENTS {
            components.insert(name.into(), part(None, &["Support"]));
        }
        components.insert("core".into(), part(Some("LLVMCore"), &["Support"]));
        components.insert("passes".into(), part(Some("LLVMPasses"), &["Core"]));
        components.insert("support".into(), part(Some("LLVMSupport"), &[]));
        let description = json!({"profiles": {"all": {"components": components}}});
        assert_eq!(libraries(&description).unwrap(), ["LLVMPasses", "LLVMCore", "LLVMSupport"]);
        assert!(libraries(&json!({})).unwrap_err().contains("core"));
    }
}
