//! The host's side of the capabilities: Docker over its API, Ansible as processes, HTTP, and
//! mail over SMTP.
//! Beside them the probe that says whether a target is well again, and Alertmanager's
//! API, which says what fires when its notifications may have been missed.
//!
//! Nothing here decides whether something may be done; that is the gate's work. What
//! is here makes sure that a call does what its words say and no more: every name is
//! checked before it reaches a URL or a command line, every answer is waited for in
//! bounded time, and what is left half done is put back or said so.
//!
//! All of it runs on the daemon's own runtime, so nothing blocks a thread of it: files
//! and `/proc` are read on tokio's blocking pool.

#![forbid(unsafe_code)]

pub mod alertmanager;
pub mod ansible;
mod certificates;
mod client;
pub mod docker;
mod environment;
pub mod http;
pub mod mail;
pub mod probe;
mod redact;
