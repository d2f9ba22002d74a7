//! What the program is told: its command line, its configuration, and where the others are.

use std::collections::BTreeSet;

use blip2_tests::process::{blip2, finish, repository};

use crate::rendered::{Pods, Rendered, text, texts};

/// Where images have `configs/`.
pub(crate) const CONFIGS: &str = "/opt/blip2/configs/";
/// An address of each family.
const ADDRESSES: [&str; 2] = ["10.0.0.7", "fd00::7"];

/// The pods' arguments for each of their places and both families; a variable that is missing is a fault.
fn all_arguments(pods: &Pods<'_>) -> Result<Vec<Vec<String>>, String> {
    let typed = |index| ADDRESSES.map(|address| pods.arguments(index, address));
    (0..pods.places()).flat_map(typed).collect()
}

/// The values of a flag.
fn values<'a>(arguments: &'a [String], flag: &str) -> Vec<&'a str> {
    let begin = format!("{flag}=");
    arguments.iter().filter_map(|argument| argument.strip_prefix(begin.as_str())).collect()
}

/// What is typed is understood, and every container port is listened on.
pub(crate) fn commands(rendered: &Rendered) -> Vec<String> {
    let mut faults = Vec::new();
    for pods in rendered.pods() {
        match all_arguments(&pods) {
            Ok(all) => {
                for arguments in all {
                    faults.extend(blip2_cli::check_command_line(&arguments).err());
                    let listens = |port: &str| {
                        let end = format!("[::]:{port}");
                        arguments
                            .iter()
                            .any(|argument| argument.contains("listen") && argument.ends_with(&end))
                    };
                    for port in pods.container()["ports"].as_array().into_iter().flatten() {
                        let number = port["containerPort"].to_string();
                        if !listens(&number) {
                            faults.push(format!("{} does not listen on {number}", pods.component()));
                        }
                    }
                }
            }
            Err(fault) => faults.push(format!("{}: {fault}", pods.component())),
        }
    }
    faults
}

/// The names that workers know are those that coordinators say, which are those that the cluster gives.
pub(crate) fn coordinators(rendered: &Rendered) -> Vec<String> {
    let (Some(coordinator), Some(worker)) = (rendered.component("coordinator"), rendered.component("worker"))
    else {
        return Vec::new();
    };
    let flags = |pods: &Pods<'_>, flag: &str| -> BTreeSet<String> {
        let all = all_arguments(pods).unwrap_or_default();
        all.iter().flat_map(|arguments| values(arguments, flag)).map(str::to_owned).collect()
    };
    let hosts = (0..coordinator.places()).filter_map(|index| coordinator.host(index));
    let given: BTreeSet<String> = hosts.map(|host| format!("https://{host}:7100")).collect();
    let (said, known) = (flags(&coordinator, "--advertise"), flags(&worker, "--coordinator"));
    let mut faults = Vec::new();
    if said != given {
        faults.push(format!("coordinators say {said:?}, and are found as {given:?}"));
    }
    if known != given {
        faults.push(format!("workers look for {known:?}, and coordinators are found as {given:?}"));
    }
    faults
}

/// The configuration with what the command line sets, as the program reads it in its image.
fn configuration_of(rendered: &Rendered, pods: &Pods<'_>) -> Result<Option<String>, String> {
    let arguments = pods.arguments(0, ADDRESSES[0])?;
    let Some(path) = values(&arguments, "--config").pop() else { return Ok(None) };
    let (folder, file) = path.rsplit_once('/').ok_or("the configuration is named without its folder")?;
    let mounts = pods.container()["volumeMounts"].as_array().into_iter().flatten();
    let volume = mounts.into_iter().find(|mount| text(mount, "/mountPath") == folder);
    let name = volume.map(|volume| text(volume, "/name")).ok_or("the configuration is not mounted")?;
    let volumes = pods.spec()["volumes"].as_array().into_iter().flatten();
    let map = volumes.into_iter().find(|volume| text(volume, "/name") == name);
    let map = map.map(|volume| text(volume, "/configMap/name")).ok_or("the configuration has no volume")?;
    let map = rendered.object("ConfigMap", map).ok_or_else(|| format!("no ConfigMap {map}"))?;
    let toml = map["data"][file].as_str().ok_or_else(|| format!("the ConfigMap has no {file}"))?;
    if !toml.contains(&format!("base = \"{CONFIGS}")) {
        return Err(format!("{file} is based on no file of the image"));
    }
    let here = toml.replace(CONFIGS, &format!("{}/configs/", repository().display()));
    let mut settings: toml::Table = here.parse().map_err(|error| format!("{file}: {error}"))?;
    for set in values(&arguments, "--set") {
        let (key, value) = set.split_once('=').ok_or("--set without a value")?;
        put(&mut settings, key, value)?;
    }
    Ok(Some(settings.to_string()))
}

/// Puts a text at a key with dots.
fn put(settings: &mut toml::Table, key: &str, value: &str) -> Result<(), String> {
    let Some((section, rest)) = key.split_once('.') else {
        settings.insert(key.to_owned(), value.into());
        return Ok(());
    };
    let inner = settings.entry(section).or_insert_with(|| toml::Table::new().into());
    put(inner.as_table_mut().ok_or_else(|| format!("{section} is no section"))?, rest, value)
}

/// The loader takes the configuration, with the file that it is based on.
pub(crate) fn configuration(rendered: &Rendered) -> Vec<String> {
    let read = |pods: Pods<'_>| {
        let Some(text) = configuration_of(rendered, &pods)? else { return Ok(()) };
        let file = tempfile::NamedTempFile::new().expect("a file for the configuration");
        std::fs::write(&file, text).expect("the configuration is written");
        let path = file.path().to_str().expect("temporary files have UTF-8 names");
        let shown = finish(blip2(&["config", "show", "--config", path]));
        if shown.code == Some(0) { Ok(()) } else { Err(shown.stderr) }
    };
    rendered.pods().into_iter().filter_map(|pods| read(pods).err()).collect()
}

/// The run waits for as many workers as there are places, and goes on with as many as a drain leaves.
pub(crate) fn members(rendered: &Rendered) -> Vec<String> {
    let mut faults = Vec::new();
    for pods in rendered.pods() {
        let shards = all_arguments(&pods).unwrap_or_default();
        let shards = shards.iter().flat_map(|arguments| values(arguments, "--shard"));
        let shards: BTreeSet<(String, String)> = shards
            .filter_map(|share| share.split_once('/'))
            .map(|(index, of)| (index.to_owned(), of.to_owned()))
            .collect();
        let all: BTreeSet<_> =
            (0..pods.places()).map(|index| (index.to_string(), pods.places().to_string())).collect();
        if pods.component() == "curation" && shards != all {
            faults.push(format!("{} pods have the shares {shards:?}", pods.places()));
        }
    }
    let (Some(coordinator), Some(worker)) = (rendered.component("coordinator"), rendered.component("worker"))
    else {
        return faults;
    };
    let toml = configuration_of(rendered, &coordinator).ok().flatten().unwrap_or_default();
    let settings: toml::Table = toml.parse().unwrap_or_default();
    let number = |key: &str| {
        settings.get("coordinator")?.get(key)?.as_integer().and_then(|number| u64::try_from(number).ok())
    };
    if number("workers") != Some(worker.places()) {
        faults.push(format!("coordinator.workers is not {}", worker.places()));
    }
    for (component, least) in [("coordinator", Some(1)), ("worker", number("min_workers"))] {
        let of = |budget: &&serde_json::Value| {
            text(budget, "/spec/selector/matchLabels/app.kubernetes.io~1component") == component
        };
        let Some(budget) = rendered.objects_of("PodDisruptionBudget").find(of) else {
            faults.push(format!("no budget for a {component}"));
            continue;
        };
        let kept = budget["spec"]["minAvailable"].as_u64();
        let places = rendered.component(component).map(|pods| pods.places());
        // Of a number that may be unavailable nothing is known: Jobs have no scale.
        if kept.is_none() || kept < least || kept >= places || budget["spec"].get("maxUnavailable").is_some()
        {
            faults.push(format!(
                "the budget of a {component} keeps {kept:?}, of {places:?} and at least {least:?}"
            ));
        }
    }
    let secrets =
        texts(coordinator.container(), "/args").into_iter().filter(|word| word.contains("--token-file"));
    if secrets.count() != 1 {
        faults.push("a coordinator without a token".to_owned());
    }
    faults
}
