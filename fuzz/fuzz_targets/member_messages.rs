#![no_main]

// Panics of others' code that a decoder catches are no fault and are not shown; one that escapes ends the
// run.
libfuzzer_sys::fuzz_target!(
    init: std::panic::set_hook(Box::new(|_| ())),
    |bytes: &[u8]| blip2_tests::decoders::fuzz("member_messages", bytes)
);
