//! `models get`: a model of a hub or a URL into a folder.

use std::path::PathBuf;

use blip2_run::exit::Exit;
use blip2_store::fetch::{FileDone, Hub, HubError, HubFile, download_into, is_url, wanted_files};
use blip2_store::secret_url::redacted;
use clap::Args;
use serde_json::json;

use super::catalogue::{Source, named};
use crate::commands::print_json;
use crate::error::CliError;

/// Names of files that an error lists at most.
const LISTED: usize = 12;

#[derive(Debug, Args)]
pub(super) struct GetArguments {
    /// A short name (`blip2 models list`), OWNER/NAME on the hub, or a URL of a file or of a model's folder.
    #[arg(value_name = "NAME")]
    name: String,
    /// Folder for the files; without it, `models/` and the last part of the name.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Branch, tag or commit on the hub.
    #[arg(long, value_name = "REVISION", default_value = "main")]
    revision: String,
    /// Take this file as well as what goes with it, where the weights have no usual name; may be repeated.
    #[arg(long, value_name = "FILE")]
    file: Vec<String>,
    /// Print one JSON line a file, and one for all.
    #[arg(long)]
    json: bool,
}

/// What is to be downloaded.
struct Wanted {
    files: Vec<HubFile>,
    licence: Option<String>,
    /// Where it comes from, with the commit where there is one.
    from: String,
}

/// Downloads what is not there yet.
pub(super) async fn run(arguments: GetArguments) -> Result<Exit, CliError> {
    let source = named(&arguments.name).map_or_else(|| Source::typed(&arguments.name), Source::from);
    let wanted = match &source {
        Source::Hub(name) => of_hub(name, &arguments).await?,
        Source::Urls(urls) => of_urls(urls).await?,
    };
    let out =
        arguments.out.clone().unwrap_or_else(|| PathBuf::from("models").join(folder_name(&arguments.name)));
    let bytes: u64 = wanted.files.iter().map(|file| file.bytes).sum();
    if !arguments.json {
        let licence = wanted.licence.as_deref().unwrap_or("not named; see the model's page");
        eprintln!(
            "{}: {} files, {} into {}; licence: {licence}",
            wanted.from,
            wanted.files.len(),
            megabytes(bytes),
            out.display()
        );
    }
    let done = download_into(&out, &wanted.files, |file| tell(file, arguments.json)).await?;
    let downloaded: u64 = done.iter().map(|file| file.downloaded).sum();
    match arguments.json {
        true => print_json(&json!({
            "model": redacted(&arguments.name), "from": wanted.from, "out": out, "files": done.len(), "bytes": bytes,
            "downloaded": downloaded, "licence": wanted.licence,
        }))?,
        false => eprintln!("{}: {} downloaded now", out.display(), megabytes(downloaded)),
    }
    Ok(Exit::Done)
}

async fn of_hub(name: &str, arguments: &GetArguments) -> Result<Wanted, CliError> {
    let hub = Hub::from_environment();
    let model = hub.model(name, &arguments.revision).await?;
    let names: Vec<String> = model.files.iter().map(|file| file.name.clone()).collect();
    let mut taken = match wanted_files(&names) {
        Ok(taken) => taken,
        Err(_) if !arguments.file.is_empty() => names
            .iter()
            .filter(|name| !blip2_store::fetch::is_weight_file(name) && is_beside(name))
            .cloned()
            .collect(),
        Err(weights) if weights.is_empty() && names.iter().any(|name| is_beside(name)) => {
            names.iter().filter(|name| is_beside(name)).cloned().collect()
        }
        Err(weights) => {
            return Err(CliError::usage(format!(
                "`{name}` has no weights of a usual name (model.safetensors, pytorch_model.bin); choose with --file among: {}",
                listed(&weights)
            )));
        }
    };
    for file in &arguments.file {
        if !names.contains(file) {
            return Err(CliError::usage(format!(
                "--file {file}: `{name}` has no such file; it has {}",
                listed(&names)
            )));
        }
        taken.push(file.clone());
    }
    let files = model.files.into_iter().filter(|file| taken.contains(&file.name)).collect();
    let from = format!("{}/{name} at {}", hub.endpoint(), model.revision);
    Ok(Wanted { files, licence: model.licence, from })
}

/// A configuration, tokenizer or the like of the model itself, not of a part of it for another framework.
fn is_beside(name: &str) -> bool {
    !name.contains('/') && [".json", ".txt", ".model", ".jinja"].iter().any(|end| name.ends_with(end))
}

async fn of_urls(urls: &[String]) -> Result<Wanted, CliError> {
    let mut files = Vec::new();
    for url in urls {
        files.extend(HubFile::at_url(url).await?);
    }
    let from = urls.iter().map(|url| redacted(url)).collect::<Vec<_>>().join(", ");
    Ok(Wanted { files, licence: None, from })
}

/// The last part of a name or URL.
fn folder_name(name: &str) -> String {
    let path = if is_url(name) { name.split(['?', '#']).next().unwrap_or_default() } else { name };
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned()
}

fn listed(names: &[String]) -> String {
    let mut text = names.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > LISTED {
        text += &format!(" and {} more", names.len() - LISTED);
    }
    text
}

fn tell(file: &FileDone, json: bool) {
    let FileDone { name, bytes, blake3, downloaded } = file;
    match json {
        // A reader that went away shows when the summary is printed.
        true => drop(print_json(&json!({
            "file": name, "bytes": bytes, "blake3": blake3, "downloaded": downloaded,
        }))),
        false if *downloaded == 0 && *bytes > 0 => {
            eprintln!("  {name}: there already, {}", megabytes(*bytes))
        }
        false => eprintln!("  {name}: {}", megabytes(*bytes)),
    }
}

pub(super) fn megabytes(bytes: u64) -> String {
    match bytes {
        0..100_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        100_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

impl From<HubError> for CliError {
    fn from(error: HubError) -> Self {
        let message = error.to_string();
        match error {
            HubError::Name(_) => CliError::Usage(message),
            HubError::Denied { .. } | HubError::Offline(_) => CliError::Refused(message),
            HubError::Data(error) => error.into(),
            HubError::Unreachable { .. } | HubError::NotThere { .. } | HubError::Answer { .. } => {
                CliError::Failed(message)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_named_after_the_model() {
        for (name, folder) in [
            ("facebook/opt-2.7b", "opt-2.7b"),
            ("bert-base-uncased", "bert-base-uncased"),
            ("https://host/models/eva/?sig=1", "eva"),
        ] {
            assert_eq!(folder_name(name), folder);
        }
        assert_eq!(megabytes(553_000_000), "553.0 MB");
    }
}
