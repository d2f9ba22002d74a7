//! The page of `curate report`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blip2_curation::finish::KEPT;
use blip2_curation::report::{CurationFigures, Example, ExampleText};
use blip2_pages::bars::{Bar, group as bar_group};
use blip2_pages::document::{document, facts};
use blip2_pages::histogram::Histogram;
use maud::{Markup, html};

/// Texts shown of a picture.
const TEXTS: usize = 12;
/// Characters shown of a text.
const CHARACTERS: usize = 200;

/// The page.
pub(super) fn render(figures: &CurationFigures) -> String {
    let body = html! {
        header {
            h1 { "Curation" }
            p {
                (figures.scored) " of " (figures.rows) " rows are scored; " (figures.kept_rows) " of them keep a text."
            }
        }
        section id="reasons" {
            h2 { "What became of the texts" }
            div class="groups" { @for (source, counts) in &figures.texts { (shares(source, counts)) } }
        }
        section id="scores" {
            h2 { "Scores" }
            div class="groups" { (scores(figures)) }
        }
        section id="throughput" {
            h2 { "Throughput" }
            (throughput(figures))
        }
        section id="pictures" {
            h2 { "Pictures" }
            div class="figures" { @for example in &figures.examples { (figure(example)) } }
        }
    };
    document("Curation", &body)
}

/// What became of the texts of a source.
fn shares(source: &str, counts: &BTreeMap<&'static str, u64>) -> Markup {
    let all: u64 = counts.values().sum();
    let bars: Vec<_> = counts
        .iter()
        .map(|(name, count)| {
            let kind = if *name == KEPT { "ours" } else { "other" };
            Bar { label: name, value: *count as f64 / all.max(1) as f64, kind }
        })
        .collect();
    bar_group(&format!("Share of {all} {source} texts"), &bars, 1.0, 3)
}

fn scores(figures: &CurationFigures) -> Markup {
    let cosines: Vec<f64> = (0..=20).map(|step| f64::from(step) / 20.0 - 0.2).map(hundredths).collect();
    let probabilities: Vec<f64> = (1..10).map(|step| hundredths(f64::from(step) / 10.0)).collect();
    let kinds = [
        (&figures.clip, "cosine (CLIP)", &cosines),
        (&figures.itm, "probability of a match", &probabilities),
    ];
    html! {
        @for (scores, what, bounds) in kinds {
            @for (source, values) in scores {
                (Histogram::new("scores", format!("{source}: {what}"), bounds, values.iter().copied()).render())
            }
        }
    }
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn throughput(figures: &CurationFigures) -> Markup {
    let rate = figures.rows_per_s.map(|rows| ("Rows a second", format!("{rows:.1}")));
    let cost = figures.cost_per_million.map(|cost| ("Cost of a million rows", format!("{cost:.2}")));
    let known: Vec<_> = rate.into_iter().chain(cost).collect();
    facts(known.iter().map(|(name, value)| (*name, value.as_str())))
}

fn figure(example: &Example) -> Markup {
    html! {
        figure {
            img src={ "data:image/jpeg;base64," (STANDARD.encode(&example.thumbnail)) } alt="" style="max-width:100%";
            figcaption {
                @for text in example.texts.iter().take(TEXTS) { span { (judged(text)) } }
                b { (example.key) }
            }
        }
    }
}

fn judged(text: &ExampleText) -> Markup {
    let cut: String = text.text.chars().take(CHARACTERS).collect();
    let score = text.score.map(|score| format!("{score:.3} ")).unwrap_or_default();
    html! {
        // A text's own direction marks end with it.
        @match text.dropped {
            None => { b { (score) (text.source) } " " bdi { (cut) } },
            Some(reason) => { (score) (text.source) ", " (reason) ": " s { bdi { (cut) } } },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_on_the_page_and_nothing_escapes() {
        let text =
            |text: &str, source, score, dropped| ExampleText { text: text.into(), source, score, dropped };
        let texts = vec![
            text("a <b> cat", "web", Some(0.5), None),
            text("click & buy", "synthetic", None, Some("boilerplate")),
        ];
        let example = Example { key: "k<1>".into(), thumbnail: vec![1, 2], texts };
        let counts = [(KEPT, 3), ("rank", 1)].into();
        let figures = CurationFigures {
            rows: 9,
            scored: 4,
            kept_rows: 3,
            texts: [("web", counts)].into(),
            clip: [("web", vec![0.1, 0.12, 0.9])].into(),
            itm: [("synthetic", vec![0.4])].into(),
            rows_per_s: Some(12.5),
            cost_per_million: Some(33.333),
            examples: vec![example],
        };
        let page = render(&figures);
        for part in [
            "4 of 9 rows",
            "Share of 4 web texts",
            "0.750",
            "web: cosine",
            "synthetic: probability",
            "12.5",
            "33.33",
            "a &lt;b&gt; cat",
            "boilerplate: <s><bdi>click &amp; buy",
            "k&lt;1&gt;",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
        assert!(!page.contains("<b> cat"));
    }
}
