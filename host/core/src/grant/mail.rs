//! Who a plugin may send mail to.

use std::fmt;
use std::str::FromStr;

use serde_with::{DeserializeFromStr, SerializeDisplay};

use super::{Denied, Glob, list, shown};
use crate::mail::{MailAddress, MailRequest, check_domain};

/// Whether `patterns` cover every recipient of `request`.
pub(super) fn allows(patterns: &[AddressPattern], request: &MailRequest) -> Result<(), Denied> {
    if patterns.is_empty() {
        return Err(Denied(format!(
            "mail.send is not granted: the policy grants nothing of mail; if that is wanted, write `grants: {{ mail: ['{}'] }}`",
            request.recipients().next().map_or("", MailAddress::as_str)
        )));
    }
    let covered = |address: &&MailAddress| patterns.iter().any(|pattern| pattern.matches(address));
    match request.recipients().find(|address| !covered(address)) {
        None => Ok(()),
        Some(stranger) => {
            let written: Vec<_> = patterns
                .iter()
                .map(|pattern| format!("'{pattern}'"))
                .collect();
            Err(Denied(format!(
                "mail.send to {} is not granted: the policy grants the recipients {}; if that is wanted, write `grants: {{ mail: [{}, '{stranger}'] }}`",
                shown(stranger.as_str()),
                list(patterns),
                written.join(", "),
            )))
        }
    }
}

/// A pattern for addresses: `oncall@example.com`, `*@ops.example.com`.
///
/// What is before the `@` is a [`Glob`], in which case matters. The host has to be the
/// same; `*.` at its beginning stands for one more label, as in certificates.
#[derive(Debug, Clone, SerializeDisplay, DeserializeFromStr)]
pub struct AddressPattern {
    pattern: String,
    local: Glob,
    /// With `subdomain`, what follows its first label.
    domain: String,
    subdomain: bool,
}

/// Why a text is no pattern for addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern {0}")]
pub struct AddressPatternError(String);

impl AddressPattern {
    /// Whether `address` fits.
    #[must_use]
    pub fn matches(&self, address: &MailAddress) -> bool {
        let domain = address.domain();
        let host = if self.subdomain {
            domain
                .split_once('.')
                .is_some_and(|(_, rest)| rest == self.domain)
        } else {
            domain == self.domain
        };
        host && self.local.matches(address.local())
    }
}

impl FromStr for AddressPattern {
    type Err = AddressPatternError;

    fn from_str(pattern: &str) -> Result<Self, Self::Err> {
        let wrong = |reason: &str| AddressPatternError(reason.to_owned());
        if !pattern.is_ascii() {
            return Err(wrong("is not ASCII; write the host in punycode"));
        }
        if pattern.contains(|c: char| c.is_ascii_control() || "<>\" ".contains(c)) {
            return Err(wrong(
                "has more than the address itself: leave out names and brackets",
            ));
        }
        let (local, domain) = pattern
            .rsplit_once('@')
            .ok_or_else(|| wrong("has no `@`; for everybody at a host write '*@HOST'"))?;
        if local.contains('@') {
            return Err(wrong("has more than one `@`"));
        }
        let (subdomain, host) = domain
            .strip_prefix("*.")
            .map_or((false, domain), |host| (true, host));
        if host.contains(['*', '?', '[', '{', '\\']) {
            return Err(wrong(
                "has a wildcard in its host that is no `*.` at its beginning",
            ));
        }
        let host = host.to_ascii_lowercase();
        check_domain(&host).map_err(wrong)?;
        let local = local.parse().map_err(|error| {
            AddressPatternError(format!("has no pattern before its `@`: {error}"))
        })?;
        Ok(Self {
            pattern: pattern.to_owned(),
            local,
            domain: host,
            subdomain,
        })
    }
}

impl fmt::Display for AddressPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.pattern)
    }
}

impl PartialEq for AddressPattern {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

impl Eq for AddressPattern {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::Grants;

    #[test]
    fn addresses_fit_by_host_and_name() {
        for (pattern, yes, no) in [
            (
                "oncall@example.com",
                &["oncall@example.com", "oncall@EXAMPLE.com"][..],
                &[
                    "Oncall@example.com",
                    "oncall@example.com.evil.example",
                    "oncall@ops.example.com",
                    "oncall@xexample.com",
                    "xoncall@example.com",
                ][..],
            ),
            (
                "*@ops.Example.com",
                &["a@ops.example.com", "a.b+c@ops.example.com"][..],
                &["a@example.com", "a@x.ops.example.com", "a@xops.example.com"][..],
            ),
            (
                "oncall-{db,web}@*.example.com",
                &["oncall-db@a.example.com", "oncall-web@b.example.com"][..],
                &[
                    "oncall-db@example.com",
                    "oncall-db@a.b.example.com",
                    "oncall-x@a.example.com",
                ][..],
            ),
        ] {
            let pattern: AddressPattern = pattern.parse().unwrap();
            for address in yes {
                assert!(pattern.matches(&address.parse().unwrap()), "{address}");
            }
            for address in no {
                assert!(!pattern.matches(&address.parse().unwrap()), "{address}");
            }
        }
    }

    #[test]
    fn patterns_that_would_not_mean_what_they_say_are_refused() {
        for (pattern, reason) in [
            ("", "no `@`"),
            ("*", "no `@`"),
            ("example.com", "no `@`"),
            ("@example.com", "before its `@`"),
            ("a@", "nothing behind"),
            ("*@*", "wildcard in its host"),
            ("*@*.*.example.com", "wildcard in its host"),
            ("*@ops*.example.com", "wildcard in its host"),
            ("*@{a,b}.example.com", "wildcard in its host"),
            ("*@*.", "nothing behind"),
            ("a@b@example.com", "more than one"),
            ("Oncall <a@example.com>", "more than the address"),
            ("a b@example.com", "more than the address"),
            ("[a@example.com", "before its `@`"),
            ("a@bücher.example", "ASCII"),
            ("a@[127.0.0.1]", "wildcard"),
        ] {
            let error = pattern.parse::<AddressPattern>().unwrap_err().to_string();
            assert!(error.contains(reason), "{pattern}: {error}");
        }
    }

    fn ask(patterns: &[&str], to: &[&str], cc: &[&str]) -> Result<(), String> {
        let grants = Grants {
            mail: patterns.iter().map(|text| text.parse().unwrap()).collect(),
            ..Grants::default()
        };
        let owned = |list: &[&str]| {
            list.iter()
                .map(|each| (*each).to_owned())
                .collect::<Vec<_>>()
        };
        let request = MailRequest::new(&owned(to), &owned(cc), "s".to_owned(), String::new());
        grants
            .allows_mail(&request.unwrap())
            .map_err(|denied| denied.to_string())
    }

    #[test]
    fn every_recipient_has_to_be_granted() {
        let granted = &["oncall@example.com", "*@ops.example.com"];
        let (oncall, ops) = ("oncall@example.com", "ann@ops.example.com");
        assert_eq!(ask(granted, &[oncall], &[ops]), Ok(()));
        let said = "mail.send to `boss@example.com` is not granted: the policy grants the recipients oncall@example.com, *@ops.example.com; if that is wanted, write `grants: { mail: ['oncall@example.com', '*@ops.example.com', 'boss@example.com'] }`";
        for (to, cc) in [
            (&[oncall, "boss@example.com"][..], &[][..]),
            (&[oncall], &["boss@example.com"]),
        ] {
            assert_eq!(ask(granted, to, cc).unwrap_err(), said);
        }
        assert_eq!(
            ask(&[], &[oncall], &[]).unwrap_err(),
            "mail.send is not granted: the policy grants nothing of mail; if that is wanted, write `grants: { mail: ['oncall@example.com'] }`"
        );
    }
}
