//! `sentinel_fuzz::matcher` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: sentinel_fuzz::seeds::lay_out("matcher"),
    |bytes: &[u8]| sentinel_fuzz::matcher(bytes)
);
