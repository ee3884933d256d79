//! `sentinel_fuzz::component` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: sentinel_fuzz::seeds::lay_out("component"),
    |bytes: &[u8]| sentinel_fuzz::component(bytes)
);
