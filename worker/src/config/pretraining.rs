//! The two stages of pre-training as configurations have always had them: the tables `stage1` and `stage2`.
//!
//! A list of exactly these two is stored and hashed in that form, so that a run from before there was a list
//! has the hash it had and goes on; any other list is stored as it is.

use serde::{Deserialize, Serialize};

use super::stage::{StageSettings, is_zero};
use crate::settings::optimizer::OptimizerSettings;
use crate::task::TaskSettings;
use crate::task::contrast::ContrastSettings;
use crate::task::generate::GenerateSettings;

/// The stages of pre-training, which are the first of every configuration: their names, and the tables that
/// are the same.
pub const PRETRAINING: [(&str, &str); 2] = [("represent", "stage1"), ("generate", "stage2")];

/// The stages of pre-training without steps.
pub fn pretraining() -> Vec<StageSettings> {
    vec![Table::<ContrastSettings>::default().stage(), Table::<GenerateSettings>::default().stage()]
}

/// The keys of a stage of pre-training in their table.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Table<T: Named> {
    steps: u64,
    batch: u32,
    #[serde(skip_serializing_if = "is_zero")]
    image_size: usize,
    #[serde(flatten)]
    task: T,
    optimizer: OptimizerSettings,
}

/// The task of a stage of pre-training.
pub trait Named: Clone + Default {
    /// The stage's name.
    const NAME: &'static str;

    /// As a configuration has it.
    fn task(self) -> TaskSettings;
}

impl Named for ContrastSettings {
    const NAME: &'static str = PRETRAINING[0].0;

    fn task(self) -> TaskSettings {
        TaskSettings::Contrast(self)
    }
}

impl Named for GenerateSettings {
    const NAME: &'static str = PRETRAINING[1].0;

    fn task(self) -> TaskSettings {
        TaskSettings::Generate(self)
    }
}

impl<T: Named> Default for Table<T> {
    fn default() -> Self {
        let stage = StageSettings::of(T::NAME, T::default().task());
        Self::of(&stage, &T::default())
    }
}

impl<T: Named> Table<T> {
    pub(super) fn of(stage: &StageSettings, task: &T) -> Self {
        let StageSettings { steps, batch, image_size, optimizer, .. } = stage.clone();
        Self { steps, batch, image_size, task: task.clone(), optimizer }
    }

    pub(super) fn stage(self) -> StageSettings {
        let Self { steps, batch, image_size, task, optimizer } = self;
        StageSettings { name: T::NAME.into(), task: task.task(), steps, batch, image_size, optimizer }
    }
}

/// The table of the first stage of pre-training.
pub type RepresentTable = Table<ContrastSettings>;
/// The table of the second.
pub type GenerateTable = Table<GenerateSettings>;
