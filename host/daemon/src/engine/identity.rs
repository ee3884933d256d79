//! What targets are, whatever they were called: Docker is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use sentinel_core::capability::CapabilityError;
use sentinel_core::engine::{Identity, Input};
use sentinel_core::id::Target;
use sentinel_drivers::docker::{Docker, EngineId};
use sentinel_sandbox::driver::DockerDriver as _;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::EngineHandle;

/// How long Docker may take to say what something is.
const LOOK: Duration = Duration::from_secs(5);

/// How many looks there are at once.
const AT_ONCE: usize = 8;

/// What is known of Docker hosts and their containers.
#[derive(Debug)]
pub(crate) struct Identities {
    docker: Arc<Docker>,
    hosts: Mutex<Hosts>,
    looks: Semaphore,
}

/// Which names of the configuration are one Docker Engine.
#[derive(Debug, Default)]
struct Hosts {
    // The name that each is counted by, once that is known. It stays that for as long as
    // the daemon lives: what is locked under one name must not be free under another.
    counted: BTreeMap<String, String>,
    engines: BTreeMap<EngineId, String>,
}

impl Hosts {
    /// Takes in which engines these hosts are, in the order of their names.
    fn learn(&mut self, found: impl IntoIterator<Item = (String, EngineId)>) {
        for (host, engine) in found {
            if self.counted.contains_key(&host) {
                continue;
            }
            let first = self.engines.entry(engine).or_insert_with(|| host.clone());
            if *first != host {
                tracing::warn!(
                    host,
                    also = first,
                    "two Docker hosts of the configuration are one Docker Engine: what is done on one counts as done on the other. If they are two machines of which one is a copy of the other, give one another hostname, or an engine id of its own"
                );
            }
            self.counted.insert(host, first.clone());
        }
    }
}

impl Identities {
    pub(crate) fn new(docker: Arc<Docker>) -> Self {
        Self {
            docker,
            hosts: Mutex::default(),
            looks: Semaphore::new(AT_ONCE),
        }
    }

    fn hosts(&self) -> MutexGuard<'_, Hosts> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name that a host is counted by; none while that is not known. One that is alone,
    /// or that the configuration does not know, is counted by its own.
    pub(crate) fn host(&self, host: &str) -> Option<String> {
        let mut all = self.docker.hosts();
        let alone = all.next().is_some() && all.next().is_none();
        if alone || self.docker.hosts().all(|known| known != host) {
            return Some(host.to_owned());
        }
        self.hosts().counted.get(host).cloned()
    }

    /// Looks a target up; the answer comes back to the engine as an input.
    pub(super) fn look(
        self: &Arc<Self>,
        target: Target,
        engine: EngineHandle,
        tasks: &TaskTracker,
    ) {
        let identities = self.clone();
        tasks.spawn(async move {
            let found = identities.identify(&target).await;
            let found = found.map_err(|error| error.to_string());
            engine.input(Input::Identified { target, found });
        });
    }

    /// What a target is. A container that is not there is what it is called.
    pub(crate) async fn identify(&self, target: &Target) -> Result<Identity, CapabilityError> {
        if !target.is_container() {
            return Ok(Identity::by_name(target.clone(), target.host()));
        }
        let _place = self.looks.acquire().await;
        let host = match self.host(target.host()) {
            Some(host) => host,
            None => self.learn_host(target.host()).await?,
        };
        if !target.may_be_an_id() {
            return Ok(Identity::by_name(target.clone(), &host));
        }
        let look = self.docker.resolve(target.host(), target.name());
        let found = tokio::time::timeout(LOOK, look)
            .await
            .unwrap_or_else(|_| Err(CapabilityError::TimedOut(format!("no answer in {LOOK:?}"))));
        let target = match found {
            Ok(found) => Target::container(target.host(), &found.name),
            Err(CapabilityError::NotFound(_) | CapabilityError::Invalid(_)) => target.clone(),
            Err(error) => return Err(error),
        };
        Ok(Identity::by_name(target, &host))
    }

    /// Finds out which engine a host is. The others are asked as well: the first in the
    /// order of their names is what they are all counted by.
    pub(crate) async fn learn_host(&self, host: &str) -> Result<String, CapabilityError> {
        let known: BTreeSet<String> = self.hosts().counted.keys().cloned().collect();
        let asked = self.docker.hosts().filter(|host| !known.contains(*host));
        let asked = join_all(asked.map(|host| async move {
            let engine = tokio::time::timeout(LOOK, self.docker.engine(host)).await;
            let engine = engine.unwrap_or_else(|_| {
                Err(CapabilityError::TimedOut(format!("no answer in {LOOK:?}")))
            });
            (host.to_owned(), engine)
        }));
        let (mut found, mut failed) = (Vec::new(), None);
        for (name, engine) in asked.await {
            match engine {
                Ok(engine) => found.push((name, engine)),
                Err(error) if name == host => failed = Some(error),
                Err(_) => {}
            }
        }
        let mut hosts = self.hosts();
        hosts.learn(found);
        let counted = hosts.counted.get(host).cloned();
        drop(hosts);
        counted.ok_or_else(|| {
            failed.unwrap_or_else(|| {
                CapabilityError::Unavailable(format!(
                    "docker host {host} does not say which engine it is"
                ))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learn(hosts: &mut Hosts, found: &[(&str, &str)]) {
        hosts.learn(found.iter().map(|(host, engine)| {
            let engine = EngineId {
                id: (*engine).to_owned(),
                machine: "m".to_owned(),
            };
            ((*host).to_owned(), engine)
        }));
    }

    #[test]
    fn hosts_that_are_one_engine_are_counted_by_one_name_for_good() {
        let mut hosts = Hosts::default();
        learn(&mut hosts, &[("local", "A"), ("web1", "B"), ("web2", "A")]);
        assert_eq!(hosts.counted["web2"], "local");
        assert_eq!(hosts.counted["web1"], "web1");
        // One that answers only later does not take the name that others have.
        learn(&mut hosts, &[("apple", "A"), ("local", "C")]);
        assert_eq!(hosts.counted["apple"], "local");
        assert_eq!(hosts.counted["local"], "local");
    }
}
