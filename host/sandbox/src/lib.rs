//! Runs plugins: WebAssembly components in wasmtime, behind limits, with one gate to
//! the world.
//!
//! [`Sandbox`] owns what all plugins share: the engine, the threads that guests run
//! on, the pool of instances. [`Sandbox::load`] turns bytes into a [`Plugin`] that is
//! known to work, or into a [`LoadError`] that says what to do. [`Sandbox::run`] runs
//! it once, in a store of its own, for one incident. Whatever a run asks of the world
//! goes through its [`Gate`], which checks, records and carries out.

#![forbid(unsafe_code)]

pub mod driver;
pub mod gate;
pub mod replay;
pub mod run;

mod bindings;
mod clock;
mod contract;
mod convert;
mod engine;
mod guest;
mod log;
mod playback;
mod plugin;
mod plugins;

pub use engine::{Sandbox, SandboxConfig, SandboxError};
pub use gate::Gate;
pub use plugin::{LoadError, ParamError, Plugin};
pub use plugins::Plugins;
pub use replay::{Divergence, ReplayOutcome, ReplayReport, ReplayedCall};
pub use run::{IncidentInput, Outcome, RunFailure, RunLimits, RunReport};
