//! Asks every service again and again, and tells what changed.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep};

use crate::report::{Mark, Moment, Place};
use crate::world::{IncidentEvent, PATIENCE, World};

/// The time between two questions to the service itself, whose times are the ones that matter most.
const OFTEN: Duration = Duration::from_millis(10);
/// How long to wait for an answer of a service that is down: what is asked while its port is open and its
/// process is not yet there is never answered, and asking again tells more than waiting.
const IMPATIENCE: Duration = Duration::from_millis(50);
/// The time between two questions to everything else.
const SOON: Duration = Duration::from_millis(20);

/// The moment from which everything is counted, by both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Zero {
    instant: Instant,
    wall: Timestamp,
}

impl Zero {
    pub(crate) fn now() -> Self {
        Self {
            instant: Instant::now(),
            wall: Timestamp::now(),
        }
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.instant.elapsed()
    }

    /// How long after it a time of another process's clock is; none when it was before.
    fn until(self, at: Timestamp) -> Option<Duration> {
        Duration::try_from(at.duration_since(self.wall)).ok()
    }
}

/// How sentinel was before the failure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Before {
    /// The newest incident; 0 when there was none.
    pub(crate) incident: u64,
    /// How many resolved alerts it had accepted.
    pub(crate) resolved: u64,
}

/// Tells what changes until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    pub(crate) world: &'a World,
    pub(crate) zero: Zero,
    pub(crate) before: Before,
    pub(crate) tell: UnboundedSender<Moment>,
}

impl Watch<'_> {
    /// Watches all of them.
    pub(crate) async fn all(&self) {
        tokio::join!(
            self.nginx(),
            self.prometheus(),
            self.alertmanager(),
            self.incidents(),
            self.deliveries()
        );
    }

    fn say(&self, after: Duration, place: Place, mark: Mark, text: impl Into<String>) {
        // Nobody listens any more: the drill is over, and this future about to be dropped.
        let _closed = self.tell.send(Moment {
            after,
            place,
            mark,
            text: text.into(),
        });
    }

    async fn nginx(&self) -> Infallible {
        let mut answered = true;
        loop {
            let asked = self.zero.elapsed();
            let patience = if answered { PATIENCE } else { IMPATIENCE };
            let answers = self.world.nginx_answers(patience).await;
            if answered && !answers {
                self.say(asked, Place::Nginx, Mark::Down, "is down");
            } else if !answered && answers {
                self.say(
                    self.zero.elapsed(),
                    Place::Nginx,
                    Mark::Serving,
                    "is answering again",
                );
            }
            answered = answers;
            sleep(OFTEN).await;
        }
    }

    async fn prometheus(&self) -> Infallible {
        // By name, whether it fires.
        let mut known: BTreeMap<String, bool> = BTreeMap::new();
        loop {
            if let Ok(alerts) = self.world.prometheus_alerts().await {
                let now = self.zero.elapsed();
                for alert in &alerts {
                    if known.get(&alert.name) == Some(&alert.firing) {
                        continue;
                    }
                    let (mark, what) = if alert.firing {
                        (Mark::Firing, "is firing")
                    } else {
                        (Mark::Note, "is pending")
                    };
                    self.say(
                        now,
                        Place::Prometheus,
                        mark,
                        format!("{} {what}", alert.name),
                    );
                    known.insert(alert.name.clone(), alert.firing);
                }
                known.retain(|name, _| {
                    let kept = alerts.iter().any(|alert| alert.name == *name);
                    if !kept {
                        self.say(
                            now,
                            Place::Prometheus,
                            Mark::Quiet,
                            format!("{name} is no longer firing"),
                        );
                    }
                    kept
                });
            }
            sleep(SOON).await;
        }
    }

    async fn alertmanager(&self) -> Infallible {
        let mut known: Vec<String> = Vec::new();
        loop {
            if let Ok(alerts) = self.world.alertmanager_alerts().await {
                let now = self.zero.elapsed();
                for name in alerts.iter().filter(|name| !known.contains(name)) {
                    self.say(
                        now,
                        Place::Alertmanager,
                        Mark::Note,
                        format!("has {name}, and notifies"),
                    );
                }
                for name in known.iter().filter(|name| !alerts.contains(name)) {
                    self.say(
                        now,
                        Place::Alertmanager,
                        Mark::Note,
                        format!("{name} has resolved"),
                    );
                }
                known = alerts;
            }
            sleep(SOON).await;
        }
    }

    async fn incidents(&self) -> Infallible {
        // By incident, how many of its events are told.
        let mut told: BTreeMap<u64, usize> = BTreeMap::new();
        loop {
            let incidents = self.world.incidents().await.unwrap_or_default();
            for incident in incidents.iter().rev() {
                if incident.id <= self.before.incident {
                    continue;
                }
                let Ok(events) = self.world.events(incident.id).await else {
                    continue;
                };
                let told = told.entry(incident.id).or_default();
                for event in events.iter().skip(*told) {
                    self.tell_event(incident.id, event, incident.end.as_deref());
                }
                *told = events.len();
            }
            sleep(SOON).await;
        }
    }

    async fn deliveries(&self) -> Infallible {
        let mut told = false;
        loop {
            // An incident that is over hears of nothing more; the counter tells that the delivery came.
            let resolved = self.world.resolved_accepted().await.unwrap_or_default();
            if !told && resolved > self.before.resolved {
                told = true;
                self.say(
                    self.zero.elapsed(),
                    Place::Sentinel,
                    Mark::ToldResolved,
                    "accepted that the alert has resolved: there is nothing to do",
                );
            }
            sleep(SOON).await;
        }
    }

    fn tell_event(&self, incident: u64, event: &IncidentEvent, end: Option<&str>) {
        let Some(after) = self.zero.until(event.at) else {
            return;
        };
        let mark = match event.kind.as_str() {
            "guard-held" => Mark::Held,
            "effect-began" => Mark::EffectBegan,
            "effect-ended" => Mark::EffectEnded,
            "ended" => Mark::Ended {
                healed: end.map_or_else(|| event.text.starts_with("healed"), |end| end == "healed"),
            },
            _ => Mark::Note,
        };
        if event.kind == "opened" {
            let accepted = event.accepted_at.and_then(|at| self.zero.until(at));
            self.say(
                accepted.unwrap_or(after),
                Place::Sentinel,
                Mark::Accepted,
                "accepted the alert: it is on disk",
            );
            self.say(
                after,
                Place::Sentinel,
                mark,
                format!("incident {incident} opened: {}", event.text),
            );
            return;
        }
        let text = if event.text.is_empty() {
            &event.kind
        } else {
            &event.text
        };
        self.say(after, Place::Sentinel, mark, text);
    }
}
