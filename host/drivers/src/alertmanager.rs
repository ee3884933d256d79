//! What fires, by Alertmanager's own word.
//!
//! A notification may never come: it is not repeated for a receiver that was down, and
//! an Alertmanager that was restarted has forgotten what it owes. Its API tells what
//! fires now, and with it what no longer does. So an answer counts whole or not at all:
//! one alert that is not understood, and left out, would look as if it had ended.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::{Client, Response, Url};
use sentinel_core::alert::{Alert, AlertStatus, Fingerprint, Labels, identifying_start};
use serde::Deserialize;

use crate::client::{self, chain};

/// How much of an answer is read: some 90,000 alerts.
const BODY_LIMIT: usize = 64 << 20;

/// How long the whole answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long making the connection may take of that.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of a refusal is shown.
const REASON_LENGTH: usize = 300;

/// Why Alertmanager did not say what fires.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AlertmanagerError {
    /// The URL is none to ask at.
    #[error("the URL of alertmanager {0}")]
    Url(&'static str),
    /// The client could not be made.
    #[error("no HTTP client: {0}")]
    Client(String),
    /// The answer was not whole in time.
    #[error("no whole answer from alertmanager within {0:?}")]
    TimedOut(Duration),
    /// No connection, or one that broke, or TLS that was refused.
    #[error("alertmanager is not reached: {0}")]
    Unreachable(String),
    /// It answered, and not with alerts.
    #[error("alertmanager answered {status}: {reason}")]
    Refused {
        /// The status of the answer.
        status: u16,
        /// The beginning of its body, or where it redirects to.
        reason: String,
    },
    /// The answer is larger than 64 MiB.
    #[error("the answer of alertmanager is larger than {} MiB", BODY_LIMIT >> 20)]
    TooLarge,
    /// The answer is not what `GET /api/v2/alerts` gives.
    #[error("the answer of alertmanager is not understood: {0}")]
    Malformed(String),
}

/// An alert that Alertmanager holds for firing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveAlert {
    /// The alert, with the identity that a notification of it has.
    pub alert: Alert,
    /// Whether it is silenced or inhibited, so that no notification is sent. Of alerts
    /// that a time interval mutes, Alertmanager does not say it here.
    pub suppressed: bool,
    /// The receivers that it is routed to, by name.
    pub receivers: Vec<String>,
}

/// Asks one Alertmanager.
#[derive(Debug, Clone)]
pub struct AlertmanagerClient {
    client: Client,
    alerts: Url,
    timeout: Duration,
}

impl AlertmanagerClient {
    /// Takes the URL that Alertmanager is served at, with its path prefix if it has one:
    /// `http://alertmanager:9093`. Connects to nothing.
    pub fn new(base: Url) -> Result<Self, AlertmanagerError> {
        let alerts = endpoint(base)?;
        let client = client::build(|builder| {
            builder
                .connect_timeout(CONNECT_TIMEOUT)
                .redirect(client::within_origin())
        })
        .map_err(AlertmanagerError::Client)?;
        Ok(Self {
            client,
            alerts,
            timeout: TIMEOUT,
        })
    }

    /// With another time for the whole answer than 30 seconds.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// All alerts that fire, also those of which no notification is sent.
    pub async fn alerts(&self) -> Result<Vec<ActiveAlert>, AlertmanagerError> {
        let body = tokio::time::timeout(self.timeout, self.body())
            .await
            .map_err(|_| AlertmanagerError::TimedOut(self.timeout))??;
        // A large answer takes longer to read than a thread of the runtime may be held.
        tokio::task::spawn_blocking(move || parse(&body))
            .await
            .map_err(|error| AlertmanagerError::Malformed(error.to_string()))?
    }

    async fn body(&self) -> Result<Vec<u8>, AlertmanagerError> {
        let unreachable =
            |error: reqwest::Error| AlertmanagerError::Unreachable(chain(&error.without_url()));
        let mut answer = self
            .client
            .get(self.alerts.clone())
            .send()
            .await
            .map_err(unreachable)?;
        if !answer.status().is_success() {
            return Err(refusal(answer).await);
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > BODY_LIMIT {
                return Err(AlertmanagerError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// Where the alerts are, below `base`.
fn endpoint(mut base: Url) -> Result<Url, AlertmanagerError> {
    let wrong = |reason| Err(AlertmanagerError::Url(reason));
    if !matches!(base.scheme(), "http" | "https") {
        return wrong("is neither http nor https");
    }
    if !base.username().is_empty() || base.password().is_some() {
        return wrong("holds a user or a password, which logs would show");
    }
    if base.query().is_some() || base.fragment().is_some() {
        return wrong("has a query or a fragment; it ends with the path that alertmanager is at");
    }
    match base.path_segments_mut() {
        Ok(mut path) => path.pop_if_empty().extend(["api", "v2", "alerts"]),
        Err(()) => return wrong("has no path"),
    };
    Ok(base)
}

/// What an answer that is no success says.
async fn refusal(mut answer: Response) -> AlertmanagerError {
    let status = answer.status().as_u16();
    let location = answer.headers().get(reqwest::header::LOCATION);
    let text = match location {
        Some(location) if answer.status().is_redirection() => format!(
            "it redirects to {}, which is elsewhere",
            String::from_utf8_lossy(location.as_bytes())
        ),
        // A body that breaks off says nothing more than the status.
        _ => match answer.chunk().await {
            Ok(Some(chunk)) => String::from_utf8_lossy(&chunk).into_owned(),
            Ok(None) | Err(_) => "no reason given".to_owned(),
        },
    };
    AlertmanagerError::Refused {
        status,
        reason: shown(&text),
    }
}

/// What others wrote, fit for one line of a log.
fn shown(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(REASON_LENGTH)
        .collect();
    line.trim().to_owned()
}

/// A `gettableAlert` of Alertmanager's API. Unknown fields are ignored, because new ones
/// come with each version.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireAlert {
    labels: Labels,
    #[serde(default)]
    annotations: Labels,
    starts_at: Timestamp,
    fingerprint: String,
    #[serde(default, rename = "generatorURL")]
    generator_url: Option<String>,
    status: WireStatus,
    receivers: Vec<WireReceiver>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireStatus {
    state: String,
    #[serde(default)]
    silenced_by: Vec<String>,
    #[serde(default)]
    inhibited_by: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct WireReceiver {
    name: String,
}

fn parse(body: &[u8]) -> Result<Vec<ActiveAlert>, AlertmanagerError> {
    let alerts: Vec<WireAlert> = serde_json::from_slice(body)
        .map_err(|error| AlertmanagerError::Malformed(shown(&error.to_string())))?;
    alerts.into_iter().map(WireAlert::normalise).collect()
}

impl WireAlert {
    /// As a notification of the same alert is taken in: what Alertmanager writes in
    /// other ways here and there comes out the same.
    fn normalise(self) -> Result<ActiveAlert, AlertmanagerError> {
        let mut labels = self.labels;
        labels.retain(|_, value| !value.is_empty());
        if labels.is_empty() || self.fingerprint.is_empty() {
            return Err(AlertmanagerError::Malformed(
                "an alert has no labels or no fingerprint".to_owned(),
            ));
        }
        let status = self.status;
        let held = [&status.silenced_by, &status.inhibited_by];
        Ok(ActiveAlert {
            alert: Alert {
                source: "alertmanager".to_owned(),
                fingerprint: Fingerprint(self.fingerprint),
                status: AlertStatus::Firing,
                labels,
                annotations: self.annotations,
                starts_at: identifying_start(self.starts_at),
                // What stands there is when Alertmanager would give the alert up.
                ends_at: None,
                generator_url: self.generator_url.filter(|url| !url.is_empty()),
            },
            suppressed: status.state == "suppressed" || held.iter().any(|by| !by.is_empty()),
            receivers: self
                .receivers
                .into_iter()
                .map(|receiver| receiver.name)
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_is_below_the_path_that_alertmanager_is_at() {
        for (base, expected) in [
            ("http://am:9093", "http://am:9093/api/v2/alerts"),
            ("http://am:9093/", "http://am:9093/api/v2/alerts"),
            ("https://x/am", "https://x/am/api/v2/alerts"),
            ("https://x/am/", "https://x/am/api/v2/alerts"),
            ("http://[::1]:9093", "http://[::1]:9093/api/v2/alerts"),
        ] {
            let found = endpoint(base.parse().unwrap()).unwrap();
            assert_eq!(found.as_str(), expected);
        }
    }

    #[test]
    fn urls_that_cannot_be_asked_say_why_and_keep_their_secrets() {
        for (base, reason) in [
            ("ftp://am/", "neither http nor https"),
            ("unix:/run/am.sock", "neither http nor https"),
            ("http://user@am/", "a user or a password"),
            ("http://user:s3cret@am/", "a user or a password"),
            ("http://:s3cret@am/", "a user or a password"),
            ("http://am/?x=1", "a query"),
            ("http://am/#x", "a fragment"),
        ] {
            let error = AlertmanagerClient::new(base.parse().unwrap()).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(reason), "{base}: {text}");
            assert!(!text.contains("s3cret"), "{text}");
        }
    }
}
