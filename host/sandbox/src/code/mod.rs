//! Machine code: how a plugin's is made, and where it is kept until the next start.
//!
//! Compiling takes tenths of a second and tens of MiB for a plugin in Rust, and ten
//! seconds and hundreds of MiB for one in Python. So it is done once for each digest, best
//! in a process of its own ([`Compiler::Program`]), and what comes of it is kept
//! ([`CodeStore`]).

mod compiler;
mod store;

pub(crate) use self::compiler::here;
pub use self::compiler::{CompileMemory, Compiler, serve_compiler};
pub use self::store::CodeStore;
pub(crate) use self::store::{Kept, Told};

use wasmtime::Engine;
use wasmtime::component::Component;

/// Makes a component of machine code.
///
/// This is the one place where bytes become code that runs in this process. They are
/// either what [`Compiler`] has just made, or what a [`CodeStore`] kept and found
/// unchanged, by a code over them that only this daemon can make; and wasmtime refuses
/// what another version or another configuration of it has made.
#[expect(
    unsafe_code,
    clippy::disallowed_methods,
    reason = "wasmtime cannot tell whether machine code is what it made; the callers can"
)]
pub(crate) fn component(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `code` was made by `Engine::precompile_component` of this very program, and
    // nobody has changed it: it comes from the compiler's own hands, or with a valid
    // authentication code from the store. It is copied before it runs.
    unsafe { Component::deserialize(engine, code) }
}
