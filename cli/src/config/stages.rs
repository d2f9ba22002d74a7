//! The keys of stages: `stages.NAME.KEY`. The two stages of pre-training, which every configuration begins
//! with, have `stage1.KEY` and `stage2.KEY` as well; in those they are kept, shown and stored.

use blip2_worker::config::pretraining::{PRETRAINING, pretraining};
use blip2_worker::config::stage::StageSettings;
use blip2_worker::task::TaskSettings;
use toml::{Table, Value};

use crate::error::CliError;

/// The section of all stages.
pub(super) const SECTION: &str = "stages";

/// The key under which a value is kept, of one as it is written.
pub(super) fn kept(key: &str) -> String {
    for (name, table) in PRETRAINING {
        let within = key.strip_prefix(SECTION).and_then(|rest| rest.strip_prefix('.')?.strip_prefix(name));
        if let Some(within) = within.filter(|within| within.is_empty() || within.starts_with('.')) {
            return format!("{table}{within}");
        }
    }
    key.to_owned()
}

/// The name of a stage beyond those of pre-training, and the key within it, of a kept key.
pub(super) fn of_another(key: &str) -> Option<(&str, &str)> {
    let rest = key.strip_prefix(SECTION)?.strip_prefix('.')?;
    Some(rest.split_once('.').unwrap_or((rest, "")))
}

/// An entry of a list of stages: its name, its task if it says it, and its other keys.
pub(super) struct Entry<'a> {
    pub(super) name: &'a str,
    pub(super) task: Option<&'a str>,
    pub(super) keys: Vec<(&'a String, &'a Value)>,
}

/// The entries of a list.
pub(super) fn entries<'a>(list: &'a [Value], origin: &str) -> Result<Vec<Entry<'a>>, CliError> {
    let refuse = |reason: String| CliError::config(format!("{SECTION}: {reason} ({origin})"));
    let mut entries: Vec<Entry<'a>> = Vec::new();
    for item in list {
        let Value::Table(table) = item else {
            return Err(refuse(format!("expected a list of stages, found {} {item}", item.type_str())));
        };
        let text = |key: &str| match table.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(other) => Err(refuse(format!("{key}: expected text, found {} {other}", other.type_str()))),
        };
        let Some(name) = text("name")? else {
            return Err(refuse("a stage has no `name`, by which metrics, status and `--set` know it".into()));
        };
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)) {
            return Err(refuse(format!("name = \"{name}\": use letters, digits, `_` and `-`")));
        }
        if entries.iter().any(|entry| entry.name == name) {
            return Err(refuse(format!("two stages have the name `{name}`")));
        }
        let keys = table.iter().filter(|(key, _)| !["name", "task"].contains(&key.as_str())).collect();
        entries.push(Entry { name, task: text("task")?, keys });
    }
    Ok(entries)
}

/// The task of a stage of pre-training.
pub(super) fn pretraining_task(name: &str) -> Option<TaskSettings> {
    pretraining().into_iter().find(|stage| stage.name == name).map(|stage| stage.task)
}

/// The keys of a stage with their defaults, as a table within the stage.
pub(super) fn defaults_of(name: &str, task: TaskSettings) -> Result<Table, CliError> {
    let mut table = Table::try_from(StageSettings::of(name, task))
        .map_err(|error| CliError::failed(format!("the defaults of a stage do not serialise: {error}")))?;
    ["name", "task"].iter().for_each(|key| drop(table.remove(*key)));
    Ok(table)
}

/// Makes the list of stages of the tables of all of them, where there are more than those of pre-training.
pub(super) fn listed(table: &mut Table, more: &[(String, TaskSettings)]) {
    if more.is_empty() {
        return;
    }
    let mut others = match table.remove(SECTION) {
        Some(Value::Table(others)) => others,
        _ => Table::new(),
    };
    let mut list = Vec::new();
    for (stage, (_, key)) in pretraining().into_iter().zip(PRETRAINING) {
        list.push((stage.name, stage.task.name(), table.remove(key)));
    }
    for (name, task) in more {
        list.push((name.clone(), task.name(), others.remove(name)));
    }
    let entries = list.into_iter().map(|(name, task, keys)| {
        let mut entry = match keys {
            Some(Value::Table(keys)) => keys,
            _ => Table::new(),
        };
        entry.insert("name".into(), Value::String(name));
        entry.insert("task".into(), Value::String(task.into()));
        Value::Table(entry)
    });
    table.insert(SECTION.into(), Value::Array(entries.collect()));
}

/// The key before the keys of a stage, as it is kept.
pub(super) fn prefix(name: &str) -> String {
    kept(&format!("{SECTION}.{name}"))
}
