//! A mail as it goes out.

use std::fmt;
use std::str::FromStr;

use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, SinglePart};
use lettre::{Address, Message};
use sentinel_core::capability::CapabilityError;
use sentinel_core::mail::{MailAddress, MailAddressError, MailRequest};

/// How long the name of a sender may be, in bytes.
const NAME_LENGTH: usize = 128;

/// Who mails are from: `sentinel@example.com`, or `Sentinel <sentinel@example.com>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    name: Option<String>,
    address: MailAddress,
}

/// Why a text is no sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SenderError {
    /// The address is none.
    #[error(transparent)]
    Address(#[from] MailAddressError),
    /// The name is none.
    #[error(
        "the name is empty, longer than {NAME_LENGTH} bytes, or holds a bracket, a quote or a control character"
    )]
    Name,
}

impl FromStr for Sender {
    type Err = SenderError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((name, address)) = text
            .strip_suffix('>')
            .and_then(|text| text.rsplit_once('<'))
        else {
            return Ok(Self {
                name: None,
                address: text.parse()?,
            });
        };
        let name = name.trim();
        let odd = |c: char| c.is_control() || matches!(c, '<' | '>' | '"');
        if name.is_empty() || name.len() > NAME_LENGTH || name.contains(odd) {
            return Err(SenderError::Name);
        }
        Ok(Self {
            name: Some(name.to_owned()),
            address: address.parse()?,
        })
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} <{}>", self.address),
            None => self.address.fmt(f),
        }
    }
}

/// Says that no human wrote it, so that nobody's absence is answered (RFC 3834).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// A mail, and what is said of it before it.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) from: Address,
    /// Each once.
    pub(super) recipients: Vec<MailAddress>,
    /// In angle brackets.
    pub(super) message_id: String,
    /// The headers and the body, all of it ASCII.
    pub(super) bytes: Vec<u8>,
}

impl Outgoing {
    pub(super) fn new(
        from: &Sender,
        request: &MailRequest,
        id: &str,
    ) -> Result<Self, CapabilityError> {
        let message_id = format!("<sentinel.{id}@{}>", from.address.domain());
        let sender = address(&from.address)?;
        let mut builder = Message::builder()
            .from(Mailbox::new(from.name.clone(), sender.clone()))
            .subject(request.subject.clone())
            .message_id(Some(message_id.clone()))
            .header(AutoSubmitted)
            .date_now();
        for to in &request.to {
            builder = builder.to(Mailbox::new(None, address(to)?));
        }
        for cc in &request.cc {
            builder = builder.cc(Mailbox::new(None, address(cc)?));
        }
        let message = builder
            .singlepart(SinglePart::plain(request.text.clone()))
            .map_err(|error| CapabilityError::Invalid(error.to_string()))?;
        let mut recipients: Vec<MailAddress> = Vec::new();
        for recipient in request.recipients() {
            if !recipients.contains(recipient) {
                recipients.push(recipient.clone());
            }
        }
        Ok(Self {
            from: sender,
            recipients,
            message_id,
            bytes: message.formatted(),
        })
    }
}

/// An address as the library has it.
pub(super) fn address(address: &MailAddress) -> Result<Address, CapabilityError> {
    Address::new(address.local(), address.domain())
        .map_err(|error| CapabilityError::Invalid(format!("{address}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(text: &str) -> Sender {
        text.parse().unwrap()
    }

    /// A mail as it goes out, its headers unfolded.
    fn mail(from: &str, to: &[&str], cc: &[&str], subject: &str, text: &str) -> (Outgoing, String) {
        let owned = |list: &[&str]| {
            list.iter()
                .map(|each| (*each).to_owned())
                .collect::<Vec<_>>()
        };
        let request =
            MailRequest::new(&owned(to), &owned(cc), subject.to_owned(), text.to_owned()).unwrap();
        let mail = Outgoing::new(&sender(from), &request, "42.1.abc").unwrap();
        assert!(mail.bytes.is_ascii());
        let whole = String::from_utf8(mail.bytes.clone()).unwrap();
        for line in whole.split("\r\n") {
            assert!(
                !line.contains(['\r', '\n']) && line.len() <= 998,
                "{line:?}"
            );
        }
        let unfolded = whole.replace("\r\n ", " ");
        (mail, unfolded)
    }

    #[test]
    fn a_sender_is_an_address_with_or_without_a_name() {
        for (text, name, address) in [
            ("s@example.com", None, "s@example.com"),
            (
                "Sentinel <s@example.com>",
                Some("Sentinel"),
                "s@example.com",
            ),
            (
                "Wächter, Nord <s@Example.com>",
                Some("Wächter, Nord"),
                "s@example.com",
            ),
        ] {
            let sender = sender(text);
            assert_eq!(sender.name.as_deref(), name);
            assert_eq!(sender.address.as_str(), address);
        }
        for text in [
            "",
            "Sentinel",
            "<s@example.com>",
            "Sentinel <>",
            "Sentinel <s@example.com",
            "\"x\" <s@example.com>",
            "a\r\nBcc: x@evil.example <s@example.com>",
            "a <b@example.com> <s@example.com>",
        ] {
            assert!(text.parse::<Sender>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_mail_has_the_headers_that_it_needs() {
        let (mail, text) = mail(
            "Sentinel <s@example.com>",
            &["a@example.com", "b@example.com"],
            &["c@example.com", "a@example.com"],
            "web is down",
            "first\nsecond\n.\nlast",
        );
        let (headers, body) = text.split_once("\r\n\r\n").unwrap();
        for header in [
            "From: Sentinel <s@example.com>",
            "To: a@example.com, b@example.com",
            "Cc: c@example.com, a@example.com",
            "Subject: web is down",
            "Message-ID: <sentinel.42.1.abc@example.com>",
            "Auto-Submitted: auto-generated",
            "MIME-Version: 1.0",
            "Content-Type: text/plain; charset=utf-8",
        ] {
            assert!(
                headers.lines().any(|line| line == header),
                "{header} in {headers}"
            );
        }
        assert!(headers.contains("Date: "), "{headers}");
        assert_eq!(body.trim_end(), "first\r\nsecond\r\n.\r\nlast");
        assert_eq!(mail.message_id, "<sentinel.42.1.abc@example.com>");
        let recipients: Vec<&str> = mail.recipients.iter().map(MailAddress::as_str).collect();
        assert_eq!(
            recipients,
            ["a@example.com", "b@example.com", "c@example.com"]
        );
    }

    #[test]
    fn what_is_not_ascii_is_encoded() {
        let long = "ü".repeat(200);
        let (_, text) = mail(
            "Wächter <s@example.com>",
            &["a@example.com"],
            &[],
            &long,
            &format!("{long}\u{0}\u{2028}\n{}", "x".repeat(3000)),
        );
        assert!(text.contains("From: =?utf-8?b?"), "{text}");
        assert!(text.contains("Subject: =?utf-8?b?"), "{text}");
        assert!(!text.contains("Content-Transfer-Encoding: 7bit"), "{text}");
    }
}
