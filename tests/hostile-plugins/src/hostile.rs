//! A plugin that tries to break the sandbox, in the way that its params choose. It asks for
//! `docker.inspect` alone.

use std::hint::black_box;
use std::time::Duration;

use sentinel_plugin::docker::Container;
use sentinel_plugin::{Failure, Incident, Outcome, Remediation, clock, info, log};
use serde::Deserialize;

pub(crate) struct Hostile;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    behaviour: Behaviour,
    /// How long `slow-changed` sleeps, in milliseconds.
    #[serde(default)]
    ms: u64,
    /// How large the huge things are, in MiB. 64 is more than a run may have memory for; a few
    /// fit into it and are still more than may cross the boundary.
    #[serde(default = "huge")]
    mib: usize,
    /// What the well-behaved endings say.
    #[serde(default)]
    text: String,
}

const fn huge() -> usize {
    64
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Behaviour {
    /// Computes for ever, without a single call.
    Spin,
    /// The same after a call that the host answered.
    SpinAfterCall,
    Panic,
    /// Ends the process that it is not in, through WASI.
    Exit,
    /// Takes memory and writes to it until there is none.
    MemoryBomb,
    DeepRecursion,
    /// A million lines.
    LogFlood,
    /// One line of `mib` MiB.
    HugeLog,
    /// A million calls of `docker.inspect`.
    CallFlood,
    /// The same, of a name of half a MiB that is not granted.
    RefusedFlood,
    SleepForever,
    /// Says in `mib` MiB that something was changed.
    HugeResult,
    /// Escape sequences, line breaks and NUL, in a log line and in the result.
    TerminalEscapes,
    /// Writes to stdout and stderr, which are WASI's.
    Stdio,
    /// The same a million times.
    StdioFlood,
    /// Sleeps through WASI, for ever.
    WasiSleep,
    SlowChanged,
    Changed,
    Unchanged,
    Retryable,
    Permanent,
    Denied,
}

const MANY: u32 = 1_000_000;
/// Clears the screen, sets the window's title, asks the terminal to answer, forges a line.
const ESCAPES: &str =
    "\x1b[2J\x1b[1;1H\x1b]0;owned\x07\x1b[6n\u{9b}31m\0\r\nerror: forged line \u{202e}desrever";

impl Remediation for Hostile {
    type Params = Params;

    const SUMMARY: &'static str = "Tries to break the sandbox.";

    const PARAMS_SCHEMA: &'static str = r#"{
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "behaviour": { "enum": [
                "spin", "spin-after-call", "stdio-flood", "wasi-sleep", "panic", "exit", "memory-bomb", "deep-recursion", "log-flood",
                "huge-log", "call-flood", "refused-flood", "sleep-forever", "huge-result",
                "terminal-escapes", "stdio", "slow-changed", "changed", "unchanged",
                "retryable", "permanent", "denied"
            ] },
            "ms": { "type": "integer", "minimum": 0 },
            "mib": { "type": "integer", "minimum": 0, "maximum": 1024 },
            "text": { "type": "string" }
        },
        "required": ["behaviour"],
        "additionalProperties": false
    }"#;

    fn remediate(incident: &Incident, params: Params) -> Result<Outcome, Failure> {
        let text = params.text;
        match params.behaviour {
            Behaviour::Spin => spin(),
            Behaviour::SpinAfterCall => {
                let _looked = clock::elapsed();
                spin()
            }
            Behaviour::Panic => panic(),
            Behaviour::Exit => exit(),
            Behaviour::MemoryBomb => Ok(Outcome::changed(format!("took {} MiB", memory_bomb()))),
            Behaviour::DeepRecursion => {
                let depth = recurse(incident.run.len() as u64);
                Ok(Outcome::changed(format!("came back from {depth}")))
            }
            Behaviour::LogFlood => {
                for line in 0..MANY {
                    info!("line {line} of a flood");
                }
                Ok(Outcome::unchanged(format!("logged {MANY} lines")))
            }
            Behaviour::HugeLog => {
                log::write(log::Level::Info, &"x".repeat(params.mib << 20));
                Ok(Outcome::unchanged("logged a huge line"))
            }
            Behaviour::CallFlood => call_flood(incident),
            Behaviour::RefusedFlood => Ok(refused_flood()),
            Behaviour::SleepForever => {
                clock::sleep(Duration::MAX);
                Ok(Outcome::unchanged("woke up"))
            }
            Behaviour::HugeResult => Ok(Outcome::changed("x".repeat(params.mib << 20))),
            Behaviour::TerminalEscapes => {
                info!("{ESCAPES}");
                Ok(Outcome::unchanged(ESCAPES))
            }
            Behaviour::Stdio => {
                stdio();
                Ok(Outcome::unchanged("wrote to stdout and stderr"))
            }
            Behaviour::StdioFlood => {
                for _ in 0..MANY {
                    stdio();
                }
                Ok(Outcome::unchanged(format!("wrote {MANY} lines")))
            }
            Behaviour::WasiSleep => wasi_sleep(),
            Behaviour::SlowChanged => {
                clock::sleep(Duration::from_millis(params.ms));
                Ok(Outcome::Changed(text))
            }
            Behaviour::Changed => Ok(Outcome::Changed(text)),
            Behaviour::Unchanged => Ok(Outcome::Unchanged(text)),
            Behaviour::Retryable => Err(Failure::Retryable(text)),
            Behaviour::Permanent => Err(Failure::Permanent(text)),
            Behaviour::Denied => Err(Failure::Denied(text)),
        }
    }
}

fn spin() -> ! {
    let mut turns: u64 = 0;
    loop {
        turns = black_box(turns).wrapping_add(1);
    }
}

#[expect(clippy::panic, reason = "the host must survive it")]
fn panic() -> ! {
    panic!("this plugin panics on purpose")
}

#[expect(clippy::exit, reason = "the host must survive it")]
fn exit() -> ! {
    std::process::exit(3)
}

#[expect(clippy::disallowed_methods, reason = "a guest waits through WASI here")]
fn wasi_sleep() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn memory_bomb() -> usize {
    let mut taken = Vec::new();
    // More than a 32-bit guest can have: the allocator gives up before the loop ends.
    while taken.len() < 8_192 {
        taken.push(black_box(vec![1_u8; 1 << 20]));
    }
    taken.len()
}

/// The array keeps each call's frame large, and the addition after the call keeps it from
/// becoming a loop.
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 32]);
    if black_box(depth) == u64::MAX {
        return depth;
    }
    recurse(depth + 1) + frame.iter().filter(|&&word| word != depth).count() as u64
}

fn call_flood(incident: &Incident) -> Result<Outcome, Failure> {
    let container = incident
        .target
        .container()
        .unwrap_or_else(|| Container::new("local", "nginx"));
    let mut answered = 0_u32;
    let mut last_refusal = None;
    for _ in 0..MANY {
        match container.inspect() {
            Ok(_) => answered += 1,
            Err(error) => last_refusal = Some(error),
        }
    }
    match last_refusal {
        Some(error) => Err(error.into()),
        None => Ok(Outcome::unchanged(format!(
            "{answered} calls were answered"
        ))),
    }
}

fn refused_flood() -> Outcome {
    let container = Container::new("local", "x".repeat(512 << 10));
    let mut refused = 0_u32;
    while refused < MANY {
        refused += u32::from(container.inspect().is_err());
    }
    Outcome::unchanged(format!("{refused} calls were refused"))
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the host has to catch it"
)]
fn stdio() {
    println!("a line on stdout");
    eprintln!("a line on stderr");
}
