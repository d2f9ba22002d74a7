//! Pages as files.

use std::path::Path;

use crate::error::CliError;

/// Writes a page whole or not at all: to a file beside it that is then renamed.
pub(crate) fn write_page(html: &str, path: &Path) -> Result<(), CliError> {
    let beside = path.with_extension("html.part");
    std::fs::write(&beside, html)
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(|error| CliError::failed(format!("{}: cannot write the report: {error}", path.display())))
}
