//! `sentinel_fuzz::policy` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: sentinel_fuzz::seeds::lay_out("policy"),
    |bytes: &[u8]| sentinel_fuzz::policy(bytes)
);
