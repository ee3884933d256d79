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

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, HostConfig, MountType};
use jiff::Timestamp;
use sentinel_core::capability::CapabilityError;

use super::Grace;
use super::details::{bare, is_up, main_process, moment};
use super::host::Host;
use super::make::{Maker, Settings, because, short};

/// On a container that a recreate made: the id of the one that it replaces.
pub(super) const REPLACES: &str = "infra-sentinel.replaces";

/// Does it; the new container's id. Must run to its end: dropped half-way it leaves a
/// container under a name that is not its own, until it is done again.
///
/// Carried over are the settings, the networks with their aliases and fixed addresses,
/// and all volumes, the nameless ones too. Not carried over are what was written
/// inside the container, and what Docker makes up for each container (the hostname that is
/// its id, the alias that is its id, the MAC address that is made of its address). Added is
/// the label that names the old container. One that used a namespace of a container that has been
/// replaced uses that of the replacement.
pub(super) async fn recreate(
    host: Arc<Host>,
    container: String,
    grace: Grace,
    timeout: Duration,
) -> Result<String, CapabilityError> {
    let client = host.client(timeout).await?;
    let found = host.inspect_whole(&container, timeout).await?;
    let old = found.container;
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
    let earlier = Earlier::find(&host, &old, &old_id, timeout).await?;
    let suffix = short(&old_id);
    let swap = Swap {
        maker: Maker {
            host: &host,
            client: &client,
            timeout,
        },
        aside: aside(&name, &old_id),
        fresh: format!("{name}-sentinel-new-{suffix}"),
        halted: !is_up && (is_aside || earlier.stopped),
        was_up: is_up || is_aside || earlier.stopped,
        mac_address: found.mac_address,
        old_id,
        name,
        grace,
    };
    for successor in &earlier.successors {
        if successor.ran && is_aside && successor.name == swap.name {
            // Only the last step is missing.
            swap.maker.remove(&swap.old_id, true).await?;
            return Ok(successor.id.clone());
        }
        if !successor.ran {
            swap.maker.remove(&successor.id, false).await?;
        }
    }
    if is_aside {
        swap.maker.rename(&swap.old_id, &swap.name).await?;
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
        old: &ContainerInspectResponse,
        old_id: &str,
        timeout: Duration,
    ) -> Result<Self, CapabilityError> {
        let successors = successors(host, old_id, timeout).await?;
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
    old_id: &str,
    timeout: Duration,
) -> Result<Vec<Successor>, CapabilityError> {
    let labels = [format!("{REPLACES}={old_id}")];
    let rows = host.list(true, &labels, timeout).await?;
    let mut successors = Vec::new();
    for id in rows.into_iter().filter_map(|row| row.id) {
        let found = match host.inspect(&id, timeout).await {
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
    maker: Maker<'a>,
    name: String,
    /// What the old container is called while the new one starts.
    aside: String,
    /// What the new container is called until the old one is out of the way.
    fresh: String,
    old_id: String,
    was_up: bool,
    /// The MAC address that a person asked for, where the API tells.
    mac_address: Option<String>,
    /// Whether it is down because an earlier attempt stopped it.
    halted: bool,
    grace: Grace,
}

impl Swap<'_> {
    async fn run(&self, old: &ContainerInspectResponse) -> Result<String, CapabilityError> {
        let new_id = match Box::pin(self.make(old)).await {
            Ok(new_id) => new_id,
            Err(error) if self.halted => {
                let end = match self.maker.start(&self.old_id).await {
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
        if let Err(error) = self.maker.remove(&self.old_id, true).await {
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
        let mut settings = self.maker.settings(old).await?;
        settings
            .for_successor(old)
            .map_err(|reason| CapabilityError::Invalid(self.maker.host.says(reason)))?;
        let host = self.maker.host;
        let told = host.mac_addresses(self.maker.timeout).await?;
        settings.keep_mac_addresses(told, self.mac_address.clone());
        // Left by an attempt that did not label it; never started.
        self.maker.remove(&self.fresh, false).await?;
        self.maker
            .make(&self.fresh, settings)
            .await
            .map_err(|error| because(error, "the old container was left as it was"))
    }

    async fn replace(&self, new_id: &str) -> Result<(), CapabilityError> {
        self.maker.stop(&self.old_id, self.grace).await?;
        self.maker.rename(&self.old_id, &self.aside).await?;
        self.maker.rename(new_id, &self.name).await?;
        self.maker.start(new_id).await
    }

    async fn put_back(&self, new_id: &str) -> Result<(), CapabilityError> {
        self.maker.remove(new_id, true).await?;
        let old = self.maker.inspect(&self.old_id).await?;
        if old.name.as_deref().map(bare) != Some(&self.name) {
            self.maker.rename(&self.old_id, &self.name).await?;
        }
        if self.was_up {
            self.maker.start(&self.old_id).await?;
        }
        Ok(())
    }
}

impl Settings {
    /// Of a container that takes the place of `old`.
    fn for_successor(&mut self, old: &ContainerInspectResponse) -> Result<(), &'static str> {
        if self.host.auto_remove == Some(true) {
            return Err(
                "a container that was started with --rm cannot be recreated: stopping it \
                 removes it and its nameless volumes",
            );
        }
        if let Some(id) = &old.id {
            let labels = self.body.labels.get_or_insert_default();
            labels.insert(REPLACES.to_owned(), id.clone());
        }
        keep_volumes(old, &mut self.host);
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn made_from(change: impl FnOnce(&mut Value)) -> Result<HostConfig, &'static str> {
        let mut inspect = json!({
            "Id": "0123456789abcdef",
            "Config": { "Image": "nginx:1" },
            "HostConfig": { "NetworkMode": "front" },
            "Mounts": [],
        });
        change(&mut inspect);
        let old = serde_json::from_value(inspect).unwrap();
        let mut settings = Settings::of(&old, "nginx:1".to_owned())?;
        settings.for_successor(&old)?;
        let labels = settings.body.labels.unwrap();
        assert_eq!(labels[REPLACES], "0123456789abcdef");
        Ok(settings.host)
    }

    #[test]
    fn nameless_volumes_are_mounted_by_name_and_named_ones_once() {
        let host = made_from(|old| {
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
