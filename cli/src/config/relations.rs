//! What numbers must be to each other, and what is odd about them.

use blip2_coordinator::CoordinatorError;
use blip2_worker::config::stage::StageSettings;
use blip2_worker::settings::model::ModelSettings;
use blip2_worker::settings::optimizer::OptimizerSettings;

use super::run::RunConfig;
use super::stages;

/// Most parameters of a Q-Former: more than any device has memory for, few enough to be counted.
const MOST_PARAMETERS: f64 = 1e11;

/// A rule that is broken.
#[derive(Debug)]
pub(super) struct Broken {
    /// The keys that it is about, the first one first to be changed.
    pub(super) keys: Vec<String>,
    /// What is wrong and what would be right.
    pub(super) reason: String,
}

fn broken(keys: &[&str], reason: String) -> Result<(), Broken> {
    Err(Broken { keys: keys.iter().map(ToString::to_string).collect(), reason })
}

/// Refuses numbers, each in its range, that do not go together.
pub(super) fn check(config: &RunConfig) -> Result<(), Broken> {
    let slots = config.train.slots;
    if !slots.is_power_of_two() {
        return broken(&["train.slots"], "it must be a power of two".into());
    }
    for StageSettings { name, steps, batch, task, optimizer, .. } in &config.stages {
        let stage = stages::prefix(name);
        if *steps > 0 && batch % slots != 0 {
            let key = format!("{stage}.batch");
            return broken(&[&key, "train.slots"], format!("not a multiple of train.slots = {slots}"));
        }
        check_rates(&stage, optimizer)?;
        if let Some(unusable) = task.unusable(*batch, &config.model).filter(|_| *steps > 0) {
            let key = format!("{stage}.{}", unusable.key);
            let keys: Vec<&str> = [key.as_str()].into_iter().chain(unusable.with).collect();
            return broken(&keys, unusable.reason);
        }
    }
    let [low, high] = config.data.crop_scale;
    if low > high {
        return broken(&["data.crop_scale"], "the smallest share comes first".into());
    }
    check_qformer(&config.model)?;
    check_curation(config)?;
    let membership = config.coordinator.validate(slots).and_then(|()| config.checkpoint.validate());
    match membership {
        Ok(()) => Ok(()),
        Err(CoordinatorError::Setting { key, reason }) => broken(&[key], reason),
        Err(other) => broken(&[], other.to_string()),
    }
}

fn check_rates(stage: &str, optimizer: &OptimizerSettings) -> Result<(), Broken> {
    let (least, peak) = (optimizer.min_learning_rate, optimizer.learning_rate);
    if least <= peak {
        return Ok(());
    }
    let [least_key, peak_key] =
        ["min_learning_rate", "learning_rate"].map(|key| format!("{stage}.optimizer.{key}"));
    let reason =
        format!("the cosine ends above its peak, {peak_key} = {peak}; lower the one or raise the other");
    broken(&[&least_key, &peak_key], reason)
}

fn check_qformer(model: &ModelSettings) -> Result<(), Broken> {
    let sizes = &model.qformer;
    if !sizes.hidden.is_multiple_of(sizes.heads) {
        let keys = ["model.qformer.heads", "model.qformer.hidden"];
        return broken(&keys, format!("the heads do not divide model.qformer.hidden = {}", sizes.hidden));
    }
    let [hidden, intermediate, layers, rows] =
        [sizes.hidden, sizes.intermediate, sizes.layers, sizes.max_positions + sizes.queries]
            .map(|size| size as f64);
    let parameters = layers * (8.0 * hidden * hidden + 4.0 * hidden * intermediate) + rows * hidden;
    if parameters > MOST_PARAMETERS {
        let keys = ["model.qformer.hidden", "model.qformer.layers", "model.qformer.intermediate"];
        let reason = format!("a Q-Former of {parameters:.1e} parameters; at most {MOST_PARAMETERS:.0e}");
        return broken(&keys, reason);
    }
    Ok(())
}

fn check_curation(config: &RunConfig) -> Result<(), Broken> {
    let rules = &config.curation.selection.rules;
    let models = &config.curation.models;
    let pairs = [
        (
            ["curation.selection.rules.min_words", "curation.selection.rules.max_words"],
            [rules.min_words, rules.max_words],
        ),
        (
            ["curation.models.min_new_tokens", "curation.models.max_new_tokens"],
            [models.min_new_tokens, models.max_new_tokens],
        ),
    ];
    match pairs.iter().find(|(_, [least, most])| least > most) {
        Some((keys, [_, most])) => broken(keys, format!("more than {} = {most}", keys[1])),
        None => Ok(()),
    }
}

/// What is allowed and hardly meant.
pub(super) fn warnings(config: &RunConfig) -> Vec<String> {
    let mut warnings = Vec::new();
    for StageSettings { name, steps, optimizer, .. } in config.stages.iter().filter(|stage| stage.steps > 0) {
        let stage = stages::prefix(name);
        let (warmup, peak) = (optimizer.warmup_steps, optimizer.learning_rate);
        if warmup > *steps {
            warnings.push(format!(
                "{stage}.optimizer.warmup_steps = {warmup} is more than {stage}.steps = {steps}: the learning rate never \
                 gets to {peak}"
            ));
        }
        if optimizer.warmup_learning_rate > peak && warmup > 0 {
            warnings.push(format!(
                "{stage}.optimizer.warmup_learning_rate = {} is more than {stage}.optimizer.learning_rate = {peak}: the \
                 warm-up goes down",
                optimizer.warmup_learning_rate
            ));
        }
        if peak == 0.0 {
            warnings
                .push(format!("{stage}.optimizer.learning_rate = 0: nothing is learned after the warm-up"));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::super::Layers;
    use super::*;

    fn loaded(set: &[&str]) -> Result<RunConfig, String> {
        let mut layers = Layers::new().unwrap();
        let set: Vec<String> = set.iter().map(ToString::to_string).collect();
        layers.apply_arguments(&set).unwrap();
        layers.finish().map(|loaded| loaded.config).map_err(|error| error.to_string())
    }

    #[test]
    fn numbers_that_do_not_go_together_are_refused_with_both_keys() {
        for (set, words) in [
            (&["train.slots=6"][..], &["train.slots = 6", "power of two"][..]),
            (
                &["train.slots=4", "stage1.steps=1", "stage1.batch=6"],
                &["stage1.batch = 6", "train.slots = 4"],
            ),
            (&["train.slots=1", "stage1.steps=1", "stage1.batch=1"], &["stage1.batch = 1", "two pairs"]),
            (
                &["stage1.steps=1", "stage1.text_length=600"],
                &["stage1.text_length = 600", "max_positions = 512"],
            ),
            (&["stage2.optimizer.learning_rate=1e-6"], &["stage2.optimizer.min_learning_rate", "0.000001"]),
            (&["model.qformer.heads=7"], &["model.qformer.heads = 7", "hidden = 768"]),
            (
                &["model.qformer.hidden=65536", "model.qformer.heads=16", "model.qformer.layers=1024"],
                &["model.qformer.hidden", "1e11"],
            ),
            (&["data.crop_scale=[1.0, 0.5]"], &["data.crop_scale"]),
            (&["curation.models.min_new_tokens=40"], &["min_new_tokens = 40", "max_new_tokens = 30"]),
            (&["curation.selection.rules.min_words=60"], &["min_words = 60", "max_words = 50"]),
            (&["coordinator.workers=20"], &["coordinator.workers", "16"]),
            (&["coordinator.heartbeat_ms=4000"], &["coordinator.heartbeat_timeout_s"]),
        ] {
            let message = loaded(set).expect_err("this must be refused");
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
            assert!(message.contains("--set") || message.contains("default"), "{message}");
        }
        // A stage that is skipped is not looked at.
        assert!(loaded(&["train.slots=4", "stage1.batch=6"]).is_ok());
    }

    #[test]
    fn a_warm_up_that_never_ends_is_told() {
        let config = loaded(&["stage1.steps=5", "stage1.optimizer.warmup_steps=6"]).unwrap();
        let told = warnings(&config);
        assert!(told.len() == 1 && told[0].contains("warmup_steps = 6"), "{told:?}");
        assert!(
            warnings(&loaded(&["stage1.steps=5", "stage1.optimizer.warmup_steps=5"]).unwrap()).is_empty()
        );
        assert!(warnings(&RunConfig::default()).is_empty());
    }
}
