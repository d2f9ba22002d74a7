//! What a kubelet does for a pod: volumes, environment, user, a root that cannot be written, names of others.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use blip2_tests::process::{Running, binary, repository, start};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use super::network::{Network, Place};
use crate::rendered::{Pods, Rendered, list, text};

/// Folders of this machine that stand in for the image's.
const OF_THE_IMAGE: [&str; 5] = ["usr", "bin", "lib", "lib64", "etc/ssl"];

/// A machine that runs pods.
#[derive(Debug)]
pub(super) struct Node {
    folder: tempfile::TempDir,
    network: Network,
    pods: u32,
}

/// A pod's process and where it is.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) process: Running,
    pub(super) host: Option<String>,
    pub(super) address: String,
}

impl Node {
    /// A machine with the claim `blip2-data`, which holds the assets, and with the secrets.
    pub(super) fn new(network: Network) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the machine");
        let node = Self { folder, network, pods: 0 };
        for shared in ["blip2-data/runs", "blip2-token", "blip2-tls"] {
            std::fs::create_dir_all(node.scratch().join(shared)).expect("a folder");
        }
        let data = node.data();
        // The same path for pods and for this machine's processes.
        let assets = repository().join("assets");
        std::os::unix::fs::symlink(assets, data.join("assets")).expect("a link");
        node.share(&data.join("runs"));
        std::fs::write(node.scratch().join("blip2-token/token"), "a long secret").expect("a token");
        node.make_certificates();
        std::fs::write(node.hosts(), "127.0.0.1 localhost\n").expect("names");
        node
    }

    /// The machine's own folder.
    pub(super) fn scratch(&self) -> &Path {
        self.folder.path()
    }

    /// The claim's folder.
    pub(super) fn data(&self) -> PathBuf {
        self.scratch().join("blip2-data")
    }

    fn hosts(&self) -> PathBuf {
        self.scratch().join("hosts")
    }

    /// What `fsGroup` does with a volume.
    fn share(&self, folder: &Path) {
        chown(folder, None, Some(10001)).expect("this is root");
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o2775)).expect("this is root");
    }

    fn make_certificates(&self) {
        let folder = self.scratch().join("blip2-tls");
        let authority_key = KeyPair::generate().expect("a key");
        let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = authority.self_signed(&authority_key).expect("it signs itself");
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate().expect("a key");
        let mut member = CertificateParams::new(vec!["blip2".to_owned()]).expect("parameters");
        member.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let member = member.signed_by(&key, &issuer).expect("it is signed");
        for (name, content) in
            [("ca.crt", certificate.pem()), ("tls.crt", member.pem()), ("tls.key", key.serialize_pem())]
        {
            std::fs::write(folder.join(name), content).expect("a file");
        }
    }

    /// Starts the pod of an index, with one more variable if there is a drill.
    pub(super) fn start(
        &mut self,
        rendered: &Rendered,
        pods: &Pods<'_>,
        index: u64,
        drill: Option<&str>,
    ) -> Started {
        self.pods += 1;
        let place = self.network.place();
        let folder = self.scratch().join(format!("pod{}", self.pods));
        let root = folder.join("root");
        let mut script = begun(&root);
        for mount in list(pods.container(), "/volumeMounts") {
            let volume = list(pods.spec(), "/volumes").iter().find(|volume| volume["name"] == mount["name"]);
            let volume = volume.expect("it has a volume");
            let source = self.source(rendered, volume, &folder);
            let writable = mount["readOnly"] != true;
            script += &mounted(&root, &source, text(mount, "/mountPath"), writable);
            if text(volume, "/persistentVolumeClaim/claimName") == "blip2-data" {
                // Where the link in it leads.
                let assets = repository().join("assets");
                script += &mounted(&root, &assets, &assets.display().to_string(), false);
            }
        }
        script += &ended(&root);
        let user = &pods.spec()["securityContext"];
        let (uid, gid) = (user["runAsUser"].to_string(), user["runAsGroup"].to_string());
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &place.namespace, "unshare", "--mount", "sh", "-ec", &script, "pod"]);
        command.args(["setpriv", "--reuid", &uid, "--regid", &gid, "--groups", &user["fsGroup"].to_string()]);
        command.args(["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "blip2"]);
        command.args(pods.arguments(index, &place.address).expect("every variable is there"));
        command.env_clear().envs(pods.environment(index, &place.address).expect("every variable is there"));
        command.env("PATH", "/opt/blip2:/usr/sbin:/usr/bin");
        if let Some(drill) = drill {
            command.env("BLIP2_DRILL", drill);
        }
        let host = pods.host(index).filter(|_| pods.component() == "coordinator");
        if let Some(host) = &host {
            self.name(host, &place);
        }
        Started { process: start(command), host, address: place.address }
    }

    /// What a pod answers to a probe of its container: the first line.
    pub(super) fn probed(&self, pods: &Pods<'_>, probe: &str, pod: &Started) -> String {
        let asked = &pods.container()[probe]["httpGet"];
        let port = list(pods.container(), "/ports").iter().find(|port| port["name"] == asked["port"]);
        let port = port.and_then(|port| port["containerPort"].as_u64()).expect("a port");
        self.network.answer(&pod.address, port, text(asked, "/path"))
    }

    /// From now on this host is there; who had the name before has it no more.
    fn name(&self, host: &str, place: &Place) {
        let known = std::fs::read_to_string(self.hosts()).expect("names");
        let others = known.lines().filter(|line| line.split(' ').nth(1) != Some(host));
        let mut names: String = others.map(|line| format!("{line}\n")).collect();
        names += &format!("{} {host}\n", place.address);
        // In place: pods have this very file.
        std::fs::write(self.hosts(), names).expect("names");
    }

    /// The folder that a volume is.
    fn source(&self, rendered: &Rendered, volume: &serde_json::Value, pod: &Path) -> PathBuf {
        let secret = text(volume, "/secret/secretName");
        let claim = text(volume, "/persistentVolumeClaim/claimName");
        let map = text(volume, "/configMap/name");
        for named in [secret, claim] {
            if !named.is_empty() {
                return self.scratch().join(named);
            }
        }
        let folder = pod.join(text(volume, "/name"));
        std::fs::create_dir_all(&folder).expect("a folder");
        if map.is_empty() {
            assert!(volume.get("emptyDir").is_some(), "{volume}");
            self.share(&folder);
        } else {
            let map = rendered.object("ConfigMap", map).expect("it is there");
            for (file, content) in map["data"].as_object().expect("it has files") {
                std::fs::write(folder.join(file), content.as_str().expect("text")).expect("a file");
            }
        }
        folder
    }
}

/// The script's first part: a root of this machine's system folders and the image's own.
fn begun(root: &Path) -> String {
    let root_folder = root.display();
    std::fs::create_dir_all(root).expect("a root");
    let mut script = format!("mount --make-rprivate /; mount --bind {root_folder} {root_folder}\n");
    for folder in OF_THE_IMAGE {
        let here = Path::new("/").join(folder);
        if here.is_symlink() {
            let to = std::fs::read_link(&here).expect("a link");
            std::os::unix::fs::symlink(to, root.join(folder)).expect("a link");
        } else if here.is_dir() {
            script += &mounted(root, &here, &format!("/{folder}"), false);
        }
    }
    for folder in ["proc", "dev"] {
        script += &mounted(root, &Path::new("/").join(folder), &format!("/{folder}"), true);
    }
    script += &mounted(root, &repository().join("configs"), "/opt/blip2/configs", false);
    std::fs::write(root.join("etc/nsswitch.conf"), "hosts: files\n").expect("a file");
    let hosts = root.parent().and_then(Path::parent).expect("a pod's folder").join("hosts");
    for (file, source) in [("opt/blip2/blip2", binary()), ("etc/hosts", hosts)] {
        std::fs::write(root.join(file), "").expect("a place");
        script += &format!("mount --bind {} {root_folder}/{file}\n", source.display());
    }
    script
}

/// A folder of this machine in the pod's root.
fn mounted(root: &Path, source: &Path, at: &str, writable: bool) -> String {
    let place = root.join(at.trim_start_matches('/'));
    std::fs::create_dir_all(&place).expect("a place");
    let (source, place) = (source.display(), place.display());
    let rest = if writable { String::new() } else { format!("mount -o remount,bind,ro {place}\n") };
    format!("mount --bind {source} {place}\n{rest}")
}

/// The script's last part: the root is closed and entered.
fn ended(root: &Path) -> String {
    let root = root.display();
    format!("mount -o remount,bind,ro {root}\ncd {root}\nexec chroot {root} \"$@\"\n")
}
