//! What a stage of a run does: its task, one file each.
//!
//! A [`Task`] is a task as a configuration has it: its losses, its texts, the models it needs. It makes a
//! `TaskModel`, which holds the tensors that are trained and computes the gradient of a step. Nothing
//! outside a task's file asks which task it is.

pub mod contrast;
mod description;
pub(crate) mod export;
pub mod generate;
pub mod scores;
mod training;

use std::ops::Deref;

use serde::{Deserialize, Serialize};

use self::contrast::ContrastSettings;
pub use self::description::{KeyRange, LossName, Needs, Task, TaskKey, Unusable};
use self::generate::GenerateSettings;
pub(crate) use self::training::{ModelShape, TaskModel, Trainable};
use crate::error::{Result, WorkerError};

/// Declares the tasks, a line each: its variant and its settings, whose [`Task::name`] is the variant in
/// snake case.
macro_rules! tasks {
    ($($(#[$about:meta])* $task:ident($settings:ty),)*) => {
        /// The task of a stage with its settings, which the key `task` names.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
}

impl TaskSettings {
    /// The task of this name, with the settings it has where none are given.
    ///
    /// # Errors
    /// There is no such task: the error names those there are.
    pub fn named(name: &str) -> Result<Self> {
        let known = Self::known();
        let names = known.iter().map(|task| format!("`{}`", task.name())).collect::<Vec<_>>().join(", ");
        known
            .into_iter()
            .find(|task| task.name() == name)
            .ok_or_else(|| WorkerError::Configuration(format!("`{name}` is no task; there are {names}")))
    }
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
    fn every_key_of_a_task_is_explained() {
        for task in TaskSettings::known() {
            let written = serde_json::to_value(&task).unwrap();
            let mut keys: Vec<&str> = written.as_object().unwrap().keys().map(String::as_str).collect();
            keys.retain(|key| *key != "task");
            keys.sort_unstable();
            let mut explained: Vec<&str> = task.keys().iter().map(|key| key.key).collect();
            explained.sort_unstable();
            assert_eq!(keys, explained, "{}", task.name());
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
