//! The families: a new one is its folder and a line here.

use std::any::Any;
use std::path::Path;

use burn::tensor::Device;

use super::family::{self, FamilyConfig, FamilyModel, LanguageSizes, Names, Published};
use blip2_model_files::config::FolderConfig;
use blip2_model_files::error::ModelError;
use blip2_model_files::weights::Fit;
use blip2_tensors::device::placement::Placement;

/// Every family.
static FAMILIES: &[Family] =
    &[Family::of::<super::opt::Opt>(), Family::of::<super::t5::T5>(), Family::of::<super::llama::Llama>()];

/// A model, or why there is none.
type Boxed = Result<Box<dyn FamilyModel>, ModelError>;

/// A family by what its folders say, and what is done with them.
pub(super) struct Family {
    names: Names,
    /// The sizes that a configuration says.
    pub(super) sizes: fn(&FolderConfig) -> Result<Box<dyn LanguageSizes>, ModelError>,
    /// Loads a folder.
    pub(super) open: fn(&Path, Placement) -> Boxed,
    /// A model of zeros, of sizes that are the family's.
    zeros: fn(&dyn LanguageSizes, &Device) -> Option<Boxed>,
    /// Compares a folder's weights with its configuration.
    pub(super) check: fn(&Path) -> Result<Fit, ModelError>,
}

impl Family {
    const fn of<M: Published>() -> Self {
        Self {
            names: M::Config::NAMES,
            sizes: |config| Ok(Box::new(M::Config::read(config)?)),
            open: |folder, place| Ok(Box::new(family::open::<M>(folder, place)?)),
            zeros: |sizes, device| {
                let config = (sizes as &dyn Any).downcast_ref()?;
                Some(M::init(config, device).map(|model| Box::new(model) as Box<dyn FamilyModel>))
            },
            check: family::check::<M>,
        }
    }

    /// Refuses targets of adapters that the family's layers do not have.
    ///
    /// # Errors
    /// A target that no map is called.
    pub(super) fn check_adapters(&self, targets: &[String]) -> Result<(), ModelError> {
        self.names.adaptable.chosen(self.names.model_type, targets).map(drop)
    }

    /// A model of zeros, of the family whose sizes these are.
    ///
    /// # Errors
    /// Sizes that no model can have, or of no family.
    pub(super) fn zeros(sizes: &dyn LanguageSizes, device: &Device) -> Boxed {
        let model = FAMILIES.iter().find_map(|family| (family.zeros)(sizes, device));
        model
            .unwrap_or_else(|| Err(ModelError::input("language model", format!("{sizes:?} is of no family"))))
    }

    /// The family of a folder's language model.
    ///
    /// # Errors
    /// A kind of model that is not one of the families.
    pub(super) fn of_folder(config: &FolderConfig) -> Result<&'static Self, ModelError> {
        let (_, found) = config.language_model();
        FAMILIES.iter().find(|family| family.names.model_type == found).ok_or_else(|| {
            let known = listed(FAMILIES.iter().map(|family| family.names.model_type));
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

#[cfg(test)]
mod tests {
    use super::*;
    use blip2_model_files::weights::{huggingface_name, lavis_name};

    #[test]
    fn every_family_has_published_names() {
        for Names { model_type, prefix, .. } in FAMILIES.iter().map(|family| family.names) {
            let name = format!("{prefix}.weight");
            assert_eq!(huggingface_name(&name), "language_model.weight", "{model_type}");
            let projection = lavis_name("opt_proj.weight", prefix);
            assert_eq!(projection, name.replace("_model", "_proj"), "{model_type}");
        }
    }

    #[test]
    fn every_family_is_documented() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/models.md");
        let page = std::fs::read_to_string(page).unwrap();
        for Names { model_type, prefix, adaptable } in FAMILIES.iter().map(|family| family.names) {
            let row = page.lines().find(|line| line.contains(&format!("| `{model_type}` |")));
            assert!(row.is_some_and(|row| row.contains(&format!("| `{prefix}` |"))), "{model_type}");
            let maps = adaptable.all.iter().map(|map| format!("`{map}`")).collect::<Vec<_>>().join(", ");
            assert!(page.contains(&maps), "{model_type}: {maps}");
        }
    }

    #[test]
    fn another_family_is_refused_with_those_that_there_are() {
        assert_eq!(listed(["opt", "t5", "llama"].into_iter()), "opt, t5 and llama");
        assert_eq!(listed(["opt"].into_iter()), "opt");
    }
}
