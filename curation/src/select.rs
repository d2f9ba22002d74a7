//! Which texts of an image are kept: a function of their scores and the settings alone.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use blip2_dataset::error::{DatasetError, Result};
use blip2_dataset::text::{MAX_CAPTION_WORDS, clean_caption};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rules::{BrokenRule, RuleSettings};
use crate::scored::ScoredText;

/// How texts are judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CurationMode {
    /// BLIP-2's: by CLIP's similarity, the best of each image.
    #[default]
    Rank,
    /// BLIP's CapFilt: each text by itself, by the probability that it matches.
    Filter,
}

/// What is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SelectionSettings {
    /// `rank`: the texts most similar to the image, by CLIP; `filter`: all texts that match it, by BLIP's
    /// filter (the ITM head).
    pub mode: CurationMode,
    /// Texts of an image that `rank` keeps.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub top: usize,
    /// `rank` keeps no text of a smaller cosine.
    #[schemars(range(min = -1.0, max = 1.0))]
    pub min_clip_score: f32,
    /// `filter` keeps texts whose probability to match is larger.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_itm_score: f32,
    /// Rules that look at a text alone.
    pub rules: RuleSettings,
}

impl Default for SelectionSettings {
    fn default() -> Self {
        Self {
            mode: CurationMode::default(),
            top: 2,
            min_clip_score: -1.0,
            min_itm_score: 0.5,
            rules: RuleSettings::default(),
        }
    }
}

impl SelectionSettings {
    /// # Errors
    /// [`DatasetError::Setting`].
    pub fn validate(&self) -> Result<()> {
        let bad = |text: &str| Err(DatasetError::Setting(text.to_owned()));
        if self.top == 0 {
            return bad("curation.selection.top: at least 1");
        }
        if !(-1.0..=1.0).contains(&self.min_clip_score) {
            return bad("curation.selection.min_clip_score: between -1 and 1");
        }
        if !(0.0..=1.0).contains(&self.min_itm_score) {
            return bad("curation.selection.min_itm_score: between 0 and 1");
        }
        if !(self.rules.max_word_share > 0.0 && self.rules.max_word_share <= 1.0) {
            return bad("curation.selection.rules.max_word_share: above 0, at most 1");
        }
        if self.rules.min_words > self.rules.max_words {
            return bad("curation.selection.rules: min_words is more than max_words");
        }
        Ok(())
    }

    /// The score that decides.
    fn score(&self, text: &ScoredText) -> Option<f32> {
        match self.mode {
            CurationMode::Rank => text.clip_score,
            CurationMode::Filter => text.itm_score,
        }
    }
}

/// Why a text is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// It breaks a rule.
    Rule(BrokenRule),
    /// A text before it is the same, once both are cleaned.
    SameText,
    /// It was not scored by the model that decides.
    NotScored,
    /// Its score is not a finite number.
    NoNumber,
    /// Its score is too low.
    LowScore,
    /// Enough others are better.
    Rank,
}

impl DropReason {
    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rule(rule) => rule.name(),
            Self::SameText => "same-text",
            Self::NotScored => "not-scored",
            Self::NoNumber => "no-number",
            Self::LowScore => "low-score",
            Self::Rank => "rank",
        }
    }
}

/// A text with what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgedText {
    /// The text.
    pub text: ScoredText,
    /// Why it is not kept; `None`: it is.
    pub dropped: Option<DropReason>,
}

/// Judges the texts of one image; the result is ordered by the score that decides, best first. Of equal
/// scores a text of the web comes first, then the one that was written first. What is kept need not come
/// before what is dropped: a rule may drop the best.
pub fn select(texts: &[ScoredText], settings: &SelectionSettings) -> Vec<JudgedText> {
    let mut ordered: Vec<(usize, &ScoredText)> = texts.iter().enumerate().collect();
    ordered.sort_by(|(a_index, a), (b_index, b)| {
        let better = match (settings.score(a), settings.score(b)) {
            (Some(a), Some(b)) if a.is_finite() && b.is_finite() => b.total_cmp(&a),
            (Some(a), Some(b)) => b.is_finite().cmp(&a.is_finite()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        };
        better.then(a.source.cmp(&b.source)).then(a_index.cmp(b_index))
    });
    let mut seen = BTreeSet::new();
    let mut kept = 0;
    let mut judge = |text: &ScoredText| {
        if let Some(rule) = settings.rules.broken_by(&text.text) {
            return Some(DropReason::Rule(rule));
        }
        if !seen.insert(clean_caption(&text.text, MAX_CAPTION_WORDS)) {
            return Some(DropReason::SameText);
        }
        let Some(score) = settings.score(text) else { return Some(DropReason::NotScored) };
        if !score.is_finite() {
            return Some(DropReason::NoNumber);
        }
        let low = match settings.mode {
            CurationMode::Rank => score < settings.min_clip_score,
            CurationMode::Filter => score <= settings.min_itm_score,
        };
        if low {
            return Some(DropReason::LowScore);
        }
        if settings.mode == CurationMode::Rank && kept == settings.top {
            return Some(DropReason::Rank);
        }
        kept += 1;
        None
    };
    ordered.into_iter().map(|(_, text)| JudgedText { text: text.clone(), dropped: judge(text) }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scored::TextSource;

    fn text(text: &str, source: TextSource, clip: f32, itm: f32) -> ScoredText {
        ScoredText { text: text.into(), source, clip_score: Some(clip), itm_score: Some(itm) }
    }

    fn judged(texts: &[JudgedText]) -> Vec<(&str, Option<&'static str>)> {
        texts.iter().map(|judged| (judged.text.text.as_str(), judged.dropped.map(DropReason::name))).collect()
    }

    fn texts() -> Vec<ScoredText> {
        use TextSource::{Synthetic, Web};
        vec![
            text("click to enlarge", Web, 0.9, 0.9),
            text("a cat", Synthetic, 0.3, 0.2),
            text("a black cat", Synthetic, 0.5, 0.7),
            text("a cat", Synthetic, 0.3, 0.2),
            text("a dog", Synthetic, 0.1, 0.5),
            ScoredText { clip_score: None, itm_score: None, ..text("a hat", Synthetic, 0.0, 0.0) },
        ]
    }

    #[test]
    fn the_most_similar_are_kept() {
        let settings = SelectionSettings::default();
        let found = select(&texts(), &settings);
        assert_eq!(
            judged(&found),
            [
                ("click to enlarge", Some("boilerplate")),
                ("a black cat", None),
                ("a cat", None),
                ("a cat", Some("same-text")),
                ("a dog", Some("rank")),
                ("a hat", Some("not-scored")),
            ]
        );
        let strict = SelectionSettings { min_clip_score: 0.4, ..settings };
        let kept = select(&texts(), &strict);
        assert_eq!(kept.iter().filter(|judged| judged.dropped.is_none()).count(), 1);
        assert_eq!(judged(&kept)[2], ("a cat", Some("low-score")));
    }

    #[test]
    fn a_filter_looks_at_each_text_by_itself() {
        let settings = SelectionSettings { mode: CurationMode::Filter, ..SelectionSettings::default() };
        let found = select(&texts(), &settings);
        assert_eq!(judged(&found)[1], ("a black cat", None));
        // Exactly one half is no match, as the larger logit decides.
        assert_eq!(judged(&found)[2], ("a dog", Some("low-score")));
        assert_eq!(found.iter().filter(|judged| judged.dropped.is_none()).count(), 1);
    }

    #[test]
    fn of_equal_scores_the_text_of_the_web_is_first() {
        let equal = [
            text("written", TextSource::Synthetic, 0.5, 0.5),
            text("found", TextSource::Web, 0.5, 0.5),
            text("written later", TextSource::Synthetic, 0.5, 0.5),
        ];
        let found = select(&equal, &SelectionSettings::default());
        assert_eq!(judged(&found), [("found", None), ("written", None), ("written later", Some("rank"))]);
        let odd = |score| text("odd", TextSource::Web, score, score);
        for score in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let texts = [odd(score), text("found", TextSource::Web, 0.6, 0.6)];
            for mode in [CurationMode::Rank, CurationMode::Filter] {
                let found = select(&texts, &SelectionSettings { mode, ..SelectionSettings::default() });
                assert_eq!(judged(&found), [("found", None), ("odd", Some("no-number"))], "{score}");
            }
        }
    }

    /// Texts of few words, so that some repeat each other, with scores of all kinds.
    fn some_texts() -> impl Strategy<Value = Vec<ScoredText>> {
        let score = prop::option::of(prop_oneof![9 => -1.0..1.0_f32, 1 => Just(f32::NAN)]);
        let words = prop::sample::select(vec!["a cat", "A cat.", "a dog", "two dogs", "click here", "a"]);
        let source = prop::sample::select(vec![TextSource::Web, TextSource::Synthetic]);
        let one = (words, source, score.clone(), score).prop_map(|(text, source, clip_score, itm_score)| {
            ScoredText { text: text.to_owned(), source, clip_score, itm_score }
        });
        prop::collection::vec(one, 0..12)
    }

    proptest! {
        /// Nothing is lost; what is kept is distinct, good enough and no more than asked for, and nothing
        /// better that is sound was left behind.
        #[test]
        fn the_best_sound_texts_are_kept(
            texts in some_texts(), top in 1..5_usize, least in -0.5..0.5_f32,
            mode in prop::sample::select(vec![CurationMode::Rank, CurationMode::Filter]),
        ) {
            let least_match = least.abs();
            let settings = SelectionSettings {
                mode, top, min_clip_score: least, min_itm_score: least_match, ..SelectionSettings::default()
            };
            let judged = select(&texts, &settings);
            let shown = |text: &ScoredText| format!("{text:?}");
            let (mut before, mut after): (Vec<_>, Vec<_>) =
                (texts.iter().map(shown).collect(), judged.iter().map(|judged| shown(&judged.text)).collect());
            before.sort();
            after.sort();
            prop_assert_eq!(before, after);

            let kept: Vec<&ScoredText> =
                judged.iter().filter(|judged| judged.dropped.is_none()).map(|judged| &judged.text).collect();
            let cleaned: BTreeSet<String> =
                kept.iter().map(|text| clean_caption(&text.text, MAX_CAPTION_WORDS)).collect();
            prop_assert_eq!(cleaned.len(), kept.len());
            let scores: Vec<f32> = kept.iter().filter_map(|text| settings.score(text)).collect();
            prop_assert_eq!(scores.len(), kept.len());
            prop_assert!(scores.is_sorted_by(|a, b| a >= b));
            match mode {
                CurationMode::Rank => prop_assert!(kept.len() <= top && scores.iter().all(|score| *score >= least)),
                CurationMode::Filter => prop_assert!(scores.iter().all(|score| *score > least_match)),
            }
            let worst = scores.last().copied().unwrap_or(f32::INFINITY);
            for left in judged.iter().filter(|judged| judged.dropped == Some(DropReason::Rank)) {
                prop_assert!(kept.len() == top && settings.score(&left.text).is_some_and(|score| score <= worst));
            }
        }
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let mut settings = SelectionSettings { top: 0, ..SelectionSettings::default() };
        assert!(settings.validate().unwrap_err().to_string().contains("selection.top"));
        settings = SelectionSettings { min_itm_score: f32::NAN, ..SelectionSettings::default() };
        assert!(settings.validate().is_err());
        assert!(SelectionSettings::default().validate().is_ok());
    }
}
