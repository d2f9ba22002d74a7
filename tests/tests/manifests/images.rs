//! The images' recipes beside the manifests that use them.

use blip2_tests::process::repository;

use crate::names::CONFIGS;

/// Who the processes are.
pub(crate) const USER: u64 = 10001;

fn read(name: &str) -> String {
    std::fs::read_to_string(repository().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn images_have_what_manifests_name() {
    for recipe in ["Dockerfile", "Dockerfile.cuda"] {
        let text = read(recipe);
        let lines: Vec<&str> = text.lines().collect();
        let configs = format!("COPY configs {}", CONFIGS.trim_end_matches('/'));
        let user = format!("USER {USER}:{USER}");
        for line in [user.as_str(), &configs, "ENTRYPOINT [\"blip2\"]"] {
            assert!(lines.contains(&line), "{recipe} lacks `{line}`");
        }
        let bases: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("FROM ")).collect();
        assert_eq!(bases, ["${RUST} AS build", "${DEBIAN}"], "{recipe}");
        for base in lines.iter().filter_map(|line| line.strip_prefix("ARG ")) {
            let version = base.split_once(':').is_some_and(|(_, tag)| tag.matches('.').count() >= 1);
            assert!(version, "{recipe}: {base} has no version");
        }
    }
    let rust = read("Cargo.toml");
    let version =
        rust.split_once("rust-version = \"").and_then(|(_, rest)| rest.split_once('"')).expect("one").0;
    assert!(read("Dockerfile").contains(&format!("rust:{version}.")), "the compiler is that of Cargo.toml");
}

#[test]
fn no_secret_of_a_working_folder_gets_into_an_image() {
    let left_out = read(".dockerignore");
    for line in read(".gitignore").lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let name = line.trim_start_matches('/');
        let named = left_out.lines().any(|left| left.trim_start_matches("**/") == name);
        assert!(named, ".dockerignore lacks {name}");
    }
}
