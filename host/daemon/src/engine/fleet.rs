//! Looks at a fleet, for the blast radius.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use sentinel_core::capability::{
    CapabilityError, ContainerHealth, ContainerState, ContainerSummary, DockerCall, Response,
};
use sentinel_core::engine::{Input, Member};
use sentinel_core::guard::settings::Fleet;
use sentinel_sandbox::driver::DockerDriver;
use tokio_util::task::TaskTracker;

use super::EngineHandle;

/// How long a look may take.
const LOOK: Duration = Duration::from_secs(5);

/// How many members are looked at at once.
const AT_ONCE: usize = 8;

/// Looks; the answer comes back to the engine as an input.
pub(super) fn look(
    fleet: Fleet,
    docker: Arc<dyn DockerDriver>,
    engine: EngineHandle,
    tasks: &TaskTracker,
) {
    tasks.spawn(async move {
        let members = tokio::time::timeout(LOOK, members(&fleet, docker))
            .await
            .unwrap_or_else(|_| Err(CapabilityError::TimedOut(format!("no answer in {LOOK:?}"))))
            .map_err(|error| error.to_string());
        engine.input(Input::Fleet { fleet, members });
    });
}

async fn members(
    fleet: &Fleet,
    docker: Arc<dyn DockerDriver>,
) -> Result<Vec<Member>, CapabilityError> {
    let call = DockerCall::List {
        all: true,
        labels: fleet.labels.clone(),
    };
    let rows = match docker.call(&fleet.host, &call, LOOK).await? {
        Response::Containers(rows) => rows,
        other => {
            return Err(CapabilityError::Failed(format!(
                "docker.list answered {other:?}"
            )));
        }
    };
    let looks = rows.into_iter().map(|row| {
        let (docker, host) = (docker.clone(), fleet.host.clone());
        async move {
            Member {
                well: well(&row, &host, docker.as_ref()).await,
                name: row.name,
            }
        }
    });
    Ok(futures_util::stream::iter(looks)
        .buffered(AT_ONCE)
        .collect()
        .await)
}

/// Whether it runs, and its health check does not say that it is ill.
async fn well(row: &ContainerSummary, host: &str, docker: &dyn DockerDriver) -> bool {
    if row.state != ContainerState::Running {
        return false;
    }
    let call = DockerCall::Inspect {
        container: row.id.clone(),
    };
    match docker.call(host, &call, LOOK).await {
        Ok(Response::Container(details)) => {
            details.state == ContainerState::Running && details.health != ContainerHealth::Unhealthy
        }
        // Gone, or not to be looked at: that is not well.
        _ => false,
    }
}
