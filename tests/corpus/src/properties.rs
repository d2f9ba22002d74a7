//! How properties are tested: few cases, the same ones every time, and nothing written beside the sources.

use proptest::test_runner::{Config, RngSeed};

/// So many cases, always the same.
pub fn cases(cases: u32) -> Config {
    Config { cases, rng_seed: RngSeed::Fixed(0xb11b2), failure_persistence: None, ..Config::default() }
}
