//! What depends on a container, in the order in which it has to be restarted.

use sentinel_plugin::docker::{Details, Summary};
use sentinel_plugin::{CapabilityError, Label};
use serde::Deserialize;

const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";
/// `SERVICE:CONDITION:RESTART` in a row, with commas.
const DEPENDS_ON: &str = "com.docker.compose.depends_on";
const ONE_OFF: &str = "com.docker.compose.oneoff";

/// Which of those that Compose's `depends_on` names follow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DependsOn {
    /// Those that ask for it: `restart: true`.
    #[default]
    Restart,
    All,
    None,
}

/// How a container depends on another one; the first is the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tie {
    /// It uses the network of a container that is gone, in whose place the other one is.
    Orphan,
    /// It uses its network.
    Network,
    /// Compose says so.
    DependsOn,
}

/// A container that depends on another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) id: String,
    /// What it depends on, by their ids.
    pub(crate) on: Vec<String>,
    /// The strongest of its ties.
    pub(crate) tie: Tie,
}

/// All that depends on one container, whatever lies between, each after what it depends
/// on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Family {
    members: Vec<Member>,
}

impl Family {
    /// The dependents of `root` among `rows`. `is_gone` says whether there is no container
    /// with that id any more.
    pub(crate) fn of(
        root: &Details,
        rows: &[Summary],
        depends_on: DependsOn,
        is_gone: impl Fn(&str) -> Result<bool, CapabilityError>,
    ) -> Result<Self, CapabilityError> {
        let mut orphans = Vec::new();
        for row in rows {
            match &row.network_of {
                Some(owner) if !rows.iter().any(|other| other.id == *owner) && is_gone(owner)? => {
                    orphans.push(row.id.as_str());
                }
                _ => {}
            }
        }
        let ties = |row: &Summary, on: &str, labels: &[Label]| {
            if row.network_of.as_deref() == Some(on) {
                return Some(Tie::Network);
            }
            let dependency = dependency(&row.labels, labels);
            if orphans.contains(&row.id.as_str()) {
                // Without Compose nothing says whose network it was, but the driver may know.
                let may_be = dependency.is_some() || find(&row.labels, PROJECT).is_none();
                return may_be.then_some(Tie::Orphan);
            }
            let follows = match depends_on {
                DependsOn::Restart => dependency? == Follows::Asked,
                DependsOn::All => dependency.is_some(),
                DependsOn::None => false,
            };
            follows.then_some(Tie::DependsOn)
        };

        // Everything that is reached from the root.
        let mut reached: Vec<(&str, &[Label])> = vec![(&root.id, &root.labels)];
        let mut next = 0;
        while let Some((id, labels)) = reached.get(next).copied() {
            for row in rows {
                let is_new = reached.iter().all(|(seen, _)| *seen != row.id);
                if is_new
                    && find(&row.labels, ONE_OFF) != Some("True")
                    && ties(row, id, labels).is_some()
                {
                    reached.push((&row.id, &row.labels));
                }
            }
            next += 1;
        }

        // Each after all of those that it depends on.
        let mut placed: Vec<(&str, &[Label])> = vec![(&root.id, &root.labels)];
        let mut members = Vec::new();
        let mut waiting: Vec<&Summary> = rows
            .iter()
            .filter(|row| row.id != root.id && reached.iter().any(|(id, _)| *id == row.id))
            .collect();
        while !waiting.is_empty() {
            let is_ready = |row: &&Summary| {
                reached.iter().all(|(id, labels)| {
                    *id == row.id
                        || placed.iter().any(|(done, _)| done == id)
                        || ties(row, id, labels).is_none()
                })
            };
            // Compose and Docker allow no circles; whoever wrote the labels may.
            let place = waiting.iter().position(is_ready).unwrap_or(0);
            let row = waiting.remove(place);
            let on: Vec<(&str, Tie)> = placed
                .iter()
                .filter_map(|(id, labels)| Some((*id, ties(row, id, labels)?)))
                .collect();
            if let Some(tie) = on.iter().map(|(_, tie)| *tie).min() {
                members.push(Member {
                    id: row.id.clone(),
                    on: on.into_iter().map(|(id, _)| id.to_owned()).collect(),
                    tie,
                });
            }
            placed.push((&row.id, &row.labels));
        }
        Ok(Self { members })
    }

    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }
}

/// Whether a dependent asks to be restarted after what it depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Follows {
    Asked,
    NotAsked,
}

/// Whether `dependent` depends on the service of `on`, by Compose's labels.
fn dependency(dependent: &[Label], on: &[Label]) -> Option<Follows> {
    let project = find(on, PROJECT)?;
    let service = find(on, SERVICE)?;
    if find(dependent, PROJECT)? != project {
        return None;
    }
    find(dependent, DEPENDS_ON)?
        .split(',')
        .map(|dependency| dependency.split(':'))
        .find_map(|mut parts| (parts.next()? == service).then_some(parts))
        .map(|mut parts| match parts.next_back() {
            Some("true") => Follows::Asked,
            _ => Follows::NotAsked,
        })
}

fn find<'a>(labels: &'a [Label], name: &str) -> Option<&'a str> {
    labels
        .iter()
        .find(|label| label.name == name)
        .map(|label| label.value.as_str())
}

#[cfg(test)]
mod tests {
    use sentinel_plugin::docker::{Health, State};

    use super::*;

    fn labels(service: &str, depends_on: &str) -> Vec<Label> {
        [
            (PROJECT, "shop"),
            (SERVICE, service),
            (DEPENDS_ON, depends_on),
        ]
        .into_iter()
        .map(|(name, value)| Label {
            name: name.to_owned(),
            value: value.to_owned(),
        })
        .collect()
    }

    fn row(id: &str, depends_on: &str, network_of: Option<&str>) -> Summary {
        Summary {
            id: id.to_owned(),
            name: id.to_owned(),
            image: "web".to_owned(),
            state: State::Running,
            labels: labels(id, depends_on),
            network_of: network_of.map(str::to_owned),
        }
    }

    fn vpn() -> Details {
        Details {
            id: "vpn".to_owned(),
            name: "vpn".to_owned(),
            image: "vpn".to_owned(),
            state: State::Running,
            health: Health::None,
            failing_streak: 0,
            exit_code: 0,
            oom_killed: false,
            restart_count: 0,
            started_at: None,
            finished_at: None,
            labels: labels("vpn", ""),
            network_of: None,
        }
    }

    fn order(rows: &[Summary], depends_on: DependsOn) -> Vec<(String, Tie)> {
        let family = Family::of(&vpn(), rows, depends_on, |id| Ok(id == "gone")).unwrap();
        family
            .members()
            .iter()
            .map(|member| (member.id.clone(), member.tie))
            .collect()
    }

    #[test]
    fn each_comes_after_what_it_depends_on() {
        let rows = [
            row(
                "app",
                "db:service_healthy:true,web:service_started:true",
                None,
            ),
            row("db", "vpn:service_healthy:true", None),
            row("other", "", None),
            row("vpn", "", None),
            row("web", "db:service_started:true", Some("vpn")),
        ];
        assert_eq!(
            order(&rows, DependsOn::Restart),
            [
                ("db".to_owned(), Tie::DependsOn),
                ("web".to_owned(), Tie::Network),
                ("app".to_owned(), Tie::DependsOn)
            ]
        );
        assert_eq!(
            order(&rows, DependsOn::None),
            [("web".to_owned(), Tie::Network)]
        );
    }

    #[test]
    fn all_that_a_container_depends_on_is_known() {
        let rows = [
            row("db", "vpn:service_healthy:true", None),
            row("web", "db:service_started:true", Some("vpn")),
        ];
        let family = Family::of(&vpn(), &rows, DependsOn::Restart, |_| Ok(false)).unwrap();
        assert_eq!(family.members()[1].on, ["vpn", "db"]);
    }

    #[test]
    fn who_does_not_ask_to_follow_stays_unless_all_shall() {
        let rows = [
            row("vpn", "", None),
            row("web", "vpn:service_started:false", None),
        ];
        assert_eq!(order(&rows, DependsOn::Restart), []);
        assert_eq!(
            order(&rows, DependsOn::All),
            [("web".to_owned(), Tie::DependsOn)]
        );
    }

    #[test]
    fn the_orphans_of_a_replaced_container_are_those_of_its_service() {
        let rows = [
            row(
                "hidden-owner",
                "vpn:service_started:true",
                Some("not granted"),
            ),
            row("others", "db:service_started:true", Some("gone")),
            row("vpn", "", None),
            row("web", "vpn:service_started:true", Some("gone")),
        ];
        assert_eq!(
            order(&rows, DependsOn::None),
            [("web".to_owned(), Tie::Orphan)]
        );
    }

    #[test]
    fn a_circle_of_labels_comes_to_an_end() {
        let rows = [
            row("a", "b:service_started:true,vpn:service_started:true", None),
            row("b", "a:service_started:true", None),
            row("vpn", "a:service_started:true", None),
        ];
        assert_eq!(order(&rows, DependsOn::Restart).len(), 2);
    }
}
