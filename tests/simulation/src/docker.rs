//! A Docker host in memory. It keeps its own account of what was carried out for whom,
//! which no crash of the daemon touches.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sentinel_core::alert::Labels;
use sentinel_core::capability::{
    CapabilityError, ContainerDetails, ContainerHealth, ContainerState, DockerCall, PlaybookReport,
    Request, Response,
};
use sentinel_core::engine::Member;
use sentinel_core::event::{CallResult, Resource};
use sentinel_core::guard::settings::Fleet;
use sentinel_core::http::{Blob, HttpResponse};
use sentinel_core::id::{RunId, Target};
use sentinel_core::incident::VerifyCheck;

use crate::rng::mix;

/// The names of the containers; all but the last belong to the fleet `app=web`.
pub const CONTAINERS: [&str; 6] = ["web-1", "web-2", "web-3", "web-4", "web-5", "db"];

/// How a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It runs.
    Up,
    /// It does not.
    Down,
    /// It runs and says that it is ill.
    Ill,
}

#[derive(Debug, Clone)]
struct Container {
    health: Health,
    // How many starts it takes until it is well.
    stubborn: u32,
}

/// One call of one run.
pub type CallKey = (RunId, u32);

/// The host.
#[derive(Debug, Clone)]
pub struct Docker {
    containers: BTreeMap<String, Container>,
    done: BTreeMap<CallKey, u32>,
}

impl Docker {
    /// A host on which everything is well.
    pub fn new() -> Self {
        let well = |name: &&str| {
            let container = Container {
                health: Health::Up,
                stubborn: 0,
            };
            ((*name).to_owned(), container)
        };
        Self {
            containers: CONTAINERS.iter().map(well).collect(),
            done: BTreeMap::new(),
        }
    }

    /// Something befalls a container: it takes `stubborn` starts more than one to heal.
    pub fn afflict(&mut self, name: &str, health: Health, stubborn: u32) {
        if let Some(container) = self.containers.get_mut(name) {
            *container = Container { health, stubborn };
        }
    }

    /// Carries an effect out, for good.
    pub fn carry_out(&mut self, key: CallKey, request: &Request) {
        *self.done.entry(key).or_default() += 1;
        let Request::Docker(docker) = request else {
            return;
        };
        let name = named(docker.call.container().unwrap_or_default());
        let Some(container) = name.and_then(|name| self.containers.get_mut(name)) else {
            return;
        };
        match &docker.call {
            DockerCall::Stop { .. } | DockerCall::Kill { .. } => container.health = Health::Down,
            DockerCall::Start { .. } | DockerCall::Restart { .. } => {
                if container.stubborn == 0 {
                    container.health = Health::Up;
                } else {
                    container.stubborn -= 1;
                    container.health = Health::Ill;
                }
            }
            _ => {}
        }
    }

    /// How often a call was carried out.
    pub fn times(&self, key: CallKey) -> u32 {
        self.done.get(&key).copied().unwrap_or_default()
    }

    /// What a request that succeeds is answered with.
    pub fn answer(&self, request: &Request) -> CallResult {
        match request {
            Request::Ansible(asked) => Ok(Response::Playbook(Box::new(PlaybookReport {
                exit_code: 0,
                hosts: BTreeMap::new(),
                tasks: Vec::new(),
                output: format!("played {}", asked.playbook),
                duration_ms: 1000,
            }))),
            Request::Http(_) => Ok(Response::Http(Box::new(HttpResponse {
                status: 200,
                headers: Vec::new(),
                body: Blob::default(),
                truncated: false,
            }))),
            Request::Mail(_) => Ok(Response::Mail(Box::default())),
            Request::Memory(_) => Ok(Response::Done),
            Request::Docker(docker) => match &docker.call {
                DockerCall::Inspect { container } => {
                    let details = self.details(container).ok_or_else(|| {
                        CapabilityError::NotFound(format!("there is no container {container}"))
                    })?;
                    Ok(Response::Container(Box::new(details)))
                }
                _ => Ok(Response::Done),
            },
        }
    }

    /// What the name in a request is.
    pub fn resource(request: &Request) -> Option<Resource> {
        let Request::Docker(docker) = request else {
            return None;
        };
        let name = named(docker.call.container()?)?;
        Some(Resource {
            id: id_of(name),
            name: name.to_owned(),
            labels: labels(name),
        })
    }

    /// What `docker inspect` says.
    pub fn details(&self, text: &str) -> Option<ContainerDetails> {
        let name = named(text)?;
        let container = self.containers.get(name)?;
        let (state, health) = match container.health {
            Health::Up => (ContainerState::Running, ContainerHealth::Healthy),
            Health::Down => (ContainerState::Exited, ContainerHealth::None),
            Health::Ill => (ContainerState::Running, ContainerHealth::Unhealthy),
        };
        Some(ContainerDetails {
            id: id_of(name),
            name: name.to_owned(),
            image: "web:1".to_owned(),
            state,
            health,
            failing_streak: 0,
            exit_code: 0,
            oom_killed: false,
            restart_count: 0,
            started_at: None,
            finished_at: None,
            labels: labels(name),
            network_of: None,
        })
    }

    /// Whether a verification holds now. The URLs of the policies are answered while the
    /// container is well.
    pub fn holds(&self, check: &VerifyCheck, target: &Target) -> Result<String, String> {
        let container = named(target.name()).and_then(|name| self.containers.get(name));
        let health = container.map(|one| one.health);
        let holds = match check {
            VerifyCheck::Http { .. } | VerifyCheck::DockerHealthy => health == Some(Health::Up),
            VerifyCheck::DockerRunning => matches!(health, Some(Health::Up | Health::Ill)),
            VerifyCheck::AlertResolved => true,
        };
        let seen = health.map_or_else(|| "nothing".to_owned(), |health| format!("{health:?}"));
        if holds { Ok(seen) } else { Err(seen) }
    }

    /// The members of a fleet.
    pub fn members(&self, fleet: &Fleet) -> Vec<Member> {
        self.containers
            .iter()
            .filter(|(name, _)| {
                let has = labels(name);
                fleet
                    .labels
                    .iter()
                    .all(|(key, value)| has.get(key) == Some(value))
            })
            .map(|(name, container)| Member {
                name: name.clone(),
                well: container.health == Health::Up,
            })
            .collect()
    }
}

impl Default for Docker {
    fn default() -> Self {
        Self::new()
    }
}

/// What became of an effect that was under way when the daemon died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It was carried out.
    Done,
    /// It was not.
    NotDone,
    /// Nobody can tell.
    Unknown,
}

/// The id of a container.
pub fn id_of(name: &str) -> String {
    let number = mix(0, &name.bytes().map(u64::from).collect::<Vec<_>>());
    format!("{number:016x}").repeat(4)
}

/// The name of the container that Docker finds by this text: its name, or the begin of its
/// id.
pub fn named(text: &str) -> Option<&'static str> {
    let by_name = CONTAINERS.into_iter().find(|name| *name == text);
    let by_id = || {
        CONTAINERS
            .into_iter()
            .find(|name| id_of(name).starts_with(text))
    };
    by_name.or_else(by_id)
}

fn labels(name: &str) -> Labels {
    let app = if name == "db" { "db" } else { "web" };
    Labels::from([("app".to_owned(), app.to_owned())])
}

/// The moment `micros` microseconds after 1970.
pub fn moment(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH)
}
