//! Runs plugins for the engine.

use std::sync::Arc;
use std::time::Duration;

use sentinel_core::alert::Alert;
use sentinel_core::event::{FailureClass, RunResult};
use sentinel_core::grant::Grants;
use sentinel_core::id::{PolicyName, RunId, Target};
use sentinel_core::incident::{Incident, PlannedStep};
use sentinel_journal::Journal;
use sentinel_sandbox::driver::{AnsibleDriver, DockerDriver};
use sentinel_sandbox::gate::{GateContext, GateLimits};
use sentinel_sandbox::{Gate, IncidentInput, Plugin, RunLimits, Sandbox};
use tokio_util::task::TaskTracker;

use super::recorder::RunRecorder;
use super::{EngineHandle, Input};
use crate::telemetry::metrics::Metrics;

/// One run, ready to start.
#[derive(Debug)]
pub(crate) struct Order {
    plugin: Arc<Plugin>,
    grants: Arc<Grants>,
    timeout: Duration,
    policy: PolicyName,
    target: Target,
    alert: Alert,
    step: u32,
    attempt: u32,
    params: serde_json::Map<String, serde_json::Value>,
}

impl Order {
    pub(super) fn new(
        incident: &Incident,
        run: RunId,
        step: u32,
        attempt: u32,
        planned: &PlannedStep,
        plugin: Arc<Plugin>,
    ) -> Self {
        debug_assert_eq!(run.incident, incident.id);
        Self {
            plugin,
            grants: Arc::new(incident.plan.grants.clone()),
            timeout: planned.timeout,
            policy: incident.plan.policy.clone(),
            target: incident.target.clone(),
            alert: incident.alert.clone(),
            step,
            attempt,
            params: planned.params.clone(),
        }
    }
}

/// What runs need, whichever they are.
#[derive(Clone)]
pub(crate) struct Executor {
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) docker: Arc<dyn DockerDriver>,
    pub(crate) ansible: Arc<dyn AnsibleDriver>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) engine: EngineHandle,
    pub(crate) limits: RunLimits,
    /// Runs that are under way.
    pub(crate) runs: TaskTracker,
    /// Effects that are under way: they outlive a run that is cut off.
    pub(crate) effects: TaskTracker,
}

impl Executor {
    /// Starts a run; its end comes back to the engine as an input.
    pub(super) fn start(&self, run: RunId, order: Order) {
        let executor = self.clone();
        self.runs.spawn(async move {
            let plugin = order.plugin.name.clone();
            let work = executor.runs.spawn(executor.clone().run(run, order));
            let result = work.await.unwrap_or_else(|error| {
                tracing::error!(%run, %error, "a run ended in a panic of sentinel itself");
                RunResult::Failed {
                    class: FailureClass::Retryable,
                    message: "sentinel itself failed; its log says more".to_owned(),
                }
            });
            executor.metrics.run_ended(run, &plugin, &result);
            executor.engine.send(Input::RunEnded { run, result });
        });
    }

    async fn run(self, run: RunId, order: Order) -> RunResult {
        // Checked when the policy was loaded, but for what its templates fill in.
        let params = serde_json::Value::Object(order.params.clone());
        if let Some(wrong) = order.plugin.validate_params(&params).first() {
            return RunResult::Failed {
                class: FailureClass::Permanent,
                message: format!("params{}: {}", wrong.path, wrong.message),
            };
        }
        let recorder = Arc::new(RunRecorder::new(
            run,
            self.journal.clone(),
            self.engine.clone(),
            self.metrics.clone(),
        ));
        let gate = Gate::new(GateContext {
            run,
            grants: order.grants,
            recorder: recorder.clone(),
            docker: self.docker.clone(),
            ansible: self.ansible.clone(),
            io: tokio::runtime::Handle::current(),
            effects: self.effects.clone(),
            limits: GateLimits::default(),
        });
        let input = IncidentInput {
            incident: run.incident,
            run,
            policy: order.policy,
            target: order.target,
            alert: order.alert,
            step: order.step,
            attempt: order.attempt,
            params: order.params,
        };
        let limits = RunLimits {
            timeout: order.timeout,
            ..self.limits
        };
        let report = self
            .sandbox
            .run(order.plugin, input, gate.clone(), limits)
            .await;
        // A run that was cut off may leave an effect under way.
        gate.settled().await;
        // What the run did is on the disk before its end is.
        let mut wait = Duration::from_millis(50);
        while recorder.flush().await.is_err() && !self.journal.is_closed() {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(5));
        }
        tracing::debug!(
            %run, cpu = ?report.cpu, wall = ?report.wall, peak_memory = report.peak_memory,
            calls = report.calls, "run measured"
        );
        RunResult::from(&report)
    }
}
