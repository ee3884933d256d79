//! `sentinel_fuzz::url_template` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: sentinel_fuzz::seeds::lay_out("url_template"),
    |bytes: &[u8]| sentinel_fuzz::url_template(bytes)
);
