//! The page of `blip2 report`: what is known of any run, from its store and its metrics.

use std::fmt::Write as _;

use super::chart::{Series, line_chart};
use super::escape;
use super::page::{document, tile};

/// A headline number.
#[derive(Debug, Clone)]
pub(crate) struct Tile {
    pub(crate) label: String,
    pub(crate) value: String,
    pub(crate) note: String,
}

/// Lines over the steps.
#[derive(Debug, Clone)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) unit: String,
    pub(crate) series: Vec<Series>,
}

/// Rows of text under a heading; `empty` is said where there is none.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) id: &'static str,
    pub(crate) title: String,
    /// A sentence above the rows.
    pub(crate) about: String,
    pub(crate) rows: Vec<(String, String)>,
    pub(crate) empty: String,
}

/// All that the page shows.
#[derive(Debug, Clone)]
pub(crate) struct RunReport {
    pub(crate) run: String,
    /// How far it is, or how it ended.
    pub(crate) state: String,
    pub(crate) tiles: Vec<Tile>,
    pub(crate) charts: Vec<Chart>,
    /// Said below the charts, or in their place.
    pub(crate) about_charts: String,
    pub(crate) tables: Vec<Table>,
}

/// The whole page as one HTML document.
pub(crate) fn render_run(report: &RunReport) -> String {
    let tiles: String =
        report.tiles.iter().map(|shown| tile(&shown.label, &shown.value, &shown.note)).collect();
    let mut body = format!(
        "<header><h1>Run {}</h1><p>{}</p><div class=\"tiles\">{tiles}</div></header>\n",
        escape(&report.run),
        escape(&report.state)
    );
    body.push_str("<section id=\"curves\"><h2>Curves</h2>");
    for chart in &report.charts {
        // Writing to a String cannot fail.
        let _ = write!(
            body,
            "<h3>{}</h3>{}",
            escape(&chart.title),
            line_chart(&chart.title, &chart.unit, &chart.series)
        );
    }
    let _ = writeln!(body, "<p class=\"note\">{}</p></section>", escape(&report.about_charts));
    report.tables.iter().for_each(|table| body.push_str(&section(table)));
    document(&format!("Run {}", report.run), &body)
}

fn section(table: &Table) -> String {
    let mut html = format!("<section id=\"{}\"><h2>{}</h2>", table.id, escape(&table.title));
    let empty = if table.rows.is_empty() { table.empty.as_str() } else { "" };
    for sentence in [table.about.as_str(), empty] {
        if !sentence.is_empty() {
            let _ = write!(html, "<p>{}</p>", escape(sentence));
        }
    }
    if !table.rows.is_empty() {
        html.push_str("<dl class=\"facts\">");
        for (name, value) in &table.rows {
            let _ = write!(html, "<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value));
        }
        html.push_str("</dl>");
    }
    html.push_str("</section>\n");
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_part_and_escapes_what_it_shows() {
        let report = RunReport {
            run: "a<b".into(),
            state: "done".into(),
            tiles: vec![Tile { label: "Steps".into(), value: "40".into(), note: "of 40".into() }],
            charts: vec![Chart {
                title: "Loss".into(),
                unit: "nats".into(),
                series: vec![Series { name: "loss".into(), points: vec![(0, 2.0), (1, 1.0)] }],
            }],
            about_charts: "one point a <step>".into(),
            tables: vec![
                Table {
                    id: "faults",
                    title: "Faults".into(),
                    about: String::new(),
                    rows: vec![("step 3".into(), "<lost>".into())],
                    empty: "none".into(),
                },
                Table {
                    id: "audit",
                    title: "Audit".into(),
                    about: String::new(),
                    rows: Vec::new(),
                    empty: "nothing to audit".into(),
                },
            ],
        };
        let html = render_run(&report);
        for part in [
            "id=\"curves\"",
            "id=\"faults\"",
            "&lt;lost&gt;",
            "a&lt;b",
            "nothing to audit",
            "<svg",
            "a &lt;step&gt;",
        ] {
            assert!(html.contains(part), "no {part} in {html}");
        }
        assert!(!html.contains("<p>none</p>"));
    }
}
