//! The layers of the configuration, each value checked as it is laid on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use blip2_worker::task::TaskSettings;
use serde::Deserialize as _;
use toml::{Table, Value};

use super::keys::{self, Key};
use super::relations::Broken;
use super::run::RunConfig;
use super::setting::{Origin, Setting, shown};
use super::{lines, model_folder, relations, stages};
use crate::error::CliError;

/// Files may build on each other through `base`, this deep.
const MAX_BASES: usize = 8;
/// Similarity from which on a key is offered as what was meant.
const NEAR: f64 = 0.6;
const ENVIRONMENT_PREFIX: &str = "BLIP2_";

/// A configuration with the origin of each of its values.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub(crate) config: RunConfig,
    pub(crate) settings: Vec<Setting>,
}

impl Loaded {
    /// Whether somebody has set this key: in a file, unless `preset` is that of the program, in the
    /// environment or on the command line.
    pub(crate) fn is_asked_for(&self, key: &str, preset: Option<&str>) -> bool {
        let setting = self.settings.iter().find(|setting| setting.key == key);
        setting.is_some_and(|setting| match &setting.origin {
            Origin::Default => false,
            Origin::File { path, .. } => preset.is_none_or(|preset| path.as_os_str() != preset),
            Origin::Environment { .. } | Origin::Argument => true,
        })
    }
}

/// The values laid so far.
#[derive(Debug)]
pub(crate) struct Layers {
    /// The keys there are.
    keys: BTreeMap<String, Key>,
    values: BTreeMap<String, Laid>,
    /// Stages beyond those of pre-training, with their tasks.
    more_stages: Vec<(String, TaskSettings)>,
    /// The keys that the layer at hand has laid, as they were written.
    in_this_layer: BTreeMap<String, String>,
}

/// A value with the name that its key was written with.
#[derive(Debug, Clone)]
struct Laid {
    value: Value,
    origin: Origin,
    written: String,
}

impl Laid {
    fn default(key: &str, value: &Value) -> Self {
        Self { value: value.clone(), origin: Origin::Default, written: key.to_owned() }
    }
}

impl Layers {
    /// The first layer: the defaults, which also fix what keys exist and their types.
    pub(crate) fn new() -> Result<Self, CliError> {
        let keys = keys::of_every_run()?;
        let values = keys.iter().map(|(key, known)| (key.clone(), Laid::default(key, &known.default)));
        let values = values.collect();
        Ok(Self { keys, values, more_stages: Vec::new(), in_this_layer: BTreeMap::new() })
    }

    /// Lays a file, and before it the file that its `base` names (relative to the file's folder).
    pub(crate) fn apply_file(&mut self, path: &Path) -> Result<(), CliError> {
        let mut chain = Vec::new();
        let mut next = Some(path.to_path_buf());
        while let Some(file) = next {
            if chain.len() == MAX_BASES {
                return Err(CliError::config(format!(
                    "{}: more than {MAX_BASES} files build on each other through `base`; does one name itself?",
                    path.display()
                )));
            }
            let text = std::fs::read_to_string(&file).map_err(|error| {
                CliError::config(format!("{}: cannot read this configuration: {error}", file.display()))
            })?;
            let base = base_of(&file, &text)?;
            chain.push((file, text));
            next = base;
        }
        for (file, text) in chain.iter().rev() {
            self.apply_text(file, text)?;
        }
        Ok(())
    }

    /// Lays the text of a file.
    pub(crate) fn apply_text(&mut self, path: &Path, text: &str) -> Result<(), CliError> {
        self.in_this_layer.clear();
        let table: Table = text.parse().map_err(|error| syntax_error(path, text, &error))?;
        let lines = lines::of(text).map_err(|error| syntax_error(path, text, &error))?;
        let origin =
            |key: &str| Origin::File { path: path.to_path_buf(), line: lines.get(key).copied().unwrap_or(1) };
        for (key, value) in &table {
            if key != "base" {
                self.lay(key, value, &origin)?;
            }
        }
        Ok(())
    }

    /// Lays variables such as `BLIP2_STAGE1__STEPS=5`; names without `__` are not configuration.
    pub(crate) fn apply_environment(
        &mut self,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<(), CliError> {
        self.in_this_layer.clear();
        for (name, text) in variables {
            let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX).filter(|rest| rest.contains("__")) else {
                continue;
            };
            let key = rest.to_lowercase().replace("__", ".");
            let value = self.parse_value(&key, &text);
            self.lay(&key, &value, &|_| Origin::Environment { name: name.clone() })?;
        }
        Ok(())
    }

    /// Lays `key=value` arguments.
    pub(crate) fn apply_arguments(&mut self, arguments: &[String]) -> Result<(), CliError> {
        self.in_this_layer.clear();
        for argument in arguments {
            let Some((key, text)) = argument.split_once('=') else {
                return Err(CliError::usage(format!(
                    "--set {argument}: expected KEY=VALUE, for example --set stage1.steps=1000"
                )));
            };
            let value = self.parse_value(key.trim(), text.trim());
            self.lay(key.trim(), &value, &|_| Origin::Argument)?;
        }
        Ok(())
    }

    /// The typed configuration, and each value with its origin.
    pub(crate) fn finish(mut self) -> Result<Loaded, CliError> {
        let mut settings = Vec::new();
        for (key, Laid { value, origin, written }) in self.values {
            // No value is laid under a key that is not known.
            let Some(known) = self.keys.remove(&key) else { continue };
            settings.push(Setting { key, written, value, origin, known });
        }
        place_parts_of_model(&mut settings);
        settings.iter().try_for_each(check_range)?;
        let mut table = Table::new();
        for setting in settings.iter().filter(|setting| setting.key != model_folder::KEY) {
            insert(&mut table, &setting.key, setting.value.clone());
        }
        stages::listed(&mut table, &self.more_stages);
        let config = RunConfig::deserialize(Value::Table(table)).map_err(|error| {
            let text = error.to_string();
            let named = settings.iter().find(|setting| text.contains(&format!("`{}`", setting.key)));
            match named {
                Some(setting) => CliError::config(format!(
                    "{}: {} is not possible here ({}): {}",
                    setting.written,
                    shown(&setting.value),
                    setting.origin,
                    error.message()
                )),
                None => CliError::config(text),
            }
        })?;
        relations::check(&config).map_err(|broken| unrelated(&broken, &settings))?;
        Ok(Loaded { config, settings })
    }

    /// A value as TOML; what is no TOML, or meets a key that holds text, is text.
    fn parse_value(&self, key: &str, text: &str) -> Value {
        let parsed = format!("value = {text}").parse::<Table>().ok().and_then(|mut t| t.remove("value"));
        let known = self.keys.get(&stages::kept(key));
        let wants_text = known.is_some_and(|known| known.default.is_str());
        match parsed {
            Some(value) if value.is_str() || !wants_text => value,
            _ => Value::String(text.to_owned()),
        }
    }

    /// Lays a value under the key `written`.
    fn lay(&mut self, written: &str, value: &Value, origin: &dyn Fn(&str) -> Origin) -> Result<(), CliError> {
        let kept = stages::kept(written);
        let key = kept.as_str();
        if let (stages::SECTION, Value::Array(list)) = (key, value) {
            return self.lay_stages(list, origin);
        }
        if !self.keys.contains_key(key)
            && let Some(known) = keys::of_own_name(key)
        {
            self.keys.insert(key.to_owned(), known);
        }
        if let Some(known) = self.keys.get(key) {
            let value = coerce(value, &known.default).ok_or_else(|| {
                CliError::config(format!(
                    "{written}: expected {}, found {} {} ({})",
                    type_name(&known.default),
                    value.type_str(),
                    shown(value),
                    origin(written)
                ))
            })?;
            self.refuse_two_names(key, written, origin)?;
            let laid = Laid { value, origin: origin(written), written: written.to_owned() };
            self.values.insert(key.to_owned(), laid);
            return Ok(());
        }
        let section = format!("{key}.");
        let is_section = keys::is_section(key) || self.keys.keys().any(|known| known.starts_with(&section));
        match value {
            Value::Table(table) if is_section => {
                for (name, inner) in table {
                    self.lay(&format!("{written}.{name}"), inner, origin)?;
                }
                Ok(())
            }
            _ if is_section => Err(CliError::config(format!(
                "{written}: expected a section of values, found {} {value} ({})",
                value.type_str(),
                origin(written)
            ))),
            _ => Err(self.unknown(written, &origin(written))),
        }
    }

    /// Lays a list of stages: those that are there already are known by their names, the others follow them.
    fn lay_stages(&mut self, list: &[Value], origin: &dyn Fn(&str) -> Origin) -> Result<(), CliError> {
        for entry in stages::entries(list, &origin(stages::SECTION).to_string())? {
            let name = entry.name;
            let place = format!("{}.{name}", stages::SECTION);
            let more = self.more_stages.iter().find(|(known, _)| known == name).map(|(_, task)| task.clone());
            let known = more.or_else(|| stages::pretraining_task(name));
            match (known, entry.task) {
                (Some(known), Some(asked)) if known.name() != asked => {
                    return Err(CliError::config(format!(
                        "{place}: its task is `{}` and cannot become `{asked}`; give the stage another name ({})",
                        known.name(),
                        origin(&place)
                    )));
                }
                (Some(_), _) => {}
                (None, None) => {
                    return Err(CliError::config(format!(
                        "{place}: a new stage needs a `task` ({})",
                        origin(&place)
                    )));
                }
                (None, Some(task)) => {
                    let task = TaskSettings::named(task).map_err(|error| {
                        CliError::config(format!("{place}.task: {error} ({})", origin(&place)))
                    })?;
                    self.add_stage(name, task)?;
                }
            }
            for (key, value) in entry.keys {
                self.lay(&format!("{place}.{key}"), value, origin)?;
            }
        }
        Ok(())
    }

    fn add_stage(&mut self, name: &str, task: TaskSettings) -> Result<(), CliError> {
        for (key, known) in keys::of_stage(name, &task)? {
            self.values.insert(key.clone(), Laid::default(&key, &known.default));
            self.keys.insert(key, known);
        }
        self.more_stages.push((name.to_owned(), task));
        Ok(())
    }

    /// Refuses a key that its layer has laid already under another of its names.
    fn refuse_two_names(
        &mut self,
        key: &str,
        written: &str,
        origin: &dyn Fn(&str) -> Origin,
    ) -> Result<(), CliError> {
        match self.in_this_layer.insert(key.to_owned(), written.to_owned()) {
            Some(before) if before != written => Err(CliError::config(format!(
                "{before} ({}) and {written} ({}) are two names of one key; use one of them",
                origin(&before),
                origin(written)
            ))),
            _ => Ok(()),
        }
    }

    fn unknown(&self, key: &str, origin: &Origin) -> CliError {
        let mut advice = None;
        if let Some((name, _)) = stages::of_another(key).filter(|_| stages::kept(key) == key)
            && !self.more_stages.iter().any(|(known, _)| known == name)
        {
            advice = Some(format!(
                "there is no stage `{name}`; an entry of [[{}]] with this name and a task adds it",
                stages::SECTION
            ));
        }
        let known = self.keys.keys().map(String::as_str);
        let advice = advice.unwrap_or_else(|| match nearest(&stages::kept(key), known) {
            Some(known) => format!("did you mean `{known}`?"),
            None => "`blip2 config show` lists all keys".to_owned(),
        });
        CliError::config(format!("{key}: there is no such key ({origin}); {advice}"))
    }
}

/// Gives the parts of a whole model that are empty its folder, with the folder's origin.
fn place_parts_of_model(settings: &mut [Setting]) {
    let whole = settings.iter().find(|setting| setting.key == model_folder::KEY).cloned();
    let Some(folder) = whole.filter(|folder| folder.value != model_folder::default()) else { return };
    let is_part = |setting: &Setting| model_folder::PARTS.contains(&setting.key.as_str());
    for setting in settings.iter_mut().filter(|setting| is_part(setting)) {
        if setting.value == model_folder::default() {
            (setting.value, setting.origin) = (folder.value.clone(), folder.origin.clone());
        }
    }
}

/// Refuses a number that is out of its range.
fn check_range(Setting { written, value, origin, known, .. }: &Setting) -> Result<(), CliError> {
    match known.range.filter(|range| !range.holds(value)) {
        Some(range) => {
            Err(CliError::config(format!("{written} = {value} ({origin}): out of range; allowed is {range}")))
        }
        None => Ok(()),
    }
}

/// The error of numbers that do not go together, with the origin of each.
fn unrelated(broken: &Broken, settings: &[Setting]) -> CliError {
    let found = |key: &String| settings.iter().find(|setting| setting.key == *key);
    let named: Vec<&Setting> = broken.keys.iter().filter_map(found).collect();
    let Some((first, others)) = named.split_first() else { return CliError::config(&broken.reason) };
    let mut origins = first.origin.to_string();
    for other in others {
        origins += &format!("; {}: {}", other.written, other.origin);
    }
    CliError::config(format!("{} = {} ({origins}): {}", first.written, first.value, broken.reason))
}

/// What a key expects, in words.
fn type_name(default: &Value) -> &'static str {
    match default {
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Array(items) if matches!(items.first(), Some(Value::Float(_) | Value::Integer(_))) => {
            "a list of numbers"
        }
        Value::Array(_) => "a list of text, such as [\"a\", \"b\"]",
        _ => "text",
    }
}

/// The value in the type of its default, if it can be; integers serve as numbers.
fn coerce(value: &Value, default: &Value) -> Option<Value> {
    match (value, default) {
        (Value::Integer(integer), Value::Float(_)) => Some(Value::Float(*integer as f64)),
        (Value::Array(items), Value::Array(defaults)) => {
            let text = Value::String(String::new());
            let element = defaults.first().unwrap_or(&text);
            items.iter().map(|item| coerce(item, element)).collect::<Option<Vec<_>>>().map(Value::Array)
        }
        (value, default) => value.same_type(default).then(|| value.clone()),
    }
}

fn insert(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((section, rest)) => {
            let entry = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = entry {
                insert(inner, rest, value);
            }
        }
    }
}

/// The known name most like what was written: whole keys are compared, and last parts for keys without a
/// section.
fn nearest<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let score = |key: &str| {
        let whole = strsim::normalized_damerau_levenshtein(written, key);
        let part = strsim::normalized_damerau_levenshtein(&last(written), &last(key));
        whole.max(0.9 * part)
    };
    known
        .map(|key| (score(key), key))
        .filter(|(likeness, _)| *likeness >= NEAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, key)| key)
}

/// The file that `base` names, relative to the folder of the file that names it.
fn base_of(path: &Path, text: &str) -> Result<Option<PathBuf>, CliError> {
    let table: Table = text.parse().map_err(|error| syntax_error(path, text, &error))?;
    match table.get("base") {
        None => Ok(None),
        Some(Value::String(base)) => {
            let folder = path.parent().unwrap_or(Path::new(""));
            Ok(Some(folder.join(base)))
        }
        Some(other) => Err(CliError::config(format!(
            "{}: `base` must be the name of a file, found {} {other}",
            path.display(),
            other.type_str()
        ))),
    }
}

fn syntax_error(path: &Path, text: &str, error: &toml::de::Error) -> CliError {
    let line = error.span().map_or(1, |span| lines::line_of(text, span.start));
    CliError::config(format!("{}:{line}: this is not TOML: {}", path.display(), error.message()))
}

#[cfg(test)]
mod range_tests;
#[cfg(test)]
mod tests;
