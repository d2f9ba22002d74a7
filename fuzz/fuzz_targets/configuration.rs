#![no_main]

// Panics of others' code that a decoder catches are no fault: only one that escapes ends the run.
libfuzzer_sys::fuzz_target!(
    init: drop(std::panic::take_hook()),
    |bytes: &[u8]| blip2_tests::decoders::fuzz("configuration", bytes)
);
