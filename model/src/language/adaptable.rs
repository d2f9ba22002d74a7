//! The maps of a family's layers that adapters may be for.

use blip2_model_files::error::ModelError;

/// The maps of a model's layers that a family's adapters may be for, by the last parts of their names, and
/// those that they are for where none are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Adaptable {
    pub(crate) all: &'static [&'static str],
    pub(crate) by_default: &'static [&'static str],
}

impl Adaptable {
    /// The maps that `targets` name.
    ///
    /// # Errors
    /// A name that none of them has.
    pub(crate) fn chosen(&self, family: &str, targets: &[String]) -> Result<Vec<&'static str>, ModelError> {
        if targets.is_empty() {
            return Ok(self.by_default.to_vec());
        }
        let chosen =
            targets.iter().map(|target| self.all.iter().find(|map| *map == target).copied().ok_or(target));
        let chosen: Result<Vec<&str>, &String> = chosen.collect();
        chosen.map_err(|target| {
            let all = self.all.join(", ");
            ModelError::input(
                "adapters",
                format!("`{target}` is no map of {family}'s layers, which are {all}"),
            )
        })
    }
}
