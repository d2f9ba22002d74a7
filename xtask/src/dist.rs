//! An archive to ship: the binary, its configurations and licences, and what it is built from.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use crate::files::{create, listed};
use crate::{materials, repository};

/// What lies in the archive beside the binary.
const FILES: [&str; 5] = ["CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT", "README.md", "SECURITY.md"];
const CONFIGS: &str = "configs";
const PROGRAM: &str = "blip2";
const BILL: &str = "sbom.cdx.json";

/// What is built, and where it is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    profile: String,
    features: Vec<String>,
    out: PathBuf,
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self { profile: "dist".into(), features: Vec::new(), out: "target/dist".into() };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut value = || rest.next().ok_or_else(|| format!("{argument} takes a value"));
            match argument.as_str() {
                "--profile" => options.profile.clone_from(value()?),
                "--features" => {
                    options.features.extend(value()?.split(',').map(|name| format!("{PROGRAM}/{name}")))
                }
                "--out" => options.out = value()?.into(),
                other => return Err(format!("unknown argument `{other}`")),
            }
        }
        Ok(options)
    }
}

/// Builds the binary and leaves its archive, the bill of materials and the hashes of both in `out`.
pub(crate) fn run(options: &Options) -> Result<bool, String> {
    let Options { profile, features, out } = options;
    let mut build = repository::cargo();
    build.args(["build", "--locked", "--profile", profile]);
    if !features.is_empty() {
        build.arg("--features").arg(features.join(","));
    }
    let built = build.status().map_err(|error| format!("cargo: {error}"))?;
    if !built.success() {
        return Ok(false);
    }
    let host = host()?;
    let binary = repository::target_folder()?.join(profile_folder(profile)).join(PROGRAM);
    let name = format!("{PROGRAM}-{}-{host}", env!("CARGO_PKG_VERSION"));
    let bill = materials::bill(features, &host)?.into_bytes();
    create(out)?;
    let archive = archived(&name, &binary, &bill, committed()?)?;
    let mut sums = String::new();
    for (file, content) in [(format!("{name}.tar.gz"), &archive), (format!("{name}.{BILL}"), &bill)] {
        let path = out.join(&file);
        std::fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))?;
        writeln!(sums, "{:x}  {file}", Sha256::digest(content)).map_err(|error| error.to_string())?;
        println!("{}", path.display());
    }
    let path = out.join(format!("{name}.sha256"));
    std::fs::write(&path, sums).map_err(|error| format!("{}: {error}", path.display()))?;
    println!("{}", path.display());
    Ok(true)
}

/// The archive with all files in one folder, in the order of their names, with this time and no owner.
fn archived(name: &str, binary: &Path, bill: &[u8], time: u64) -> Result<Vec<u8>, String> {
    let root = repository::workspace();
    let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let mut files = vec![(PROGRAM.to_owned(), read(binary)?, 0o755), (BILL.to_owned(), bill.to_vec(), 0o644)];
    for file in FILES {
        files.push((file.to_owned(), read(&root.join(file))?, 0o644));
    }
    for path in listed(&root.join(CONFIGS))? {
        if let Some(file) = path.file_name().and_then(|file| file.to_str()) {
            files.push((format!("{CONFIGS}/{file}"), read(&path)?, 0o644));
        }
    }
    files.sort();
    packed(name, &files, time).map_err(|error| format!("{name}: {error}"))
}

fn packed(name: &str, files: &[(String, Vec<u8>, u32)], time: u64) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::best()));
    for (file, content, mode) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        header.set_mtime(time);
        archive.append_data(&mut header, format!("{name}/{file}"), content.as_slice())?;
    }
    archive.into_inner()?.finish()
}

/// Seconds since 1970 that files in the archive carry: those of the commit, so that it is the same for all.
fn committed() -> Result<u64, String> {
    if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
        return epoch.parse().map_err(|_| format!("SOURCE_DATE_EPOCH={epoch} is no number of seconds"));
    }
    let time = said("git", &["log", "-1", "--format=%ct"])?;
    time.trim().parse().map_err(|_| format!("git says `{time}` for the time of the commit"))
}

/// The target that a build without `--target` is for.
fn host() -> Result<String, String> {
    let version = said("rustc", &["-vV"])?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| format!("rustc names no host: {version}"))
}

/// Where cargo leaves what is built with a profile.
fn profile_folder(profile: &str) -> &str {
    if profile == "dev" { "debug" } else { profile }
}

fn said(program: &str, arguments: &[&str]) -> Result<String, String> {
    let ended = Command::new(program).args(arguments).current_dir(repository::workspace()).output();
    let ended = ended.map_err(|error| format!("{program}: {error}"))?;
    if !ended.status.success() {
        return Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&ended.stderr)));
    }
    String::from_utf8(ended.stdout).map_err(|error| format!("{program}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn arguments_are_taken_and_unknown_ones_refused() {
        let parse = |arguments: &[&str]| {
            Options::parse(&arguments.iter().map(|&argument| argument.to_owned()).collect::<Vec<_>>())
        };
        let plain = parse(&[]).unwrap();
        assert_eq!((plain.profile.as_str(), plain.features.len()), ("dist", 0));
        let cuda = parse(&["--features", "cuda", "--profile", "release", "--out", "/o"]).unwrap();
        assert_eq!(cuda.features, ["blip2/cuda"]);
        assert_eq!((cuda.profile.as_str(), cuda.out.to_str()), ("release", Some("/o")));
        assert!(parse(&["--out"]).unwrap_err().contains("takes a value"));
        assert!(parse(&["--fast"]).unwrap_err().contains("--fast"));
    }

    #[test]
    fn an_archive_is_a_function_of_what_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join("program");
        std::fs::write(&binary, "binary").unwrap();
        let archive = archived("blip2-1", &binary, b"{}", 7).unwrap();
        assert_eq!(archive, archived("blip2-1", &binary, b"{}", 7).unwrap());
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(archive.as_slice()));
        let mut names = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            assert_eq!(entry.header().mtime().unwrap(), 7);
            if path == "blip2-1/blip2" {
                assert_eq!(entry.header().mode().unwrap(), 0o755);
                let mut content = String::new();
                entry.read_to_string(&mut content).unwrap();
                assert_eq!(content, "binary");
            }
            names.push(path);
        }
        for name in ["blip2", BILL, "LICENSE-MIT", "SECURITY.md", "configs/quickstart.toml"] {
            assert!(names.contains(&format!("blip2-1/{name}")), "{name}: {names:?}");
        }
        assert!(names.is_sorted());
    }
}
