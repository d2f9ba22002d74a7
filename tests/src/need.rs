//! What a test needs and not every machine has: without it the test is skipped, with a printed word.
//!
//! With `BLIP2_NO_SKIP=1`, as in `.ci/run`, a skipped test fails, unless the machine cannot have what is
//! missing.

use std::process::Command;

/// Set to fail where a test would be skipped.
const NO_SKIP: &str = "BLIP2_NO_SKIP";

/// What a test needs of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Network namespaces with a link between them.
    Namespaces,
    /// Delay and loss on a link.
    Netem,
    /// A bridge between namespaces.
    Bridge,
    /// A process with another monotonic clock.
    OtherClock,
    /// A file system in memory, mounted for the test.
    OwnDisk,
    /// A process's limits, shown by the system.
    Limits,
    /// IPv6 on the loopback.
    Ipv6,
    /// A real S3 server.
    S3Server,
    /// `kubectl`, which renders manifests without a cluster.
    Kubectl,
    /// Prometheus and its `promtool`.
    Prometheus,
    /// Slurm's daemons, and the right to start them.
    Slurm,
    /// Python with TensorBoard.
    TensorBoard,
}

impl Need {
    /// What is missing.
    fn missing(self) -> &'static str {
        match self {
            Self::Namespaces => "no network namespaces can be made here (as root, with `ip` of iproute2)",
            Self::Netem => "this machine's kernel has no netem (as root, with `tc` of iproute2)",
            Self::Bridge => "this machine's kernel has no bridges",
            Self::OtherClock => "no time namespace can be made here (as root, with `unshare` of util-linux)",
            Self::OwnDisk => "no file system can be mounted here (as root, with `mount`)",
            Self::Limits => "this system does not show the limits of a process",
            Self::Ipv6 => "this machine has no IPv6",
            Self::TensorBoard => {
                "no TensorBoard here; `tests/tensorboard` fetches it, or name its Python in BLIP2_TENSORBOARD"
            }
            Self::Prometheus => {
                "no Prometheus here; `tests/prometheus` fetches it, or name its folder in BLIP2_PROMETHEUS"
            }
            Self::Slurm => {
                "no Slurm is asked for; `tests/slurm-cluster` installs it and runs the test, as root"
            }
            Self::S3Server => {
                "no SeaweedFS here; `tests/s3-server` fetches it, or name its `weed` in BLIP2_WEED"
            }
            Self::Kubectl => "no kubectl here; `tests/manifests` fetches it, or name it in BLIP2_KUBECTL",
        }
    }

    /// The one list of what may be missing where no test may be skipped: why this machine cannot have it, or
    /// where else it is tested.
    fn excused(self) -> Option<&'static str> {
        match self {
            Self::Namespaces => {
                (!runs("unshare", &["--net", "true"])).then_some("no right to make namespaces")
            }
            Self::OwnDisk => (!runs("unshare", &["--mount", "true"])).then_some("no right to mount"),
            Self::OtherClock => {
                (!runs("unshare", &["--time", "true"])).then_some("no right, or an old kernel")
            }
            // A module of the kernel, which belongs to the host.
            Self::Netem | Self::Bridge => Some("the kernel's"),
            Self::Limits => cfg!(not(target_os = "linux")).then_some("only Linux shows them"),
            Self::Ipv6 => std::fs::read_to_string("/proc/net/if_inet6")
                .map_or(true, |addresses| addresses.is_empty())
                .then_some("the kernel's"),
            Self::TensorBoard => Some("the step `TensorBoard` of `.ci/run` fetches it and runs the test"),
            Self::Prometheus => Some("the step `Prometheus` of `.ci/run` fetches it and runs the test"),
            Self::Slurm => Some("the step `Slurm` of `.ci/run` installs it and runs the test"),
            Self::S3Server => Some("the step `S3` of `.ci/run` fetches it and runs the test"),
            Self::Kubectl => Some("the step `manifests` of `.ci/run` fetches it and runs the tests"),
        }
    }

    /// Says that a test, or a part of one, is skipped for want of this.
    ///
    /// # Panics
    ///
    /// Where `BLIP2_NO_SKIP=1` and the machine could have it.
    pub fn skip(self) {
        let asked = std::env::var(NO_SKIP).is_ok_and(|value| value == "1");
        let excuse = self.excused();
        assert!(!asked || excuse.is_some(), "{NO_SKIP}=1, and {}", self.missing());
        println!("skipped: {}", self.missing());
    }
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|ended| ended.status.success())
}
