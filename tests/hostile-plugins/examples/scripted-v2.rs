//! The plugin `scripted` once more: it restarts by stop and start, and looks at the clock
//! more often.

#[path = "../src/scripted.rs"]
mod scripted;

const SECOND_VERSION: bool = true;

sentinel_plugin::plugin!(scripted::Scripted, name = "scripted", version = "0.2.0");
