//! The plugin `scripted`, version 0.1.0.

#[path = "../src/scripted.rs"]
mod scripted;

const SECOND_VERSION: bool = false;

sentinel_plugin::plugin!(scripted::Scripted, name = "scripted", version = "0.1.0");
