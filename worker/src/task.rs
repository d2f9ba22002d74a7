//! What a stage of a run does: its task, one file each.
//!
//! A [`Task`] is a task as a configuration has it: its losses, its texts, the models it needs. It makes a
//! `TaskModel`, which holds the tensors that are trained and computes the gradient of a step. Nothing
//! outside a task's file asks which task it is.

mod adapters;
pub mod caption;
pub mod contrast;
mod description;
pub(crate) mod export;
pub mod generate;
mod image_encoder;
pub mod instruct;
mod language_step;
pub mod retrieval;
pub mod scores;
mod training;
pub mod vqa;

use std::ops::Deref;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::caption::CaptionSettings;
use self::contrast::ContrastSettings;
pub use self::description::{LossName, Needs, Passes, Task, Unusable};
use self::generate::GenerateSettings;
use self::instruct::InstructSettings;
use self::retrieval::RetrievalSettings;
pub(crate) use self::training::{ModelShape, TaskModel, Trainable};
use self::vqa::VqaSettings;

/// Declares the tasks, a line each: its variant and its settings, whose [`Task::name`] is the variant in
/// snake case.
macro_rules! tasks {
    ($($(#[$about:meta])* $task:ident($settings:ty),)*) => {
        /// The task of a stage with its settings, which the key `task` names.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "task", rename_all = "snake_case")]
        pub enum TaskSettings {
            $($(#[$about])* $task($settings),)*
        }

        impl TaskSettings {
            /// Every task with the settings it has where none are given, in the order in which pre-training
            /// has them.
            pub fn known() -> Vec<Self> {
                vec![$(Self::$task(<$settings>::default()),)*]
            }
        }

        impl TaskSettings {
            /// The task as a worker trains it.
            pub(crate) fn trained(&self) -> &dyn Trainable {
                match self {
                    $(Self::$task(settings) => settings,)*
                }
            }
        }

        impl TaskSettings {
            /// The same, to be changed.
            pub(crate) fn trained_mut(&mut self) -> &mut dyn Trainable {
                match self {
                    $(Self::$task(settings) => settings,)*
                }
            }
        }

        impl Deref for TaskSettings {
            type Target = dyn Task;

            fn deref(&self) -> &Self::Target {
                match self {
                    $(Self::$task(settings) => settings,)*
                }
            }
        }
    };
}

tasks! {
    /// Representation learning: contrastive, matching and captioning losses.
    Contrast(ContrastSettings),
    /// Generative learning: captioning through the frozen language model.
    Generate(GenerateSettings),
    /// Captioning behind a prompt, from the parameters of generative learning.
    Caption(CaptionSettings),
    /// Answers to questions that the Q-Former reads too.
    Vqa(VqaSettings),
    /// Fine-tuning for retrieval: the losses of contrast by image ids, with the image encoder trained as
    /// well.
    Retrieval(RetrievalSettings),
    /// What instructions in changing words ask for, which the Q-Former reads too.
    Instruct(InstructSettings),
}

impl TaskSettings {
    /// The task of this name, with the settings it has where none are given.
    ///
    /// # Errors
    /// There is no such task: the error names those there are.
    pub fn named(name: &str) -> Result<Self, UnknownTask> {
        let known = Self::known();
        let names = known.iter().map(|task| format!("`{}`", task.name())).collect::<Vec<_>>().join(", ");
        let found = known.into_iter().find(|task| task.name() == name);
        found.ok_or_else(|| UnknownTask { name: name.to_owned(), known: names })
    }
}

/// A name that no task has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no task; there are {known}")]
pub struct UnknownTask {
    /// The name.
    pub name: String,
    /// Those there are.
    pub known: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_task_is_refused_with_those_there_are() {
        let error = TaskSettings::named("segment").unwrap_err().to_string();
        assert!(error.contains("`segment`") && error.contains("`contrast`, `generate`"), "{error}");
    }

    #[test]
    fn a_task_is_read_by_the_name_it_gives_itself() {
        for task in TaskSettings::known() {
            let written = serde_json::to_value(&task).unwrap();
            assert_eq!(written["task"], task.name());
            assert_eq!(serde_json::from_value::<TaskSettings>(written).unwrap(), task);
            assert_eq!(TaskSettings::named(task.name()).unwrap(), task);
        }
    }

    #[test]
    fn the_names_of_a_tasks_losses_differ_and_begin_with_their_sum() {
        for task in TaskSettings::known() {
            let names: std::collections::BTreeSet<&str> =
                task.losses().iter().map(|loss| loss.name).collect();
            assert_eq!((names.len(), task.losses()[0].name), (task.losses().len(), "loss"));
        }
    }
}
