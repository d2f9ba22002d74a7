//! The manifests of `k8s/`, as `kubectl` renders them, against what a run needs of them and what a cluster
//! must not be asked for.
//!
//! Schemas know neither the program nor how objects belong together; these policies do. Each is shown to fail
//! on a fault that is planted. `tests/manifests` fetches `kubectl` and runs this; without it the tests say
//! that they are skipped. No API server takes part.

mod images;
mod monitors;
mod names;
mod places;
mod planted;
mod pods;
mod rendered;
mod running;
mod standard;

use std::collections::{BTreeMap, BTreeSet};

use blip2_tests::need::Need;
use rendered::{Rendered, folders, text};

/// What is wrong with rendered objects; empty where nothing is.
type Policy = fn(&Rendered) -> Vec<String>;

/// Every policy with its name.
const POLICIES: [(&str, Policy); 13] = [
    ("probes", pods::probes),
    ("jobs", pods::jobs),
    ("exit codes", pods::exit_codes),
    ("resources", pods::resources),
    ("commands", names::commands),
    ("coordinators are found", names::coordinators),
    ("configuration", names::configuration),
    ("numbers of members", names::members),
    ("selectors", places::selectors),
    ("ports", places::ports),
    ("monitors", monitors::monitors),
    ("volumes", places::volumes),
    ("restricted standard", standard::restricted),
];

#[test]
fn what_is_rendered_keeps_every_policy() {
    let mut faults = Vec::new();
    for folder in folders() {
        let Some(rendered) = Rendered::of(&folder) else {
            Need::Kubectl.skip();
            return;
        };
        for (name, policy) in POLICIES {
            faults.extend(policy(&rendered).into_iter().map(|fault| format!("{folder}: {name}: {fault}")));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_policy_fails_on_what_it_forbids() {
    let mut whole: BTreeMap<&str, Rendered> = BTreeMap::new();
    let mut caught = BTreeSet::new();
    for fault in planted::FAULTS {
        if !whole.contains_key(fault.folder) {
            let Some(rendered) = Rendered::of(fault.folder) else {
                Need::Kubectl.skip();
                return;
            };
            whole.insert(fault.folder, rendered);
        }
        let mut rendered = whole[fault.folder].clone();
        rendered.plant(&fault);
        let (name, policy) = POLICIES.iter().find(|(name, _)| *name == fault.policy).expect("a policy");
        assert!(!policy(&rendered).is_empty(), "`{name}` does not see {fault:?}");
        caught.insert(fault.policy);
    }
    assert_eq!(caught.len(), POLICIES.len(), "each policy has a fault that it catches: {caught:?}");
}

#[test]
fn a_run_s_name_is_in_the_names_of_its_objects_and_no_hash_of_their_content() {
    for folder in folders() {
        let Some(rendered) = Rendered::of(&folder) else {
            Need::Kubectl.skip();
            return;
        };
        for object in rendered.objects() {
            let name = text(object, "/metadata/name");
            let instance = text(object, "/metadata/labels/app.kubernetes.io~1instance");
            let of_a_run = folder.contains("/overlays/");
            assert_eq!(of_a_run, !instance.is_empty(), "{folder}: {name} is of a run");
            assert!(!of_a_run || name.ends_with(&format!("-{instance}")), "{folder}: {name} of {instance}");
        }
        // A template that names content by a hash could not be applied once the content is another.
        let configured = rendered.objects_of("ConfigMap").map(|object| text(object, "/metadata/name"));
        for name in configured {
            let known = ["blip2-run", "blip2-curation"].iter().any(|known| {
                name.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
            });
            assert!(known && !name.rsplit('-').next().is_some_and(is_a_hash), "{folder}: {name}");
        }
    }
}

/// Ten letters and digits, as Kustomize hashes content.
fn is_a_hash(word: &str) -> bool {
    word.len() == 10 && word.bytes().any(|byte| byte.is_ascii_digit())
}

#[test]
fn every_component_is_used_and_every_secret_and_claim_is_explained() {
    let read =
        |path: String| std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let repository = blip2_tests::process::repository().display().to_string();
    let overlays: String = folders()
        .iter()
        .filter(|folder| folder.contains("/overlays/"))
        .map(|folder| read(format!("{repository}/{folder}/kustomization.yaml")))
        .collect();
    let guide = read(format!("{repository}/docs/kubernetes.md"));
    let components = std::fs::read_dir(format!("{repository}/k8s/components")).expect("there are components");
    for component in components {
        let name = component.expect("a folder").file_name().into_string().expect("UTF-8");
        assert!(overlays.contains(&format!("- ../../components/{name}\n")), "no overlay has {name}");
        assert!(guide.contains(&format!("`{name}`")), "docs/kubernetes.md does not say what {name} is");
    }
    for made_by_hand in places::MADE_BY_HAND {
        assert!(guide.contains(made_by_hand), "docs/kubernetes.md does not say how {made_by_hand} is made");
    }
}
