//! The one place that every observation and effect of a run passes through.
//!
//! In this order, each of which can end the matter:
//!
//! 1. the record, when the run goes on after a crash: a call that is on it is answered from
//!    it, and must be the one that was asked then;
//! 2. the grant, on what was asked: a call that no container could satisfy is refused
//!    before Docker is asked anything;
//! 3. the name is resolved to a container, and the grant is decided on what was found,
//!    so that a name, a short id and a long id are treated alike; what a call would make
//!    has to be granted as well; a playbook acts on the run's target, so a target that is a
//!    container has to be granted, and the playbook's name turns out to be a file with a
//!    digest;
//! 4. for effects, the limits of the run;
//! 5. for effects, the mode: a dry run's effect is noted down, answered with what would
//!    have happened, and goes no further; one of a run that applies an approved plan is
//!    the next one of that plan, or the run ends;
//! 6. before the first effect, the evidence is captured that it would destroy;
//! 7. the [`Halt`] of the run and the [`EffectGuard`]: the stop switch, and the limits over
//!    all runs;
//! 8. the effect is recorded as begun, durably, with all that the run saw before it;
//! 9. the driver carries it out, and it is recorded as ended.
//!
//! The drivers run on the daemon's own runtime and never on the guests' threads. From
//! step 8 on, an effect is a task of its own, which goes on to its end and is recorded
//! whatever becomes of the run that asked for it.

mod account;
mod dry;
mod evidence;
mod halt;
mod mail;
mod memory;
mod plan;
mod playbook;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use rand::Rng as _;
use sentinel_core::alert::Labels;
use sentinel_core::capability::{
    AnsibleRequest, Blob, CapabilityError, ContainerDetails, DockerCall, DockerRequest, MemoryCall,
    Request, Response,
};
use sentinel_core::event::{CallResult, LogLevel, PlannedEffect, Resource, RunMode, StopCause};
use sentinel_core::grant::{AnsibleGrant, Denied, Grants, INCIDENT_VARIABLE, Import};
use sentinel_core::http::{HttpMethod, HttpPlace, HttpRequest, HttpUrl};
use sentinel_core::id::{Digest, RunId, Target};
use sentinel_core::incident::OnInterrupt;
use sentinel_core::recording::{RecordedCall, RecordedOutcome, Recording, to_hex};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

pub use self::account::{RecordError, Recorder};
pub use self::evidence::{Evidence, EvidencePlan};
pub use self::halt::{EffectGuard, Halt, Halted};
pub(crate) use self::plan::{LEFT_OUT, in_full};

use self::dry::Rehearsal;
use self::memory::Memory;
use self::plan::ApprovedPlan;
use self::playbook::Facts;
use crate::clock::RunClock;
use crate::driver::{
    AnsibleDriver, ContainerIdentity, DockerDriver, HttpDriver, MailDriver, MemoryDriver,
    PlaybookScope, Settled,
};
use crate::guest::Source;
use crate::playback::Playback;
use crate::plugin::Plugin;
use crate::run::{IncidentInput, RunFailure, RunLimits};

/// What is kept of a run's time for the start of a container, when that itself says how
/// long it may take to stop.
const AFTER_STOP: Duration = Duration::from_secs(5);

/// As much of such a time is waited for, at the most, when it is settled what became of it.
const OWN_GRACE_AT_MOST: Duration = Duration::from_mins(10);

/// What holds at the gate whatever a policy grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateLimits {
    /// How many effects one run may ask for.
    pub effects: u32,
    /// How long each answer of Docker may take, not counting a call's own grace. The
    /// time that the run has left bounds observations further; effects are not cut
    /// short with their run.
    pub docker_timeout: Duration,
    /// How many bytes of bodies and headers one run may send and be sent by `http`: all of
    /// them are on record.
    pub http_bytes: usize,
    /// How many bytes the answer to an observation may have, as JSON.
    pub answer_bytes: usize,
    /// How many bytes of requests, answers, messages and log lines one run may put on
    /// record, as JSON.
    pub record_bytes: usize,
}

impl Default for GateLimits {
    fn default() -> Self {
        Self {
            effects: 100,
            docker_timeout: Duration::from_secs(30),
            http_bytes: 8 << 20,
            answer_bytes: 1 << 20,
            record_bytes: 16 << 20,
        }
    }
}

/// What a gate does with effects that are granted.
#[derive(Debug, Clone, PartialEq)]
pub enum GateMode {
    /// Carries them out.
    Live,
    /// Notes them down, and answers with what would have happened. What the run observes
    /// afterwards looks as if it had.
    Dry,
    /// Carries them out as long as each is the next one of this plan, which a dry run
    /// made and a person approved. Any other ends the run.
    Apply(Vec<PlannedEffect>),
}

impl GateMode {
    /// The mode as the run's events have it.
    #[must_use]
    pub fn run_mode(&self) -> RunMode {
        match self {
            Self::Live => RunMode::Live,
            Self::Dry => RunMode::Dry,
            Self::Apply(_) => RunMode::Apply,
        }
    }
}

/// What a gate is made of.
#[derive(Clone)]
pub struct GateContext {
    /// The run that it serves.
    pub run: RunId,
    /// What the incident's policy grants.
    pub grants: Arc<Grants>,
    /// Keeps the account.
    pub recorder: Arc<dyn Recorder>,
    /// Carries out `docker` calls.
    pub docker: Arc<dyn DockerDriver>,
    /// Carries out `ansible` calls.
    pub ansible: Arc<dyn AnsibleDriver>,
    /// Carries out `http` calls.
    pub http: Arc<dyn HttpDriver>,
    /// Carries out `mail` calls.
    pub mail: Arc<dyn MailDriver>,
    /// What earlier runs left to remember.
    pub memory: Arc<dyn MemoryDriver>,
    /// The runtime that the drivers run on; not the one that guests run on.
    pub io: Handle,
    /// Counts the effects that are under way, so that a shutdown can wait for them.
    /// Once it is closed, no effect begins.
    pub effects: TaskTracker,
    /// What holds whatever is granted.
    pub limits: GateLimits,
    /// What becomes of effects.
    pub mode: GateMode,
    /// Has the last word on each effect that is to be carried out.
    pub guard: Arc<dyn EffectGuard>,
    /// Ends the run from outside.
    pub halt: Halt,
    /// What to look at before the first effect; none when the incident has its evidence.
    pub evidence: Option<EvidencePlan>,
    /// What is on record of the run, when it goes on after the daemon was cut off. It is
    /// of the same run of the same plugin with the same input, and has its `RunResumed`.
    pub record: Option<Recording>,
    /// What becomes of an effect in doubt that its driver cannot settle.
    pub on_interrupt: OnInterrupt,
}

/// Why a run ends at the gate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PassError {
    /// The host ended the run.
    #[error(transparent)]
    Halted(#[from] Halted),
    /// What the run was about to do, or to be told, could not be recorded. A run without
    /// an account does not go on.
    #[error("the journal could not record the call: {0}")]
    Unrecorded(#[from] RecordError),
    /// It put more on record than it may.
    #[error("the run has put on record what it may, {limit} bytes")]
    TooMuchRecorded {
        /// How many bytes it may put on record.
        limit: usize,
    },
}

/// Counts what is written.
struct Size(usize);

impl std::io::Write for Size {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// How many bytes `value` takes as JSON.
fn json_size(value: &impl serde::Serialize) -> usize {
    let mut size = Size(0);
    // What passes here has text for the keys of its maps, so this cannot fail.
    match serde_json::to_writer(&mut size, value) {
        Ok(()) => size.0,
        Err(_) => usize::MAX / 4,
    }
}

/// A container that a call is about.
struct Found {
    identity: ContainerIdentity,
    /// What `inspect` says of it, if the look that found it has told.
    details: Option<Box<ContainerDetails>>,
}

impl Found {
    fn parts(self) -> (Resource, Option<Box<ContainerDetails>>) {
        (self.identity.into(), self.details)
    }
}

/// The gate of one run. Clones are the same gate.
#[derive(Clone)]
pub struct Gate {
    shared: Arc<Shared>,
}

struct Shared {
    /// Without the record and the plan, which are in `playback` and `plan`.
    context: GateContext,
    mode: RunMode,
    playback: Option<Arc<Playback>>,
    plan: Option<ApprovedPlan>,
    rehearsal: Option<Rehearsal>,
    clock: OnceLock<RunClock>,
    /// What the run's randomness comes from.
    seed: OnceLock<[u8; 32]>,
    /// What the run is about, for playbooks; only where the plugin can have any run.
    facts: OnceLock<Facts>,
    calls: AtomicU32,
    effects: AtomicU32,
    /// What went by `http` so far, in bytes.
    http_bytes: AtomicUsize,
    /// What was put on record so far, in bytes.
    recorded: AtomicUsize,
    memory: Memory,
    /// Whether the next effect is the first one.
    first: AtomicBool,
    /// This run's effects that are under way.
    under_way: TaskTracker,
    /// What the driver says of the effect in doubt.
    doubt: OnceLock<Result<Settled, CapabilityError>>,
}

impl Gate {
    /// A gate for the run in `context`.
    #[must_use]
    pub fn new(mut context: GateContext) -> Self {
        let playback = context.record.take().map(Playback::new).map(Arc::new);
        let mode = context.mode.run_mode();
        let (plan, rehearsal) = match std::mem::replace(&mut context.mode, GateMode::Live) {
            GateMode::Live => (None, None),
            GateMode::Dry => (None, Some(Rehearsal::default())),
            GateMode::Apply(effects) => (Some(ApprovedPlan::new(effects)), None),
        };
        let captured = playback
            .as_ref()
            .is_some_and(|playback| playback.recording().evidence);
        Self {
            shared: Arc::new(Shared {
                context,
                mode,
                playback,
                plan,
                rehearsal,
                clock: OnceLock::new(),
                seed: OnceLock::new(),
                facts: OnceLock::new(),
                calls: AtomicU32::new(0),
                effects: AtomicU32::new(0),
                http_bytes: AtomicUsize::new(0),
                recorded: AtomicUsize::new(0),
                memory: Memory::default(),
                first: AtomicBool::new(!captured),
                under_way: TaskTracker::new(),
                doubt: OnceLock::new(),
            }),
        }
    }

    /// The run that the gate serves.
    #[must_use]
    pub fn run(&self) -> RunId {
        self.shared.context.run
    }

    /// Lets `request` through or refuses it, and answers with what came of it; or ends
    /// the run.
    pub async fn pass(&self, request: Request) -> Result<CallResult, PassError> {
        let shared = &self.shared;
        let call = shared.calls.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(recorded) = shared.played(&request)? {
            return match recorded.answer() {
                Some(answer) => Ok(answer),
                None => shared.settle(call, request, recorded).await,
            };
        }
        if let Request::Memory(asked) = &request {
            let result = shared.remember(asked).await.map_err(CapabilityError::cut);
            shared.put_on_record(&request, &result)?;
            shared.flush_clock();
            let account = &shared.context.recorder;
            account
                .observed(self.run(), call, &request, &result)
                .await?;
            return Ok(result);
        }
        match shared.admit(&request).await {
            Ok(found) if !request.is_effect() => shared.observation(call, request, found).await,
            Ok(found) => {
                let (on, details) = found.map(Found::parts).unzip();
                if let Some(rehearsal) = &shared.rehearsal {
                    return shared.planned(rehearsal, call, request, on).await;
                }
                if let Some(plan) = &shared.plan {
                    plan.admit(&request, on.as_ref())
                        .map_err(|deviated| shared.halt(deviated))?;
                }
                let details = details.flatten();
                shared.effect(call, request, on, details).await
            }
            Err(error) => {
                let error = error.cut();
                let (asked, digest) = request.refused();
                shared.put_on_record(&asked, &error)?;
                shared.flush_clock();
                let account = &shared.context.recorder;
                account
                    .denied(self.run(), call, &asked, digest, &error)
                    .await?;
                Ok(Err(error))
            }
        }
    }

    /// Waits until every effect of the run has ended. Whoever ran it does so before they
    /// call the run over: until then its target is not anybody else's.
    pub async fn settled(&self) {
        self.shared.under_way.close();
        self.shared.under_way.wait().await;
    }

    /// Asks the driver about the effect in doubt, if the record ends with one. Done before
    /// the run's time begins: Docker may still be at work on it for longer than the run
    /// has left.
    pub(crate) async fn look_into_doubt(&self) {
        let shared = &self.shared;
        let Some(playback) = &shared.playback else {
            return;
        };
        let Some(recorded) = playback.recording().in_doubt() else {
            return;
        };
        if let RecordedOutcome::Effect { began_at, .. } = recorded.outcome {
            let settled = shared
                .ask_driver(&recorded.request, recorded, began_at)
                .await;
            shared.doubt.get_or_init(|| settled);
        }
    }

    /// Begins the run of this plugin: from here on its time counts. What its clock and
    /// randomness come from is on record before the guest is given any of it.
    pub(crate) fn begin(
        &self,
        plugin: &Plugin,
        incident: &IncidentInput,
        limits: &RunLimits,
    ) -> Result<Source, RunFailure> {
        let shared = &self.shared;
        if plugin.imports.contains(&Import::Ansible) {
            shared.facts.get_or_init(|| Facts::of(incident));
        }
        let plugin = plugin.digest;
        let context = &shared.context;
        if let Some(playback) = &shared.playback {
            shared.check_record(playback.recording(), plugin)?;
        }
        let origin = shared
            .playback
            .as_ref()
            .and_then(|playback| playback.recording().origin);
        let (seed, began_at) = match origin {
            Some(origin) => (origin.seed, origin.clock),
            None => (new_seed(), Timestamp::now()),
        };
        let (recorder, run) = (Arc::clone(&context.recorder), context.run);
        let sink = Box::new(move |readings: &[u64]| recorder.clock_read(run, readings));
        let clock = RunClock::real(
            began_at,
            limits.timeout,
            shared.playback.clone(),
            limits.calls,
            Some(sink),
        );
        shared
            .clock
            .set(clock.clone())
            .map_err(|_| RunFailure::Internal {
                message: "a gate serves one run, and this one was used before".to_owned(),
            })?;
        shared.seed.get_or_init(|| seed);
        if origin.is_none() {
            context
                .recorder
                .seeded(context.run, &to_hex(&seed), began_at);
        }
        Ok(Source { seed, clock })
    }

    /// Waits until the run has to be ended from outside and none of its effects is under
    /// way.
    pub(crate) async fn cut_off(&self) -> Halted {
        let halted = self.shared.context.halt.stopped().await;
        // Whatever takes its token from here on sees that the run is halted.
        self.settled().await;
        halted
    }

    /// Waits until the run has to be ended from outside.
    pub(crate) async fn stopped(&self) -> Halted {
        self.shared.context.halt.stopped().await
    }

    /// Why the run was ended from outside; none when it was not.
    pub(crate) fn halted(&self) -> Option<Halted> {
        self.shared.context.halt.halted()
    }

    /// What the approved plan has and the run did not ask for, for its last word.
    pub(crate) fn left_out(&self) -> Option<String> {
        self.shared.plan.as_ref()?.left_out()
    }

    /// Whether the run, which has come to its end by itself, did all that is on record.
    pub(crate) fn check_end(&self) -> Result<(), Halted> {
        let awaited = self
            .shared
            .playback
            .as_ref()
            .and_then(|playback| playback.awaited_call());
        awaited.map_or(Ok(()), |awaited| {
            Err(self.shared.halt(nondeterministic(&format!(
                "it ended where the record has call {}, {}",
                awaited.number,
                in_full(&awaited.request)
            ))))
        })
    }

    /// What the run leaves to remember, for when it has ended well: the keys that it set,
    /// and without a value those that it forgot. A dry run leaves nothing.
    #[must_use]
    pub fn remembered(&self) -> BTreeMap<String, Option<Blob>> {
        if self.shared.rehearsal.is_some() {
            return BTreeMap::new();
        }
        self.shared.memory.changes()
    }

    /// Hands a line of the plugin's log on.
    pub(crate) fn logged(&self, level: LogLevel, message: &str) {
        let shared = &self.shared;
        // What is on record is not written again. That a line differs from the record
        // does no harm, so it is not looked at.
        if let Some(playback) = &shared.playback
            && playback.next_line().is_some()
        {
            return;
        }
        shared.flush_clock();
        // How much it may be is bounded by itself, and a line is no place to end a run.
        shared.count_recorded(message.len());
        let context = &shared.context;
        context.recorder.logged(context.run, level, message);
    }

    /// Records what the guest saw last, when it is gone.
    pub(crate) fn finish(&self) {
        self.shared.flush_clock();
    }
}

impl Shared {
    /// Whether this is a record that the run of this plugin can go on from.
    fn check_record(&self, record: &Recording, plugin: Digest) -> Result<(), Halted> {
        let wrong = if record.run != self.context.run {
            format!("the record is that of run {}", record.run)
        } else if record.digest != plugin {
            format!(
                "the record is that of plugin {}, and this is {plugin}",
                record.digest
            )
        } else if record.mode != self.mode {
            format!(
                "the record is that of a {} run, and this is a {} one",
                record.mode.as_str(),
                self.mode.as_str()
            )
        } else if record.end.is_some() {
            "the run has come to its end".to_owned()
        } else {
            return Ok(());
        };
        Err(self.halt(Halted::new(
            StopCause::Nondeterministic,
            format!("cannot go on from its record: {wrong}"),
        )))
    }

    /// Step 1: the call, if it is on record.
    fn played(&self, request: &Request) -> Result<Option<&RecordedCall>, Halted> {
        let Some(playback) = &self.playback else {
            return Ok(None);
        };
        let Some(recorded) = playback.next_call() else {
            return Ok(None);
        };
        let number = recorded.number;
        self.count_recorded(json_size(&recorded.request) + json_size(&recorded.answer()));
        if !recorded.is_for(request) {
            return Err(self.halt(nondeterministic(&format!(
                "call {number} was {}, and the record has {}",
                in_full(request),
                in_full(&recorded.request)
            ))));
        }
        let looks = self.clock.get().map_or(0, RunClock::looks);
        if looks != recorded.looks {
            return Err(self.halt(nondeterministic(&format!(
                "it came to call {number}, {}, after {looks} looks at its clock, and the \
                 record has {}",
                request.summary(),
                recorded.looks
            ))));
        }
        match &recorded.outcome {
            RecordedOutcome::Effect { ended, .. } => {
                self.effects.fetch_add(1, Ordering::Relaxed);
                if let Some(plan) = &self.plan {
                    plan.skip();
                    if let Some(result) = ended {
                        plan.ended(result);
                    }
                }
            }
            RecordedOutcome::Planned { at, .. } => {
                self.effects.fetch_add(1, Ordering::Relaxed);
                if let Some(rehearsal) = &self.rehearsal {
                    rehearsal.plan(request, recorded.on.as_ref(), *at);
                }
            }
            RecordedOutcome::Observed(_) | RecordedOutcome::Denied(_) => {}
        }
        if let Request::Memory(asked) = request
            && matches!(recorded.outcome, RecordedOutcome::Observed(Ok(_)))
        {
            self.memory.apply(asked);
        }
        if let Request::Http(asked) = request
            && !matches!(recorded.outcome, RecordedOutcome::Denied(_))
        {
            self.exchanged(asked.size());
            if let Some(Ok(Response::Http(response))) = recorded.answer() {
                self.exchanged(response.size());
            }
        }
        Ok(Some(recorded))
    }

    /// Ends the run. Returns what it is ended for, which may be something else that came
    /// first.
    fn halt(&self, halted: Halted) -> Halted {
        self.context.halt.halt(halted)
    }

    fn flush_clock(&self) {
        if let Some(clock) = self.clock.get() {
            clock.flush();
        }
    }

    /// Steps 2 to 4: everything that is decided on every call.
    async fn admit(&self, request: &Request) -> Result<Option<Found>, CapabilityError> {
        let found = self.granted(request).await?;
        self.may_act(request)?;
        Ok(found)
    }

    /// Steps 2 and 3.
    async fn granted(&self, request: &Request) -> Result<Option<Found>, CapabilityError> {
        let grants = &self.context.grants;
        match request {
            Request::Docker(asked) => {
                let action = asked.call.action();
                grants.allows_docker_host(&asked.host, action)?;
                let Some(container) = asked.call.container() else {
                    return Ok(None);
                };
                let found = self.find(&asked.host, container).await?;
                let Found { identity: on, .. } = &found;
                grants.allows_docker(&asked.host, action, &on.name, &on.labels)?;
                if let DockerCall::Duplicate { name, labels, .. } = &asked.call {
                    grants.allows_new_labels(labels, &on.labels)?;
                    let labels = dry::overlaid(&on.labels, labels);
                    grants.allows_docker(&asked.host, action, name, &labels)?;
                }
                Ok(Some(found))
            }
            Request::Ansible(asked) => self.granted_playbook(asked).await,
            Request::Http(asked) => {
                let url = match &asked.url {
                    HttpPlace::Url(url) => url.clone(),
                    HttpPlace::Secret(name) => {
                        grants.allows_http_secret(name)?;
                        self.context.http.url_of(name)?
                    }
                };
                grants.allows_http(asked, &url)?;
                Ok(None)
            }
            Request::Mail(asked) => {
                grants.allows_mail(asked)?;
                Ok(None)
            }
            Request::Memory(_) => Ok(None),
        }
    }

    /// Steps 2 and 3 for a playbook: what it is asked to do, for whom, and which file it
    /// turns out to be.
    async fn granted_playbook(
        &self,
        asked: &AnsibleRequest,
    ) -> Result<Option<Found>, CapabilityError> {
        let grants = &self.context.grants;
        let facts = self.facts.get();
        grants.allows_ansible_request(asked, facts.map(|facts| &facts.target))?;
        if let Some(facts) = facts {
            if let Some(said) = asked.extra_vars.get(INCIDENT_VARIABLE) {
                facts.check(said)?;
            }
            self.granted_target(&facts.target).await?;
        }
        let driver = Arc::clone(&self.context.ansible);
        let playbook = asked.playbook.clone();
        let file = self
            .look(async move { driver.identify(&playbook).await })
            .await?;
        Ok(file.map(|digest| Found {
            identity: ContainerIdentity {
                id: digest,
                name: asked.playbook.clone(),
                labels: Labels::new(),
            },
            details: None,
        }))
    }

    /// Whether a playbook may act on the target, which is a container: decided on what its
    /// name turned out to be, or on the name itself where no container has it.
    async fn granted_target(&self, target: &Target) -> Result<(), CapabilityError> {
        let grants = &self.context.grants;
        let anything = |grant: &AnsibleGrant| grant.anything;
        if target.kind() != "docker" || grants.ansible.as_ref().is_some_and(anything) {
            return Ok(());
        }
        let (host, name) = (target.host(), target.name());
        grants
            .check_ansible_host(host, name)
            .map_err(Denied::from)?;
        let found = match self.find(host, name).await {
            Ok(Found { identity, .. }) => identity,
            Err(CapabilityError::NotFound(_)) => ContainerIdentity {
                id: String::new(),
                name: name.to_owned(),
                labels: Labels::new(),
            },
            Err(error) => return Err(error),
        };
        grants.allows_ansible_on(host, &found.name, &found.labels)?;
        Ok(())
    }

    /// A call of `memory`. It touches nothing outside: what is set is the run's own until it
    /// has ended well.
    async fn remember(self: &Arc<Self>, asked: &MemoryCall) -> CallResult {
        if !self.context.grants.memory {
            return Err(CapabilityError::Denied(
                "the policy grants no memory (`memory: true`)".to_owned(),
            ));
        }
        let driver = Arc::clone(&self.context.memory);
        let load = self.look(async move { driver.load().await });
        self.memory.call(asked, load).await
    }

    /// Whether the limits allow an effect; observations always may.
    fn may_act(&self, request: &Request) -> Result<(), CapabilityError> {
        if let Request::Http(asked) = request {
            let limit = self.context.limits.http_bytes;
            if self.exchanged(asked.size()) > limit {
                return Err(CapabilityError::Denied(format!(
                    "a run may send and be sent {} KiB by http, and this one has come to its end",
                    limit >> 10
                )));
            }
        }
        if !request.is_effect() {
            return Ok(());
        }
        if self.context.effects.is_closed() {
            return Err(CapabilityError::Unavailable(
                "the daemon is shutting down and begins no more effects".to_owned(),
            ));
        }
        let limit = self.context.limits.effects;
        if self.effects.fetch_add(1, Ordering::Relaxed) >= limit {
            return Err(CapabilityError::Denied(format!(
                "a run may ask for {limit} effects, and this one has asked for more"
            )));
        }
        Ok(())
    }

    async fn find(&self, host: &str, container: &str) -> Result<Found, CapabilityError> {
        let docker = Arc::clone(&self.context.docker);
        let real = match &self.rehearsal {
            Some(rehearsal) => rehearsal.real(host, container),
            None => container.to_owned(),
        };
        let asked = host.to_owned();
        let timeout = self.docker_timeout();
        let (mut identity, mut details) = self
            .look(async move {
                tokio::time::timeout(timeout, docker.find(&asked, &real))
                    .await
                    .unwrap_or_else(|_| {
                        Err(CapabilityError::TimedOut(format!(
                            "docker host {asked} did not say within {timeout:?} what `{real}` is"
                        )))
                    })
            })
            .await?;
        if let Some(rehearsal) = &self.rehearsal {
            identity = rehearsal.identity(host, container, identity)?;
            // They are not what the run is to see.
            details = None;
        }
        Ok(Found { identity, details })
    }

    async fn observation(
        self: &Arc<Self>,
        call: u32,
        request: Request,
        found: Option<Found>,
    ) -> Result<CallResult, PassError> {
        let result = match (&request, found) {
            // Docker has said it already.
            (
                Request::Docker(DockerRequest {
                    call: DockerCall::Inspect { .. },
                    ..
                }),
                Some(Found {
                    details: Some(details),
                    ..
                }),
            ) => Ok(Response::Container(details)),
            (_, found) => {
                let timeout = match &request {
                    Request::Http(_) | Request::Mail(_) => self.remaining(),
                    Request::Docker(_) | Request::Ansible(_) | Request::Memory(_) => {
                        self.docker_timeout()
                    }
                };
                let on = found.map(|found| found.identity.id);
                let (shared, asked) = (Arc::clone(self), request.clone());
                self.look(async move { shared.observe(&asked, on, timeout).await })
                    .await
            }
        };
        let result = result.map_err(CapabilityError::cut);
        self.answered(&result);
        self.put_on_record(&request, &result)?;
        self.flush_clock();
        let context = &self.context;
        context
            .recorder
            .observed(context.run, call, &request, &result)
            .await?;
        Ok(result)
    }

    /// Asks the driver, and in a dry run shows what it would say by now.
    async fn observe(
        &self,
        request: &Request,
        container: Option<String>,
        timeout: Duration,
    ) -> CallResult {
        let Request::Docker(asked) = request else {
            return self.bounded(self.carry_out(request, container, timeout).await?);
        };
        let mut response = match &self.rehearsal {
            None => self.carry_out(request, container, timeout).await?,
            Some(rehearsal) => {
                let real = container.as_ref().map(|id| rehearsal.real(&asked.host, id));
                let ask = Request::Docker(DockerRequest {
                    host: asked.host.clone(),
                    call: rehearsal.ask(asked.call.clone()),
                });
                let mut response = self.carry_out(&ask, real, timeout).await?;
                let on = container.as_deref();
                rehearsal.show(&asked.host, &asked.call, on, &mut response);
                response
            }
        };
        if let Response::Containers(rows) = &mut response {
            let grants = &self.context.grants;
            rows.retain(|row| grants.sees_container(&asked.host, &row.name, &row.labels));
        }
        self.bounded(response)
    }

    /// An answer, if it is not more than the run may be told at once.
    fn bounded(&self, response: Response) -> CallResult {
        let size = json_size(&response);
        let limit = self.context.limits.answer_bytes;
        if size > limit {
            return Err(CapabilityError::Failed(format!(
                "the answer has {} KiB, and this plugin may be told {} KiB at once",
                size.div_ceil(1024),
                limit / 1024
            )));
        }
        Ok(response)
    }

    /// Step 5, in a dry run.
    async fn planned(
        &self,
        rehearsal: &Rehearsal,
        call: u32,
        request: Request,
        on: Option<Resource>,
    ) -> Result<CallResult, PassError> {
        if let Some(halted) = self.context.halt.halted() {
            return Err(halted.into());
        }
        self.flush_clock();
        let now = self.clock.get().map_or_else(Timestamp::now, RunClock::wall);
        let result = Ok(rehearsal.plan(&request, on.as_ref(), now));
        let effect = PlannedEffect { request, on };
        self.put_on_record(&effect, &result)?;
        let context = &self.context;
        context
            .recorder
            .planned(context.run, call, &effect, &result)
            .await?;
        Ok(result)
    }

    /// Steps 6 to 9; the last two in a task that outlives the run.
    async fn effect(
        self: &Arc<Self>,
        call: u32,
        request: Request,
        on: Option<Resource>,
        details: Option<Box<ContainerDetails>>,
    ) -> Result<CallResult, PassError> {
        self.put_on_record(&request, &on)?;
        let evidence = match &request {
            // Nothing on the target is touched by it.
            Request::Http(_) | Request::Mail(_) | Request::Memory(_) => None,
            Request::Docker(_) | Request::Ansible(_) => {
                self.evidence(&request, on.as_ref(), details).await
            }
        };
        // From here on, a halt waits for the effect, or the effect sees the halt.
        let under_way = self.under_way.token();
        let context = &self.context;
        if let Some(halted) = context.halt.halted() {
            return Err(halted.into());
        }
        context
            .guard
            .admit(context.run, &request, on.as_ref())
            .map_err(|refused| self.halt(refused))?;
        self.flush_clock();
        if let Some(evidence) = evidence {
            context.recorder.evidence(context.run, &evidence);
        }
        let timeout = match &request {
            Request::Docker(_) => context.limits.docker_timeout,
            Request::Ansible(asked) => {
                let asked = asked
                    .timeout_ms
                    .map_or(Duration::MAX, Duration::from_millis);
                asked.min(self.remaining())
            }
            Request::Http(_) | Request::Mail(_) | Request::Memory(_) => self.remaining(),
        };
        let (answer, answered) = oneshot::channel();
        let shared = Arc::clone(self);
        let task = async move {
            let result = shared
                .begin_and_end(call, request, on, timeout, || answer.is_closed())
                .await;
            // A halt that waits for this effect cuts the run off before the run is told.
            drop(under_way);
            // The run that asked may be gone.
            let _gone = answer.send(result);
        };
        context.effects.spawn_on(task, &context.io);
        answered.await.unwrap_or_else(|_| Ok(Err(driver_broke())))
    }

    /// Steps 8 and 9.
    async fn begin_and_end(
        self: &Arc<Self>,
        call: u32,
        request: Request,
        on: Option<Resource>,
        timeout: Duration,
        is_given_up: impl Fn() -> bool,
    ) -> Result<CallResult, PassError> {
        let context = &self.context;
        context
            .recorder
            .effect_began(context.run, call, &request, on.as_ref())
            .await?;
        let result = if is_given_up() {
            Err(CapabilityError::Unavailable(
                "the run was cut off before this was carried out".to_owned(),
            ))
        } else {
            // In a task of its own, so that the end is recorded even if the driver
            // panics.
            let driver = {
                let (shared, request) = (Arc::clone(self), request.clone());
                let on = on.map(|on| on.id);
                async move { shared.carry_out(&request, on, timeout).await }
            };
            context
                .effects
                .spawn_on(driver, &context.io)
                .await
                .unwrap_or_else(|_| Err(driver_broke()))
                .map_err(CapabilityError::cut)
        };
        // It was done, so it is recorded however much there is by now.
        self.count_recorded(json_size(&result));
        if let Some(plan) = &self.plan {
            plan.ended(&result);
        }
        self.answered(&result);
        self.ended(call, &request, &result, false).await;
        Ok(result)
    }

    async fn ended(&self, call: u32, request: &Request, result: &CallResult, settled: bool) {
        let context = &self.context;
        let ended = context
            .recorder
            .effect_ended(context.run, call, request, result, settled)
            .await;
        if let Err(problem) = ended {
            // It was done, so the run has to know how it went; after a restart the
            // journal holds it as begun and not ended, and it is settled as such.
            tracing::error!(run = %context.run, call, %problem, "the end of an effect was not recorded");
        }
    }

    /// Step 6: what is to be recorded before the first effect.
    async fn evidence(
        &self,
        request: &Request,
        on: Option<&Resource>,
        details: Option<Box<ContainerDetails>>,
    ) -> Option<Evidence> {
        let context = &self.context;
        let plan = context.evidence.clone()?;
        if context.halt.halted().is_some() || !self.first.swap(false, Ordering::Relaxed) {
            return None;
        }
        let docker = Arc::clone(&context.docker);
        let grants = Arc::clone(&context.grants);
        let (request, on) = (request.clone(), on.cloned());
        let look = async move {
            let docker = docker.as_ref();
            Ok(evidence::capture(docker, &grants, &plan, &request, on.as_ref(), details).await)
        };
        let captured = self.look(look).await;
        Some(captured.unwrap_or_else(|error| Evidence::missing(error.to_string())))
    }

    /// Finds out what became of an effect that was under way when the daemon was cut off,
    /// and goes on from there.
    async fn settle(
        self: &Arc<Self>,
        call: u32,
        request: Request,
        recorded: &RecordedCall,
    ) -> Result<CallResult, PassError> {
        let RecordedOutcome::Effect { began_at, .. } = recorded.outcome else {
            return Err(self
                .halt(in_doubt(call, &request, "its record is damaged"))
                .into());
        };
        // Most often asked before the run's time began.
        let asked = match self.doubt.get() {
            Some(settled) => settled.clone(),
            None => self.ask_driver(&request, recorded, began_at).await,
        };
        let doubt = match asked {
            Ok(Settled::Done(response)) => {
                let result = Ok(response);
                if let Some(plan) = &self.plan {
                    plan.ended(&result);
                }
                self.flush_clock();
                self.ended(call, &request, &result, true).await;
                return Ok(result);
            }
            Ok(Settled::NotDone) => None,
            Ok(Settled::Unknown(why)) => Some(why),
            Err(error) => Some(error.to_string()),
        };
        if let (Some(why), OnInterrupt::Escalate) = (&doubt, self.context.on_interrupt) {
            return Err(self.halt(in_doubt(call, &request, why)).into());
        }
        if self.context.effects.is_closed() {
            // Not on record as ended, so the next start looks again.
            std::future::pending::<()>().await;
        }
        match self.granted(&request).await {
            Ok(found) => {
                let (on, details) = found.map(Found::parts).unzip();
                self.effect(call, request, on, details.flatten()).await
            }
            // It began, so it needs an end: it cannot be begun again.
            Err(error) => {
                let result = Err(error);
                self.flush_clock();
                self.ended(call, &request, &result, true).await;
                Ok(result)
            }
        }
    }

    async fn ask_driver(
        &self,
        request: &Request,
        recorded: &RecordedCall,
        began_at: Timestamp,
    ) -> Result<Settled, CapabilityError> {
        let asked = match request {
            Request::Docker(asked) => asked.clone(),
            Request::Ansible(_) => {
                let why = "what a playbook did before it was cut off cannot be told";
                return Ok(Settled::Unknown(why.to_owned()));
            }
            Request::Http(_) => {
                let why = "whether a server has had a request that was cut off cannot be told";
                return Ok(Settled::Unknown(why.to_owned()));
            }
            Request::Mail(_) => {
                let why = "whether a server has taken a mail that was cut off cannot be told";
                return Ok(Settled::Unknown(why.to_owned()));
            }
            Request::Memory(_) => return Ok(Settled::NotDone),
        };
        let docker = Arc::clone(&self.context.docker);
        let call = with_container(asked.call, recorded.on.as_ref().map(|on| on.id.clone()));
        // Not bounded by the run's time: what is not told now is done twice or never.
        let timeout = self.context.limits.docker_timeout + grace(&call);
        self.look(async move { docker.settle(&asked.host, &call, began_at, timeout).await })
            .await
    }

    /// The driver's part. `container` is the full id of what the request names, and of a
    /// playbook its digest.
    async fn carry_out(
        &self,
        request: &Request,
        container: Option<String>,
        timeout: Duration,
    ) -> CallResult {
        let context = &self.context;
        match request {
            Request::Docker(DockerRequest { host, call }) => {
                let left = self.remaining();
                let call = with_container(call.clone(), container)
                    .with_own_grace_within(left.saturating_sub(AFTER_STOP.min(left / 4)));
                context.docker.call(host, &call, timeout).await
            }
            Request::Ansible(request) => {
                let granted = context.grants.ansible.as_ref();
                let scope = PlaybookScope {
                    incident: self.facts.get().map(|facts| facts.incident.clone()),
                    hosts: granted.map(|grant| grant.hosts.clone()).unwrap_or_default(),
                    digest: container,
                };
                let report = context.ansible.run(request, &scope, timeout).await?;
                Ok(Response::Playbook(Box::new(report)))
            }
            Request::Http(request) => {
                let (grants, asked) = (Arc::clone(&context.grants), request.clone());
                let may_follow = move |method: HttpMethod, url: &HttpUrl| {
                    grants.allows_http_redirect(&asked, method, url)
                };
                let response = context.http.send(request, &may_follow, timeout).await?;
                let response = if self.shows_answer(request) {
                    response
                } else {
                    response.withheld()
                };
                Ok(Response::Http(Box::new(response)))
            }
            Request::Mail(request) => {
                let seed = self.seed.get().map_or(&[][..], |seed| seed);
                let id = mail::id(context.run, seed, request);
                let receipt = context.mail.send(request, &id, timeout).await?;
                Ok(Response::Mail(Box::new(receipt)))
            }
            // Answered before it comes here.
            Request::Memory(call) => Err(CapabilityError::Failed(format!(
                "{} went where nothing is remembered",
                call.name()
            ))),
        }
    }

    /// Whether the run is told what is answered to a request.
    fn shows_answer(&self, request: &HttpRequest) -> bool {
        let url = match &request.url {
            HttpPlace::Url(url) => Ok(url.clone()),
            HttpPlace::Secret(name) => self.context.http.url_of(name),
        };
        url.is_ok_and(|url| self.context.grants.shows_http_answer(request, &url))
    }

    /// Runs what only looks on the daemon's runtime; it ends with the run.
    async fn look<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T, CapabilityError>> + Send + 'static,
    ) -> Result<T, CapabilityError> {
        AbortOnDropHandle::new(self.context.io.spawn(task))
            .await
            .unwrap_or_else(|_| Err(driver_broke()))
    }

    /// Counts what is about to be put on record, and ends a run that puts too much there.
    fn put_on_record(
        &self,
        asked: &impl serde::Serialize,
        told: &impl serde::Serialize,
    ) -> Result<(), PassError> {
        let limit = self.context.limits.record_bytes;
        if self.count_recorded(json_size(asked) + json_size(told)) > limit {
            return Err(PassError::TooMuchRecorded { limit });
        }
        Ok(())
    }

    /// Counts what is put on record; returns what is there by now.
    fn count_recorded(&self, bytes: usize) -> usize {
        let before = self.recorded.fetch_add(bytes, Ordering::Relaxed);
        before.saturating_add(bytes)
    }

    /// Counts what goes by `http`; returns what has gone by now.
    fn exchanged(&self, bytes: usize) -> usize {
        let before = self.http_bytes.fetch_add(bytes, Ordering::Relaxed);
        before.saturating_add(bytes)
    }

    fn answered(&self, result: &CallResult) {
        if let Ok(Response::Http(response)) = result {
            self.exchanged(response.size());
        }
    }

    fn remaining(&self) -> Duration {
        self.clock.get().map_or(Duration::MAX, |clock| {
            clock.deadline().saturating_duration_since(Instant::now())
        })
    }

    fn docker_timeout(&self) -> Duration {
        self.context.limits.docker_timeout.min(self.remaining())
    }
}

/// `call` on the container that was found instead of on what it was called.
fn with_container(call: DockerCall, id: Option<String>) -> DockerCall {
    match id {
        Some(id) => call.on(id),
        None => call,
    }
}

fn new_seed() -> [u8; 32] {
    let mut seed = [0; 32];
    rand::rng().fill_bytes(&mut seed);
    seed
}

fn nondeterministic(how: &str) -> Halted {
    Halted::new(
        StopCause::Nondeterministic,
        format!("did not follow its own record: {how}"),
    )
}

fn in_doubt(call: u32, request: &Request, why: &str) -> Halted {
    Halted::new(
        StopCause::InDoubt,
        format!(
            "sentinel was cut off in call {call}, {}, and whether it was carried out cannot be \
             told: {why}",
            in_full(request)
        ),
    )
}

/// The time that the container is given to end by itself.
fn grace(call: &DockerCall) -> Duration {
    if call.has_own_grace() {
        return OWN_GRACE_AT_MOST;
    }
    Duration::from_millis(call.grace_ms().unwrap_or(0))
}

fn driver_broke() -> CapabilityError {
    CapabilityError::Failed("the driver broke down; see the daemon's log".to_owned())
}

impl From<ContainerIdentity> for Resource {
    fn from(found: ContainerIdentity) -> Self {
        Self {
            id: found.id,
            name: found.name,
            labels: found.labels,
        }
    }
}

impl From<&ContainerIdentity> for Resource {
    fn from(found: &ContainerIdentity) -> Self {
        found.clone().into()
    }
}
