//! The contact sheet's page and its histograms.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blip2_dataset::corpus::survey::{Survey, SurveyedImage};

use crate::report::{Histogram, document, escape};

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
    let mut body = format!(
        "<header><h1>Corpus</h1><p>{} rows in {} row groups of {} files; {read} rows were read.</p></header>\n",
        seen.rows, seen.row_groups, seen.files
    );
    body.push_str("<section id=\"distributions\"><h2>Distributions</h2><div class=\"groups\">");
    for histogram in distributions {
        body.push_str(&histogram.render());
    }
    body.push_str("</div></section>\n");
    body.push_str(&unusable(seen));
    body.push_str("<section id=\"pictures\"><h2>Pictures</h2><div class=\"figures\">\n");
    for picture in &seen.images {
        body.push_str(&figure(picture));
    }
    body.push_str("</div></section>\n");
    document("Corpus", &body)
}

fn unusable(seen: &Survey) -> String {
    let mut html =
        format!("<section id=\"unusable\"><h2>Rows that cannot be used: {}</h2>", seen.unusable.len());
    if !seen.unusable.is_empty() {
        html.push_str("<dl class=\"facts\">");
        for row in seen.unusable.iter().take(LISTED) {
            // Writing to a String cannot fail.
            let _ = write!(html, "<div><dt>{}</dt><dd>{}</dd></div>", escape(&row.key), escape(&row.reason));
        }
        html.push_str("</dl>");
    }
    html + "</section>\n"
}

fn figure(picture: &SurveyedImage) -> String {
    let mut captions = String::new();
    for caption in picture.captions.iter().take(CAPTIONS) {
        let cut: String = caption.chars().take(CAPTION_CHARACTERS).collect();
        // A caption's own direction marks end with it.
        let _ = write!(captions, "<span><bdi>{}</bdi></span>", escape(&cut));
    }
    if picture.captions.len() > CAPTIONS {
        let _ = write!(captions, "<b>and {} more</b>", picture.captions.len() - CAPTIONS);
    }
    format!(
        "<figure><img src=\"data:image/jpeg;base64,{}\" alt=\"\" style=\"max-width:100%\">\
         <figcaption>{captions}<b>{} · {}×{}</b></figcaption></figure>\n",
        STANDARD.encode(&picture.thumbnail),
        escape(&picture.key),
        picture.width,
        picture.height
    )
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
