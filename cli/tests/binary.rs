//! The binary itself. That this test needs it makes cargo build it for every test run: the end-to-end tests
//! of the workspace start it, and would otherwise start one that was built before.

use std::process::Command;

#[test]
fn it_says_its_version() {
    let output = Command::new(env!("CARGO_BIN_EXE_blip2")).arg("--version").output().unwrap();
    let version = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert_eq!(version.trim(), concat!("blip2 ", env!("CARGO_PKG_VERSION")));
}
