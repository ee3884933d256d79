//! Looks whether what a policy's `verify` asks for holds.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sentinel_core::capability::{
    CapabilityError, ContainerDetails, ContainerHealth, ContainerState, DockerCall, Response,
};
use sentinel_core::engine::{Input, VerifyOrder};
use sentinel_core::id::Target;
use sentinel_core::incident::VerifyCheck;
use sentinel_drivers::probe::HttpProbe;
use sentinel_sandbox::driver::DockerDriver;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::EngineHandle;
use crate::clock::Clock;

/// How long one look may take.
const LOOK: Duration = Duration::from_secs(5);

/// What verifications need, whichever they are.
#[derive(Clone)]
pub(crate) struct Verifier {
    pub(crate) docker: Arc<dyn DockerDriver>,
    pub(crate) probe: HttpProbe,
    pub(crate) engine: EngineHandle,
    pub(crate) clock: Arc<Clock>,
    pub(crate) tasks: TaskTracker,
}

impl Verifier {
    /// Looks until it holds or the deadline has passed; the answer comes back to the
    /// engine as an input.
    pub(super) fn start(&self, order: VerifyOrder, cancelled: CancellationToken) {
        let verifier = self.clone();
        self.tasks.spawn(async move {
            let look =
                verifier.until_it_holds(&order.check, &order.target, order.every, order.deadline);
            if let Some(result) = cancelled.run_until_cancelled(look).await {
                verifier.engine.input(Input::Verified {
                    incident: order.incident,
                    deadline: order.deadline,
                    result,
                });
            }
        });
    }

    async fn until_it_holds(
        &self,
        check: &VerifyCheck,
        target: &Target,
        every: Duration,
        deadline: Timestamp,
    ) -> Result<String, String> {
        let mut looks = 0_u32;
        loop {
            let last = self.clock.now() >= deadline;
            looks += 1;
            let seen = self.look(check, target).await;
            match seen {
                Ok(seen) => {
                    let times = if looks == 1 { "look" } else { "looks" };
                    return Ok(format!("{seen} ({looks} {times})"));
                }
                Err(seen) if last => return Err(seen),
                Err(seen) => {
                    tracing::debug!(%target, seen, "not verified yet");
                    tokio::time::sleep(every.min(self.clock.until(deadline))).await;
                }
            }
        }
    }

    async fn look(&self, check: &VerifyCheck, target: &Target) -> Result<String, String> {
        match check {
            VerifyCheck::Http { url } => match self.probe.get(url, LOOK).await {
                Ok(answer) if answer.passed() => Ok(format!("{url} answered {}", answer.status)),
                Ok(answer) => Err(format!("{url} answered {}", answer.status)),
                Err(error) => Err(format!("{url}: {error}")),
            },
            VerifyCheck::DockerHealthy | VerifyCheck::DockerRunning => {
                let details = self
                    .inspect(target)
                    .await
                    .map_err(|error| format!("{target}: {error}"))?;
                let running = details.state == ContainerState::Running;
                let healthy = details.health == ContainerHealth::Healthy;
                let seen = format!(
                    "{target} is {}, health {}",
                    format!("{:?}", details.state).to_lowercase(),
                    format!("{:?}", details.health).to_lowercase()
                );
                if running && (healthy || *check == VerifyCheck::DockerRunning) {
                    Ok(seen)
                } else {
                    Err(seen)
                }
            }
            // The engine waits for the notification itself.
            VerifyCheck::AlertResolved => Err("the alert has not resolved".to_owned()),
        }
    }

    async fn inspect(&self, target: &Target) -> Result<ContainerDetails, CapabilityError> {
        let identity = self.docker.resolve(target.host(), target.name()).await?;
        let call = DockerCall::Inspect {
            container: identity.id,
        };
        match self.docker.call(target.host(), &call, LOOK).await? {
            Response::Container(details) => Ok(*details),
            other => Err(CapabilityError::Failed(format!(
                "docker.inspect answered {other:?}"
            ))),
        }
    }
}
