//! Replaces a container by a new one of the same settings, or leaves the old one.
//!
//! The new one is made first, under a name of its own, so that most of what can go
//! wrong (the image is gone, a setting no longer holds) goes wrong while the old one
//! still runs. Then the old one is stopped and moved aside, the new one gets the name
//! and is started, and only when it runs is the old one removed.
//!
//! A daemon that is killed half-way leaves both, and nothing is lost: the old one has
//! its id in the name that it was moved to, the new one has the old one's id in a
//! label. So [`super::settle`] finds out how far it went, and a recreate of the same old
//! container goes on from there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, EndpointSettings, HostConfig, MountType,
    NetworkConnectRequest, NetworkingConfig,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder, StopContainerOptionsBuilder,
};
use jiff::Timestamp;
use sentinel_core::capability::CapabilityError;

use super::Grace;
use super::details::{bare, is_up, main_process, moment};
use super::host::{Ask, Host};

/// As many digits of an id as Docker itself shows, and as it uses for a hostname.
const SHORT_ID: usize = 12;

/// On a container that a recreate made: the id of the one that it replaces.
const REPLACES: &str = "infra-sentinel.replaces";

/// Does it; the new container's id. Must run to its end: dropped half-way it leaves a
/// container under a name that is not its own, until it is done again.
///
/// Carried over are the settings, the networks with their aliases and fixed addresses,
/// and all volumes, the nameless ones too. Not carried over are what was written
/// inside the container, what Docker makes up for each container (the hostname that is
/// its id, the alias that is its id), and a `--mac-address` under Docker before 25,
/// whose answers do not tell it apart from a made-up one. Added is the label that
/// names the old container.
pub(super) async fn recreate(
    host: Arc<Host>,
    container: String,
    grace: Grace,
    timeout: Duration,
) -> Result<String, CapabilityError> {
    let client = host.client(timeout).await?;
    let old = host
        .answer(
            Ask::observation("inspect"),
            timeout,
            client.inspect_container(&container, None::<InspectContainerOptions>),
        )
        .await?;
    let (Some(old_id), Some(called), Some(state)) = (
        old.id.clone(),
        old.name.as_deref().map(bare),
        old.state.as_ref().and_then(main_process),
    ) else {
        return Err(host.nonsense("inspect"));
    };
    let name = own_name(&old_id, called).to_owned();
    let is_aside = name != called;
    let is_up = is_up(state);
    let earlier = Earlier::find(&host, client, &old, &old_id, timeout).await?;
    let suffix = short(&old_id);
    let swap = Swap {
        host: &host,
        client,
        aside: aside(&name, &old_id),
        fresh: format!("{name}-sentinel-new-{suffix}"),
        halted: !is_up && (is_aside || earlier.stopped),
        was_up: is_up || is_aside || earlier.stopped,
        old_id,
        name,
        grace,
        timeout,
    };
    for successor in &earlier.successors {
        if successor.ran && is_aside && successor.name == swap.name {
            // Only the last step is missing.
            swap.remove(&swap.old_id, true).await?;
            return Ok(successor.id.clone());
        }
        if !successor.ran {
            swap.remove(&successor.id, false).await?;
        }
    }
    if is_aside {
        swap.rename(&swap.old_id, &swap.name).await?;
    }
    swap.run(&old).await
}

/// What an earlier attempt left that was cut off.
struct Earlier {
    successors: Vec<Successor>,
    /// Whether it has stopped the old container: that one ended after the new one was
    /// made.
    stopped: bool,
}

impl Earlier {
    async fn find(
        host: &Host,
        client: &bollard::Docker,
        old: &ContainerInspectResponse,
        old_id: &str,
        timeout: Duration,
    ) -> Result<Self, CapabilityError> {
        let successors = successors(host, client, old_id, timeout).await?;
        let finished = old
            .state
            .as_ref()
            .and_then(|state| moment(state.finished_at.as_deref()));
        let stopped = successors
            .iter()
            .any(|successor| successor.created.is_some() && successor.created < finished);
        Ok(Self {
            successors,
            stopped,
        })
    }
}

/// A container that a recreate made.
#[derive(Debug)]
pub(super) struct Successor {
    pub(super) id: String,
    pub(super) name: String,
    /// When it was made, by Docker's clock.
    pub(super) created: Option<Timestamp>,
    /// Whether it was ever started.
    pub(super) ran: bool,
}

/// The containers that were made to replace the one with this full id.
pub(super) async fn successors(
    host: &Host,
    client: &bollard::Docker,
    old_id: &str,
    timeout: Duration,
) -> Result<Vec<Successor>, CapabilityError> {
    let label = format!("{REPLACES}={old_id}");
    let options = ListContainersOptionsBuilder::new()
        .all(true)
        .filters(&HashMap::from([("label", vec![label])]))
        .build();
    let rows = host
        .answer(
            Ask::observation("list"),
            timeout,
            client.list_containers(Some(options)),
        )
        .await?;
    let mut successors = Vec::new();
    for id in rows.into_iter().filter_map(|row| row.id) {
        let found = host
            .answer(
                Ask::observation("inspect"),
                timeout,
                client.inspect_container(&id, None::<InspectContainerOptions>),
            )
            .await;
        let found = match found {
            Ok(found) => found,
            // It was removed in between.
            Err(CapabilityError::NotFound(_)) => continue,
            Err(error) => return Err(error),
        };
        let started = found.state.and_then(|state| state.started_at);
        successors.push(Successor {
            id,
            name: found
                .name
                .as_deref()
                .map(bare)
                .unwrap_or_default()
                .to_owned(),
            created: moment(found.created.as_deref()),
            ran: moment(started.as_deref()).is_some(),
        });
    }
    Ok(successors)
}

/// What a container is called, or was before a recreate that was cut off moved it
/// aside.
pub(super) fn own_name<'a>(id: &str, name: &'a str) -> &'a str {
    name.strip_suffix(&aside("", id)).unwrap_or(name)
}

/// What the old container is called while the new one starts.
fn aside(name: &str, id: &str) -> String {
    format!("{name}-sentinel-old-{}", short(id))
}

struct Swap<'a> {
    host: &'a Host,
    client: &'a bollard::Docker,
    name: String,
    /// What the old container is called while the new one starts.
    aside: String,
    /// What the new container is called until the old one is out of the way.
    fresh: String,
    old_id: String,
    was_up: bool,
    /// Whether it is down because an earlier attempt stopped it.
    halted: bool,
    grace: Grace,
    timeout: Duration,
}

impl Swap<'_> {
    async fn run(&self, old: &ContainerInspectResponse) -> Result<String, CapabilityError> {
        let new_id = match self.make(old).await {
            Ok(new_id) => new_id,
            Err(error) if self.halted => {
                let end = match self.start(&self.old_id).await {
                    Ok(()) => "an earlier attempt had stopped it; it was started".to_owned(),
                    Err(second) => format!(
                        "an earlier attempt had stopped it; starting it failed, too: {second}"
                    ),
                };
                return Err(because(error, &end));
            }
            Err(error) => return Err(error),
        };
        if let Err(error) = self.replace(&new_id).await {
            let end = match self.put_back(&new_id).await {
                Ok(()) if self.was_up => "the old container was put back and started".to_owned(),
                Ok(()) => "the old container was put back".to_owned(),
                Err(second) => format!(
                    "putting the old container back failed, too (it is {}, or already called {} \
                     again): {second}",
                    self.aside, self.name
                ),
            };
            return Err(because(error, &end));
        }
        if let Err(error) = self.remove(&self.old_id, true).await {
            tracing::warn!(
                container = self.aside,
                %error,
                "recreated, but the old container is still there; remove it by hand"
            );
        }
        Ok(new_id)
    }

    /// Makes the new container beside the old one, which is left as it is.
    async fn make(&self, old: &ContainerInspectResponse) -> Result<String, CapabilityError> {
        let image = self.image(old).await?;
        let plan =
            plan(old, image).map_err(|reason| CapabilityError::Invalid(self.host.says(reason)))?;
        // Left by an attempt that did not label it; never started.
        self.remove(&self.fresh, false).await?;
        let new_id = self
            .create(plan.body)
            .await
            .map_err(|error| because(error, "the old container was left as it was"))?;
        for (network, endpoint) in plan.further {
            if let Err(error) = self.connect(&new_id, &network, endpoint).await {
                let end = match self.remove(&new_id, true).await {
                    Ok(()) => "the old container was left as it was".to_owned(),
                    Err(second) => format!(
                        "the old container was left as it was; removing {} failed, too: {second}",
                        self.fresh
                    ),
                };
                return Err(because(error, &end));
            }
        }
        Ok(new_id)
    }

    /// The image's name, if it still means the image that the old container was made
    /// from, and else that image's id.
    async fn image(&self, old: &ContainerInspectResponse) -> Result<String, CapabilityError> {
        let name = old
            .config
            .as_ref()
            .and_then(|config| config.image.clone())
            .ok_or_else(|| self.host.nonsense("inspect"))?;
        // The name goes into a URL. Docker's grammar of references has none of these
        // characters, and Docker gave the name.
        if name.contains(['?', '#', '%', ' ']) || name.contains("..") {
            return Err(CapabilityError::Failed(
                self.host.says(&format!("odd image name {name:?}")),
            ));
        }
        let found = self
            .host
            .answer(
                Ask::observation("inspect image"),
                self.timeout,
                self.client.inspect_image(&name),
            )
            .await;
        match (found, &old.image) {
            (Ok(found), Some(id)) if found.id.as_ref() != Some(id) => Ok(id.clone()),
            (Err(CapabilityError::NotFound(_)), Some(id)) => Ok(id.clone()),
            (Err(error), _) if !matches!(error, CapabilityError::NotFound(_)) => Err(error),
            _ => Ok(name),
        }
    }

    async fn create(&self, body: ContainerCreateBody) -> Result<String, CapabilityError> {
        let options = CreateContainerOptionsBuilder::new()
            .name(&self.fresh)
            .build();
        let created = self
            .host
            .answer(
                Ask::effect("create"),
                self.timeout,
                self.client.create_container(Some(options), body),
            )
            .await?;
        for warning in created.warnings {
            tracing::warn!(container = self.name, warning, "docker create");
        }
        Ok(created.id)
    }

    async fn connect(
        &self,
        new_id: &str,
        network: &str,
        endpoint: EndpointSettings,
    ) -> Result<(), CapabilityError> {
        let request = NetworkConnectRequest {
            container: new_id.to_owned(),
            endpoint_config: Some(endpoint),
        };
        self.host
            .answer(
                Ask::effect("connect network"),
                self.timeout,
                self.client.connect_network(network, request),
            )
            .await
    }

    async fn replace(&self, new_id: &str) -> Result<(), CapabilityError> {
        let options = StopContainerOptionsBuilder::new()
            .t(self.grace.seconds)
            .build();
        self.host
            .answer(
                Ask::effect("stop"),
                self.timeout + self.grace.duration(),
                self.client.stop_container(&self.old_id, Some(options)),
            )
            .await?;
        self.rename(&self.old_id, &self.aside).await?;
        self.rename(new_id, &self.name).await?;
        self.start(new_id).await
    }

    async fn put_back(&self, new_id: &str) -> Result<(), CapabilityError> {
        self.remove(new_id, true).await?;
        let old = self
            .host
            .answer(
                Ask::observation("inspect"),
                self.timeout,
                self.client
                    .inspect_container(&self.old_id, None::<InspectContainerOptions>),
            )
            .await?;
        if old.name.as_deref().map(bare) != Some(&self.name) {
            self.rename(&self.old_id, &self.name).await?;
        }
        if self.was_up {
            self.start(&self.old_id).await?;
        }
        Ok(())
    }

    async fn start(&self, container: &str) -> Result<(), CapabilityError> {
        self.host
            .answer(
                Ask::effect("start"),
                self.timeout,
                self.client.start_container(container, None),
            )
            .await
    }

    async fn rename(&self, id: &str, name: &str) -> Result<(), CapabilityError> {
        let options = RenameContainerOptionsBuilder::new().name(name).build();
        self.host
            .answer(
                Ask::effect("rename"),
                self.timeout,
                self.client.rename_container(id, options),
            )
            .await
    }

    /// Removes a container, never its volumes; one that is not there is as good.
    async fn remove(&self, container: &str, force: bool) -> Result<(), CapabilityError> {
        let options = RemoveContainerOptionsBuilder::new()
            .v(false)
            .force(force)
            .build();
        let removed = self
            .host
            .answer(
                Ask::effect("remove"),
                self.timeout,
                self.client.remove_container(container, Some(options)),
            )
            .await;
        match removed {
            Err(CapabilityError::NotFound(_)) => Ok(()),
            other => other,
        }
    }
}

/// What to make the new container from.
#[derive(Debug)]
struct Plan {
    body: ContainerCreateBody,
    /// Networks to connect it to before it starts: `create` takes one alone under
    /// Docker before 25.
    further: Vec<(String, EndpointSettings)>,
}

fn plan(old: &ContainerInspectResponse, image: String) -> Result<Plan, &'static str> {
    const INCOMPLETE: &str = "the answer to inspect lacks the container's configuration";
    let config = old.config.as_ref().ok_or(INCOMPLETE)?;
    let mut host = old.host_config.clone().ok_or(INCOMPLETE)?;
    if host.auto_remove == Some(true) {
        return Err(
            "a container that was started with --rm cannot be recreated: stopping it \
             removes it and its nameless volumes",
        );
    }
    // The same fields under the same names: what `inspect` calls Config is what
    // `create` takes.
    let mut body: ContainerCreateBody = serde_json::to_value(config)
        .and_then(serde_json::from_value)
        .map_err(|_| INCOMPLETE)?;
    body.image = Some(image);
    if let Some(id) = &old.id {
        let labels = body.labels.get_or_insert_default();
        labels.insert(REPLACES.to_owned(), id.clone());
    }

    let short_id = short(old.id.as_deref().unwrap_or_default());
    let mode = host.network_mode.clone().unwrap_or_default();
    let borrowed = mode.starts_with("container:");
    if body.hostname.as_deref() == Some(short_id)
        || borrowed
        || host.uts_mode.as_deref() == Some("host")
    {
        body.hostname = None;
    }
    if borrowed {
        // They are the other container's, and Docker refuses them here.
        body.exposed_ports = None;
        host.port_bindings = None;
    }
    keep_volumes(old, &mut host);
    body.host_config = Some(host);

    let mut endpoints = endpoints(old, short_id);
    if borrowed || mode == "host" || mode == "none" {
        endpoints.clear();
    }
    let main = match mode.as_str() {
        "" | "default" => "bridge",
        mode => mode,
    };
    let networks = old.network_settings.as_ref();
    let network_id = |name: &str| {
        networks
            .and_then(|settings| settings.networks.as_ref()?.get(name)?.network_id.as_deref())
            .unwrap_or_default()
    };
    let first = endpoints
        .keys()
        .find(|name| *name == main || network_id(name) == main)
        .cloned();
    if let Some((name, endpoint)) = first.and_then(|name| endpoints.remove_entry(&name)) {
        body.networking_config = Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(name, endpoint)])),
        });
    }
    Ok(Plan {
        body,
        further: endpoints.into_iter().collect(),
    })
}

/// The networks with what was asked for there, and without what Docker made up.
fn endpoints(old: &ContainerInspectResponse, short_id: &str) -> BTreeMap<String, EndpointSettings> {
    old.network_settings
        .as_ref()
        .and_then(|settings| settings.networks.clone())
        .unwrap_or_default()
        .into_iter()
        .map(|(name, endpoint)| {
            let aliases = endpoint.aliases.map(|aliases| {
                aliases
                    .into_iter()
                    .filter(|alias| alias != short_id)
                    .collect()
            });
            let asked = EndpointSettings {
                ipam_config: endpoint.ipam_config,
                links: endpoint.links,
                mac_address: endpoint.mac_address.filter(|address| !address.is_empty()),
                aliases,
                driver_opts: endpoint.driver_opts,
                gw_priority: endpoint.gw_priority,
                ..EndpointSettings::default()
            };
            (name, asked)
        })
        .collect()
}

/// Volumes that have no name in the settings (`VOLUME` in the image, `-v /data`) are
/// mounted by the name that Docker gave them; else the new container would get empty
/// ones.
fn keep_volumes(old: &ContainerInspectResponse, host: &mut HostConfig) {
    let bound: HashSet<String> = host
        .binds
        .iter()
        .flatten()
        .filter_map(|bind| bind.split(':').nth(1).map(str::to_owned))
        .collect();
    for mount in old.mounts.iter().flatten() {
        let (Some("volume"), Some(volume), Some(destination)) =
            (mount.typ.as_deref(), &mount.name, &mount.destination)
        else {
            continue;
        };
        if bound.contains(destination) {
            continue;
        }
        let asked = host
            .mounts
            .iter_mut()
            .flatten()
            .find(|asked| asked.target.as_ref() == Some(destination));
        match asked {
            Some(asked) if asked.typ == Some(MountType::VOLUME) => {
                asked.source = Some(volume.clone());
            }
            Some(_) => {}
            None => {
                let options = if mount.rw == Some(false) { ":ro" } else { "" };
                host.binds
                    .get_or_insert_default()
                    .push(format!("{volume}:{destination}{options}"));
            }
        }
    }
}

/// The id as people see it.
pub(super) fn short(id: &str) -> &str {
    id.get(..SHORT_ID).unwrap_or(id)
}

/// `error`, and what became of the old container. A missing image or a refused
/// setting is no fault of the caller's.
fn because(error: CapabilityError, end: &str) -> CapabilityError {
    match error {
        CapabilityError::Denied(text) => CapabilityError::Denied(format!("{text}; {end}")),
        CapabilityError::Unavailable(text) => {
            CapabilityError::Unavailable(format!("{text}; {end}"))
        }
        CapabilityError::TimedOut(text) => CapabilityError::TimedOut(format!("{text}; {end}")),
        CapabilityError::NotFound(text)
        | CapabilityError::Invalid(text)
        | CapabilityError::Failed(text) => CapabilityError::Failed(format!("{text}; {end}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn made_from(change: impl FnOnce(&mut Value)) -> Result<Plan, &'static str> {
        let mut inspect = json!({
            "Id": ID,
            "Image": "sha256:aa",
            "Config": { "Image": "nginx:1", "Hostname": &ID[..12], "Env": ["A=1"] },
            "HostConfig": { "NetworkMode": "front" },
            "Mounts": [],
            "NetworkSettings": { "Networks": {} },
        });
        change(&mut inspect);
        let old = serde_json::from_value(inspect).unwrap();
        plan(&old, "nginx:1".to_owned())
    }

    #[test]
    fn the_hostname_that_docker_made_up_is_dropped() {
        let made = made_from(|_| {}).unwrap();
        assert_eq!(made.body.hostname, None);
        assert_eq!(made.body.env, Some(vec!["A=1".to_owned()]));
        let made = made_from(|old| old["Config"]["Hostname"] = json!("web")).unwrap();
        assert_eq!(made.body.hostname.as_deref(), Some("web"));
    }

    #[test]
    fn a_borrowed_network_takes_no_settings_of_its_own() {
        let made = made_from(|old| {
            old["HostConfig"]["NetworkMode"] = json!("container:abc");
            old["Config"]["Hostname"] = json!("web");
            old["Config"]["ExposedPorts"] = json!({"80/tcp": {}});
        })
        .unwrap();
        assert_eq!(made.body.hostname, None);
        assert_eq!(made.body.exposed_ports, None);
        assert_eq!(made.body.networking_config, None);
        assert!(made.further.is_empty());
    }

    #[test]
    fn networks_keep_what_was_asked_for_only() {
        let made = made_from(|old| {
            old["NetworkSettings"]["Networks"] = json!({
                "back": { "NetworkID": "b", "IPAddress": "10.2.0.2" },
                "front": {
                    "NetworkID": "f",
                    "Aliases": ["web", &ID[..12]],
                    "IPAMConfig": { "IPv4Address": "10.1.0.9" },
                    "IPAddress": "10.1.0.9",
                    "Gateway": "10.1.0.1",
                },
            });
        })
        .unwrap();
        let config = made.body.networking_config.unwrap();
        let front = &config.endpoints_config.unwrap()["front"];
        assert_eq!(front.aliases, Some(vec!["web".to_owned()]));
        assert_eq!(front.ip_address, None);
        assert_eq!(front.gateway, None);
        let ipam = front.ipam_config.as_ref().unwrap();
        assert_eq!(ipam.ipv4_address.as_deref(), Some("10.1.0.9"));
        assert_eq!(made.further.len(), 1);
        assert_eq!(made.further[0].0, "back");
    }

    #[test]
    fn a_network_mode_that_is_an_id_finds_its_network() {
        let made = made_from(|old| {
            old["HostConfig"]["NetworkMode"] = json!("f00");
            old["NetworkSettings"]["Networks"] = json!({ "front": { "NetworkID": "f00" } });
        })
        .unwrap();
        assert!(made.body.networking_config.is_some());
        assert!(made.further.is_empty());
    }

    #[test]
    fn nameless_volumes_are_mounted_by_name_and_named_ones_once() {
        let made = made_from(|old| {
            old["HostConfig"]["Binds"] = json!(["cache:/cache:rw", "/etc/x:/etc/x:ro"]);
            old["HostConfig"]["Mounts"] = json!([{ "Type": "volume", "Target": "/m" }]);
            old["Mounts"] = json!([
                { "Type": "volume", "Name": "cache", "Destination": "/cache", "RW": true },
                { "Type": "bind", "Source": "/etc/x", "Destination": "/etc/x", "RW": false },
                { "Type": "volume", "Name": "v1", "Destination": "/data", "RW": true },
                { "Type": "volume", "Name": "v2", "Destination": "/m", "RW": true },
                { "Type": "volume", "Name": "v3", "Destination": "/ro", "RW": false },
            ]);
        })
        .unwrap();
        let host = made.body.host_config.unwrap();
        assert_eq!(
            host.binds.unwrap(),
            [
                "cache:/cache:rw",
                "/etc/x:/etc/x:ro",
                "v1:/data",
                "v3:/ro:ro"
            ]
        );
        assert_eq!(host.mounts.unwrap()[0].source.as_deref(), Some("v2"));
    }

    #[test]
    fn a_container_that_removes_itself_is_refused() {
        let refused = made_from(|old| old["HostConfig"]["AutoRemove"] = json!(true));
        assert!(refused.unwrap_err().contains("--rm"));
    }
}
