//! The families: a new one is its folder and a line here.

use std::path::Path;

use super::family::{self, FamilyConfig, FamilyModel, Published, Sizes};
use super::llama::Llama;
use super::opt::Opt;
use super::t5::T5;
use crate::device::placement::Placement;
use crate::error::ModelError;
use crate::files::config::FolderConfig;
use crate::files::weights::Fit;

/// Every family.
static FAMILIES: [Family; 3] = [Family::of::<Opt>(), Family::of::<T5>(), Family::of::<Llama>()];

/// A family by what its folders say, and what is done with them.
pub(super) struct Family {
    pub(super) model_type: &'static str,
    /// The sizes that a configuration says.
    pub(super) sizes: fn(&FolderConfig) -> Result<Box<dyn Sizes>, ModelError>,
    /// Loads a folder.
    pub(super) open: fn(&Path, Placement) -> Result<Box<dyn FamilyModel>, ModelError>,
    /// Compares a folder's weights with its configuration.
    pub(super) check: fn(&Path) -> Result<Fit, ModelError>,
}

impl Family {
    const fn of<M: Published>() -> Self {
        Self {
            model_type: M::Config::MODEL_TYPE,
            sizes: |config| Ok(Box::new(M::Config::read(config)?)),
            open: |folder, place| Ok(Box::new(family::open::<M>(folder, place)?)),
            check: family::check::<M>,
        }
    }

    /// The family of a folder's language model.
    ///
    /// # Errors
    /// A kind of model that is not one of the families.
    pub(super) fn of_folder(config: &FolderConfig) -> Result<&'static Self, ModelError> {
        let (_, found) = config.language_model();
        FAMILIES.iter().find(|family| family.model_type == found).ok_or_else(|| {
            let known = listed(FAMILIES.iter().map(|family| family.model_type));
            config.error(format!("the language model is of type `{found}`: {known} are supported"))
        })
    }
}

/// `a, b and c`.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    match names.split_last() {
        Some((last, [])) => (*last).into(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}
