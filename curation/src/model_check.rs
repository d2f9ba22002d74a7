//! What the models of a curation are, and whether they can be used: from names and headers; no weights are
//! read.

use std::path::Path;

use blip2_evaluation::model_folder::{PROBE_LENGTH, PartReport};
use blip2_model_files::config::FolderConfig;
use blip2_model_files::weights::WeightSource;
use blip2_store::secret_url::redacted;

use crate::error::CurationError;
use crate::models::{CAPTIONERS, FILTERS, RANKERS};
use crate::settings::CurationModelSettings;

/// Looks at every model that `models` names. Those at URLs must be here already
/// ([`CurationModelSettings::with_models_here`]); `named` has their places as they were written.
pub fn check_models(models: &CurationModelSettings, named: &CurationModelSettings) -> Vec<PartReport> {
    type Part<'a> = (&'static str, &'static str, &'a str, &'a str, Vec<&'static str>);
    let parts: [Part<'_>; 3] = [
        ("captioner", "curation.models.captioner", &models.captioner, &named.captioner, types(&CAPTIONERS)),
        ("ranker", "curation.models.clip", &models.clip, &named.clip, types(&RANKERS)),
        ("filter", "curation.models.itm", &models.itm, &named.itm, types(&FILTERS)),
    ];
    let mut reports = Vec::new();
    for (part, key, place, written, types) in parts.into_iter().filter(|(_, _, place, ..)| !place.is_empty())
    {
        let mut report = PartReport::open(part, key, place);
        report.place = redacted(written);
        if report.is_there() {
            let path = Path::new(place);
            if let Some(folder) = report.note(FolderConfig::open(path)) {
                report.kind = folder.model_type().to_owned();
                if !types.contains(&folder.model_type()) {
                    report.note::<(), _>(Err(CurationError::Configuration(format!(
                        "its model_type is `{}`, expected {}",
                        folder.model_type(),
                        types.join(" or ")
                    ))));
                }
            }
            if let Some(source) = report.note(WeightSource::open_published(path)) {
                report.list(&source);
            }
            report.note_tokenizer(path, PROBE_LENGTH);
        }
        reports.push(report);
    }
    reports
}

/// The types of folders that a list opens.
fn types<T>(known: &[(&'static str, T)]) -> Vec<&'static str> {
    known.iter().map(|(model_type, _)| *model_type).collect()
}
