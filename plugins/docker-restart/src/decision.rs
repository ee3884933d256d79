//! What to do about a container, from what Docker says of it and why the plugin runs.

use sentinel_plugin::docker::{Container, Details, Health, State};
use sentinel_plugin::{Failure, Incident};

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Nothing; the text goes on from the container's name.
    Leave(String),
    /// Start it.
    Start,
    /// Stop it, if there is something to stop, and start it.
    Restart,
    /// Look again a moment later.
    Wait,
    /// Docker has to be done with it first, or a person has.
    GiveUp(GiveUp),
}

/// Why neither start nor restart can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GiveUp {
    /// It is being removed; what follows may bring it back.
    Removing,
    /// Docker failed to remove it, and starts it no more.
    Dead,
}

impl GiveUp {
    pub(crate) fn of(self, container: &Container) -> Failure {
        match self {
            Self::Removing => Failure::retryable(format!("{container} is being removed")),
            Self::Dead => Failure::permanent(format!(
                "{container} is dead: Docker failed to remove it and starts it no more"
            )),
        }
    }
}

/// Whether there is time to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    Left,
    Spent,
}

impl Patience {
    fn wait_or(self, decision: Decision) -> Decision {
        match self {
            Self::Left => Decision::Wait,
            Self::Spent => decision,
        }
    }
}

/// Decides on what Docker says now. `first` is what it said when the run began, the same
/// when nothing was waited for.
pub(crate) fn decide(
    details: &Details,
    first: &Details,
    incident: &Incident,
    patience: Patience,
) -> Decision {
    match details.state {
        State::Created | State::Exited => Decision::Start,
        // `docker start` does not thaw a frozen process; a restart replaces it.
        State::Paused => Decision::Restart,
        // Docker's policy waits longer after each crash; a restart does not.
        State::Restarting => patience.wait_or(Decision::Restart),
        State::Removing => Decision::GiveUp(GiveUp::Removing),
        State::Dead => Decision::GiveUp(GiveUp::Dead),
        State::Running => match details.health {
            Health::Healthy => Decision::Leave("is running and healthy".to_owned()),
            Health::Unhealthy => Decision::Restart,
            // To restart what is still coming up would keep it down.
            Health::Starting => patience.wait_or(Decision::Leave(
                "is starting, and its health check has not decided yet".to_owned(),
            )),
            Health::None => without_health_check(details, first, incident),
        },
    }
}

/// Whether a container ended as one does that somebody stopped: by itself when it was asked
/// to, or by SIGTERM or SIGKILL.
pub(crate) fn ended_by_stop(details: &Details) -> bool {
    details.state == State::Exited
        && !details.oom_killed
        && matches!(details.exit_code, 0 | 137 | 143)
}

/// A container that runs and has no health check may work or not: only the alert tells, and
/// it says no. If the container was started after the alert began, the alert may speak of
/// its life before, and what is verified after this run decides. That holds for the
/// incident's first run, and for a start during this run; a later run is there because the
/// target was found broken still.
fn without_health_check(details: &Details, first: &Details, incident: &Incident) -> Decision {
    let Some(started) = &details.started_at else {
        return Decision::Restart;
    };
    if details.started_at != first.started_at {
        Decision::Leave(format!("was started at {started} by someone else"))
    } else if incident.is_first_run() && *started > incident.alert.starts_at {
        Decision::Leave(format!(
            "was started at {started}, after the alert began at {}",
            incident.alert.starts_at
        ))
    } else {
        Decision::Restart
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sentinel_plugin::{Alert, AlertStatus, Target, Timestamp};

    const ALERT_BEGAN: i64 = 1_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp {
            seconds,
            nanoseconds: 0,
        }
    }

    fn details(state: State, health: Health) -> Details {
        Details {
            id: "0".repeat(64),
            name: "nginx".to_owned(),
            image: "nginx".to_owned(),
            state,
            health,
            failing_streak: 3,
            exit_code: 137,
            oom_killed: false,
            restart_count: 0,
            started_at: Some(at(ALERT_BEGAN - 500)),
            finished_at: None,
            labels: Vec::new(),
            network_of: None,
        }
    }

    fn incident(step: u32, attempt: u32) -> Incident {
        Incident {
            id: "i".to_owned(),
            run: "r".to_owned(),
            policy: "nginx-down".to_owned(),
            target: Target {
                uri: "docker://local/nginx".to_owned(),
                kind: "docker".to_owned(),
                host: "local".to_owned(),
                name: "nginx".to_owned(),
            },
            alert: Alert {
                fingerprint: "0123456789abcdef".to_owned(),
                status: AlertStatus::Firing,
                labels: Vec::new(),
                annotations: Vec::new(),
                starts_at: at(ALERT_BEGAN),
                ends_at: None,
                generator_url: None,
            },
            step,
            attempt,
            params: "{}".to_owned(),
        }
    }

    fn first(state: State, health: Health, patience: Patience) -> Decision {
        let details = details(state, health);
        decide(&details, &details, &incident(1, 1), patience)
    }

    #[test]
    fn what_is_stopped_is_started() {
        for state in [State::Created, State::Exited] {
            for health in [Health::None, Health::Unhealthy, Health::Starting] {
                assert_eq!(first(state, health, Patience::Left), Decision::Start);
            }
        }
    }

    #[test]
    fn a_stop_is_told_from_a_crash_by_the_exit_code() {
        let ended = |exit_code, oom_killed| {
            let mut details = details(State::Exited, Health::None);
            (details.exit_code, details.oom_killed) = (exit_code, oom_killed);
            ended_by_stop(&details)
        };
        assert!([0, 137, 143].into_iter().all(|code| ended(code, false)));
        assert!(
            [1, 2, 127, 139, 255]
                .into_iter()
                .all(|code| !ended(code, false))
        );
        assert!(!ended(137, true));
        let mut created = details(State::Created, Health::None);
        created.exit_code = 0;
        assert!(
            !ended_by_stop(&created),
            "nobody has stopped what never ran"
        );
    }

    #[test]
    fn what_runs_unhealthy_is_restarted() {
        assert_eq!(
            first(State::Running, Health::Unhealthy, Patience::Left),
            Decision::Restart
        );
    }

    #[test]
    fn an_unhealthy_container_is_restarted_however_young_it_is() {
        let mut young = details(State::Running, Health::Unhealthy);
        young.started_at = Some(at(ALERT_BEGAN + 1));
        assert_eq!(
            decide(&young, &young, &incident(1, 1), Patience::Left),
            Decision::Restart
        );
    }

    #[test]
    fn what_is_healthy_is_left_alone_in_every_run() {
        for run in [incident(1, 1), incident(1, 2), incident(2, 1)] {
            let healthy = details(State::Running, Health::Healthy);
            assert_eq!(
                decide(&healthy, &healthy, &run, Patience::Left),
                Decision::Leave("is running and healthy".to_owned())
            );
        }
    }

    #[test]
    fn what_is_frozen_is_restarted_whatever_its_last_probe_said() {
        for health in [Health::None, Health::Healthy, Health::Unhealthy] {
            assert_eq!(
                first(State::Paused, health, Patience::Left),
                Decision::Restart
            );
        }
    }

    #[test]
    fn what_docker_restarts_is_given_a_while() {
        let docker_restarts = |patience| first(State::Restarting, Health::None, patience);
        assert_eq!(docker_restarts(Patience::Left), Decision::Wait);
        assert_eq!(docker_restarts(Patience::Spent), Decision::Restart);
    }

    #[test]
    fn what_is_starting_is_waited_for_and_never_restarted() {
        let starting = |patience| first(State::Running, Health::Starting, patience);
        assert_eq!(starting(Patience::Left), Decision::Wait);
        assert!(matches!(starting(Patience::Spent), Decision::Leave(_)));
    }

    #[test]
    fn what_is_going_away_cannot_be_helped() {
        let nginx = Container::new("local", "nginx");
        let failure = |state| match first(state, Health::None, Patience::Left) {
            Decision::GiveUp(why) => why.of(&nginx),
            other => panic!("{other:?}"),
        };
        assert!(matches!(failure(State::Removing), Failure::Retryable(_)));
        assert!(matches!(failure(State::Dead), Failure::Permanent(_)));
    }

    #[test]
    fn without_a_health_check_the_alert_is_believed() {
        assert_eq!(
            first(State::Running, Health::None, Patience::Left),
            Decision::Restart
        );
    }

    #[test]
    fn without_a_health_check_a_start_after_the_alert_is_enough_for_the_first_run() {
        let mut young = details(State::Running, Health::None);
        young.started_at = Some(at(ALERT_BEGAN + 1));
        assert_eq!(
            decide(&young, &young, &incident(1, 1), Patience::Left),
            Decision::Leave(
                "was started at 1970-01-01T00:16:41Z, after the alert began at 1970-01-01T00:16:40Z"
                    .to_owned()
            )
        );
        for later in [incident(1, 2), incident(2, 1)] {
            assert_eq!(
                decide(&young, &young, &later, Patience::Left),
                Decision::Restart
            );
        }
    }

    #[test]
    fn what_docker_started_during_the_run_is_left_alone_in_every_run() {
        let before = details(State::Restarting, Health::None);
        let mut now = details(State::Running, Health::None);
        now.started_at = Some(at(ALERT_BEGAN + 60));
        for run in [incident(1, 1), incident(1, 2), incident(2, 1)] {
            assert_eq!(
                decide(&now, &before, &run, Patience::Left),
                Decision::Leave("was started at 1970-01-01T00:17:40Z by someone else".to_owned())
            );
        }
    }
}
