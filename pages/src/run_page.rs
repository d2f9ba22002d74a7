//! The page of `blip2 report`: what is known of any run, from its store and its metrics.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, html};

use crate::chart::{Series, line_chart};
use crate::document::{document, facts, tile};

/// A headline number.
#[derive(Debug, Clone)]
pub struct Tile {
    /// What the number is of.
    pub label: String,
    /// The number.
    pub value: String,
    /// A word below it.
    pub note: String,
}

/// Lines over the steps.
#[derive(Debug, Clone)]
pub struct Chart {
    /// Its heading.
    pub title: String,
    /// The unit of its values.
    pub unit: String,
    /// Its lines.
    pub series: Vec<Series>,
}

/// Rows of text under a heading; `empty` is said where there is none.
#[derive(Debug, Clone)]
pub struct Table {
    /// The anchor of its section.
    pub id: &'static str,
    /// Its heading.
    pub title: String,
    /// A sentence above the rows.
    pub about: String,
    /// Name and value of each row.
    pub rows: Vec<(String, String)>,
    /// What stands there where it has no row.
    pub empty: String,
}

/// Small pictures under a heading.
#[derive(Debug, Clone)]
pub struct Pictures {
    /// The anchor of its section.
    pub id: &'static str,
    /// Its heading.
    pub title: String,
    /// The pictures.
    pub pictures: Vec<Picture>,
}

/// A small picture, or what is said in its place.
#[derive(Debug, Clone)]
pub struct Picture {
    /// What it is called.
    pub name: String,
    /// What is said of it.
    pub about: String,
    /// Where it is from.
    pub place: String,
    /// A JPEG that was made here.
    pub jpeg: Option<Vec<u8>>,
    /// Said where there is none.
    pub instead: String,
}

/// All that the page shows.
#[derive(Debug, Clone)]
pub struct RunReport {
    /// The heading: `Run NAME`.
    pub title: String,
    /// How far it is, or how it ended.
    pub state: String,
    /// The numbers at the top.
    pub tiles: Vec<Tile>,
    /// The curves.
    pub charts: Vec<Chart>,
    /// Said below the charts, or in their place.
    pub about_charts: String,
    /// The sections below them.
    pub tables: Vec<Table>,
    /// The last section.
    pub pictures: Option<Pictures>,
}

/// The whole page as one HTML document.
pub fn render_run(report: &RunReport) -> String {
    let body = html! {
        header {
            h1 { (report.title) }
            p { (report.state) }
            div class="tiles" {
                @for shown in &report.tiles { (tile(&shown.label, &shown.value, &shown.note)) }
            }
        }
        @if !report.charts.is_empty() || !report.about_charts.is_empty() {
            section id="curves" {
                h2 { "Curves" }
                @for chart in &report.charts {
                    h3 { (chart.title) }
                    (line_chart(&chart.title, &chart.unit, &chart.series))
                }
                p class="note" { (report.about_charts) }
            }
        }
        @for table in &report.tables { (section(table)) }
        @if let Some(pictures) = &report.pictures { (strip(pictures)) }
    };
    document(&report.title, &body)
}

fn section(table: &Table) -> Markup {
    let is_empty = table.rows.is_empty();
    html! {
        section id=(table.id) {
            h2 { (table.title) }
            @if !table.about.is_empty() { p { (table.about) } }
            @if is_empty && !table.empty.is_empty() { p { (table.empty) } }
            @if !is_empty { (facts(table.rows.iter().map(|(name, value)| (name.as_str(), value.as_str())))) }
        }
    }
}

fn strip(shown: &Pictures) -> Markup {
    html! {
        section id=(shown.id) {
            h2 { (shown.title) }
            div class="figures" {
                @for picture in &shown.pictures {
                    figure title=(picture.place) {
                        @match &picture.jpeg {
                            Some(jpeg) => {
                                img src={ "data:image/jpeg;base64," (STANDARD.encode(jpeg)) } alt="" style="max-width:100%";
                            }
                            None => { p class="note" { (picture.instead) } }
                        }
                        figcaption {
                            span { bdi { (picture.name) } }
                            b { bdi { (picture.about) } }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_part_and_escapes_what_it_shows() {
        let report = RunReport {
            title: "a<b".into(),
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
            pictures: Some(Pictures {
                id: "left-out",
                title: "Left out".into(),
                pictures: vec![
                    Picture {
                        name: "key<1>".into(),
                        about: "it has no text".into(),
                        place: "a\"b.parquet".into(),
                        jpeg: Some(vec![0xff, 0xd8, 0xff]),
                        instead: String::new(),
                    },
                    Picture {
                        name: "key-2".into(),
                        about: "it ends early".into(),
                        place: "c.parquet".into(),
                        jpeg: None,
                        instead: "no <picture>".into(),
                    },
                ],
            }),
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
            "id=\"left-out\"",
            "key&lt;1&gt;",
            "title=\"a&quot;b.parquet\"",
            "src=\"data:image/jpeg;base64,/9j/\"",
            "no &lt;picture&gt;",
        ] {
            assert!(html.contains(part), "no {part} in {html}");
        }
        assert!(!html.contains("<p>none</p>"));
    }
}
