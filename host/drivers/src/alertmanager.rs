//! What fires, by Alertmanager's own word.
//!
//! A notification may never come: it is not repeated for a receiver that was down, and
//! an Alertmanager that was restarted has forgotten what it owes. Its API tells what
//! fires now, and with it what no longer does. So an answer counts whole or not at all:
//! one alert that is not understood, and left out, would look as if it had ended.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::{Client, Response, Url};
use sentinel_core::alert::{Alert, AlertStatus, Fingerprint, Labels, identifying_start};
use sentinel_core::bounds;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

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
    /// A file that TLS needs is no good.
    #[error("{path} {reason}", path = .path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
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
    /// that a time interval mutes, Alertmanager says it in [`AlertmanagerClient::groups`].
    pub suppressed: bool,
    /// The receivers that it is routed to, by name.
    pub receivers: Vec<String>,
}

/// An alert in a group of Alertmanager's: what it has told of, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupedAlert {
    /// The alert.
    pub found: ActiveAlert,
    /// Whom the group is told to.
    pub receiver: Option<String>,
    /// Whether a time interval mutes the group; none where Alertmanager does not say, which
    /// it does since 0.28.
    pub muted: Option<bool>,
}

/// Who asks.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// A user with a password.
    Basic {
        /// The user.
        username: String,
        /// Their password.
        password: String,
    },
    /// Whoever has the token.
    Bearer(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { username, .. } => write!(f, "Basic({username:?}, [secret])"),
            Self::Bearer(_) => f.write_str("Bearer([secret])"),
        }
    }
}

/// How TLS is made, where not as the machine has it; files in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The authority that the server's certificate has to be of; one that the machine trusts
    /// where none is named.
    pub ca: Option<PathBuf>,
    /// Our own certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Asks one Alertmanager.
#[derive(Debug, Clone)]
pub struct AlertmanagerClient {
    client: Client,
    alerts: Url,
    login: Option<Login>,
    timeout: Duration,
}

impl AlertmanagerClient {
    /// Takes the URL that Alertmanager is served at, with its path prefix if it has one:
    /// `http://alertmanager:9093`. Connects to nothing.
    pub fn new(base: Url) -> Result<Self, AlertmanagerError> {
        Self::with(base, None, None)
    }

    /// As [`Self::new`], with who asks and how TLS is made.
    pub fn with(
        base: Url,
        login: Option<Login>,
        authority: Option<&Authority>,
    ) -> Result<Self, AlertmanagerError> {
        let alerts = endpoint(base)?;
        let adapt = |builder: reqwest::ClientBuilder| {
            builder
                .connect_timeout(CONNECT_TIMEOUT)
                .redirect(client::within_origin())
        };
        let client = match authority {
            None => client::build(adapt).map_err(AlertmanagerError::Client)?,
            Some(Authority { ca, client }) => {
                let tls = client::tls(ca.as_deref(), client.as_ref())
                    .map_err(|(path, reason)| AlertmanagerError::Tls { path, reason })?;
                client::build_with(tls, adapt).map_err(AlertmanagerError::Client)?
            }
        };
        Ok(Self {
            client,
            alerts,
            login,
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
        let grouped = self.ask(&self.alerts).await?;
        Ok(grouped.into_iter().map(|grouped| grouped.found).collect())
    }

    /// The same by the groups that Alertmanager tells of them in, so that one alert can come
    /// more than once. Only here it says what a time interval mutes.
    pub async fn groups(&self) -> Result<Vec<GroupedAlert>, AlertmanagerError> {
        let mut groups = self.alerts.clone();
        if let Ok(mut path) = groups.path_segments_mut() {
            path.push("groups");
        }
        self.ask(&groups).await
    }

    /// When it was started, if it says so: until some time after that it owes everything
    /// that it had not told before.
    pub async fn started_at(&self) -> Option<Timestamp> {
        #[derive(Deserialize)]
        struct Status {
            uptime: Timestamp,
        }
        let mut status = self.alerts.clone();
        if let Ok(mut path) = status.path_segments_mut() {
            path.pop().push("status");
        }
        let body = tokio::time::timeout(self.timeout, self.body(&status)).await;
        let status: Status = serde_json::from_slice(&body.ok()?.ok()?).ok()?;
        Some(status.uptime)
    }

    async fn ask(&self, url: &Url) -> Result<Vec<GroupedAlert>, AlertmanagerError> {
        let body = tokio::time::timeout(self.timeout, self.body(url))
            .await
            .map_err(|_| AlertmanagerError::TimedOut(self.timeout))??;
        // A large answer takes longer to read than a thread of the runtime may be held.
        tokio::task::spawn_blocking(move || parse(&body))
            .await
            .map_err(|error| AlertmanagerError::Malformed(error.to_string()))?
    }

    async fn body(&self, url: &Url) -> Result<Vec<u8>, AlertmanagerError> {
        let unreachable =
            |error: reqwest::Error| AlertmanagerError::Unreachable(chain(&error.without_url()));
        let request = self.client.get(url.clone());
        let request = match &self.login {
            None => request,
            Some(Login::Basic { username, password }) => {
                request.basic_auth(username, Some(password))
            }
            Some(Login::Bearer(token)) => request.bearer_auth(token),
        };
        let mut answer = request.send().await.map_err(unreachable)?;
        if !answer.status().is_success() {
            return Err(refusal(answer, self.login.as_ref()).await);
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
async fn refusal(mut answer: Response, login: Option<&Login>) -> AlertmanagerError {
    let status = answer.status().as_u16();
    // Whoever refuses a login may repeat it.
    if let (401 | 403, Some(_)) = (status, login) {
        return AlertmanagerError::Refused {
            status,
            reason: "it does not take `alertmanager.basic_auth` or `alertmanager.bearer`"
                .to_owned(),
        };
    }
    if let (401, None) = (status, login) {
        return AlertmanagerError::Refused {
            status,
            reason: "it asks who is there: set `alertmanager.basic_auth` or `alertmanager.bearer`"
                .to_owned(),
        };
    }
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
        reason: shown(&without(&text, login)),
    }
}

/// A text without the secret of a login.
fn without(text: &str, login: Option<&Login>) -> String {
    let secret = match login {
        Some(Login::Basic { password, .. }) => password,
        Some(Login::Bearer(token)) => token,
        None => return text.to_owned(),
    };
    text.replace(secret, "[secret]")
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
    annotations: Option<Labels>,
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
    #[serde(default)]
    muted_by: Option<Vec<String>>,
}

/// An `alertGroup` of Alertmanager's API.
#[derive(Debug, Deserialize)]
struct WireGroup {
    alerts: Vec<WireAlert>,
    #[serde(default)]
    receiver: Option<WireReceiver>,
}

/// What tells a group from an alert.
#[derive(Debug, Deserialize)]
struct WireKind {
    #[serde(default)]
    alerts: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct WireReceiver {
    name: String,
}

/// Reads what Alertmanager's API answers: a list of groups or of alerts.
pub fn parse(body: &[u8]) -> Result<Vec<GroupedAlert>, AlertmanagerError> {
    let malformed =
        |error: serde_json::Error| AlertmanagerError::Malformed(shown(&error.to_string()));
    let entries: Vec<&RawValue> = serde_json::from_slice(body).map_err(malformed)?;
    let mut found = Vec::with_capacity(entries.len());
    for entry in entries {
        let kind: WireKind = serde_json::from_str(entry.get()).map_err(malformed)?;
        let group = if kind.alerts.is_some() {
            serde_json::from_str(entry.get()).map_err(malformed)?
        } else {
            WireGroup {
                alerts: vec![serde_json::from_str(entry.get()).map_err(malformed)?],
                receiver: None,
            }
        };
        let receiver = group.receiver.map(|receiver| receiver.name);
        for alert in group.alerts {
            found.push(alert.normalise(receiver.clone())?);
        }
    }
    Ok(found)
}

impl WireAlert {
    /// As a notification of the same alert is taken in: what Alertmanager writes in
    /// other ways here and there comes out the same.
    fn normalise(self, receiver: Option<String>) -> Result<GroupedAlert, AlertmanagerError> {
        let mut labels = self.labels;
        labels.retain(|_, value| !value.is_empty());
        if labels.is_empty() || self.fingerprint.is_empty() {
            return Err(AlertmanagerError::Malformed(
                "an alert has no labels or no fingerprint".to_owned(),
            ));
        }
        // As it is taken from a notification.
        let fingerprint = if self.fingerprint.len() > bounds::FINGERPRINT {
            Fingerprint::of(&labels)
        } else {
            Fingerprint(self.fingerprint)
        };
        let link = |url: &String| (1..=bounds::LINK).contains(&url.len());
        let status = self.status;
        let held = [&status.silenced_by, &status.inhibited_by];
        let muted = status.muted_by.as_ref().map(|by| !by.is_empty());
        let found = ActiveAlert {
            alert: Alert {
                source: "alertmanager".to_owned(),
                fingerprint,
                status: AlertStatus::Firing,
                labels,
                annotations: bounds::annotations(self.annotations.unwrap_or_default()),
                starts_at: identifying_start(self.starts_at),
                // What stands there is when Alertmanager would give the alert up.
                ends_at: None,
                generator_url: self.generator_url.filter(link),
            },
            suppressed: status.state == "suppressed" || held.iter().any(|by| !by.is_empty()),
            receivers: self
                .receivers
                .into_iter()
                .map(|receiver| receiver.name)
                .collect(),
        };
        Ok(GroupedAlert {
            found,
            receiver,
            muted,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(status: &str) -> String {
        format!(
            r#"{{"labels":{{"alertname":"A"}},"annotations":null,"startsAt":"2026-01-01T00:00:00Z",
                "fingerprint":"f","receivers":[{{"name":"r"}}],"status":{status}}}"#
        )
    }

    #[test]
    fn groups_say_what_is_muted_and_older_versions_do_not() {
        for (status, suppressed, muted) in [
            // 0.25, silenced there, 0.28 and later, muted there.
            (
                r#"{"state":"active","silencedBy":[],"inhibitedBy":[]}"#,
                false,
                None,
            ),
            (
                r#"{"state":"suppressed","silencedBy":["s"],"inhibitedBy":[]}"#,
                true,
                None,
            ),
            (
                r#"{"state":"active","silencedBy":[],"inhibitedBy":[],"mutedBy":[]}"#,
                false,
                Some(false),
            ),
            (
                r#"{"state":"suppressed","silencedBy":[],"inhibitedBy":[],"mutedBy":["night"]}"#,
                true,
                Some(true),
            ),
        ] {
            let body = format!(
                r#"[{{"labels":{{}},"receiver":{{"name":"g"}},"alerts":[{}]}}]"#,
                alert(status)
            );
            let found = parse(body.as_bytes()).unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].muted, muted, "{status}");
            assert_eq!(found[0].found.suppressed, suppressed, "{status}");
            assert_eq!(found[0].receiver.as_deref(), Some("g"));
            let flat = parse(format!("[{}]", alert(status)).as_bytes()).unwrap();
            assert_eq!(flat[0].found, found[0].found);
        }
        assert!(parse(br#"[{"labels":{}}]"#).is_err());
        assert!(parse(br#"[{"alerts":[{}]}]"#).is_err());
        assert_eq!(parse(b"[]").unwrap(), []);
    }

    #[test]
    fn what_is_found_is_bounded_as_what_is_told() {
        let active = alert(r#"{"state":"active"}"#);
        let with = |fingerprint: &str, link: &str| {
            let text = active.replace(
                r#""fingerprint":"f""#,
                &format!(r#""fingerprint":"{fingerprint}","generatorURL":"{link}""#),
            );
            parse(format!("[{text}]").as_bytes())
                .unwrap()
                .remove(0)
                .found
                .alert
        };
        let short = with("f", "http://p/graph");
        assert_eq!(short.fingerprint.0, "f");
        assert_eq!(short.generator_url.as_deref(), Some("http://p/graph"));
        let long = with(&"f".repeat(200), &"h".repeat(5_000));
        assert_eq!(long.fingerprint, Fingerprint::of(&long.labels));
        assert_eq!(long.generator_url, None);
    }

    #[test]
    fn a_login_is_in_no_text() {
        let login = Login::Bearer("s3cret".to_owned());
        assert!(!format!("{login:?}").contains("s3cret"));
        assert_eq!(without("who is s3cret?", Some(&login)), "who is [secret]?");
    }

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
