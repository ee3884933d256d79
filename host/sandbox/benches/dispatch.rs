//! What the sandbox costs beside bare wasmtime: the same components, in the same process, called in
//! turn. `make bench-plugins`; the files of the components are the arguments.
//!
//! Bare is an engine with the same pool of instances and none of the limits: no ticks, no budget of
//! memory, calls or bytes, no log, no clock and no random numbers of its own, no thread of its
//! own. Both answer every call of the contract with "there is no such thing".

// A program that measures: what goes wrong ends it.
#![allow(clippy::expect_used, clippy::print_stdout)]
#![allow(missing_docs)]

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sentinel_core::alert::{Alert, AlertStatus, Fingerprint};
use sentinel_core::capability::{CapabilityError, Request};
use sentinel_core::event::{CallResult, LogLevel};
use sentinel_core::id::{IncidentId, RunId};
use sentinel_sandbox::code::CodeStore;
use sentinel_sandbox::gate::GateContext;
use sentinel_sandbox::{
    Gate, IncidentInput, Plugin, Room, RunFailure, RunLimits, RunReport, Sandbox, SandboxConfig,
    Script,
};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use wasmtime::component::{Component, HasSelf, Linker, ResourceTable};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store,
};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

#[expect(
    dead_code,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "shared with the tests, which use more of it and fail by it"
)]
#[path = "../tests/sandbox/support.rs"]
mod support;

use support::{World, all_grants, context};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "remediation",
        exports: { default: async },
    });
}

use bindings::sentinel::plugin::{ansible, clock, docker, http, log, mail, memory, random, types};
use bindings::{Remediation, RemediationPre};

/// Room for the largest of the guests.
fn room() -> Room {
    Room {
        memory: 256 << 20,
        ..Room::default()
    }
}

/// How many dispatches are timed of each kind, one after the other.
const CALLS: usize = 1_000;
/// How many wait at the same time where their memory is looked at.
const MANY: usize = 16;
/// How long as many as can be are made on two threads.
const FULL: Duration = Duration::from_secs(2);
/// How many of them are under way at once.
const AT_ONCE: usize = 8;

/// A host that has nothing.
struct Bare {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for Bare {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

type Answer<T> = Result<T, types::CapabilityError>;

fn nothing<T>() -> Answer<T> {
    Err(types::CapabilityError::NotFound(NOTHING.to_owned()))
}

const NOTHING: &str = "there is no such thing";

impl types::Host for Bare {}

impl log::Host for Bare {
    fn write(&mut self, _: log::Level, _: String) {}
}

impl clock::Host for Bare {
    fn now(&mut self) -> types::Timestamp {
        types::Timestamp {
            seconds: 1_800_000_000,
            nanoseconds: 0,
        }
    }
    fn elapsed(&mut self) -> u64 {
        0
    }
    fn remaining(&mut self) -> u64 {
        30_000
    }
    fn sleep(&mut self, _: u64) {}
}

impl random::Host for Bare {
    fn bits(&mut self) -> u64 {
        4
    }
}

impl memory::Host for Bare {
    fn get(&mut self, _: String) -> Answer<Option<Vec<u8>>> {
        nothing()
    }
    fn set(&mut self, _: String, _: Vec<u8>) -> Answer<()> {
        nothing()
    }
    fn forget(&mut self, _: String) -> Answer<()> {
        nothing()
    }
    fn keys(&mut self, _: String) -> Answer<Vec<String>> {
        nothing()
    }
}

impl docker::Host for Bare {
    fn list(&mut self, _: String, _: docker::Filter) -> Answer<Vec<docker::Summary>> {
        nothing()
    }
    fn inspect(&mut self, _: docker::Container) -> Answer<docker::Details> {
        nothing()
    }
    fn logs(&mut self, _: docker::Container, _: u32) -> Answer<String> {
        nothing()
    }
    fn start(&mut self, _: docker::Container) -> Answer<()> {
        nothing()
    }
    fn stop(&mut self, _: docker::Container, _: u64) -> Answer<()> {
        nothing()
    }
    fn restart(&mut self, _: docker::Container, _: u64) -> Answer<()> {
        nothing()
    }
    fn kill(&mut self, _: docker::Container, _: String) -> Answer<()> {
        nothing()
    }
    fn recreate(&mut self, _: docker::Container, _: u64) -> Answer<String> {
        nothing()
    }
    fn duplicate(
        &mut self,
        _: docker::Container,
        _: String,
        _: Vec<types::Label>,
    ) -> Answer<String> {
        nothing()
    }
    fn remove(&mut self, _: docker::Container, _: u64) -> Answer<()> {
        nothing()
    }
}

impl ansible::Host for Bare {
    fn run(&mut self, _: ansible::Request) -> Answer<ansible::Recap> {
        nothing()
    }
}

impl http::Host for Bare {
    fn send(&mut self, _: http::Request) -> Answer<http::Response> {
        nothing()
    }
}

impl mail::Host for Bare {
    fn send(&mut self, _: mail::Message) -> Answer<mail::Receipt> {
        nothing()
    }
}

/// The same for the sandbox.
struct Nothing;

impl Script for Nothing {
    fn answer(&self, _: &Request) -> Option<CallResult> {
        Some(Err(CapabilityError::NotFound(NOTHING.to_owned())))
    }

    fn logged(&self, _: LogLevel, _: &str) {}
}

/// How much memory one of many guests has that wait for an answer at the same time, in MiB.
fn memory_of_one(runtime: &Runtime, sandbox: &Arc<Sandbox>, plugin: &Arc<Plugin>) -> f64 {
    let world = Arc::new(World {
        hold_looks: Some(Notify::new()),
        ..World::default()
    });
    runtime.block_on(async {
        let before = resident();
        let mut runs = JoinSet::new();
        for _ in 0..MANY {
            let context = GateContext {
                grants: Arc::new(all_grants()),
                ..context(&world)
            };
            let (sandbox, plugin) = (Arc::clone(sandbox), Arc::clone(plugin));
            let limits = RunLimits {
                room: room(),
                ..RunLimits::default()
            };
            runs.spawn(async move {
                let incident = support::incident(serde_json::json!({}));
                sandbox
                    .run(plugin, incident, Gate::new(context), limits)
                    .await
            });
        }
        let looks = ["list", "inspect", "logs"].map(|look| format!("driver {look} "));
        let waits = |line: &String| looks.iter().any(|look| line.starts_with(look));
        while world
            .story
            .lines()
            .iter()
            .filter(|line| waits(line))
            .count()
            < MANY
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let taken = resident() - before;
        runs.shutdown().await;
        taken / MANY as f64
    })
}

fn bare_engine() -> Engine {
    const MIB: usize = 1 << 20;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(64)
        .max_memory_size(256 * MIB)
        .linear_memory_keep_resident(2 * MIB)
        .table_keep_resident(MIB / 64)
        .async_stack_keep_resident(MIB / 64)
        .pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config
        .concurrency_support(false)
        .memory_reservation((256 * MIB) as u64)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config).expect("an engine")
}

fn bare(engine: &Engine, component: &Component) -> RemediationPre<Bare> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker).expect("WASI");
    Remediation::add_to_linker::<Bare, HasSelf<Bare>>(&mut linker, |bare| bare)
        .expect("the contract");
    let pre = linker.instantiate_pre(component).expect("a plugin");
    RemediationPre::new(pre).expect("a plugin")
}

async fn call_bare(pre: &RemediationPre<Bare>, incident: &types::Incident) {
    let mut store = Store::new(
        pre.engine(),
        Bare {
            wasi: WasiCtxBuilder::new().build(),
            table: ResourceTable::new(),
        },
    );
    let instance = pre
        .instantiate_async(&mut store)
        .await
        .expect("an instance");
    let said = instance.call_remediate(&mut store, incident).await;
    said.expect("no trap").expect_err("there is nothing");
}

async fn call_ours(sandbox: &Sandbox, plugin: &Arc<Plugin>, incident: &IncidentInput) -> RunReport {
    let limits = RunLimits {
        room: room(),
        ..RunLimits::default()
    };
    let now = Timestamp::UNIX_EPOCH;
    let (plugin, incident) = (Arc::clone(plugin), incident.clone());
    let report = sandbox
        .rehearse(plugin, incident, Arc::new(Nothing), now, limits)
        .await;
    let failed = matches!(
        report.result,
        Err(RunFailure::Permanent { .. } | RunFailure::Retryable { .. })
    );
    assert!(failed, "{:?}", report.result);
    report
}

fn incident() -> IncidentInput {
    let at = Timestamp::UNIX_EPOCH;
    let alert = Alert {
        source: "bench".to_owned(),
        fingerprint: Fingerprint("f00d".to_owned()),
        status: AlertStatus::Firing,
        labels: [("alertname".to_owned(), "Down".to_owned())].into(),
        annotations: std::collections::BTreeMap::new(),
        starts_at: at,
        ends_at: None,
        generator_url: None,
    };
    IncidentInput {
        incident: IncidentId(1),
        run: RunId {
            incident: IncidentId(1),
            number: 1,
        },
        policy: "bench".parse().expect("a name"),
        target: "docker://local/web".parse().expect("a target"),
        alert,
        step: 1,
        attempt: 1,
        params: serde_json::Map::new(),
    }
}

fn bare_incident() -> types::Incident {
    let text = str::to_owned;
    types::Incident {
        id: text("1"),
        run: text("1.1"),
        policy: text("bench"),
        target: types::Target {
            uri: text("docker://local/web"),
            kind: text("docker"),
            host: text("local"),
            name: text("web"),
        },
        alert: types::Alert {
            fingerprint: text("f00d"),
            status: types::AlertStatus::Firing,
            labels: vec![types::Label {
                name: text("alertname"),
                value: text("Down"),
            }],
            annotations: Vec::new(),
            starts_at: types::Timestamp {
                seconds: 0,
                nanoseconds: 0,
            },
            ends_at: None,
            generator_url: None,
        },
        step: 1,
        attempt: 1,
        params: text("{}"),
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let begun = Instant::now();
    let made = work();
    (begun.elapsed(), made)
}

fn at(times: &mut [Duration], share: f64) -> Duration {
    times.sort();
    let last = times.len().saturating_sub(1);
    let index = (last as f64 * share).round() as usize;
    times.get(index).copied().unwrap_or_default()
}

/// How much memory the process has, in MiB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.map(|line| line.trim().trim_end_matches(" kB").parse().unwrap_or(0.0));
    kib.unwrap_or(0.0) / 1024.0
}

fn row(what: &str, ours: f64, bare: Option<f64>, unit: &str) {
    let beside = bare.map_or_else(
        || "        –".to_owned(),
        |bare| format!("{bare:9.2}   {:.2}×", ours / bare),
    );
    println!("  {what:<42} {ours:9.2} {unit:<4} {beside}");
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// How many calls a second end on two threads.
fn full<F: Future<Output = ()> + Send>(
    runtime: &Runtime,
    call: impl Fn() -> F + Send + Sync + Clone + 'static,
) -> f64 {
    let done = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (done, call) = (Arc::clone(&done), call.clone());
            runtime.spawn(async move {
                while begun.elapsed() < FULL {
                    call().await;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        runtime.block_on(task).expect("no panic");
    }
    done.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64()
}

fn measure(runtime: &Runtime, file: &Path) {
    let bytes = std::fs::read(file).expect("a component");
    println!(
        "{} ({:.1} MiB)",
        file.display(),
        bytes.len() as f64 / f64::from(1 << 20)
    );
    let engine = bare_engine();
    let folder = tempfile::tempdir().expect("a folder");
    let store = || CodeStore::open(&folder.path().join("code"), &folder.path().join("key"));
    let sandbox = || {
        let config = SandboxConfig {
            room: room(),
            store: Some(store().expect("a store")),
            ..SandboxConfig::default()
        };
        Sandbox::new(config).expect("a sandbox")
    };
    let load = |sandbox: &Sandbox| {
        let loaded = runtime.block_on(sandbox.load(bytes.clone()));
        loaded.expect("a plugin")
    };
    let (compiled, _) = timed(|| load(&sandbox()));
    let (bare_compiled, component) =
        timed(|| Component::new(&engine, &bytes).expect("a component"));
    row(
        "compile, describe, keep",
        millis(compiled),
        Some(millis(bare_compiled)),
        "ms",
    );
    let again = sandbox();
    let before = resident();
    let (cached, plugin) = timed(|| load(&again));
    row("load what is kept", millis(cached), None, "ms");
    row(
        "memory of a plugin that is loaded",
        resident() - before,
        None,
        "MiB",
    );

    let (ours, pre) = (Arc::new(again), Arc::new(bare(&engine, &component)));
    let (input, bare_input) = (incident(), bare_incident());
    let mut times = (Vec::new(), Vec::new());
    let mut walls = Vec::new();
    let mut peak = 0;
    for call in 0..CALLS + CALLS / 10 {
        let (ours, report) = timed(|| runtime.block_on(call_ours(&ours, &plugin, &input)));
        let (bare, ()) = timed(|| runtime.block_on(call_bare(&pre, &bare_input)));
        peak = peak.max(report.peak_memory);
        // The first ones warm up.
        if call >= CALLS / 10 {
            times.0.push(ours);
            times.1.push(bare);
            walls.push(report.wall);
        }
    }
    for (what, share) in [
        ("instantiate and call, p50", 0.5),
        ("instantiate and call, p99", 0.99),
    ] {
        let (ours, bare) = (at(&mut times.0, share), at(&mut times.1, share));
        row(what, micros(ours), Some(micros(bare)), "µs");
    }
    // The rest is what the sandbox does around it.
    let (itself, bare) = (at(&mut walls, 0.5), at(&mut times.1, 0.5));
    row(
        "  the run itself, p50",
        micros(itself),
        Some(micros(bare)),
        "µs",
    );
    row(
        "memory of a guest at its peak",
        peak as f64 / f64::from(1 << 20),
        None,
        "MiB",
    );
    let fresh = Arc::new(sandbox());
    let taken = memory_of_one(runtime, &fresh, &load(&fresh));
    row("memory of one of 16 guests that wait", taken, None, "MiB");
    drop(fresh);
    on_two_threads(runtime, (ours, plugin, input), (pre, Arc::new(bare_input)));
}

fn on_two_threads(
    runtime: &Runtime,
    ours: (Arc<Sandbox>, Arc<Plugin>, IncidentInput),
    bare: (Arc<RemediationPre<Bare>>, Arc<types::Incident>),
) {
    let ours = full(runtime, move || {
        let (sandbox, plugin, input) = ours.clone();
        async move {
            call_ours(&sandbox, &plugin, &input).await;
        }
    });
    let bare = full(runtime, move || {
        let (pre, input) = bare.clone();
        async move { call_bare(&pre, &input).await }
    });
    row("calls a second, two threads", ours, Some(bare), "/s");
}

fn main() -> ExitCode {
    // `cargo bench` adds flags of its own.
    let files: Vec<_> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    if files.is_empty() {
        println!("which components? give their files; `make bench-plugins` does");
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    println!("  {:<42} {:>9}      {:>9}", "", "sandbox", "bare");
    for file in files {
        measure(&runtime, Path::new(&file));
    }
    ExitCode::SUCCESS
}
