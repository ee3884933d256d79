//! Alerts, in Alertmanager's model.

use std::collections::BTreeMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Labels or annotations, sorted by name. Names are arbitrary UTF-8.
pub type Labels = BTreeMap<String, String>;

/// Whether the source says that the alert holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertStatus {
    /// The alert holds.
    Firing,
    /// The alert has ended.
    Resolved,
}

impl AlertStatus {
    /// The status as Alertmanager writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

impl fmt::Display for AlertStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Identifies a label set. Alertmanager sends 16 hexadecimal digits; other senders put
/// other strings there, which are kept as they are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(pub String);

impl Fingerprint {
    /// The fingerprint that Alertmanager computes for `labels`: 64-bit FNV-1a over the
    /// names and values in the order of the names, each followed by the byte 0xFF
    /// (Prometheus `common/model`, `LabelSet.Fingerprint`).
    #[must_use]
    pub fn of(labels: &Labels) -> Self {
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0100_0000_01b3;
        let bytes = labels.iter().flat_map(|(name, value)| {
            let separator = std::iter::once(0xff);
            name.bytes()
                .chain(separator.clone())
                .chain(value.bytes())
                .chain(separator)
        });
        let sum = bytes.fold(OFFSET, |sum, byte| {
            (sum ^ u64::from(byte)).wrapping_mul(PRIME)
        });
        Self(format!("{sum:016x}"))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A start as it is part of an alert's identity: cut to the millisecond.
///
/// Alertmanager's API cuts starts to it, while its notifications carry whatever its
/// sender gave, down to the nanosecond. Cut alike, the same alert is the same by both
/// ways.
#[must_use]
pub fn identifying_start(at: Timestamp) -> Timestamp {
    const MILLISECOND: i32 = 1_000_000;
    // The part below the second has the sign of the whole.
    let cut = at.subsec_nanosecond().rem_euclid(MILLISECOND);
    at.saturating_sub(SignedDuration::from_nanos(cut.into()))
        .unwrap_or(at)
}

/// One alert as a source delivered it: the unit of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// What delivered it, for example `alertmanager`; part of the identity.
    pub source: String,
    /// Identifies the label set.
    pub fingerprint: Fingerprint,
    /// Whether it holds.
    pub status: AlertStatus,
    /// The labels.
    pub labels: Labels,
    /// The annotations; those of the firing and of the resolved notification may
    /// differ.
    pub annotations: Labels,
    /// When it began to fire; a new value under the same fingerprint is a new episode.
    /// From Alertmanager it is an [`identifying_start`].
    pub starts_at: Timestamp,
    /// When it ended; none while it fires.
    pub ends_at: Option<Timestamp>,
    /// A link to what raised it; may be none.
    pub generator_url: Option<String>,
}

/// Values of the label `severity` that say that somebody should be woken.
const URGENT: [&str; 3] = ["critical", "page", "emergency"];

/// Whether a label `severity` of this value says that somebody should be woken.
#[must_use]
pub fn is_urgent(severity: &str) -> bool {
    URGENT.contains(&severity)
}

impl Alert {
    /// Whether its label `severity` says that somebody should be woken: then it goes before
    /// others that wait.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        let severity = self.labels.get("severity");
        severity.is_some_and(|severity| is_urgent(severity))
    }

    /// The label `alertname`, or the fingerprint where there is none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.labels
            .get("alertname")
            .map_or(self.fingerprint.0.as_str(), String::as_str)
    }

    /// Which episode of which alert this speaks of.
    #[must_use]
    pub fn episode(&self) -> Episode {
        Episode {
            source: self.source.clone(),
            fingerprint: self.fingerprint.clone(),
            starts_at: self.starts_at,
        }
    }
}

/// One time that an alert fires, from its start to its end. With the status it is an
/// alert's identity; `externalURL`, `groupKey` and `receiver` are no part of it,
/// because replicas of Alertmanager and `continue` routes send the same alert under
/// other ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Episode {
    /// What delivered the alert.
    pub source: String,
    /// The alert's fingerprint.
    pub fingerprint: Fingerprint,
    /// When it began to fire.
    pub starts_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn starts_are_cut_to_the_millisecond_and_never_rounded() {
        for (given, cut) in [
            ("2026-01-01T00:00:00.123456789Z", "2026-01-01T00:00:00.123Z"),
            ("2026-01-01T00:00:00.9999Z", "2026-01-01T00:00:00.999Z"),
            ("2026-01-01T00:00:00.5Z", "2026-01-01T00:00:00.5Z"),
            ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
            ("1969-12-31T23:59:59.1239Z", "1969-12-31T23:59:59.123Z"),
        ] {
            let given: Timestamp = given.parse().unwrap();
            assert_eq!(identifying_start(given).to_string(), cut);
        }
    }

    // Expected values: `LabelSet.Fingerprint` of prometheus/common, as a real
    // Alertmanager 0.25.0 reported them for these label sets.
    #[test]
    fn the_empty_set_has_the_offset_basis() {
        assert_eq!(Fingerprint::of(&Labels::new()).0, "cbf29ce484222325");
    }

    #[test]
    fn order_of_insertion_does_not_matter() {
        assert_eq!(
            Fingerprint::of(&labels(&[("b", "2"), ("a", "1")])),
            Fingerprint::of(&labels(&[("a", "1"), ("b", "2")])),
        );
    }

    #[test]
    fn names_and_values_do_not_run_together() {
        assert_ne!(
            Fingerprint::of(&labels(&[("ab", "c")])),
            Fingerprint::of(&labels(&[("a", "bc")])),
        );
    }
}
