//! The contact sheet's page and its histograms.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blip2_dataset::corpus::survey::{Survey, SurveyedImage};
use blip2_pages::document::{document, facts};
use blip2_pages::histogram::Histogram;
use maud::{Markup, html};

/// Captions shown of a picture.
const CAPTIONS: usize = 5;
/// Characters shown of a caption.
const CAPTION_CHARACTERS: usize = 200;
/// Unusable rows that are listed.
const LISTED: usize = 50;

/// The distributions of what was read.
pub(super) fn histograms(seen: &Survey) -> Vec<Histogram> {
    let short = seen.sizes.iter().map(|(width, height)| f64::from(*width.min(height)));
    let aspect = seen.sizes.iter().map(|(width, height)| f64::from(*width) / f64::from((*height).max(1)));
    let kilobytes = seen.bytes.iter().map(|bytes| *bytes as f64 / 1e3);
    let words = seen.caption_words.iter().map(|words| *words as f64);
    let captions = seen.captions_a_row.iter().map(|captions| *captions as f64);
    let sides = [64.0, 128.0, 224.0, 256.0, 364.0, 512.0, 768.0, 1024.0, 2048.0];
    let ratios = [0.33, 0.5, 0.66, 0.75, 0.9, 1.1, 1.34, 1.5, 2.0, 3.0];
    let sizes = [2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];
    let lengths = [1.0, 3.0, 5.0, 8.0, 12.0, 16.0, 24.0, 32.0, 50.0];
    vec![
        Histogram::new("short_side", "Shorter side, pixels", &sides, short),
        Histogram::new("aspect", "Width over height", &ratios, aspect),
        Histogram::new("kilobytes", "Encoded picture, kB", &sizes, kilobytes),
        Histogram::new("caption_words", "Words of a caption", &lengths, words),
        Histogram::new("captions", "Captions of a row", &[1.0, 2.0, 3.0, 5.0, 6.0, 10.0, 50.0], captions),
    ]
}

/// The page.
pub(super) fn render(seen: &Survey, distributions: &[Histogram]) -> String {
    let read = seen.sizes.len() + seen.unusable.len();
    let body = html! {
        header {
            h1 { "Corpus" }
            p {
                (seen.rows) " rows in " (seen.row_groups) " row groups of " (seen.files) " files; " (read) " rows were read."
            }
        }
        section id="distributions" {
            h2 { "Distributions" }
            div class="groups" { @for histogram in distributions { (histogram.render()) } }
        }
        section id="unusable" {
            h2 { "Rows that cannot be used: " (seen.unusable.len()) }
            @if !seen.unusable.is_empty() {
                (facts(seen.unusable.iter().take(LISTED).map(|row| (row.key.as_str(), row.reason.as_str()))))
            }
        }
        section id="pictures" {
            h2 { "Pictures" }
            div class="figures" { @for shown in &seen.images { (figure(shown)) } }
        }
    };
    document("Corpus", &body)
}

fn figure(shown: &SurveyedImage) -> Markup {
    let cut = |caption: &str| caption.chars().take(CAPTION_CHARACTERS).collect::<String>();
    html! {
        figure {
            img src={ "data:image/jpeg;base64," (STANDARD.encode(&shown.thumbnail)) } alt="" style="max-width:100%";
            figcaption {
                // A caption's own direction marks end with it.
                @for caption in shown.captions.iter().take(CAPTIONS) { span { bdi { (cut(caption)) } } }
                @if shown.captions.len() > CAPTIONS { b { "and " (shown.captions.len() - CAPTIONS) " more" } }
                b { (shown.key) " · " (shown.width) "×" (shown.height) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use blip2_dataset::corpus::survey::UnusableRow;

    fn sample() -> Survey {
        Survey {
            files: 1,
            row_groups: 2,
            rows: 9,
            not_downloaded: 0,
            sizes: vec![(500, 375), (64, 4096)],
            bytes: vec![20_000, 1],
            caption_words: vec![0, 3, 7],
            captions_a_row: vec![1, 2],
            unusable: vec![UnusableRow { file: "a".into(), key: "<k>".into(), reason: "no <text>".into() }],
            images: vec![SurveyedImage {
                key: "k\"1".into(),
                captions: vec!["\u{202e}<script>".into(); 7],
                width: 500,
                height: 375,
                thumbnail: vec![0xff, 0xd8].into(),
            }],
        }
    }

    #[test]
    fn values_fall_between_the_right_bounds() {
        let histogram = Histogram::new("x", "X", &[1.0, 2.0], [0.5, 1.0, 1.9, 2.0, 9.0].into_iter());
        let expected = [("< 1", 1), ("1 – 2", 2), ("≥ 2", 2)].map(|(label, count)| (label.to_owned(), count));
        assert_eq!(histogram.bars, expected);
        for histogram in histograms(&sample()) {
            let values = if histogram.name == "caption_words" { 3 } else { 2 };
            assert_eq!(histogram.bars.iter().map(|(_, count)| count).sum::<u64>(), values);
        }
    }

    #[test]
    fn nothing_of_the_corpus_is_markup() {
        let survey = sample();
        let html = render(&survey, &histograms(&survey));
        assert!(html.contains("<section id=\"pictures\">") && html.contains("and 2 more"));
        assert!(html.contains("<bdi>\u{202e}&lt;script&gt;</bdi>") && !html.contains("<script>"));
        assert!(html.contains("no &lt;text&gt;") && html.contains("k&quot;1"));
        assert!(!html.contains("http"), "no outside reference");
    }
}
