//! `sentinel_fuzz::schema` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: sentinel_fuzz::seeds::lay_out("schema"),
    |bytes: &[u8]| sentinel_fuzz::schema(bytes)
);
