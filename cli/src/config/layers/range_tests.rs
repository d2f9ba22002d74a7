use super::*;
use blip2_run::exit::Exit;

/// What is tried for every number.
const ODD: [&str; 16] = [
    "nan",
    "-nan",
    "inf",
    "-inf",
    "-1",
    "-1e-9",
    "0",
    "0.0",
    "-0.0",
    "1e300",
    "-1e300",
    "1e-300",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "0.5",
];

fn numbers() -> Vec<Setting> {
    let settings = Layers::new().unwrap().finish().unwrap().settings;
    let is_number = |value: &Value| matches!(value, Value::Integer(_) | Value::Float(_));
    let holds_numbers = |value: &Value| match value {
        Value::Array(items) => items.iter().any(is_number),
        value => is_number(value),
    };
    settings.into_iter().filter(|setting| holds_numbers(&setting.value)).collect()
}

/// Every number with every odd value: taken because it is in the range, or refused with 78 and all that
/// is needed to mend it; by no way a panic.
#[test]
fn odd_values_are_in_the_range_or_refused() {
    let mut refused = 0;
    for setting in numbers() {
        let range = setting.known.range.unwrap();
        for odd in ODD {
            let text = match &setting.value {
                Value::Array(items) => format!("[{}]", vec![odd; items.len()].join(", ")),
                _ => odd.to_owned(),
            };
            let mut layers = Layers::new().unwrap();
            let laid = layers.apply_arguments(&[format!("{}={text}", setting.key)]);
            let error = match laid.and_then(|()| layers.finish()) {
                Ok(loaded) => {
                    let taken = loaded.settings.iter().find(|taken| taken.key == setting.key).unwrap();
                    assert!(range.holds(&taken.value), "{} = {odd} is taken: {range}", setting.key);
                    continue;
                }
                Err(error) => error,
            };
            refused += 1;
            let message = error.to_string();
            assert_eq!(error.exit(), Exit::BadConfig, "{message}");
            assert!(message.contains(&setting.key) && message.contains("--set"), "{message}");
        }
    }
    assert!(refused > 500, "{refused}");
}

#[test]
fn a_refusal_names_key_value_origin_and_range() {
    let mut layers = Layers::new().unwrap();
    layers.apply_text("run.toml".as_ref(), "[stage1]\ntemperature = -0.07\n").unwrap();
    let text = layers.finish().unwrap_err().to_string();
    for part in ["stage1.temperature = -0.07", "run.toml:2", "1e-4 to 100"] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    // What a later layer sets right is right.
    let mut layers = Layers::new().unwrap();
    layers.apply_text("run.toml".as_ref(), "[stage1]\ntemperature = -0.07\n").unwrap();
    layers.apply_arguments(&["stage1.temperature=0.07".to_owned()]).unwrap();
    assert!(layers.finish().is_ok());
    let mut layers = Layers::new().unwrap();
    layers.apply_text("run.toml".as_ref(), "[data.sources.a]\nweight = nan\n").unwrap();
    let text = layers.finish().unwrap_err().to_string();
    assert!(text.contains("data.sources.a.weight") && text.contains("above 0"), "{text}");
}
