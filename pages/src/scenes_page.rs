//! The page of the quick start on scenes: what was trained on what, and how much of what it says is right.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, html};

use crate::bars::{Bar, group};
use crate::chart::{Series, loss_curves};
use crate::document::{document, facts, tile};
use crate::quickstart_page::{CaptionLosses, RetrievalScores};

/// All that the page shows.
#[derive(Debug, Clone, Default)]
pub struct ScenesReport {
    /// Trained parts and what each read, in the order shown.
    pub trained: Vec<(String, String)>,
    /// How many captions are right: of all held-out combinations first, then of parts of them and of others.
    pub shares: Vec<CaptionShares>,
    /// Images with what the model wrote, as many as are shown.
    pub captions: Vec<CaptionedScene>,
    /// Captions found for held-out combinations.
    pub retrieval: RetrievalScores,
    /// Absent where no stage writes captions.
    pub caption_losses: Option<CaptionLosses>,
    /// Absent where nothing was asked.
    pub answers: Option<Answers>,
    /// Where the queries look.
    pub attention: Vec<AttendedScene>,
    /// For each stage its title, and the losses of every step.
    pub stages: Vec<(String, Vec<Series>)>,
    /// What the audit of the run says.
    pub audit: String,
    /// Name and value, in the order shown.
    pub facts: Vec<(String, String)>,
}

/// How many of some captions are right.
#[derive(Debug, Clone, PartialEq)]
pub struct CaptionShares {
    /// What is captioned.
    pub of: String,
    /// How many.
    pub count: usize,
    /// Share of captions that are wholly right, 0 to 1.
    pub whole: f64,
    /// Share of captions that name the right things, 0 to 1.
    pub things: f64,
}

/// A held-out image with its true caption and the one that was written.
#[derive(Debug, Clone)]
pub struct CaptionedScene {
    /// A PNG.
    pub png: Vec<u8>,
    /// What is true of it.
    pub caption: String,
    /// What the model wrote.
    pub written: String,
    /// Whether that is true as well.
    pub is_right: bool,
    /// Whether it names the right things at least.
    pub has_right_things: bool,
}

/// Answers to questions on held-out images.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// Share of right answers, 0 to 1.
    pub right: f64,
    /// The same where each question is asked of another question's image.
    pub shuffled: f64,
    /// Questions.
    pub questions: usize,
    /// Questions with their answers, as many as are shown.
    pub shown: Vec<AnsweredQuestion>,
}

/// A question on an image and its answers.
#[derive(Debug, Clone)]
pub struct AnsweredQuestion {
    /// A PNG.
    pub png: Vec<u8>,
    /// What was asked.
    pub question: String,
    /// The right answer.
    pub answer: String,
    /// What the model wrote.
    pub written: String,
}

/// An image, and the same image once for each query with what the query looks at left bright.
#[derive(Debug, Clone)]
pub struct AttendedScene {
    /// What is true of it.
    pub caption: String,
    /// A PNG.
    pub png: Vec<u8>,
    /// A PNG for each query.
    pub queries: Vec<Vec<u8>>,
}

/// The whole page as one HTML document.
pub fn render(report: &ScenesReport) -> String {
    let body = html! {
        (headline(report))
        (captions(report))
        @if let Some(answers) = &report.answers { (questions(answers)) }
        (attention(&report.attention))
        (retrieval(&report.retrieval))
        @if let Some(losses) = &report.caption_losses { (caption_losses(losses)) }
        (loss_curves(&report.stages))
        section id="facts" {
            h2 { "The run" }
            @if !report.audit.is_empty() { p { "Audit of the run: " (report.audit) } }
            (facts(report.facts.iter().map(|(name, value)| (name.as_str(), value.as_str()))))
        }
    };
    document("BLIP-2 learns to say what it sees", &body)
}

fn headline(report: &ScenesReport) -> Markup {
    let combinations = report.shares.first();
    let time = report.facts.iter().find(|(name, _)| name == "Time");
    html! {
        header {
            h1 { "BLIP-2 learns to say what it sees" }
            p {
                "Small scenes: one to three things, how many, where they stand, on which colour. A Q-Former was trained \
                 between a frozen image encoder and a frozen language model, and is asked about scenes with combinations \
                 that no training image shows. Whether a caption is right is decided by a parser: every word of number, \
                 place and colour counts."
            }
            div class="tiles" {
                @if let Some(shares) = combinations {
                    (tile("Captions wholly right", &percent(shares.whole), &format!("of {} held-out combinations", shares.count)))
                    (tile("All things right", &percent(shares.things), "the same captions"))
                }
                @if let Some(answers) = &report.answers {
                    (tile(
                        "Questions answered rightly",
                        &percent(answers.right),
                        &format!("{} when asked of other images", percent(answers.shuffled)),
                    ))
                }
                (tile(
                    "Right caption found first",
                    &percent(report.retrieval.ours[0]),
                    &format!("among {}; {} by chance", report.retrieval.names, percent(report.retrieval.chance[0])),
                ))
                @if let Some((name, value)) = time { (tile(name, value, "all of it, on this machine")) }
            }
            h3 { "What was trained on what" }
            (facts(report.trained.iter().map(|(name, value)| (name.as_str(), value.as_str()))))
        }
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn captions(report: &ScenesReport) -> Markup {
    html! {
        section id="captions" {
            h2 { "Captions of held-out combinations" }
            p {
                "Above what is true, below what the model wrote, the likeliest word each time. A green edge marks a caption \
                 that is wholly right, in whichever order it tells it; a red one, a caption that names a wrong thing."
            }
            div class="figures" { @for scene in &report.captions { (figure(scene)) } }
            @if !report.shares.is_empty() {
                h3 { "How many are right" }
                table {
                    thead { tr { th { "Captions of" } th { "images" } th { "wholly right" } th { "all things right" } } }
                    tbody {
                        @for CaptionShares { of, count, whole, things } in &report.shares {
                            tr { td { (of) } td { (count) } td { (percent(*whole)) } td { (percent(*things)) } }
                        }
                    }
                }
            }
        }
    }
}

fn figure(scene: &CaptionedScene) -> Markup {
    let class = match (scene.is_right, scene.has_right_things) {
        (true, _) => Some("right"),
        (false, true) => None,
        (false, false) => Some("wrong"),
    };
    html! {
        figure class=[class] {
            (image(&scene.png, &scene.caption))
            figcaption {
                b { (scene.caption) }
                span { @if scene.is_right { "✓ " } @else { "✗ " } (said(&scene.written)) }
            }
        }
    }
}

fn image(png: &[u8], alt: &str) -> Markup {
    html! { img src={ "data:image/png;base64," (STANDARD.encode(png)) } alt=(alt) width="112" height="112"; }
}

fn said(written: &str) -> &str {
    if written.is_empty() { "(nothing)" } else { written }
}

fn questions(answers: &Answers) -> Markup {
    let bars = [
        Bar { label: "with its image", value: answers.right * 100.0, kind: "ours" },
        Bar { label: "with another image", value: answers.shuffled * 100.0, kind: "floor" },
    ];
    html! {
        section id="answers" {
            h2 { "Answers to questions" }
            p {
                "After fine-tuning on questions of the training scenes: " (answers.questions) " questions on held-out \
                 combinations. Asked of other questions' images, only what can be guessed without looking is left."
            }
            div class="groups one" { (group("Right answers, %", &bars, 100.0, 1)) }
            div class="figures" {
                @for asked in &answers.shown {
                    @let is_right = asked.written == asked.answer;
                    figure class=(if is_right { "right" } else { "wrong" }) {
                        (image(&asked.png, &asked.question))
                        figcaption {
                            b { (asked.question) }
                            span {
                                @if is_right { "✓ " } @else { "✗ " }
                                (said(&asked.written))
                                @if !is_right { " (it is: " (asked.answer) ")" }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn attention(scenes: &[AttendedScene]) -> Markup {
    html! {
        @if !scenes.is_empty() {
            section id="attention" {
                h2 { "Where the queries look" }
                p {
                    "The image, then once for each query: bright is what the query attends to, mean of the heads of the last \
                     layer that sees the image."
                }
                @for scene in scenes {
                    h3 { (scene.caption) }
                    div class="strip" {
                        (image(&scene.png, &scene.caption))
                        @for (query, png) in scene.queries.iter().enumerate() {
                            (image(png, &format!("query {}", query + 1)))
                        }
                    }
                }
            }
        }
    }
}

fn retrieval(scores: &RetrievalScores) -> Markup {
    let bars = |index: usize| {
        [
            Bar { label: "this run", value: scores.ours[index], kind: "ours" },
            Bar { label: "chance", value: scores.chance[index], kind: "floor" },
        ]
    };
    html! {
        section id="retrieval" {
            h2 { "Retrieval of captions" }
            p {
                "For each of " (scores.pictures) " held-out images " (scores.names) " captions are ranked by the first stage's \
                 contrastive similarity; R@k is the share of images whose own caption is among the first k."
            }
            div class="groups" {
                @for (index, rank) in [1, 5, 10].into_iter().enumerate() {
                    (group(&format!("R@{rank}"), &bars(index), 1.0, 3))
                }
            }
        }
    }
}

fn caption_losses(losses: &CaptionLosses) -> Markup {
    let bars = [
        Bar { label: "with its image", value: losses.with_images, kind: "ours" },
        Bar { label: "with another image", value: losses.shuffled, kind: "other" },
        Bar { label: "language model alone", value: losses.language_model, kind: "floor" },
    ];
    let full = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    html! {
        section id="caption-loss" {
            h2 { "Are the images used?" }
            p { "The loss of held-out captions given their image, given another caption's image, and given none." }
            div class="groups one" { (group("Loss, nats a token", &bars, full, 3)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene(written: &str, is_right: bool, has_right_things: bool) -> CaptionedScene {
        let (png, caption) = (vec![0x89, b'P'], "two <cats> on green".to_owned());
        CaptionedScene { png, caption, written: written.to_owned(), is_right, has_right_things }
    }

    fn sample() -> ScenesReport {
        let line = |name: &str| Series { name: name.to_owned(), points: vec![(0, 2.0), (1, 1.0)] };
        let asked = |answer: &str, written: &str| AnsweredQuestion {
            png: vec![1],
            question: "how many cats?".to_owned(),
            answer: answer.to_owned(),
            written: written.to_owned(),
        };
        ScenesReport {
            trained: vec![("Image encoder".to_owned(), "scenes".to_owned())],
            shares: vec![CaptionShares { of: "all".to_owned(), count: 500, whole: 0.625, things: 0.875 }],
            captions: vec![
                scene("two cats on green", true, true),
                scene("a cat on green", false, true),
                scene("", false, false),
            ],
            retrieval: RetrievalScores {
                ours: [0.5, 0.8, 0.9],
                clip: None,
                chance: [0.002, 0.01, 0.02],
                names: 500,
                pictures: 500,
            },
            caption_losses: Some(CaptionLosses { with_images: 0.2, shuffled: 2.9, language_model: 3.4 }),
            answers: Some(Answers {
                right: 0.9,
                shuffled: 0.4,
                questions: 500,
                shown: vec![asked("2", "2"), asked("3", "2")],
            }),
            attention: vec![AttendedScene {
                caption: "a cat".to_owned(),
                png: vec![1],
                queries: vec![vec![2]; 8],
            }],
            stages: vec![("Stage 1".into(), vec![line("itc")])],
            audit: "exact".to_owned(),
            facts: vec![("Time".to_owned(), "9 min".to_owned())],
        }
    }

    #[test]
    fn the_page_has_all_parts_and_needs_nothing_beside_it() {
        let html = render(&sample());
        for part in ["captions", "answers", "attention", "retrieval", "caption-loss", "curves", "facts"] {
            assert!(html.contains(&format!("<section id=\"{part}\">")), "{part}");
        }
        assert!(!html.contains("http://") && !html.contains("https://"), "no outside reference");
        assert!(html.contains("two &lt;cats&gt;") && !html.contains("<cats>"));
        assert!(
            html.contains("62.5 %") && html.contains("87.5 %") && html.contains("Audit of the run: exact")
        );
    }

    #[test]
    fn right_and_wrong_are_marked() {
        let html = render(&sample());
        assert_eq!(html.matches("<figure class=\"right\">").count(), 2, "a caption and an answer");
        assert_eq!(html.matches("<figure class=\"wrong\">").count(), 2, "a caption and an answer");
        assert_eq!(html.matches("<figure>").count(), 1, "right things alone");
        assert!(html.contains("(nothing)") && html.contains("(it is: 3)"));
        assert_eq!(html.matches("alt=\"query ").count(), 8);
    }

    #[test]
    fn parts_without_data_are_left_out_or_say_so() {
        let html = render(&ScenesReport::default());
        for part in ["answers", "attention", "caption-loss"] {
            assert!(!html.contains(&format!("id=\"{part}\"")), "{part}");
        }
        assert!(html.contains("no step was recorded"));
    }
}
