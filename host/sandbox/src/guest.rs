//! The data of one store: what the contract and WASI see of the host, and what they
//! have used of it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use sentinel_core::capability::{
    Blob, CapabilityError, DockerCall, DockerRequest, MemoryCall, Request, Response,
};
use sentinel_core::event::CallResult;
use tokio::time::Instant;
use wasmtime::component::{HasSelf, Linker, Resource, ResourceTable};
use wasmtime::{Engine, ResourceLimiter};
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::{DynPollable, subscribe};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::bindings::sentinel::plugin::{
    ansible, clock, docker, http, log, mail, memory, random, types,
};
use crate::clock::{Look, RunClock, Timer};
use crate::convert;
use crate::engine::TICK;
use crate::gate::{Gate, Halted, PassError, RecordError};
use crate::log::RunLog;
use crate::rehearse::Script;
use crate::replay::Player;
use crate::run::{Room, RunLimits};

/// How many random bytes WASI gives in one call.
const MAX_RANDOM_BYTES: u64 = 64 * 1024;
/// How many linear memories a guest may have: its own, and those of adapters.
pub(crate) const MAX_MEMORIES: u32 = 4;

/// Why the host ended a guest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stop {
    #[error("the time is over")]
    TimedOut,
    #[error("the CPU time is used up")]
    OutOfCpu,
    #[error("too many host calls")]
    TooManyCalls,
    #[error("`{0}` is not served in `describe`, only `log` is")]
    NotInDescribe(&'static str),
    #[error("the host ended the run: {0}")]
    Halted(#[from] Halted),
    #[error("the account could not be kept: {0}")]
    Unrecorded(#[from] RecordError),
    #[error("the run has put on record what it may, {0} bytes")]
    TooMuchRecorded(usize),
    #[error("the replay has come to its end")]
    Replayed,
    #[error("the script has no answer for what it asked")]
    OffScript,
}

impl From<PassError> for Stop {
    fn from(error: PassError) -> Self {
        match error {
            PassError::Halted(halted) => halted.into(),
            PassError::Unrecorded(problem) => problem.into(),
            PassError::TooMuchRecorded { limit } => Self::TooMuchRecorded(limit),
        }
    }
}

/// What a guest was started for.
pub(crate) enum Role {
    /// `describe`: nothing but the log is served.
    Describing,
    /// `remediate`.
    Running(Gate),
    /// `remediate` once more, on its record alone.
    Replaying(Arc<Player>),
    /// `remediate` in a world that answers as it is told to.
    Rehearsing(Arc<dyn Script>),
}

/// The data of one store.
pub(crate) struct Guest {
    wasi: WasiCtx,
    table: ResourceTable,
    role: Role,
    log: RunLog,
    clock: RunClock,
    random: StdRng,
    calls: u32,
    max_calls: u32,
    pace: Pace,
    pub(crate) ticks: u64,
    max_ticks: u128,
    pub(crate) used: Used,
}

impl Guest {
    pub(crate) fn new(role: Role, limits: &RunLimits, log: RunLog, source: Source) -> Self {
        let mut table = ResourceTable::new();
        // Some have two entries; those that the guest holds are counted by its handles.
        table.set_max_capacity((limits.resources as usize).saturating_mul(2));
        Self {
            wasi: wasi(&log, &source),
            table,
            role,
            log,
            random: source.random(Stream::Contract),
            clock: source.clock,
            calls: 0,
            max_calls: limits.calls,
            pace: Pace::new(limits.call_rate),
            ticks: 0,
            max_ticks: limits.cpu.as_millis() / TICK.as_millis(),
            used: Used::new(limits.room),
        }
    }

    /// Counts a tick at which the guest was seen computing, and ends one that computes for
    /// too long.
    pub(crate) fn tick(&mut self) -> Result<(), Stop> {
        // It may be asked once more on the way out.
        let over = |ticks: u64| u128::from(ticks) > self.max_ticks;
        if !over(self.ticks) {
            self.ticks += 1;
        }
        if over(self.ticks) {
            return Err(Stop::OutOfCpu);
        }
        Ok(())
    }

    /// How many host calls of the contract the guest made.
    pub(crate) fn calls(&self) -> u32 {
        self.calls
    }

    /// Counts a call of the contract, and ends a guest that makes too many.
    fn count(&mut self) -> wasmtime::Result<()> {
        if self.calls >= self.max_calls {
            return Err(Stop::TooManyCalls.into());
        }
        self.calls += 1;
        Ok(())
    }

    /// Counts a call that `describe` may not make.
    fn count_in_run(&mut self, name: &'static str) -> wasmtime::Result<()> {
        self.count()?;
        match self.role {
            Role::Describing => Err(Stop::NotInDescribe(name).into()),
            Role::Running(_) | Role::Replaying(_) | Role::Rehearsing(_) => Ok(()),
        }
    }

    /// A look at the clock, by a function of WASI.
    fn look(&mut self) -> wasmtime::Result<Look> {
        self.count()?;
        Ok(self.clock.look())
    }

    /// A pollable that is ready so many nanoseconds after the run began.
    fn timer(&mut self, due: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let clock = self.clock.clone();
        let timer = self.table.push(Timer { clock, due })?;
        subscribe(&mut self.table, timer)
    }

    /// Takes `request` through the gate.
    async fn pass(&mut self, request: Request) -> wasmtime::Result<CallResult> {
        self.count()?;
        Ok(match &self.role {
            Role::Describing => Err(CapabilityError::Denied(format!(
                "{} is not served in `describe`, only `log` is",
                request.name()
            ))),
            Role::Running(gate) => {
                // What is on record has left the sandbox long ago.
                if !self.clock.is_played()
                    && let Some(turn) = self.pace.turn(Instant::now())
                {
                    tokio::time::sleep_until(turn).await;
                }
                gate.pass(request).await.map_err(Stop::from)?
            }
            Role::Replaying(player) => player.pass(&request)?,
            Role::Rehearsing(script) => script.answer(&request).ok_or(Stop::OffScript)?,
        })
    }

    /// Takes a call of `docker` through the gate; `read` takes from the answer what the
    /// function returns.
    async fn docker<T>(
        &mut self,
        host: String,
        call: DockerCall,
        read: impl FnOnce(Response) -> Option<T>,
    ) -> wasmtime::Result<Result<T, types::CapabilityError>> {
        let request = Request::Docker(DockerRequest { host, call });
        let name = request.name();
        Ok(answer(name, self.pass(request).await?, read))
    }

    /// Takes a call of `docker` through the gate that has nothing to tell when it is
    /// done.
    async fn docker_effect(
        &mut self,
        host: String,
        call: DockerCall,
    ) -> wasmtime::Result<Result<(), types::CapabilityError>> {
        self.docker(host, call, |response| {
            (response == Response::Done).then_some(())
        })
        .await
    }
}

fn answer<T>(
    name: &str,
    result: CallResult,
    read: impl FnOnce(Response) -> Option<T>,
) -> Result<T, types::CapabilityError> {
    result
        .and_then(|response| {
            read(response).ok_or_else(|| {
                CapabilityError::Failed(format!("the driver's answer to {name} is of another kind"))
            })
        })
        .map_err(convert::error)
}

/// Where everything that a guest sees comes from.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    // All of WASI 0.2 is linked, because the standard libraries of all languages import
    // some of its files and sockets; `wasi` below leaves it empty. What it denies is
    // tested with a guest that tries.
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    // But for its clocks, which are the run's own.
    linker.allow_shadowing(true);
    wall_clock::add_to_linker::<Guest, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    monotonic_clock::add_to_linker::<Guest, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    linker.allow_shadowing(false);
    log::add_to_linker::<Guest, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    clock::add_to_linker::<Guest, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    random::add_to_linker::<Guest, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    types::add_to_linker::<Guest, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    docker::add_to_linker::<Guest, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    ansible::add_to_linker::<Guest, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    http::add_to_linker::<Guest, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    mail::add_to_linker::<Guest, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    memory::add_to_linker::<Guest, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    Ok(linker)
}

/// WASI without files, environment, arguments, stdin and network.
fn wasi(log: &RunLog, source: &Source) -> WasiCtx {
    let mut seed = [0; 16];
    source.random(Stream::WasiSeed).fill_bytes(&mut seed);
    WasiCtxBuilder::new()
        .stdout(log.stdout())
        .stderr(log.stderr())
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .socket_addr_check(|_, _| Box::pin(async { false }))
        .secure_random(source.random(Stream::WasiSecure))
        .insecure_random(source.random(Stream::WasiInsecure))
        .insecure_random_seed(u128::from_le_bytes(seed))
        .max_random_size(MAX_RANDOM_BYTES)
        .build()
}

/// Where a run's time and randomness come from. Whoever knows the seed and what the clock
/// said can give a guest the same again.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) seed: [u8; 32],
    pub(crate) clock: RunClock,
}

/// Who draws random numbers: each has a sequence of its own, so that one does not
/// depend on how much another drew.
#[derive(Clone, Copy)]
enum Stream {
    Contract,
    WasiSecure,
    WasiInsecure,
    WasiSeed,
}

impl Source {
    /// For a guest that is no run: nothing of it is on record.
    pub(crate) fn unrecorded(limits: &RunLimits) -> Self {
        Self {
            seed: [0; 32],
            clock: RunClock::real(Timestamp::now(), limits.timeout, None, limits.calls, None),
        }
    }

    fn random(&self, stream: Stream) -> StdRng {
        let mut seed = self.seed;
        if let Some(last) = seed.last_mut() {
            *last ^= stream as u8;
        }
        StdRng::from_seed(seed)
    }
}

/// Spreads calls so that no more are let through in a second than may be, after a second's
/// worth that may come at once.
struct Pace {
    every: Duration,
    /// When the next call would be due, had all come evenly.
    due: Option<Instant>,
}

impl Pace {
    fn new(rate: u32) -> Self {
        let every = Duration::from_secs(1) / rate.max(1);
        Self { every, due: None }
    }

    /// When a call that comes `now` has its turn; none where that is at once.
    fn turn(&mut self, now: Instant) -> Option<Instant> {
        let due = self.due.map_or(now, |due| due.max(now));
        self.due = Some(due + self.every);
        let turn = due.checked_sub(Duration::from_secs(1))?;
        (turn > now).then_some(turn)
    }
}

/// Bounds what a store takes up, memory over all of its linear memories, and remembers
/// whether it had to: a guest that gets no memory often ends in a trap that does not say so.
pub(crate) struct Used {
    room: Room,
    memory: usize,
    peak: usize,
    refused: bool,
}

impl Used {
    fn new(room: Room) -> Self {
        Self {
            room,
            memory: 0,
            peak: 0,
            refused: false,
        }
    }

    /// The most memory that was in use, in bytes.
    pub(crate) fn peak(&self) -> u64 {
        self.peak as u64
    }

    /// Whether the guest asked for more memory than it may have.
    pub(crate) fn refused(&self) -> bool {
        self.refused
    }
}

impl ResourceLimiter for Used {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let used = self.memory.saturating_sub(current).saturating_add(desired);
        if used > self.room.memory {
            self.refused = true;
            return Ok(false);
        }
        self.memory = used;
        self.peak = self.peak.max(used);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused = true;
        Ok(())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= self.room.table_entries as usize)
    }

    fn instances(&self) -> usize {
        self.room.instances as usize
    }

    fn tables(&self) -> usize {
        self.room.tables as usize
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES as usize
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl types::Host for Guest {}

impl log::Host for Guest {
    fn write(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        self.count()?;
        self.log.write(convert::level(level), &message);
        Ok(())
    }
}

impl clock::Host for Guest {
    fn now(&mut self) -> wasmtime::Result<types::Timestamp> {
        self.count_in_run("clock.now")?;
        Ok(convert::timestamp(self.clock.look().wall))
    }

    fn elapsed(&mut self) -> wasmtime::Result<u64> {
        self.count_in_run("clock.elapsed")?;
        let elapsed = Duration::from_nanos(self.clock.look().elapsed);
        Ok(whole_millis(elapsed))
    }

    fn remaining(&mut self) -> wasmtime::Result<u64> {
        self.count_in_run("clock.remaining")?;
        let look = self.clock.look();
        Ok(whole_millis(self.clock.left(look)))
    }

    async fn sleep(&mut self, duration: u64) -> wasmtime::Result<()> {
        self.count_in_run("clock.sleep")?;
        self.clock.sleep(Duration::from_millis(duration)).await;
        Ok(())
    }
}

impl wall_clock::Host for Guest {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        let now = convert::timestamp(self.look()?.wall);
        Ok(wall_clock::Datetime {
            // WASI 0.2 knows of no time before 1970.
            seconds: u64::try_from(now.seconds).unwrap_or(0),
            nanoseconds: now.nanoseconds,
        })
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime {
            seconds: 0,
            nanoseconds: 1,
        })
    }
}

impl monotonic_clock::Host for Guest {
    fn now(&mut self) -> wasmtime::Result<monotonic_clock::Instant> {
        Ok(self.look()?.elapsed)
    }

    fn resolution(&mut self) -> wasmtime::Result<monotonic_clock::Duration> {
        Ok(1)
    }

    fn subscribe_instant(
        &mut self,
        when: monotonic_clock::Instant,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        self.count()?;
        self.timer(when)
    }

    fn subscribe_duration(
        &mut self,
        span: monotonic_clock::Duration,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        let now = self.look()?.elapsed;
        self.timer(now.saturating_add(span))
    }
}

impl random::Host for Guest {
    fn bits(&mut self) -> wasmtime::Result<u64> {
        self.count_in_run("random.bits")?;
        Ok(self.random.next_u64())
    }
}

impl docker::Host for Guest {
    async fn list(
        &mut self,
        host: String,
        filter: docker::Filter,
    ) -> wasmtime::Result<Result<Vec<docker::Summary>, types::CapabilityError>> {
        let call = DockerCall::List {
            all: filter.all,
            labels: convert::to_labels(filter.labels),
        };
        self.docker(host, call, |response| match response {
            Response::Containers(rows) => Some(rows.into_iter().map(convert::summary).collect()),
            _ => None,
        })
        .await
    }

    async fn inspect(
        &mut self,
        container: docker::Container,
    ) -> wasmtime::Result<Result<docker::Details, types::CapabilityError>> {
        let call = DockerCall::Inspect {
            container: container.name,
        };
        self.docker(container.host, call, |response| match response {
            Response::Container(details) => Some(convert::details(*details)),
            _ => None,
        })
        .await
    }

    async fn logs(
        &mut self,
        container: docker::Container,
        lines: u32,
    ) -> wasmtime::Result<Result<String, types::CapabilityError>> {
        let call = DockerCall::Logs {
            container: container.name,
            lines,
        };
        self.docker(container.host, call, |response| match response {
            Response::Text(text) => Some(text),
            _ => None,
        })
        .await
    }

    async fn start(
        &mut self,
        container: docker::Container,
    ) -> wasmtime::Result<Result<(), types::CapabilityError>> {
        let call = DockerCall::Start {
            container: container.name,
        };
        self.docker_effect(container.host, call).await
    }

    async fn stop(
        &mut self,
        container: docker::Container,
        grace_ms: u64,
    ) -> wasmtime::Result<Result<(), types::CapabilityError>> {
        let call = DockerCall::Stop {
            container: container.name,
            grace_ms,
        };
        self.docker_effect(container.host, call).await
    }

    async fn restart(
        &mut self,
        container: docker::Container,
        grace_ms: u64,
    ) -> wasmtime::Result<Result<(), types::CapabilityError>> {
        let call = DockerCall::Restart {
            container: container.name,
            grace_ms,
        };
        self.docker_effect(container.host, call).await
    }

    async fn kill(
        &mut self,
        container: docker::Container,
        signal: String,
    ) -> wasmtime::Result<Result<(), types::CapabilityError>> {
        let call = DockerCall::Kill {
            container: container.name,
            signal,
        };
        self.docker_effect(container.host, call).await
    }

    async fn recreate(
        &mut self,
        container: docker::Container,
        grace_ms: u64,
    ) -> wasmtime::Result<Result<String, types::CapabilityError>> {
        let call = DockerCall::Recreate {
            container: container.name,
            grace_ms,
        };
        self.docker(container.host, call, made).await
    }

    async fn duplicate(
        &mut self,
        container: docker::Container,
        name: String,
        labels: Vec<types::Label>,
    ) -> wasmtime::Result<Result<String, types::CapabilityError>> {
        let call = DockerCall::Duplicate {
            container: container.name,
            name,
            labels: convert::to_labels(labels),
        };
        self.docker(container.host, call, made).await
    }

    async fn remove(
        &mut self,
        container: docker::Container,
        grace_ms: u64,
    ) -> wasmtime::Result<Result<(), types::CapabilityError>> {
        let call = DockerCall::Remove {
            container: container.name,
            grace_ms,
        };
        self.docker_effect(container.host, call).await
    }
}

/// The id of a container that was made.
fn made(response: Response) -> Option<String> {
    match response {
        Response::Created(id) => Some(id),
        _ => None,
    }
}

impl ansible::Host for Guest {
    async fn run(
        &mut self,
        request: ansible::Request,
    ) -> wasmtime::Result<Result<ansible::Recap, types::CapabilityError>> {
        let request = match convert::to_ansible(request) {
            Ok(request) => Request::Ansible(request),
            Err(error) => {
                self.count()?;
                return Ok(Err(convert::error(error)));
            }
        };
        let result = self.pass(request).await?;
        Ok(answer("ansible.run", result, |response| match response {
            Response::Playbook(report) => Some(convert::recap(*report)),
            _ => None,
        }))
    }
}

impl http::Host for Guest {
    async fn send(
        &mut self,
        request: http::Request,
    ) -> wasmtime::Result<Result<http::Response, types::CapabilityError>> {
        let request = match convert::to_http(request) {
            Ok(request) => Request::Http(Box::new(request)),
            Err(error) => {
                self.count()?;
                return Ok(Err(convert::error(error)));
            }
        };
        let result = self.pass(request).await?;
        Ok(answer("http.send", result, |response| match response {
            Response::Http(response) => Some(convert::response(*response)),
            _ => None,
        }))
    }
}

impl mail::Host for Guest {
    async fn send(
        &mut self,
        message: mail::Message,
    ) -> wasmtime::Result<Result<mail::Receipt, types::CapabilityError>> {
        let request = match convert::to_mail(message) {
            Ok(request) => Request::Mail(Box::new(request)),
            Err(error) => {
                self.count()?;
                return Ok(Err(convert::error(error)));
            }
        };
        let result = self.pass(request).await?;
        Ok(answer("mail.send", result, |response| match response {
            Response::Mail(receipt) => Some(convert::receipt(*receipt)),
            _ => None,
        }))
    }
}

impl memory::Host for Guest {
    async fn get(
        &mut self,
        key: String,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, types::CapabilityError>> {
        self.remember(MemoryCall::Get { key }, |response| match response {
            Response::Value(value) => Some(value.map(|value| value.0)),
            _ => None,
        })
        .await
    }

    async fn set(
        &mut self,
        key: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), types::CapabilityError>> {
        let value = Blob(value);
        self.remember(MemoryCall::Set { key, value }, |response| {
            (response == Response::Done).then_some(())
        })
        .await
    }

    async fn forget(
        &mut self,
        key: String,
    ) -> wasmtime::Result<Result<(), types::CapabilityError>> {
        self.remember(MemoryCall::Forget { key }, |response| {
            (response == Response::Done).then_some(())
        })
        .await
    }

    async fn keys(
        &mut self,
        prefix: String,
    ) -> wasmtime::Result<Result<Vec<String>, types::CapabilityError>> {
        self.remember(MemoryCall::Keys { prefix }, |response| match response {
            Response::Keys(keys) => Some(keys),
            _ => None,
        })
        .await
    }
}

impl Guest {
    async fn remember<T>(
        &mut self,
        call: MemoryCall,
        convert: impl FnOnce(Response) -> Option<T>,
    ) -> wasmtime::Result<Result<T, types::CapabilityError>> {
        let name = call.name();
        let result = self.pass(Request::Memory(call)).await?;
        Ok(answer(name, result, convert))
    }
}

fn whole_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
