//! The plugin `hostile` once more, in a version of its own, for tests of reloading.

#[path = "../src/hostile.rs"]
mod hostile;

sentinel_plugin::plugin!(hostile::Hostile, name = "hostile", version = "0.2.0");
