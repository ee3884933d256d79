//! Makes a container from what Docker tells of another one.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, EndpointSettings, HostConfig,
    NetworkConnectRequest, NetworkingConfig,
};
use bollard::query_parameters::{
    RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder, StopContainerOptionsBuilder,
};
use sentinel_core::capability::CapabilityError;

use super::host::{Ask, Host};
use super::{Grace, recreate, thawed};

/// As many digits of an id as Docker itself shows, and as it uses for a hostname.
const SHORT_ID: usize = 12;

/// How a namespace is named that is another container's.
const BORROWED: &str = "container:";

/// Compose's labels: the project, the service, and what a service depends on, as in
/// `vpn:service_started:true,db:service_healthy:false`.
const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";
const DEPENDS_ON: &str = "com.docker.compose.depends_on";

/// What makes and unmakes containers on one host.
pub(super) struct Maker<'a> {
    pub(super) host: &'a Host,
    pub(super) client: &'a bollard::Docker,
    /// How long each answer may take, not counting a grace.
    pub(super) timeout: Duration,
}

impl Maker<'_> {
    /// The settings of `old`, for a container that is made now.
    pub(super) async fn settings(
        &self,
        old: &ContainerInspectResponse,
    ) -> Result<Settings, CapabilityError> {
        let image = self.image(old).await?;
        let mut settings = Settings::of(old, image)
            .map_err(|reason| CapabilityError::Invalid(self.host.says(reason)))?;
        let host = &mut settings.host;
        for mode in [
            &mut host.network_mode,
            &mut host.pid_mode,
            &mut host.ipc_mode,
        ] {
            let owner = mode.as_deref().and_then(|mode| mode.strip_prefix(BORROWED));
            if let Some(owner) = owner {
                *mode = Some(format!("{BORROWED}{}", self.owner(owner, old).await?));
            }
        }
        Ok(settings)
    }

    /// The container whose namespace `old` uses: `owner`, or what came in its place.
    async fn owner(
        &self,
        owner: &str,
        old: &ContainerInspectResponse,
    ) -> Result<String, CapabilityError> {
        match self.inspect(owner).await {
            Err(CapabilityError::NotFound(_)) => {}
            Ok(_) => return Ok(owner.to_owned()),
            Err(error) => return Err(error),
        }
        let successors = recreate::successors(self.host, owner, self.timeout).await?;
        if let Some(successor) = successors.into_iter().find(|successor| successor.ran) {
            return Ok(successor.id);
        }
        match self.composed(old).await?.as_slice() {
            [only] => Ok(only.clone()),
            _ => Err(CapabilityError::Failed(self.host.says(&format!(
                "it uses the namespace of the container {}, which is gone, and nothing says \
                 which one replaces that; create it anew",
                short(owner)
            )))),
        }
    }

    /// The running containers of the services that this one's service depends on: who
    /// replaced a container through Compose left no other trace.
    async fn composed(
        &self,
        old: &ContainerInspectResponse,
    ) -> Result<Vec<String>, CapabilityError> {
        let labels = old
            .config
            .as_ref()
            .and_then(|config| config.labels.as_ref());
        let label = |name: &str| labels?.get(name).map(String::as_str);
        let (Some(project), Some(depends_on)) = (label(PROJECT), label(DEPENDS_ON)) else {
            return Ok(Vec::new());
        };
        let services: Vec<&str> = depends_on
            .split(',')
            .filter_map(|dependency| dependency.split(':').next())
            .collect();
        let labels = [format!("{PROJECT}={project}")];
        let rows = self.host.list(false, &labels, self.timeout).await?;
        let is_wanted = |labels: Option<HashMap<String, String>>| {
            labels.is_some_and(|labels| {
                let service = labels.get(SERVICE).map(String::as_str);
                service.is_some_and(|service| services.contains(&service))
            })
        };
        Ok(rows
            .into_iter()
            .filter_map(|row| row.id.filter(|_| is_wanted(row.labels)))
            .collect())
    }

    /// Makes a container under this name and starts nothing; its id. When that fails,
    /// nothing is left of it.
    pub(super) async fn make(
        &self,
        name: &str,
        settings: Settings,
    ) -> Result<String, CapabilityError> {
        let mac_address = settings.mac_address.clone();
        let (body, further) = settings.into_parts();
        let id = self.create(name, &body, mac_address.as_deref()).await?;
        for (network, endpoint) in further {
            if let Err(error) = self.connect(&id, &network, endpoint).await {
                return Err(match self.remove(&id, true).await {
                    Ok(()) => error,
                    Err(second) => {
                        because(error, &format!("removing {name} failed, too: {second}"))
                    }
                });
            }
        }
        Ok(id)
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

    async fn create(
        &self,
        name: &str,
        body: &ContainerCreateBody,
        mac_address: Option<&str>,
    ) -> Result<String, CapabilityError> {
        let created = self.host.create(name, body, mac_address, self.timeout);
        let (id, warnings) = created.await?;
        for warning in warnings {
            tracing::warn!(container = name, warning, "docker create");
        }
        Ok(id)
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

    pub(super) async fn inspect(
        &self,
        container: &str,
    ) -> Result<ContainerInspectResponse, CapabilityError> {
        let found = self.host.inspect_whole(container, self.timeout).await?;
        Ok(found.container)
    }

    pub(super) async fn stop(&self, container: &str, grace: Grace) -> Result<(), CapabilityError> {
        let ask = || {
            let mut options = StopContainerOptionsBuilder::new();
            if let Some(seconds) = grace.seconds {
                options = options.t(seconds);
            }
            self.host.answer(
                Ask::effect("stop"),
                self.timeout + grace.duration(),
                self.client.stop_container(container, Some(options.build())),
            )
        };
        match ask().await {
            Err(error)
                if thawed(self.host, self.client, container, &error, self.timeout).await? =>
            {
                ask().await
            }
            answered => answered,
        }
    }

    pub(super) async fn start(&self, container: &str) -> Result<(), CapabilityError> {
        self.host
            .answer(
                Ask::effect("start"),
                self.timeout,
                self.client.start_container(container, None),
            )
            .await
    }

    pub(super) async fn rename(&self, id: &str, name: &str) -> Result<(), CapabilityError> {
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
    pub(super) async fn remove(&self, container: &str, force: bool) -> Result<(), CapabilityError> {
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

/// How an engine tells which MAC addresses somebody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MacAddresses {
    /// The container has one, and its networks what came of it: before API 1.44.
    ByContainer,
    /// Networks have theirs, asked for or not, and the container that of its main network if
    /// it was asked for.
    ByNetwork,
    /// Networks have theirs, asked for or not, and nothing tells them apart: since API 1.52.
    Mixed,
}

/// What to make a container from.
#[derive(Debug)]
pub(super) struct Settings {
    /// Without the two that follow.
    pub(super) body: ContainerCreateBody,
    pub(super) host: HostConfig,
    /// Its networks, by name.
    pub(super) endpoints: BTreeMap<String, EndpointSettings>,
    /// The network that the settings name: the one that `create` is told.
    main: Option<String>,
    /// The container's own MAC address, for an API that has one for the whole container.
    pub(super) mac_address: Option<String>,
}

impl Settings {
    /// The settings of `old`, but for what Docker made up for it alone. What is meant for
    /// it alone is for the caller to take out.
    pub(super) fn of(old: &ContainerInspectResponse, image: String) -> Result<Self, &'static str> {
        const INCOMPLETE: &str = "the answer to inspect lacks the container's configuration";
        let config = old.config.as_ref().ok_or(INCOMPLETE)?;
        let mut host = old.host_config.clone().ok_or(INCOMPLETE)?;
        // The same fields under the same names: what `inspect` calls Config is what
        // `create` takes.
        let mut body: ContainerCreateBody = serde_json::to_value(config)
            .and_then(serde_json::from_value)
            .map_err(|_| INCOMPLETE)?;
        body.image = Some(image);

        let short_id = short(old.id.as_deref().unwrap_or_default());
        let mode = host.network_mode.clone().unwrap_or_default();
        let borrowed = mode.starts_with(BORROWED);
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

        let mut endpoints = endpoints(old, short_id);
        if borrowed || mode == "host" || mode == "none" {
            endpoints.clear();
        }
        let named = match mode.as_str() {
            "" | "default" => "bridge",
            mode => mode,
        };
        let networks = old.network_settings.as_ref();
        let network_id = |name: &str| {
            networks
                .and_then(|settings| settings.networks.as_ref()?.get(name)?.network_id.as_deref())
                .unwrap_or_default()
        };
        let main = endpoints
            .keys()
            .find(|name| *name == named || network_id(name) == named)
            .cloned();
        Ok(Self {
            body,
            host,
            endpoints,
            main,
            mac_address: None,
        })
    }

    /// Keeps the MAC addresses that somebody asked for, and none that the engine made up:
    /// one that is made of the address beside it would be made again, for another container.
    pub(super) fn keep_mac_addresses(&mut self, told: MacAddresses, asked: Option<String>) {
        if told == MacAddresses::ByContainer {
            for endpoint in self.endpoints.values_mut() {
                endpoint.mac_address = None;
            }
            self.mac_address = asked;
            return;
        }
        let main = self
            .main
            .as_ref()
            .and_then(|main| self.endpoints.get_mut(main));
        if let Some(main) = main
            && (asked.is_some() || told == MacAddresses::ByNetwork)
        {
            main.mac_address = asked;
        }
    }

    /// What `create` takes, and the networks to connect the container to before it
    /// starts: `create` takes one alone under Docker before 25.
    fn into_parts(mut self) -> (ContainerCreateBody, BTreeMap<String, EndpointSettings>) {
        let main = self.main;
        self.body.networking_config = main
            .and_then(|main| self.endpoints.remove_entry(&main))
            .map(|first| NetworkingConfig {
                endpoints_config: Some(HashMap::from([first])),
            });
        self.body.host_config = Some(self.host);
        (self.body, self.endpoints)
    }
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
            let ip_address = endpoint.ip_address.as_deref().unwrap_or_default();
            let mac_address = endpoint
                .mac_address
                .filter(|address| !address.is_empty() && !is_made_of(address, ip_address));
            let asked = EndpointSettings {
                ipam_config: endpoint.ipam_config,
                links: endpoint.links,
                mac_address,
                aliases,
                driver_opts: endpoint.driver_opts,
                gw_priority: endpoint.gw_priority,
                ..EndpointSettings::default()
            };
            (name, asked)
        })
        .collect()
}

/// Whether a MAC address is one that Docker makes of an IPv4 address: `02:42` and its bytes.
fn is_made_of(mac_address: &str, ip_address: &str) -> bool {
    let Ok(address) = ip_address.parse::<std::net::Ipv4Addr>() else {
        return false;
    };
    let [a, b, c, d] = address.octets();
    mac_address.eq_ignore_ascii_case(&format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}"))
}

/// The id as people see it.
pub(super) fn short(id: &str) -> &str {
    id.get(..SHORT_ID).unwrap_or(id)
}

/// `error`, and what became of what it was to be done to. A missing image or a refused
/// setting is no fault of the caller's.
pub(super) fn because(error: CapabilityError, end: &str) -> CapabilityError {
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

    fn made_from(
        change: impl FnOnce(&mut Value),
    ) -> (ContainerCreateBody, BTreeMap<String, EndpointSettings>) {
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
        Settings::of(&old, "nginx:1".to_owned())
            .unwrap()
            .into_parts()
    }

    #[test]
    fn the_hostname_that_docker_made_up_is_dropped() {
        let made = made_from(|_| {});
        assert_eq!(made.0.hostname, None);
        assert_eq!(made.0.env, Some(vec!["A=1".to_owned()]));
        let made = made_from(|old| old["Config"]["Hostname"] = json!("web"));
        assert_eq!(made.0.hostname.as_deref(), Some("web"));
    }

    #[test]
    fn a_borrowed_network_takes_no_settings_of_its_own() {
        let made = made_from(|old| {
            old["HostConfig"]["NetworkMode"] = json!("container:abc");
            old["Config"]["Hostname"] = json!("web");
            old["Config"]["ExposedPorts"] = json!({"80/tcp": {}});
        });
        assert_eq!(made.0.hostname, None);
        assert_eq!(made.0.exposed_ports, None);
        assert_eq!(made.0.networking_config, None);
        assert!(made.1.is_empty());
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
        });
        let config = made.0.networking_config.unwrap();
        let front = &config.endpoints_config.unwrap()["front"];
        assert_eq!(front.aliases, Some(vec!["web".to_owned()]));
        assert_eq!(front.ip_address, None);
        assert_eq!(front.gateway, None);
        let ipam = front.ipam_config.as_ref().unwrap();
        assert_eq!(ipam.ipv4_address.as_deref(), Some("10.1.0.9"));
        assert_eq!(made.1.len(), 1);
        assert!(made.1.contains_key("back"));
    }

    #[test]
    fn a_mac_address_is_kept_where_a_person_set_it() {
        use MacAddresses::{ByContainer, ByNetwork, Mixed};

        let made = |told: MacAddresses, mac: &str, ip: &str, asked: Option<&str>| {
            let old = json!({
                "Id": ID,
                "Config": { "Image": "nginx:1" },
                "HostConfig": { "NetworkMode": "front" },
                "NetworkSettings": { "Networks": { "front": {
                    "MacAddress": mac, "IPAddress": ip,
                } } },
            });
            let old = serde_json::from_value(old).unwrap();
            let mut settings = Settings::of(&old, "nginx:1".to_owned()).unwrap();
            settings.keep_mac_addresses(told, asked.map(str::to_owned));
            let whole = settings.mac_address.clone();
            (whole, settings.endpoints["front"].mac_address.clone())
        };
        let (set, given, odd) = (
            "02:42:de:ad:be:ef",
            "02:42:0a:00:00:32",
            "5a:01:02:03:04:05",
        );
        let some = |mac: &str| Some(mac.to_owned());
        assert_eq!(
            made(ByContainer, set, "10.0.0.50", Some(set)),
            (some(set), None)
        );
        assert_eq!(made(ByContainer, given, "10.0.0.50", None), (None, None));
        assert_eq!(
            made(ByNetwork, set, "10.0.0.50", Some(set)),
            (None, some(set))
        );
        assert_eq!(made(ByNetwork, given, "10.0.0.50", None), (None, None));
        assert_eq!(made(ByNetwork, odd, "10.0.0.50", None), (None, None));
        // Of one that is stopped, too.
        assert_eq!(made(ByNetwork, "", "", Some(set)), (None, some(set)));
        assert_eq!(made(Mixed, set, "10.0.0.50", None), (None, some(set)));
        assert_eq!(made(Mixed, given, "10.0.0.50", None), (None, None));
        let given = given.to_uppercase();
        assert_eq!(made(Mixed, &given, "10.0.0.50", None), (None, None));
        assert_eq!(made(Mixed, "", "", None), (None, None));
    }

    #[test]
    fn a_network_mode_that_is_an_id_finds_its_network() {
        let made = made_from(|old| {
            old["HostConfig"]["NetworkMode"] = json!("f00");
            old["NetworkSettings"]["Networks"] = json!({ "front": { "NetworkID": "f00" } });
        });
        assert!(made.0.networking_config.is_some());
        assert!(made.1.is_empty());
    }
}
