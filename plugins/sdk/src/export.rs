//! What [`plugin!`](crate::plugin) expands to; no part of the interface.

pub use crate::bindings::sentinel::plugin::types::{Description, Failure as WireFailure};

use crate::{Failure, Incident, Outcome, Remediation, log};

/// Whether the host would take `name` as a plugin's name.
#[must_use]
pub const fn is_name(name: &str) -> bool {
    let mut rest = name.as_bytes();
    let Some(b'a'..=b'z') = rest.first() else {
        return false;
    };
    if rest.len() > 64 {
        return false;
    }
    while let [byte, tail @ ..] = rest {
        if !matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-') {
            return false;
        }
        rest = tail;
    }
    true
}

#[must_use]
pub fn describe<P: Remediation>(name: &str, version: &str) -> Description {
    report_panics();
    Description {
        name: name.to_owned(),
        version: version.to_owned(),
        summary: P::SUMMARY.to_owned(),
        params_schema: P::PARAMS_SCHEMA.to_owned(),
    }
}

pub fn remediate<P: Remediation>(incident: &Incident) -> Result<Outcome, WireFailure> {
    report_panics();
    crate::params::parse::<P::Params>(&incident.params)
        .and_then(|params| P::remediate(incident, params))
        .map_err(|failure| match failure {
            Failure::Retryable(reason) => WireFailure::Retryable(reason),
            Failure::Permanent(reason) => WireFailure::Permanent(reason),
            Failure::Denied(reason) => WireFailure::Denied(reason),
        })
}

/// A panic is all that the host sees as a trap. Its message goes to the incident's log as
/// one entry, on targets with and without WASI alike.
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        log::write(log::Level::Error, &panic.to_string());
    }));
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn names_are_those_that_the_host_takes() {
        for name in ["a", "docker-restart", "x2", "a-", &"a".repeat(64)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "2x", "-a", "Docker", "a_b", "a b", "ä", &"a".repeat(65)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
