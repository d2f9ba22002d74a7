//! `docs/configuration.md`: every key with its default, its range and its meaning.

use std::fmt::Write as _;

use blip2_worker::config::hash::is_hashed;
use blip2_worker::config::pretraining::pretraining;
use blip2_worker::task::TaskSettings;
use toml::Value;

use super::keys::{Key, of_stage};
use super::layers::Layers;
use super::setting::Setting;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
const INTRODUCTION: &str = include_str!("introduction.md");

#[test]
fn the_document_has_every_key_with_its_default() {
    let mut settings = Layers::new().unwrap().finish().unwrap().settings;
    settings.sort_by(|a, b| a.known.place.cmp(&b.known.place));
    let wanted = document(&settings);
    if std::env::var_os("BLIP2_BLESS").is_some() {
        std::fs::write(DOCUMENT, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(DOCUMENT).unwrap_or_default();
    assert!(found == wanted, "docs/configuration.md is old: BLIP2_BLESS=1 cargo test --release -p blip2");
}

fn document(settings: &[Setting]) -> String {
    let unhashed: Vec<String> = settings
        .iter()
        .filter(|setting| setting.key.starts_with("train.") && !is_hashed(&setting.key))
        .map(|setting| format!("`{}`", &setting.key["train.".len()..]))
        .collect();
    let (last, others) = unhashed.split_last().unwrap();
    let mut text = INTRODUCTION.replace("{unhashed}", &format!("{} and {last}", others.join(", ")));
    let mut section = "";
    for Setting { key, value, known, .. } in settings {
        let own = key.split('.').next().unwrap();
        if own != section {
            section = own;
            begin(&mut text, section);
        }
        add(&mut text, key, value, known);
    }
    let of_pretraining: Vec<&str> = pretraining().iter().map(|stage| stage.task.name()).collect();
    for task in TaskSettings::known().iter().filter(|task| !of_pretraining.contains(&task.name())) {
        begin(&mut text, &format!("stages of the task {}", task.name()));
        let mut keys: Vec<(String, Key)> = of_stage("NAME", task).unwrap().into_iter().collect();
        keys.sort_by(|(_, a), (_, b)| a.place.cmp(&b.place));
        keys.iter().for_each(|(key, known)| add(&mut text, key, &known.default, known));
    }
    text
}

fn begin(text: &mut String, section: &str) {
    write!(text, "\n### {section}\n\n| key | default | range | meaning |\n|---|---|---|---|\n").unwrap();
}

fn add(text: &mut String, key: &str, value: &Value, known: &Key) {
    let choices: Vec<String> = known.choices.iter().map(|choice| format!("`{choice}`")).collect();
    let range = known.range.map_or_else(|| choices.join(", "), |range| range.to_string());
    writeln!(text, "| `{key}` | `{value}` | {range} | {} |", known.about).unwrap();
}
