//! What all plugins share: the engine, its clock, the threads that guests run on, and
//! the places for runs.

use std::future;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::AbortOnDropHandle;
use wasmtime::component::Linker;
use wasmtime::{
    Config, Enabled, Engine, EngineWeak, InstanceAllocationStrategy, PoolingAllocationConfig,
    WasmBacktraceDetails, WasmFeatures,
};

use crate::code::{CodeStore, Compiler};
use crate::guest::{self, Guest, MAX_MEMORIES};
use crate::plugin::{LoadError, Plugin};
use crate::run::{Room, RunLimits};

/// How often a computing guest has to make room for others.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// For how many ticks the clock goes on when no guest is there: to wake it takes as long as a
/// small guest computes, and guests come in crowds.
const IDLE_TICKS: u32 = 100;
/// How much lower than the daemon's other threads those of the guests stand, as `nice`
/// has it.
const NICE: i32 = 10;
/// How much of each place of the pool stays in memory for the next run, so that it is
/// not mapped anew.
const WARM_MEMORY: usize = 2 * 1024 * 1024;
const WARM_TABLE: usize = 64 * 1024;
const WARM_STACK: usize = 64 * 1024;
/// What the host's functions have of a guest's stack beyond what the guest may use.
const HOST_STACK: usize = 1536 * 1024;

/// How the sandbox is set up.
#[derive(Debug, Clone)]
pub struct SandboxConfig {
    /// How many threads guests run on; by default as many as there are processors.
    pub threads: NonZeroUsize,
    /// How many runs there may be at once; others wait for their turn.
    pub max_runs: u32,
    /// What any run may take up; [`RunLimits::room`] can only be less.
    pub room: Room,
    /// How many bytes of stack a guest may have. wasmtime holds all guests of an engine to
    /// the same.
    pub stack: usize,
    /// How large a plugin may be, in bytes.
    pub max_plugin_size: usize,
    /// How long compiling a plugin may take.
    pub compile_timeout: Duration,
    /// What a plugin may use to describe itself when it is loaded, in all of the `room`:
    /// whose limits hold for it is known by the name that it tells then.
    pub describe: RunLimits,
    /// Who compiles plugins.
    pub compiler: Compiler,
    /// Where machine code is kept; without one every load compiles.
    pub store: Option<CodeStore>,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            threads: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            max_runs: 32,
            room: Room::default(),
            stack: 512 * 1024,
            max_plugin_size: 64 * 1024 * 1024,
            compile_timeout: Duration::from_mins(2),
            describe: RunLimits {
                timeout: Duration::from_secs(5),
                cpu: Duration::from_secs(2),
                ..RunLimits::default()
            },
            compiler: Compiler::default(),
            store: None,
        }
    }
}

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// wasmtime does not work on this machine, or not with this configuration.
    #[error("the WebAssembly engine could not be set up: {0}")]
    Engine(#[source] wasmtime::Error),
    /// The operating system gives no threads.
    #[error("the threads for plugins could not be started: {0}")]
    Threads(#[source] std::io::Error),
    /// The operating system gives no threads to compile with.
    #[error("the threads for compiling plugins could not be started: {0}")]
    Compilers(#[source] rayon::ThreadPoolBuildError),
}

/// Loads and runs plugins. There is one in a process.
pub struct Sandbox {
    config: SandboxConfig,
    engine: Engine,
    linker: Arc<Linker<Guest>>,
    ticker: Arc<Ticker>,
    /// Where guests compute: one that does so for long holds up other guests, and never the
    /// intake or the journal. There until the sandbox is dropped.
    runtime: Option<Runtime>,
    /// The pool of instances refuses at once what it has no room for; whoever wants to
    /// run waits here instead.
    places: Arc<Semaphore>,
    /// One compilation at a time.
    compile_turn: Arc<Semaphore>,
    compilers: Arc<rayon::ThreadPool>,
}

impl Sandbox {
    /// Sets up the engine and starts the threads.
    pub fn new(config: SandboxConfig) -> Result<Self, SandboxError> {
        let engine = engine(&config)?;
        let linker = Arc::new(guest::linker(&engine).map_err(SandboxError::Engine)?);
        let ticker = Ticker::start(engine.weak()).map_err(SandboxError::Threads)?;
        let runtime = Builder::new_multi_thread()
            .thread_name("plugin")
            .worker_threads(config.threads.get())
            .on_thread_start(lower_priority)
            .enable_time()
            // By default tokio looks at timers and at tasks from outside only after 61
            // polls of others, each of which may be a guest that takes a whole tick.
            .event_interval(1)
            .global_queue_interval(1)
            .build()
            .map_err(SandboxError::Threads)?;
        let compilers = rayon::ThreadPoolBuilder::new()
            .thread_name(|_| "plugin-compile".to_owned())
            .num_threads(config.threads.get())
            .start_handler(|_| lower_priority())
            .build()
            .map_err(SandboxError::Compilers)?;
        Ok(Self {
            places: Arc::new(Semaphore::new(config.max_runs.max(1) as usize)),
            compile_turn: Arc::new(Semaphore::new(1)),
            compilers: Arc::new(compilers),
            runtime: Some(runtime),
            config,
            engine,
            linker,
            ticker,
        })
    }

    /// How the sandbox is set up.
    #[must_use]
    pub fn config(&self) -> &SandboxConfig {
        &self.config
    }

    pub(crate) fn engine(&self) -> Engine {
        self.engine.clone()
    }

    pub(crate) fn linker(&self) -> Arc<Linker<Guest>> {
        Arc::clone(&self.linker)
    }

    pub(crate) fn ticker(&self) -> Arc<Ticker> {
        Arc::clone(&self.ticker)
    }

    pub(crate) fn compilers(&self) -> Arc<rayon::ThreadPool> {
        Arc::clone(&self.compilers)
    }

    pub(crate) async fn compile_turn(&self) -> Result<OwnedSemaphorePermit, LoadError> {
        Arc::clone(&self.compile_turn)
            .acquire_owned()
            .await
            .map_err(|closed| LoadError::Internal(closed.to_string()))
    }

    pub(crate) async fn run_place(&self) -> Result<OwnedSemaphorePermit, String> {
        Arc::clone(&self.places)
            .acquire_owned()
            .await
            .map_err(|closed| closed.to_string())
    }

    /// The guests' threads.
    pub(crate) fn threads(&self) -> Result<&Handle, LoadError> {
        self.runtime
            .as_ref()
            .map(Runtime::handle)
            .ok_or_else(|| LoadError::Internal(GONE.to_owned()))
    }

    /// Runs `guest`, a run of `plugin`; it ends with the future that waits for it.
    ///
    /// The way to the guests' threads and back takes longer than a small guest computes, so
    /// one whose plugin was brisk the last time begins where the caller is. Once it has
    /// computed for longer than a tick it goes on on the guests' threads, and its plugin's
    /// next run begins there.
    pub(crate) async fn host<T: Send + 'static>(
        &self,
        plugin: Arc<Plugin>,
        guest: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, String> {
        let mut guest = Box::pin(guest);
        let mut spent = Duration::ZERO;
        if plugin.brisk().load(Ordering::Relaxed) {
            let here = future::poll_fn(|context| {
                let began = Instant::now();
                // Elsewhere a panic is the task's end and no more; so it is here.
                let polled = catch_unwind(AssertUnwindSafe(|| guest.as_mut().poll(context)));
                spent += began.elapsed();
                match polled {
                    Ok(Poll::Ready(value)) => Poll::Ready(Ok(Some(value))),
                    Ok(Poll::Pending) if spent > TICK => Poll::Ready(Ok(None)),
                    Ok(Poll::Pending) => Poll::Pending,
                    Err(_) => Poll::Ready(Err(PANICKED.to_owned())),
                }
            });
            let ended = here.await?;
            if spent > TICK {
                plugin.brisk().store(false, Ordering::Relaxed);
            }
            if let Some(value) = ended {
                return Ok(value);
            }
        }
        self.spawn(async move {
            let value = future::poll_fn(|context| {
                let began = Instant::now();
                let polled = guest.as_mut().poll(context);
                spent += began.elapsed();
                polled
            })
            .await;
            plugin.brisk().store(spent <= TICK, Ordering::Relaxed);
            value
        })
        .await
    }

    /// Runs `task` on the guests' threads. It ends with the future that waits for it.
    pub(crate) async fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, String> {
        let threads = self.runtime.as_ref().ok_or(GONE)?.handle();
        AbortOnDropHandle::new(threads.spawn(task))
            .await
            .map_err(|error| error.to_string())
    }
}

const PANICKED: &str = "the host panicked";
const GONE: &str = "the sandbox has been shut down";

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.ticker.stop();
        // Does not wait, so it may be called from async code: guests end at their next
        // tick, and the ticker goes on until they have.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub(crate) fn lower_priority() {
    // Linux keeps a priority for each thread; none stands for the calling one.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "a thread for plugins keeps its priority");
    }
}

fn engine(config: &SandboxConfig) -> Result<Engine, SandboxError> {
    let mut settings = settings(config);
    settings.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(config)));
    Engine::new(&settings).or_else(|error| {
        tracing::warn!(
            error = %error.root_cause(),
            "memory for plugins could not be reserved in advance; each run maps its own, which is slower"
        );
        settings.allocation_strategy(InstanceAllocationStrategy::OnDemand);
        Engine::new(&settings).map_err(SandboxError::Engine)
    })
}

/// An engine that compiles for [`engine`], and runs nothing.
pub(crate) fn compiling(config: &SandboxConfig) -> wasmtime::Result<Engine> {
    Engine::new(&settings(config))
}

fn settings(config: &SandboxConfig) -> Config {
    let mut settings = Config::new();
    settings
        .epoch_interruption(true)
        // Address space for what a guest may have and no more, so that a pool also fits
        // into small machines.
        .memory_reservation(config.room.memory as u64)
        .memory_guard_size(64 * 1024)
        .max_wasm_stack(config.stack)
        .async_stack_size(config.stack.saturating_add(HOST_STACK))
        // The contract's functions are synchronous: stores do without what components'
        // own concurrency needs.
        .concurrency_support(false)
        // Names of functions are enough for a message, whatever the daemon's own
        // environment says of backtraces.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .wasm_component_model(true);
    // No guest language needs these.
    for feature in [
        WasmFeatures::EXCEPTIONS,
        WasmFeatures::FUNCTION_REFERENCES,
        WasmFeatures::GC,
        WasmFeatures::MEMORY64,
        WasmFeatures::THREADS,
    ] {
        settings.wasm_features(feature, false);
    }
    settings
}

/// Room for every run that the semaphore lets in, and for one more: the plugin that is
/// being loaded.
fn pool(config: &SandboxConfig) -> PoolingAllocationConfig {
    let places = config.max_runs.max(1).saturating_add(1);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(places)
        .total_core_instances(places.saturating_mul(config.room.instances))
        .total_memories(places.saturating_mul(MAX_MEMORIES))
        .total_tables(places.saturating_mul(config.room.tables))
        .total_stacks(places)
        .max_core_instances_per_component(config.room.instances)
        .max_memories_per_component(MAX_MEMORIES)
        .max_tables_per_component(config.room.tables)
        .max_tables_per_module(config.room.tables)
        .table_elements(config.room.table_entries as usize)
        .max_memory_size(config.room.memory)
        .linear_memory_keep_resident(WARM_MEMORY)
        .table_keep_resident(WARM_TABLE)
        .async_stack_keep_resident(WARM_STACK)
        .pagemap_scan(Enabled::Auto);
    pool
}

/// The engine's clock, on a thread of the operating system: a task on the guests'
/// threads could be starved by the very guests that it has to interrupt. It sleeps when no
/// guest has been there for a while.
pub(crate) struct Ticker {
    shared: Arc<TickerState>,
    thread: Thread,
}

#[derive(Default)]
struct TickerState {
    ticks: AtomicU64,
    guests: AtomicUsize,
    asleep: AtomicBool,
    stopped: AtomicBool,
}

impl Ticker {
    fn start(engine: EngineWeak) -> std::io::Result<Arc<Self>> {
        let shared = Arc::new(TickerState::default());
        let state = Arc::clone(&shared);
        let handle = thread::Builder::new()
            .name("plugin-ticker".to_owned())
            .spawn(move || state.run(&engine))?;
        Ok(Arc::new(Self {
            shared,
            thread: handle.thread().clone(),
        }))
    }

    /// Lets the clock tick until the guard is dropped.
    pub(crate) fn tick(self: &Arc<Self>) -> Ticking {
        self.shared.guests.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Ticking(Arc::clone(self))
    }

    /// The ticks of this clock.
    pub(crate) fn ticks(&self) -> Ticks {
        Ticks(Arc::clone(&self.shared))
    }

    /// Ends the clock once no guest is there.
    fn stop(&self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl TickerState {
    fn run(&self, engine: &EngineWeak) {
        let mut idle = 0;
        loop {
            if self.guests.load(Ordering::SeqCst) > 0 {
                idle = 0;
            } else if self.stopped.load(Ordering::SeqCst) {
                return;
            } else if idle < IDLE_TICKS {
                idle += 1;
            } else {
                // Whoever comes before the first line is seen by the second, and whoever
                // comes after it sees that the clock sleeps.
                self.asleep.store(true, Ordering::SeqCst);
                if self.guests.load(Ordering::SeqCst) == 0 {
                    thread::park();
                }
                self.asleep.store(false, Ordering::SeqCst);
                continue;
            }
            thread::park_timeout(TICK);
            let Some(engine) = engine.upgrade() else {
                return;
            };
            self.ticks.fetch_add(1, Ordering::Relaxed);
            engine.increment_epoch();
        }
    }
}

/// How often the clock has ticked.
#[derive(Clone)]
pub(crate) struct Ticks(Arc<TickerState>);

impl Ticks {
    pub(crate) fn now(&self) -> u64 {
        self.0.ticks.load(Ordering::Relaxed)
    }
}

/// While it lives, the clock ticks.
pub(crate) struct Ticking(Arc<Ticker>);

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.shared.guests.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without it, every run maps its memory anew, and nothing but a line in the log
    /// would say so.
    #[test]
    fn the_pool_of_the_default_configuration_can_be_reserved() {
        let config = SandboxConfig::default();
        let mut settings = settings(&config);
        settings.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(&config)));
        assert!(Engine::new(&settings).is_ok());
    }
}
