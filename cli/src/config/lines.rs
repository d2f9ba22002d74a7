//! Where the keys of a TOML text stand.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue, Error};

/// Lines by dotted key; the entries of a list that have names are keys by these.
pub(super) fn of(text: &str) -> Result<BTreeMap<String, usize>, Error> {
    let table = DeTable::parse(text)?;
    let mut lines = BTreeMap::new();
    collect(table.get_ref(), "", text, &mut lines);
    Ok(lines)
}

fn collect(table: &DeTable<'_>, prefix: &str, text: &str, lines: &mut BTreeMap<String, usize>) {
    for (name, value) in table {
        let key = if prefix.is_empty() {
            name.get_ref().to_string()
        } else {
            format!("{prefix}.{}", name.get_ref())
        };
        lines.insert(key.clone(), line_of(text, name.span().start));
        match value.get_ref() {
            DeValue::Table(inner) => collect(inner, &key, text, lines),
            DeValue::Array(items) => {
                collect_entries(items.iter().map(|item| item.get_ref()), &key, text, lines)
            }
            _ => {}
        }
    }
}

/// The lines of the entries of a list that have names.
fn collect_entries<'a>(
    items: impl Iterator<Item = &'a DeValue<'a>>,
    key: &str,
    text: &str,
    lines: &mut BTreeMap<String, usize>,
) {
    for item in items {
        let DeValue::Table(entry) = item else { continue };
        let name = entry.iter().find(|(name, _)| name.get_ref() == "name").map(|(_, value)| value);
        if let Some(DeValue::String(name)) = name.map(|name| name.get_ref()) {
            let first = entry.iter().map(|(name, _)| line_of(text, name.span().start)).min();
            let place = format!("{key}.{name}");
            lines.insert(place.clone(), first.unwrap_or(1));
            collect(entry, &place, text, lines);
        }
    }
}

/// The line of a byte.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}
