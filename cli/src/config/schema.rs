//! The JSON Schema of the configuration, made from its defaults and the reference.

use serde_json::{Map, Value as Json, json};
use toml::{Table, Value};

use super::{RunConfig, model_folder, ranges, reference, sources, stages};
use crate::error::CliError;

/// The schema of a configuration file.
pub(crate) fn json_schema() -> Result<Json, CliError> {
    let defaults = Table::try_from(RunConfig::default())
        .map_err(|error| CliError::failed(format!("the defaults do not serialise: {error}")))?;
    let mut schema = section("", &defaults);
    if let Some(properties) = schema["properties"].as_object_mut() {
        let base = json!({
            "type": "string",
            "description": "A file whose values come first, relative to the folder of this one.",
        });
        properties.insert("base".to_owned(), base);
    }
    if let Some(data) = schema["properties"]["data"]["properties"].as_object_mut() {
        data.insert("sources".to_owned(), sources::json_schema());
    }
    if let Some(properties) = schema["properties"].as_object_mut() {
        properties.insert(stages::SECTION.to_owned(), stages::json_schema(&leaf_schema));
    }
    if let Some(model) = schema["properties"]["model"]["properties"].as_object_mut() {
        model.insert("folder".to_owned(), model_folder::json_schema());
    }
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("blip2 run configuration");
    Ok(schema)
}

fn section(prefix: &str, table: &Table) -> Json {
    let properties: Map<String, Json> = table
        .iter()
        .map(|(name, value)| {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            let schema = match value {
                Value::Table(inner) => section(&key, inner),
                leaf => leaf_schema(&key, leaf),
            };
            (name.clone(), schema)
        })
        .collect();
    json!({ "type": "object", "additionalProperties": false, "properties": properties })
}

fn leaf_schema(key: &str, default: &Value) -> Json {
    let mut schema = match default {
        Value::Integer(_) => json!({ "type": "integer" }),
        Value::Float(_) => json!({ "type": "number" }),
        Value::Boolean(_) => json!({ "type": "boolean" }),
        Value::Array(items) => match items.first() {
            Some(Value::Float(_) | Value::Integer(_)) => {
                json!({ "type": "array", "items": { "type": "number" }, "minItems": items.len(), "maxItems": items.len() })
            }
            _ => json!({ "type": "array", "items": { "type": "string" } }),
        },
        _ => json!({ "type": "string" }),
    };
    if let Some(range) = ranges::range_of(key) {
        let place = if schema["items"].is_object() { &mut schema["items"] } else { &mut schema };
        place.as_object_mut().into_iter().for_each(|place| place.extend(range.schema()));
    }
    let choices = reference::choices(key);
    if !choices.is_empty() {
        schema["enum"] = json!(choices);
    }
    schema["default"] = json!(default);
    schema["description"] = json!(reference::about(key));
    schema
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
        assert_eq!(stage["task"]["enum"], json!(["contrast", "generate"]));
        assert_eq!(
            (&stage["steps"]["type"], &stage["prompt"]["type"]),
            (&json!("integer"), &json!("string"))
        );
        assert_eq!(stage["optimizer"]["properties"]["beta1"]["exclusiveMaximum"], 1.0);
        assert_eq!(properties["base"]["type"], "string");
        let source = &properties["data"]["properties"]["sources"]["additionalProperties"];
        assert_eq!(source["properties"]["weight"]["type"], "number");
    }
}
