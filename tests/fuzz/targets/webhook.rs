//! `sentinel_fuzz::webhook` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: sentinel_fuzz::seeds::lay_out("webhook"),
    |bytes: &[u8]| sentinel_fuzz::webhook(bytes)
);
