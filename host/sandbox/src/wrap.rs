//! Core modules built for `wasm32-wasip1`, such as clang and Go make, become components
//! here.
//!
//! A core module says which world it was written for in custom sections that its bindings
//! put there (`component-type…`). Without one, wrapping succeeds and gives a component that
//! imports and exports nothing: so the section is looked for first. What such a module wants
//! of `wasi_snapshot_preview1` is served by an adapter that turns it into WASI 0.2, which is
//! as empty here as for every other plugin.

use std::borrow::Cow;

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasmparser::{BinaryReaderError, Parser, Payload};
use wit_component::ComponentEncoder;

use crate::log::clean;
use crate::plugin::LoadError;

/// How many bytes are kept of why a module cannot be wrapped.
const REASON_BYTES: usize = 1024;

/// The component that `bytes` are, or that is made of them. What is no WebAssembly at all
/// is left for [`contract::inspect`](crate::contract::inspect) to refuse.
pub(crate) fn component(bytes: &[u8]) -> Result<Cow<'_, [u8]>, LoadError> {
    if !Parser::is_core_wasm(bytes) {
        return Ok(Cow::Borrowed(bytes));
    }
    let module = Module::read(bytes).map_err(|error| LoadError::damaged(&error))?;
    if module.is_program {
        return Err(LoadError::Program);
    }
    if !module.names_its_world {
        return Err(LoadError::CoreModule);
    }
    encode(bytes).map(Cow::Owned)
}

fn encode(module: &[u8]) -> Result<Vec<u8>, LoadError> {
    // The alternate form has the causes, which say what is wrong.
    let unwrappable = |reason: String| LoadError::Unwrappable {
        reason: clean(
            &reason.split_whitespace().collect::<Vec<_>>().join(" "),
            REASON_BYTES,
        ),
    };
    let mut encoder = ComponentEncoder::default();
    encoder
        .module(module)
        .map_err(|error| unwrappable(format!("{error:#}")))?
        // What the module does not use of the adapter stays out of the component.
        .adapter(
            WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME,
            WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
        )
        .map_err(|error| LoadError::Internal(format!("{error:#}")))?
        .encode()
        .map_err(|error| unwrappable(format!("{error:#}")))
}

/// What of a core module decides whether it can be wrapped.
#[derive(Debug, Default)]
struct Module {
    /// Its bindings have put the world that it was written for into it.
    names_its_world: bool,
    /// It is a program with a `main`, and no library.
    is_program: bool,
}

impl Module {
    fn read(bytes: &[u8]) -> Result<Self, BinaryReaderError> {
        let mut module = Self::default();
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::CustomSection(section) => {
                    module.names_its_world |= section.name().starts_with("component-type");
                }
                Payload::ExportSection(exports) => {
                    for export in exports {
                        module.is_program |= export?.name == "_start";
                    }
                }
                _ => {}
            }
        }
        Ok(module)
    }
}
