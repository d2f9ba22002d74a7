//! Whoever has no business in a run is refused with the reason, and the run goes on.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use blip2_dataset::KeyedRng;
use blip2_tests::cluster::Cluster;
use blip2_tests::process::Running;
use blip2_tests::run::{SHORT_STEPS, SmallRun};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// Everything ends within this time.
const DEADLINE: Duration = Duration::from_secs(120);
/// How long a stranger tries.
const TRIES: [&str; 2] = ["--join-timeout", "3"];

/// An authority that signs certificates for the processes of a run.
struct Authority {
    parameters: CertificateParams,
    key: KeyPair,
    file: String,
}

impl Authority {
    fn new(run: &SmallRun, name: &str) -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let file = write(run, &format!("{name}.pem"), &parameters.self_signed(&key).unwrap().pem());
        Self { parameters, key, file }
    }

    /// Certificate and key.
    fn issue(&self, run: &SmallRun, name: &str) -> [String; 2] {
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.parameters, &self.key);
        let own = CertificateParams::new(["blip2".to_owned()]).unwrap();
        let certificate = own.signed_by(&key, &issuer).unwrap().pem();
        [
            write(run, &format!("{name}-cert.pem"), &certificate),
            write(run, &format!("{name}-key.pem"), &key.serialize_pem()),
        ]
    }
}

fn write(run: &SmallRun, name: &str, text: &str) -> String {
    let path = run.scratch().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A stranger's end: refused, with the reason.
fn refused(stranger: Running, word: &str) {
    let ended = stranger.wait_within(DEADLINE).unwrap_or_else(|still| panic!("{}", still.stderr()));
    ended.expect(4).says(&[word]);
}

#[test]
fn with_mutual_tls_only_members_with_certificate_and_token_are_taken_in() {
    let plain = SmallRun::short("");
    plain.train(&["--workers", "1"]).expect(0);

    let run = SmallRun::short("[coordinator]\nworkers = 2\n");
    let (ours, theirs) = (Authority::new(&run, "ours"), Authority::new(&run, "theirs"));
    let files = |authority: &Authority, signer: &Authority, name: &str| {
        let [cert, key] = signer.issue(&run, name);
        [authority.file.clone(), cert, key]
    };
    let cluster = || Cluster::new(&run);
    let member = cluster().secured(files(&ours, &ours, "member"));
    let leader = member.coordinator(&[], None);
    let urls = [leader.url.as_str()];
    let first = member.worker("first", &urls, &[], None);

    let other_token = cluster().secured(files(&ours, &ours, "guest")).with_token("another secret");
    refused(other_token.worker("guest", &urls, &TRIES, None), "token");
    let forged = cluster().secured(files(&ours, &theirs, "forged"));
    // It sees no more than a connection that ends.
    let forged = forged.worker("forged", &urls, &TRIES, None).wait_within(DEADLINE).expect("it ends");
    assert!(matches!(forged.code, Some(1 | 4)), "{forged:?}");
    let forged = forged.says(&["certificate"]);
    assert!(!forged.stderr.contains("token"), "{forged:?}");
    let stranger = cluster().secured(files(&theirs, &theirs, "stranger"));
    refused(stranger.worker("stranger", &urls, &TRIES, None), "certificate");
    refused(cluster().worker("plain", &urls, &TRIES, None), "TLS files");

    let second = member.worker("second", &urls, &[], None);
    for process in [first, second, leader.process] {
        process.wait_within(DEADLINE).unwrap_or_else(|still| panic!("{}", still.stderr())).expect(0);
    }
    assert_eq!(run.digest(), plain.digest());
}

/// Bytes that are no HTTP, or HTTP and no gRPC, or gRPC that lies about its length.
fn nonsense(random: &mut KeyedRng, kind: u64) -> Vec<u8> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let noise: Vec<u8> = (0..random.below(4096)).map(|_| random.below(256) as u8).collect();
    match kind % 4 {
        0 => noise,
        1 => [PREFACE, &noise].concat(),
        // A frame of the largest length that is, of which little comes.
        2 => [PREFACE, b"\xff\xff\xff\x00\x00\x00\x00\x00\x01", &noise].concat(),
        _ => b"POST /blip2.v1.Coordinator/Session HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n".to_vec(),
    }
}

#[test]
fn random_bytes_stop_neither_coordinator_nor_workers() {
    let run = SmallRun::short("[coordinator]\nworkers = 2\n");
    let cluster = Cluster::new(&run);
    let leader = cluster.coordinator(&[], None);
    // The first waits a while in its third step, so that the bytes meet a run under way.
    let first = cluster.worker("first", &[&leader.url], &[], Some("reduction@3:2000"));
    let second = cluster.worker("second", &[&leader.url], &[], None);
    let addresses = [leader.url.replace("http://", ""), first.listening(), second.listening()];
    let mut random = KeyedRng::new(1, "nonsense", &[]);
    let mut open = Vec::new();
    for kind in 0..120 {
        let address = &addresses[kind as usize % 3];
        let Ok(mut stream) = TcpStream::connect(address) else { continue };
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        // The other side may hang up at any time.
        let _ = stream.write_all(&nonsense(&mut random, kind / 3));
        let _ = stream.read(&mut [0; 64]);
        if kind % 2 == 0 {
            open.push(stream);
        }
    }
    for process in [first, second, leader.process] {
        process.wait_within(DEADLINE).unwrap_or_else(|still| panic!("{}", still.stderr())).expect(0);
    }
    drop(open);
    assert_eq!(run.digest().1, 2 * SHORT_STEPS);
    cluster.audit().expect(0);
}
