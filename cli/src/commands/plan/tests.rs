//! The paper's runs, figure by figure.

use std::path::Path;

use blip2_cost::prediction::{Bottleneck, implied_mfu};
use blip2_cost::step::Bound;
use blip2_cost::workload::Model;
use blip2_model::by_name;
use blip2_model::objectives::flops::image_encoder;
use clap::Parser as _;

use super::*;
use crate::config::Layers;

/// What a card of the paper computes in bf16.
const A100: OperationsPerSecond = OperationsPerSecond(312e12);

fn config(preset: &str, set: &[&str]) -> RunConfig {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    let mut layers = Layers::new().unwrap();
    layers.apply_file(&folder.join(preset)).unwrap();
    let set: Vec<String> = set.iter().map(|word| (*word).to_owned()).collect();
    layers.apply_arguments(&set).unwrap();
    layers.finish().unwrap().config
}

fn of_preset(preset: &str, set: &[&str], typed: &ClusterArguments) -> Plan {
    planned(&config(preset, set), typed).unwrap_or_else(|error| panic!("{preset}: {error}"))
}

fn paper(network: &str) -> ClusterArguments {
    ClusterArguments { network: BytesPerSecond::parse(network).ok(), ..ClusterArguments::default() }
}

/// Whether two figures agree as far as a table shows them.
fn near(found: f64, want: f64, share: f64) {
    assert!((found / want - 1.0).abs() <= share, "{found}, not {want}");
}

/// How the presets begin whose models are published ones.
const PUBLISHED: [&str; 5] = ["pretrain-", "caption-", "instruct-", "retrieval-", "vqa-"];
const STAGE_1: &str = "pretrain-stage1-vit-g.toml";
const STAGE_2: &str = "pretrain-stage2-vit-g-flan-t5-xxl.toml";

#[test]
fn the_paper_s_first_stage() {
    let plan = of_preset(STAGE_1, &["train.compute=bf16"], &paper("25Gbps"));
    let [stage] = &plan.stages[..] else { panic!("one stage") };
    let of = |model| {
        let own = stage.parts.iter().filter(|part| part.model == model);
        own.map(|part| part.operations.0).sum::<f64>() / stage.batch as f64 / 1e12
    };
    near(of(Model::ImageEncoder), 0.521, 1e-3);
    // Eight passes: queries, text, three of both, the caption behind the queries, and keys and values of two
    // images.
    near(of(Model::QFormer), 0.197, 1e-3);
    assert_eq!((stage.samples, stage.steps, plan.cluster.workers), (420_000_000, 250_000, 16));
    near(stage.operations.0, 3.015e20, 1e-3);
    // The paper: less than six days on 16 A100.
    let bound = Seconds::of_days(6.0);
    near(implied_mfu(stage.operations, bound, 16.0, A100), 0.1165, 1e-3);
    near(bound.0 / stage.steps as f64, 2.0736, 1e-9);
    near(bound.hours() * 16.0, 2304.0, 1e-9);
    near(stage.operations.0 / (16.0 * A100.0) / 86_400.0, 0.699, 1e-2);
    // Counted tensor by tensor.
    assert_eq!((stage.trained, stage.gradient.bytes), (186_705_470, Bytes(746_821_880.0)));
    near(stage.gradient.sum.0, 0.45, 1e-2);
    near(stage.checkpoints.bytes.0, 2.24e9, 1e-3);
    near(stage.read.0, 10.5e12, 1e-9);
    near(stage.read.0 / bound.0, 20e6, 0.02);
    // 16 cards sum in as many slots: one subtree each.
    assert_eq!((plan.cluster.most_slots, plan.cluster.partial_sums), (1, 1));
    // With products in bf16 at the assumed share of the peak the paper's time is kept, and the encoder bounds
    // it.
    assert!(stage.time < bound, "{:?}", stage.time);
    let of_encoder = Bottleneck::Model(Model::ImageEncoder, Bound::Products(blip2_cost::card::Numbers::Bf16));
    assert_eq!(stage.bottleneck, of_encoder);
    assert!(stage.gradient.exposed < stage.gradient.sum, "{:?}", stage.gradient);
}

#[test]
fn the_first_stage_as_the_preset_has_it_is_bound_by_products_in_float32() {
    let plan = of_preset(STAGE_1, &[], &paper("25Gbps"));
    let stage = &plan.stages[0];
    let of_qformer = Bottleneck::Model(Model::QFormer, Bound::Products(blip2_cost::card::Numbers::F32));
    assert_eq!(stage.bottleneck, of_qformer);
    assert!(stage.time > Seconds::of_days(6.0));
    let text = words::shown(&plan);
    assert!(text.contains("train.compute = \"bf16\""), "{text}");
}

#[test]
fn adapters_are_counted_without_their_model_s_folder() {
    let adapted = "stages.generate.lora.rank=16";
    let plan = |set: &[&str]| of_preset(STAGE_2, set, &paper("25Gbps")).stages.remove(0);
    let (plain, with) = (plan(&[]), plan(&[adapted]));
    // Queries and values of 24 layers that read, and of 24 that write, there of the text and of what is read:
    // 144 maps of 4096 by 4096.
    assert_eq!(with.trained - plain.trained, 144 * 16 * (4096 + 4096));
    // 64 positions are read, 32 written; each map is passed forward once and back twice.
    let rows = 48.0 * 64.0 + 48.0 * 32.0 + 24.0 * 32.0 + 24.0 * 64.0;
    let wanted = 3.0 * 2.0 * rows * 16.0 * (4096.0 + 4096.0);
    near(with.operations_of_pair.0 - plain.operations_of_pair.0, wanted, 1e-6);
    assert!(with.gradient.bytes > plain.gradient.bytes && with.checkpoints.bytes > plain.checkpoints.bytes);
    let parts: Vec<&str> = with.parts.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(parts.iter().filter(|name| **name == "adapters").count(), 2, "{parts:?}");
    let error =
        planned(&config(STAGE_2, &[adapted, "stages.generate.lora.targets=[\"q_proj\"]"]), &paper("25Gbps"));
    assert!(error.is_err_and(|error| error.to_string().contains("q_proj")), "a map that T5 does not have");
}

#[test]
fn a_slow_network_shows() {
    let at = |network: &str, set: &[&str]| of_preset(STAGE_1, set, &paper(network)).stages.remove(0).gradient;
    let slow = at("10Gbps", &["train.compute=bf16"]);
    near(slow.sum.0, 1.13, 1e-2);
    assert!(slow.exposed > at("25Gbps", &["train.compute=bf16"]).exposed);
    near(at("25Gbps", &["train.wire=bf16"]).sum.0, 0.225, 1e-2);
    let apart = at("10Gbps", &["train.compute=bf16", "train.overlap=false"]);
    assert_eq!((apart.hidden, apart.exposed), (Seconds(0.0), apart.whole));
}

#[test]
fn the_paper_s_second_stage() {
    let plan = of_preset(STAGE_2, &["train.compute=bf16"], &paper("25Gbps"));
    let [stage] = &plan.stages[..] else { panic!("one stage") };
    assert_eq!((stage.samples, stage.steps), (121_600_000, 80_000));
    // 32 queries and 32 tokens are read, 32 are written, padding among them: what this program computes.
    near(stage.operations_of_pair.0, 2.667e12, 1e-3);
    let bound = Seconds::of_days(3.0);
    near(implied_mfu(stage.operations, bound, 16.0, A100), 0.2506, 1e-3);
    near(bound.0 / stage.steps as f64, 3.24, 1e-9);
    near(bound.hours() * 16.0, 1152.0, 1e-9);
    // Without padding, where half a caption is read and half is written, or all of it is written: 1.96 TFLOP
    // a pair.
    let language = by_name::language_model("flan-t5-xxl").unwrap();
    let encoder = image_encoder(&by_name::image_encoder("eva-vit-g").unwrap()).forward as f64;
    let prompt: f64 =
        stage.parts.iter().filter(|part| part.model == Model::QFormer).map(|part| part.operations.0).sum();
    for (read, written) in [(32, 32), (48, 16)] {
        let pair = encoder + prompt / stage.batch as f64 + language.flops(read, written).total() as f64;
        near(pair, 1.96e12, 5e-3);
        near(pair * stage.samples as f64, 2.39e20, 5e-3);
        let mfu = pair * stage.samples as f64 / (bound.0 * 16.0 * A100.0);
        near(mfu, 0.184, 5e-3);
    }
    // The largest micro-batch is smaller than the preset's 95 pairs, and 1520 pairs are cut in 16 at most.
    assert!(!stage.device.fits() && stage.largest.slots.is_none(), "{:?}", stage.largest);
    let (batch, slots) = stage.largest.other_batch.unwrap();
    assert!(batch < 1520 && batch / slots <= stage.largest.pairs, "{:?}", stage.largest);
    let text = words::shown(&plan);
    assert!(text.contains("DOES NOT FIT") && text.contains(&format!("train.slots = {slots}")), "{text}");
}

#[test]
fn every_preset_can_be_planned_without_its_models() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    let names =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut planned_ones = 0;
    for name in names.filter(|name| PUBLISHED.iter().any(|begins| name.starts_with(begins))) {
        let plan = of_preset(&name, &[], &ClusterArguments::default());
        assert!(plan.total.time > Seconds(0.0) && plan.requests.worker.memory_gib > 0, "{name}");
        assert!(serde_json::to_value(&plan).unwrap()["stages"][0]["step"].as_f64().unwrap() > 0.0);
        planned_ones += 1;
    }
    assert_eq!(planned_ones, 11);
}

#[test]
fn a_trained_encoder_is_counted_with_its_way_back() {
    let plan = of_preset("retrieval-coco-vit-g.toml", &[], &ClusterArguments::default());
    let stage = &plan.stages[0];
    // The encoder's 986 M numbers beside the Q-Former's 187 M.
    near(stage.trained as f64, 1.173e9, 1e-2);
    let of_encoder: Vec<_> = stage.parts.iter().filter(|part| part.model == Model::ImageEncoder).collect();
    let [forward, again, back] = &of_encoder[..] else { panic!("{of_encoder:?}") };
    assert_eq!((again.operations, back.operations), (forward.operations, forward.operations * 2.0));
    // What is computed once more is time, and no operation that the step needs.
    let all: f64 = stage.parts.iter().map(|part| part.operations.0).sum();
    near(stage.operations_of_pair.0 * stage.batch as f64, all - again.operations.0, 1e-9);
    assert!(stage.device.frozen == Bytes(0.0) && stage.device.trained > Bytes(9e9));
}

#[test]
fn a_folder_s_own_configuration_comes_before_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("eva-vit-g");
    std::fs::create_dir(&place).unwrap();
    let section = r#"{"model_type": "blip_2_vision_model", "hidden_act": "gelu", "qkv_bias": true, "hidden_size": 704,
        "num_attention_heads": 8, "num_hidden_layers": 39, "intermediate_size": 3072}"#;
    std::fs::write(place.join("config.json"), section).unwrap();
    let set = format!("model.image_encoder={}", place.display());
    let own = of_preset(STAGE_1, &[&set], &ClusterArguments::default());
    let published = of_preset(STAGE_1, &[], &ClusterArguments::default());
    assert!(own.stages[0].operations.0 < 0.6 * published.stages[0].operations.0);
    let of =
        |set: &str| planned(&config(STAGE_1, &[set]), &ClusterArguments::default()).unwrap_err().to_string();
    let error = of("model.image_encoder=models/mine");
    assert!(
        error.contains("model.image_encoder = \"models/mine\"") && error.contains("eva-vit-g"),
        "{error}"
    );
    let error = planned(&config(STAGE_2, &["model.language_model=mine"]), &ClusterArguments::default());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("model.language_model") && error.contains("flan-t5-xxl"), "{error}");
}

#[test]
fn cards_are_named_or_described() {
    #[derive(clap::Parser)]
    struct Typed {
        #[command(flatten)]
        cluster: ClusterArguments,
    }
    let typed = |words: &str| {
        let words = ["test"].into_iter().chain(words.split_whitespace());
        Typed::try_parse_from(words).map(|typed| typed.cluster).map_err(|error| error.to_string())
    };
    let card = |words: &str| chosen_card(&typed(words).unwrap());
    assert_eq!(card("").unwrap().name, "a100-40g");
    assert_eq!(card("--gpu H100").unwrap().bf16, OperationsPerSecond(989e12));
    let own = card("--peak-tflops 100 --memory 32GB --bandwidth 1TB/s").unwrap();
    assert_eq!((own.name.as_str(), own.f32, own.memory), ("own", OperationsPerSecond(1e14), Bytes(32e9)));
    assert_eq!(card("--gpu h100 --memory 94GB").unwrap().memory, Bytes(94e9));
    let error = card("--gpu mi300x").unwrap_err().to_string();
    assert!(error.contains("mi300x") && error.contains("h200") && error.contains("--peak-tflops"), "{error}");
    assert!(typed("--network 25").unwrap_err().contains("25Gbps"));
    assert!(typed("--mfu 1.5").is_err() && typed("--mfu 0").is_err());
}

#[test]
fn more_workers_than_slots_are_refused() {
    let typed = ClusterArguments { gpus: Some(17), ..ClusterArguments::default() };
    let error = planned(&config(STAGE_1, &[]), &typed).unwrap_err();
    assert!(error.to_string().contains("17 workers for 16 slots (train.slots)"), "{error}");
    assert_eq!(error.exit(), Exit::Usage);
    let nothing = planned(&config(STAGE_1, &["stage1.steps=0"]), &ClusterArguments::default()).unwrap_err();
    assert_eq!(nothing.exit(), Exit::BadConfig);
    // Workers that do not divide the slots: the busiest decides, and sends two sums.
    let three = ClusterArguments { gpus: Some(3), ..ClusterArguments::default() };
    let cluster = planned(&config(STAGE_1, &[]), &three).unwrap().cluster;
    assert!(cluster.most_slots == 6 && cluster.partial_sums > 1, "{cluster:?}");
}
