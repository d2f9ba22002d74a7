//! A SeaweedFS server of this test's own.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The credentials it knows.
pub(crate) const KEY: &str = "tester";
pub(crate) const SECRET: &str = "only-for-tests";
/// It starts within this, or not at all.
const PATIENCE: Duration = Duration::from_secs(90);

/// The server; killed when dropped.
pub(crate) struct Weed {
    child: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Weed {
    /// Starts the server, if there is one on this machine.
    pub(crate) fn start() -> Option<Self> {
        let program = program()?;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let identity = format!(
            r#"{{"identities":[{{"name":"tester","credentials":[{{"accessKey":"{KEY}","secretKey":"{SECRET}"}}],"actions":["Admin","Read","Write","List"]}}]}}"#
        );
        let identities = folder.path().join("s3.json");
        std::fs::write(&identities, identity).expect("the credentials are written");
        let data = folder.path().join("data");
        std::fs::create_dir(&data).expect("a folder");
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let mut command = Command::new(program);
        command.args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"]);
        command.args(["-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=40"]);
        command.arg(format!("-dir={}", data.display()));
        command.arg(format!("-s3.config={}", identities.display()));
        let address = free_address();
        let s3_port = address.port();
        for port in ["master.port", "volume.port", "filer.port", "master.port.grpc", "volume.port.grpc"] {
            command.arg(format!("-{port}={}", free_address().port()));
        }
        for port in ["filer.port.grpc", "s3.port.grpc"] {
            command.arg(format!("-{port}={}", free_address().port()));
        }
        command.arg(format!("-s3.port={s3_port}"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.current_dir(folder.path()).spawn().expect("the server starts");
        let mut server = Self { child, address, folder };
        server.await_answers();
        Some(server)
    }

    /// Where it takes S3 requests.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn await_answers(&mut self) {
        let began = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            let ended = self.child.try_wait().expect("it is ours");
            assert!(ended.is_none(), "the server ended: {ended:?}\n{}", self.last_words());
            assert!(began.elapsed() < PATIENCE, "the server does not listen\n{}", self.last_words());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Weed {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address of this machine that nobody uses now.
pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free address");
    listener.local_addr().expect("it is bound")
}

/// `BLIP2_WEED`, or `weed` in the path.
fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("BLIP2_WEED") {
        let path = PathBuf::from(named);
        assert!(path.is_file(), "BLIP2_WEED={} is not there", path.display());
        return Some(path);
    }
    let found = |folder: PathBuf| Some(folder.join("weed")).filter(|path: &PathBuf| Path::is_file(path));
    std::env::split_paths(&std::env::var_os("PATH")?).find_map(found)
}
