//! `sentinel_fuzz::ansible` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: sentinel_fuzz::seeds::lay_out("ansible"),
    |bytes: &[u8]| sentinel_fuzz::ansible(bytes)
);
