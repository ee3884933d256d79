//! One run of a plugin: a store of its own, limits, and a report of how it ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sentinel_core::alert::Alert;
use sentinel_core::event::{FailureClass, RunResult, StopCause};
use sentinel_core::id::{IncidentId, PolicyName, RunId, Target};
use serde::Serialize;
use tokio::time::Instant;
use wasmtime::component::ResourceTableError;
use wasmtime::{Engine, PoolConcurrencyLimitError, Store, Trap, UpdateDeadline, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::bindings::sentinel::plugin::types;
use crate::breath::Breath;
use crate::convert;
use crate::engine::{Sandbox, TICK, Ticks};
use crate::gate::{Gate, Halted};
use crate::guest::{Guest, Role, Source, Stop};
use crate::log::{RunLog, clean};
use crate::plugin::Plugin;

/// How many bytes of a plugin's last word are kept.
const MESSAGE_BYTES: usize = 16 * 1024;
/// How many functions of a backtrace are told of.
const FRAMES: usize = 5;

/// How the messages of those failures begin that come of the moment and not of what the
/// plugin did: of a recorded run only its message is left.
const NOT_DONE: &str = "it was not done within";
const USED_UP: &str = "it used up its CPU time of";
const RECORD_FULL: &str = "it put more on record than the";
const NO_ACCOUNT: &str = "its account could not be kept, so it was ended";
const SANDBOX_FAILED: &str = "the sandbox failed";

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

/// What an instance of a plugin may take up. Room for all runs is set aside in advance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Room {
    /// How many bytes of memory, over all of its memories.
    pub memory: usize,
    /// How many core modules may be instantiated in it: the components of large languages
    /// are made of dozens.
    pub instances: u32,
    /// How many tables it may have.
    pub tables: u32,
    /// How many entries each table may have.
    pub table_entries: u32,
}

impl Default for Room {
    /// Enough for the largest language runtimes.
    fn default() -> Self {
        Self {
            memory: 64 * 1024 * 1024,
            instances: 50,
            tables: 8,
            table_entries: 20_000,
        }
    }
}

impl Room {
    /// The room that both have.
    #[must_use]
    pub fn within(self, other: Self) -> Self {
        self.with(other, usize::min, u32::min)
    }

    /// The room in which each of both fits.
    #[must_use]
    pub fn around(self, other: Self) -> Self {
        self.with(other, usize::max, u32::max)
    }

    fn with(
        self,
        other: Self,
        size: fn(usize, usize) -> usize,
        count: fn(u32, u32) -> u32,
    ) -> Self {
        Self {
            memory: size(self.memory, other.memory),
            instances: count(self.instances, other.instances),
            tables: count(self.tables, other.tables),
            table_entries: count(self.table_entries, other.table_entries),
        }
    }
}

/// What one run may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunLimits {
    /// How long it may take, waiting for the host included.
    pub timeout: Duration,
    /// How long it may compute. Time that it waits for the host is not counted.
    pub cpu: Duration,
    /// What it may take up.
    pub room: Room,
    /// How many resources of WASI (streams, pollables) it may hold at once.
    pub resources: u32,
    /// How many host calls of the contract it may make.
    pub calls: u32,
    /// How many of those that leave the sandbox it may make in a second, after a second's
    /// worth that may come at once; what goes past it waits for its turn.
    pub call_rate: u32,
    /// How many bytes it may pass to the host in one call, and as its result.
    pub call_bytes: usize,
    /// How many bytes its params may have, as JSON.
    pub params_bytes: usize,
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
            room: Room::default(),
            resources: 1_000,
            calls: 10_000,
            call_rate: 1_000,
            call_bytes: 1024 * 1024,
            params_bytes: 64 * 1024,
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
    #[error("{NOT_DONE} {} and was cut off", millis(*limit_ms))]
    TimedOut {
        /// How long it had, in milliseconds.
        limit_ms: u64,
    },
    /// It computed for too long.
    #[error("{USED_UP} {} and was cut off: an endless loop?", millis(*limit_ms))]
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
    /// It put too much on record.
    #[error(
        "{RECORD_FULL} {} KiB that `limits.plugin.record` lets it (requests, answers, messages, log), and was cut off",
        limit / 1024
    )]
    TooMuchRecorded {
        /// How many bytes it may put there.
        limit: usize,
    },
    /// It held too many resources of WASI.
    #[error("it held more than {limit} resources (streams, pollables) at once")]
    TooManyResources {
        /// How many it may hold.
        limit: u32,
    },
    /// It is made of more than it may have.
    #[error("it needs more than its limits let it have: {message}")]
    TooLarge {
        /// Of what, in wasmtime's words.
        message: String,
    },
    /// It passed to the host what no component may pass: text that is no UTF-8, a list
    /// beyond the end of its memory, a handle that it does not have.
    #[error(
        "it broke the rules of the component model: {message}{}",
        in_functions(functions)
    )]
    BrokeRules {
        /// Which, in wasmtime's words.
        message: String,
        /// The functions that it was in, the innermost first.
        functions: Vec<String>,
    },
    /// Its params are too large for it.
    #[error("its params have {} KiB, and it may have {} KiB", size.div_ceil(1024), limit / 1024)]
    ParamsTooLarge {
        /// How many bytes they have, as JSON.
        size: usize,
        /// How many they may have.
        limit: usize,
    },
    /// Holding its params against its own schema took too long.
    #[error("its params were not held against its schema within {}", millis(*limit_ms))]
    SchemaTimedOut {
        /// How long that may take, in milliseconds.
        limit_ms: u64,
    },
    /// It made a call that is not served where it made it.
    #[error("it made a call that it may not make: {message}")]
    Forbidden {
        /// Which call, and why.
        message: String,
    },
    /// The host ended it between two effects.
    #[error("{message}")]
    Stopped {
        /// Why.
        cause: StopCause,
        /// In words.
        message: String,
    },
    /// What it did, or what it was told, could not be recorded.
    #[error("{NO_ACCOUNT}: {message}")]
    Unrecorded {
        /// Why.
        message: String,
    },
    /// The sandbox failed, and not the plugin.
    #[error("{SANDBOX_FAILED}: {message}")]
    Internal {
        /// How.
        message: String,
    },
}

impl RunFailure {
    /// What the engine does about it. What a plugin did to itself it would do again, so
    /// that is permanent; what time or the host did to it may pass. None when the host
    /// stopped it: that is no attempt of the step.
    #[must_use]
    pub fn class(&self) -> Option<FailureClass> {
        Some(match self {
            Self::Stopped { .. } => return None,
            Self::Retryable { .. }
            | Self::TimedOut { .. }
            | Self::Unrecorded { .. }
            | Self::Internal { .. } => FailureClass::Retryable,
            Self::Permanent { .. }
            | Self::Trapped { .. }
            | Self::OutOfStack { .. }
            | Self::Exited
            | Self::OutOfCpu { .. }
            | Self::OutOfMemory { .. }
            | Self::TooManyCalls { .. }
            | Self::TooMuchData { .. }
            | Self::TooMuchRecorded { .. }
            | Self::TooManyResources { .. }
            | Self::BrokeRules { .. }
            | Self::TooLarge { .. }
            | Self::ParamsTooLarge { .. }
            | Self::SchemaTimedOut { .. } => FailureClass::Permanent,
            Self::Denied { .. } | Self::Forbidden { .. } => FailureClass::Denied,
        })
    }

    /// Whether `message` tells of a failure of the moment, after which the plugin might
    /// have gone on.
    pub(crate) fn says_cut_off(message: &str) -> bool {
        [NOT_DONE, USED_UP, RECORD_FULL, NO_ACCOUNT, SANDBOX_FAILED]
            .iter()
            .any(|begin| message.starts_with(begin))
    }

    /// Whether the plugin broke down: it did what no plugin is meant to do, whatever it was
    /// asked. What it reports itself is no fault of it.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        matches!(
            self,
            Self::Trapped { .. }
                | Self::OutOfStack { .. }
                | Self::Exited
                | Self::TimedOut { .. }
                | Self::OutOfCpu { .. }
                | Self::OutOfMemory { .. }
                | Self::TooManyCalls { .. }
                | Self::TooMuchData { .. }
                | Self::TooMuchRecorded { .. }
                | Self::TooManyResources { .. }
                | Self::BrokeRules { .. }
                | Self::SchemaTimedOut { .. }
                | Self::Forbidden { .. }
        )
    }

    /// Whether the plugin itself came to an end here, and would at the same place again.
    fn is_of_the_plugin(&self) -> bool {
        match self {
            Self::TimedOut { .. }
            | Self::OutOfCpu { .. }
            | Self::Stopped { .. }
            | Self::Unrecorded { .. }
            | Self::TooLarge { .. }
            | Self::ParamsTooLarge { .. }
            | Self::SchemaTimedOut { .. }
            | Self::Internal { .. } => false,
            Self::Retryable { .. }
            | Self::Permanent { .. }
            | Self::Denied { .. }
            | Self::Trapped { .. }
            | Self::OutOfStack { .. }
            | Self::Exited
            | Self::OutOfMemory { .. }
            | Self::TooManyCalls { .. }
            | Self::TooMuchData { .. }
            | Self::TooMuchRecorded { .. }
            | Self::TooManyResources { .. }
            | Self::BrokeRules { .. }
            | Self::Forbidden { .. } => true,
        }
    }

    /// Puts `more` behind the plugin's own words.
    fn add(&mut self, more: &str) {
        if let Self::Retryable { message }
        | Self::Permanent { message }
        | Self::Denied { message } = self
        {
            message.push_str(more);
        }
    }
}

impl From<Halted> for RunFailure {
    fn from(Halted { cause, message }: Halted) -> Self {
        Self::Stopped { cause, message }
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
    pub(crate) fn failed(failure: RunFailure) -> Self {
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
            Err(RunFailure::Stopped { cause, message }) => Self::Stopped {
                cause: *cause,
                message: message.clone(),
            },
            Err(failure) => Self::Failed {
                class: failure.class().unwrap_or(FailureClass::Permanent),
                message: failure.to_string(),
            },
        }
    }
}

impl Sandbox {
    /// Runs `plugin` once, for `incident`, when one of the places for runs is free. What
    /// it asks of the world goes through `gate`. If the gate has a record of the run, it
    /// goes on from there: what is on record is played, and nothing of it is done again.
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
        let limits = self.bounded(limits);
        gate.look_into_doubt().await;
        let asked = Instant::now();
        let place = tokio::select! {
            biased;
            halted = gate.stopped() => return RunReport::failed(halted.into()),
            place = self.run_place() => place,
        };
        let place = match place {
            Ok(place) => place,
            Err(message) => return RunReport::failed(RunFailure::Internal { message }),
        };
        let queued = asked.elapsed();
        let ticker = self.ticker();
        let runs = Arc::clone(&plugin);
        let task = async move {
            let _place = place;
            let _ticking = ticker.tick();
            let source = match gate.begin(&plugin, &incident, &limits) {
                Ok(source) => source,
                Err(failure) => return RunReport::failed(failure),
            };
            let sink = gate.clone();
            let log = RunLog::new(
                limits.log_bytes,
                limits.log_lines,
                Box::new(move |level, line| sink.logged(level, line)),
            );
            let remediation = Remediation {
                plugin,
                incident,
                role: Role::Running(gate.clone()),
                limits,
                log,
                source,
            };
            // Biased in favour of the host: a run that was told to end while its effect was
            // under way ends when that has.
            let cut = async { Stop::from(gate.cut_off().await) };
            let mut report = remediation.run(ticker.ticks(), cut).await;
            gate.finish();
            report.result = conclude(report.result, &gate);
            report.queued = queued;
            report
        };
        self.host(runs, task)
            .await
            .unwrap_or_else(|message| RunReport::failed(RunFailure::Internal { message }))
    }

    /// Makes a run that has no gate, when one of the places for runs is free.
    pub(crate) async fn run_apart(&self, remediation: Remediation) -> RunReport {
        let ticker = self.ticker();
        let plugin = Arc::clone(&remediation.plugin);
        let ended = match self.run_place().await {
            Ok(place) => {
                let task = async move {
                    let _place = place;
                    let _ticking = ticker.tick();
                    remediation
                        .run(ticker.ticks(), std::future::pending())
                        .await
                };
                self.host(plugin, task).await
            }
            Err(message) => Err(message),
        };
        ended.unwrap_or_else(|message| RunReport::failed(RunFailure::Internal { message }))
    }

    /// `limits`, within what the sandbox has.
    pub(crate) fn bounded(&self, limits: RunLimits) -> RunLimits {
        RunLimits {
            room: limits.room.within(self.config().room),
            ..limits
        }
    }
}

/// Everything that one call of `remediate` needs.
pub(crate) struct Remediation {
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) incident: IncidentInput,
    pub(crate) role: Role,
    pub(crate) limits: RunLimits,
    pub(crate) log: RunLog,
    pub(crate) source: Source,
}

impl Remediation {
    /// Calls `remediate` in a store of its own, until it ends, goes past a limit, or `cut`
    /// says why it has to end.
    pub(crate) async fn run(
        self,
        ticks: Ticks,
        cut: impl Future<Output = Stop> + Send,
    ) -> RunReport {
        let began = Instant::now();
        let clock = self.source.clock.clone();
        let incident = convert::incident(&self.incident);
        let (size, limit) = (incident.params.len(), self.limits.params_bytes);
        if size > limit {
            return RunReport::failed(RunFailure::ParamsTooLarge { size, limit });
        }
        let breath = Breath::new(ticks);
        let guest = Guest::new(self.role, &self.limits, self.log.clone(), self.source);
        let mut store = store(self.plugin.pre().engine(), guest, &self.limits, &breath);
        let guest = breath.watch(async {
            let instance = self.plugin.pre().instantiate_async(&mut store).await?;
            instance.call_remediate(&mut store, &incident).await
        });
        let ended = tokio::select! {
            biased;
            stop = cut => Err(stop.into()),
            () = clock.polled_too_often() => Err(Stop::TooManyCalls.into()),
            ended = tokio::time::timeout_at(clock.deadline(), guest) => {
                ended.unwrap_or_else(|_| Err(Stop::TimedOut.into()))
            }
        };
        let ended = finish(ended, store, &self.limits, &self.log);
        RunReport {
            result: ended.result.and_then(outcome),
            cpu: ended.cpu,
            wall: began.elapsed(),
            queued: Duration::ZERO,
            peak_memory: ended.peak_memory,
            calls: ended.calls,
            log_dropped: ended.log_dropped,
        }
    }
}

/// What the gate has to say of how a run ended.
fn conclude(result: Result<Outcome, RunFailure>, gate: &Gate) -> Result<Outcome, RunFailure> {
    let by_itself = match &result {
        Ok(_) => true,
        Err(failure) => failure.is_of_the_plugin(),
    };
    if by_itself {
        gate.check_end()?;
    } else if let Some(halted) = gate.halted() {
        return Err(halted.into());
    }
    let Some(left_out) = gate.left_out() else {
        return result;
    };
    match result {
        Ok(Outcome::Changed(message)) => Ok(Outcome::Changed(message + &left_out)),
        Ok(Outcome::Unchanged(message)) => Ok(Outcome::Unchanged(message + &left_out)),
        Err(mut failure) => {
            failure.add(&left_out);
            Err(failure)
        }
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
    guest: Guest,
    limits: &RunLimits,
    breath: &Breath,
) -> Store<Guest> {
    let mut store = Store::new(engine, guest);
    store.limiter(|guest| &mut guest.used);
    store.set_hostcall_fuel(limits.call_bytes);
    store.set_max_component_handles(limits.resources as usize);
    // At every tick the guest makes room for others. Only ticks at which it is seen
    // computing are counted, so that waiting for the host costs it nothing.
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|mut context| {
        context.data_mut().tick()?;
        Ok(UpdateDeadline::YieldCustom(
            1,
            Box::pin(tokio::task::yield_now()),
        ))
    });
    store.call_hook_async(breath.clone());
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
    ended: wasmtime::Result<T>,
    store: Store<Guest>,
    limits: &RunLimits,
    log: &RunLog,
) -> Ended<T> {
    let guest = store.into_data();
    log.finish();
    let result = ended.map_err(|error| explain(&error, &guest, limits, log));
    Ended {
        result,
        cpu: TICK.saturating_mul(u32::try_from(guest.ticks).unwrap_or(u32::MAX)),
        peak_memory: guest.used.peak(),
        calls: guest.calls(),
        log_dropped: log.dropped(),
    }
}

/// What an error of wasmtime means, for people.
fn explain(error: &wasmtime::Error, guest: &Guest, limits: &RunLimits, log: &RunLog) -> RunFailure {
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return match stop {
            Stop::TimedOut => RunFailure::TimedOut {
                limit_ms: whole_millis(limits.timeout),
            },
            Stop::OutOfCpu => RunFailure::OutOfCpu {
                limit_ms: whole_millis(limits.cpu),
            },
            Stop::TooManyCalls => RunFailure::TooManyCalls {
                limit: limits.calls,
            },
            Stop::NotInDescribe(_) => RunFailure::Forbidden {
                message: stop.to_string(),
            },
            Stop::Halted(halted) => halted.clone().into(),
            Stop::Unrecorded(problem) => RunFailure::Unrecorded {
                message: problem.to_string(),
            },
            Stop::TooMuchRecorded(limit) => RunFailure::TooMuchRecorded { limit: *limit },
            Stop::Replayed | Stop::OffScript => RunFailure::Internal {
                message: stop.to_string(),
            },
        };
    }
    // With which code cannot be told: WASI 0.2 has but two.
    if error.is::<I32Exit>() {
        return RunFailure::Exited;
    }
    // wasmtime gives these errors no types of their own.
    let text = one_line(error);
    if text.starts_with("too much data is being copied") {
        return RunFailure::TooMuchData {
            limit: limits.call_bytes,
        };
    }
    if text.ends_with("store handle limit exceeded")
        || matches!(error.downcast_ref(), Some(ResourceTableError::Full))
    {
        return RunFailure::TooManyResources {
            limit: limits.resources,
        };
    }
    if text.starts_with("resource limit exceeded") || text.contains("exceeds table limits") {
        return RunFailure::TooLarge { message: text };
    }
    // A guest that gets no memory often panics or aborts, which does not say why.
    if guest.used.refused() {
        return RunFailure::OutOfMemory {
            limit: limits.room.memory,
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
        // Whatever else ends a call without a trap is what the guest made of the call.
        None if is_of_the_host(error) => RunFailure::Internal { message: text },
        None => RunFailure::BrokeRules {
            message: text,
            functions,
        },
    }
}

/// Whether what the host owes a guest was not there: a place in the pool, or memory.
fn is_of_the_host(error: &wasmtime::Error) -> bool {
    error.is::<PoolConcurrencyLimitError>()
        || error.is::<std::io::Error>()
        || error.is::<rustix::io::Errno>()
        || error.is::<wasmtime::error::OutOfMemory>()
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

pub(crate) fn whole_millis(span: Duration) -> u64 {
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
