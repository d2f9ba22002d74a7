//! A network namespace a pod, on one bridge.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use blip2_tests::need::Need;

/// How many networks this process has made.
static MADE: AtomicU32 = AtomicU32::new(0);

/// A bridge in a namespace of its own; all of it is gone when dropped.
#[derive(Debug)]
pub(super) struct Network {
    name: String,
    pods: u32,
}

/// Where a pod is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) namespace: String,
    pub(super) address: String,
}

impl Network {
    /// What this machine lacks for it, where it does.
    pub(super) fn new() -> Result<Self, Need> {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let network = Self { name: format!("b2k{}x{number}", std::process::id()), pods: 0 };
        let name = network.name.as_str();
        if !ip(&["netns", "add", name]) {
            return Err(Need::Namespaces);
        }
        if !ip(&["-n", name, "link", "add", "bridge", "type", "bridge"]) {
            return Err(Need::Bridge);
        }
        let up = ip(&["-n", name, "address", "add", "10.78.255.254/16", "dev", "bridge"])
            && ip(&["-n", name, "link", "set", "bridge", "up"]);
        assert!(up, "the bridge that was made has an address");
        Ok(network)
    }

    /// The first line of what a pod answers to who asks for a path, from outside the pod.
    pub(super) fn answer(&self, address: &str, port: u64, path: &str) -> String {
        let ask = format!(
            "exec 3<>/dev/tcp/{address}/{port} && printf 'GET {path} HTTP/1.1\\r\\nHost: pod\\r\\nConnection: \
             close\\r\\n\\r\\n' >&3 && head -n 1 <&3"
        );
        let output = Command::new("ip").args(["netns", "exec", &self.name, "bash", "-c", &ask]).output();
        let output = output.expect("`ip` runs, as it made this");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A place for one more pod, with an address that nobody has had.
    pub(super) fn place(&mut self) -> Place {
        self.pods += 1;
        let number = self.pods;
        let namespace = self.namespace(number);
        let address = format!("10.78.{}.{}", number / 250, number % 250 + 2);
        let (port, bridge) = (format!("pod{number}"), self.name.as_str());
        let made = ip(&["netns", "add", &namespace])
            && ip(&[
                "link", "add", &port, "netns", bridge, "type", "veth", "peer", "name", "eth0", "netns",
                &namespace,
            ])
            && ip(&["-n", bridge, "link", "set", &port, "master", "bridge", "up"])
            && ip(&["-n", &namespace, "address", "add", &format!("{address}/16"), "dev", "eth0"])
            && ip(&["-n", &namespace, "link", "set", "eth0", "up"])
            && ip(&["-n", &namespace, "link", "set", "lo", "up"]);
        assert!(made, "a place for pod {number}");
        Place { namespace, address }
    }

    fn namespace(&self, number: u32) -> String {
        format!("{}p{number}", self.name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // What was not made cannot be removed.
        (1..=self.pods).for_each(|number| {
            ip(&["netns", "delete", &self.namespace(number)]);
        });
        ip(&["netns", "delete", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).output().is_ok_and(|output| output.status.success())
}
