//! What `kubectl kustomize` makes of a folder, and the pods in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use blip2_tests::process::repository;
use serde_json::Value;

use crate::planted::Fault;

/// Names the program.
const KUBECTL: &str = "BLIP2_KUBECTL";

/// The objects of one folder.
#[derive(Debug, Clone)]
pub(crate) struct Rendered {
    objects: Vec<Value>,
}

/// All pods of a Job, or of a Job in a JobSet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pods<'a> {
    /// The object.
    object: &'a Value,
    /// The Job's specification.
    pub(crate) job: &'a Value,
    /// The Job's name in its JobSet.
    replicated: Option<&'a str>,
}

/// The folders of `k8s/` that can be applied, in order.
pub(crate) fn folders() -> Vec<String> {
    let root = repository();
    let mut found = Vec::new();
    let mut ahead = vec![root.join("k8s")];
    while let Some(folder) = ahead.pop() {
        let entries = std::fs::read_dir(&folder).expect("the folder can be read").flatten();
        ahead.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
        let text = std::fs::read_to_string(folder.join("kustomization.yaml")).unwrap_or_default();
        if text.contains("kind: Kustomization") {
            let name = folder.strip_prefix(&root).expect("it lies in the repository");
            found.push(name.display().to_string());
        }
    }
    found.sort_unstable();
    found
}

/// The text at a JSON pointer; empty where there is none.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The list at a JSON pointer; empty where there is none.
pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The texts of the list at a JSON pointer.
pub(crate) fn texts<'a>(value: &'a Value, pointer: &str) -> Vec<&'a str> {
    list(value, pointer).iter().filter_map(Value::as_str).collect()
}

/// Whether a selector's `matchLabels` are those of a pod; one without any is of no use here.
pub(crate) fn selects(labels: Option<&Value>, pod: &Value) -> bool {
    let wanted = labels.and_then(Value::as_object);
    wanted.is_some_and(|wanted| {
        !wanted.is_empty() && wanted.iter().all(|(key, value)| pod.get(key) == Some(value))
    })
}

fn kubectl() -> Option<PathBuf> {
    let named = std::env::var_os(KUBECTL).map(PathBuf::from);
    let on_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join("kubectl")).find(|program| program.is_file())
    };
    named.or_else(on_path)
}

/// What a command prints.
fn printed(program: &Path, arguments: &[&str]) -> Vec<u8> {
    let ended = Command::new(program).args(arguments).current_dir(repository()).output();
    let ended = ended.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    assert!(ended.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ended.stderr));
    ended.stdout
}

impl Rendered {
    /// Renders a folder; `None` where there is no `kubectl`.
    pub(crate) fn of(folder: &str) -> Option<Self> {
        let kubectl = kubectl()?;
        let yaml = tempfile::NamedTempFile::new().expect("a file for the objects");
        std::fs::write(&yaml, printed(&kubectl, &["kustomize", folder])).expect("the objects are written");
        // A patch that changes nothing: the objects as JSON, read by Kubernetes' own reader of YAML.
        let path = yaml.path().to_str().expect("temporary files have UTF-8 names");
        let json = printed(&kubectl, &["patch", "--local", "--type=merge", "-p={}", "-o=json", "-f", path]);
        let objects = serde_json::Deserializer::from_slice(&json).into_iter().collect::<Result<_, _>>();
        Some(Self { objects: objects.expect("kubectl writes JSON") })
    }

    /// All objects.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &Value> {
        self.objects.iter()
    }

    /// The objects of a kind.
    pub(crate) fn objects_of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects().filter(move |object| text(object, "/kind") == kind)
    }

    /// The object of this kind and name.
    pub(crate) fn object(&self, kind: &str, name: &str) -> Option<&Value> {
        self.objects().find(|object| text(object, "/kind") == kind && text(object, "/metadata/name") == name)
    }

    /// The pods of all Jobs.
    pub(crate) fn pods(&self) -> Vec<Pods<'_>> {
        let of_a_job =
            self.objects_of("Job").map(|object| Pods { object, job: &object["spec"], replicated: None });
        let of_a_set = self.objects_of("JobSet").flat_map(|object| {
            list(object, "/spec/replicatedJobs").iter().map(move |job| Pods {
                object,
                job: &job["template"]["spec"],
                replicated: Some(text(job, "/name")),
            })
        });
        of_a_job.chain(of_a_set).collect()
    }

    /// The pods of a component; `None` where the folder has none.
    pub(crate) fn component(&self, name: &str) -> Option<Pods<'_>> {
        self.pods().into_iter().find(|pods| pods.component() == name)
    }

    /// Puts settings before those of the run's configuration.
    pub(crate) fn shorten(&mut self, settings: &str) {
        let mut maps = self.objects.iter_mut().filter(|object| object["kind"] == "ConfigMap");
        let toml = maps.find_map(|map| map["data"].get_mut("run.toml")).expect("a run has a configuration");
        *toml = Value::from(format!("{settings}{}", toml.as_str().expect("text")));
    }

    /// Changes what a fault says.
    pub(crate) fn plant(&mut self, fault: &Fault) {
        let mut matching = self.objects.iter_mut().filter(|object| {
            text(object, "/kind") == fault.kind && text(object, "/metadata/name").starts_with(fault.name)
        });
        let object = matching.next().unwrap_or_else(|| panic!("no object for {fault:?}"));
        let (parent, key) = fault.at.rsplit_once('/').expect("a pointer");
        let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("no place for {fault:?}"));
        let to: Value = serde_json::from_str(fault.to).expect("JSON");
        let key = key.replace("~1", "/");
        match parent {
            Value::Array(items) => {
                let at: usize = key.parse().expect("a place in a list");
                assert_ne!(items[at], to, "{fault:?} changes nothing");
                items[at] = to;
            }
            Value::Object(fields) => {
                let before = if to.is_null() { fields.remove(&key) } else { fields.insert(key, to.clone()) };
                assert_ne!(before.unwrap_or_default(), to, "{fault:?} changes nothing");
            }
            other => panic!("{fault:?} is at {other}"),
        }
    }
}

impl<'a> Pods<'a> {
    /// `coordinator`, `worker`, `curation` or `export`.
    pub(crate) fn component(&self) -> &'a str {
        text(self.labels(), "/app.kubernetes.io~1component")
    }

    /// The labels of a pod.
    pub(crate) fn labels(&self) -> &'a Value {
        self.job.pointer("/template/metadata/labels").unwrap_or(&Value::Null)
    }

    /// What a pod is made of.
    pub(crate) fn spec(&self) -> &'a Value {
        &self.job["template"]["spec"]
    }

    /// The one container.
    pub(crate) fn container(&self) -> &'a Value {
        let containers = list(self.spec(), "/containers");
        assert_eq!(containers.len(), 1, "{} has one container", self.component());
        &containers[0]
    }

    /// How many pods there are at a time.
    pub(crate) fn places(&self) -> u64 {
        self.job["completions"].as_u64().unwrap_or(1)
    }

    /// Name of the Job in the cluster.
    pub(crate) fn job_name(&self) -> String {
        let name = text(self.object, "/metadata/name");
        self.replicated.map_or_else(|| name.to_owned(), |job| format!("{name}-{job}-0"))
    }

    /// The name under which a pod is found; `None` where it has none.
    pub(crate) fn host(&self, index: u64) -> Option<String> {
        let domain = match self.replicated {
            // The domain of a JobSet is called like it where nothing else is said.
            Some(_) => match text(self.object, "/spec/network/subdomain") {
                "" => text(self.object, "/metadata/name"),
                named => named,
            },
            None => text(self.spec(), "/subdomain"),
        };
        (!domain.is_empty()).then(|| format!("{}-{index}.{domain}", self.job_name()))
    }

    /// Whether the domain is one that the cluster's JobSet makes.
    pub(crate) fn has_own_domain(&self) -> bool {
        self.replicated.is_some()
    }

    /// The arguments of the pod of an index as its process gets them.
    pub(crate) fn arguments(&self, index: u64, pod_ip: &str) -> Result<Vec<String>, String> {
        let known = self.environment(index, pod_ip)?;
        texts(self.container(), "/args").into_iter().map(|argument| expanded(argument, &known)).collect()
    }

    /// The environment of the pod of an index, secrets aside.
    pub(crate) fn environment(&self, index: u64, pod_ip: &str) -> Result<Vec<(String, String)>, String> {
        let mut known = Vec::new();
        for variable in list(self.container(), "/env") {
            let value = match text(variable, "/valueFrom/fieldRef/fieldPath") {
                "" => expanded(text(variable, "/value"), &known)?,
                "metadata.name" => format!("{}-{index}-abcde", self.job_name()),
                "status.podIP" => pod_ip.to_owned(),
                "metadata.annotations['batch.kubernetes.io/job-completion-index']" if self.is_indexed() => {
                    index.to_string()
                }
                other => return Err(format!("nothing is known of {other}")),
            };
            known.push((text(variable, "/name").to_owned(), value));
        }
        if self.is_indexed() {
            known.push(("JOB_COMPLETION_INDEX".to_owned(), index.to_string()));
        }
        Ok(known)
    }

    /// Whether its pods have numbers.
    pub(crate) fn is_indexed(&self) -> bool {
        self.job["completionMode"] == "Indexed"
    }
}

/// A text with `$(NAME)` replaced, as the kubelet does.
fn expanded(text: &str, known: &[(String, String)]) -> Result<String, String> {
    let text =
        known.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("$({name})"), value));
    if text.contains("$(") {
        return Err(format!("a variable is not there: {text}"));
    }
    Ok(text)
}
