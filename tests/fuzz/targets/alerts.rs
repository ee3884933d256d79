//! `sentinel_fuzz::alerts` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: sentinel_fuzz::seeds::lay_out("alerts"),
    |bytes: &[u8]| sentinel_fuzz::alerts(bytes)
);
