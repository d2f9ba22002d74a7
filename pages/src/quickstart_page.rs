//! The page of the quick start: headline numbers, curves, pictures, facts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, html};

use crate::bars::{Bar, group};
use crate::chart::{Series, loss_curves};
use crate::document::{document, facts, tile};

/// All that the report shows.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// How often the right name is found.
    pub retrieval: RetrievalScores,
    /// For each stage its title, and the losses of every step.
    pub stages: Vec<(String, Vec<Series>)>,
    /// Absent where no stage writes captions.
    pub caption_losses: Option<CaptionLosses>,
    /// Pictures with what the model writes for them.
    pub pictures: Vec<CaptionedPicture>,
    /// Name and value, in the order shown.
    pub facts: Vec<(String, String)>,
}

/// Recall at 1, 5 and 10 of held-out names, image to text.
#[derive(Debug, Clone, Copy, Default)]
pub struct RetrievalScores {
    /// Of the trained model, at ranks 1, 5 and 10.
    pub ours: [f64; 3],
    /// The frozen CLIP, if there is one to compare with.
    pub clip: Option<[f64; 3]>,
    /// Of guessing.
    pub chance: [f64; 3],
    /// Distinct names that are told apart.
    pub names: usize,
    /// Pictures that were asked about.
    pub pictures: usize,
}

/// Mean loss of held-out captions, in nats per token.
#[derive(Debug, Clone, Copy)]
pub struct CaptionLosses {
    /// Of captions with their pictures.
    pub with_images: f64,
    /// The same captions, each with another caption's picture.
    pub shuffled: f64,
    /// The language model without any picture.
    pub language_model: f64,
}

/// A held-out picture, what it is called and what was written for it.
#[derive(Debug, Clone)]
pub struct CaptionedPicture {
    /// The file's bytes, in a format that browsers show.
    pub bytes: Vec<u8>,
    /// What `bytes` are, such as `image/png`.
    pub media_type: &'static str,
    /// What the picture shows.
    pub name: String,
    /// What the model wrote.
    pub written: String,
}

/// The whole report as one HTML document.
pub fn render(report: &Report) -> String {
    let body = html! {
        (headline(report))
        (retrieval(&report.retrieval))
        (loss_curves(&report.stages))
        @if let Some(losses) = &report.caption_losses { (caption_losses(losses)) }
        (pictures(&report.pictures))
        section id="facts" {
            h2 { "The run" }
            (facts(report.facts.iter().map(|(name, value)| (name.as_str(), value.as_str()))))
        }
    };
    document("BLIP-2 run report", &body)
}

fn headline(report: &Report) -> Markup {
    let scores = &report.retrieval;
    let by_chance = percent(scores.chance[1]);
    let measured = ["Time", "Throughput"]
        .into_iter()
        .filter_map(|name| report.facts.iter().find(|(fact, _)| fact == name));
    html! {
        header {
            h1 { "BLIP-2 run report" }
            p {
                "A Q-Former trained between a frozen image encoder and a frozen language model, measured on pictures of \
                 concepts that no training row shows."
            }
            div class="tiles" {
                (tile(
                    "Right name among the first five",
                    &percent(scores.ours[1]),
                    &format!("{by_chance} by chance, of {} names never trained on", scores.names),
                ))
                @if let Some(losses) = &report.caption_losses {
                    (tile(
                        "Loss of a held-out caption",
                        &format!("{:.2}", losses.with_images),
                        &format!("{:.2} for the language model without pictures, nats a token", losses.language_model),
                    ))
                }
                @for (name, value) in measured { (tile(name, value, "training, all stages")) }
            }
        }
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn retrieval(scores: &RetrievalScores) -> Markup {
    let bars = |index: usize| {
        let mut bars = vec![Bar { label: "this run", value: scores.ours[index], kind: "ours" }];
        if let Some(clip) = scores.clip {
            bars.push(Bar { label: "frozen CLIP", value: clip[index], kind: "other" });
        }
        bars.push(Bar { label: "chance", value: scores.chance[index], kind: "floor" });
        bars
    };
    html! {
        section id="retrieval" {
            h2 { "Retrieval of held-out names" }
            p {
                "For each of " (scores.pictures) " held-out pictures the " (scores.names) " held-out names are ranked; R@k is \
                 the share of pictures whose own name is among the first k."
            }
            div class="groups" {
                @for (index, rank) in [1, 5, 10].into_iter().enumerate() {
                    (group(&format!("R@{rank}"), &bars(index), full_scale(scores), 3))
                }
            }
        }
    }
}

/// One scale for all bars, so that their lengths compare.
fn full_scale(scores: &RetrievalScores) -> f64 {
    let clip = scores.clip.unwrap_or_default();
    let highest = scores.ours.iter().chain(&clip).chain(&scores.chance).copied().fold(0.0, f64::max);
    highest.max(1e-9)
}

fn caption_losses(losses: &CaptionLosses) -> Markup {
    let bars = [
        Bar { label: "with its picture", value: losses.with_images, kind: "ours" },
        Bar { label: "with another picture", value: losses.shuffled, kind: "other" },
        Bar { label: "language model alone", value: losses.language_model, kind: "floor" },
    ];
    let full = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    html! {
        section id="caption-loss" {
            h2 { "Are the pictures used?" }
            p {
                "The loss of held-out captions given their picture, given another caption's picture, and given none. Lower is \
                 better; if pictures are used, the first is the lowest."
            }
            div class="groups one" { (group("Loss, nats a token", &bars, full, 3)) }
        }
    }
}

fn pictures(pictures: &[CaptionedPicture]) -> Markup {
    html! {
        section id="captions" {
            h2 { "Captions of held-out pictures" }
            p {
                "Above, the picture's true name; below, what the model wrote. A green edge marks a caption that is the name \
                 word for word."
            }
            div class="figures" { @for picture in pictures { (figure(picture)) } }
        }
    }
}

fn figure(picture: &CaptionedPicture) -> Markup {
    let written = picture.written.trim();
    let is_right = written.eq_ignore_ascii_case(picture.name.trim());
    html! {
        figure class=[is_right.then_some("right")] {
            img src={ "data:" (picture.media_type) ";base64," (STANDARD.encode(&picture.bytes)) } alt=(picture.name)
                width="80" height="80";
            figcaption {
                b { (picture.name) }
                span { @if written.is_empty() { "(nothing)" } @else { (written) } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
