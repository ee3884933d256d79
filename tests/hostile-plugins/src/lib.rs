//! The plugin `hostile`, version 0.1.0. `examples/hostile-v2.rs` is the same plugin in
//! version 0.2.0, for tests of reloading.

#![forbid(unsafe_code)]

mod hostile;

sentinel_plugin::plugin!(hostile::Hostile, name = "hostile", version = "0.1.0");
