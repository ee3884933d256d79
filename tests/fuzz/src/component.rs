//! Files of plugins before they are compiled, and the schemas of their params.

use std::borrow::Cow;

use sentinel_core::grant::Import;
use sentinel_sandbox::{Anatomy, CONTRACT, LoadError, ParamsSchema, Room, SchemaError};
use serde_json::Value;

use crate::{bounded, parts, said_shortly};

/// A plugin's file. What begins as WebAssembly text is assembled first: so seeds are readable,
/// and a change to one gives a module that is well formed and odd, which a change of bytes
/// rarely does.
pub fn component(bytes: &[u8]) {
    let Some(file) = assembled(bytes) else {
        return;
    };
    let room = Room::default();
    match bounded(file.len(), || Anatomy::of(&file, &room)) {
        Ok(anatomy) => fits(&anatomy, &room),
        Err(error) => {
            said_shortly(&error);
            // It is for others to be at fault.
            assert!(!matches!(error, LoadError::Internal(_)), "{error}");
        }
    }
}

/// A file that is compiled has what a run may take up, and asks for what there is.
fn fits(anatomy: &Anatomy, room: &Room) {
    assert!(anatomy.initial_memory <= room.memory as u64);
    assert!(anatomy.largest_table <= u64::from(room.table_entries));
    let contract = |import: &String| {
        let (package, version) = CONTRACT.split_once('@').expect("a version");
        import.starts_with(&format!("{package}/")) && import.ends_with(&format!("@{version}"))
    };
    let wasi = |import: &String| import.starts_with("wasi:") && import.contains("@0.2.");
    for import in &anatomy.imports {
        assert!(contract(import) || wasi(import), "{import}");
    }
    assert!(anatomy.asks_for.is_empty() || anatomy.imports.iter().any(contract));
    assert!(
        anatomy
            .asks_for
            .iter()
            .all(|asked| Import::all().any(|known| known == *asked))
    );
}

fn assembled(bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
    if bytes.starts_with(b"(") {
        // One that the assembler does not take is no file of a plugin.
        return wat::parse_bytes(bytes).ok();
    }
    Some(Cow::Borrowed(bytes))
}

/// How many mistakes of params are told, and how long each may be.
const MISTAKES: usize = 20;
const MESSAGE: usize = 1_000;

/// The schema of a plugin's params, and params.
pub fn schema(bytes: &[u8]) {
    let [schema, params] = parts(bytes);
    let schema = match bounded(bytes.len(), || ParamsSchema::new(&schema)) {
        Ok(schema) => schema,
        Err(SchemaError::NotOne(reason) | SchemaError::Costly(reason)) => {
            return said_shortly(&reason);
        }
    };
    let Ok(params) = serde_json::from_str::<Value>(&params) else {
        return;
    };
    let mistakes = bounded(bytes.len(), || schema.mistakes(&params));
    assert!(mistakes.len() <= MISTAKES, "{} mistakes", mistakes.len());
    for mistake in &mistakes {
        assert!(mistake.message.len() <= MESSAGE, "{}", mistake.message);
        // A path leads to a value of the params.
        assert!(params.pointer(&mistake.path).is_some(), "{}", mistake.path);
    }
}
