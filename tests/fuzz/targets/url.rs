//! `sentinel_fuzz::url` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: sentinel_fuzz::seeds::lay_out("url"),
    |bytes: &[u8]| sentinel_fuzz::url(bytes)
);
