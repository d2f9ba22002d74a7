//! A real S3 server, with a proxy before it that fails on purpose.
//!
//! The server is SeaweedFS: `tests/s3-server` fetches it and runs this; without `BLIP2_WEED` or `weed` in the
//! path the test says that it is skipped. What is tested runs in a process of its own, which finds
//! credentials and endpoint in its environment as a user's would.

mod corrupted;
mod curve;
mod suite;
mod weed;

use std::process::Command;

use blip2_tests::need::Need;
use weed::Weed;

#[test]
fn a_real_server_and_its_faults() {
    let Some(server) = Weed::start() else {
        Need::S3Server.skip();
        return;
    };
    let proxy = weed::free_address();
    let test = std::env::current_exe().expect("the test executable has a path");
    let status = Command::new(test)
        .args(["--ignored", "--test-threads=1", "--nocapture"])
        .env("AWS_ACCESS_KEY_ID", weed::KEY)
        .env("AWS_SECRET_ACCESS_KEY", weed::SECRET)
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_ENDPOINT", format!("http://{proxy}"))
        .env(suite::PROXY, proxy.to_string())
        .env(suite::SERVER, server.address().to_string())
        .status()
        .expect("the test starts itself");
    assert!(status.success(), "what failed is above; the server's last words:\n{}", server.last_words());
}
