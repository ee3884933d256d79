//! Makes another container like one that is there, beside it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, HostConfig};
use sentinel_core::alert::Labels;
use sentinel_core::capability::CapabilityError;

use super::details::{bare, moment};
use super::host::Host;
use super::make::{Maker, Settings, because};
use super::recreate::REPLACES;

/// On a container that a duplicate made: the id of the one that it is like.
const LIKE: &str = "infra-sentinel.like";

/// The labels that are this driver's own notes.
const NOTES: [&str; 2] = [REPLACES, LIKE];

/// Whether the label is a note of this driver, which nobody else is shown, or may set.
pub(super) fn is_note(label: &str) -> bool {
    NOTES.contains(&label)
}

/// Does it; the new container's id. Must run to its end: dropped half-way it leaves a
/// container that was never started, until it is done again.
pub(super) async fn duplicate(
    host: Arc<Host>,
    container: String,
    name: String,
    labels: Labels,
    timeout: Duration,
) -> Result<String, CapabilityError> {
    let client = host.client(timeout).await?;
    let maker = Maker {
        host: &host,
        client: &client,
        timeout,
    };
    let like = maker.inspect(&container).await?;
    let Some(like_id) = like.id.clone() else {
        return Err(host.nonsense("inspect"));
    };
    let mut settings = maker.settings(&like).await?;
    settings
        .for_sibling(&like, &name, labels)
        .map_err(|reason| CapabilityError::Invalid(host.says(&reason)))?;
    match maker.inspect(&name).await {
        Err(CapabilityError::NotFound(_)) => {}
        Err(error) => return Err(error),
        Ok(found) if Sibling::of(&found, &like_id).is_some_and(|left| !left.ran) => {
            // Left by an attempt that was cut off.
            maker.remove(&name, false).await?;
        }
        Ok(_) => {
            return Err(CapabilityError::Failed(
                host.says(&format!("there is a container named {name} already")),
            ));
        }
    }
    let id = maker.make(&name, settings).await?;
    if let Err(error) = maker.start(&id).await {
        let end = match maker.remove(&id, true).await {
            Ok(()) => format!("{name} was removed again"),
            Err(second) => format!("removing {name} failed, too: {second}"),
        };
        return Err(because(error, &end));
    }
    Ok(id)
}

/// A container that a duplicate made.
#[derive(Debug)]
pub(super) struct Sibling {
    pub(super) id: String,
    /// When it was made, by Docker's clock.
    pub(super) created: Option<jiff::Timestamp>,
    /// Whether it was ever started.
    pub(super) ran: bool,
}

impl Sibling {
    /// `found` as what was made to be like the container with this full id; none when it
    /// was not.
    pub(super) fn of(found: &ContainerInspectResponse, like: &str) -> Option<Self> {
        let labels = found.config.as_ref()?.labels.as_ref()?;
        if labels.get(LIKE)? != like {
            return None;
        }
        let started = found.state.as_ref()?.started_at.as_deref();
        Some(Self {
            id: found.id.clone()?,
            created: moment(found.created.as_deref()),
            ran: moment(started).is_some(),
        })
    }
}

impl Settings {
    /// Of a container that is like `like` and stands beside it.
    fn for_sibling(
        &mut self,
        like: &ContainerInspectResponse,
        name: &str,
        labels: Labels,
    ) -> Result<(), String> {
        if let Some(port) = fixed_port(&self.host) {
            return Err(format!(
                "it publishes the port {port} of the host, which no second container can have; \
                 publish a port without a number, or none"
            ));
        }
        if let Some(label) = labels.keys().find(|label| is_note(label)) {
            return Err(format!("the label {label} is sentinel's own"));
        }
        let like_name = like.name.as_deref().map(bare).unwrap_or_default();
        for endpoint in self.endpoints.values_mut() {
            endpoint.ipam_config = None;
            endpoint.mac_address = None;
            for alias in endpoint.aliases.iter_mut().flatten() {
                if alias == like_name {
                    name.clone_into(alias);
                }
            }
        }
        let all: &mut HashMap<String, String> = self.body.labels.get_or_insert_default();
        all.retain(|label, _| !is_note(label));
        all.extend(labels);
        all.extend(like.id.clone().map(|id| (LIKE.to_owned(), id)));
        Ok(())
    }
}

/// A port of the host that is the container's alone.
fn fixed_port(host: &HostConfig) -> Option<&str> {
    host.port_bindings
        .iter()
        .flat_map(HashMap::values)
        .flatten()
        .flatten()
        .filter_map(|binding| binding.host_port.as_deref())
        // A range leaves Docker a choice, and nothing, or 0, any port.
        .find(|port| port.parse::<u16>().is_ok_and(|port| port != 0))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn made_from(change: impl FnOnce(&mut Value)) -> Result<Settings, String> {
        let mut inspect = json!({
            "Id": "0123456789abcdef",
            "Name": "/shop-web-1",
            "Config": {
                "Image": "nginx:1",
                "Labels": { "app": "shop", "number": "1", (REPLACES): "x" },
            },
            "HostConfig": { "NetworkMode": "front" },
            "Mounts": [{ "Type": "volume", "Name": "v1", "Destination": "/data", "RW": true }],
            "NetworkSettings": { "Networks": { "front": {
                "Aliases": ["web", "shop-web-1", "0123456789ab"],
                "IPAMConfig": { "IPv4Address": "10.1.0.9" },
                "MacAddress": "02:42:0a:01:00:09",
            } } },
        });
        change(&mut inspect);
        let like = serde_json::from_value(inspect).unwrap();
        let mut settings = Settings::of(&like, "nginx:1".to_owned()).unwrap();
        let labels = Labels::from([("number".to_owned(), "2".to_owned())]);
        settings.for_sibling(&like, "shop-web-2", labels)?;
        Ok(settings)
    }

    #[test]
    fn what_only_one_container_can_have_is_left_out() {
        let made = made_from(|_| {}).unwrap();
        let front = &made.endpoints["front"];
        let aliases = ["web", "shop-web-2"].map(str::to_owned).to_vec();
        assert_eq!(front.aliases, Some(aliases));
        assert_eq!((&front.ipam_config, &front.mac_address), (&None, &None));
        assert_eq!(made.host.binds, None, "nameless volumes are its own");
        let labels = made.body.labels.unwrap();
        assert_eq!(
            (labels["app"].as_str(), labels["number"].as_str()),
            ("shop", "2")
        );
        assert_eq!(labels[LIKE], "0123456789abcdef");
        assert!(!labels.contains_key(REPLACES));
    }

    #[test]
    fn a_port_that_is_taken_is_refused_and_one_that_docker_chooses_is_not() {
        let with = |port: &str| {
            made_from(|like| {
                like["HostConfig"]["PortBindings"] = json!({ "80/tcp": [{ "HostPort": port }] });
            })
        };
        assert!(with("8080").unwrap_err().contains("port 8080"));
        for port in ["", "0", "8080-8090"] {
            with(port).unwrap();
        }
    }
}
