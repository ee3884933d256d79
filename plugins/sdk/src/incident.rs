use std::cmp::Ordering;
use std::fmt;
use std::time::Duration;

use crate::docker::Container;
use crate::{Alert, Failure, Incident, Label, Target, Timestamp};

impl Incident {
    /// The value of one of the alert's labels.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.alert.label(name)
    }

    /// The value of one of the alert's annotations.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.alert.annotation(name)
    }

    /// Whether this is the first run of the incident: nothing has been tried before it.
    #[must_use]
    pub fn is_first_run(&self) -> bool {
        self.step == 1 && self.attempt == 1
    }
}

impl Alert {
    /// The value of a label.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        find(&self.labels, name)
    }

    /// The value of an annotation.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        find(&self.annotations, name)
    }
}

/// The value of `name` in labels as the host gives them.
pub(crate) fn find<'a>(labels: &'a [Label], name: &str) -> Option<&'a str> {
    labels
        .iter()
        .find(|label| label.name == name)
        .map(|label| label.value.as_str())
}

impl Target {
    /// The container that the target is; none when its kind is not `docker` or it names
    /// nothing on its host.
    #[must_use]
    pub fn container(&self) -> Option<Container> {
        (self.kind == "docker" && !self.name.is_empty())
            .then(|| Container::new(&self.host, &self.name))
    }

    /// The container that a plugin's params `host` and `container` mean, where each is left
    /// out what the target is; a permanent failure that names the missing one when the
    /// target is no container.
    pub fn container_or(
        &self,
        host: Option<&str>,
        container: Option<&str>,
    ) -> Result<Container, Failure> {
        let target = self.container();
        let pick = |given: Option<&str>, of_target: Option<&String>, param: &str| {
            given
                .or(of_target.map(String::as_str))
                .map(str::to_owned)
                .ok_or_else(|| {
                    Failure::permanent(format!(
                        "the target {self} is no container: params need `{param}`"
                    ))
                })
        };
        let (by_host, by_name) = match &target {
            Some(target) => (Some(&target.host), Some(&target.name)),
            None => (None, None),
        };
        Ok(Container {
            host: pick(host, by_host, "host")?,
            name: pick(container, by_name, "container")?,
        })
    }

    /// The Docker host that a plugin's param `host` means, the target's where it is left
    /// out; a permanent failure when the target is not on one.
    pub fn docker_host_or(&self, host: Option<&str>) -> Result<String, Failure> {
        match host {
            Some(host) => Ok(host.to_owned()),
            None if self.kind == "docker" => Ok(self.host.clone()),
            None => Err(Failure::permanent(format!(
                "the target {self} is on no Docker host: params need `host`"
            ))),
        }
    }
}

/// The target as the policy rendered it.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl Timestamp {
    /// How long after `earlier` this is; zero when it is not after it.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Duration {
        let nanoseconds = i128::from(self.nanoseconds) - i128::from(earlier.nanoseconds)
            + (i128::from(self.seconds) - i128::from(earlier.seconds)) * SECOND;
        let seconds = u64::try_from(nanoseconds.div_euclid(SECOND));
        let rest = u32::try_from(nanoseconds.rem_euclid(SECOND));
        match (seconds, rest) {
            (Ok(seconds), Ok(rest)) => Duration::new(seconds, rest),
            _ => Duration::ZERO,
        }
    }
}

/// A second, in nanoseconds.
const SECOND: i128 = 1_000_000_000;

impl PartialOrd for Timestamp {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timestamp {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.seconds, self.nanoseconds).cmp(&(other.seconds, other.nanoseconds))
    }
}

/// RFC 3339 in UTC, to the second: `2026-11-22T09:30:00Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (day, second) = (
            self.seconds.div_euclid(86_400),
            self.seconds.rem_euclid(86_400),
        );
        // Days to a date of the proleptic Gregorian calendar, in eras of 400 years whose
        // years begin in March, so that the leap day is a year's last.
        let day = day + 719_468;
        let era = day.div_euclid(146_097);
        let of_era = day.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * of_year + 2) / 153;
        let month = if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        };
        write!(
            f,
            "{:04}-{month:02}-{:02}T{:02}:{:02}:{:02}Z",
            year_of_era + era * 400 + i64::from(month <= 2),
            of_year - (153 * month_from_march + 2) / 5 + 1,
            second / 3_600,
            second / 60 % 60,
            second % 60,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64, nanoseconds: u32) -> Timestamp {
        Timestamp {
            seconds,
            nanoseconds,
        }
    }

    #[test]
    fn timestamps_print_as_rfc_3339() {
        // Expected values: `date -u -d @SECONDS +%FT%TZ`.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_795_339_800, "2026-11-22T09:30:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (-2_208_988_800, "1900-01-01T00:00:00Z"),
        ] {
            assert_eq!(at(seconds, 999_999_999).to_string(), text);
        }
    }

    #[test]
    fn spans_between_timestamps_do_not_underflow() {
        assert_eq!(
            at(2, 0).since(&at(1, 999_000_000)),
            Duration::from_millis(1)
        );
        assert_eq!(at(1, 0).since(&at(2, 0)), Duration::ZERO);
        assert_eq!(at(1, 1).since(&at(1, 2)), Duration::ZERO);
        assert_eq!(
            at(i64::MAX, 0).since(&at(i64::MIN, 0)),
            Duration::from_secs(u64::MAX)
        );
    }

    #[test]
    fn timestamps_are_ordered_by_time() {
        assert!(at(1, 5) > at(1, 4));
        assert!(at(-1, 5) < at(0, 0));
    }

    #[test]
    fn only_docker_targets_are_containers() {
        let target = |kind: &str, name: &str| Target {
            uri: format!("{kind}://local/{name}"),
            kind: kind.to_owned(),
            host: "local".to_owned(),
            name: name.to_owned(),
        };
        assert_eq!(
            target("docker", "web").container(),
            Some(Container::new("local", "web"))
        );
        assert_eq!(target("docker", "").container(), None);
        assert_eq!(target("vm", "web").container(), None);
    }
}
