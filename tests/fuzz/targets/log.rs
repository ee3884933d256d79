//! `sentinel_fuzz::log` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: sentinel_fuzz::seeds::lay_out("log"),
    |bytes: &[u8]| sentinel_fuzz::log(bytes)
);
