//! What Docker tells about containers, in the contract's words.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{
    ContainerInspectResponse, ContainerState as DockerState, ContainerStateStatusEnum as Status,
    ContainerSummary as DockerSummary, ContainerSummaryStateEnum as SummaryState,
    HealthStatusEnum as DockerHealth,
};
use jiff::Timestamp;
use sentinel_core::alert::Labels;
use sentinel_core::capability::{
    ContainerDetails, ContainerHealth, ContainerState, ContainerSummary,
};
use sentinel_sandbox::driver::ContainerIdentity;

use super::{duplicate, recreate};

/// Docker's own defaults of a health check: the time between two probes and that for each,
/// and how many have to fail.
const PROBE: Duration = Duration::from_secs(30);
const PROBES: u32 = 3;

/// How long Docker gives a container to stop that does not say.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Who the container is; none when Docker left its id or its name out. One that a
/// recreate moved aside, and was cut off, is called by its own name all the same.
pub(super) fn identity(found: &ContainerInspectResponse) -> Option<ContainerIdentity> {
    let id = found.id.as_deref()?;
    let labels = found
        .config
        .as_ref()
        .and_then(|config| config.labels.clone());
    Some(ContainerIdentity {
        name: recreate::own_name(id, bare(found.name.as_deref()?)).to_owned(),
        id: id.to_owned(),
        labels: sorted(labels),
    })
}

/// A row of `list`; none when Docker left its id or its state out.
pub(super) fn summary(row: DockerSummary) -> Option<ContainerSummary> {
    let state = match row.state? {
        SummaryState::EMPTY => return None,
        SummaryState::CREATED => ContainerState::Created,
        SummaryState::RUNNING | SummaryState::STOPPING => ContainerState::Running,
        SummaryState::PAUSED => ContainerState::Paused,
        SummaryState::RESTARTING => ContainerState::Restarting,
        SummaryState::EXITED => ContainerState::Exited,
        SummaryState::REMOVING => ContainerState::Removing,
        SummaryState::DEAD => ContainerState::Dead,
    };
    // A linked container is listed under the names that others call it, too, as in
    // `/other/alias`.
    let name = row
        .names?
        .into_iter()
        .map(|name| bare(&name).to_owned())
        .find(|name| !name.contains('/'))?;
    Some(ContainerSummary {
        id: row.id?,
        name,
        image: row.image.unwrap_or_default(),
        state,
        labels: sorted(row.labels),
        network_of: network_of(row.host_config.and_then(|host| host.network_mode)),
    })
}

/// What `inspect` tells; none when Docker left its id, name or state out.
pub(super) fn details(found: ContainerInspectResponse) -> Option<ContainerDetails> {
    let state = found.state?;
    let config = found.config.unwrap_or_default();
    let health = state.health.as_ref();
    Some(ContainerDetails {
        id: found.id?,
        name: bare(&found.name?).to_owned(),
        image: config.image.or(found.image).unwrap_or_default(),
        state: main_process(&state)?,
        health: match health.and_then(|health| health.status) {
            None | Some(DockerHealth::EMPTY | DockerHealth::NONE) => ContainerHealth::None,
            Some(DockerHealth::STARTING) => ContainerHealth::Starting,
            Some(DockerHealth::HEALTHY) => ContainerHealth::Healthy,
            Some(DockerHealth::UNHEALTHY) => ContainerHealth::Unhealthy,
        },
        failing_streak: health.map_or(0, |health| count(health.failing_streak)),
        exit_code: state.exit_code.unwrap_or_default(),
        oom_killed: state.oom_killed.unwrap_or_default(),
        restart_count: count(found.restart_count),
        started_at: moment(state.started_at.as_deref()),
        finished_at: moment(state.finished_at.as_deref()),
        labels: sorted(config.labels),
        network_of: network_of(found.host_config.and_then(|host| host.network_mode)),
    })
}

/// How long after its start a container's health check may take until it has decided: it
/// begins after an interval, nothing counts against it in the start period, and so many
/// probes have to fail in a row. What is not set is Docker's default.
pub(super) fn health_decides_within(found: &ContainerInspectResponse) -> Option<Duration> {
    let check = found.config.as_ref()?.healthcheck.as_ref()?;
    let span = |nanoseconds: Option<i64>, default: Duration| {
        let set = nanoseconds.and_then(|n| u64::try_from(n).ok());
        set.filter(|n| *n > 0).map_or(default, Duration::from_nanos)
    };
    let probe = span(check.interval, PROBE).saturating_add(span(check.timeout, PROBE));
    let retries = check.retries.and_then(|n| u32::try_from(n).ok());
    let retries = retries.filter(|n| *n > 0).unwrap_or(PROBES);
    let period = span(check.start_period, Duration::ZERO);
    // One probe more: the start period may end in the middle of one.
    Some(period.saturating_add(probe.saturating_mul(retries.saturating_add(1))))
}

/// How long a container asks to be given to stop; Docker's default where it does not say.
pub(super) fn own_grace(found: &ContainerInspectResponse) -> Duration {
    let asked = found.config.as_ref().and_then(|config| config.stop_timeout);
    match asked {
        // As long as it takes.
        Some(seconds) if seconds < 0 => Duration::MAX,
        Some(seconds) => Duration::from_secs(seconds.unsigned_abs()),
        None => STOP_TIMEOUT,
    }
}

/// The state of the main process; `running` counts as running while Docker stops it.
pub(super) fn main_process(state: &DockerState) -> Option<ContainerState> {
    Some(match state.status? {
        Status::EMPTY => return None,
        Status::CREATED => ContainerState::Created,
        Status::RUNNING | Status::STOPPING => ContainerState::Running,
        Status::PAUSED => ContainerState::Paused,
        Status::RESTARTING => ContainerState::Restarting,
        Status::REMOVING => ContainerState::Removing,
        Status::EXITED => ContainerState::Exited,
        Status::DEAD => ContainerState::Dead,
    })
}

/// Whether there is a main process.
pub(super) fn is_up(state: ContainerState) -> bool {
    matches!(
        state,
        ContainerState::Running | ContainerState::Paused | ContainerState::Restarting
    )
}

/// Docker writes names with a slash before them.
pub(super) fn bare(name: &str) -> &str {
    name.strip_prefix('/').unwrap_or(name)
}

fn sorted(labels: Option<HashMap<String, String>>) -> Labels {
    let mut labels: Labels = labels.unwrap_or_default().into_iter().collect();
    labels.retain(|name, _| !duplicate::is_note(name));
    labels
}

/// The container whose network this is, from the mode as in `container:ID`.
fn network_of(mode: Option<String>) -> Option<String> {
    mode?.strip_prefix("container:").map(str::to_owned)
}

fn count(number: Option<i64>) -> u32 {
    number
        .unwrap_or_default()
        .clamp(0, u32::MAX.into())
        .try_into()
        .unwrap_or_default()
}

/// Docker writes `0001-01-01T00:00:00Z` for what has not happened.
pub(super) fn moment(text: Option<&str>) -> Option<Timestamp> {
    let moment: Timestamp = text?.parse().ok()?;
    (moment > Timestamp::UNIX_EPOCH).then_some(moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zero_time_is_no_time() {
        assert_eq!(moment(Some("0001-01-01T00:00:00Z")), None);
        assert_eq!(moment(Some("")), None);
        assert_eq!(moment(None), None);
        assert_eq!(
            moment(Some("2026-11-22T10:00:00.123456789Z")),
            Some("2026-11-22T10:00:00.123456789Z".parse().unwrap())
        );
        assert_eq!(
            moment(Some("2026-11-22T12:00:00+02:00")),
            Some("2026-11-22T10:00:00Z".parse().unwrap())
        );
    }

    #[test]
    fn a_linked_container_goes_by_its_own_name() {
        let row = DockerSummary {
            id: Some("1".repeat(64)),
            names: Some(vec!["/web/db".to_owned(), "/postgres".to_owned()]),
            state: Some(SummaryState::RUNNING),
            ..DockerSummary::default()
        };
        assert_eq!(summary(row).unwrap().name, "postgres");
    }

    #[test]
    fn counts_stay_within_their_type() {
        assert_eq!(count(None), 0);
        assert_eq!(count(Some(-1)), 0);
        assert_eq!(count(Some(i64::MAX)), u32::MAX);
    }
}
