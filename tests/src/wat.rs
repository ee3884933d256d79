//! Plugins of a few lines, written as WebAssembly text: what no honest toolchain makes.

use std::fmt::Write as _;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, WorldId};

/// A world of a plugin that imports nothing.
pub const QUIET: &str = r"
    package test:guests;
    world quiet {
        use sentinel:plugin/types@0.1.0.{description, incident, outcome, failure};
        export describe: func() -> description;
        export remediate: func(incident: incident) -> result<outcome, failure>;
    }
";

/// A world of a plugin that imports timers and stdout of WASI.
pub const WITH_WASI: &str = r"
    package test:guests;
    world with-wasi {
        use sentinel:plugin/types@0.1.0.{description, incident, outcome, failure};
        import wasi:clocks/monotonic-clock@0.2.0;
        import wasi:cli/stdout@0.2.0;
        import wasi:io/streams@0.2.0;
        export describe: func() -> description;
        export remediate: func(incident: incident) -> result<outcome, failure>;
    }
    package wasi:clocks@0.2.0 {
        interface monotonic-clock {
            use wasi:io/poll@0.2.0.{pollable};
            subscribe-duration: func(when: u64) -> pollable;
        }
    }
    package wasi:cli@0.2.0 {
        interface stdout {
            use wasi:io/streams@0.2.0.{output-stream};
            get-stdout: func() -> output-stream;
        }
    }
    package wasi:io@0.2.0 {
        interface error { resource error; }
        interface poll { resource pollable; }
        interface streams {
            use error.{error};
            variant stream-error { last-operation-failed(error), closed }
            resource output-stream {
                write: func(contents: list<u8>) -> result<_, stream-error>;
            }
        }
    }
";

/// The contract, and the worlds of a package of tests.
#[must_use]
pub fn resolve(worlds: &str) -> Resolve {
    let mut resolve = Resolve::default();
    resolve
        .push_dir(crate::root().join("wit"))
        .expect("the contract");
    resolve.push_source("guests.wit", worlds).expect("worlds");
    resolve
}

/// A world by its name.
#[must_use]
pub fn world(resolve: &Resolve, name: &str) -> WorldId {
    let mut worlds = resolve.worlds.iter();
    let found = worlds.find(|(_, world)| world.name == name);
    found.expect("the world").0
}

/// A core module that says that it is of this world: what a toolchain for `wasm32-wasip1` makes.
#[must_use]
pub fn module(resolve: &Resolve, name: &str, mut core: Vec<u8>) -> Vec<u8> {
    let world = world(resolve, name);
    embed_component_metadata(&mut core, resolve, world, StringEncoding::UTF8).expect("a module");
    core
}

/// A component for this world.
#[must_use]
pub fn component(resolve: &Resolve, name: &str, core: Vec<u8>) -> Vec<u8> {
    ComponentEncoder::default()
        .validate(true)
        .module(&module(resolve, name, core))
        .expect("a module")
        .encode()
        .expect("a component")
}

/// A core module of a plugin.
#[derive(Debug, Clone, Copy)]
pub struct Core<'a> {
    /// Fields of the module.
    pub fields: &'a str,
    /// What `describe` does before it says the texts below.
    pub describe: &'a str,
    /// What the host gets that asks for memory.
    pub realloc: &'a str,
    /// What `remediate` does; it leaves the place of its result on the stack.
    pub remediate: &'a str,
    /// The name that it gives itself.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// The schema of its params.
    pub schema: &'a str,
}

/// One that is well-behaved until it has something to do.
pub const CORE: Core<'_> = Core {
    fields: "",
    describe: "",
    realloc: "global.get $free
        (global.set $free (i32.and (i32.const -8)
            (i32.add (i32.const 7) (i32.add (global.get $free) (local.get 3)))))",
    remediate: "unreachable",
    name: "good",
    version: "1.2.3",
    schema: r#"{"type": "object"}"#,
};

impl Core<'_> {
    /// Its text.
    #[must_use]
    pub fn text(&self) -> String {
        let texts = [self.name, self.version, "A summary.", self.schema];
        let mut at = 1024;
        let mut record = Vec::new();
        for text in texts {
            for number in [at, text.len()] {
                record.extend(u32::try_from(number).expect("a short text").to_le_bytes());
            }
            at += text.len();
        }
        let (record, texts) = (escaped(record), escaped(texts.concat().bytes()));
        let Self {
            fields,
            describe,
            realloc,
            remediate,
            ..
        } = self;
        format!(
            r#"(module
            {fields}
            (memory (export "memory") 4)
            (global $free (mut i32) (i32.const 65536))
            (data (i32.const 512) "{record}")
            (data (i32.const 1024) "{texts}")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) {realloc})
            (func (export "describe") (result i32) {describe} i32.const 512)
            (func (export "remediate") (param i32) (result i32) {remediate}))"#
        )
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        wat::parse_str(self.text()).expect("WebAssembly text")
    }

    /// A component of it that imports nothing.
    #[must_use]
    pub fn quiet(&self) -> Vec<u8> {
        component(&resolve(QUIET), "quiet", self.bytes())
    }

    /// A component of it that imports what it uses of WASI.
    #[must_use]
    pub fn with_wasi(&self) -> Vec<u8> {
        component(&resolve(WITH_WASI), "with-wasi", self.bytes())
    }
}

/// A plugin with two functions of so many branches each, over many variables: the compiler keeps in mind
/// which of them live where, and that grows faster than they do.
#[must_use]
pub fn greedy(name: &str, branches: usize) -> Vec<u8> {
    let mut body = "(local i32)".repeat(50);
    for n in 0..branches {
        let (asked, read, written) = (n % 50, n * 3 % 50, n * 7 % 50);
        write!(
            body,
            "(if (local.get {asked}) (then (local.set {written} (i32.add (local.get {read}) (i32.const 3)))))"
        )
        .expect("text");
    }
    let fields = format!("(func {body})").repeat(2);
    let core = Core {
        fields: &fields,
        name,
        ..CORE
    };
    core.quiet()
}

/// A plugin with a function that the compiler needs minutes for, and little memory: loops in which each of many
/// variables depends on another one.
#[must_use]
pub fn slow(name: &str) -> Vec<u8> {
    const VARIABLES: usize = 10_000;
    let mut turn = String::new();
    for n in 0..VARIABLES {
        let written = (n * 7 + 1) % VARIABLES;
        write!(
            turn,
            "(local.set {written} (i32.add (local.get {n}) (i32.const 1)))"
        )
        .expect("text");
    }
    let turns = format!("(loop {turn} (br_if 0 (local.get 0)))").repeat(30);
    let fields = format!("(func {} {turns})", "(local i32)".repeat(VARIABLES));
    let core = Core {
        fields: &fields,
        name,
        ..CORE
    };
    core.quiet()
}

/// Bytes as WAT writes them in a string.
fn escaped(bytes: impl IntoIterator<Item = u8>) -> String {
    let escape = |byte| ["\\".to_owned(), format!("{byte:02x}")];
    bytes.into_iter().flat_map(escape).collect()
}
