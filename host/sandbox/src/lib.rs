//! Runs plugins: WebAssembly components in wasmtime, behind limits, with one gate to
//! the world.
//!
//! [`Sandbox`] owns what all plugins share: the engine, the threads that guests run
//! on, the pool of instances. [`Sandbox::load`] turns bytes into a [`Plugin`] that is
//! known to work, or into a [`LoadError`] that says what to do. [`Sandbox::run`] runs
//! it once, in a store of its own, for one incident. Whatever a run asks of the world
//! goes through its [`Gate`], which checks, records and carries out.
//!
//! Everything that a guest sees is on record: answers, clock and randomness. So a run can
//! go on after a crash from what its gate has on record, and [`Sandbox::replay`] plays one
//! again, with the same plugin or another version, and touches nothing.
//!
//! Machine code is made once for each plugin, in a process of its own, and kept ([`code`]).

pub mod code;
pub mod driver;
pub mod gate;
pub mod replay;
pub mod run;

mod allocator;
mod anatomy;
mod bindings;
mod breath;
mod clock;
mod contract;
mod convert;
mod engine;
mod guest;
mod log;
mod playback;
mod plugin;
mod plugins;
mod rehearse;
mod schema;
mod wrap;

pub use allocator::give_large_blocks_back;
pub use anatomy::{Anatomy, CONTRACT, Form};
pub use engine::{Sandbox, SandboxConfig, SandboxError};
pub use gate::Gate;
pub use plugin::{LoadError, ParamError, Plugin};
pub use plugins::Plugins;
pub use rehearse::Script;
pub use replay::{Divergence, ReplayOutcome, ReplayReport, ReplayedCall};
pub use run::{IncidentInput, Outcome, Room, RunFailure, RunLimits, RunReport};
pub use schema::{ParamsSchema, SchemaError};
