//! `sentinel plugin inspect`.

use std::fmt::Write as _;
use std::path::Path;

use sentinel_core::id::{Digest, PluginName};
use sentinel_sandbox::{Anatomy, Form, Room};
use serde::Serialize;

use crate::cli::Output;
use crate::cli::output::{Failure, harmless, print_as};

#[derive(Debug, Serialize)]
struct Inspected {
    name: PluginName,
    version: String,
    digest: Digest,
    size: usize,
    form: Form,
    summary: String,
    asks_for: Vec<String>,
    params_schema: serde_json::Value,
}

pub(super) fn inspect(file: &Path, output: Output) -> Result<(), Failure> {
    let wasm = super::read(file)?;
    let size = wasm.len();
    let form = Anatomy::of(&wasm, &Room::default())
        .map_err(|error| Failure::given(format!("{}: {error}", file.display())))?
        .form;
    let sandbox = super::sandbox()?;
    let loaded = super::runtime()?.block_on(sandbox.load(wasm));
    let plugin = loaded.map_err(|error| Failure::given(format!("{}: {error}", file.display())))?;
    let inspected = Inspected {
        name: plugin.name.clone(),
        version: plugin.version.to_string(),
        digest: plugin.digest,
        size,
        form,
        summary: plugin.summary.clone(),
        asks_for: plugin.imports.iter().map(ToString::to_string).collect(),
        params_schema: plugin.params_schema.clone(),
    };
    print_as(output, &inspected, || text(&inspected))
}

fn text(plugin: &Inspected) -> String {
    let mut out = String::new();
    let asks_for = if plugin.asks_for.is_empty() {
        "nothing".to_owned()
    } else {
        plugin.asks_for.join(", ")
    };
    let schema = serde_json::to_string_pretty(&plugin.params_schema).unwrap_or_default();
    // Writing to a String cannot fail.
    let _ok = writeln!(
        out,
        "name      {}\nversion   {}\ndigest    {}\nsize      {} bytes\nsummary   {}\nasks for  {asks_for}\nparams\n{schema}",
        plugin.name,
        harmless(&plugin.version),
        plugin.digest,
        plugin.size,
        harmless(&plugin.summary),
    );
    out
}
