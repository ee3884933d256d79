//! The one place that every observation and effect of a run passes through.
//!
//! In this order, each of which can end the matter:
//!
//! 1. the grant, on what was asked: a call that no container could satisfy is refused
//!    before Docker is asked anything;
//! 2. the name is resolved to a container, and the grant is decided on what was found,
//!    so that a name, a short id and a long id are treated alike;
//! 3. for effects, the limits;
//! 4. an effect is recorded as begun, durably;
//! 5. the driver carries it out, and it is recorded as ended.
//!
//! The drivers run on the daemon's own runtime and never on the guests' threads. From
//! step 4 on, an effect is a task of its own, which goes on to its end and is recorded
//! whatever becomes of the run that asked for it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use sentinel_core::capability::{CapabilityError, DockerCall, DockerRequest, Request, Response};
use sentinel_core::event::{CallResult, LogLevel, Resource};
use sentinel_core::grant::Grants;
use sentinel_core::id::RunId;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::driver::{AnsibleDriver, ContainerIdentity, DockerDriver};

/// Keeps the account of what passes the gate. The calls of a run are numbered from 1
/// in the order in which they were asked.
#[async_trait]
pub trait Recorder: Send + Sync {
    /// An effect is about to be carried out. It is, only after this has returned `Ok`:
    /// the record must be durable by then.
    async fn effect_began(
        &self,
        run: RunId,
        call: u32,
        request: &Request,
        on: Option<&ContainerIdentity>,
    ) -> Result<(), RecordError>;

    /// An effect that began was carried out, or was not.
    async fn effect_ended(
        &self,
        run: RunId,
        call: u32,
        request: &Request,
        result: &CallResult,
    ) -> Result<(), RecordError>;

    /// Something was looked at. The run is told only what was recorded.
    async fn observed(
        &self,
        run: RunId,
        call: u32,
        request: &Request,
        result: &CallResult,
    ) -> Result<(), RecordError>;

    /// A call was refused, or its container was not found, and nothing was done.
    async fn denied(
        &self,
        run: RunId,
        call: u32,
        request: &Request,
        error: &CapabilityError,
    ) -> Result<(), RecordError>;

    /// The plugin wrote a line. Called on the guests' threads: it must not block.
    fn logged(&self, run: RunId, level: LogLevel, message: &str);
}

/// Something could not be recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RecordError(pub String);

/// What holds at the gate whatever a policy grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateLimits {
    /// How many effects one run may ask for.
    pub effects: u32,
    /// How long each answer of Docker may take, not counting a call's own grace. The
    /// time that the run has left bounds observations further; effects are not cut
    /// short with their run.
    pub docker_timeout: Duration,
}

impl Default for GateLimits {
    fn default() -> Self {
        Self {
            effects: 100,
            docker_timeout: Duration::from_secs(30),
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
    /// The runtime that the drivers run on; not the one that guests run on.
    pub io: Handle,
    /// Counts the effects that are under way, so that a shutdown can wait for them.
    /// Once it is closed, no effect begins.
    pub effects: TaskTracker,
    /// What holds whatever is granted.
    pub limits: GateLimits,
}

/// The gate of one run. Clones are the same gate.
#[derive(Clone)]
pub struct Gate {
    shared: Arc<Shared>,
}

struct Shared {
    context: GateContext,
    calls: AtomicU32,
    effects: AtomicU32,
    deadline: OnceLock<Instant>,
    /// This run's effects that are under way.
    under_way: TaskTracker,
}

impl Gate {
    /// A gate for the run in `context`.
    #[must_use]
    pub fn new(context: GateContext) -> Self {
        Self {
            shared: Arc::new(Shared {
                context,
                calls: AtomicU32::new(0),
                effects: AtomicU32::new(0),
                deadline: OnceLock::new(),
                under_way: TaskTracker::new(),
            }),
        }
    }

    /// The run that the gate serves.
    #[must_use]
    pub fn run(&self) -> RunId {
        self.shared.context.run
    }

    /// Lets `request` through or refuses it, and answers with what came of it.
    pub async fn pass(&self, request: Request) -> CallResult {
        let shared = &self.shared;
        let call = shared.calls.fetch_add(1, Ordering::Relaxed) + 1;
        match shared.admit(&request).await {
            Ok(on) if request.is_effect() => shared.effect(call, request, on).await,
            Ok(on) => shared.observation(call, request, on).await,
            Err(error) => {
                let account = &shared.context.recorder;
                let recorded = account.denied(self.run(), call, &request, &error).await;
                if let Err(problem) = recorded {
                    // Nothing was done, so the record is not what safety hangs on.
                    tracing::error!(run = %self.run(), call, %problem, "a refused call was not recorded");
                }
                Err(error)
            }
        }
    }

    /// Waits until every effect of the run has ended. Whoever ran it does so before they
    /// call the run over: until then its target is not anybody else's.
    pub async fn settled(&self) {
        self.shared.under_way.close();
        self.shared.under_way.wait().await;
    }

    /// Hands a line of the plugin's log on.
    pub(crate) fn logged(&self, level: LogLevel, message: &str) {
        let context = &self.shared.context;
        context.recorder.logged(context.run, level, message);
    }

    /// Tells when the run will be cut off.
    pub(crate) fn set_deadline(&self, deadline: Instant) {
        if self.shared.deadline.set(deadline).is_err() {
            tracing::warn!(run = %self.run(), "a gate serves one run, and this one was used before");
        }
    }
}

impl Shared {
    /// Steps 1 to 3: everything that is decided before anything is done.
    async fn admit(&self, request: &Request) -> Result<Option<ContainerIdentity>, CapabilityError> {
        let grants = &self.context.grants;
        match request {
            Request::Docker(asked) => {
                let action = asked.call.action();
                grants.allows_docker_host(&asked.host, action)?;
                let Some(container) = asked.call.container() else {
                    return Ok(None);
                };
                let found = self.resolve(&asked.host, container).await?;
                grants.allows_docker(&asked.host, action, &found.name, &found.labels)?;
                self.may_act(request)?;
                Ok(Some(found))
            }
            Request::Ansible(asked) => {
                grants.allows_ansible(&asked.playbook)?;
                self.may_act(request)?;
                Ok(None)
            }
        }
    }

    /// Whether the limits allow an effect; observations always may.
    fn may_act(&self, request: &Request) -> Result<(), CapabilityError> {
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

    async fn resolve(
        &self,
        host: &str,
        container: &str,
    ) -> Result<ContainerIdentity, CapabilityError> {
        let docker = Arc::clone(&self.context.docker);
        let (host, container) = (host.to_owned(), container.to_owned());
        let timeout = self.docker_timeout();
        self.look(async move {
            tokio::time::timeout(timeout, docker.resolve(&host, &container))
                .await
                .unwrap_or_else(|_| {
                    Err(CapabilityError::TimedOut(format!(
                        "docker host {host} did not say within {timeout:?} what `{container}` is"
                    )))
                })
        })
        .await
    }

    async fn observation(
        &self,
        call: u32,
        request: Request,
        on: Option<ContainerIdentity>,
    ) -> CallResult {
        let context = self.context.clone();
        let timeout = self.docker_timeout();
        let on = on.map(|on| on.id);
        self.look(async move {
            let mut result = carry_out(&context, &request, on, timeout).await;
            if let (Request::Docker(asked), Ok(Response::Containers(rows))) =
                (&request, &mut result)
            {
                rows.retain(|row| {
                    context
                        .grants
                        .sees_container(&asked.host, &row.name, &row.labels)
                });
            }
            context
                .recorder
                .observed(context.run, call, &request, &result)
                .await
                .map_err(|problem| unrecorded(&problem))?;
            result
        })
        .await
    }

    /// Steps 4 and 5, in a task that outlives the run.
    async fn effect(
        &self,
        call: u32,
        request: Request,
        on: Option<ContainerIdentity>,
    ) -> CallResult {
        let context = self.context.clone();
        let timeout = match &request {
            Request::Docker(_) => context.limits.docker_timeout,
            Request::Ansible(asked) => {
                let asked = asked
                    .timeout_ms
                    .map_or(Duration::MAX, Duration::from_millis);
                asked.min(self.remaining())
            }
        };
        let (answer, answered) = oneshot::channel();
        let task = async move {
            let began = context
                .recorder
                .effect_began(context.run, call, &request, on.as_ref())
                .await;
            if let Err(problem) = began {
                // The run that asked may be gone.
                let _gone = answer.send(Err(unrecorded(&problem)));
                return;
            }
            let result = if answer.is_closed() {
                Err(CapabilityError::Unavailable(
                    "the run was cut off before this was carried out".to_owned(),
                ))
            } else {
                // In a task of its own, so that the end is recorded even if the driver
                // panics.
                let driver = {
                    let (context, request) = (context.clone(), request.clone());
                    let on = on.map(|on| on.id);
                    async move { carry_out(&context, &request, on, timeout).await }
                };
                context
                    .effects
                    .spawn_on(driver, &context.io)
                    .await
                    .unwrap_or_else(|_| Err(driver_broke()))
            };
            let ended = context
                .recorder
                .effect_ended(context.run, call, &request, &result)
                .await;
            if let Err(problem) = ended {
                // It was done, so the run has to know how it went; after a restart the
                // journal holds it as begun and not ended, and it is settled as such.
                tracing::error!(run = %context.run, call, %problem, "the end of an effect was not recorded");
            }
            let _gone = answer.send(result);
        };
        let task = self.under_way.track_future(task);
        self.context.effects.spawn_on(task, &self.context.io);
        answered.await.unwrap_or_else(|_| Err(driver_broke()))
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

    fn remaining(&self) -> Duration {
        self.deadline.get().map_or(Duration::MAX, |deadline| {
            deadline.saturating_duration_since(Instant::now())
        })
    }

    fn docker_timeout(&self) -> Duration {
        self.context.limits.docker_timeout.min(self.remaining())
    }
}

/// The driver's part. `container` is the full id of what the request names.
async fn carry_out(
    context: &GateContext,
    request: &Request,
    container: Option<String>,
    timeout: Duration,
) -> CallResult {
    match request {
        Request::Docker(DockerRequest { host, call }) => {
            let call = with_container(call.clone(), container);
            context.docker.call(host, &call, timeout).await
        }
        Request::Ansible(request) => {
            let report = context.ansible.run(request, timeout).await?;
            Ok(Response::Playbook(Box::new(report)))
        }
    }
}

/// `call` on the container that was found instead of on what it was called.
fn with_container(mut call: DockerCall, id: Option<String>) -> DockerCall {
    match &mut call {
        DockerCall::List { .. } => {}
        DockerCall::Inspect { container }
        | DockerCall::Logs { container, .. }
        | DockerCall::Start { container }
        | DockerCall::Stop { container, .. }
        | DockerCall::Restart { container, .. }
        | DockerCall::Kill { container, .. }
        | DockerCall::Recreate { container, .. } => {
            if let Some(id) = id {
                *container = id;
            }
        }
    }
    call
}

fn unrecorded(problem: &RecordError) -> CapabilityError {
    CapabilityError::Unavailable(format!("the journal could not record the call: {problem}"))
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
