//! The JSON Schema of the configuration, read off the declaration of its settings: a doc comment is a
//! description, an attribute beside it a range.

use std::sync::LazyLock;

use blip2_worker::config::pretraining::{PRETRAINING, pretraining};
use blip2_worker::task::TaskSettings;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value as Json, json};
use toml::{Table, Value};

use super::model_folder::ModelFolder;
use super::run::RunConfig;
use super::stages;
use crate::error::CliError;

/// What the settings declare.
pub(super) struct Declared {
    /// All but the list of stages; those of pre-training as their tables.
    pub(super) file: Json,
    /// The list of stages, whatever their tasks.
    list: Json,
}

static DECLARED: LazyLock<Declared> = LazyLock::new(|| {
    let mut file = schema_of::<RunConfig>();
    let list = file["properties"][stages::SECTION].take();
    for (stage, (_, table)) in pretraining().iter().zip(PRETRAINING) {
        let mut properties = keys_of(&list["items"], |task| task == stage.task.name());
        properties.retain(|name, _| !["name", "task"].contains(&name.as_str()));
        file["properties"][table] = object(properties);
    }
    if let Some(properties) = file["properties"].as_object_mut() {
        properties.remove(stages::SECTION);
    }
    file["properties"]["model"]["properties"]["folder"] =
        schema_of::<ModelFolder>()["properties"]["folder"].take();
    Declared { file, list }
});

/// What the settings declare.
pub(super) fn declared() -> &'static Declared {
    &DECLARED
}

impl Declared {
    /// The schema of a stage of this task: its own keys, and those of the task.
    pub(super) fn stage(&self, task: &str) -> Json {
        object(keys_of(&self.list["items"], |own| own == task))
    }
}

/// The schema of a key below `schema`, whose own one may be any name.
pub(super) fn at<'a>(schema: &'a Json, key: &str) -> Option<&'a Json> {
    key.split('.').try_fold(schema, |schema, part| {
        let named = schema["properties"].get(part);
        named.or_else(|| schema.get("additionalProperties").filter(|any| any.is_object()))
    })
}

/// What marks a key that is stored where it is set alone: `true`, or what it is otherwise.
pub(super) const STORED_IF_SET: &str = "x-stored-if-set";

/// The keys that are stored where they are set alone, so that runs from before them have the configurations
/// they had.
pub(super) fn stored_if_set(schema: &Json) -> Vec<String> {
    fn collect(prefix: &str, schema: &Json, found: &mut Vec<String>) {
        if matches!(schema[STORED_IF_SET], Json::Bool(true) | Json::String(_)) {
            found.push(prefix.to_owned());
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            collect(&key, inner, found);
        }
    }
    let mut found = Vec::new();
    collect("", schema, &mut found);
    found
}

fn object(properties: Map<String, Json>) -> Json {
    json!({ "type": "object", "additionalProperties": false, "properties": properties })
}

fn schema_of<T: JsonSchema>() -> Json {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    simplify(&mut schema);
    schema
}

/// Takes out what a configuration file has no use for: TOML has no null and no formats of numbers, sections
/// have their keys' defaults, and a choice is one of a few words.
fn simplify(schema: &mut Json) {
    let Some(fields) = schema.as_object_mut() else { return };
    fields.remove("format");
    if let Some(Json::String(text)) = fields.get_mut("description") {
        *text = text.replace('\n', " ");
    }
    if let Some(Json::Array(types)) = fields.get("type") {
        let own = types.iter().find(|own| *own != "null").cloned().unwrap_or_default();
        fields.insert("type".into(), own);
    }
    if fields.contains_key("properties") {
        fields.remove("default");
        fields.insert("additionalProperties".into(), Json::Bool(false));
    }
    let branches = fields.get("oneOf").and_then(Json::as_array).into_iter().flatten();
    let words: Vec<Json> = branches.filter_map(|branch| branch.get("const").cloned()).collect();
    if !words.is_empty() {
        fields.remove("oneOf");
        fields.insert("type".into(), json!("string"));
        fields.insert("enum".into(), Json::Array(words));
    }
    for (name, inner) in fields.iter_mut() {
        match (name.as_str(), inner) {
            ("properties", Json::Object(properties)) => properties.values_mut().for_each(simplify),
            ("oneOf", Json::Array(branches)) => branches.iter_mut().for_each(simplify),
            ("items" | "additionalProperties", inner) => simplify(inner),
            _ => {}
        }
    }
}

/// The keys of a stage whose task is one of those that `of` takes.
fn keys_of(stage: &Json, of: impl Fn(&str) -> bool) -> Map<String, Json> {
    let mut keys = stage["properties"].as_object().cloned().unwrap_or_default();
    let mut tasks = Vec::new();
    for branch in stage["oneOf"].as_array().into_iter().flatten() {
        let own = &branch["properties"];
        let Some(task) = own["task"]["const"].as_str().filter(|task| of(task)) else { continue };
        tasks.push(task);
        for (name, schema) in own.as_object().into_iter().flatten().filter(|(name, _)| *name != "task") {
            keys.entry(name.clone()).or_insert_with(|| schema.clone());
        }
    }
    keys.insert("task".into(), json!({ "enum": tasks, "description": "What the stage does." }));
    keys
}

/// Gives every key the default that a table has for it.
fn add_defaults(schema: &mut Json, table: &Table) {
    for (name, value) in table {
        let own = &mut schema["properties"][name];
        match value {
            Value::Table(inner) => add_defaults(own, inner),
            leaf => own["default"] = json!(leaf),
        }
    }
}

/// The schema of a configuration file.
pub(crate) fn json_schema() -> Result<Json, CliError> {
    let defaults = Table::try_from(RunConfig::default())
        .map_err(|error| CliError::failed(format!("the defaults do not serialise: {error}")))?;
    let Declared { file, list } = declared();
    let mut schema = file.clone();
    add_defaults(&mut schema, &defaults);
    let mut stage = object(keys_of(&list["items"], |_| true));
    stage["required"] = json!(["name"]);
    if let Some(task) = TaskSettings::known().into_iter().next() {
        add_defaults(&mut stage, &stages::defaults_of("stage", task)?);
    }
    let mut list = list.clone();
    list["items"] = stage;
    schema["properties"][stages::SECTION] = list;
    schema["properties"]["base"] = json!({
        "type": "string",
        "description": "A file whose values come first, relative to the folder of this one.",
    });
    schema["title"] = json!("blip2 run configuration");
    Ok(schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_knows_types_choices_and_refuses_unknown_keys() {
        let schema = json_schema().unwrap();
        assert_eq!(schema["additionalProperties"], false);
        let properties = &schema["properties"];
        let stage1 = &properties["stage1"]["properties"];
        assert_eq!(stage1["steps"]["type"], "integer");
        let optimizer = &stage1["optimizer"]["properties"];
        assert_eq!(optimizer["learning_rate"]["type"], "number");
        assert_eq!(
            (&optimizer["learning_rate"]["minimum"], &stage1["steps"]["minimum"]),
            (&json!(0.0), &json!(0))
        );
        assert_eq!(optimizer["beta1"]["exclusiveMaximum"], 1.0);
        assert_eq!(properties["data"]["properties"]["crop_scale"]["items"]["exclusiveMinimum"], 0.0);
        assert_eq!(properties["train"]["properties"]["gradients"]["enum"][1], "keys_detached");
        assert_eq!(properties["data"]["properties"]["crop_scale"]["maxItems"], 2);
        let stage = &properties["stages"]["items"]["properties"];
        let tasks: Vec<&str> = TaskSettings::known().iter().map(|task| task.name()).collect();
        assert_eq!(stage["task"]["enum"], json!(tasks));
        assert_eq!(
            (&stage["steps"]["type"], &stage["prompt"]["type"]),
            (&json!("integer"), &json!("string"))
        );
        assert_eq!(stage["optimizer"]["properties"]["beta1"]["exclusiveMaximum"], 1.0);
        assert_eq!(properties["base"]["type"], "string");
        let source = &properties["data"]["properties"]["sources"]["additionalProperties"];
        assert_eq!(source["properties"]["weight"]["type"], "number");
        assert_eq!(source["required"], json!(["files"]));
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        let [first, second] = ["stage1", "stage2"].map(|table| &properties[table]["properties"]);
        assert_eq!(
            (&first["text_length"]["minimum"], &second["text_length"]["minimum"]),
            (&json!(3), &json!(2))
        );
        assert_eq!(second["optimizer"]["properties"]["min_learning_rate"]["default"], 5e-5);
        assert!(first["task"].is_null() && properties["stage2"]["additionalProperties"] == false);
    }
}
