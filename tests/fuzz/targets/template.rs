//! `sentinel_fuzz::template` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: sentinel_fuzz::seeds::lay_out("template"),
    |bytes: &[u8]| sentinel_fuzz::template(bytes)
);
