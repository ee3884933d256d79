//! What holds above single incidents: the stop switch, storms, and which versions serve.
//! Its state is the fold of its own events, which are journaled like those of incidents.
//! Of versions, [`Versions`](crate::version::Versions) is the fold.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{Digest, PluginName, PolicyName, Target};

/// What a pause holds back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Everything.
    All,
    /// One policy.
    Policy(PolicyName),
    /// One target, as guards count it, whatever the policy.
    Target(Target),
}

impl Scope {
    /// Whether it holds `policy` on `target`, as guards count it, back.
    #[must_use]
    pub fn covers(&self, policy: &PolicyName, target: &Target) -> bool {
        match self {
            Self::All => true,
            Self::Policy(name) => name == policy,
            Self::Target(name) => name == target,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("everything"),
            Self::Policy(policy) => write!(f, "policy {policy}"),
            Self::Target(target) => write!(f, "target {target}"),
        }
    }
}

/// Something that happened to the controls, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlEvent {
    /// When, by the daemon's clock.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub body: ControlBody,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ControlBody {
    /// The stop switch was thrown. Thrown again for the same scope it takes the place of
    /// the earlier one.
    Paused {
        /// What it holds back.
        scope: Scope,
        /// Until when; until it is resumed when none.
        until: Option<Timestamp>,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// The stop switch was released.
    Resumed {
        /// Which.
        scope: Scope,
        /// Who.
        by: String,
    },
    /// More of a policy's fleet is disturbed than may be.
    StormBegan {
        /// The policy.
        policy: PolicyName,
        /// How much.
        reason: String,
    },
    /// It has been within the bound for long enough.
    StormEnded {
        /// The policy.
        policy: PolicyName,
    },
    /// Another version of a plugin serves.
    PluginServed {
        /// The plugin.
        name: PluginName,
        /// What served before; none when the plugin is new.
        from: Option<Digest>,
        /// What serves now.
        to: Digest,
        /// The version that it gives itself.
        version: String,
        /// Who put it there: a person, or the folder.
        by: String,
    },
    /// A plugin does not serve any more.
    PluginRemoved {
        /// The plugin.
        name: PluginName,
        /// What served until now.
        from: Digest,
        /// Who took it away.
        by: String,
    },
    /// An older version of a plugin serves again. What it takes the place of does not serve
    /// again before somebody says so.
    PluginRolledBack {
        /// The plugin.
        name: PluginName,
        /// What served until now.
        from: Digest,
        /// What serves now.
        to: Digest,
        /// Who did it; sentinel itself when the newer version broke down too often.
        by: String,
        /// Why.
        reason: String,
    },
    /// What was found in the folder, or sent, does not serve.
    PluginRefused {
        /// What it was found as.
        file: String,
        /// Its digest.
        digest: Digest,
        /// What serves instead, if anything does.
        serving: Option<Digest>,
        /// What is wrong with it.
        reason: String,
    },
    /// A person says that a version may serve although something speaks against it.
    PluginAccepted {
        /// The version.
        digest: Digest,
        /// Who.
        by: String,
    },
    /// Other policies serve.
    PoliciesServed {
        /// What served before; none when there were none.
        from: Option<Digest>,
        /// What serves now.
        to: Digest,
    },
    /// The daemon runs with another configuration.
    Configured {
        /// What is different, by the configuration's keys.
        changed: BTreeMap<String, Setting>,
    },
}

/// A key of the configuration that has another value, written as a person reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// What it was; none where the key is new.
    pub from: Option<String>,
    /// What it is; none where the key is gone.
    pub to: Option<String>,
}

/// The configuration that the daemon last ran with, by its keys.
pub fn configuration<'a>(
    events: impl IntoIterator<Item = &'a ControlEvent>,
) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    for event in events {
        let ControlBody::Configured { changed } = &event.body else {
            continue;
        };
        for (key, setting) in changed {
            match &setting.to {
                Some(value) => settings.insert(key.clone(), value.clone()),
                None => settings.remove(key),
            };
        }
    }
    settings
}

/// A pause that may hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// What it holds back.
    pub scope: Scope,
    /// Since when.
    pub since: Timestamp,
    /// Until when; until it is resumed when none.
    pub until: Option<Timestamp>,
    /// Who threw the switch.
    pub by: String,
    /// Why.
    pub reason: String,
}

impl Pause {
    /// Whether its time is not over.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} paused {}: {}", self.by, self.scope, self.reason)
    }
}

/// The stop switch and the storms, as they are now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Controls {
    pauses: BTreeMap<Scope, Pause>,
    storms: BTreeMap<PolicyName, Timestamp>,
}

impl Controls {
    /// The state after `events`.
    pub fn fold<'a>(events: impl IntoIterator<Item = &'a ControlEvent>) -> Self {
        let mut controls = Self::default();
        for event in events {
            controls.apply(event);
        }
        controls
    }

    /// Takes an event in.
    pub fn apply(&mut self, event: &ControlEvent) {
        match &event.body {
            ControlBody::Paused {
                scope,
                until,
                by,
                reason,
            } => {
                let pause = Pause {
                    scope: scope.clone(),
                    since: event.at,
                    until: *until,
                    by: by.clone(),
                    reason: reason.clone(),
                };
                self.pauses.insert(scope.clone(), pause);
            }
            ControlBody::Resumed { scope, .. } => {
                self.pauses.remove(scope);
            }
            ControlBody::StormBegan { policy, .. } => {
                self.storms.insert(policy.clone(), event.at);
            }
            ControlBody::StormEnded { policy } => {
                self.storms.remove(policy);
            }
            ControlBody::PluginServed { .. }
            | ControlBody::PluginRemoved { .. }
            | ControlBody::PluginRolledBack { .. }
            | ControlBody::PluginRefused { .. }
            | ControlBody::PluginAccepted { .. }
            | ControlBody::PoliciesServed { .. }
            | ControlBody::Configured { .. } => {}
        }
    }

    /// The pause that holds `policy` on `target` back, if one does: of several the one
    /// that holds longest.
    #[must_use]
    pub fn paused(&self, policy: &PolicyName, target: &Target, now: Timestamp) -> Option<&Pause> {
        self.pauses
            .values()
            .filter(|pause| pause.holds(now) && pause.scope.covers(policy, target))
            .max_by_key(|pause| pause.until.unwrap_or(Timestamp::MAX))
    }

    /// The pause of exactly this scope, if it holds.
    #[must_use]
    pub fn pause(&self, scope: &Scope, now: Timestamp) -> Option<&Pause> {
        self.pauses.get(scope).filter(|pause| pause.holds(now))
    }

    /// Every pause that holds.
    pub fn pauses(&self, now: Timestamp) -> impl Iterator<Item = &Pause> {
        self.pauses.values().filter(move |pause| pause.holds(now))
    }

    /// The policies that are in a storm, and since when.
    pub fn storms(&self) -> impl Iterator<Item = (&PolicyName, Timestamp)> {
        self.storms.iter().map(|(policy, since)| (policy, *since))
    }

    /// Whether the policy is in a storm.
    #[must_use]
    pub fn storm(&self, policy: &PolicyName) -> bool {
        self.storms.contains_key(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn paused(second: i64, scope: Scope, until: Option<i64>) -> ControlEvent {
        ControlEvent {
            at: at(second),
            body: ControlBody::Paused {
                scope,
                until: until.map(at),
                by: "ann".to_owned(),
                reason: "upgrade".to_owned(),
            },
        }
    }

    #[test]
    fn the_longest_pause_that_covers_decides() {
        let policy: PolicyName = "web".parse().unwrap();
        let target: Target = "docker://local/web".parse().unwrap();
        let other: Target = "docker://local/db".parse().unwrap();
        let controls = Controls::fold(&[
            paused(0, Scope::Target(target.clone()), Some(10)),
            paused(1, Scope::Policy(policy.clone()), Some(20)),
        ]);
        let until = |target, now| {
            controls
                .paused(&policy, target, at(now))
                .map(|pause| pause.until)
        };
        assert_eq!(until(&target, 5), Some(Some(at(20))));
        assert_eq!(until(&other, 19), Some(Some(at(20))));
        assert_eq!(until(&other, 20), None);
    }

    #[test]
    fn a_pause_ends_when_it_is_resumed_and_only_that_one() {
        let policy: PolicyName = "web".parse().unwrap();
        let target: Target = "docker://local/web".parse().unwrap();
        let resumed = ControlEvent {
            at: at(2),
            body: ControlBody::Resumed {
                scope: Scope::All,
                by: "bob".to_owned(),
            },
        };
        let mut controls = Controls::fold(&[
            paused(0, Scope::All, None),
            paused(1, Scope::Policy(policy.clone()), None),
            resumed,
        ]);
        assert_eq!(controls.pauses(at(3)).count(), 1);
        assert!(controls.paused(&policy, &target, at(3)).is_some());
        controls.apply(&ControlEvent {
            at: at(4),
            body: ControlBody::Resumed {
                scope: Scope::Policy(policy.clone()),
                by: "bob".to_owned(),
            },
        });
        assert!(controls.paused(&policy, &target, at(5)).is_none());
    }
}
