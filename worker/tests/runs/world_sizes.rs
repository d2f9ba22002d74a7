//! A step's result does not depend on how many members did it.

use blip2_model::language::LanguageModel;
use blip2_model::language::llama::LlamaConfig;
use blip2_tensors::train::flat::FlatLayout;
use blip2_worker::WorkerConfig;
use blip2_worker::settings::lora::LoraSettings;
use blip2_worker::settings::model::FrozenDtype;
use blip2_worker::settings::train::{Compute, StepSettings, Wire};
use blip2_worker::step::StepBytes;
use blip2_worker::task::TaskSettings;
use blip2_worker::task::vqa::{AnswerMode, QFormerText};
use burn::tensor::Device;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::members::{assert_all_like, train, train_alike};
use crate::{asked, instructed, small};

/// A few steps of a small Q-Former, with dropout and a clipped gradient.
fn config(slots: u32, batch: u32) -> WorkerConfig {
    let mut config = small::config(slots, batch);
    config.stages.iter_mut().for_each(|stage| stage.optimizer.clip_norm = 1.0);
    config
}

#[test]
fn one_two_and_four_members_train_the_same_bits_with_and_without_overlap() {
    train_alike(&mut config(4, 8));
}

#[test]
fn a_step_sends_each_member_the_rows_that_are_its_negatives_and_no_others() {
    // The encoder's features, the projected ones with tokens and masks, and the global batch.
    let (positions, width, row_values, batch) = (65, 128, 4 * 32 + 32 + 2 * 12, 8);
    for (dtype, bytes) in [(FrozenDtype::F32, 4), (FrozenDtype::Bf16, 2)] {
        let mut config = config(4, batch);
        config.model.frozen_dtype = dtype;
        (config.stages[0].steps, config.stages[1].steps) = (1, 0);
        let batch = u64::from(batch);
        let alone = train(&config, 1).remove(0).2[0];
        assert_eq!(alone.sent(), 0);
        for members in [2, 4] {
            let all = train(&config, members);
            let moved: Vec<StepBytes> = all.iter().map(|trained| trained.2[0]).collect();
            let features = 4 * row_values * batch / members as u64 * (members as u64 - 1);
            assert!(moved.iter().all(|moved| moved.sent_features == features), "{moved:?}");
            // A row goes to a member once, with its number, in the numbers it was computed in.
            let row = 8 + positions * width * bytes;
            assert!(moved.iter().all(|moved| moved.sent_rows % row == 0), "{moved:?}");
            let sent: u64 = moved.iter().map(|moved| moved.sent_rows / row).sum();
            assert!(0 < sent && sent <= batch, "{sent} rows for {batch} negatives");
            // Nothing else is read from the device than what a member alone reads, and those rows.
            let read: u64 = moved.iter().map(|moved| moved.to_host).sum();
            assert!(read <= alone.to_host + sent * (row - 8), "{read} of {}", alone.to_host);
        }
    }
}

#[test]
fn evaluation_gives_the_same_bits_whatever_the_number_of_members_and_changes_none() {
    let plain = config(4, 8);
    let mut evaluated = plain.clone();
    evaluated.eval.every_steps = 1;
    evaluated.eval.data = vec![small::assets("corpus/test-*.parquet")];
    // Three units, of which the last is smaller; the odd row of a fourth is left out.
    evaluated.eval.rows = 41;
    let (without, alone) = (train(&plain, 1).remove(0), train(&evaluated, 1).remove(0));
    assert!(alone.1 == without.1, "parameters");
    // Four losses, six recalls and the rows in each of two steps; a loss and the rows in two others.
    assert_eq!(alone.0.len(), without.0.len() + 2 * 11 + 2 * 2);
    assert!(alone.0.iter().all(|value| value.is_finite()), "{:?}", alone.0);
    for members in [2, 4] {
        assert_all_like(&alone, &evaluated, members);
    }
}

#[test]
fn one_two_and_four_members_train_the_same_bits_over_a_bf16_wire() {
    let mut config = config(4, 8);
    config.stages.iter_mut().for_each(|stage| stage.steps = 1);
    let exact = train(&config, 1).remove(0);
    config.train.wire = Wire::Bf16;
    let alone = train(&config, 1).remove(0);
    assert!(alone.1 != exact.1, "rounded gradients train other parameters");
    for members in [2, 4] {
        assert_all_like(&alone, &config, members);
    }
}

#[test]
fn one_two_and_four_members_train_the_same_bits_in_bf16() {
    let exact = train(&config(4, 8), 1).remove(0);
    let mut config = config(4, 8);
    config.train.compute = Compute::Bf16;
    let computed = train(&config, 1).remove(0);
    assert!(computed.1 != exact.1, "products in bf16 train other parameters");
    assert_all_like(&computed, &config, 2);
    // Features are bf16 too, and travel so.
    config.model.frozen_dtype = FrozenDtype::Bf16;
    let kept = train(&config, 1).remove(0);
    assert!(kept.1 != computed.1, "frozen models in bf16 train other parameters");
    for members in [2, 4] {
        assert_all_like(&kept, &config, members);
    }
    for (got, want) in kept.0.iter().zip(&exact.0) {
        assert!((got - want).abs() < 0.05 * want.abs().max(1.0), "{got}, in float32 {want}");
    }
}

/// Stage 2 alone with another language model than OPT.
fn generate_with(language_model: &str) -> WorkerConfig {
    let mut config = config(4, 8);
    config.stages[0].steps = 0;
    config.model.language_model = language_model.into();
    config
}

#[test]
fn an_encoder_decoder_trains_the_same_bits_whatever_the_number_of_members() {
    let config = generate_with(&small::assets("backbones/t5-scenes"));
    let alone = train(&config, 1).remove(0);
    assert!(alone.0.iter().chain([&1.0]).all(|value| value.is_finite()));
    for members in [2, 4] {
        assert_all_like(&alone, &config, members);
    }
    let cut_elsewhere =
        train(&WorkerConfig { train: StepSettings { seed: 7, ..config.train.clone() }, ..config }, 1);
    assert_ne!(cut_elsewhere[0].0, alone.0);
}

#[test]
fn a_llama_trains_the_same_bits_whatever_the_number_of_members() {
    let folder = llama();
    let config = generate_with(&folder.path().display().to_string());
    let alone = train(&config, 1).remove(0);
    assert!(alone.0.iter().all(|value| value.is_finite()));
    assert_all_like(&alone, &config, 2);
}

#[test]
fn dropout_of_the_language_model_does_not_depend_on_the_number_of_members() {
    for (backbone, off, on) in [
        ("opt-tiny", "\"dropout\": 0.0", "\"dropout\": 0.1"),
        ("t5-scenes", "\"dropout_rate\": 0.0", "\"dropout_rate\": 0.1"),
    ] {
        let folder = changed(backbone, off, on);
        let mut config = generate_with(&folder.path().display().to_string());
        config.stages[1].steps = 1;
        let without = train(&config, 1).remove(0);
        let TaskSettings::Generate(generate) = &mut config.stages[1].task else { panic!("the second stage") };
        generate.language_model_dropout = true;
        let alone = train(&config, 1).remove(0);
        assert_ne!(alone.0, without.0, "{backbone}");
        assert_all_like(&alone, &config, 2);
    }
}

#[test]
fn answers_in_all_modes_do_not_depend_on_the_number_of_members() {
    for backbone in ["backbones/opt-tiny", "backbones/t5-scenes"] {
        let folder = tempfile::tempdir().unwrap();
        let mut config = asked::config(folder.path(), backbone, 4, 8);
        (config.eval.data, config.eval.rows, config.eval.every_steps) = (config.data.train.clone(), 32, 1);
        for mode in [AnswerMode::Sample, AnswerMode::Weighted, AnswerMode::Majority] {
            let TaskSettings::Vqa(vqa) = &mut config.stages[2].task else { panic!("the last stage answers") };
            (vqa.answers, vqa.answer_rows, vqa.qformer_text) = (mode, 2, QFormerText::Prompt);
            // With adapters of the language model in one of them.
            vqa.lora.rank = if mode == AnswerMode::Weighted { 2 } else { 0 };
            let alone = train(&config, 1).remove(0);
            assert!(alone.0.iter().all(|value| value.is_finite()), "{backbone} {mode:?}: {:?}", alone.0);
            assert_all_like(&alone, &config, 2);
        }
    }
}

#[test]
fn instructions_do_not_depend_on_the_number_of_members() {
    for backbone in ["backbones/opt-tiny", "backbones/t5-scenes"] {
        let folder = tempfile::tempdir().unwrap();
        let mut config = instructed::config(folder.path(), backbone, 4, 8);
        (config.eval.data, config.eval.rows, config.eval.every_steps) = (config.data.train.clone(), 80, 1);
        let alone = train(&config, 1).remove(0);
        assert!(alone.0.iter().all(|value| value.is_finite()), "{backbone}: {:?}", alone.0);
        for members in [2, 4] {
            assert_all_like(&alone, &config, members);
        }
        // Other words, another result.
        let TaskSettings::Instruct(instruct) = &mut config.stages[2].task else {
            panic!("the last instructs")
        };
        instruct.caption_templates = vec!["a caption:".into()];
        let reworded = train(&config, 1).remove(0);
        assert_ne!(reworded.1, alone.1, "{backbone}");
        // Adapters begin as nothing, but sums of few rows are taken in another order beside them.
        let TaskSettings::Instruct(instruct) = &mut config.stages[2].task else {
            panic!("the last instructs")
        };
        instruct.lora = LoraSettings { rank: 2, dropout: 0.1, ..LoraSettings::default() };
        let adapted = train(&config, 1).remove(0);
        let (first, without) = (adapted.0[0], reworded.0[0]);
        assert!((first - without).abs() < 1e-6 * without.abs(), "{backbone}: {first} and {without}");
        assert!(adapted.1.len() > reworded.1.len() && adapted.0 != reworded.0, "{backbone}");
        for members in [2, 4] {
            assert_all_like(&adapted, &config, members);
        }
    }
}

#[test]
fn adapters_train_the_same_bits_whatever_the_number_of_members() {
    for (backbone, targets) in
        [("backbones/opt-tiny", &["q_proj", "fc2"][..]), ("backbones/t5-scenes", &["q", "wo"])]
    {
        let mut config = generate_with(&small::assets(backbone));
        config.stages[1].steps = 3;
        let without = train(&config, 1).remove(0);
        let TaskSettings::Generate(generate) = &mut config.stages[1].task else { panic!("the second stage") };
        let targets = targets.iter().map(|target| (*target).to_owned()).collect();
        generate.lora = LoraSettings { rank: 4, alpha: 8.0, dropout: 0.1, targets };
        let alone = train(&config, 1).remove(0);
        // They begin as nothing, and are trained from the first step on.
        assert_eq!(alone.0[0].to_bits(), without.0[0].to_bits(), "{backbone}");
        assert!(alone.1.len() > without.1.len() && alone.0 != without.0, "{backbone}");
        for members in [2, 4] {
            assert_all_like(&alone, &config, members);
        }
    }
}

#[test]
fn one_slot_of_n_has_the_loss_of_n_slots_of_one() {
    let mut whole = config(1, 4);
    whole.model.qformer.dropout = 0.0;
    let mut cut = config(4, 4);
    cut.model.qformer.dropout = 0.0;
    // One part of the plan for each slot gives the slots other rows; the same rows need the same plan, so
    // the losses of both are compared on the corpus' first four rows.
    let rows = first_rows(4);
    whole.data.train = vec![rows.path().join("*.parquet").display().to_string()];
    cut.data.train = whole.data.train.clone();
    for config in [&mut whole, &mut cut] {
        config.stages.iter_mut().for_each(|stage| stage.steps = 1);
        (config.data.crop_scale, config.data.flip) = ([1.0, 1.0], false);
    }
    let (whole, cut) = (train(&whole, 1).remove(0), train(&cut, 2).remove(0));
    // Negatives are drawn by the sample's place, which differs; contrast, captioning and the second stage do
    // not.
    for index in [1, 3, 7] {
        let (whole, cut) = (whole.0[index], cut.0[index]);
        assert!((whole - cut).abs() < 1e-5 * whole.abs().max(1.0), "value {index}: {whole} and {cut}");
    }
}

/// A small Llama of waves with the tokenizer of `opt-tiny`, whose keys are shared by heads.
fn llama() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = serde_json::json!({
        "model_type": "llama", "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 4096, "max_position_embeddings": 64,
        "bos_token_id": 2, "eos_token_id": 0, "tie_word_embeddings": true,
    });
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let tokenizer = small::assets("backbones/opt-tiny/tokenizer.json");
    std::fs::copy(tokenizer, folder.path().join("tokenizer.json")).unwrap();
    let config: LlamaConfig = serde_json::from_value(config).unwrap();
    let layout = FlatLayout::of(&mut LanguageModel::zeros(&config, &Device::flex()).unwrap()).unwrap();
    let bytes: Vec<u8> =
        (0..layout.len()).flat_map(|i| ((i as f32 * 0.7311).sin() * 0.2).to_le_bytes()).collect();
    let views = layout.tensors().iter().map(|tensor| {
        let range = 4 * tensor.range().start..4 * tensor.range().end;
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), &bytes[range]).unwrap();
        (tensor.name.as_str(), view)
    });
    safetensors::serialize_to_file(views, None, &folder.path().join("model.safetensors")).unwrap();
    folder
}

/// A backbone with one setting changed.
fn changed(backbone: &str, from: &str, to: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["tokenizer.json", "model.safetensors"] {
        std::fs::copy(small::assets(&format!("backbones/{backbone}/{file}")), folder.path().join(file))
            .unwrap();
    }
    let config =
        std::fs::read_to_string(small::assets(&format!("backbones/{backbone}/config.json"))).unwrap();
    assert!(config.contains(from), "{backbone} has another setting");
    std::fs::write(folder.path().join("config.json"), config.replace(from, to)).unwrap();
    folder
}

/// A folder with the first rows of the corpus in one row group.
fn first_rows(count: usize) -> tempfile::TempDir {
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    let folder = tempfile::tempdir().unwrap();
    let source = std::fs::File::open(small::assets("corpus/train-00000.parquet")).unwrap();
    let mut reader = ParquetRecordBatchReaderBuilder::try_new(source).unwrap().build().unwrap();
    let batch = reader.next().unwrap().unwrap().slice(0, count);
    let target = std::fs::File::create(folder.path().join("rows.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(target, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    folder
}
