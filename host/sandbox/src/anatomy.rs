//! What a file is, as it can be told without compiling it.

use std::collections::BTreeSet;

use sentinel_core::grant::Import;
use serde::Serialize;
use wasmparser::Parser;

use crate::plugin::LoadError;
use crate::run::Room;
use crate::{contract, wrap};

/// The contract that this version serves, for example `sentinel:plugin@0.1.0`.
pub const CONTRACT: &str = contract::NAME;

/// What a plugin's file is made of. A file that has an anatomy is a plugin by its outside;
/// whether it compiles and describes itself is for [`Sandbox::load`](crate::Sandbox::load)
/// to find out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Anatomy {
    /// A component, or a core module that is made one when it is loaded.
    pub form: Form,
    /// What it asks for; a policy that uses it has to grant all of it.
    #[serde(serialize_with = "as_texts")]
    pub asks_for: BTreeSet<Import>,
    /// Everything that it imports, interface by interface, those that need no grant among
    /// them.
    pub imports: Vec<String>,
    /// How many bytes of memory it has when it starts, in its largest memory.
    pub initial_memory: u64,
    /// How many entries its largest table has when it starts.
    pub largest_table: u64,
}

/// Which kind of WebAssembly a plugin's file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// A component.
    Component,
    /// A core module for `wasm32-wasip1`, which is wrapped when it is loaded.
    CoreModule,
}

impl Anatomy {
    /// Looks at a file, or says why it is no plugin. `room` is what a plugin may take up.
    pub fn of(bytes: &[u8], room: &Room) -> Result<Self, LoadError> {
        let form = if Parser::is_core_wasm(bytes) {
            Form::CoreModule
        } else {
            Form::Component
        };
        let component = wrap::component(bytes)?;
        let asks_for = contract::inspect(&component, room)?;
        let outside =
            contract::Surface::read(&component).map_err(|error| LoadError::damaged(&error))?;
        Ok(Self {
            form,
            asks_for,
            initial_memory: outside.largest_memory,
            largest_table: outside.largest_table,
            // Types that the world itself names come without an interface.
            imports: outside
                .imports
                .into_iter()
                .filter(|name| name.contains(':'))
                .collect(),
        })
    }
}

fn as_texts<S: serde::Serializer>(
    imports: &BTreeSet<Import>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(imports.iter().map(ToString::to_string))
}
