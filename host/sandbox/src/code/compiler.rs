//! Who compiles.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use wasmtime::Engine;

use crate::engine::{self, SandboxConfig};
use crate::log::clean;
use crate::plugin::LoadError;
use crate::run::{self, Room};

/// How much of what the compiler complains about is kept.
const COMPLAINT_BYTES: usize = 4096;

/// How many files a compiling process may have open.
const OPEN_FILES: u64 = 64;

/// How much memory a compiler of its own process may have, in bytes of address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileMemory(pub u64);

impl Default for CompileMemory {
    /// 2 GiB: Python's interpreter, the largest guest that is known, takes 350 MiB.
    fn default() -> Self {
        Self(2 << 30)
    }
}

/// Who compiles plugins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Compiler {
    /// Threads of this process. They cannot be interrupted, and what they took of memory
    /// the process most often keeps.
    #[default]
    Threads,
    /// A process for each plugin, which can be ended: a program that calls
    /// [`serve_compiler`] when it is started with these arguments.
    Program {
        /// The program: most often this one itself, as `/proc/self/exe` has it.
        program: PathBuf,
        /// What tells it to compile.
        arguments: Vec<OsString>,
        /// What it may take.
        memory: CompileMemory,
    },
}

/// What a compiling process has to know of the one that started it.
const MAX_MEMORY: &str = "SENTINEL_COMPILE_MAX_MEMORY";
const MEMORY: &str = "SENTINEL_COMPILE_MEMORY";
const SECONDS: &str = "SENTINEL_COMPILE_SECONDS";

impl Compiler {
    /// Compiles `wasm` in a process of its own, for at most `limit`. None when this
    /// compiler has none, or when none can be started.
    pub(crate) async fn process(
        &self,
        wasm: &[u8],
        config: &SandboxConfig,
        limit: Duration,
    ) -> Option<Result<Vec<u8>, LoadError>> {
        let Self::Program {
            program,
            arguments,
            memory,
        } = self
        else {
            return None;
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "it compiles, touches nothing, and ends with whoever waits for it"
        )]
        let started = Command::new(program)
            .args(arguments)
            .env_clear()
            .env(MAX_MEMORY, config.room.memory.to_string())
            .env(MEMORY, memory.0.to_string())
            .env(SECONDS, limit.as_secs().saturating_add(1).to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = match started {
            Ok(child) => child,
            Err(error) => {
                tracing::warn!(%error, program = %program.display(), "no process to compile in; compiling in this one");
                return None;
            }
        };
        let broke = |error: std::io::Error| LoadError::Internal(format!("compiling: {error}"));
        let (Some(mut stdin), Some(mut stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return None;
        };
        let work = async {
            let (mut code, mut complaint) = (Vec::new(), Vec::new());
            // A compiler that ends early closes its input, and says why.
            let give = async {
                let given = stdin.write_all(wasm).await;
                drop(stdin);
                given
            };
            let mut stderr = stderr.take(COMPLAINT_BYTES as u64);
            let (_given, read, complained) = tokio::join!(
                give,
                stdout.read_to_end(&mut code),
                stderr.read_to_end(&mut complaint)
            );
            read.and(complained).map_err(broke)?;
            let status = child.wait().await.map_err(broke)?;
            if status.success() {
                return Ok(code);
            }
            let said = String::from_utf8_lossy(&complaint);
            let said = clean(&in_one_line(&said), COMPLAINT_BYTES);
            Err(match status.code() {
                Some(1) => LoadError::Compile { reason: said },
                // The allocator gives up with an abort.
                _ => LoadError::CompilerEnded {
                    how: status.to_string(),
                    memory: memory.0,
                    said,
                },
            })
        };
        let done = tokio::time::timeout(limit, work).await;
        Some(done.unwrap_or(Err(LoadError::CompileTimedOut { limit })))
    }
}

/// What a process said at its end, without what Rust adds for its developers.
fn in_one_line(said: &str) -> String {
    let lines = said.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("note: run with"));
    lines.collect::<Vec<_>>().join(" ")
}

/// Compiles on this process's own threads.
pub(crate) fn here(engine: &Engine, wasm: &[u8]) -> Result<Vec<u8>, LoadError> {
    engine
        .precompile_component(wasm)
        .map_err(|error| LoadError::Compile {
            reason: run::one_line(&error),
        })
}

/// Gives up what compiling does not take, for good: whatever a plugin makes of the compiler
/// has no more than this. Its environment was cleared when it was started. It is ended after `seconds` by
/// whoever waits for it; of a daemon that was killed it ends by itself, once all its threads have had so many.
fn bound(memory: u64, seconds: u64) -> Result<(), String> {
    let cannot = |what: &str| {
        let what = what.to_owned();
        move |error: rustix::io::Errno| format!("{what} cannot be bounded: {error}")
    };
    no_new_rights().map_err(cannot("its rights"))?;
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    for (resource, what, most) in [
        (Resource::As, "memory", memory),
        (Resource::Cpu, "time", seconds.saturating_mul(threads)),
        (Resource::Core, "what it leaves behind", 0),
        // What it writes goes into pipes.
        (Resource::Fsize, "files", 0),
        (Resource::Nofile, "open files", OPEN_FILES),
    ] {
        let hard = getrlimit(resource).maximum;
        let most = hard.map_or(most, |hard| hard.min(most));
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, limit).map_err(cannot(what))?;
    }
    // Nobody else of the same user is to read its memory.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(cannot("its memory"))
}

/// No program that this process might start has more rights than it.
fn no_new_rights() -> Result<(), rustix::io::Errno> {
    #[expect(
        unsafe_code,
        reason = "a call of the system that takes numbers alone; rustix has it behind a feature that would have wasmtime built anew"
    )]
    let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if done == 0 {
        Ok(())
    } else {
        let error = std::io::Error::last_os_error();
        Err(rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::PERM))
    }
}

/// The other side of [`Compiler::Program`]: reads a component, and writes its machine
/// code. An error is one line for people, and the process is to end with code 1.
pub fn serve_compiler(mut input: impl Read, mut output: impl Write) -> Result<(), String> {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
            .ok_or_else(|| format!("{name} is not set: this is for sentinel itself to call"))
    };
    let (max_memory, memory, seconds) = (number(MAX_MEMORY)?, number(MEMORY)?, number(SECONDS)?);
    engine::lower_priority();
    bound(memory, seconds)?;
    let mut wasm = Vec::new();
    input
        .read_to_end(&mut wasm)
        .map_err(|error| format!("the component cannot be read: {error}"))?;
    let config = SandboxConfig {
        room: Room {
            memory: usize::try_from(max_memory).unwrap_or(usize::MAX),
            ..Room::default()
        },
        ..SandboxConfig::default()
    };
    let engine = engine::compiling(&config).map_err(|error| run::one_line(&error))?;
    let code = engine
        .precompile_component(&wasm)
        .map_err(|error| run::one_line(&error))?;
    output
        .write_all(&code)
        .and_then(|()| output.flush())
        .map_err(|error| format!("the machine code cannot be written: {error}"))
}
