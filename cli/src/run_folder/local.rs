//! What of a run is on this machine.

use std::path::PathBuf;

use crate::config::RunConfig;

/// Where the logs of a run are on this machine, and what else is written beside them.
pub(crate) fn logs_folder(config: &RunConfig) -> PathBuf {
    match local_path(&config.run.root) {
        Some(folder) => folder.join("logs"),
        None => std::env::temp_dir().join(format!("blip2-{}", config.run.id)),
    }
}

/// Where the metrics of a run are on this machine: in its folder, or with the logs when the run lives
/// elsewhere.
pub(crate) fn metrics_folder(config: &RunConfig) -> PathBuf {
    local_path(&config.run.root).unwrap_or_else(|| logs_folder(config))
}

/// The folder on this machine that a location names, if it is one.
pub(crate) fn local_path(location: &str) -> Option<PathBuf> {
    match location.split_once("://") {
        None => Some(PathBuf::from(location)),
        Some(("file", _)) => url::Url::parse(location).ok()?.to_file_path().ok(),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_places_are_known() {
        assert_eq!(local_path("runs/a"), Some(PathBuf::from("runs/a")));
        assert_eq!(local_path("file:///runs/a"), Some(PathBuf::from("/runs/a")));
        assert_eq!(local_path("s3://bucket/a"), None);
    }
}
