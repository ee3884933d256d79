//! The decisions of Infra Sentinel, and nothing else: alerts, matchers, policies,
//! grants, and the incident's life as a pure state machine.
//!
//! This crate does no I/O and knows no async runtime, no wasmtime, no disk and no
//! clock: time comes in with each event. So it can be tested with properties and
//! simulated through any number of crashes. `tests/tidy.rs` of the workspace holds it
//! to that.

#![forbid(unsafe_code)]

pub mod alert;
pub mod bounds;
pub mod capability;
pub mod control;
pub mod duration;
pub mod engine;
pub mod event;
pub mod grant;
pub mod guard;
pub mod http;
pub mod id;
pub mod incident;
pub mod lease;
pub mod mail;
pub mod matcher;
pub mod mutation;
pub mod policy;
pub mod record;
pub mod recording;
pub mod rehearsal;
pub mod report;
pub mod template;
pub mod timeline;
pub mod version;
