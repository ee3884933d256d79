//! Looks whether what a policy's `verify` asks for holds, and goes on holding.
//!
//! A look says yes, no, not yet, or that it could not be made. Only a yes that holds for
//! `steady`, over which the container was not started anew, is a success; what breaks it is
//! a no. A health check that has not decided is waited for as long as the container's own
//! settings let it take.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sentinel_core::capability::{
    CapabilityError, ContainerDetails, ContainerHealth, ContainerState,
};
use sentinel_core::duration::HumanDuration;
use sentinel_core::engine::{Finding, Input, Untouched, VerifyOrder};
use sentinel_core::id::Target;
use sentinel_core::incident::{VerifyCheck, later};
use sentinel_drivers::probe::HttpProbe;
use sentinel_sandbox::driver::{DockerDriver, Vitals};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::EngineHandle;
use crate::clock::Clock;

/// How long one look may take.
const LOOK: Duration = Duration::from_secs(5);

/// For how long a health check is waited for that says itself that it needs longer.
const PATIENCE: Duration = Duration::from_hours(1);

/// The shortest time between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// What verifications need, whichever they are.
#[derive(Clone)]
pub(crate) struct Verifier {
    pub(crate) docker: Arc<dyn DockerDriver>,
    pub(crate) probe: HttpProbe,
    pub(crate) engine: EngineHandle,
    pub(crate) clock: Arc<Clock>,
    pub(crate) tasks: TaskTracker,
}

/// What one look says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Yes(String),
    No(String),
    /// Not decided, and when it will have been.
    NotYet(String, Timestamp),
    /// The look could not be made.
    Nothing(String),
}

/// One life of a container: from one start to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Life {
    id: String,
    started_at: Option<Timestamp>,
    restarts: u32,
}

impl Life {
    fn of(details: &ContainerDetails) -> Self {
        Self {
            id: details.id.clone(),
            started_at: details.started_at,
            restarts: details.restart_count,
        }
    }
}

impl Verifier {
    /// Looks until it has held for long enough, or can no longer do so in time; the answer
    /// comes back to the engine as an input.
    pub(super) fn start(&self, order: VerifyOrder, cancelled: CancellationToken) {
        let verifier = self.clone();
        self.tasks.spawn(async move {
            let watch = Box::pin(verifier.until_it_holds(&order));
            if let Some(finding) = cancelled.run_until_cancelled(watch).await {
                verifier.engine.input(Input::Verified {
                    incident: order.incident,
                    deadline: order.deadline,
                    finding,
                });
            }
        });
    }

    async fn until_it_holds(&self, order: &VerifyOrder) -> Finding {
        let mut watch = Watch::new(order);
        loop {
            let (seen, life) = self.look(&order.check, &order.target).await;
            let now = self.clock.now();
            match watch.take(seen, life, now) {
                Next::Over(finding) => return finding,
                Next::LookAgain(wait) => tokio::time::sleep(wait.max(PAUSE)).await,
            }
        }
    }

    async fn look(&self, check: &VerifyCheck, target: &Target) -> (Seen, Option<Life>) {
        match check {
            VerifyCheck::Http { url, foreign } => {
                let seen = match self.probe.get(url, *foreign, LOOK).await {
                    Ok(answer) if answer.passed() => {
                        Seen::Yes(format!("{url} answered {}", answer.status))
                    }
                    Ok(answer) => Seen::No(format!("{url} answered {}", answer.status)),
                    Err(error) if error.is_unknown() => Seen::Nothing(format!("{url}: {error}")),
                    Err(error) => Seen::No(format!("{url}: {error}")),
                };
                let Some(vitals) = self.container(target).await else {
                    return (seen, None);
                };
                let details = &vitals.details;
                let well = details.state == ContainerState::Running
                    && details.health != ContainerHealth::Unhealthy;
                let seen = match seen {
                    // It is not needed to know that this is ill.
                    Seen::Nothing(reason) if !well => {
                        Seen::No(format!("{}; {reason}", described(target, details)))
                    }
                    seen => seen,
                };
                (seen, Some(Life::of(details)))
            }
            VerifyCheck::DockerHealthy | VerifyCheck::DockerRunning => {
                match self.docker.vitals(target.host(), target.name(), LOOK).await {
                    Ok(vitals) => {
                        let healthy = *check == VerifyCheck::DockerHealthy;
                        let life = Life::of(&vitals.details);
                        (judge(target, &vitals, healthy), Some(life))
                    }
                    Err(error @ CapabilityError::NotFound(_)) => {
                        (Seen::No(format!("{target}: {error}")), None)
                    }
                    Err(error) => (Seen::Nothing(format!("{target}: {error}")), None),
                }
            }
            // The alert has said so itself; whether its container goes on running is looked
            // at beside that, as far as there is one.
            VerifyCheck::AlertResolved => {
                let resolved = Seen::Yes("the alert resolved".to_owned());
                match self.container(target).await {
                    Some(Vitals { details, .. }) if details.state == ContainerState::Restarting => {
                        let seen =
                            format!("the alert resolved, and {}", described(target, &details));
                        (Seen::No(seen), Some(Life::of(&details)))
                    }
                    Some(Vitals { details, .. }) => (resolved, Some(Life::of(&details))),
                    None => (resolved, None),
                }
            }
        }
    }

    /// The target's container, where it is one and Docker knows it.
    async fn container(&self, target: &Target) -> Option<Vitals> {
        if target.kind() != "docker" {
            return None;
        }
        let vitals = self.docker.vitals(target.host(), target.name(), LOOK);
        vitals.await.ok()
    }
}

fn judge(target: &Target, vitals: &Vitals, healthy: bool) -> Seen {
    let details = &vitals.details;
    let seen = described(target, details);
    if details.state != ContainerState::Running {
        return Seen::No(seen);
    }
    match details.health {
        _ if !healthy => Seen::Yes(seen),
        ContainerHealth::Healthy => Seen::Yes(seen),
        ContainerHealth::Unhealthy => Seen::No(seen),
        ContainerHealth::None => Seen::Nothing(format!(
            "{seen}: it has no health check that could say `healthy`; verify by \
             `docker: running` or http"
        )),
        ContainerHealth::Starting => {
            let patience = vitals.decides_within.unwrap_or_default().min(PATIENCE);
            match details.started_at {
                Some(started) => Seen::NotYet(seen, later(started, patience)),
                None => Seen::No(seen),
            }
        }
    }
}

fn described(target: &Target, details: &ContainerDetails) -> String {
    let state = format!("{:?}", details.state).to_lowercase();
    let health = format!("{:?}", details.health).to_lowercase();
    let end = match details.state {
        ContainerState::Exited | ContainerState::Restarting => {
            let memory = if details.oom_killed {
                ", out of memory"
            } else {
                ""
            };
            format!(" (exit code {}{memory})", details.exit_code)
        }
        _ => String::new(),
    };
    format!("{target} is {state}{end}, health {health}")
}

/// What follows on a look.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Over(Finding),
    LookAgain(Duration),
}

/// What the looks of one verification came to so far.
struct Watch<'a> {
    order: &'a VerifyOrder,
    looks: u32,
    /// Since when it holds, and the life of the container over which it does.
    holds: Option<(Timestamp, Option<Life>)>,
    /// How often it was seen to hold, and then not to.
    broken: u32,
    /// The life of the container in which it was first not decided. What is started again
    /// and again would else never be.
    #[expect(
        clippy::option_option,
        reason = "never undecided so far, or without a container"
    )]
    undecided: Option<Option<Life>>,
}

impl<'a> Watch<'a> {
    fn new(order: &'a VerifyOrder) -> Self {
        Self {
            order,
            looks: 0,
            holds: None,
            broken: 0,
            undecided: None,
        }
    }

    /// Takes in what a look said that ended at `now`.
    fn take(&mut self, seen: Seen, life: Option<Life>, now: Timestamp) -> Next {
        self.looks += 1;
        let (detail, until) = match seen {
            Seen::Yes(detail) => return self.yes(&detail, life, now),
            Seen::No(detail) => (detail, self.order.deadline),
            Seen::NotYet(detail, until) => {
                if *self.undecided.get_or_insert_with(|| life.clone()) == life {
                    (detail, until.max(self.order.deadline))
                } else {
                    let detail = format!("{detail}; it was started anew meanwhile");
                    (detail, self.order.deadline)
                }
            }
            Seen::Nothing(detail) => {
                // It ends nothing that was seen to hold; nor can it complete it.
                let steady = self.holds.as_ref().map(|_| self.order.steady);
                let until = later(self.order.deadline, steady.unwrap_or_default());
                return if now >= until {
                    Next::Over(Finding::Unknown(detail))
                } else {
                    self.again(now, until)
                };
            }
        };
        if self.holds.take().is_some() {
            self.broken += 1;
        }
        self.no(detail, now, until)
    }

    fn yes(&mut self, detail: &str, life: Option<Life>, now: Timestamp) -> Next {
        let order = self.order;
        let since = match &mut self.holds {
            Some((_, Some(known))) if life.as_ref().is_some_and(|life| life != known) => {
                self.broken += 1;
                let detail = format!("{detail}; it was started anew meanwhile");
                if now >= order.deadline {
                    return self.no(detail, now, order.deadline);
                }
                self.holds = Some((now, life.clone()));
                now
            }
            Some((since, known)) => {
                if known.is_none() {
                    known.clone_from(&life);
                }
                *since
            }
            None => {
                self.holds = Some((now, life.clone()));
                now
            }
        };
        let steady = later(since, order.steady);
        if now < steady {
            return self.again(now, steady);
        }
        if let Some(Untouched { since: news, until }) = order.untouched {
            let started = life.and_then(|life| life.started_at);
            if started.is_none_or(|started| started < news) {
                let detail = format!(
                    "{detail}; but nothing was done, it was so before, and the alert still fires"
                );
                return self.no(detail, now, until);
            }
        }
        let times = if self.looks == 1 { "look" } else { "looks" };
        let held = if order.steady.is_zero() {
            String::new()
        } else {
            format!(", and went on so for {}", HumanDuration(order.steady))
        };
        Next::Over(Finding::Holds(format!(
            "{detail}{held} ({} {times})",
            self.looks
        )))
    }

    fn no(&self, detail: String, now: Timestamp, until: Timestamp) -> Next {
        if now < until {
            return self.again(now, until);
        }
        let times = |count: u32| if count == 1 { "time" } else { "times" };
        Next::Over(Finding::Fails(match self.broken {
            0 => detail,
            count => format!(
                "{detail}; it held {count} {}, and never for long enough",
                times(count)
            ),
        }))
    }

    /// As soon as the policy says, and at the latest when it is decided.
    fn again(&self, now: Timestamp, until: Timestamp) -> Next {
        let left = until.duration_since(now).max(SignedDuration::ZERO);
        let left = Duration::try_from(left).unwrap_or_default();
        Next::LookAgain(self.order.every.min(left))
    }
}

#[cfg(test)]
mod tests {
    use sentinel_core::id::IncidentId;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000 + second).unwrap()
    }

    /// Within 30 s, for 10 s.
    fn order(untouched: Option<Untouched>) -> VerifyOrder {
        VerifyOrder {
            incident: IncidentId(1),
            target: "docker://local/web".parse().unwrap(),
            check: VerifyCheck::DockerRunning,
            every: Duration::from_millis(500),
            deadline: at(30),
            steady: Duration::from_secs(10),
            untouched,
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "as a look finds it")]
    fn life(started: i64) -> Option<Life> {
        Some(Life {
            id: "c".to_owned(),
            started_at: Some(at(started)),
            restarts: 0,
        })
    }

    fn yes() -> Seen {
        Seen::Yes("runs".to_owned())
    }

    fn no() -> Seen {
        Seen::No("is down".to_owned())
    }

    /// What the looks at these seconds come to, and when.
    fn watched(
        order: &VerifyOrder,
        looks: Vec<(i64, Seen, Option<Life>)>,
    ) -> Option<(i64, Finding)> {
        let mut watch = Watch::new(order);
        looks.into_iter().find_map(|(second, seen, life)| {
            match watch.take(seen, life, at(second)) {
                Next::Over(finding) => Some((second, finding)),
                Next::LookAgain(wait) => {
                    assert!(wait <= order.every, "{wait:?}");
                    None
                }
            }
        })
    }

    fn every_second(
        order: &VerifyOrder,
        look: impl Fn(i64) -> (Seen, Option<Life>),
    ) -> (i64, Finding) {
        let looks = (0..100_000).map(|second| {
            let (seen, life) = look(second);
            (second, seen, life)
        });
        watched(order, looks.collect()).unwrap()
    }

    #[test]
    fn what_holds_for_long_enough_is_verified() {
        let (second, finding) = every_second(&order(None), |_| (yes(), life(-1)));
        assert_eq!(second, 10);
        let detail = "runs, and went on so for 10s (11 looks)".to_owned();
        assert_eq!(finding, Finding::Holds(detail));
        // It may begin as late as the deadline.
        let late = |second| (if second < 30 { no() } else { yes() }, life(-1));
        assert_eq!(every_second(&order(None), late).0, 40);
        let once = VerifyOrder {
            steady: Duration::ZERO,
            ..order(None)
        };
        assert_eq!(every_second(&once, |_| (yes(), None)).0, 0);
    }

    #[test]
    fn a_crash_loop_is_never_verified() {
        // Up for two seconds of three, as each look says, and a new life each time.
        let looping = |second: i64| {
            let seen = if second % 3 == 2 { no() } else { yes() };
            (seen, life(second / 3 * 3))
        };
        let (second, finding) = every_second(&order(None), looping);
        assert_eq!(second, 32);
        let detail = "is down; it held 11 times, and never for long enough";
        assert_eq!(finding, Finding::Fails(detail.to_owned()));
        // Never seen down, only started anew.
        let (second, finding) = every_second(&order(None), |second| (yes(), life(second / 7 * 7)));
        assert_eq!(second, 35);
        assert!(matches!(finding, Finding::Fails(_)), "{finding:?}");
        // Docker counts the starts, even where it does not tell of their time.
        let counted = |second: i64| {
            let life = life(0).map(|life| Life {
                restarts: u32::try_from(second / 7).unwrap(),
                ..life
            });
            (yes(), life)
        };
        assert_eq!(every_second(&order(None), counted).0, 35);
        // Up once, and then down for good.
        let (second, finding) = every_second(&order(None), |second| {
            (if second < 2 { yes() } else { no() }, life(-1))
        });
        assert_eq!(second, 30);
        assert!(matches!(finding, Finding::Fails(_)), "{finding:?}");
    }

    #[test]
    fn what_is_not_decided_is_waited_for_and_not_for_ever() {
        let not_yet = |started| Seen::NotYet("health starting".to_owned(), at(started + 240));
        let slow = |second| {
            let seen = if second < 200 { not_yet(-1) } else { yes() };
            (seen, life(-1))
        };
        let (second, finding) = every_second(&order(None), slow);
        assert_eq!(second, 210);
        assert!(matches!(finding, Finding::Holds(_)), "{finding:?}");
        let (second, _) = every_second(&order(None), |_| (not_yet(-1), life(-1)));
        assert_eq!(second, 239);
        let looping = |second: i64| (not_yet(second), life(second / 5 * 5));
        let (second, finding) = every_second(&order(None), looping);
        assert_eq!(second, 30);
        assert!(matches!(finding, Finding::Fails(_)), "{finding:?}");
    }

    #[test]
    fn looks_that_cannot_be_made_are_no_answer() {
        let nothing = || Seen::Nothing("no address".to_owned());
        let (second, finding) = every_second(&order(None), |_| (nothing(), life(-1)));
        assert_eq!(second, 30);
        assert_eq!(finding, Finding::Unknown("no address".to_owned()));
        // One of them ends nothing.
        let (second, finding) = every_second(&order(None), |second| {
            (if second == 3 { nothing() } else { yes() }, life(-1))
        });
        assert_eq!(second, 10);
        assert!(matches!(finding, Finding::Holds(_)), "{finding:?}");
        // And completes nothing.
        let (second, finding) = every_second(&order(None), |second| {
            (if second == 25 { yes() } else { nothing() }, life(-1))
        });
        assert_eq!(second, 40);
        assert!(matches!(finding, Finding::Unknown(_)), "{finding:?}");
    }

    #[test]
    fn what_was_so_before_is_no_success_where_nothing_was_done() {
        let untouched = Untouched {
            since: at(-100),
            until: at(300),
        };
        let order = order(Some(untouched));
        let (second, finding) = every_second(&order, |_| (yes(), life(-500)));
        assert_eq!(second, 300);
        let Finding::Fails(detail) = finding else {
            panic!("{finding:?}");
        };
        assert!(detail.contains("nothing was done"), "{detail}");
        assert_eq!(every_second(&order, |_| (yes(), None)).0, 300);
        // Somebody else has started it since the alert began.
        let (second, finding) = every_second(&order, |_| (yes(), life(-50)));
        assert_eq!(second, 10);
        assert!(matches!(finding, Finding::Holds(_)), "{finding:?}");
    }
}
