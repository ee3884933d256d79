//! `sentinel compile-plugin`: the daemon starts itself with it for each plugin that it
//! compiles, so that what compiling takes ends with a process.

use std::io::{self, Write as _};

use sentinel_sandbox::code::{CompileMemory, Compiler, serve_compiler};

use super::output::Failure;

/// The command's name.
pub(crate) const COMMAND: &str = "compile-plugin";

/// This program as a compiler. By its inode, so that it is the same one even after an
/// upgrade has put another in its place.
pub(crate) fn compiler() -> Compiler {
    Compiler::Program {
        program: "/proc/self/exe".into(),
        arguments: vec![COMMAND.into()],
        memory: CompileMemory::default(),
    }
}

/// Reads a component from stdin, and writes its machine code to stdout.
pub(super) fn run() -> Result<(), Failure> {
    serve_compiler(io::stdin().lock(), io::stdout().lock()).map_err(|reason| {
        // As it is: the daemon says the rest.
        let _told = io::stderr().write_all(reason.as_bytes());
        Failure::given("")
    })
}
