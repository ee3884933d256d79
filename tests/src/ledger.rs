//! Holds three accounts of the same time against each other: what senders were told was accepted, what the
//! journal says, and what the (fake) Docker Engine counted.
//!
//! For policies of one step with one attempt, so that an incident has at most one effect.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

use crate::fake_docker::Effect;
use crate::payload::Alert;

/// A firing alert that was answered with 2xx.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The alert.
    pub alert: Alert,
    /// The policies that it matches.
    pub policies: Vec<&'static str>,
    /// The target that it leads to.
    pub target: String,
    /// Whether its end may have been accepted too: then it may have ended before the engine
    /// came to it, and an alert that is over opens nothing.
    pub resolved: bool,
}

/// The fingerprint and the start of a firing alert.
pub type Episode = (String, Timestamp);

/// The three accounts.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// What senders were told was accepted.
    pub accepted: Vec<Accepted>,
    /// Every alert that the journal took in.
    pub journaled: BTreeSet<Episode>,
    /// Every incident with its events, as `GET /api/v1/incidents/{id}` shows it.
    pub incidents: Vec<Value>,
    /// What the Docker Engine was asked and has done.
    pub effects: Vec<Effect>,
}

/// Where the accounts differ.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// An alert was accepted and no incident of the policy knows of it, or not even the journal.
    Lost {
        /// The policy.
        policy: String,
        /// Its target.
        target: String,
    },
    /// An incident has no end.
    Unended {
        /// Its number.
        incident: u64,
        /// Where it stands.
        state: String,
    },
    /// One episode of an alert was acted on by two incidents of one policy.
    OpenedTwice {
        /// The incidents' numbers.
        incidents: Vec<u64>,
    },
    /// An effect was carried out more than once in one incident.
    Double {
        /// The incident's number.
        incident: u64,
        /// The container.
        container: String,
        /// How often it was carried out.
        times: usize,
    },
    /// The engine was asked for an effect that the journal does not have as begun before.
    NoBegin {
        /// The container.
        container: String,
        /// What was asked.
        call: &'static str,
        /// When.
        asked_at: Timestamp,
    },
    /// The journal has an effect as done that the engine never did.
    NeverDone {
        /// The incident's number.
        incident: u64,
    },
}

/// An effect as the journal has it.
struct Begin<'a> {
    at: Timestamp,
    incident: u64,
    container: &'a str,
    call: &'a str,
}

impl Ledger {
    /// Every difference between the accounts, sorted.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        let mut found = self.lost();
        found.extend(self.unended());
        found.extend(self.opened_twice());
        found.extend(self.effects());
        found.sort();
        found
    }

    /// Alerts that no incident knows of.
    fn lost(&self) -> Vec<Violation> {
        // By policy, target, fingerprint and start.
        let mut known: Vec<(String, String, String, Timestamp)> = Vec::new();
        for incident in &self.incidents {
            let mut know = |fingerprint: &Value, starts_at: &Value| {
                known.push((
                    text(&incident["policy"]),
                    text(&incident["target"]),
                    text(fingerprint),
                    identifying(moment(starts_at)),
                ));
            };
            for event in events(incident) {
                match kind(event) {
                    "opened" => know(&event["alert"]["fingerprint"], &event["alert"]["starts_at"]),
                    "alert-seen" => know(
                        &event["episode"]["fingerprint"],
                        &event["episode"]["starts_at"],
                    ),
                    _ => {}
                }
            }
        }
        known.sort();
        let mut lost = Vec::new();
        for accepted in &self.accepted {
            let starts_at: Timestamp = accepted.alert.starts_at.parse().expect("a time");
            let episode = (accepted.alert.fingerprint.clone(), identifying(starts_at));
            let overtaken = accepted.resolved && self.journaled.contains(&episode);
            for policy in &accepted.policies {
                let key = (
                    (*policy).to_owned(),
                    accepted.target.clone(),
                    episode.0.clone(),
                    episode.1,
                );
                if !overtaken && known.binary_search(&key).is_err() {
                    lost.push(Violation::Lost {
                        policy: key.0,
                        target: key.1,
                    });
                }
            }
        }
        lost
    }

    fn unended(&self) -> Vec<Violation> {
        self.incidents
            .iter()
            .filter(|incident| incident["end"].is_null())
            .map(|incident| Violation::Unended {
                incident: number(incident),
                state: text(&incident["state"]),
            })
            .collect()
    }

    fn opened_twice(&self) -> Vec<Violation> {
        let mut by_episode: BTreeMap<_, Vec<u64>> = BTreeMap::new();
        for incident in &self.incidents {
            // One that went straight to a person, because the alert still fired long after it was healed.
            if events(incident).any(|event| kind(event) == "refused") {
                continue;
            }
            for event in events(incident).filter(|event| kind(event) == "opened") {
                let episode = (
                    text(&incident["policy"]),
                    text(&incident["target"]),
                    text(&event["alert"]["fingerprint"]),
                    moment(&event["alert"]["starts_at"]),
                );
                by_episode
                    .entry(episode)
                    .or_default()
                    .push(number(incident));
            }
        }
        by_episode
            .into_values()
            .filter(|incidents| incidents.len() > 1)
            .map(|incidents| Violation::OpenedTwice { incidents })
            .collect()
    }

    fn effects(&self) -> Vec<Violation> {
        let begins: Vec<Begin<'_>> = self.incidents.iter().flat_map(begins).collect();
        let mut found = Vec::new();
        let mut done: BTreeMap<(u64, &str), usize> = BTreeMap::new();
        for effect in &self.effects {
            let begin = begins
                .iter()
                .filter(|begin| {
                    begin.container == effect.container
                        && begin.call == effect.call.name()
                        && begin.at <= effect.asked_at
                })
                .max_by_key(|begin| begin.at);
            match begin {
                Some(begin) if effect.done_at.is_some() => {
                    *done.entry((begin.incident, begin.container)).or_default() += 1;
                }
                Some(_) => {}
                None => found.push(Violation::NoBegin {
                    container: effect.container.clone(),
                    call: effect.call.name(),
                    asked_at: effect.asked_at,
                }),
            }
        }
        for incident in &self.incidents {
            let id = number(incident);
            let acted = done.keys().any(|(acted, _)| *acted == id);
            let says_so = events(incident)
                .any(|event| kind(event) == "effect-ended" && event["result"].get("Ok").is_some());
            if says_so && !acted {
                found.push(Violation::NeverDone { incident: id });
            }
        }
        found.extend(done.into_iter().filter(|(_, times)| *times > 1).map(
            |((incident, container), times)| Violation::Double {
                incident,
                container: container.to_owned(),
                times,
            },
        ));
        found
    }
}

fn begins(incident: &Value) -> impl Iterator<Item = Begin<'_>> {
    let id = number(incident);
    events(incident)
        .filter(|event| kind(event) == "effect-began")
        .map(move |event| Begin {
            at: moment(&event["at"]),
            incident: id,
            container: event["on"]["name"].as_str().unwrap_or_default(),
            call: event["request"]["call"].as_str().unwrap_or_default(),
        })
}

fn events(incident: &Value) -> impl Iterator<Item = &Value> {
    incident["events"].as_array().into_iter().flatten()
}

fn kind(event: &Value) -> &str {
    event["kind"].as_str().unwrap_or_default()
}

fn number(incident: &Value) -> u64 {
    incident["id"].as_u64().expect("an incident has a number")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A start as fine as Alertmanager's own API tells it: what is finer is no part of an
/// alert's identity.
#[must_use]
pub fn identifying(starts_at: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(starts_at.as_millisecond()).expect("a time")
}

fn moment(value: &Value) -> Timestamp {
    value
        .as_str()
        .and_then(|moment| moment.parse().ok())
        .unwrap_or_else(|| panic!("{value} is no moment"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_docker::Call;
    use serde_json::json;

    const CONTAINER: &str = "web";
    const TARGET: &str = "docker://local/web";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn incident(id: u64, alert: &Alert, begun: &[i64]) -> Value {
        let mut events = vec![json!({
            "kind": "opened",
            "at": at(1),
            "alert": {"fingerprint": alert.fingerprint, "starts_at": alert.starts_at},
        })];
        for second in begun {
            events.push(json!({
                "kind": "effect-began",
                "at": at(*second),
                "request": {"call": "docker.restart"},
                "on": {"name": CONTAINER},
            }));
        }
        json!({"id": id, "policy": "p", "target": TARGET, "state": "healed", "end": "healed", "events": events})
    }

    fn effect(asked: i64, done: Option<i64>) -> Effect {
        Effect {
            container: CONTAINER.to_owned(),
            call: Call::Restart,
            asked_at: at(asked),
            done_at: done.map(at),
        }
    }

    /// One alert, one incident, one restart.
    fn sound() -> (Alert, Ledger) {
        let alert = Alert::firing("Down", &[]);
        let ledger = Ledger {
            accepted: vec![Accepted {
                alert: alert.clone(),
                policies: vec!["p"],
                target: TARGET.to_owned(),
                resolved: false,
            }],
            incidents: vec![incident(1, &alert, &[2])],
            effects: vec![effect(3, Some(4))],
            ..Ledger::default()
        };
        (alert, ledger)
    }

    #[test]
    fn sound_accounts_agree() {
        assert_eq!(sound().1.violations(), []);
    }

    #[test]
    fn an_alert_that_no_incident_knows_is_lost() {
        let (alert, mut ledger) = sound();
        ledger.accepted[0].alert = alert.again();
        assert!(matches!(ledger.violations()[..], [Violation::Lost { .. }]));
        // Unless it was over before the engine came to it, if it is in the journal.
        ledger.accepted[0].resolved = true;
        assert!(matches!(ledger.violations()[..], [Violation::Lost { .. }]));
        let again = &ledger.accepted[0].alert;
        let starts_at = identifying(again.starts_at.parse().unwrap());
        let journaled = BTreeSet::from([(again.fingerprint.clone(), starts_at)]);
        ledger.journaled = journaled;
        assert_eq!(ledger.violations(), []);
        ledger.accepted[0].resolved = false;
        // Another alert of an open incident is not lost.
        let seen = json!({"kind": "alert-seen", "at": at(2), "episode": {
            "fingerprint": alert.fingerprint, "starts_at": ledger.accepted[0].alert.starts_at,
        }});
        let events = ledger.incidents[0]["events"].as_array_mut().unwrap();
        events.push(seen);
        assert_eq!(ledger.violations(), []);
    }

    #[test]
    fn an_incident_without_an_end_is_found() {
        let (_, mut ledger) = sound();
        ledger.incidents[0]["end"] = Value::Null;
        ledger.incidents[0]["state"] = json!("running");
        let state = "running".to_owned();
        assert_eq!(
            ledger.violations(),
            [Violation::Unended { incident: 1, state }]
        );
    }

    #[test]
    fn two_incidents_of_one_episode_are_found() {
        let (alert, mut ledger) = sound();
        ledger.incidents.push(incident(2, &alert, &[]));
        let incidents = vec![1, 2];
        assert_eq!(ledger.violations(), [Violation::OpenedTwice { incidents }]);
    }

    #[test]
    fn a_second_restart_is_a_double_begun_or_not() {
        for begun in [vec![2], vec![2, 5]] {
            let (alert, mut ledger) = sound();
            ledger.incidents = vec![incident(1, &alert, &begun)];
            ledger.effects.push(effect(6, Some(7)));
            assert_eq!(
                ledger.violations(),
                [Violation::Double {
                    incident: 1,
                    container: CONTAINER.to_owned(),
                    times: 2
                }]
            );
            // Asked again, because the first was not done: none.
            ledger.effects[0].done_at = None;
            assert_eq!(ledger.violations(), []);
        }
    }

    #[test]
    fn each_incident_has_its_own_effect() {
        let (alert, mut ledger) = sound();
        ledger.incidents.push(incident(2, &alert.again(), &[8]));
        ledger.effects.push(effect(9, Some(10)));
        assert_eq!(ledger.violations(), []);
    }

    #[test]
    fn an_effect_without_a_begin_is_found() {
        for begun in [&[][..], &[5]] {
            let (alert, mut ledger) = sound();
            ledger.incidents = vec![incident(1, &alert, begun)];
            assert!(matches!(
                ledger.violations()[..],
                [Violation::NoBegin { .. }]
            ));
        }
    }

    #[test]
    fn an_effect_that_only_the_journal_knows_is_found() {
        let (_, mut ledger) = sound();
        ledger.effects[0].done_at = None;
        let ended = json!({"kind": "effect-ended", "at": at(4), "result": {"Ok": "done"}});
        let events = ledger.incidents[0]["events"].as_array_mut().unwrap();
        events.push(ended);
        assert_eq!(ledger.violations(), [Violation::NeverDone { incident: 1 }]);
    }
}
