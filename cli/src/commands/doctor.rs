//! `doctor`: whether this machine, its store and its network are as a run needs them, before it is begun.
//!
//! The checks are [`blip2_doctor`]'s, and two that need a run's own words: its models and its coordinator.

mod cluster;
mod models;

use std::net::SocketAddr;
use std::path::PathBuf;

use blip2_cost::plan::Plan;
use blip2_doctor::check::{Finding, State};
use blip2_doctor::machine::Machine;
use blip2_doctor::{data, device, ports, proxies, store};
use blip2_proto::transport::listening;
use blip2_run::exit::Exit;
use clap::Args;
use serde_json::json;

use super::plan::{ClusterArguments, planned};
use super::{print_json, print_text};
use crate::config::{ConfigArguments, RunConfig, load};
use crate::error::CliError;
use crate::run_folder::local_path;
use crate::tls::TlsArguments;
use crate::token::fresh_token;

#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Coordinator that workers of this machine are to join: whether it answers, with this token and these
    /// certificates.
    #[arg(long, value_name = "URL")]
    coordinator: Option<String>,
    /// File with the run token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsArguments,
    /// Address that a process of this machine is to listen on; may be repeated.
    #[arg(long, value_name = "ADDR", value_parser = listening, default_values = ["127.0.0.1:7100", "127.0.0.1:7200"])]
    listen: Vec<SocketAddr>,
    /// Workers of this machine.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024), value_name = "N")]
    workers: u32,
    /// Print one JSON line.
    #[arg(long)]
    json: bool,
}

/// Asks everything, prints the answers, and ends with 0 where none is red.
///
/// It writes nothing but an object in `run.root`, which it removes.
pub(crate) async fn run(arguments: DoctorArguments) -> Result<Exit, CliError> {
    let config = load(&arguments.config)?.config;
    let findings = examine(&config, &arguments, &Machine::this()).await?;
    let is_red = findings.iter().any(|finding| finding.state == State::Red);
    match arguments.json {
        true => print_json(&json!({ "ok": !is_red, "checks": findings }))?,
        false => print_text(&findings.iter().map(Finding::shown).collect::<String>())?,
    }
    Ok(if is_red { Exit::Failed } else { Exit::Done })
}

/// All findings, in the order in which a run meets them.
async fn examine(
    config: &RunConfig,
    arguments: &DoctorArguments,
    machine: &Machine,
) -> Result<Vec<Finding>, CliError> {
    // What cannot be planned is no fault by itself: the check that misses it says so.
    let plan = planned(config, &ClusterArguments::default()).map_err(|error| error.to_string());
    let plan = plan.as_ref().map_err(String::as_str);
    let root = local_path(&config.run.root).filter(|_| !config.run.root.is_empty());
    let probe = format!("doctor-{}", &fresh_token()?[..16]);
    let mut findings = store::examine(&config.run.root, root.as_deref(), &probe).await;
    let patterns: Vec<String> = config.data.corpus().into_iter().flat_map(|source| source.files).collect();
    findings.extend(data::examine(&patterns, &config.columns(), plan.map(Plan::read_rate)).await);
    findings.push(models::examine(config).await);
    if let Some(address) = &arguments.coordinator {
        let tls = arguments.tls.clone().over(config.tls.clone());
        findings.extend(cluster::examine(address, tls, arguments.token_file.as_deref()).await);
    }
    findings.extend(device::examine(&config.train.device));
    let workers = f64::from(arguments.workers);
    findings.push(machine.memory(plan.map(|plan| memory(plan, config) * workers)));
    let checkpoints = plan.map_or(0.0, |plan| plan.stored_checkpoints().0);
    let cache = Some(&config.loader.disk_cache).filter(|cache| !cache.is_empty()).map(PathBuf::from);
    let cached = config.loader.disk_cache_bytes as f64 * workers;
    let places = [(root, checkpoints, "checkpoints"), (cache, cached, "the loader's cache")];
    let here = places.into_iter().filter_map(|(folder, bytes, what)| Some((folder?, bytes, what)));
    findings.push(machine.disk(&here.collect::<Vec<_>>()));
    let members = config.coordinator.workers.max(config.coordinator.max_workers);
    findings.push(machine.descriptors(u64::from(members), config.loader.read_concurrency as u64));
    findings.push(machine.shared_memory());
    findings.push(ports::examine(&arguments.listen));
    findings.push(proxies::examine(&machine.environment, arguments.coordinator.as_deref()));
    Ok(findings)
}

/// Bytes that a worker takes of this machine's memory.
fn memory(plan: &Plan, config: &RunConfig) -> f64 {
    // On the processor the models and what passes keep are the host's as well, in float32.
    let on_host = config.train.device == "cpu";
    let stages = plan.stages.iter().map(|stage| {
        let device = &stage.device;
        let on_device = 2.0 * (device.frozen.0 + device.activations.0) + device.trained.0 + device.gradient.0;
        stage.host.worker.0 + if on_host { on_device } else { 0.0 }
    });
    stages.fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use clap::Parser as _;

    use super::*;
    use crate::config::Layers;

    #[derive(Debug, clap::Parser)]
    struct Typed {
        #[command(flatten)]
        doctor: DoctorArguments,
    }

    /// The quick start's configuration on the repository's files, with a root of its own.
    fn config(root: &Path, set: &[&str]) -> RunConfig {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut layers = Layers::new().unwrap();
        layers.apply_file(&repository.join("configs/quickstart.toml")).unwrap();
        let place = |key: &str, path: &str| format!("{key}={}", repository.join(path).display());
        let mut all = vec![
            format!("run.root={}", root.display()),
            format!("data.train=[\"{}\"]", repository.join("assets/corpus/train-00000.parquet").display()),
            place("model.image_encoder", "assets/backbones/eva-tiny"),
            place("model.language_model", "assets/backbones/opt-tiny"),
            place("model.qformer_tokenizer", "assets/backbones/qformer-tokenizer"),
        ];
        all.extend(set.iter().map(|word| (*word).to_owned()));
        layers.apply_arguments(&all).unwrap();
        layers.finish().unwrap().config
    }

    fn typed(words: &[&str]) -> DoctorArguments {
        Typed::try_parse_from(["test"].iter().chain(words)).unwrap().doctor
    }

    fn found<'a>(findings: &'a [Finding], name: &str) -> &'a Finding {
        findings.iter().find(|finding| finding.name == name).unwrap_or_else(|| panic!("no check {name}"))
    }

    #[tokio::test]
    async fn a_machine_that_is_ready_is_green_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("runs/mine");
        let arguments = typed(&["--listen", "127.0.0.1:0"]);
        let machine = Machine { environment: Vec::new(), ..Machine::this() };
        let findings = examine(&config(&root, &[]), &arguments, &machine).await.unwrap();
        let red: Vec<_> = findings.iter().filter(|finding| finding.state == State::Red).collect();
        assert!(red.is_empty(), "{red:?}");
        // The probe is gone, and so are the folders that were made for it.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let text: String = findings.iter().map(Finding::shown).collect();
        assert!(text.contains("green   conditional write"), "{text}");
    }

    #[tokio::test]
    async fn what_is_wrong_is_red_with_its_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a-file");
        std::fs::write(&file, "no folder").unwrap();
        let set = [
            "data.train=[\"/nothing/here.parquet\"]",
            "model.image_encoder=/nothing",
            "train.device=cuda:77",
        ];
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let nobody = "http://127.0.0.1:9";
        let arguments = typed(&["--listen", &address, "--coordinator", nobody]);
        let findings = examine(&config(&file, &set), &arguments, &Machine::this()).await.unwrap();
        for name in ["store", "data", "models", "coordinator", "device", "ports"] {
            let finding = found(&findings, name);
            assert_eq!(finding.state, State::Red, "{finding:?}");
            assert!(finding.remedy.is_some() && finding.shown().contains("remedy: "), "{finding:?}");
        }
        let json = serde_json::to_value(found(&findings, "ports")).unwrap();
        assert_eq!((json["state"].as_str(), json["name"].as_str()), (Some("red"), Some("ports")));
    }

    #[test]
    fn on_the_processor_models_are_the_host_s_memory_too() {
        let mut config = config(Path::new("/runs/mine"), &["train.device=cuda"]);
        let plan = planned(&config, &ClusterArguments::default()).unwrap();
        let beside = memory(&plan, &config);
        config.train.device = "cpu".into();
        assert!(beside >= plan.host_memory().0 && memory(&plan, &config) > beside);
    }

    #[test]
    fn every_check_has_a_row_in_the_documents() {
        let page = include_str!("../../../docs/doctor.md");
        let all: Vec<_> =
            blip2_doctor::checks().chain(models::CHECKS.iter().chain(cluster::CHECKS).copied()).collect();
        let names: BTreeSet<&str> = all.iter().map(|check| check.name).collect();
        assert_eq!(names.len(), all.len(), "a name is there twice");
        for check in all {
            assert!(page.contains(&format!("| {} |", check.name)), "docs/doctor.md lacks `{}`", check.name);
            assert!(check.asks.ends_with('?') && !check.remedy.is_empty(), "{}", check.name);
        }
    }
}
