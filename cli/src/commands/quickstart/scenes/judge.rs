//! Captions of scenes against the grammar: what is right of them.

use std::collections::BTreeSet;

use blip2_dataset::corpus::samples::Sample;
use blip2_images::RgbImage;
use blip2_pages::scenes_page::CaptionShares;
use blip2_scenes::grammar::{parse, things_agree};
use blip2_scenes::scene::{Content, Scene};

use crate::error::CliError;

/// An image of a scene that is known.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub(super) scene: Scene,
    pub(super) sample: Sample,
}

/// What was written for it.
#[derive(Debug, Clone)]
pub(super) struct Judged {
    pub(super) shown: Shown,
    pub(super) written: String,
}

impl Shown {
    /// Samples whose captions tell their scenes, each scene once.
    pub(super) fn distinct(samples: Vec<Sample>) -> Result<Vec<Self>, CliError> {
        let mut met = BTreeSet::new();
        let mut shown = Vec::with_capacity(samples.len());
        for sample in samples {
            let caption = sample.captions.first().map_or("", String::as_str);
            let scene = parse(caption).ok_or_else(|| {
                CliError::failed(format!("`{caption}` of {} is no caption of a scene", sample.key))
            })?;
            if met.insert(scene) {
                shown.push(Self { scene, sample });
            }
        }
        Ok(shown)
    }

    pub(super) fn caption(&self) -> &str {
        self.sample.captions.first().map_or("", String::as_str)
    }

    pub(super) fn image(&self) -> &RgbImage {
        &self.sample.image
    }
}

impl Judged {
    /// Whether it describes the scene, in whichever of its sentences.
    pub(super) fn is_right(&self) -> bool {
        parse(&self.written) == Some(self.shown.scene)
    }

    /// Whether it names the scene's things and no others.
    pub(super) fn has_right_things(&self) -> bool {
        things_agree(&self.written, &self.shown.scene)
    }
}

/// How many captions of a set are right.
pub(super) fn shares<'a>(of: &str, judged: impl Iterator<Item = &'a Judged>) -> CaptionShares {
    let (mut count, mut whole, mut things) = (0, 0, 0);
    for judged in judged {
        count += 1;
        whole += usize::from(judged.is_right());
        things += usize::from(judged.has_right_things());
    }
    let share = |part: usize| if count == 0 { 0.0 } else { part as f64 / count as f64 };
    CaptionShares { of: of.to_owned(), count, whole: share(whole), things: share(things) }
}

/// The same of all, then of each kind of scene that is among them.
pub(super) fn shares_by_kind(of: &str, judged: &[Judged]) -> Vec<CaptionShares> {
    let kinds = ["of a kind", "two groups", "three things", "inside a shape"];
    let parts = kinds.into_iter().enumerate().map(|(number, kind)| {
        shares(&format!("– {kind}"), judged.iter().filter(|judged| kind_of(&judged.shown.scene) == number))
    });
    let all = shares(of, judged.iter());
    std::iter::once(all).chain(parts.filter(|shares| shares.count > 0)).collect()
}

fn kind_of(scene: &Scene) -> usize {
    match scene.content {
        Content::Group(_) => 0,
        Content::Pair { .. } => 1,
        Content::Corner { .. } => 2,
        Content::Inside { .. } => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(captions: &[&str]) -> Vec<Shown> {
        let sample = |caption: &&str| Sample {
            key: String::new(),
            captions: vec![(*caption).to_owned()],
            question: None,
            image: RgbImage::new(1, 1),
        };
        Shown::distinct(captions.iter().map(sample).collect()).unwrap()
    }

    fn judged(caption: &str, written: &str) -> Judged {
        Judged { shown: shown(&[caption]).remove(0), written: written.to_owned() }
    }

    #[test]
    fn a_scene_counts_once_however_it_is_told() {
        let told = ["a cat left of a dog on green", "a dog right of a cat on green", "a cat on green"];
        assert_eq!(shown(&told).len(), 2);
        let other = Sample {
            key: "k".to_owned(),
            captions: vec!["a car".to_owned()],
            question: None,
            image: RgbImage::new(1, 1),
        };
        let error = Shown::distinct(vec![other]).unwrap_err();
        assert!(error.to_string().contains("a car"), "{error}");
    }

    #[test]
    fn other_words_for_the_same_scene_are_right_and_right_things_alone_are_not() {
        let all = [
            judged("a cat left of a dog on green", "a dog right of a cat on green"),
            judged("a cat left of a dog on green", "two cats above a dog on pink"),
            judged("two cats on blue", "two dogs on blue"),
            judged("two cats on blue", ""),
        ];
        let shares = shares_by_kind("all", &all);
        let figures: Vec<(&str, usize, f64, f64)> =
            shares.iter().map(|s| (s.of.as_str(), s.count, s.whole, s.things)).collect();
        assert_eq!(
            figures,
            [("all", 4, 0.25, 0.5), ("– of a kind", 2, 0.0, 0.0), ("– two groups", 2, 0.5, 1.0)]
        );
    }
}
