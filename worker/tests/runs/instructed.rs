//! A run that follows instructions.

use std::path::Path;

use blip2_worker::WorkerConfig;
use blip2_worker::task::TaskSettings;
use blip2_worker::task::instruct::InstructSettings;
use blip2_worker::task::vqa::VqaSettings;

use crate::{asked, small};

/// A run of the task instruct alone with instructions in the words of the program, on its rows and on others
/// that have captions alone.
pub(crate) fn config(folder: &Path, language_model: &str, slots: u32, batch: u32) -> WorkerConfig {
    let mut config = asked::config(folder, language_model, slots, batch);
    let stage = config.stages.last_mut().unwrap();
    let TaskSettings::Vqa(VqaSettings { text_half, .. }) = &stage.task else { panic!("it answers") };
    let settings = InstructSettings {
        text_half: text_half.clone(),
        instruction_length: 16,
        output_length: 12,
        ..InstructSettings::default()
    };
    stage.task = TaskSettings::Instruct(settings);
    config.data.train.push(small::assets("corpus/test-00000.parquet"));
    config
}
