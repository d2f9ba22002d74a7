//! The places that a configuration names: models that may be URLs.

use blip2_evaluation::fault::Fault as _;
use blip2_run::layout::COMMIT;
use blip2_store::Location;
use blip2_store::error::StoreError;
use blip2_store::fetch::{fetch_folder, fetch_model, is_url, is_weight_file, model_exists};

use crate::config::WorkerConfig;
use crate::error::{Result, WorkerError};
use crate::text_half::key_of;

impl WorkerConfig {
    /// The models that this configuration needs, by key.
    fn models(&self) -> Vec<(String, &str)> {
        let model = &self.model;
        let needs = self.needs();
        let all = [
            ("model.image_encoder", &model.image_encoder, true),
            ("model.qformer_init", &model.qformer_init, needs.bert),
            ("model.qformer_tokenizer", &model.qformer_tokenizer, true),
            ("model.language_model", &model.language_model, needs.language_model),
            ("model.init_checkpoint", &model.init_checkpoint, true),
        ];
        let needed = all.into_iter().filter(|(_, place, needed)| *needed && !place.is_empty());
        let needed = needed.map(|(key, place, _)| (key.to_owned(), place.as_str()));
        needed.chain(self.text_halves()).collect()
    }

    /// The weights that trained stages name for the Q-Former's parts for texts, by key.
    pub(crate) fn text_halves(&self) -> impl Iterator<Item = (String, &str)> {
        let trained = self.stages.iter().filter(|stage| stage.steps > 0);
        trained.filter_map(|stage| {
            let place = stage.task.trained().text_half().filter(|place| !place.is_empty())?;
            Some((key_of(&stage.name), place))
        })
    }

    /// The same with every model that is named by a URL brought to this machine, and named by its path here.
    ///
    /// # Errors
    /// [`WorkerError::Configuration`] with the key of a model that is not there or cannot be had; the store's
    /// error where it fails.
    pub async fn with_models_here(&self) -> Result<Self> {
        let mut here = self.clone();
        for (key, place) in self.models() {
            here.place_model(&key, model_here(&key, place).await?);
        }
        Ok(here)
    }

    /// The same; what cannot be had keeps its place, and the error says why.
    pub async fn with_models_that_are_here(&self) -> (Self, Vec<WorkerError>) {
        let (mut here, mut errors) = (self.clone(), Vec::new());
        for (key, place) in self.models() {
            match model_here(&key, place).await {
                Ok(path) => here.place_model(&key, path),
                Err(error) => errors.push(error),
            }
        }
        (here, errors)
    }

    fn place_model(&mut self, key: &str, path: String) {
        if let Some(stage) = self.stages.iter_mut().find(|stage| key_of(&stage.name) == key) {
            return stage.task.trained_mut().place_text_half(path);
        }
        let model = &mut self.model;
        match key {
            "model.image_encoder" => model.image_encoder = path,
            "model.qformer_init" => model.qformer_init = path,
            "model.qformer_tokenizer" => model.qformer_tokenizer = path,
            "model.language_model" => model.language_model = path,
            _ => model.init_checkpoint = path,
        }
    }

    /// Requires that something lies at every URL that names a model; only names and lengths are asked for.
    ///
    /// # Errors
    /// As [`WorkerConfig::with_models_here`].
    pub async fn models_are_there(&self) -> Result<()> {
        for (key, place) in self.models().into_iter().filter(|(_, place)| is_url(place)) {
            let looked = async {
                match checkpoint_at(&key, place).await? {
                    Some(_) => Ok(()),
                    None => model_exists(place).await,
                }
            };
            looked.await.map_err(|error| WorkerError::of_model(&key, place, error))?;
        }
        Ok(())
    }
}

/// The path on this machine of the model that `key` names.
///
/// # Errors
/// As [`WorkerConfig::with_models_here`].
pub async fn model_here(key: &str, place: &str) -> Result<String> {
    if !is_url(place) {
        return Ok(place.to_owned());
    }
    let fetched = async {
        match checkpoint_at(key, place).await? {
            // A checkpoint of a run is all of its folder.
            Some(folder) => fetch_folder(&folder).await,
            None => fetch_model(place).await,
        }
    };
    let fetched = fetched.await.map_err(|error| WorkerError::of_model(key, place, error))?;
    Ok(fetched.path.display().to_string())
}

/// The folder of a run's checkpoint, if that is what lies at the URL.
async fn checkpoint_at(key: &str, place: &str) -> Result<Option<Location>, StoreError> {
    if key != "model.init_checkpoint" {
        return Ok(None);
    }
    let folder = Location::parse(place.split('#').next().unwrap_or_default().trim_end_matches('/'))?;
    let is_checkpoint =
        !is_weight_file(folder.file_name()) && matches!(folder.join(COMMIT).head().await, Ok(Some(_)));
    Ok(is_checkpoint.then_some(folder))
}

#[cfg(test)]
mod tests {
    use blip2_run::exit::ExitClass as _;
    use blip2_store::secret_url::without_credentials;

    use super::*;
    use crate::config::hash::config_hash;
    use crate::config::stage::StageSettings;
    use crate::task::TaskSettings;
    use crate::task::instruct::InstructSettings;

    #[test]
    fn a_signature_is_no_part_of_a_run() {
        let mut config = WorkerConfig::default();
        config.train.seed = u64::MAX;
        let plain = config_hash(&config);
        assert_eq!(without_credentials(&config), config);
        config.data.train = vec!["https://host/a.parquet?sig=first".into()];
        config.model.image_encoder = "https://user:secret@host/eva".into();
        let signed = config_hash(&config);
        assert_ne!(signed, plain);
        let text = toml::to_string(&without_credentials(&config).model).unwrap();
        assert!(text.contains("https://REDACTED@host/eva") && !text.contains("secret"), "{text}");
        config.data.train = vec!["https://host/a.parquet?sig=second".into()];
        assert_eq!(config_hash(&config), signed);
    }

    #[tokio::test]
    async fn a_text_half_is_brought_here_too() {
        let mut config = WorkerConfig::default();
        let task = TaskSettings::Instruct(InstructSettings {
            text_half: "ftp://host/q".into(),
            ..Default::default()
        });
        config.stages.push(StageSettings { steps: 1, ..StageSettings::of("ask", task) });
        let error = config.with_models_here().await.unwrap_err().to_string();
        assert!(error.contains("stages.ask.text_half = \"ftp://host/q\""), "{error}");
        let mut placed = config.clone();
        placed.place_model("stages.ask.text_half", "/here".into());
        assert_eq!(placed.text_halves().collect::<Vec<_>>(), [("stages.ask.text_half".to_owned(), "/here")]);
        // A stage of no steps needs none.
        config.stages[2].steps = 0;
        assert_eq!(config.with_models_here().await.unwrap(), config);
    }

    #[tokio::test]
    async fn paths_stay_and_what_is_not_there_names_its_key() {
        let mut config = WorkerConfig::default();
        config.model.image_encoder = "models/eva".into();
        assert_eq!(config.with_models_here().await.unwrap(), config);
        config.model.image_encoder = "ftp://host/eva".into();
        let error = config.with_models_here().await.unwrap_err();
        assert!(error.to_string().contains("model.image_encoder = \"ftp://host/eva\""), "{error}");
        assert_eq!(error.exit().code(), 78);
    }
}
