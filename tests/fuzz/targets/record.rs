//! `sentinel_fuzz::record` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: sentinel_fuzz::seeds::lay_out("record"),
    |bytes: &[u8]| sentinel_fuzz::record(bytes)
);
