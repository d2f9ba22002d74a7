//! A configuration that can be run: what computes takes no other.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::path::Path;

use blip2_model::language::{check_adapters, check_family};
use blip2_model::vision::ImageEncoder;
use blip2_store::fetch::is_url;
use blip2_tensors::device::DeviceName;
use serde::Serialize;

use super::stage::StageSettings;
use super::worker::WorkerConfig;
use crate::error::{Result, WorkerError};
use crate::image_sizes;
use crate::settings::model::is_model_file;
use crate::task::Unusable;

/// A configuration whose values go together and whose folders are there; made by [`WorkerConfig::validate`]
/// alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct ValidConfig(WorkerConfig);

impl Deref for ValidConfig {
    type Target = WorkerConfig;

    fn deref(&self) -> &WorkerConfig {
        &self.0
    }
}

impl WorkerConfig {
    /// The same as a configuration that can be run.
    ///
    /// # Errors
    /// [`WorkerError::Configuration`] with the key of the first value that no run can have.
    pub fn validate(self) -> Result<ValidConfig> {
        self.check()?;
        Ok(ValidConfig(self))
    }

    fn check(&self) -> Result<()> {
        let refuse = |reason: String| Err(WorkerError::Configuration(reason));
        if let Err(error) = self.train.device.parse::<DeviceName>() {
            return refuse(format!("train.device = {error}"));
        }
        let slots = self.train.slots;
        if !slots.is_power_of_two() {
            return refuse(format!("train.slots = {slots}: it must be a power of two"));
        }
        self.first_stage()?;
        self.data.validate()?;
        self.validate_stages()?;
        self.validate_adapters()?;
        let [low, high] = self.data.crop_scale;
        if !(low > 0.0 && low <= high && high <= 1.0) {
            return refuse(format!("data.crop_scale = [{low}, {high}]: use 0 < smallest ≤ largest ≤ 1"));
        }
        if !(0.0..1.0).contains(&self.model.qformer.dropout) {
            return refuse(format!("model.qformer.dropout = {}: use 0 ≤ p < 1", self.model.qformer.dropout));
        }
        self.eval.validate()?;
        self.validate_folders()?;
        self.validate_image_sizes()?;
        self.validate_language_model()
    }

    fn validate_stages(&self) -> Result<()> {
        let refuse = |reason: String| Err(WorkerError::Configuration(reason));
        let mut names = BTreeSet::new();
        for stage in &self.stages {
            let name = stage.name.as_str();
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)) {
                return refuse(format!("stages.name = \"{name}\": use letters, digits, `_` and `-`"));
            }
            if !names.insert(name) {
                return refuse(format!("stages.name = \"{name}\": two stages have this name"));
            }
        }
        let trained = || self.stages.iter().filter(|stage| stage.steps > 0);
        let mut pairs = trained().zip(trained().skip(1));
        if let Some((before, after)) =
            pairs.find(|(before, after)| before.task.trains_encoder() && !after.task.trains_encoder())
        {
            return refuse(format!(
                "stages.{}: it reads the image encoder of model.image_encoder as it is, and stage `{}` before it trains \
                 it; export that stage, and begin a run of this one with what is exported as model.image_encoder",
                after.name, before.name
            ));
        }
        let slots = self.train.slots;
        for StageSettings { name, batch, task, .. } in self.stages.iter().filter(|stage| stage.steps > 0) {
            if *batch == 0 || batch % slots != 0 {
                return refuse(format!(
                    "stages.{name}.batch = {batch} is not a multiple of train.slots = {slots}"
                ));
            }
            if let Some(unusable) = task.unusable(*batch, &self.model) {
                let Unusable { key, value, reason, .. } = unusable;
                return refuse(format!("stages.{name}.{key} = {value}: {reason}"));
            }
            let columns = &self.data.columns;
            let named = [&columns.question, &columns.answers].map(|name| !name.is_empty());
            // A task that reads captions too needs none of them, or both.
            if task.asks() && named != [true; 2] && !(task.reads_captions_too() && named == [false; 2]) {
                return refuse(format!(
                    "stages.{name} ({}) reads questions with their answers: name their columns in data.columns.question and \
                     data.columns.answers",
                    task.name()
                ));
            }
        }
        Ok(())
    }

    fn validate_folders(&self) -> Result<()> {
        let needs = self.needs();
        let needed = [
            ("model.image_encoder", &self.model.image_encoder, true),
            ("model.qformer_tokenizer", &self.model.qformer_tokenizer, needs.qformer_tokenizer),
            ("model.language_model", &self.model.language_model, needs.language_model),
            ("model.qformer_init", &self.model.qformer_init, !self.model.qformer_init.is_empty()),
        ];
        for (key, folder, needed) in needed {
            if !needed {
                continue;
            }
            if folder.is_empty() {
                return Err(WorkerError::Configuration(format!("{key} is not set")));
            }
            // Looked at where it is needed, once it is there.
            if is_url(folder) {
                continue;
            }
            let path = Path::new(folder);
            if !path.is_dir() && !is_model_file(key, path) {
                return Err(WorkerError::Configuration(format!(
                    "{key} = \"{folder}\": there is no such folder (paths are relative to the current directory)"
                )));
            }
        }
        Ok(())
    }

    /// Refuses images that the image encoder cannot cut into patches.
    fn validate_image_sizes(&self) -> Result<()> {
        let own = ("model.image_size".to_owned(), self.model.image_size);
        let trained = self.stages.iter().filter(|stage| stage.steps > 0);
        let of_stages = trained.map(|stage| (format!("stages.{}.image_size", stage.name), stage.image_size));
        let mut named = [own].into_iter().chain(of_stages).filter(|(_, side)| *side > 0).peekable();
        if named.peek().is_none() || is_url(&self.model.image_encoder) {
            return Ok(());
        }
        // What is no encoder is refused where it is opened.
        let Ok(encoder) = ImageEncoder::sizes_of(self.model.image_encoder.as_ref()) else { return Ok(()) };
        let odd = named.find_map(|(key, side)| {
            let reason = image_sizes::unusable(side, &encoder)?;
            Some(WorkerError::Configuration(format!("{key} = {side}: {reason}")))
        });
        odd.map_or(Ok(()), Err)
    }

    /// Refuses a language model that no stage can train with, before anyone loads it.
    fn validate_language_model(&self) -> Result<()> {
        let folder = Path::new(&self.model.language_model);
        if !self.needs().language_model || is_url(&self.model.language_model) {
            return Ok(());
        }
        check_family(folder).map_err(|error| {
            WorkerError::Configuration(format!("model.language_model = \"{}\": {error}", folder.display()))
        })?;
        for stage in self.stages.iter().filter(|stage| stage.steps > 0) {
            let Some(lora) = stage.task.lora() else { continue };
            check_adapters(folder, &lora.targets).map_err(|error| {
                let (name, targets) = (&stage.name, &lora.targets);
                WorkerError::Configuration(format!("stages.{name}.lora.targets = {targets:?}: {error}"))
            })?;
        }
        Ok(())
    }

    /// Refuses a stage that would forget adapters of the stage before it.
    fn validate_adapters(&self) -> Result<()> {
        let trained = || self.stages.iter().filter(|stage| stage.steps > 0);
        for (before, after) in trained().zip(trained().skip(1)) {
            let Some(trained) = before.task.lora() else { continue };
            if !after.task.lora().is_some_and(|lora| lora.continues(trained)) {
                return Err(WorkerError::Configuration(format!(
                    "stages.{}.lora: stage `{}` before it trains adapters, which it would forget: set rank, alpha and targets \
                     as they are there",
                    after.name, before.name
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use blip2_run::exit::ExitClass as _;

    use super::*;
    use crate::settings::encoder::EncoderTraining;
    use crate::settings::lora::LoraSettings;
    use crate::task::TaskSettings;
    use crate::task::caption::CaptionSettings;
    use crate::task::contrast::ContrastSettings;
    use crate::task::instruct::InstructSettings;
    use crate::task::retrieval::RetrievalSettings;
    use crate::task::vqa::VqaSettings;

    #[test]
    fn names_of_stages_tell_them_apart() {
        let mut config = WorkerConfig::default();
        config.stages[1].name = "represent".into();
        let error = config.validate_stages().unwrap_err().to_string();
        assert!(error.contains("two stages have this name"), "{error}");
        config.stages[1].name = "a.b".into();
        assert!(config.validate_stages().unwrap_err().to_string().contains("letters"));
    }

    #[test]
    fn what_a_stage_trained_is_not_forgotten_by_the_next() {
        let retrieval = |image_encoder| {
            let settings = RetrievalSettings { image_encoder, ..RetrievalSettings::default() };
            let stage = StageSettings::of(image_encoder.to_string(), TaskSettings::Retrieval(settings));
            StageSettings { steps: 1, ..stage }
        };
        let [frozen, trained] = [EncoderTraining::Frozen, EncoderTraining::Trained].map(retrieval);
        let mut config = WorkerConfig { stages: vec![frozen.clone(), trained.clone()], ..Default::default() };
        config.validate_stages().unwrap();
        config.stages = vec![trained, frozen];
        let error = config.validate_stages().unwrap_err().to_string();
        assert!(error.contains("stages.frozen:") && error.contains("`trained`"), "{error}");
    }

    #[test]
    fn a_stage_that_asks_needs_columns_and_a_place_in_its_prompt() {
        let mut config = WorkerConfig::default();
        config.stages.push(StageSettings {
            steps: 1,
            ..StageSettings::of("ask", TaskSettings::named("vqa").unwrap())
        });
        let error = |config: &WorkerConfig| config.validate_stages().unwrap_err().to_string();
        assert!(error(&config).contains("data.columns.question"), "{}", error(&config));
        (config.data.columns.question, config.data.columns.answers) = ("q".into(), "a".into());
        config.validate_stages().unwrap();
        for prompt in ["Answer:", "{} or {}"] {
            config.stages[2].task =
                TaskSettings::Vqa(VqaSettings { prompt: prompt.into(), ..VqaSettings::default() });
            assert!(error(&config).contains("stages.ask.prompt"), "{}", error(&config));
        }
        // Instructions may all ask for captions.
        config.stages[2].task = TaskSettings::named("instruct").unwrap();
        config.validate_stages().unwrap();
        config.data.columns.answers.clear();
        assert!(error(&config).contains("data.columns.answers"), "{}", error(&config));
        config.data.columns.question.clear();
        config.validate_stages().unwrap();
        for (questions, captions, key) in [
            (&["Answer:"][..], &[][..], "question_templates"),
            (&["{}", "{} or {}"], &[], "question_templates"),
            (&[], &["a caption", " "], "caption_templates"),
            (&[], &["what is {}"], "caption_templates"),
        ] {
            let list = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
            config.stages[2].task = TaskSettings::Instruct(InstructSettings {
                question_templates: list(questions),
                caption_templates: list(captions),
                ..InstructSettings::default()
            });
            assert!(error(&config).contains(&format!("stages.ask.{key}")), "{}", error(&config));
        }
    }

    #[test]
    fn a_stage_does_not_forget_adapters() {
        let lora = LoraSettings { rank: 4, ..LoraSettings::default() };
        let caption = |lora: LoraSettings| {
            let task = TaskSettings::Caption(CaptionSettings { lora, ..CaptionSettings::default() });
            StageSettings { steps: 1, ..StageSettings::of("caption", task) }
        };
        let with = |first: LoraSettings, second: LoraSettings| WorkerConfig {
            stages: vec![StageSettings { name: "first".into(), ..caption(first) }, caption(second)],
            ..WorkerConfig::default()
        };
        let other = LoraSettings { dropout: 0.0, ..lora.clone() };
        with(lora.clone(), other).validate_adapters().unwrap();
        with(LoraSettings::default(), lora.clone()).validate_adapters().unwrap();
        for second in [LoraSettings::default(), LoraSettings { rank: 8, ..lora.clone() }] {
            let error = with(lora.clone(), second).validate_adapters().unwrap_err().to_string();
            assert!(error.contains("stages.caption.lora") && error.contains("`first`"), "{error}");
        }
        let mut config = with(lora.clone(), LoraSettings { targets: vec!["query".into()], ..lora });
        let folder = format!("{}/../assets/backbones/t5-scenes", env!("CARGO_MANIFEST_DIR"));
        config.model.language_model = folder;
        let error = config.validate_language_model().unwrap_err().to_string();
        assert!(
            error.contains("stages.caption.lora.targets = [\"query\"]") && error.contains("wi_0"),
            "{error}"
        );
    }

    #[test]
    fn impossible_values_name_their_key() {
        let mut config = WorkerConfig::default();
        config.stages[0].steps = 1;
        config.data.train = vec!["x.parquet".into()];
        config.train.device = "gpu".into();
        assert!(config.check().unwrap_err().to_string().contains("train.device = \"gpu\""));
        config.train.device = "cpu".into();
        config.train.slots = 3;
        assert!(config.check().unwrap_err().to_string().contains("train.slots = 3"));
        config.train.slots = 4;
        config.stages[0].batch = 6;
        assert!(config.check().unwrap_err().to_string().contains("stages.represent.batch = 6"));
        config.stages[0].batch = 8;
        let long = ContrastSettings { text_length: 1000, ..ContrastSettings::default() };
        config.stages[0].task = TaskSettings::Contrast(long);
        assert!(config.check().unwrap_err().to_string().contains("max_positions"));
        config.stages[0].task = TaskSettings::Contrast(ContrastSettings::default());
        let assets = |folder: &str| format!("{}/../assets/backbones/{folder}", env!("CARGO_MANIFEST_DIR"));
        config.model.image_encoder = assets("eva-tiny");
        config.model.qformer_tokenizer = assets("qformer-tokenizer");
        (config.stages[1].steps, config.stages[1].batch) = (1, 8);
        config.model.language_model = assets("bert-tiny");
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains("model.language_model") && error.contains("bert"), "{error}");
        config.model.language_model = assets("t5-scenes");
        assert_eq!(*config.clone().validate().unwrap(), config);
        for (side, remedy) in [(100, "8: use 96 or 104"), (7, "use 8 or a multiple")] {
            config.stages[1].image_size = side;
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(&format!("stages.generate.image_size = {side}: ")), "{error}");
            assert!(error.contains(remedy), "{error}");
        }
        // A stage without steps has no images.
        config.stages[1].steps = 0;
        config.check().unwrap();
        (config.stages[1].steps, config.stages[1].image_size) = (1, 96);
        config.check().unwrap();
        config.model.image_encoder = "/nonexistent".into();
        let error = config.check().unwrap_err();
        assert!(error.to_string().contains("model.image_encoder"));
        assert_eq!(error.exit().code(), 78);
    }
}
