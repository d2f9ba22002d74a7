//! The page itself: headline numbers, curves, pictures, facts.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::bars::{Bar, group};
use super::chart::line_chart;
use super::{CaptionLosses, CaptionedPicture, Report, RetrievalScores, escape};

const STYLE: &str = include_str!("style.css");

/// The whole report as one HTML document.
pub(crate) fn render(report: &Report) -> String {
    let mut body = String::new();
    body.push_str(&headline(report));
    body.push_str(&retrieval(&report.retrieval));
    body.push_str(&curves(report));
    if let Some(losses) = &report.caption_losses {
        body.push_str(&caption_losses(losses));
    }
    body.push_str(&pictures(&report.pictures));
    body.push_str(&facts(&report.facts));
    document("BLIP-2 run report", &body)
}

/// A page that needs nothing beside it.
pub(crate) fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <title>{}</title>\n<style>\n{STYLE}</style></head>\n<body><main>\n{body}</main></body></html>\n",
        escape(title)
    )
}

fn headline(report: &Report) -> String {
    let scores = &report.retrieval;
    let mut tiles = tile(
        "Right name among the first five",
        &percent(scores.ours[1]),
        &format!("{} by chance, of {} names never trained on", percent(scores.chance[1]), scores.names),
    );
    if let Some(losses) = &report.caption_losses {
        tiles.push_str(&tile(
            "Loss of a held-out caption",
            &format!("{:.2}", losses.with_images),
            &format!("{:.2} for the language model without pictures, nats a token", losses.language_model),
        ));
    }
    for name in ["Time", "Throughput"] {
        if let Some((_, value)) = report.facts.iter().find(|(fact, _)| fact == name) {
            tiles.push_str(&tile(name, value, "training, all stages"));
        }
    }
    format!(
        "<header><h1>BLIP-2 run report</h1><p>A Q-Former trained between a frozen image encoder and a frozen \
         language model, measured on pictures of concepts that no training row shows.</p>\
         <div class=\"tiles\">{tiles}</div></header>\n"
    )
}

pub(super) fn tile(label: &str, value: &str, note: &str) -> String {
    format!(
        "<div class=\"tile\"><span>{}</span><strong>{}</strong><small>{}</small></div>",
        escape(label),
        escape(value),
        escape(note)
    )
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn retrieval(scores: &RetrievalScores) -> String {
    let mut groups = String::new();
    for (index, rank) in [1, 5, 10].into_iter().enumerate() {
        let mut bars = vec![Bar { label: "this run", value: scores.ours[index], kind: "ours" }];
        if let Some(clip) = scores.clip {
            bars.push(Bar { label: "frozen CLIP", value: clip[index], kind: "other" });
        }
        bars.push(Bar { label: "chance", value: scores.chance[index], kind: "floor" });
        groups.push_str(&group(&format!("R@{rank}"), &bars, full_scale(scores), 3));
    }
    format!(
        "<section id=\"retrieval\"><h2>Retrieval of held-out names</h2>\
         <p>For each of {} held-out pictures the {} held-out names are ranked; R@k is the share of pictures whose \
         own name is among the first k.</p><div class=\"groups\">{groups}</div></section>\n",
        scores.pictures, scores.names
    )
}

/// One scale for all bars, so that their lengths compare.
fn full_scale(scores: &RetrievalScores) -> f64 {
    let clip = scores.clip.unwrap_or_default();
    let highest = scores.ours.iter().chain(&clip).chain(&scores.chance).copied().fold(0.0, f64::max);
    highest.max(1e-9)
}

fn curves(report: &Report) -> String {
    let mut html = String::from("<section id=\"curves\"><h2>Loss curves</h2>");
    if report.stages.is_empty() {
        html.push_str("<p>no step was recorded</p>");
    }
    for (title, series) in &report.stages {
        // Writing to a String cannot fail.
        let _ = write!(html, "<h3>{}</h3>{}", escape(title), line_chart(title, "loss, nats", series));
    }
    html.push_str(
        "<p class=\"note\">Faint: every step. Strong: running mean, with its last value.</p></section>\n",
    );
    html
}

fn caption_losses(losses: &CaptionLosses) -> String {
    let bars = [
        Bar { label: "with its picture", value: losses.with_images, kind: "ours" },
        Bar { label: "with another picture", value: losses.shuffled, kind: "other" },
        Bar { label: "language model alone", value: losses.language_model, kind: "floor" },
    ];
    let full = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    format!(
        "<section id=\"caption-loss\"><h2>Are the pictures used?</h2>\
         <p>The loss of held-out captions given their picture, given another caption's picture, and given none. \
         Lower is better; if pictures are used, the first is the lowest.</p>\
         <div class=\"groups one\">{}</div></section>\n",
        group("Loss, nats a token", &bars, full, 3)
    )
}

fn pictures(pictures: &[CaptionedPicture]) -> String {
    let mut figures = String::new();
    for picture in pictures {
        let right = picture.written.trim().eq_ignore_ascii_case(picture.name.trim());
        // Writing to a String cannot fail.
        let _ = writeln!(
            figures,
            "<figure{class}><img src=\"data:{media};base64,{data}\" alt=\"{name}\" width=\"80\" height=\"80\">\
             <figcaption><b>{name}</b><span>{written}</span></figcaption></figure>",
            class = if right { " class=\"right\"" } else { "" },
            media = picture.media_type,
            data = STANDARD.encode(&picture.bytes),
            name = escape(&picture.name),
            written = if picture.written.trim().is_empty() {
                "(nothing)".to_owned()
            } else {
                escape(picture.written.trim())
            },
        );
    }
    format!(
        "<section id=\"captions\"><h2>Captions of held-out pictures</h2>\
         <p>Above, the picture's true name; below, what the model wrote. A green edge marks a caption that is the name \
         word for word.</p><div class=\"figures\">\n{figures}</div></section>\n"
    )
}

fn facts(facts: &[(String, String)]) -> String {
    let mut rows = String::new();
    for (name, value) in facts {
        let _ = write!(rows, "<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value));
    }
    format!("<section id=\"facts\"><h2>The run</h2><dl class=\"facts\">{rows}</dl></section>\n")
}

#[cfg(test)]
mod tests {
    use super::super::Series;
    use super::*;

    fn sample() -> Report {
        let line = |name: &str| Series { name: name.to_owned(), points: vec![(0, 2.0), (1, 1.0)] };
        Report {
            retrieval: RetrievalScores {
                ours: [0.07, 0.21, 0.31],
                clip: Some([0.10, 0.33, 0.39]),
                chance: [0.006, 0.028, 0.055],
                names: 181,
                pictures: 540,
            },
            stages: vec![
                ("Stage 1".into(), vec![line("itc"), line("itm")]),
                ("Stage 2".into(), vec![line("loss")]),
            ],
            caption_losses: Some(CaptionLosses { with_images: 2.1, shuffled: 2.9, language_model: 3.4 }),
            pictures: vec![CaptionedPicture {
                bytes: vec![0xff, 0xd8, 0xff],
                media_type: "image/jpeg",
                name: "<cat> face".to_owned(),
                written: "cat face".to_owned(),
            }],
            facts: vec![("Time".to_owned(), "3 min".to_owned())],
        }
    }

    #[test]
    fn the_page_has_all_parts_and_needs_nothing_beside_it() {
        let html = render(&sample());
        for part in ["retrieval", "curves", "caption-loss", "captions", "facts"] {
            assert!(html.contains(&format!("<section id=\"{part}\">")), "{part}");
        }
        assert_eq!(html.matches("<figure").count(), 1);
        assert!(html.contains("data:image/jpeg;base64,/9j/"));
        assert!(html.contains("&lt;cat&gt; face") && !html.contains("<cat>"));
        assert!(!html.contains("http://") && !html.contains("https://"), "no outside reference");
        assert!(html.contains("0.210") && html.contains("0.330") && html.contains("0.028"));
    }

    #[test]
    fn parts_without_data_are_left_out_or_say_so() {
        let html = render(&Report::default());
        assert!(!html.contains("id=\"caption-loss\""));
        assert!(html.contains("no step was recorded"));
    }
}
