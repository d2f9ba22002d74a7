use std::fmt;

use super::*;

fn layers_of(file: &str) -> Result<Layers, CliError> {
    let mut layers = Layers::new()?;
    layers.apply_text(Path::new("run.toml"), file)?;
    Ok(layers)
}

fn message(result: Result<impl fmt::Debug, CliError>) -> String {
    let error = result.expect_err("this must be refused");
    assert_eq!(error.exit(), blip2_run::exit::Exit::BadConfig, "{error}");
    error.to_string()
}

fn origin_of(loaded: &Loaded, key: &str) -> String {
    loaded.settings.iter().find(|s| s.key == key).expect("the key exists").origin.to_string()
}

#[test]
fn later_layers_win_and_say_where_they_stand() {
    let file = "[stage1]\nsteps = 1\nbatch = 64\n\n[stage1.optimizer]\nlearning_rate = 1\n";
    let mut layers = layers_of(file).unwrap();
    let variables = [
        ("BLIP2_STAGE1__STEPS".to_owned(), "2".to_owned()),
        ("BLIP2_LOG".to_owned(), "debug".to_owned()),
        ("BLIP2_STAGE1__OPTIMIZER__WARMUP_STEPS".to_owned(), "7".to_owned()),
    ];
    layers.apply_environment(variables.into_iter()).unwrap();
    layers.apply_arguments(&["stage1.steps = 3".to_owned(), "run.root=123".to_owned()]).unwrap();
    let loaded = layers.finish().unwrap();
    assert_eq!(loaded.config.stages[0].steps, 3);
    assert_eq!(loaded.config.stages[0].batch, 64);
    assert_eq!(loaded.config.stages[0].optimizer.learning_rate, 1.0);
    assert_eq!(loaded.config.stages[0].optimizer.warmup_steps, 7);
    assert_eq!(loaded.config.run.root, "123");
    assert_eq!(origin_of(&loaded, "stage1.steps"), "--set");
    assert_eq!(origin_of(&loaded, "stage1.batch"), "run.toml:3");
    assert_eq!(origin_of(&loaded, "stage1.optimizer.learning_rate"), "run.toml:6");
    let name = "environment BLIP2_STAGE1__OPTIMIZER__WARMUP_STEPS";
    assert_eq!(origin_of(&loaded, "stage1.optimizer.warmup_steps"), name);
    assert_eq!(origin_of(&loaded, "stage2.steps"), "default");
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_name() {
    let text = message(layers_of("[stage1]\nsteps = 1\nbach = 64\n"));
    assert!(text.contains("run.toml:3") && text.contains("`stage1.batch`"), "{text}");
    let mut layers = Layers::new().unwrap();
    let text = message(layers.apply_arguments(&["max_positions=0".to_owned()]));
    assert!(text.contains("`model.qformer.max_positions`"), "{text}");
    let text = message(layers.apply_arguments(&["zzzzzz.qqqq=0".to_owned()]));
    assert!(text.contains("config show"), "{text}");
    let variable = ("BLIP2_STAGE1__STEP".to_owned(), "1".to_owned());
    let text = message(layers.apply_environment([variable].into_iter()));
    assert!(text.contains("BLIP2_STAGE1__STEP") && text.contains("`stage1.steps`"), "{text}");
}

#[test]
fn wrong_types_name_key_expectation_and_origin() {
    let text = message(layers_of("[stage1]\nsteps = \"many\"\n"));
    assert!(text.contains("stage1.steps: expected an integer") && text.contains("run.toml:2"), "{text}");
    let text = message(layers_of("stage1 = 3\n"));
    assert!(text.contains("expected a section"), "{text}");
    let text = message(layers_of("[data]\ntrain = \"a.parquet\"\n"));
    assert!(text.contains("a list of text"), "{text}");
    let text = message(layers_of("[data]\ntrain = [1]\n"));
    assert!(text.contains("data.train"), "{text}");
    let text = message(layers_of("[stage1]\nsteps = \n"));
    assert!(text.contains("run.toml:2"), "{text}");
}

#[test]
fn impossible_values_name_their_key() {
    let mut layers = Layers::new().unwrap();
    layers.apply_arguments(&["stage1.steps=-1".to_owned()]).unwrap();
    let text = message(layers.finish());
    assert!(text.contains("stage1.steps = -1 (--set)"), "{text}");
    let mut layers = Layers::new().unwrap();
    layers.apply_arguments(&["train.gradients=approximate".to_owned()]).unwrap();
    let text = message(layers.finish());
    assert!(text.contains("train.gradients") && text.contains("exact"), "{text}");
    let mut layers = Layers::new().unwrap();
    layers.apply_arguments(&["data.crop_scale=[1,1,1]".to_owned()]).unwrap();
    let text = message(layers.finish());
    assert!(text.contains("data.crop_scale"), "{text}");
}

#[test]
fn sources_have_names_of_their_own() {
    let file = "[data.sources.coco]\nfiles = [\"c/*.parquet\"]\nweight = 3\n[data.sources.web]\nfiles = []\n";
    let mut layers = layers_of(file).unwrap();
    layers.apply_arguments(&["data.sources.web.files=[\"w.parquet\"]".to_owned()]).unwrap();
    let loaded = layers.finish().unwrap();
    assert_eq!(origin_of(&loaded, "data.sources.coco.weight"), "run.toml:3");
    assert_eq!(origin_of(&loaded, "data.sources.web.files"), "--set");
    let corpus = loaded.config.data.corpus();
    let shown: Vec<_> = corpus.iter().map(|s| (s.name.as_str(), s.files.len(), s.weight)).collect();
    assert_eq!(shown, [("coco", 1, Some(3.0)), ("web", 1, None)]);
    assert!(loaded.settings.iter().all(|setting| !setting.known.about.is_empty()));

    let text = message(layers_of("[data.sources.coco]\nfile = [\"a\"]\n"));
    assert!(text.contains("data.sources.coco.file") && text.contains("run.toml:2"), "{text}");
    let text = message(layers_of("[data.sources.coco]\nweight = \"much\"\n"));
    assert!(text.contains("expected a number"), "{text}");
    let text = message(layers_of("[data]\nsources = 3\n"));
    assert!(text.contains("expected a section"), "{text}");
}

#[test]
fn a_stage_has_a_name_and_those_of_pre_training_have_their_tables_as_well() {
    let mut layers =
        layers_of("[stage1]\nsteps = 300\n[[stages]]\nname = \"generate\"\nsteps = 200\n").unwrap();
    layers.apply_arguments(&["stages.represent.steps=8".to_owned(), "stage2.steps=9".to_owned()]).unwrap();
    let variable = ("BLIP2_STAGES__REPRESENT__BATCH".to_owned(), "64".to_owned());
    layers.apply_environment([variable].into_iter()).unwrap();
    let loaded = layers.finish().unwrap();
    let steps: Vec<(&str, u64)> =
        loaded.config.stages.iter().map(|stage| (stage.name.as_str(), stage.steps)).collect();
    assert_eq!(steps, [("represent", 8), ("generate", 9)]);
    assert_eq!(loaded.config.stages[0].batch, 64);
    let written = |key: &str| loaded.settings.iter().find(|s| s.key == key).unwrap().written.clone();
    assert_eq!(
        [written("stage1.steps"), written("stage2.steps")],
        ["stages.represent.steps", "stage2.steps"]
    );
    assert_eq!(written("stage2.batch"), "stage2.batch");
}

#[test]
fn more_stages_follow_with_what_their_tasks_have() {
    let file = "[[stages]]\nname = \"more\"\ntask = \"generate\"\nsteps = 3\nprompt = \"a\"\n[stages.optimizer]\n\
                learning_rate = 1\n";
    let mut layers = layers_of(file).unwrap();
    layers.apply_arguments(&["stages.more.batch=32".to_owned()]).unwrap();
    let loaded = layers.finish().unwrap();
    let more = &loaded.config.stages[2];
    assert_eq!((more.name.as_str(), more.task.name(), more.steps, more.batch), ("more", "generate", 3, 32));
    assert_eq!((more.optimizer.learning_rate, more.optimizer.min_learning_rate), (1.0, 5e-5));
    assert_eq!(origin_of(&loaded, "stages.more.steps"), "run.toml:4");
    assert_eq!(origin_of(&loaded, "stages.more.optimizer.learning_rate"), "run.toml:7");
    assert!(loaded.settings.iter().all(|s| !s.known.about.is_empty()));
    let text = toml::to_string(&loaded.config).unwrap();
    assert_eq!(toml::from_str::<RunConfig>(&text).unwrap(), loaded.config);
}

#[test]
fn stages_that_cannot_be_are_refused_with_what_is_wrong() {
    let both = "[stage1]\nsteps = 1\n[[stages]]\nname = \"represent\"\nsteps = 2\n";
    let text = message(layers_of(both));
    for part in ["stage1.steps", "run.toml:2", "stages.represent.steps", "run.toml:5"] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    for (file, words) in [
        ("[[stages]]\nname = \"a\"\ntask = \"segment\"\n", &["segment", "`contrast`, `generate`"][..]),
        (
            "[[stages]]\nname = \"a\"\ntask = \"segment\"\n",
            &["configuration: stages.a.task: `segment` is no task"],
        ),
        ("[[stages]]\nname = \"a\"\n", &["stages.a", "needs a `task`"]),
        ("[[stages]]\ntask = \"contrast\"\n", &["no `name`"]),
        ("[[stages]]\nname = \"a.b\"\ntask = \"contrast\"\n", &["letters"]),
        ("[[stages]]\nname = \"generate\"\ntask = \"contrast\"\n", &["`generate`", "`contrast`"]),
        ("[[stages]]\nname = \"represent\"\nprompt = \"a\"\n", &["stages.represent.prompt", "no such key"]),
        ("[stages.other]\nsteps = 1\n", &["stages.other", "[[stages]]"]),
    ] {
        let text = message(layers_of(file));
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
}

#[test]
fn a_file_builds_on_its_base() {
    let folder = tempfile::tempdir().unwrap();
    let paper = folder.path().join("paper.toml");
    let own = folder.path().join("own.toml");
    std::fs::write(&paper, "[stage1]\nsteps = 9\nbatch = 32\n").unwrap();
    std::fs::write(&own, "base = \"paper.toml\"\n[stage1]\nsteps = 1\n").unwrap();
    let mut layers = Layers::new().unwrap();
    layers.apply_file(&own).unwrap();
    let loaded = layers.finish().unwrap();
    assert_eq!((loaded.config.stages[0].steps, loaded.config.stages[0].batch), (1, 32));
    assert!(origin_of(&loaded, "stage1.batch").ends_with("paper.toml:3"));

    std::fs::write(&paper, "base = \"own.toml\"\n").unwrap();
    let text = message(Layers::new().unwrap().apply_file(&own));
    assert!(text.contains("base"), "{text}");
}
