//! The keys of stages: `stages.NAME.KEY`. The two stages of pre-training, which every configuration begins
//! with, have `stage1.KEY` and `stage2.KEY` as well; in those they are kept, shown and stored.

use blip2_worker::config::pretraining::{PRETRAINING, pretraining};
use blip2_worker::config::stage::StageSettings;
use blip2_worker::task::{KeyRange, TaskSettings};
use serde_json::{Map, Value as Json, json};
use toml::{Table, Value};

use super::ranges::Range::{self, Above, Below, Closed, Whole};
use crate::error::CliError;

/// The section of all stages.
pub(super) const SECTION: &str = "stages";

/// Most steps, so that samples are counted in 64 bits.
pub(super) const STEPS: i64 = 1_000_000_000;
const BATCH: i64 = 1 << 20;
/// Float32's largest value, rounded down.
const FLOAT: f64 = 3.4e38;

/// A key that every stage has, within the stage.
type StageKey = (&'static str, &'static str, Option<Range>);

const FIRST_KEYS: &[StageKey] = &[
    ("steps", "Steps of the stage; 0 skips it.", Some(Whole(0, STEPS))),
    ("batch", "Global batch; a multiple of `train.slots`.", Some(Whole(1, BATCH))),
];

const OPTIMIZER_KEYS: &[StageKey] = &[
    ("optimizer.learning_rate", "Peak learning rate.", Some(Closed(0.0, FLOAT))),
    ("optimizer.min_learning_rate", "Learning rate at the end of the cosine.", Some(Closed(0.0, FLOAT))),
    ("optimizer.warmup_learning_rate", "Learning rate of the first step.", Some(Closed(0.0, FLOAT))),
    ("optimizer.warmup_steps", "Steps of linear warm-up.", Some(Whole(0, STEPS))),
    ("optimizer.beta1", "Decay of the first moment.", Some(Below(0.0, 1.0))),
    ("optimizer.beta2", "Decay of the second moment.", Some(Below(0.0, 1.0))),
    ("optimizer.epsilon", "Added to the denominator.", Some(Above(0.0, 1.0))),
    (
        "optimizer.weight_decay",
        "Decoupled decay of tensors with two or more dimensions.",
        Some(Closed(0.0, 1000.0)),
    ),
    ("optimizer.clip_norm", "Largest global norm of the gradient; 0: not clipped.", Some(Closed(0.0, FLOAT))),
];

impl From<KeyRange> for Range {
    fn from(range: KeyRange) -> Self {
        match range {
            KeyRange::Whole(least, most) => Whole(least, most),
            KeyRange::Closed(least, most) => Closed(least, most),
            KeyRange::Above(least, most) => Above(least, most),
            KeyRange::Below(least, most) => Below(least, most),
        }
    }
}

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

/// The keys of a stage of this task within the stage, in the order in which they are explained.
pub(super) fn keys_of(task: &TaskSettings) -> Vec<StageKey> {
    let own = task.keys().iter().map(|key| (key.key, key.about, key.range.map(Range::from)));
    FIRST_KEYS.iter().copied().chain(own).chain(OPTIMIZER_KEYS.iter().copied()).collect()
}

/// What is known of a kept key of a stage, and its place among those of the stage.
fn found(key: &str) -> Option<(usize, StageKey)> {
    let (tasks, within): (Vec<TaskSettings>, &str) = match of_another(key) {
        Some((_, within)) => (TaskSettings::known(), within),
        None => {
            let (table, within) = key.split_once('.')?;
            let stage = PRETRAINING.iter().position(|(_, own)| *own == table)?;
            (vec![pretraining().swap_remove(stage).task], within)
        }
    };
    tasks.iter().find_map(|task| {
        let keys = keys_of(task);
        let at = keys.iter().position(|(own, ..)| *own == within)?;
        Some((at, keys[at]))
    })
}

/// What the key of a stage means.
pub(super) fn about(key: &str) -> Option<&'static str> {
    found(key).map(|(_, (_, about, _))| about)
}

/// The range of the key of a stage that takes numbers.
pub(super) fn range_of(key: &str) -> Option<Range> {
    found(key)?.1.2
}

/// Where the key of a stage stands among those of all stages.
pub(super) fn position(key: &str) -> Option<(usize, String, usize)> {
    let (at, _) = found(key)?;
    let table = key.split('.').next().unwrap_or_default();
    let stage = PRETRAINING.iter().position(|(_, own)| *own == table).unwrap_or(PRETRAINING.len());
    let name = of_another(key).map(|(name, _)| name.to_owned()).unwrap_or_default();
    Some((stage, name, at))
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

/// The schema of the list; `leaf` makes that of a key of a stage from its kept key and default.
pub(super) fn json_schema(leaf: &dyn Fn(&str, &Value) -> Json) -> Json {
    let names: Vec<String> = TaskSettings::known().iter().map(|task| task.name().to_owned()).collect();
    let mut properties = Map::new();
    properties.insert("name".into(), json!({ "type": "string", "description": "Names the stage." }));
    properties.insert("task".into(), json!({ "enum": names, "description": "What the stage does." }));
    for task in TaskSettings::known() {
        let Ok(table) = defaults_of("stage", task) else { continue };
        for (key, value) in &table {
            let schema = match value {
                Value::Table(inner) => {
                    let inner = inner.iter().map(|(name, value)| {
                        (name.clone(), leaf(&format!("{SECTION}.stage.{key}.{name}"), value))
                    });
                    let inner: Map<String, Json> = inner.collect();
                    json!({ "type": "object", "additionalProperties": false, "properties": inner })
                }
                value => leaf(&format!("{SECTION}.stage.{key}"), value),
            };
            properties.entry(key.clone()).or_insert(schema);
        }
    }
    json!({
        "type": "array",
        "description": "Stages: those of pre-training, `represent` and `generate`, whose keys are `stage1` and `stage2` as well, \
                        and more behind them.",
        "items": {
            "type": "object", "required": ["name"], "additionalProperties": false, "properties": properties,
        },
    })
}
