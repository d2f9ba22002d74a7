//! The credentials in the URLs of a configuration, which are no part of what is stored.

use blip2_dataset::store::secret_url::{has_credentials, redacted, remember_credentials};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A configuration as it is stored and hashed: without the credentials of its URLs. One without any is returned as it is.
pub fn without_credentials<T: Serialize + DeserializeOwned + Clone>(config: &T) -> T {
    let Ok(mut value) = serde_json::to_value(config) else { return config.clone() };
    let mut found = false;
    each_text(&mut value, &mut |text| {
        if has_credentials(text) {
            found = true;
            *text = redacted(text);
        }
    });
    match found {
        // What was serialised reads back.
        true => serde_json::from_value(value).unwrap_or_else(|_| config.clone()),
        false => config.clone(),
    }
}

/// Remembers the credentials of all URLs of a configuration in this process, so that what is stored without them can be
/// opened here.
pub fn remember_credentials_of(config: &impl Serialize) {
    if let Ok(mut value) = serde_json::to_value(config) {
        each_text(&mut value, &mut |text| remember_credentials(text));
    }
}

fn each_text(value: &mut Value, visit: &mut impl FnMut(&mut String)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(items) => items.iter_mut().for_each(|item| each_text(item, visit)),
        Value::Object(fields) => fields.values_mut().for_each(|field| each_text(field, visit)),
        _ => {}
    }
}
