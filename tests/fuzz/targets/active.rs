//! `sentinel_fuzz::active` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: sentinel_fuzz::seeds::lay_out("active"),
    |bytes: &[u8]| sentinel_fuzz::active(bytes)
);
