//! The page of `eval score --report`: scores, then the worst cases.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blip2_pages::bars::{Bar, group as bar_group};
use blip2_pages::document::{document, facts, tile};
use maud::{Markup, html};

use super::references::{Case, Judged};
use super::summary::{Score, Summary, shown};

/// Cases that are shown.
const CASES: usize = 200;
/// Characters shown of a text.
const CHARACTERS: usize = 400;

/// The page.
pub(in crate::commands::eval) fn render(
    summary: &Summary,
    results: &Judged,
    against: Option<&Judged>,
) -> String {
    let title = format!("Scores: {}", summary.files.task);
    let body = html! {
        (headline(&title, summary))
        section id="scores" {
            h2 { "Scores" }
            @if summary.draws > 0 {
                p {
                    "Behind a score the middle 95 % of its values over " (summary.draws) " draws of the "
                    (summary.images) " images, with replacement."
                }
            }
            (facts(summary.scores.iter().map(named).collect::<Vec<_>>().iter().map(|(name, value)| (name.as_str(), value.as_str()))))
            div class="groups" { (parts(summary)) }
        }
        section id="worst" {
            h2 { "Worst first" }
            (worst(results, against))
        }
    };
    document(&title, &body)
}

fn headline(title: &str, summary: &Summary) -> Markup {
    let overall: Vec<&Score> = summary.scores.iter().filter(|score| score.kind.is_none()).collect();
    let shown_first = if overall.is_empty() { summary.scores.iter().collect() } else { overall };
    html! {
        header {
            h1 { (title) }
            p { (summary.files.results) " by " (summary.files.references) }
            @if let Some(mode) = &summary.files.mode { p { "Accuracy as of " (mode) "." } }
            @for note in &summary.notes { p class="note" { (note) } }
            div class="tiles" {
                @for score in shown_first { (tile(&score.label(), &format!("{:.2}", score.score), &shown(score.interval))) }
            }
        }
    }
}

/// A score's name, and it with its interval and what it is compared with.
fn named(score: &Score) -> (String, String) {
    let mut value = format!("{:.2}", score.score);
    if score.interval.is_some() {
        value += &format!(" ({})", shown(score.interval));
    }
    if let Some(against) = &score.against {
        value += &format!("; {:+.2} against {:.2}", against.difference, against.score);
        if against.interval.is_some() {
            value += &format!(" ({})", shown(against.interval));
        }
    }
    (score.label(), format!("{value}; {} items", score.items))
}

/// Bars of the scores of each kind of part.
fn parts(summary: &Summary) -> Markup {
    let mut kinds: BTreeMap<&str, Vec<(String, f64)>> = BTreeMap::new();
    for score in &summary.scores {
        if let (Some(kind), Some(part)) = (score.kind, &score.part) {
            let label =
                if score.name == "accuracy" { part.clone() } else { format!("{}, {part}", score.name) };
            kinds.entry(kind).or_default().push((label, score.score));
        }
    }
    let group = |kind: &str, scores: &[(String, f64)]| {
        let bars = scores.iter().map(|(label, value)| Bar { label, value: *value, kind: "ours" });
        bar_group(kind, &bars.collect::<Vec<_>>(), 100.0, 2)
    };
    html! { @for (kind, scores) in &kinds { (group(kind, scores)) } }
}

/// The cases that are shown, from the worst; of equals the first stays first.
pub(in crate::commands::eval) fn worst_first(cases: &[Case]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..cases.len()).collect();
    order.sort_by(|first, second| cases[*first].order.total_cmp(&cases[*second].order));
    order.truncate(CASES);
    order
}

fn worst(results: &Judged, against: Option<&Judged>) -> Markup {
    let order = worst_first(&results.cases);
    let other = |index: usize| against.and_then(|against| against.cases.get(index));
    html! {
        p { (order.len()) " of " (results.cases.len()) ", from the worst." }
        div class="figures" {
            @for index in order { (figure(&results.cases[index], other(index))) }
        }
    }
}

fn figure(case: &Case, other: Option<&Case>) -> Markup {
    html! {
        figure {
            @if let Some(image) = &case.thumbnail {
                img src={ "data:image/jpeg;base64," (STANDARD.encode(image)) } alt="" style="max-width:100%";
            }
            figcaption {
                b { (case.score) ": " bdi { (cut(&case.key)) } }
                @if let Some(asked) = &case.asked { bdi { (cut(asked)) } }
                // A text's own direction marks end with it.
                span { @if case.given.is_empty() { "(nothing)" } @else { bdi { (cut(&case.given)) } } }
                b { "right: " bdi { (cut(&case.expected)) } }
                @if let Some(other) = other { b { "against, " (other.score) ": " bdi { (cut(&other.given)) } } }
            }
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(CHARACTERS).collect()
}
