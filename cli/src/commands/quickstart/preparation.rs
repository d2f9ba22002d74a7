//! What is looked at, and put away, before a quick start.

use std::path::Path;

use blip2_store::fetch::is_url;
use blip2_worker::settings::model::is_model_file;

use crate::commands::train::with_a_worker_a_card;
use crate::config::{Loaded, RunConfig};
use crate::error::CliError;

/// What a preset comes to with its run under `out`, checked before anything is written.
pub(super) fn checked(loaded: Loaded, preset: &str, run_root: &Path) -> Result<RunConfig, CliError> {
    let config = with_a_worker_a_card(loaded, Some(preset))?;
    if Path::new(&config.run.root) != run_root {
        return Err(CliError::config("run.root: the quick start's run is in --out DIR; leave run.root out"));
    }
    let folders = [
        ("model.image_encoder", &config.model.image_encoder),
        ("model.language_model", &config.model.language_model),
        ("model.qformer_init", &config.model.qformer_init),
        ("model.qformer_tokenizer", &config.model.qformer_tokenizer),
        ("eval.clip", &config.eval.clip),
    ];
    for (key, folder) in folders {
        let path = Path::new(folder);
        if !folder.is_empty() && !is_url(folder) && !path.is_dir() && !is_model_file(key, path) {
            return Err(CliError::config(format!(
                "{key}: there is no folder {folder} here; start the quick start in the repository's folder, \
                 which has assets/"
            )));
        }
    }
    Ok(config)
}

/// Removes a folder or file that an earlier quick start made beside its run: it is made again.
pub(super) fn remove_earlier(made: &Path) -> Result<(), CliError> {
    let removed = if made.is_file() { std::fs::remove_file(made) } else { std::fs::remove_dir_all(made) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(CliError::failed(format!("{}: it cannot be removed: {error}", made.display())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_files_of_an_earlier_quick_start_go_and_what_is_not_there_is_no_error() {
        let out = tempfile::tempdir().unwrap();
        let (folder, file) = (out.path().join("export"), out.path().join("stage-1.safetensors"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("config.json"), "{}").unwrap();
        std::fs::write(&file, "weights").unwrap();
        for made in [&folder, &file, &folder, &file] {
            remove_earlier(made).unwrap();
        }
        assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);
    }
}
