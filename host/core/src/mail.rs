//! Mail as plugins ask for it (`sentinel:plugin/mail`), as data.
//!
//! An address means different things to those who read it: comments, quotes, names and
//! routes inside it can lead a server elsewhere than who checks it believes. So a
//! [`MailAddress`] is a plain one or none, and what is checked is what is sent.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_with::{DeserializeFromStr, SerializeDisplay};

/// How many recipients one mail may have.
pub const RECIPIENTS: usize = 50;

/// How long a subject may be, in bytes.
pub const SUBJECT_LIMIT: usize = 512;

/// How long a text may be, in bytes.
pub const TEXT_LIMIT: usize = 64 << 10;

/// How long the part of an address before its `@` may be (RFC 5321, 4.5.3.1).
const LOCAL_LENGTH: usize = 64;

/// How long an address may be: what fits between the brackets of a command.
const ADDRESS_LENGTH: usize = 254;

/// How many recipients are named where people read of a mail.
const NAMED: usize = 3;

/// An address that means the same to everyone: `oncall@example.com`.
///
/// Before the `@` are ASCII letters, digits and a few marks. Quotes are none of them, nor
/// are `%` and `!`, which some servers take for a route. Behind it is a host's name, in
/// small letters.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, SerializeDisplay, DeserializeFromStr,
)]
pub struct MailAddress {
    text: String,
    /// Where the `@` is.
    at: usize,
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{shown} is no address to send to: it {reason}")]
pub struct MailAddressError {
    shown: String,
    reason: &'static str,
}

impl MailAddress {
    /// What is before the `@`.
    #[must_use]
    pub fn local(&self) -> &str {
        self.text.get(..self.at).unwrap_or_default()
    }

    /// What is behind the `@`.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.text.get(self.at + 1..).unwrap_or_default()
    }

    /// The address as it is sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// What is wrong with what stands before the `@`.
fn check_local(local: &str) -> Result<(), &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._+-=&'~#$^".contains(c);
    if local.is_empty() {
        Err("has nothing before the `@`")
    } else if local.len() > LOCAL_LENGTH {
        Err("has more than 64 characters before the `@`")
    } else if !local.chars().all(plain) {
        Err(
            "holds before the `@` what is none of the letters, digits and marks that mean the same to every server",
        )
    } else if local.split('.').any(str::is_empty) {
        Err("begins or ends with a dot before the `@`, or has two in a row")
    } else {
        Ok(())
    }
}

/// What is wrong with what stands behind the `@`, in small letters.
pub(crate) fn check_domain(domain: &str) -> Result<(), &'static str> {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    if domain.is_empty() {
        Err("has nothing behind the `@`")
    } else if !domain.split('.').all(label) {
        Err(
            "has no host's name behind the `@`: expected letters, digits and `-`, with dots between",
        )
    } else {
        Ok(())
    }
}

impl FromStr for MailAddress {
    type Err = MailAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |reason| MailAddressError {
            shown: shown(text),
            reason,
        };
        if text.len() > ADDRESS_LENGTH {
            return Err(wrong("is longer than 254 bytes"));
        }
        if !text.is_ascii() {
            return Err(wrong(
                "is not ASCII; write the host in punycode, and send to a mailbox that has a plain name",
            ));
        }
        if text.contains(['<', '>', '"', ',', ';', ' ']) {
            return Err(wrong(
                "has more than the address itself; leave out names, brackets and further addresses",
            ));
        }
        let (local, domain) = text
            .rsplit_once('@')
            .ok_or_else(|| wrong("has no `@`; expected one such as oncall@example.com"))?;
        check_local(local).map_err(wrong)?;
        let domain = domain.to_ascii_lowercase();
        check_domain(&domain).map_err(wrong)?;
        Ok(Self {
            at: local.len(),
            text: format!("{local}@{domain}"),
        })
    }
}

/// A text fit for a message about it.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(128).collect();
    format!("{short:?}")
}

impl fmt::Display for MailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a mail cannot be sent as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// An address is none.
    #[error(transparent)]
    Address(#[from] MailAddressError),
    /// Nobody would get it.
    #[error("the mail has no recipient: expected at least one address in `to`")]
    Nobody,
    /// Too many would.
    #[error("the mail has more than {RECIPIENTS} recipients")]
    TooMany,
    /// There is no subject, or one that would be more than a subject.
    #[error(
        "the subject is empty, longer than {SUBJECT_LIMIT} bytes, or holds a line break or another control character"
    )]
    Subject,
    /// The text is too long.
    #[error("the text is longer than {} KiB", TEXT_LIMIT >> 10)]
    Text,
}

/// `sentinel:plugin/mail` `message`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename = "mail.send")]
pub struct MailRequest {
    /// Who gets it.
    pub to: Vec<MailAddress>,
    /// Who gets a copy.
    #[serde(default)]
    pub cc: Vec<MailAddress>,
    /// What it is about; one line.
    pub subject: String,
    /// The body.
    pub text: String,
}

impl MailRequest {
    /// Reads what a plugin asks for. What could not be sent, or would be more than it
    /// looks, is refused here.
    pub fn new(
        to: &[String],
        cc: &[String],
        subject: String,
        text: String,
    ) -> Result<Self, MailError> {
        let parse = |addresses: &[String]| {
            let addresses = addresses.iter().map(|address| address.parse());
            addresses.collect::<Result<Vec<MailAddress>, _>>()
        };
        if to.is_empty() {
            return Err(MailError::Nobody);
        }
        if to.len() + cc.len() > RECIPIENTS {
            return Err(MailError::TooMany);
        }
        let bad = subject.chars().any(|c| c.is_control() || is_break(c));
        if subject.trim().is_empty() || subject.len() > SUBJECT_LIMIT || bad {
            return Err(MailError::Subject);
        }
        if text.len() > TEXT_LIMIT {
            return Err(MailError::Text);
        }
        Ok(Self {
            to: parse(to)?,
            cc: parse(cc)?,
            subject,
            text,
        })
    }

    /// Everybody who gets it.
    pub fn recipients(&self) -> impl Iterator<Item = &MailAddress> {
        self.to.iter().chain(&self.cc)
    }

    /// Who gets it, for people: the first of them, and how many more there are.
    #[must_use]
    pub fn recipients_text(&self) -> String {
        let all = self.to.len() + self.cc.len();
        let named: Vec<&str> = self
            .recipients()
            .take(NAMED)
            .map(MailAddress::as_str)
            .collect();
        match all.saturating_sub(NAMED) {
            0 => named.join(", "),
            more => format!("{} and {more} more", named.join(", ")),
        }
    }
}

/// Whether some reader takes this for the end of a line.
fn is_break(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}')
}

/// A recipient that the server refused while it took the mail for others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailRefusal {
    /// The recipient.
    pub address: MailAddress,
    /// What the server said.
    pub reason: String,
}

/// `sentinel:plugin/mail` `receipt`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailReceipt {
    /// What the mail is found by, in angle brackets.
    pub message_id: String,
    /// What the server said when it took it.
    pub said: String,
    /// Who does not get it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<MailRefusal>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(text: &str) -> String {
        text.parse::<MailAddress>().unwrap_err().to_string()
    }

    #[test]
    fn an_address_is_a_plain_one() {
        for (text, local, domain) in [
            ("oncall@example.com", "oncall", "example.com"),
            ("On.Call+db@EXAMPLE.com", "On.Call+db", "example.com"),
            ("root@localhost", "root", "localhost"),
            (
                "o'neil_-=&~#$^@a-b.example",
                "o'neil_-=&~#$^",
                "a-b.example",
            ),
            ("x@xn--bcher-kva.example", "x", "xn--bcher-kva.example"),
        ] {
            let address: MailAddress = text.parse().unwrap();
            assert_eq!((address.local(), address.domain()), (local, domain));
            let json = serde_json::to_string(&address).unwrap();
            assert_eq!(json, format!("\"{local}@{domain}\""));
            assert_eq!(serde_json::from_str::<MailAddress>(&json).unwrap(), address);
        }
    }

    #[test]
    fn what_could_lead_elsewhere_is_no_address() {
        for (text, why) in [
            ("", "no `@`"),
            ("oncall", "no `@`"),
            ("@example.com", "nothing before"),
            ("oncall@", "nothing behind"),
            ("Oncall <oncall@example.com>", "more than the address"),
            ("<oncall@example.com>", "more than the address"),
            ("a@example.com,b@example.com", "more than the address"),
            ("a@example.com;b@example.com", "more than the address"),
            ("\"a b\"@example.com", "more than the address"),
            ("a(comment)@example.com", "none of the letters"),
            ("a\r\nRCPT@example.com", "none of the letters"),
            ("a@example.com\r\nBcc:x@evil.example", "none of the letters"),
            ("a@example.com\r\nBcc: evil", "more than the address"),
            ("a@example.com\n", "no host's name"),
            ("a\0@example.com", "none of the letters"),
            // Routes, as old servers know them.
            ("victim%evil.example@ops.example.com", "none of the letters"),
            ("evil.example!victim@ops.example.com", "none of the letters"),
            ("victim@evil.example@ops.example.com", "none of the letters"),
            ("@evil.example:a@example.com", "none of the letters"),
            (".a@example.com", "a dot"),
            ("a.@example.com", "a dot"),
            ("a..b@example.com", "a dot"),
            ("a@example..com", "no host's name"),
            ("a@-example.com", "no host's name"),
            ("a@[127.0.0.1]", "no host's name"),
            ("a@exam_ple.com", "no host's name"),
            ("bücher@example.com", "not ASCII"),
            ("a@bücher.example", "not ASCII"),
            ("a@example.com\u{2028}", "not ASCII"),
        ] {
            let reason = reason(text);
            assert!(reason.contains(why), "{text:?}: {reason}");
            assert!(!reason.contains('\n'), "{reason:?}");
        }
        assert!(reason(&format!("{}@example.com", "a".repeat(65))).contains("64"));
        assert!(reason(&format!("a@{}", "a.".repeat(200))).contains("254"));
    }

    fn mail(to: &[&str], cc: &[&str], subject: &str, text: &str) -> Result<MailRequest, MailError> {
        let owned = |list: &[&str]| {
            list.iter()
                .map(|each| (*each).to_owned())
                .collect::<Vec<_>>()
        };
        MailRequest::new(&owned(to), &owned(cc), subject.to_owned(), text.to_owned())
    }

    #[test]
    fn a_mail_is_bounded_and_its_subject_is_one_line() {
        let (to, many) = (&["a@example.com"][..], ["a@example.com"; 51]);
        assert_eq!(mail(&[], to, "s", ""), Err(MailError::Nobody));
        assert_eq!(mail(&many, &[], "s", ""), Err(MailError::TooMany));
        assert_eq!(mail(&many[..50], to, "s", ""), Err(MailError::TooMany));
        assert!(mail(&many[..50], &[], "s", "").is_ok());
        assert!(matches!(
            mail(to, &["b"], "s", ""),
            Err(MailError::Address(_))
        ));
        for subject in [
            "",
            " ",
            "a\nBcc: evil@example.com",
            "a\rb",
            "a\u{2028}b",
            "a\u{7}",
            &"ä".repeat(257),
        ] {
            assert_eq!(mail(to, &[], subject, ""), Err(MailError::Subject));
        }
        assert!(mail(to, &[], &"ä".repeat(256), "").is_ok());
        assert!(mail(to, &[], "s", &"x".repeat(TEXT_LIMIT)).is_ok());
        let long = "x".repeat(TEXT_LIMIT + 1);
        assert_eq!(mail(to, &[], "s", &long), Err(MailError::Text));
    }

    #[test]
    fn who_gets_it_is_told_in_short_and_kept_whole() {
        let request = mail(&["a@x", "b@x"], &["c@x", "d@x"], "s", "t").unwrap();
        assert_eq!(request.recipients_text(), "a@x, b@x, c@x and 1 more");
        let json = serde_json::to_string(&request).unwrap();
        assert_eq!(
            json,
            r#"{"call":"mail.send","to":["a@x","b@x"],"cc":["c@x","d@x"],"subject":"s","text":"t"}"#
        );
        let back: crate::capability::Request = serde_json::from_str(&json).unwrap();
        assert_eq!(
            back,
            crate::capability::Request::Mail(Box::new(request.clone()))
        );
        assert_eq!(back.name(), "mail.send");
        assert!(back.is_effect());
    }
}
