//! Printing every value of the configuration with its origin.

use std::fmt::Write as _;

use super::setting::{Setting, shown};

/// A table for people: key, value, origin; one blank line between sections.
pub(crate) fn settings_as_text(settings: &[Setting]) -> String {
    let ordered = in_reference_order(settings);
    let key_width = ordered.iter().map(|s| s.written.len()).max().unwrap_or(0);
    let value_width = ordered.iter().map(|s| shown(&s.value).to_string().len()).max().unwrap_or(0).min(40);
    let mut text = String::new();
    let mut section = "";
    for setting in ordered {
        let own_section = setting.written.split('.').next().unwrap_or_default();
        if !section.is_empty() && own_section != section {
            text.push('\n');
        }
        section = own_section;
        let value = shown(&setting.value).to_string();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:key_width$}  {value:value_width$}  {}", setting.written, setting.origin);
    }
    text
}

/// One JSON object a line: `{"key", "value", "origin", "about"}`.
pub(crate) fn settings_as_json(settings: &[Setting]) -> String {
    let mut text = String::new();
    for setting in in_reference_order(settings) {
        let line = serde_json::json!({
            "key": setting.written,
            "value": shown(&setting.value),
            "origin": setting.origin.to_string(),
            "about": setting.known.about,
        });
        let _ = writeln!(text, "{line}");
    }
    text
}

/// The settings in the order in which the reference explains them.
fn in_reference_order(settings: &[Setting]) -> Vec<&Setting> {
    let mut ordered: Vec<&Setting> = settings.iter().collect();
    ordered.sort_by(|a, b| a.known.place.cmp(&b.known.place));
    ordered
}

#[cfg(test)]
mod tests {
    use super::super::Layers;
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        let mut layers = Layers::new().unwrap();
        let set = ["run.root=https://u:pw@h/run", "data.train=[\"https://h/a?sig=cafe\"]"].map(str::to_owned);
        layers.apply_arguments(&set).unwrap();
        let settings = layers.finish().unwrap().settings;
        for text in [settings_as_text(&settings), settings_as_json(&settings)] {
            assert!(
                text.contains("https://REDACTED@h/run") && text.contains("https://h/a?REDACTED"),
                "{text}"
            );
            assert!(!text.contains("pw@") && !text.contains("cafe"), "{text}");
        }
    }

    #[test]
    fn every_value_is_shown_once_with_its_origin() {
        let mut layers = Layers::new().unwrap();
        layers.apply_arguments(&["stage2.steps=12".to_owned()]).unwrap();
        let settings = layers.finish().unwrap().settings;
        let text = settings_as_text(&settings);
        assert!(text.lines().any(|l| l.starts_with("stage2.steps ") && l.ends_with("--set")), "{text}");
        let json = settings_as_json(&settings);
        assert_eq!(json.lines().count(), settings.len());
        for line in json.lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(!value["about"].as_str().unwrap().is_empty(), "{line}");
        }
    }
}
