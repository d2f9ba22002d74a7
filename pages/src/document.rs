//! What all pages are made of: the document around them, headline numbers, names with values.

use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = include_str!("style.css");

/// A page that needs nothing beside it.
pub fn document(title: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { main { (body) } }
        }
    };
    page.into_string()
}

/// Names with their values.
pub fn facts<'a>(named: impl Iterator<Item = (&'a str, &'a str)>) -> Markup {
    html! {
        dl class="facts" {
            @for (name, value) in named {
                div { dt { (name) } dd { (value) } }
            }
        }
    }
}

/// A headline number.
pub fn tile(label: &str, value: &str, note: &str) -> Markup {
    html! {
        div class="tile" { span { (label) } strong { (value) } small { (note) } }
    }
}
