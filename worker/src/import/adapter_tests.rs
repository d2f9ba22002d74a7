//! Adapters in a file, in a folder, and by themselves.

use super::tests::{named, sizes_of};
use super::*;
use crate::export::{ExportOptions, Layout, export};
use crate::settings::lora::LoraSettings;
use crate::task::generate::GenerateSettings;
use blip2_model_files::weights::{NameStyle, is_of_adapter};

/// The run with adapters of the language model, and its beginning, where these do something already.
fn adapted(backbone: &str) -> (WorkerConfig, NamedState) {
    let mut config = super::tests::config(2);
    config.model.language_model = config.model.language_model.replace("opt-tiny", backbone);
    let lora = LoraSettings { rank: 2, alpha: 3.0, ..LoraSettings::default() };
    config.stages[1].task = TaskSettings::Generate(GenerateSettings { lora, ..Default::default() });
    let mut state = TrainState::fresh(&config, sizes_of(&config), &Device::flex()).unwrap();
    for tensor in state.layout.tensors().iter().filter(|tensor| is_of_adapter(&tensor.name)) {
        let values = state.parameters[tensor.range()].iter_mut().enumerate();
        values.for_each(|(at, value)| *value = (at as f32 * 0.7311).sin() * 0.2);
    }
    let state = named(&state);
    (config, state)
}

#[test]
fn adapters_are_kept_in_a_file_merged_in_a_folder_and_by_themselves_for_peft() {
    let (config, state) = adapted("opt-tiny");
    let (stage, options) = (config.first_stage().unwrap(), ExportOptions::default());
    let place = tempfile::tempdir().unwrap();
    let write = |layout, name: &str| {
        let out = place.path().join(name);
        export(&config, &stage, &state, layout, &options, &out).map(|()| out)
    };
    let file = write(Layout::Lavis, "stage2.pth").unwrap();
    let read = import(&config, &file).unwrap();
    assert_eq!((read.digest, read.begun_anew.len()), (state.digest(), 0));

    let folder = write(Layout::HuggingFace, "blip2").unwrap();
    let begun_anew = import(&config, &folder).unwrap().begun_anew;
    assert!(!begun_anew.is_empty() && begun_anew.iter().all(|name| is_of_adapter(name)), "{begun_anew:?}");
    let of = |path: &Path, name: &str, shape: &[usize]| {
        WeightSource::open_huggingface(path).unwrap().read(name, shape).unwrap()
    };
    let tensor = |end: &str| {
        let found = state.parameters().find(|(name, _, _)| name.ends_with(end)).unwrap();
        (found.0.to_owned(), found.1.to_vec(), found.2.to_vec())
    };
    let (name, shape, down) = tensor("layers.1.self_attn.q_proj.lora_A.weight");
    let (_, _, up) = tensor("layers.1.self_attn.q_proj.lora_B.weight");
    let (width, stem) = (shape[1], name.strip_suffix("q_proj.lora_A.weight").unwrap());
    let base = Path::new(&config.model.language_model);
    for (map, adds) in [("q_proj", 1.5), ("k_proj", 0.0)] {
        let name = format!("{stem}{map}.weight");
        let [merged, plain] = [&folder, base].map(|path: &Path| of(path, &name, &[width, width]));
        for (at, (merged, plain)) in merged.iter().zip(&plain).enumerate() {
            let (row, column) = (at / width, at % width);
            let added: f32 = (0..2).map(|rank| up[row * 2 + rank] * down[rank * width + column]).sum();
            assert!((merged - plain - adds * added).abs() < 1e-6, "{name} {at}: {merged} and {plain}");
        }
    }

    let adapter = write(Layout::Peft, "adapter").unwrap();
    let text = std::fs::read_to_string(adapter.join("adapter_config.json")).unwrap();
    let peft: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&peft["r"], &peft["lora_alpha"], &peft["task_type"]),
        (&2.into(), &3.into(), &"CAUSAL_LM".into())
    );
    assert_eq!(peft["target_modules"], serde_json::json!(["q_proj", "v_proj"]));
    let source = WeightSource::open(&adapter.join("adapter_model.safetensors"), NameStyle::Lavis).unwrap();
    let stored = name.replace("opt_model.", "base_model.model.");
    assert_eq!(source.read(&stored, &shape).unwrap(), down);
    assert_eq!(source.names().count(), begun_anew.len());
}

#[test]
fn adapters_are_not_forgotten() {
    let (config, state) = adapted("opt-tiny");
    let (stage, options) = (config.first_stage().unwrap(), ExportOptions::default());
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("stage2.pth");
    export(&config, &stage, &state, Layout::Lavis, &options, &file).unwrap();
    let mut without = super::tests::config(2);
    without.model.init_checkpoint = file.display().to_string();
    let error = TrainState::fresh(&without, sizes_of(&without), &Device::flex()).unwrap_err().to_string();
    assert!(error.contains("lora_A.weight` first") && error.contains("stages.generate.lora"), "{error}");
    // Nor are those of a stage that has none written.
    let out = place.path().join("adapter");
    let error = export(&without, &without.first_stage().unwrap(), &state, Layout::Peft, &options, &out);
    assert!(error.unwrap_err().to_string().contains("has not this layout"));
}

#[test]
#[ignore = "runs Python with PyTorch, transformers and peft: BLIP2_PYTHON names it"]
fn peft_and_the_merged_folder_score_alike() {
    let python = std::env::var("BLIP2_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/transformers/check_adapter.py");
    for backbone in ["opt-tiny", "t5-scenes"] {
        let (config, state) = adapted(backbone);
        let (stage, options) = (config.first_stage().unwrap(), ExportOptions::default());
        let place = tempfile::tempdir().unwrap();
        let [merged, adapter] =
            [(Layout::HuggingFace, "blip2"), (Layout::Peft, "adapter")].map(|(layout, name)| {
                let out = place.path().join(name);
                export(&config, &stage, &state, layout, &options, &out).unwrap();
                out
            });
        let mut check = std::process::Command::new(&python);
        check.arg(script).arg("--language-model").arg(&config.model.language_model);
        check.arg("--adapter").arg(&adapter).arg("--merged").arg(&merged);
        assert!(check.status().unwrap().success(), "{backbone}");
    }
}
