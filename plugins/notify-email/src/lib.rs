//! Tells people of an incident by email. A plugin of its own beside `notify`, because what a
//! plugin imports a policy has to grant: who is told in a chat needs no mail, and who is
//! told by mail no HTTP.
//!
//! It is what a policy's `escalate` runs, with the reason and the timeline that sentinel
//! gives to what tells a person, and it can be a step of the ladder too.

#![forbid(unsafe_code)]

mod letter;
#[cfg(test)]
mod tests;

use notice::{Notice, Severity, insist};
use sentinel_plugin::mail::{Message, Receipt};
use sentinel_plugin::{Failure, Incident, Outcome, Remediation, warn};
use serde::Deserialize;

struct NotifyEmail;

/// The step's params; `params.schema.json` explains each.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    to: Addresses,
    #[serde(default)]
    cc: Addresses,
    message: Option<String>,
    severity: Option<Severity>,
}

/// One address, or several. The schema has said before whether they are.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Addresses {
    One(String),
    Several(Vec<String>),
}

impl Default for Addresses {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Addresses {
    fn as_slice(&self) -> &[String] {
        match self {
            Self::One(address) => std::slice::from_ref(address),
            Self::Several(addresses) => addresses,
        }
    }
}

impl Remediation for NotifyEmail {
    type Params = Params;

    const SUMMARY: &'static str = "Tells people by email.";

    const PARAMS_SCHEMA: &'static str = include_str!("../params.schema.json");

    fn remediate(incident: &Incident, params: Params) -> Result<Outcome, Failure> {
        let notice = Notice::of(incident, params.severity, params.message.as_deref());
        let message = message(&notice, &params);
        let receipt = if notice.is_escalation() {
            insist("email", || Ok(message.send()?))?
        } else {
            // The policy's `attempts` and `backoff` say how often. In a run that was
            // approved, a second mail would not be part of the plan.
            message.send()?
        };
        for refusal in &receipt.refused {
            warn!("{} was not told: {}", refusal.address, refusal.reason);
        }
        Ok(Outcome::changed(told(&notice, &message, &receipt)))
    }
}

fn message(notice: &Notice<'_>, params: &Params) -> Message {
    let mut message = Message::new(letter::subject(notice), letter::text(notice));
    message.to = params.to.as_slice().to_vec();
    message.cc = params.cc.as_slice().to_vec();
    message
}

/// Who was told, for the timeline.
fn told(notice: &Notice<'_>, message: &Message, receipt: &Receipt) -> String {
    let refused = |address: &&String| {
        let mut refused = receipt.refused.iter();
        refused.any(|refusal| refusal.address.eq_ignore_ascii_case(address))
    };
    let (missed, told): (Vec<&String>, Vec<&String>) =
        message.to.iter().chain(&message.cc).partition(refused);
    let list = |addresses: &[&String]| {
        let addresses: Vec<&str> = addresses.iter().map(|address| address.as_str()).collect();
        addresses.join(", ")
    };
    let not_told = if missed.is_empty() {
        String::new()
    } else {
        format!(", but not {}", list(&missed))
    };
    format!("told {}{not_told}: {}", list(&told), notice.title())
}

sentinel_plugin::plugin!(
    NotifyEmail,
    name = "notify-email",
    version = env!("CARGO_PKG_VERSION")
);
