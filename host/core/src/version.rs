//! Which versions of plugins served, and which must not serve again: a fold of control
//! events.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::control::{ControlBody, ControlEvent};
use crate::id::{Digest, PluginName};

/// A version that served, or serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Since when.
    pub at: Timestamp,
    /// Which.
    pub digest: Digest,
    /// What it took the place of.
    pub from: Option<Digest>,
    /// Whether it is one that was gone back to.
    pub again: bool,
    /// Who put it there.
    pub by: String,
}

/// What is known of versions beyond what serves now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Versions {
    served: BTreeMap<PluginName, Vec<Served>>,
    rolled_back: BTreeMap<Digest, String>,
    accepted: BTreeSet<Digest>,
    policies: Option<Digest>,
}

impl Versions {
    /// What `events` come to.
    pub fn fold<'a>(events: impl IntoIterator<Item = &'a ControlEvent>) -> Self {
        let mut versions = Self::default();
        for event in events {
            versions.apply(event);
        }
        versions
    }

    /// Takes an event in.
    pub fn apply(&mut self, event: &ControlEvent) {
        let (name, digest, from, again, by) = match &event.body {
            ControlBody::PluginServed {
                name, from, to, by, ..
            } => (name, *to, *from, false, by),
            ControlBody::PluginRolledBack {
                name,
                from,
                to,
                by,
                reason,
            } => {
                self.rolled_back.insert(*from, reason.clone());
                self.accepted.remove(from);
                // It served well enough to be gone back to.
                self.rolled_back.remove(to);
                (name, *to, Some(*from), true, by)
            }
            ControlBody::PluginAccepted { digest, .. } => {
                self.rolled_back.remove(digest);
                self.accepted.insert(*digest);
                return;
            }
            ControlBody::PoliciesServed { to, .. } => {
                self.policies = Some(*to);
                return;
            }
            _ => return,
        };
        self.served.entry(name.clone()).or_default().push(Served {
            at: event.at,
            digest,
            from,
            again,
            by: by.clone(),
        });
    }

    /// Why a version was rolled back, if it was and nobody has said since that it may serve.
    #[must_use]
    pub fn rolled_back(&self, digest: &Digest) -> Option<&str> {
        self.rolled_back.get(digest).map(String::as_str)
    }

    /// Whether a person said that a version may serve whatever speaks against it.
    #[must_use]
    pub fn accepted(&self, digest: &Digest) -> bool {
        self.accepted.contains(digest)
    }

    /// The versions of a plugin in the order in which they served, the last one last.
    #[must_use]
    pub fn served(&self, name: &PluginName) -> &[Served] {
        self.served.get(name).map_or(&[], Vec::as_slice)
    }

    /// The policies that served last, as [`PolicySet::digest`] has them.
    ///
    /// [`PolicySet::digest`]: crate::policy::PolicySet::digest
    #[must_use]
    pub fn policies(&self) -> Option<Digest> {
        self.policies
    }

    /// What `current` would be rolled back to: the last other version that served and was
    /// not itself rolled back.
    #[must_use]
    pub fn before(&self, name: &PluginName, current: &Digest) -> Option<Digest> {
        self.served(name)
            .iter()
            .rev()
            .map(|served| served.digest)
            .find(|digest| digest != current && self.rolled_back(digest).is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> PluginName {
        PluginName::new("p").unwrap()
    }

    fn digest(of: &str) -> Digest {
        Digest::of(of.as_bytes())
    }

    fn event(body: ControlBody) -> ControlEvent {
        ControlEvent {
            at: Timestamp::UNIX_EPOCH,
            body,
        }
    }

    fn served(from: Option<&str>, to: &str) -> ControlEvent {
        event(ControlBody::PluginServed {
            name: name(),
            from: from.map(digest),
            to: digest(to),
            version: "1.0.0".to_owned(),
            by: "the folder".to_owned(),
        })
    }

    fn rolled_back(from: &str, to: &str) -> ControlEvent {
        event(ControlBody::PluginRolledBack {
            name: name(),
            from: digest(from),
            to: digest(to),
            by: "sentinel".to_owned(),
            reason: "it broke down".to_owned(),
        })
    }

    #[test]
    fn one_goes_back_to_what_served_and_was_not_itself_given_up() {
        let mut events = vec![
            served(None, "a"),
            served(Some("a"), "b"),
            served(Some("b"), "c"),
        ];
        let versions = Versions::fold(&events);
        assert_eq!(versions.before(&name(), &digest("c")), Some(digest("b")));
        assert_eq!(versions.before(&name(), &digest("a")), Some(digest("c")));

        events.push(rolled_back("c", "b"));
        let versions = Versions::fold(&events);
        assert_eq!(versions.rolled_back(&digest("c")), Some("it broke down"));
        assert_eq!(versions.before(&name(), &digest("b")), Some(digest("a")));
        assert_eq!(versions.served(&name()).len(), 4);
    }

    #[test]
    fn a_word_lets_a_version_serve_again_and_another_rollback_takes_it_back() {
        let mut events = vec![
            served(None, "a"),
            served(Some("a"), "b"),
            rolled_back("b", "a"),
        ];
        events.push(event(ControlBody::PluginAccepted {
            digest: digest("b"),
            by: "ann".to_owned(),
        }));
        let versions = Versions::fold(&events);
        assert!(versions.accepted(&digest("b")));
        assert_eq!(versions.rolled_back(&digest("b")), None);

        events.push(rolled_back("b", "a"));
        let versions = Versions::fold(&events);
        assert!(!versions.accepted(&digest("b")));
        assert!(versions.rolled_back(&digest("b")).is_some());
    }
}
