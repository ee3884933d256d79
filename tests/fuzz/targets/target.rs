//! `sentinel_fuzz::target` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: sentinel_fuzz::seeds::lay_out("target"),
    |bytes: &[u8]| sentinel_fuzz::target(bytes)
);
