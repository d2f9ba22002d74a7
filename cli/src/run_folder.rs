//! A run's folder: the pinned configuration and corpus, and what may be continued in it.

mod beginning;
mod corpus;
mod local;
mod stored;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use blip2_dataset::corpus::manifest::Manifest;
use blip2_run::layout;
use blip2_store::secret_url::{redacted, redacted_text, without_credentials};
use blip2_store::{Location, put_create};
use blip2_worker::config::valid::ValidConfig;
use blip2_worker::{Place, check, config_hash};

use crate::again::same_command;
use crate::config::{RunConfig, ValidRun};
use crate::error::CliError;
use crate::places::chosen_checkpoint;
use corpus::{check_held_out, corpus, smaller_than_a_batch};
pub(crate) use local::{local_path, logs_folder, metrics_folder};
use stored::{compare_configuration, compare_corpus};
pub(crate) use stored::{must_be_run, parse_stored, stored_configuration, stored_manifest};

/// Between two looks for a run that another process starts.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Characters of a hash that name a run.
const ID_PART: usize = 8;

/// For what a run's folder is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// `train`, whose workers are on this machine.
    Train,
    /// The same, in the folder of a quick start.
    QuickStart,
    /// `coordinator`, whose workers are elsewhere.
    Coordinate,
    /// Weights become a new run.
    Import,
}

impl Purpose {
    /// What to do about a run that is there.
    fn way_out(self) -> String {
        let other = match self {
            Self::QuickStart => "another folder with --out DIR",
            Self::Import => return "choose another RUN".to_owned(),
            Self::Train | Self::Coordinate => "another run.root",
        };
        format!("continue it with {}, or choose {other}", same_command(Some("--resume")))
    }

    /// Where the workers are; `None`: nothing is trained yet.
    fn place(self) -> Option<Place> {
        match self {
            Self::Train | Self::QuickStart => Some(Place::Here),
            Self::Coordinate => Some(Place::Elsewhere),
            Self::Import => None,
        }
    }
}

/// A run that can be started.
#[derive(Debug, Clone)]
pub(crate) struct RunFolder {
    /// The run's folder in its store.
    pub(crate) root: Location,
    /// The configuration, with `run.id` filled in.
    pub(crate) config: ValidRun,
    pub(crate) config_hash: String,
    pub(crate) manifest_hash: String,
    /// Rows of the corpus whose download failed.
    pub(crate) not_downloaded: u64,
    /// Whether the run was here before.
    pub(crate) continued: bool,
}

impl RunFolder {
    /// Pins the configuration and the corpus of a new run, or compares them with those of the run that is
    /// there. Before a run is pinned everything that can be known of it is looked at; one that never
    /// committed a step is no obstacle.
    ///
    /// # Errors
    /// Refused when a run is there and `resume` is false, or when its configuration or corpus differs; or the
    /// run cannot begin.
    pub(crate) async fn open(
        mut config: RunConfig,
        resume: bool,
        purpose: Purpose,
    ) -> Result<Self, CliError> {
        let root = located(&config)?;
        let stored = root.join(layout::CONFIGURATION).read().await?;
        if let Some(stored) = stored.as_ref().filter(|_| !resume) {
            beginning::is_free(&root, stored, &config).await.map_err(|reason| {
                CliError::refused(format!("{root} already holds a run{reason}; {}", purpose.way_out()))
            })?;
        }
        let pinned = stored.as_deref().filter(|_| resume);
        config.model.init_checkpoint = started_from(&root, &config, pinned).await?;
        let mut config = config.validate()?;
        let models = Models::look(config.worker(), purpose.place()).await?;
        check_held_out(&config).await?;
        let manifest = Arc::new(corpus(&root, &config, pinned.is_some()).await?);
        if pinned.is_none() {
            for warning in smaller_than_a_batch(&config, manifest.rows()) {
                eprintln!("warning: {warning}");
            }
            if manifest.failed_rows() > 0 {
                eprintln!(
                    "{} rows of the corpus were not downloaded and are passed over; {} were",
                    manifest.failed_rows(),
                    manifest.rows()
                );
            }
        }
        let manifest_hash = manifest.digest();
        models.check_start(&config, manifest.clone()).await?;
        let stored = match stored {
            Some(_) if !resume => {
                beginning::clear(&root).await?;
                None
            }
            stored => stored,
        };
        let hash = config_hash(config.worker());
        let continued = match stored {
            Some(bytes) => Some(bytes),
            None => {
                if config.run.id.is_empty() {
                    config.set_id(format!("{}-{}", &hash[..ID_PART], &manifest_hash[..ID_PART]));
                }
                // What another process pinned just now is continued like any other run.
                if pin(&root, &config, &manifest, &manifest_hash).await? {
                    None
                } else {
                    root.join(layout::CONFIGURATION).read().await?
                }
            }
        };
        if continued.is_some() && !resume {
            return Err(CliError::refused(format!("{root}: another process started a run here just now")));
        }
        if let Some(bytes) = &continued {
            config.set_id(compare_configuration(&root, bytes, &config, &hash)?);
            compare_corpus(&root, &manifest_hash).await?;
        }
        let continued = continued.is_some();
        let not_downloaded = manifest.failed_rows();
        Ok(Self { root, config, config_hash: hash, manifest_hash, not_downloaded, continued })
    }

    /// Waits for a run that another process starts, as long as that one waits for its workers, and compares
    /// it with this configuration.
    ///
    /// # Errors
    /// It does not appear in time; or as [`RunFolder::open`].
    pub(crate) async fn await_run(config: RunConfig) -> Result<Self, CliError> {
        let file = located(&config)?.join(layout::CONFIGURATION);
        let there = async {
            while file.head().await?.is_none() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Ok::<(), CliError>(())
        };
        let seconds = config.coordinator.join_timeout_s;
        let within = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        tokio::time::timeout(within, there).await.map_err(|_| {
            CliError::failed(format!(
                "{}: nobody started this run within {seconds} s; start its coordinator, or add --resume to start it here",
                redacted(&config.run.root)
            ))
        })??;
        Self::open(config, true, Purpose::Coordinate).await
    }

    /// The folder for logs: in the run's folder, or in the one for temporary files when the run lives
    /// elsewhere.
    pub(crate) fn logs(&self) -> Result<PathBuf, CliError> {
        let folder = logs_folder(&self.config);
        std::fs::create_dir_all(&folder).map_err(|error| {
            CliError::failed(format!("{}: cannot create this folder: {error}", folder.display()))
        })?;
        Ok(folder)
    }
}

/// The checkpoint that the run starts from, or has started from.
async fn started_from(
    root: &Location,
    config: &RunConfig,
    stored: Option<&[u8]>,
) -> Result<String, CliError> {
    let before = stored.and_then(|bytes| parse_stored(root.join(layout::CONFIGURATION), bytes).ok());
    let before = before.map(|before| before.model.init_checkpoint);
    chosen_checkpoint(&config.model.init_checkpoint, before.as_deref()).await
}

fn located(config: &RunConfig) -> Result<Location, CliError> {
    if config.run.root.is_empty() {
        return Err(CliError::config(
            "run.root: say where the run lives, for example --set run.root=runs/first or an s3:// URL",
        ));
    }
    if config.data.train.is_empty() && config.data.sources.is_empty() {
        return Err(CliError::config(
            "data.train: name the corpus, for example --set 'data.train=[\"data/*.parquet\"]'",
        ));
    }
    Ok(Location::parse(&config.run.root)?)
}

/// The models of a run, where they were found before anything was written.
enum Models {
    /// Nothing is trained yet: that they are there is all.
    There,
    /// The workers of this machine find them in its cache, by this configuration.
    Here(Box<ValidConfig>),
    /// Workers elsewhere bring them to their own machines, by this configuration.
    Elsewhere(Box<ValidConfig>),
}

impl Models {
    /// Asks for every model that is named by a URL, once.
    async fn look(worker: &ValidConfig, place: Option<Place>) -> Result<Self, CliError> {
        if place == Some(Place::Here) {
            return Ok(Self::Here(Box::new(worker.with_models_here().await?.validate()?)));
        }
        worker.models_are_there().await?;
        Ok(match place {
            None => Self::There,
            Some(_) => Self::Elsewhere(Box::new(worker.clone())),
        })
    }

    /// Looks at everything that can be known of the run, on a thread of its own.
    async fn check_start(self, config: &RunConfig, manifest: Arc<Manifest>) -> Result<(), CliError> {
        let (worker, place) = match self {
            Self::There => return Ok(()),
            Self::Here(worker) => (worker, Place::Here),
            Self::Elsewhere(worker) => (worker, Place::Elsewhere),
        };
        let (runtime, within) = (tokio::runtime::Handle::current(), config.coordinator.step_deadline());
        let looked = tokio::task::spawn_blocking(move || check(&worker, manifest, runtime, place, within));
        looked.await.map_err(|error| CliError::failed(format!("looking at the run's parts: {error}")))??;
        Ok(())
    }
}

/// The manifest first: a `run.toml` says that the run is complete. `false` when another process was faster.
async fn pin(
    root: &Location,
    config: &RunConfig,
    manifest: &Manifest,
    manifest_hash: &str,
) -> Result<bool, CliError> {
    let (place, content) = (root.join(layout::MANIFEST), manifest.to_parquet()?);
    // One that is there without a `run.toml` is what a start left that failed.
    if !put_create(&place, content.clone()).await? && compare_corpus(root, manifest_hash).await.is_err() {
        place.put(content).await?;
    }
    let text = toml::to_string(&without_credentials(config))
        .map_err(|error| CliError::failed(format!("the configuration does not serialise: {error}")))?;
    Ok(put_create(&root.join(layout::CONFIGURATION), redacted_text(&text).into_bytes().into()).await?)
}

#[cfg(test)]
mod tests {
    use blip2_run::epoch::Epochs;
    use blip2_worker::settings::train::StepSettings;

    use super::*;
    use blip2_run::exit::Exit;

    fn config(folder: &std::path::Path) -> RunConfig {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        let mut layers = crate::config::Layers::new().unwrap();
        layers.apply_text("quickstart.toml".as_ref(), include_str!("../../configs/quickstart.toml")).unwrap();
        let mut config = layers.finish().unwrap().config;
        config.run.root = folder.join("run").display().to_string();
        let model = &mut config.model;
        for path in [
            &mut model.image_encoder,
            &mut model.language_model,
            &mut model.qformer_init,
            &mut model.qformer_tokenizer,
        ] {
            *path = format!("{root}/{path}");
        }
        config.data.train = vec![format!("{root}/assets/corpus/test-00000.parquet")];
        config
    }

    #[tokio::test]
    async fn a_run_is_pinned_once_and_continued_only_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let first = RunFolder::open(config.clone(), true, Purpose::Train).await.unwrap();
        assert!(!first.continued && !first.config.run.id.is_empty());

        let again = RunFolder::open(config.clone(), true, Purpose::Train).await.unwrap();
        assert!(again.continued);
        assert_eq!(again.config.run.id, first.config.run.id);

        let mut other = config.clone();
        other.stages[0].optimizer.learning_rate *= 2.0;
        other.loader.decode_threads += 1;
        let refused = RunFolder::open(other, true, Purpose::Train).await.unwrap_err();
        assert_eq!(refused.exit(), Exit::Refused);
        let text = refused.to_string();
        assert!(text.contains("stage1.optimizer.learning_rate") && !text.contains("loader"), "{text}");

        let mut other = config.clone();
        other.data.train = vec![other.data.train[0].replace("test-00000", "web-00000")];
        // The list of files is part of the configuration, so it is named as what differs.
        assert!(
            RunFolder::open(other, true, Purpose::Train)
                .await
                .unwrap_err()
                .to_string()
                .contains("data.train")
        );
    }

    #[tokio::test]
    async fn a_run_gives_way_until_a_step_is_committed() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let root = folder.path().join("run");
        let open = |config: &RunConfig| RunFolder::open(config.clone(), false, Purpose::Train);
        open(&config).await.unwrap();
        let mut other = config.clone();
        other.train.seed += 1;
        other.data.train = vec![other.data.train[0].replace("test-00000", "web-00000")];
        let second = open(&other).await.unwrap();
        assert!(
            !second.continued
                && stored_configuration(&second.root).await.unwrap().train.seed == other.train.seed
        );
        assert_eq!(stored_manifest(&second.root).await.unwrap().digest(), second.manifest_hash);
        // What a start left that was killed between its two files.
        std::fs::remove_file(root.join(layout::CONFIGURATION)).unwrap();
        let third = open(&config).await.unwrap();
        assert_eq!(stored_manifest(&third.root).await.unwrap().digest(), third.manifest_hash);

        for trace in ["metrics.jsonl", "checkpoints/00000003-000002/part-00000-of-00001.safetensors"] {
            let trace = root.join(trace);
            std::fs::create_dir_all(trace.parent().unwrap()).unwrap();
            std::fs::write(&trace, "{}").unwrap();
            let refused = open(&config).await.unwrap_err();
            assert_eq!(refused.exit(), Exit::Refused, "{refused}");
            assert!(refused.to_string().contains("--resume"), "{refused}");
            std::fs::remove_file(&trace).unwrap();
        }
        // Nobody answers at the address of the coordinator that was killed.
        let epochs = Epochs::new(&third.root, "killed".into(), "http://127.0.0.1:9".into());
        epochs.begin(0).await.unwrap();
        open(&config).await.unwrap();
        assert_eq!(epochs.newest_record().await.unwrap().unwrap().end.as_deref(), Some("failed"));
        epochs.begin(4).await.unwrap();
        assert!(open(&config).await.unwrap_err().to_string().contains("step 4"));
    }

    /// An archive of two rows.
    fn archive() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut picture = std::io::Cursor::new(Vec::new());
        image::RgbImage::new(9, 7).write_to(&mut picture, image::ImageFormat::Png).unwrap();
        for name in ["a.png", "a.txt", "b.png", "b.txt"] {
            let content = if name.ends_with("txt") { name.as_bytes() } else { picture.get_ref() };
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[tokio::test]
    async fn archives_are_needed_until_the_run_has_pinned_their_parquet() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        let place = folder.path().join("a.tar");
        std::fs::write(&place, archive()).unwrap();
        config.data.train.push(place.display().to_string());
        config.run.converted = folder.path().join("kept").display().to_string();
        let first = RunFolder::open(config.clone(), false, Purpose::Coordinate).await.unwrap();
        let manifest = stored_manifest(&first.root).await.unwrap();
        assert_eq!((manifest.files.len(), manifest.files[1].row_groups.iter().sum::<u32>()), (2, 2));
        assert!(manifest.files[1].location.contains("/kept/a-"), "{:?}", manifest.files[1]);
        std::fs::remove_file(&place).unwrap();
        let again = RunFolder::open(config.clone(), true, Purpose::Coordinate).await.unwrap();
        assert!(again.continued && again.manifest_hash == first.manifest_hash);
        config.run.root = folder.path().join("other").display().to_string();
        let error = RunFolder::open(config, false, Purpose::Coordinate).await.unwrap_err();
        assert!(error.exit() == Exit::BadInput && error.to_string().contains("a.tar"), "{error}");
    }

    #[tokio::test]
    async fn what_is_missing_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let mut nowhere = config(folder.path());
        nowhere.run.root.clear();
        let error = RunFolder::open(nowhere, false, Purpose::Train).await.unwrap_err();
        assert!(error.exit() == Exit::BadConfig && error.to_string().contains("run.root"), "{error}");
        let mut missing = config(folder.path());
        missing.data.train = vec![folder.path().join("none.parquet").display().to_string()];
        let error = RunFolder::open(missing, false, Purpose::Train).await.unwrap_err();
        assert_eq!(error.exit(), Exit::BadInput, "{error}");
        assert!(!folder.path().join("run").join(layout::CONFIGURATION).is_file(), "nothing half-written");
    }

    #[tokio::test]
    async fn one_that_stands_by_waits_for_the_run_and_compares_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        config.coordinator.join_timeout_s = 0.01;
        let error = RunFolder::await_run(config.clone()).await.unwrap_err();
        assert!(error.to_string().contains("--resume"), "{error}");
        config.coordinator.join_timeout_s = 20.0;
        let other = RunConfig { train: StepSettings { seed: 77, ..config.train.clone() }, ..config.clone() };
        let start = async {
            tokio::time::sleep(LOOK_EVERY).await;
            RunFolder::open(config.clone(), false, Purpose::Train).await
        };
        let (started, waited, refused) =
            tokio::join!(start, RunFolder::await_run(config.clone()), RunFolder::await_run(other));
        assert_eq!(waited.unwrap().config.run.id, started.unwrap().config.run.id);
        assert!(refused.unwrap_err().to_string().contains("train.seed"));
    }

    #[tokio::test]
    async fn of_two_that_start_a_run_together_both_have_the_same_one() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let (a, b) = tokio::join!(
            RunFolder::open(config.clone(), true, Purpose::Train),
            RunFolder::open(config.clone(), true, Purpose::Train)
        );
        assert_eq!(a.unwrap().config.run.id, b.unwrap().config.run.id);
    }
}
