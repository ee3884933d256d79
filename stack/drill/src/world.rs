//! The services of the stack, as far as the drill asks them.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use reqwest::{Client, Method, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// How long an answer may take before the service counts as not answering.
pub(crate) const PATIENCE: Duration = Duration::from_millis(400);

/// Where everything is.
#[derive(Debug, Clone)]
pub(crate) struct World {
    client: Client,
    docker: Docker,
    nginx: String,
    prometheus: String,
    alertmanager: String,
    sentinel: String,
    container: String,
}

/// The addresses of the services.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Addresses {
    /// The service that is broken and healed
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) nginx: String,
    /// Prometheus, whose rule fires
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9090")]
    pub(crate) prometheus: String,
    /// Alertmanager, which delivers
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9093")]
    pub(crate) alertmanager: String,
    /// Sentinel, which heals
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9095")]
    pub(crate) sentinel: String,
    /// The Docker engine, by unix or tcp
    #[arg(
        long,
        value_name = "URL",
        env = "DOCKER_HOST",
        default_value = "unix:///var/run/docker.sock"
    )]
    pub(crate) docker: String,
    /// The container of the service; its alerts carry this name as their label `container`
    #[arg(long, value_name = "NAME", default_value = "nginx")]
    pub(crate) container: String,
}

/// How the service is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Failure {
    /// Its process is killed
    Kill,
    /// It is stopped in good order
    Stop,
    /// It hangs: connections are taken, and nothing answers
    Pause,
}

impl Failure {
    /// The command of the Docker CLI that does the same.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Pause => "pause",
        }
    }
}

#[derive(Debug, Clone)]
struct Docker {
    client: Client,
    base: String,
}

impl Docker {
    fn new(address: &str) -> Result<Self> {
        let (client, base) = if let Some(path) = address.strip_prefix("unix://") {
            (
                Client::builder().unix_socket(std::path::PathBuf::from(path)),
                "http://localhost".to_owned(),
            )
        } else if let Some(host) = address.strip_prefix("tcp://") {
            (Client::builder(), format!("http://{host}"))
        } else {
            bail!(
                "{address} is no address of a Docker engine: expected unix:///PATH or tcp://HOST:PORT"
            );
        };
        Ok(Self {
            client: client.timeout(Duration::from_secs(30)).build()?,
            base,
        })
    }
}

/// An alert, of Prometheus or of Alertmanager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeenAlert {
    pub(crate) name: String,
    pub(crate) firing: bool,
}

#[derive(Debug, Deserialize)]
struct Labels {
    #[serde(default)]
    alertname: String,
    #[serde(default)]
    container: String,
}

#[derive(Debug, Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Debug, Deserialize)]
struct PrometheusAlerts {
    alerts: Vec<PrometheusAlert>,
}

#[derive(Debug, Deserialize)]
struct PrometheusAlert {
    labels: Labels,
    state: String,
}

#[derive(Debug, Deserialize)]
struct AlertmanagerAlert {
    labels: Labels,
}

#[derive(Debug, Deserialize)]
struct IncidentList {
    incidents: Vec<ListedIncident>,
}

/// An incident as sentinel lists it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ListedIncident {
    pub(crate) id: u64,
    pub(crate) target: String,
    pub(crate) end: Option<String>,
}

#[derive(Debug, Deserialize)]
struct IncidentView {
    events: Vec<IncidentEvent>,
}

/// Something that happened to an incident.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct IncidentEvent {
    pub(crate) at: Timestamp,
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) text: String,
    /// When the delivery was committed; of `opened`.
    pub(crate) accepted_at: Option<Timestamp>,
}

impl World {
    pub(crate) fn new(addresses: &Addresses) -> Result<Self> {
        let container = addresses.container.clone();
        // The name becomes part of a path of the engine's API.
        let fits = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if container.is_empty()
            || container.starts_with(['.', '-', '_'])
            || !container.chars().all(fits)
        {
            bail!("{container:?} cannot be the name of a container");
        }
        let bare = |url: &str| url.trim_end_matches('/').to_owned();
        Ok(Self {
            // A connection of its own for each question: one that outlives the service says nothing.
            client: Client::builder()
                .no_proxy()
                .pool_max_idle_per_host(0)
                .timeout(PATIENCE)
                .build()?,
            docker: Docker::new(&addresses.docker)?,
            nginx: bare(&addresses.nginx),
            prometheus: bare(&addresses.prometheus),
            alertmanager: bare(&addresses.alertmanager),
            sentinel: bare(&addresses.sentinel),
            container,
        })
    }

    /// Orders the failure; the engine has carried it out when this returns.
    pub(crate) async fn break_it(&self, failure: Failure) -> Result<()> {
        let url = format!(
            "{}/containers/{}/{}",
            self.docker.base,
            self.container,
            failure.as_str()
        );
        let response = self
            .docker
            .client
            .request(Method::POST, url)
            .send()
            .await
            .context("the Docker engine does not answer")?;
        if !response.status().is_success() {
            let status = response.status();
            let body = response.text().await.unwrap_or_default();
            bail!(
                "docker {} {}: {status} {}",
                failure.as_str(),
                self.container,
                body.trim()
            );
        }
        Ok(())
    }

    /// Whether the service answers within `patience`.
    pub(crate) async fn nginx_answers(&self, patience: Duration) -> bool {
        let answer = self.client.get(&self.nginx).timeout(patience).send().await;
        answer.is_ok_and(|response| response.status().is_success())
    }

    /// The alerts of the container, as Prometheus has them; inactive ones are not among them.
    pub(crate) async fn prometheus_alerts(&self) -> Result<Vec<SeenAlert>> {
        let answer: Answer<PrometheusAlerts> = self
            .json(&format!("{}/api/v1/alerts", self.prometheus))
            .await?;
        let alerts = answer.data.alerts.into_iter();
        Ok(alerts
            .filter(|alert| alert.labels.container == self.container)
            .map(|alert| SeenAlert {
                name: alert.labels.alertname,
                firing: alert.state == "firing",
            })
            .collect())
    }

    /// Whether Prometheus has seen the service answer.
    pub(crate) async fn prometheus_sees_service(&self) -> Result<bool> {
        let answer: Answer<Value> = self
            .json(&format!(
                "{}/api/v1/query?query=nginx_up==1",
                self.prometheus
            ))
            .await?;
        let series = answer.data.get("result").and_then(Value::as_array);
        Ok(series.is_some_and(|series| !series.is_empty()))
    }

    /// Whether Prometheus knows an Alertmanager.
    pub(crate) async fn prometheus_has_alertmanager(&self) -> Result<bool> {
        let answer: Answer<Value> = self
            .json(&format!("{}/api/v1/alertmanagers", self.prometheus))
            .await?;
        let active = answer
            .data
            .get("activeAlertmanagers")
            .and_then(Value::as_array);
        Ok(active.is_some_and(|active| !active.is_empty()))
    }

    /// The names of the container's alerts that Alertmanager has and that have not resolved.
    pub(crate) async fn alertmanager_alerts(&self) -> Result<Vec<String>> {
        let alerts: Vec<AlertmanagerAlert> = self
            .json(&format!("{}/api/v2/alerts", self.alertmanager))
            .await?;
        Ok(alerts
            .into_iter()
            .filter(|alert| alert.labels.container == self.container)
            .map(|alert| alert.labels.alertname)
            .collect())
    }

    /// Why sentinel says that it is not ready; none when it is.
    pub(crate) async fn sentinel_is_ready(&self) -> Result<Option<String>> {
        let url = format!("{}/readyz", self.sentinel);
        let response = self.client.get(url).send().await?;
        if response.status() == StatusCode::OK {
            return Ok(None);
        }
        Ok(Some(response.text().await?.trim().to_owned()))
    }

    /// The incidents of the container, newest first.
    pub(crate) async fn incidents(&self) -> Result<Vec<ListedIncident>> {
        let list: IncidentList = self
            .json(&format!("{}/api/v1/incidents?limit=20", self.sentinel))
            .await?;
        let name = format!("/{}", self.container);
        let mut incidents = list.incidents;
        incidents.retain(|incident| incident.target.ends_with(&name));
        Ok(incidents)
    }

    /// What has happened to an incident, oldest first.
    pub(crate) async fn events(&self, incident: u64) -> Result<Vec<IncidentEvent>> {
        let view: IncidentView = self
            .json(&format!("{}/api/v1/incidents/{incident}", self.sentinel))
            .await?;
        Ok(view.events)
    }

    /// How many resolved alerts sentinel has accepted since it started.
    pub(crate) async fn resolved_accepted(&self) -> Result<u64> {
        let url = format!("{}/metrics", self.sentinel);
        let response = self.client.get(url).send().await?.error_for_status()?;
        Ok(resolved_count(&response.text().await?))
    }

    async fn json<T: DeserializeOwned>(&self, url: &str) -> Result<T> {
        let response = self
            .client
            .get(url)
            .send()
            .await
            .and_then(Response::error_for_status)?;
        response
            .json()
            .await
            .with_context(|| format!("{url} answers with something else than expected"))
    }
}

/// The sum of sentinel's counter of accepted alerts over all sources, of those that are resolved.
fn resolved_count(metrics: &str) -> u64 {
    metrics
        .lines()
        .filter(|line| line.starts_with("sentinel_alerts_received_total{"))
        .filter(|line| line.contains(r#"status="resolved""#))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolved_alerts_are_counted_over_all_sources() {
        let metrics = r#"# TYPE sentinel_alerts_received counter
sentinel_alerts_received_total{source="alertmanager",status="firing"} 7
sentinel_alerts_received_total{source="alertmanager",status="resolved"} 2
sentinel_alerts_received_total{source="prometheus",status="resolved"} 3
sentinel_alerts_truncated_total 9
"#;
        assert_eq!(resolved_count(metrics), 5);
        assert_eq!(resolved_count(""), 0);
    }

    #[test]
    fn what_is_no_name_of_a_container_reaches_no_engine() {
        let addresses = |container: &str| Addresses {
            nginx: String::new(),
            prometheus: String::new(),
            alertmanager: String::new(),
            sentinel: String::new(),
            docker: "tcp://127.0.0.1:1".to_owned(),
            container: container.to_owned(),
        };
        let installed = rustls::crypto::ring::default_provider().install_default();
        assert!(installed.is_ok());
        assert!(World::new(&addresses("nginx-1.a_b")).is_ok());
        for name in ["", "..", "-x", "a/b", "a?b", "a b", "ä"] {
            assert!(World::new(&addresses(name)).is_err(), "{name}");
        }
        let docker = |docker: &str| Addresses {
            docker: docker.to_owned(),
            ..addresses("nginx")
        };
        assert!(World::new(&docker("unix:///run/docker.sock")).is_ok());
        assert!(World::new(&docker("ssh://host")).is_err());
    }
}
