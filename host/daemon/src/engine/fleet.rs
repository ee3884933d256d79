//! Looks at a fleet, for the blast radius.

use std::sync::Arc;
use std::time::Duration;

use sentinel_core::capability::{
    CapabilityError, ContainerState, ContainerSummary, DockerCall, Response,
};
use sentinel_core::engine::{Input, Member};
use sentinel_core::guard::settings::Fleet;
use sentinel_sandbox::driver::DockerDriver;
use tokio_util::task::TaskTracker;

use super::EngineHandle;

/// How long a look may take.
const LOOK: Duration = Duration::from_secs(5);

/// Looks; the answer comes back to the engine as an input.
pub(super) fn look(
    fleet: Fleet,
    docker: Arc<dyn DockerDriver>,
    engine: EngineHandle,
    tasks: &TaskTracker,
) {
    tasks.spawn(async move {
        let call = DockerCall::List {
            all: true,
            labels: fleet.labels.clone(),
        };
        let members = tokio::time::timeout(LOOK, docker.call(&fleet.host, &call, LOOK))
            .await
            .unwrap_or_else(|_| Err(CapabilityError::TimedOut("no answer".to_owned())));
        let members = match members {
            Ok(Response::Containers(rows)) => Ok(rows.into_iter().map(member).collect()),
            Ok(other) => Err(format!("docker.list answered {other:?}")),
            Err(error) => Err(error.to_string()),
        };
        engine.input(Input::Fleet { fleet, members });
    });
}

fn member(row: ContainerSummary) -> Member {
    Member {
        well: row.state == ContainerState::Running,
        name: row.name,
    }
}
