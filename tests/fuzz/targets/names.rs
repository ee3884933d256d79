//! `sentinel_fuzz::names` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: sentinel_fuzz::seeds::lay_out("names"),
    |bytes: &[u8]| sentinel_fuzz::names(bytes)
);
