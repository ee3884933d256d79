//! Runs plugins for the engine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use sentinel_core::capability::CapabilityError;
use sentinel_core::engine::{Input, Order};
use sentinel_core::event::{FailureClass, RunMode, RunResult};
use sentinel_core::id::{Digest, PluginName, PolicyName, RunId};
use sentinel_core::recording::Recording;
use sentinel_core::timeline;
use sentinel_journal::{Journal, Reader};
use sentinel_sandbox::driver::{AnsibleDriver, DockerDriver, HttpDriver, MailDriver, MemoryDriver};
use sentinel_sandbox::gate::{EvidencePlan, GateContext, GateMode, Halt};
use sentinel_sandbox::{Gate, IncidentInput, Plugin, RunFailure, RunLimits, Sandbox};
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

use super::recorder::RunRecorder;
use super::switch::{RunSwitch, Switch};
use super::{EngineHandle, Incoming};
use crate::reconfigure::Running;
use crate::serving::{Drains, Probation, Request, Serving};
use crate::telemetry::metrics::Metrics;

/// What runs need, whichever they are.
#[derive(Clone)]
pub(crate) struct Executor {
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) docker: Arc<dyn DockerDriver>,
    pub(crate) ansible: Arc<dyn AnsibleDriver>,
    pub(crate) http: Arc<dyn HttpDriver>,
    pub(crate) mail: Arc<dyn MailDriver>,
    pub(crate) journal: Arc<Journal>,
    /// Records of runs that go on are read with it.
    pub(crate) reader: Arc<Reader>,
    pub(crate) serving: Arc<ArcSwap<Serving>>,
    pub(crate) switch: Arc<Switch>,
    /// New versions of plugins are watched.
    pub(crate) probation: Arc<Probation>,
    /// Old ones have to come to an end.
    pub(crate) drains: Drains,
    /// Whoever changes what serves.
    pub(crate) requests: mpsc::UnboundedSender<Request>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) engine: EngineHandle,
    pub(crate) config: Running,
    /// Runs that are under way.
    pub(crate) runs: TaskTracker,
    /// Effects that are under way: they outlive a run that is cut off.
    pub(crate) effects: TaskTracker,
}

/// A run cannot be carried out.
#[derive(Debug, thiserror::Error)]
enum LostError {
    #[error("its record cannot be read: {0}")]
    Record(String),
    #[error("plugin {0}, which it ran, is not kept any more")]
    Plugin(Digest),
    #[error("plugin {0}, which it ran, cannot be loaded any more: {1}")]
    Load(Digest, String),
}

impl Executor {
    /// Starts a run, or lets it go on; its end comes back to the engine as an input.
    /// `written` turns true once its start is on the disk; what is dropped before that
    /// never will be.
    pub(super) fn start(&self, order: Order, halt: Halt, written: watch::Receiver<bool>) {
        let executor = self.clone();
        self.runs.spawn(async move {
            let (run, plugin, mode) = (order.run, order.plugin.clone(), order.mode);
            let work = executor
                .runs
                .spawn(executor.clone().carry_out(order, halt, written));
            let result = match work.await {
                Ok(result) => result,
                Err(error) => {
                    tracing::error!(%run, %error, "a run ended in a panic of sentinel itself");
                    Some(RunResult::Failed {
                        class: FailureClass::Retryable,
                        message: "sentinel itself failed; its log says more".to_owned(),
                    })
                }
            };
            executor.engine.send(Incoming::RunGone(run));
            match result {
                Some(result) => {
                    executor.metrics.run_ended(run, &plugin, mode, &result);
                    executor.engine.input(Input::RunEnded { run, result });
                }
                None => executor.engine.input(Input::RunLost { run }),
            }
        });
    }

    /// None when a run that is to go on cannot.
    async fn carry_out(
        self,
        order: Order,
        halt: Halt,
        mut written: watch::Receiver<bool>,
    ) -> Option<RunResult> {
        let run = order.run;
        // These read what is written of their incident.
        let reads = order.resume || order.rung.step == 0;
        if reads && written.wait_for(|written| *written).await.is_err() {
            return None;
        }
        let found = if order.resume {
            self.record_of(run).await
        } else {
            let plugin = self.plugin(&order.plugin, order.digest).await;
            plugin.map(|plugin| (plugin, None))
        };
        match found {
            Ok((plugin, record)) => Some(self.run(order, halt, plugin, record, written).await),
            Err(error) if order.resume => {
                tracing::warn!(%run, %error, "a run that was cut off cannot go on");
                None
            }
            Err(error) => Some(RunResult::Failed {
                class: FailureClass::Retryable,
                message: error.to_string(),
            }),
        }
    }

    /// What is on record of a run, and the version that it ran.
    async fn record_of(&self, run: RunId) -> Result<(Arc<Plugin>, Option<Recording>), LostError> {
        let events = self
            .reader
            .events(run.incident)
            .map_err(|error| LostError::Record(error.to_string()))?;
        let recording =
            Recording::of(&events, run).map_err(|error| LostError::Record(error.to_string()))?;
        let plugin = self.plugin(&recording.plugin, recording.digest).await?;
        Ok((plugin, Some(recording)))
    }

    /// A version of a plugin: most often the one that serves, else as it is kept in the
    /// journal.
    async fn plugin(&self, name: &PluginName, digest: Digest) -> Result<Arc<Plugin>, LostError> {
        let serving = self.serving.load_full();
        if let Some(plugin) = serving.plugins.version(name, &digest) {
            return Ok(plugin.clone());
        }
        let wasm = self
            .reader
            .plugin(&digest)
            .map_err(|error| LostError::Record(error.to_string()))?
            .ok_or(LostError::Plugin(digest))?;
        let plugin = self.sandbox.load(wasm).await;
        plugin.map_err(|error| LostError::Load(digest, error.to_string()))
    }

    async fn run(
        &self,
        mut order: Order,
        halt: Halt,
        plugin: Arc<Plugin>,
        record: Option<Recording>,
        written: watch::Receiver<bool>,
    ) -> RunResult {
        let run = order.run;
        if let Err(end) = self.check_params(&mut order, &plugin).await {
            return end;
        }
        let bounds = *self.config.load().limits.of(&order.plugin);
        let recorder = Arc::new(RunRecorder::new(
            run,
            written,
            self.journal.clone(),
            self.engine.clone(),
            self.metrics.clone(),
        ));
        let gate = Gate::new(GateContext {
            run,
            grants: Arc::new(order.plan.grants.clone()),
            recorder: recorder.clone(),
            docker: self.docker.clone(),
            ansible: self.ansible.clone(),
            http: self.http.clone(),
            mail: self.mail.clone(),
            memory: Arc::new(Remembered {
                reader: self.reader.clone(),
                policy: order.policy.clone(),
                plugin: order.plugin.clone(),
            }),
            io: tokio::runtime::Handle::current(),
            effects: self.effects.clone(),
            limits: bounds.gate(),
            mode: match order.mode {
                RunMode::Live => GateMode::Live,
                RunMode::Dry => GateMode::Dry,
                RunMode::Apply => GateMode::Apply(order.effects.clone()),
            },
            guard: Arc::new(RunSwitch {
                switch: self.switch.clone(),
                policy: order.policy.clone(),
                target: order.target.clone(),
                thing: order.thing.clone(),
                metrics: self.metrics.clone(),
                step: order.rung.step,
            }),
            halt,
            evidence: order.evidence.map(|lines| EvidencePlan {
                lines,
                target: order.target.clone(),
            }),
            record,
            on_interrupt: order.on_interrupt,
        });
        let input = match self.input(&order) {
            Ok(input) => input,
            Err(message) => {
                return RunResult::Failed {
                    class: FailureClass::Retryable,
                    message,
                };
            }
        };
        let limits = RunLimits {
            timeout: order.timeout,
            ..bounds.run()
        };
        let (digest, drained) = (plugin.digest, self.drains.of(plugin.digest));
        let report = tokio::select! {
            biased;
            report = self.sandbox.run(plugin, input, gate.clone(), limits) => Some(report),
            () = drained.cancelled() => None,
        };
        // A run that was cut off may leave an effect under way.
        gate.settled().await;
        if report.as_ref().is_some_and(|report| report.result.is_ok()) {
            recorder.remembered(&order.plugin, gate.remembered());
        }
        // What the run did is on the disk before its end is.
        let mut wait = Duration::from_millis(50);
        while recorder.flush().await.is_err() && !self.journal.is_closed() {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(5));
        }
        let Some(report) = report else {
            return cut_off_by_drain();
        };
        self.judge(&digest, report.result.as_ref().err());
        tracing::debug!(
            %run, cpu = ?report.cpu, wall = ?report.wall, peak_memory = report.peak_memory,
            calls = report.calls, "run measured"
        );
        RunResult::from(&report)
    }
}

impl Executor {
    /// Checks the params of a run, as far as its templates filled them in: the rest was checked
    /// when the policy was loaded. Of what tells a person, those that fit are left.
    async fn check_params(&self, order: &mut Order, plugin: &Arc<Plugin>) -> Result<(), RunResult> {
        let run = order.run;
        let checked = if order.rung.step == 0 {
            // Not on the guests' threads, which give way to everything: a person waits.
            let (version, asked) = (plugin.clone(), order.params.clone());
            let fitting = tokio::task::spawn_blocking(move || version.fitting_params(&asked));
            let fitting = fitting.await.map_err(|error| RunFailure::Internal {
                message: error.to_string(),
            });
            fitting.map(|(params, wrong)| {
                if params.len() < order.params.len() {
                    tracing::warn!(incident = %run.incident, %run, plugin = %order.plugin, "params of `escalate` that do not fit the alert are left out");
                }
                order.params = params;
                wrong
            })
        } else {
            let params = serde_json::Value::Object(order.params.clone());
            self.sandbox.check_params(plugin, &params).await
        };
        let wrong = checked.map_err(|failure| {
            self.judge(&plugin.digest, Some(&failure));
            RunResult::Failed {
                class: failure.class().unwrap_or(FailureClass::Permanent),
                message: failure.to_string(),
            }
        })?;
        match wrong.first() {
            Some(wrong) => Err(RunResult::Failed {
                class: FailureClass::Permanent,
                message: format!("params{}: {}", wrong.path, wrong.message),
            }),
            None => Ok(()),
        }
    }

    /// Counts how a run of this version ended, while the version is watched.
    fn judge(&self, digest: &Digest, failure: Option<&RunFailure>) {
        let fault = failure
            .filter(|failure| failure.is_fault())
            .map(ToString::to_string);
        if let Some(failed) = self.probation.ended(digest, fault.as_deref())
            && self.requests.send(Request::Failed(failed)).is_err()
        {
            tracing::debug!("the daemon is stopping: no version is rolled back");
        }
    }

    /// What a run is told. One that tells a person is told what happened so far.
    fn input(&self, order: &Order) -> Result<IncidentInput, String> {
        let mut alert = (*order.alert).clone();
        let briefing = if order.rung.step == 0 {
            let events = self.reader.events(order.run.incident);
            let events = events.map_err(|error| error.to_string())?;
            timeline::briefing(&events, order.run).map_err(|error| error.to_string())?
        } else {
            None
        };
        timeline::annotate(&mut alert, briefing);
        Ok(IncidentInput {
            incident: order.run.incident,
            run: order.run,
            policy: order.policy.clone(),
            target: order.target.clone(),
            alert,
            step: order.rung.step,
            attempt: order.rung.attempt,
            params: order.params.clone(),
        })
    }
}

/// The end of a run that another version of its plugin did not wait for any longer.
fn cut_off_by_drain() -> RunResult {
    RunResult::Failed {
        class: FailureClass::Retryable,
        message: "another version of the plugin took the place of the one that ran, which was not done within the time that plugins.drain gives".to_owned(),
    }
}

/// What a plugin remembers under a policy, from the journal.
struct Remembered {
    reader: Arc<Reader>,
    policy: PolicyName,
    plugin: PluginName,
}

#[async_trait]
impl MemoryDriver for Remembered {
    async fn load(&self) -> Result<BTreeMap<String, Vec<u8>>, CapabilityError> {
        self.reader
            .memory(&self.policy, &self.plugin)
            .map_err(|error| CapabilityError::Unavailable(error.to_string()))
    }
}
