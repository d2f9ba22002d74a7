//! The dashboard, the alerts and the page about both name what there is, and each alert has its section.

use std::collections::BTreeSet;
use std::path::Path;

use blip2_telemetry::metric::{ALL, Metric};

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Labels that the scraping adds.
const ADDED: [&str; 3] = ["job", "instance", "le"];

/// What a text says of metrics that do not exist, or of labels that a metric does not have.
fn unknown(text: &str) -> Vec<String> {
    // Quotation marks inside a JSON text.
    let text = text.replace("\\\"", "\"");
    let mut found = Vec::new();
    for (start, _) in text.match_indices("blip2_") {
        let rest = &text[start..];
        let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let (name, behind) = rest.split_at(end.unwrap_or(rest.len()));
        let Some(metric) = ALL.iter().find(|metric| metric.series().iter().any(|series| series == name))
        else {
            // The histogram itself is spoken of too.
            if !ALL.iter().any(|metric| metric.full_name() == name) {
                found.push(name.to_owned());
            }
            continue;
        };
        found.extend(unknown_labels(metric, behind));
    }
    found
}

fn unknown_labels(metric: &Metric, behind: &str) -> Vec<String> {
    let Some(selector) = behind.strip_prefix('{').and_then(|rest| rest.split('}').next()) else {
        return Vec::new();
    };
    let names = selector.split(',').filter_map(|part| part.split(['=', '!', '~']).next()).map(str::trim);
    let is_known = |name: &&str| metric.labels.contains(name) || ADDED.contains(name);
    names.filter(|name| !is_known(name)).map(|name| format!("{}{{{name}}}", metric.name)).collect()
}

#[test]
fn dashboard_alerts_and_page_name_metrics_that_exist() {
    for name in [
        "monitoring/dashboard.json",
        "monitoring/alerts.yaml",
        "monitoring/alerts.test.yaml",
        "docs/monitoring.md",
    ] {
        let text = file(name);
        assert!(text.contains("blip2_"), "{name} names metrics");
        assert_eq!(unknown(&text), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn a_name_or_a_label_that_does_not_exist_is_found() {
    let text = file("monitoring/alerts.yaml");
    let renamed = text.replace("blip2_steps_redone_total", "blip2_steps_redone");
    assert_eq!(unknown(&renamed), ["blip2_steps_redone"]);
    let labelled = text.replace("blip2_members{state=", "blip2_members{kind=");
    assert_eq!(unknown(&labelled), ["members{kind}", "members{kind}"]);
    let board = file("monitoring/dashboard.json").replace("blip2_loss{", "blip2_losses{");
    assert_eq!(unknown(&board), ["blip2_losses"]);
}

#[test]
fn the_page_explains_every_metric_and_the_dashboard_shows_it() {
    let (page, board) = (file("docs/monitoring.md"), file("monitoring/dashboard.json"));
    for metric in ALL {
        assert!(page.contains(&format!("`{}`", metric.full_name())), "docs/monitoring.md: {}", metric.name);
        let is_shown = metric.series().iter().any(|series| board.contains(series.as_str()));
        let is_of_alerts = metric.name == "members_wanted";
        assert!(is_shown || is_of_alerts, "monitoring/dashboard.json: {}", metric.name);
        for label in metric.labels {
            assert!(page.contains(&format!("`{label}`")), "docs/monitoring.md: {}{{{label}}}", metric.name);
        }
    }
}

#[test]
fn each_alert_has_a_section_and_a_test() {
    let (alerts, tests, page) =
        (file("monitoring/alerts.yaml"), file("monitoring/alerts.test.yaml"), file("docs/monitoring.md"));
    let names: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    assert!(names.len() >= 8, "{names:?}");
    for name in &names {
        let link = format!("runbook: docs/monitoring.md#{}", name.to_lowercase());
        assert!(alerts.contains(&link) && tests.contains(&link), "{name}: {link}");
        assert!(page.lines().any(|line| line == format!("### {name}")), "docs/monitoring.md: ### {name}");
    }
    let sections = page.split("## When an alert fires").nth(1).unwrap().lines();
    let sections: Vec<&str> = sections.filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(sections, names);
}
