//! The keys of the configuration, with all that is known of each, read off the declaration of the settings.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use blip2_worker::config::pretraining::PRETRAINING;
use blip2_worker::config::stage::StageSettings;
use blip2_worker::task::TaskSettings;
use serde_json::Value as Json;
use toml::{Table, Value};

use super::range::Range;
use super::run::RunConfig;
use super::schema::{self, declared};
use super::{lines, model_folder, stages};
use crate::error::CliError;

/// What is known of a key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key {
    /// Its value where none is given; it fixes the type.
    pub(super) default: Value,
    /// What it means.
    pub(super) about: String,
    /// Which numbers it takes.
    pub(super) range: Option<Range>,
    /// The words it takes, where they are few.
    pub(super) choices: Vec<String>,
    /// Its place among all, in the order in which they are explained.
    pub(super) place: Place,
}

/// A line among the defaults, a name among those behind it, and a number among the keys of that name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(usize, String, usize);

impl Key {
    fn new(schema: Option<&Json>, default: Value, place: Place) -> Self {
        let schema = schema.unwrap_or(&Json::Null);
        let words = schema["enum"].as_array().into_iter().flatten().filter_map(Json::as_str);
        Self {
            default,
            about: schema["description"].as_str().unwrap_or_default().to_owned(),
            range: Range::of(schema),
            choices: words.map(str::to_owned).collect(),
            place,
        }
    }
}

/// The lines of the keys in the text of the defaults, which has them in the order of their declaration.
static LINES: LazyLock<BTreeMap<String, usize>> = LazyLock::new(|| order_of(&RunConfig::default()));

/// The lines of keys in their text, which has them in the order of their declaration.
fn order_of(settings: &impl serde::Serialize) -> BTreeMap<String, usize> {
    // Settings always serialise, and what is serialised is TOML.
    lines::of(&toml::to_string(settings).unwrap_or_default()).unwrap_or_default()
}

/// The last line of a section of the defaults.
fn last_line_of(section: &str) -> usize {
    let within = |key: &str| key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'));
    LINES.iter().filter(|(key, _)| within(key)).map(|(_, line)| *line).max().unwrap_or_default()
}

/// The same of the innermost section around that has lines: one that is not stored has none. Without any it
/// is behind all others.
fn last_line_around(section: &str) -> usize {
    match (last_line_of(section), section.rsplit_once('.')) {
        (0, Some((around, _))) => last_line_around(around),
        (0, None) => 1 + LINES.values().max().copied().unwrap_or_default(),
        (line, _) => line,
    }
}

/// The default of a key that is not stored where it has it: what the mark says or what is declared, or
/// nothing of its type.
fn default_if_set(schema: &Json, key: &str) -> Value {
    let own = schema::at(schema, key).unwrap_or(&Json::Null);
    if let Json::String(otherwise) = &own[schema::STORED_IF_SET] {
        return Value::String(otherwise.clone());
    }
    let declared = own.get("default").and_then(|default| Value::try_from(default).ok());
    declared.unwrap_or_else(|| match own["type"].as_str() {
        Some("boolean") => Value::Boolean(false),
        Some("integer") => Value::Integer(0),
        _ => Value::String(String::new()),
    })
}

/// The keys that every configuration has.
pub(super) fn of_every_run() -> Result<BTreeMap<String, Key>, CliError> {
    let table = Table::try_from(RunConfig::default())
        .map_err(|error| CliError::failed(format!("the defaults do not serialise: {error}")))?;
    let mut defaults = leaves(&table);
    defaults.insert(model_folder::KEY.to_owned(), model_folder::default());
    let file = &declared().file;
    let if_set: Vec<String> = schema::stored_if_set(file);
    defaults.extend(if_set.iter().map(|key| (key.clone(), default_if_set(file, key))));
    let keys = defaults.into_iter().map(|(key, default)| {
        // A key that is not stored is explained where its section begins.
        let section = key.rsplit_once('.').map_or("", |(section, _)| section);
        let line = LINES.get(&key).or_else(|| LINES.get(section)).copied().unwrap_or_default();
        let place = match if_set.iter().position(|own| *own == key) {
            // One that is stored if it is set, behind the others of its section.
            Some(number) => Place(last_line_around(section), String::new(), 1 + number),
            None => Place(line, String::new(), 0),
        };
        let known = Key::new(schema::at(file, &key), default, place);
        (key, known)
    });
    Ok(keys.collect())
}

/// The keys of a stage beyond those of pre-training.
pub(super) fn of_stage(name: &str, task: &TaskSettings) -> Result<BTreeMap<String, Key>, CliError> {
    let schema = declared().stage(task.name());
    let order = order_of(&StageSettings::of(name, task.clone()));
    let line = PRETRAINING.iter().map(|(_, table)| last_line_of(table)).max().unwrap_or_default();
    let mut defaults = leaves(&stages::defaults_of(name, task.clone())?);
    let (last, if_set) = (order.values().max().copied().unwrap_or_default(), schema::stored_if_set(&schema));
    defaults.extend(if_set.iter().map(|key| (key.clone(), default_if_set(&schema, key))));
    let keys = defaults.into_iter().map(|(key, default)| {
        let first = ["steps", "batch"].iter().position(|first| *first == key);
        // Those that are stored if they are set come behind the others.
        let behind = if_set.iter().position(|own| *own == key).map(|number| 3 + last + number);
        let number = first.or(behind).unwrap_or_else(|| 2 + order.get(&key).copied().unwrap_or_default());
        let known = Key::new(schema::at(&schema, &key), default, Place(line, name.to_owned(), number));
        (format!("{}.{name}.{key}", stages::SECTION), known)
    });
    Ok(keys.collect())
}

/// A key whose section has a name of the user's choice, such as `data.sources.NAME.files`.
pub(super) fn of_own_name(key: &str) -> Option<Key> {
    let schema = schema::at(&declared().file, key)?;
    let default = match schema["type"].as_str()? {
        "array" => Value::Array(Vec::new()),
        "number" => Value::Float(0.0),
        "integer" => Value::Integer(0),
        "boolean" => Value::Boolean(false),
        "string" => Value::String(String::new()),
        _ => return None,
    };
    let line = last_line_of(key.split('.').next().unwrap_or_default());
    Some(Key::new(Some(schema), default, Place(line, key.to_owned(), 0)))
}

/// Whether this is a section of keys, of whatever name.
pub(super) fn is_section(key: &str) -> bool {
    key == stages::SECTION || schema::at(&declared().file, key).is_some_and(|own| own["type"] == "object")
}

/// The values of a table by dotted key.
pub(super) fn leaves(table: &Table) -> BTreeMap<String, Value> {
    fn walk(prefix: &str, table: &Table, out: &mut BTreeMap<String, Value>) {
        for (name, value) in table {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match value {
                Value::Table(inner) => walk(&key, inner, out),
                leaf => {
                    out.insert(key, leaf.clone());
                }
            }
        }
    }
    let mut out = BTreeMap::new();
    walk("", table, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds_numbers(value: &Value) -> bool {
        match value {
            Value::Array(items) => items.iter().any(holds_numbers),
            value => matches!(value, Value::Integer(_) | Value::Float(_)),
        }
    }

    /// Those of every run, of a stage of each task, and of a source.
    fn all() -> BTreeMap<String, Key> {
        let mut keys = of_every_run().unwrap();
        for task in TaskSettings::known() {
            keys.extend(of_stage(&format!("own_{}", task.name()), &task).unwrap());
        }
        let of_source = ["files", "weight"].map(|key| format!("data.sources.own.{key}"));
        keys.extend(of_source.map(|key| (key.clone(), of_own_name(&key).unwrap())));
        keys
    }

    #[test]
    fn every_key_is_explained_and_every_number_has_a_range_that_holds_its_default() {
        let keys = all();
        let mut numbers = 0;
        for (key, known) in &keys {
            assert!(!known.about.is_empty(), "{key}: say in a doc comment what it means");
            assert!(!known.about.contains(['|', '\n']), "{key}: {}", known.about);
            assert_ne!(known.place.0, 0, "{key} has no place");
            if holds_numbers(&known.default) {
                numbers += 1;
                let range = known.range.unwrap_or_else(|| panic!("{key}: declare its range"));
                let has_default = !key.starts_with("data.sources");
                assert!(!has_default || range.holds(&known.default), "{key} = {}", known.default);
            } else {
                assert_eq!(known.range, None, "{key}");
            }
        }
        assert!(numbers > 80, "{numbers}");
    }

    #[test]
    fn choices_are_those_that_are_read() {
        let keys = all();
        assert_eq!(keys["train.gradients"].choices, ["exact", "keys_detached"]);
        assert_eq!(keys["model.frozen_dtype"].choices, ["auto", "f32", "bf16"]);
        assert_eq!(keys["curation.selection.mode"].choices, ["rank", "filter"]);
        assert!(keys["train.device"].choices.is_empty());
        assert_eq!(keys["stage2.lora.alpha"].default, Value::Float(32.0));
        assert_eq!(keys["stages.own_vqa.lora.rank"].default, Value::Integer(0));
        assert_eq!(keys["stages.own_instruct.lora.rank"].default, Value::Integer(0));
        for key in ["stage1.image_size", "stages.own_caption.image_size"] {
            assert_eq!(keys[key].default, Value::Integer(0), "{key}");
        }
        assert_eq!(keys["stages.own_caption.lora.targets"].default, Value::Array(Vec::new()));
        for (key, known) in keys.iter().filter(|(_, known)| !known.choices.is_empty()) {
            let default = known.default.as_str().unwrap();
            assert!(known.choices.iter().any(|choice| choice == default), "{key} = {default}");
        }
    }

    #[test]
    fn a_stage_has_the_ranges_of_its_own_task() {
        let keys = all();
        let least = |key: &str| keys[key].range.unwrap().to_string();
        assert_eq!(least("stages.own_contrast.text_length"), least("stage1.text_length"));
        assert_eq!(least("stages.own_generate.text_length"), "2 to 65536");
        assert_eq!(least("stage1.text_length"), "3 to 65536");
        assert!(keys["stage2.optimizer.clip_norm"].place < keys["stages.own_generate.steps"].place);
        assert!(keys["stages.own_generate.batch"].place < keys["stages.own_generate.prompt"].place);
        assert!(
            keys["stages.own_caption.optimizer.clip_norm"].place < keys["stages.own_caption.lora.rank"].place
        );
        assert!(keys["stage2.optimizer.clip_norm"].place < keys["stage2.lora.rank"].place);
        assert!(keys["data.columns.url"].place < keys["data.sources.own.files"].place);
        assert!(keys["data.sources.own.files"].place < keys["model.folder"].place);
        assert!(keys["model.folder"].place < keys["model.image_encoder"].place);
    }
}
