//! Horizontal bars with their numbers, in HTML and CSS alone.

use maud::{Markup, html};

/// One bar.
#[derive(Debug, Clone)]
pub struct Bar<'a> {
    /// What it is of.
    pub label: &'a str,
    /// How long it is.
    pub value: f64,
    /// CSS class that colours it: `ours`, `other` or `floor`.
    pub kind: &'static str,
}

/// A titled group of bars on a scale from 0 to `full`, numbers with `decimals` places.
pub fn group(title: &str, bars: &[Bar<'_>], full: f64, decimals: usize) -> Markup {
    let share = |value: f64| if full > 0.0 { (value / full).clamp(0.0, 1.0) * 100.0 } else { 0.0 };
    html! {
        section class="bars" {
            h3 { (title) }
            dl {
                @for Bar { label, value, kind } in bars {
                    div class=(kind) {
                        dt { (label) }
                        dd {
                            i style=(format!("width:{:.2}%", share(*value))) {}
                            b { (format!("{value:.decimals$}")) }
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
    fn bars_are_scaled_and_never_leave_their_box() {
        let bar = |value| Bar { label: "a<b", value, kind: "ours" };
        let html = group("R@5", &[bar(0.25), bar(7.0), bar(f64::NAN)], 0.5, 3).into_string();
        assert!(html.contains("width:50.00%") && html.contains("width:100.00%"), "{html}");
        assert!(html.contains("0.250") && html.contains("a&lt;b"), "{html}");
    }
}
