//! Tells people of an incident: in a chat, by a pager, through a webhook, or with an alert
//! of its own in an Alertmanager.
//!
//! It is what a policy's `escalate` runs, with the reason and the timeline that sentinel
//! gives to what tells a person, and it can be a step of the ladder too.

#![forbid(unsafe_code)]

mod alertmanager;
mod chat;
mod pagerduty;
mod params;
#[cfg(test)]
mod tests;
mod webhook;

use std::time::Duration;

use notice::{Markup, Unheard, cut, insist};
use sentinel_plugin::http::{Request, Response};
use sentinel_plugin::serde_json::Value;
use sentinel_plugin::{CapabilityError, Failure, Incident, Outcome, Remediation};

use crate::params::{Kind, Params};

struct Notify;

impl Remediation for Notify {
    type Params = Params;

    const SUMMARY: &'static str = "Tells people: Slack, Mattermost, Rocket.Chat, Discord, PagerDuty, Alertmanager, or any webhook.";

    const PARAMS_SCHEMA: &'static str = include_str!("../params.schema.json");

    fn remediate(incident: &Incident, params: Params) -> Result<Outcome, Failure> {
        let notice = params.notice(incident);
        let fires = (params.kind == Kind::Alertmanager)
            .then(|| alertmanager::fires(&notice, &params))
            .flatten();
        let body = match params.kind {
            Kind::Slack => chat::payload(&notice, Markup::Slack),
            Kind::Mattermost => chat::payload(&notice, Markup::Mattermost),
            Kind::RocketChat => chat::payload(&notice, Markup::RocketChat),
            Kind::Discord => chat::discord(&notice),
            Kind::Pagerduty => pagerduty::payload(&notice, &params),
            Kind::Alertmanager => alertmanager::payload(&notice, &params, fires.as_ref()),
            Kind::Webhook => webhook::payload(&notice),
        };
        let request = request(&params, &body)?;
        let kind = params.kind.as_str();
        let status = if notice.is_escalation() {
            until_heard(&request, kind)?
        } else {
            // The policy's `attempts` and `backoff` say how often. In a run that was
            // approved, a second request would not be part of the plan.
            once(&request)?
        };
        Ok(Outcome::changed(format!(
            "told by {kind}: {} (status {status})",
            notice.title()
        )))
    }
}

/// The request that tells it.
fn request(params: &Params, body: &Value) -> Result<Request, Failure> {
    let url = match (params.kind, &params.url) {
        (Kind::Pagerduty, None) => pagerduty::URL.to_owned(),
        (Kind::Alertmanager, Some(url)) => alertmanager::url(url),
        (_, Some(url)) => url.clone(),
        (kind, None) => {
            return Err(Failure::permanent(format!(
                "{} needs the param `url`",
                kind.as_str()
            )));
        }
    };
    let mut request = Request::post(url).timeout(params.timeout).json(body)?;
    for (name, value) in &params.headers {
        request = request.header(name, value);
    }
    if params.kind == Kind::Pagerduty {
        let key = params.key.as_deref().unwrap_or_default();
        let name = key.strip_prefix("secret://").ok_or_else(|| {
            Failure::permanent("the param `key` names no secret: expected secret://NAME")
        })?;
        request = request.secret_field(pagerduty::KEY, name);
    }
    Ok(request)
}

/// Sends it; the answer's status.
fn once(request: &Request) -> Result<u16, CapabilityError> {
    accepted(&request.send()?)
}

/// Sends it until it is heard.
fn until_heard(request: &Request, kind: &str) -> Result<u16, CapabilityError> {
    insist(kind, || {
        let answer = request.send()?;
        let pause = retry_after(&answer);
        accepted(&answer).map_err(|error| Unheard { error, pause })
    })
}

/// How long the other side asks to be left alone.
fn retry_after(answer: &Response) -> Option<Duration> {
    let seconds = answer.header("retry-after")?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The status of an answer that says yes; else what is wrong, in the words of the other
/// side.
fn accepted(answer: &Response) -> Result<u16, CapabilityError> {
    let said: String = answer
        .text()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let said = match said.trim() {
        // The host keeps back what it answers to a request with a secret.
        "" if answer.truncated && answer.body.is_empty() => {
            "; what else it says is kept back (`answers: true` in the policy's grant of http shows it)"
                .to_owned()
        }
        "" => String::new(),
        said => format!(": {}", cut(said, 300)),
    };
    let text = format!("the answer's status is {}{said}", answer.status);
    match answer.status {
        200..300 => Ok(answer.status),
        408 | 425 | 429 | 500..600 => Err(CapabilityError::Unavailable(text)),
        404 | 410 => Err(CapabilityError::NotFound(text)),
        // A redirect that the policy grants has been followed; this one is not granted.
        300..500 => Err(CapabilityError::Invalid(text)),
        _ => Err(CapabilityError::Failed(text)),
    }
}

sentinel_plugin::plugin!(Notify, name = "notify", version = env!("CARGO_PKG_VERSION"));
