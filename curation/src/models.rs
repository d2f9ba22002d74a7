//! The models behind the traits: published folders, opened by their `model_type`.
//!
//! Another captioner or scorer is a file here and a line in its list. Whatever a folder's type is not in the
//! list of is refused by name by the first of it.

mod blip2_captioner;
mod blip_captioner;
mod blip_filter;
mod clip_ranker;
mod text_batches;

use std::path::Path;

use blip2_evaluation::fault::Fault as _;
use blip2_model_files::config::FolderConfig;
use burn::tensor::Device;

use crate::error::{CurationError, Result};
use crate::scoring::{Captioner, CurationModels, Scorer};
use crate::select::CurationMode;
use crate::settings::CurationModelSettings;

type OpenCaptioner = fn(&Path, &CurationModelSettings, &Device) -> Result<Box<dyn Captioner>>;
/// Takes the texts computed at a time.
type OpenScorer = fn(&Path, usize, &Device) -> Result<Box<dyn Scorer>>;

/// What writes captions, by the `model_type` of its folder.
pub(crate) const CAPTIONERS: [(&str, OpenCaptioner); 3] = [
    ("blip", blip_captioner::open),
    ("blip-2", blip2_captioner::open),
    ("instructblip", blip2_captioner::open),
];
/// What gives cosines.
pub(crate) const RANKERS: [(&str, OpenScorer); 1] = [("clip", clip_ranker::open)];
/// What gives probabilities of a match.
pub(crate) const FILTERS: [(&str, OpenScorer); 1] = [("blip", blip_filter::open)];

/// Opens what `settings` name; `mode` says which scores are needed.
///
/// # Errors
/// [`CurationError::Configuration`] for a missing or contradictory setting; a folder that holds another
/// model.
pub fn open(settings: &CurationModelSettings, mode: CurationMode) -> Result<CurationModels> {
    settings.validate(mode)?;
    let name = settings.device_name()?;
    let device: Device = name.open().map_err(|error| {
        CurationError::Configuration(format!("curation.models.device = \"{name}\": {error}"))
    })?;
    let captioner = match settings.captions {
        0 => None,
        _ => {
            let folder = Path::new(&settings.captioner);
            let opened = opener(&CAPTIONERS, folder).and_then(|open| open(folder, settings, &device));
            Some(opened.map_err(of_model("curation.models.captioner", &settings.captioner))?)
        }
    };
    let scorer = |known: &[(&str, OpenScorer)], key, place: &str| {
        let opened = settings.folder(place).map(|folder| {
            let opened = opener(known, folder).and_then(|open| open(folder, settings.text_batch, &device));
            opened.map_err(of_model(key, place))
        });
        opened.transpose()
    };
    Ok(CurationModels {
        captioner,
        clip: scorer(&RANKERS, "curation.models.clip", &settings.clip)?,
        itm: scorer(&FILTERS, "curation.models.itm", &settings.itm)?,
        batch: settings.batch,
        device: name,
    })
}

/// What opens folders of this one's type.
fn opener<T: Copy>(known: &[(&str, T)], folder: &Path) -> Result<T> {
    let config = FolderConfig::open(folder)?;
    let of_type = known.iter().find(|(model_type, _)| *model_type == config.model_type());
    // The lists are not empty.
    Ok(of_type.unwrap_or(&known[0]).1)
}

/// What is wrong with the model that `key` names.
fn of_model<'a>(key: &'a str, place: &'a str) -> impl Fn(CurationError) -> CurationError + 'a {
    move |error| CurationError::of_model(key, place, error)
}
