//! One run of a plugin: a store of its own, limits, and a report of how it ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sentinel_core::alert::Alert;
use sentinel_core::event::{FailureClass, RunResult};
use sentinel_core::id::{IncidentId, PolicyName, RunId, Target};
use serde::Serialize;
use tokio::time::Instant;
use tokio::time::error::Elapsed;
use wasmtime::{Engine, Store, Trap, UpdateDeadline, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::bindings::sentinel::plugin::types;
use crate::convert;
use crate::engine::{Sandbox, TICK};
use crate::gate::Gate;
use crate::guest::{Guest, Role, Stop};
use crate::log::{RunLog, clean};
use crate::plugin::Plugin;

/// How many bytes of a plugin's last word are kept.
const MESSAGE_BYTES: usize = 16 * 1024;
/// How many functions of a backtrace are told of.
const FRAMES: usize = 5;
/// How many bytes one host call may copy between guest and host, in either direction.
const HOSTCALL_BYTES: usize = 1024 * 1024;
/// How many component handles a guest may hold.
const MAX_HANDLES: usize = 10_000;

/// Why a plugin runs; the host's side of the contract's `incident`.
#[derive(Debug, Clone, PartialEq)]
pub struct IncidentInput {
    /// The incident.
    pub incident: IncidentId,
    /// This run of it.
    pub run: RunId,
    /// The policy that opened it.
    pub policy: PolicyName,
    /// What to act on.
    pub target: Target,
    /// The alert that opened it, with the status that it has now.
    pub alert: Alert,
    /// The step of the policy, counted from 1.
    pub step: u32,
    /// The attempt at that step, counted from 1.
    pub attempt: u32,
    /// The step's params; valid under the plugin's schema.
    pub params: serde_json::Map<String, serde_json::Value>,
}

/// What one run may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunLimits {
    /// How long it may take, waiting for the host included.
    pub timeout: Duration,
    /// How long it may compute. Time that it waits for the host is not counted.
    pub cpu: Duration,
    /// How much memory it may have, in bytes, over all of its memories.
    pub memory: usize,
    /// How many host calls of the contract it may make.
    pub calls: u32,
    /// How many bytes its log may have.
    pub log_bytes: usize,
    /// How many lines its log may have.
    pub log_lines: u32,
}

impl Default for RunLimits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            cpu: Duration::from_secs(5),
            memory: 64 * 1024 * 1024,
            calls: 10_000,
            log_bytes: 64 * 1024,
            log_lines: 1_000,
        }
    }
}

/// How a run ended when nothing went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", content = "message", rename_all = "kebab-case")]
pub enum Outcome {
    /// The plugin says that it changed something, and what.
    Changed(String),
    /// The plugin says that nothing had to be changed, and why.
    Unchanged(String),
}

/// How a run ended when something went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "failure", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RunFailure {
    /// The plugin's word: another attempt may succeed.
    #[error("{message}")]
    Retryable {
        /// Why.
        message: String,
    },
    /// The plugin's word: no attempt can succeed.
    #[error("{message}")]
    Permanent {
        /// Why.
        message: String,
    },
    /// The plugin's word: something needed was refused.
    #[error("{message}")]
    Denied {
        /// What, and why.
        message: String,
    },
    /// It ran into an instruction that ends it: a panic, an exception that was not
    /// caught, a division by zero.
    #[error("it trapped: {message}{}", in_functions(functions))]
    Trapped {
        /// What it said last, such as the text of a panic, else what the trap is.
        message: String,
        /// The functions that it was in, the innermost first; empty when the plugin was
        /// built without names.
        functions: Vec<String>,
    },
    /// It called itself too deeply.
    #[error("it used up its stack: endless recursion?{}", in_functions(functions))]
    OutOfStack {
        /// The functions that it was in, the innermost first.
        functions: Vec<String>,
    },
    /// It called the exit function of its language.
    #[error(
        "it called the exit function of its language: a plugin returns from `remediate` instead"
    )]
    Exited,
    /// It was not done in time.
    #[error("it was not done within {} and was cut off", millis(*limit_ms))]
    TimedOut {
        /// How long it had, in milliseconds.
        limit_ms: u64,
    },
    /// It computed for too long.
    #[error("it used up its CPU time of {} and was cut off: an endless loop?", millis(*limit_ms))]
    OutOfCpu {
        /// How long it could compute, in milliseconds.
        limit_ms: u64,
    },
    /// It wanted more memory than it may have.
    #[error("it wanted more than the {} MiB of memory that it may have", limit / (1024 * 1024))]
    OutOfMemory {
        /// How much it may have, in bytes.
        limit: usize,
    },
    /// It called the host too often.
    #[error("it made more than {limit} host calls and was cut off")]
    TooManyCalls {
        /// How many it may make.
        limit: u32,
    },
    /// It passed too much to the host in one call, or returned too much.
    #[error("it passed more than {} KiB to the host in one call or as its result", limit / 1024)]
    TooMuchData {
        /// How many bytes one call may pass.
        limit: usize,
    },
    /// It made a call that is not served where it made it.
    #[error("it made a call that it may not make: {message}")]
    Forbidden {
        /// Which call, and why.
        message: String,
    },
    /// The sandbox failed, and not the plugin.
    #[error("the sandbox failed: {message}")]
    Internal {
        /// How.
        message: String,
    },
}

impl RunFailure {
    /// What the engine does about it. What a plugin did to itself it would do again, so
    /// that is permanent; what time or the host did to it may pass.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Retryable { .. } | Self::TimedOut { .. } | Self::Internal { .. } => {
                FailureClass::Retryable
            }
            Self::Permanent { .. }
            | Self::Trapped { .. }
            | Self::OutOfStack { .. }
            | Self::Exited
            | Self::OutOfCpu { .. }
            | Self::OutOfMemory { .. }
            | Self::TooManyCalls { .. }
            | Self::TooMuchData { .. } => FailureClass::Permanent,
            Self::Denied { .. } | Self::Forbidden { .. } => FailureClass::Denied,
        }
    }
}

/// How a run ended, and what it used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunReport {
    /// How it ended.
    pub result: Result<Outcome, RunFailure>,
    /// How long it computed, to the nearest tick of a millisecond.
    pub cpu: Duration,
    /// How long it took, without the time that it waited for its turn.
    pub wall: Duration,
    /// How long it waited for its turn.
    pub queued: Duration,
    /// The most memory that it had, in bytes.
    pub peak_memory: u64,
    /// How many host calls of the contract it made.
    pub calls: u32,
    /// How many entries of its log were dropped.
    pub log_dropped: u32,
}

impl RunReport {
    fn failed(failure: RunFailure) -> Self {
        Self {
            result: Err(failure),
            cpu: Duration::ZERO,
            wall: Duration::ZERO,
            queued: Duration::ZERO,
            peak_memory: 0,
            calls: 0,
            log_dropped: 0,
        }
    }
}

impl From<&RunReport> for RunResult {
    fn from(report: &RunReport) -> Self {
        match &report.result {
            Ok(Outcome::Changed(message)) => Self::Changed {
                message: message.clone(),
            },
            Ok(Outcome::Unchanged(message)) => Self::Unchanged {
                message: message.clone(),
            },
            Err(failure) => Self::Failed {
                class: failure.class(),
                message: failure.to_string(),
            },
        }
    }
}

impl Sandbox {
    /// Runs `plugin` once, for `incident`, when one of the places for runs is free. What
    /// it asks of the world goes through `gate`.
    ///
    /// Dropping the future cuts the run off. An effect that has begun goes on, as the
    /// gate has it.
    pub async fn run(
        &self,
        plugin: Arc<Plugin>,
        incident: IncidentInput,
        gate: Gate,
        limits: RunLimits,
    ) -> RunReport {
        let limits = RunLimits {
            memory: limits.memory.min(self.config().max_memory),
            ..limits
        };
        let asked = Instant::now();
        let place = match self.run_place().await {
            Ok(place) => place,
            Err(message) => return RunReport::failed(RunFailure::Internal { message }),
        };
        let queued = asked.elapsed();
        let (ticker, engine) = (self.ticker(), self.engine());
        let task = async move {
            let _place = place;
            let _ticking = ticker.tick();
            let began = Instant::now();
            let deadline = began + limits.timeout;
            gate.set_deadline(deadline);
            let sink = gate.clone();
            let log = RunLog::new(
                limits.log_bytes,
                limits.log_lines,
                Box::new(move |level, line| sink.logged(level, line)),
            );
            let incident = convert::incident(&incident);
            let mut store = store(&engine, Role::Running(gate), &limits, log.clone(), deadline);
            let ended = tokio::time::timeout_at(deadline, async {
                let instance = plugin.pre().instantiate_async(&mut store).await?;
                instance.call_remediate(&mut store, &incident).await
            })
            .await;
            let ended = finish(ended, store, &limits, &log);
            RunReport {
                result: ended.result.and_then(outcome),
                cpu: ended.cpu,
                wall: began.elapsed(),
                queued,
                peak_memory: ended.peak_memory,
                calls: ended.calls,
                log_dropped: ended.log_dropped,
            }
        };
        self.spawn(task)
            .await
            .unwrap_or_else(|message| RunReport::failed(RunFailure::Internal { message }))
    }
}

/// What the plugin says of the run.
fn outcome(said: Result<types::Outcome, types::Failure>) -> Result<Outcome, RunFailure> {
    let message = |text: String| clean(&text, MESSAGE_BYTES);
    match said {
        Ok(types::Outcome::Changed(text)) => Ok(Outcome::Changed(message(text))),
        Ok(types::Outcome::Unchanged(text)) => Ok(Outcome::Unchanged(message(text))),
        Err(types::Failure::Retryable(text)) => Err(RunFailure::Retryable {
            message: message(text),
        }),
        Err(types::Failure::Permanent(text)) => Err(RunFailure::Permanent {
            message: message(text),
        }),
        Err(types::Failure::Denied(text)) => Err(RunFailure::Denied {
            message: message(text),
        }),
    }
}

/// A store with all limits set. A trap spoils a store for good, and what a guest leaves
/// in its memory is nobody else's business: every call gets a new one.
pub(crate) fn store(
    engine: &Engine,
    role: Role,
    limits: &RunLimits,
    log: RunLog,
    deadline: Instant,
) -> Store<Guest> {
    let mut store = Store::new(engine, Guest::new(role, limits, log, deadline));
    store.limiter(|guest| &mut guest.memory);
    store.set_hostcall_fuel(HOSTCALL_BYTES);
    store.set_max_component_handles(MAX_HANDLES);
    // At every tick the guest makes room for others. Only ticks at which it is seen
    // computing are counted, so that waiting for the host costs it nothing.
    let budget = limits.cpu.as_millis() / TICK.as_millis();
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |mut context| {
        let guest = context.data_mut();
        guest.ticks += 1;
        if u128::from(guest.ticks) > budget {
            return Err(Stop::OutOfCpu.into());
        }
        Ok(UpdateDeadline::YieldCustom(
            1,
            Box::pin(tokio::task::yield_now()),
        ))
    });
    store
}

/// How a call ended, and what it used.
pub(crate) struct Ended<T> {
    pub(crate) result: Result<T, RunFailure>,
    cpu: Duration,
    peak_memory: u64,
    calls: u32,
    log_dropped: u32,
}

/// Takes stock after a call.
pub(crate) fn finish<T>(
    ended: Result<wasmtime::Result<T>, Elapsed>,
    store: Store<Guest>,
    limits: &RunLimits,
    log: &RunLog,
) -> Ended<T> {
    let guest = store.into_data();
    log.finish();
    let result = match ended {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(explain(&error, &guest, limits, log)),
        Err(_) => Err(RunFailure::TimedOut {
            limit_ms: whole_millis(limits.timeout),
        }),
    };
    Ended {
        result,
        cpu: TICK.saturating_mul(u32::try_from(guest.ticks).unwrap_or(u32::MAX)),
        peak_memory: guest.memory.peak(),
        calls: guest.calls(),
        log_dropped: log.dropped(),
    }
}

/// What an error of wasmtime means, for people.
fn explain(error: &wasmtime::Error, guest: &Guest, limits: &RunLimits, log: &RunLog) -> RunFailure {
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return match stop {
            Stop::OutOfCpu => RunFailure::OutOfCpu {
                limit_ms: whole_millis(limits.cpu),
            },
            Stop::TooManyCalls => RunFailure::TooManyCalls {
                limit: limits.calls,
            },
            Stop::NotInDescribe(_) => RunFailure::Forbidden {
                message: stop.to_string(),
            },
        };
    }
    // With which code cannot be told: WASI 0.2 has but two.
    if error.is::<I32Exit>() {
        return RunFailure::Exited;
    }
    // wasmtime gives this error no type of its own.
    if one_line(error).starts_with("too much data is being copied") {
        return RunFailure::TooMuchData {
            limit: HOSTCALL_BYTES,
        };
    }
    // A guest that gets no memory often panics or aborts, which does not say why.
    if guest.memory.refused() {
        return RunFailure::OutOfMemory {
            limit: limits.memory,
        };
    }
    let functions = functions(error);
    match error.downcast_ref::<Trap>() {
        // A guest in Rust or C has its own stack in its memory, and runs out at its
        // lower end.
        Some(Trap::StackOverflow) => RunFailure::OutOfStack { functions },
        Some(Trap::MemoryOutOfBounds) if is_recursion(error) => {
            RunFailure::OutOfStack { functions }
        }
        Some(trap) => RunFailure::Trapped {
            message: log.last_words().unwrap_or_else(|| trap.to_string()),
            functions,
        },
        None => RunFailure::Internal {
            message: one_line(error),
        },
    }
}

/// Whether one function is in the backtrace many times over.
fn is_recursion(error: &wasmtime::Error) -> bool {
    const MANY: u32 = 5;
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else {
        return false;
    };
    let mut times = BTreeMap::<u32, u32>::new();
    for frame in backtrace.frames() {
        *times.entry(frame.func_index()).or_default() += 1;
    }
    times.values().any(|times| *times >= MANY)
}

/// The functions that the guest was in, without those of its language's way to panic.
fn functions(error: &wasmtime::Error) -> Vec<String> {
    const NOISE: [&str; 8] = [
        "abort", "panic", "__rust", "rust_", "std::", "core::", "alloc::", "unlikely",
    ];
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else {
        return Vec::new();
    };
    let mut functions: Vec<String> = backtrace
        .frames()
        .iter()
        .filter_map(|frame| frame.func_name())
        .filter(|name| {
            let name = name.trim_start_matches(['_', '<']);
            !NOISE
                .iter()
                .any(|noise| name.starts_with(noise.trim_start_matches('_')))
        })
        .map(|name| clean(without_hash(name), 128))
        .collect();
    functions.dedup();
    functions.truncate(FRAMES);
    functions
}

/// A Rust function's name without the hash that the compiler puts at its end.
fn without_hash(name: &str) -> &str {
    match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && hash.chars().all(|c| c.is_ascii_hexdigit()) => {
            path
        }
        _ => name,
    }
}

fn in_functions(functions: &[String]) -> String {
    functions
        .first()
        .map(|innermost| format!(" (in {innermost})"))
        .unwrap_or_default()
}

/// The cause at the root of `error`, without the backtrace that wasmtime puts in front.
pub(crate) fn one_line(error: &wasmtime::Error) -> String {
    let cause = error.root_cause().to_string();
    clean(
        &cause.split_whitespace().collect::<Vec<_>>().join(" "),
        MESSAGE_BYTES,
    )
}

fn whole_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn millis(millis: u64) -> String {
    shown(Duration::from_millis(millis))
}

/// A span of time as policies write it: `30s`, `1500ms`.
pub(crate) fn shown(span: Duration) -> String {
    if span.subsec_millis() == 0 {
        format!("{}s", span.as_secs())
    } else {
        format!("{}ms", span.as_millis())
    }
}
