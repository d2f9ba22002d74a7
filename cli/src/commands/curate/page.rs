//! The page of `curate report`.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blip2_curation::finish::KEPT;
use blip2_curation::report::{CurationFigures, Example, ExampleText};

use crate::report::{Bar, Histogram, bar_group, document, escape};

/// Texts shown of a picture.
const TEXTS: usize = 12;
/// Characters shown of a text.
const CHARACTERS: usize = 200;

/// The page.
pub(super) fn render(figures: &CurationFigures) -> String {
    let mut body = format!(
        "<header><h1>Curation</h1><p>{} of {} rows are scored; {} of them keep a text.</p></header>\n",
        figures.scored, figures.rows, figures.kept_rows
    );
    body.push_str("<section id=\"reasons\"><h2>What became of the texts</h2><div class=\"groups\">");
    for (source, counts) in &figures.texts {
        let all: u64 = counts.values().sum();
        let share = |count: u64| count as f64 / all.max(1) as f64;
        let bars: Vec<_> = counts
            .iter()
            .map(|(name, count)| {
                let kind = if *name == KEPT { "ours" } else { "other" };
                Bar { label: name, value: share(*count), kind }
            })
            .collect();
        body.push_str(&bar_group(&format!("Share of {all} {source} texts"), &bars, 1.0, 3));
    }
    body.push_str("</div></section>\n<section id=\"scores\"><h2>Scores</h2><div class=\"groups\">");
    let cosines: Vec<f64> = (0..=20).map(|step| f64::from(step) / 20.0 - 0.2).map(hundredths).collect();
    let probabilities: Vec<f64> = (1..10).map(|step| hundredths(f64::from(step) / 10.0)).collect();
    for (scores, what, bounds) in
        [(&figures.clip, "cosine (CLIP)", &cosines), (&figures.itm, "probability of a match", &probabilities)]
    {
        for (source, values) in scores {
            let title = format!("{source}: {what}");
            body.push_str(&Histogram::new("scores", title, bounds, values.iter().copied()).render());
        }
    }
    body.push_str("</div></section>\n");
    body.push_str(&throughput(figures));
    body.push_str("<section id=\"pictures\"><h2>Pictures</h2><div class=\"figures\">\n");
    figures.examples.iter().for_each(|example| body.push_str(&figure(example)));
    body.push_str("</div></section>\n");
    document("Curation", &body)
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn throughput(figures: &CurationFigures) -> String {
    let mut facts = Vec::new();
    if let Some(rows) = figures.rows_per_s {
        facts.push(("Rows a second", format!("{rows:.1}")));
    }
    if let Some(cost) = figures.cost_per_million {
        facts.push(("Cost of a million rows", format!("{cost:.2}")));
    }
    let mut html = "<section id=\"throughput\"><h2>Throughput</h2><dl class=\"facts\">".to_owned();
    for (name, value) in facts {
        // Writing to a String cannot fail.
        let _ = write!(html, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    }
    html + "</dl></section>\n"
}

fn figure(example: &Example) -> String {
    let mut texts = String::new();
    for ExampleText { text, source, score, dropped } in example.texts.iter().take(TEXTS) {
        let cut: String = text.chars().take(CHARACTERS).collect();
        let score = score.map(|score| format!("{score:.3} ")).unwrap_or_default();
        // A text's own direction marks end with it.
        let shown = format!("<bdi>{}</bdi>", escape(&cut));
        let _ = match dropped {
            None => write!(texts, "<span><b>{score}{source}</b> {shown}</span>"),
            Some(reason) => write!(texts, "<span>{score}{source}, {reason}: <s>{shown}</s></span>"),
        };
    }
    format!(
        "<figure><img src=\"data:image/jpeg;base64,{}\" alt=\"\" style=\"max-width:100%\">\
         <figcaption>{texts}<b>{}</b></figcaption></figure>\n",
        STANDARD.encode(&example.thumbnail),
        escape(&example.key),
    )
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
