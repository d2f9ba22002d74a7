//! How properties are tested: few cases, the same ones every time, and nothing written beside the sources.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};

use crate::split::Split;

/// So many cases, always the same.
pub(crate) fn cases(cases: u32) -> Config {
    Config { cases, rng_seed: RngSeed::Fixed(0xb11b2), failure_persistence: None, ..Config::default() }
}

/// Any split.
pub(crate) fn splits() -> impl Strategy<Value = Split> {
    prop::sample::select(&Split::ALL)
}
