//! What the world would look like: a dry run sees its own effects, although nothing was
//! done.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use sentinel_core::alert::Labels;
use sentinel_core::capability::{
    CapabilityError, ContainerDetails, ContainerHealth, ContainerState, ContainerSummary,
    DockerCall, PlaybookReport, Request, Response,
};
use sentinel_core::event::Resource;
use sentinel_core::http::{Blob, HttpResponse};

use super::plan::stand_in;
use crate::driver::ContainerIdentity;

/// The effects that a dry run has planned so far.
#[derive(Default)]
pub(crate) struct Rehearsal {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    planned: usize,
    changes: Vec<Planned>,
    made: Vec<Made>,
}

/// A container that the plan makes beside those that are there.
struct Made {
    host: String,
    /// What stands for its id.
    id: String,
    name: String,
    labels: Labels,
    /// The container that it is like.
    like: String,
    at: Timestamp,
}

/// What one effect would have changed.
struct Planned {
    host: String,
    /// The container that is really there, or what stands for one that is made.
    id: String,
    at: Timestamp,
    change: Change,
}

enum Change {
    /// Runs, if it did not.
    Started,
    /// Runs anew.
    Restarted,
    /// Runs anew, under another id.
    Recreated(String),
    /// Does not run any more, if it did; with its exit code.
    Ended(i64),
    /// Is not there any more.
    Removed,
}

impl Rehearsal {
    /// Takes an effect into the plan and says what it would have answered. `on` may be a
    /// container that the plan itself makes.
    pub(crate) fn plan(&self, request: &Request, on: Option<&Resource>, at: Timestamp) -> Response {
        let mut state = self.lock();
        state.planned += 1;
        let asked = match request {
            Request::Docker(asked) => asked,
            Request::Ansible(asked) => {
                return Response::Playbook(Box::new(PlaybookReport {
                    exit_code: 0,
                    hosts: [].into(),
                    tasks: Vec::new(),
                    output: format!("dry run: {} was not run", asked.playbook),
                    duration_ms: 0,
                }));
            }
            // What a server would have said is not known: that all is well, and no more.
            Request::Http(_) => {
                return Response::Http(Box::new(HttpResponse {
                    status: 200,
                    headers: Vec::new(),
                    body: Blob::default(),
                    truncated: false,
                }));
            }
            // Nor what it would have said of a mail.
            Request::Mail(_) => return Response::Mail(Box::default()),
            Request::Memory(_) => return Response::Done,
        };
        let (change, response) = match &asked.call {
            DockerCall::Start { .. } => (Some(Change::Started), Response::Done),
            DockerCall::Restart { .. } => (Some(Change::Restarted), Response::Done),
            // 143 is what SIGTERM leaves of a process that does not handle it.
            DockerCall::Stop { .. } => (Some(Change::Ended(143)), Response::Done),
            DockerCall::Kill { signal, .. } => {
                (exit_code(signal).map(Change::Ended), Response::Done)
            }
            DockerCall::Recreate { .. } => {
                let id = stand_in(state.planned, on);
                (Some(Change::Recreated(id.clone())), Response::Created(id))
            }
            DockerCall::Duplicate { name, labels, .. } => {
                let id = stand_in(state.planned, on);
                if let Some(on) = on {
                    let like = state.key(&asked.host, &on.id).to_owned();
                    state.made.push(Made {
                        host: asked.host.clone(),
                        id: id.clone(),
                        name: name.clone(),
                        labels: overlaid(&on.labels, labels),
                        like,
                        at,
                    });
                }
                (None, Response::Created(id))
            }
            DockerCall::Remove { .. } => (Some(Change::Removed), Response::Done),
            DockerCall::List { .. } | DockerCall::Inspect { .. } | DockerCall::Logs { .. } => {
                (None, Response::Done)
            }
        };
        if let (Some(change), Some(on)) = (change, on) {
            let id = state.key(&asked.host, &on.id).to_owned();
            state.changes.push(Planned {
                host: asked.host.clone(),
                id,
                at,
                change,
            });
        }
        response
    }

    /// The container that is really there, for one that the plan makes; else what was
    /// given.
    pub(crate) fn real(&self, host: &str, container: &str) -> String {
        self.lock().real(host, container).to_owned()
    }

    /// Who `asked` would be by now. `found` is the container that is really there.
    pub(crate) fn identity(
        &self,
        host: &str,
        asked: &str,
        mut found: ContainerIdentity,
    ) -> Result<ContainerIdentity, CapabilityError> {
        let state = self.lock();
        if let Some(made) = state.made(host, state.key(host, asked)) {
            found = ContainerIdentity {
                id: made.id.clone(),
                name: made.name.clone(),
                labels: made.labels.clone(),
            };
        }
        if state.is_removed(host, &found.id) {
            return Err(CapabilityError::NotFound(format!(
                "dry run: {} would have been removed by now",
                found.name
            )));
        }
        let id = state.id(host, &found.id).to_owned();
        Ok(ContainerIdentity { id, ..found })
    }

    /// What to ask Docker so that [`show`](Self::show) can answer `call`: a container that
    /// does not run may be one that would by now.
    pub(crate) fn ask(&self, call: DockerCall) -> DockerCall {
        match call {
            DockerCall::List { labels, .. } if !self.lock().is_untouched() => {
                DockerCall::List { all: true, labels }
            }
            call => call,
        }
    }

    /// Turns what Docker says in answer to `call` into what it would say. `on` is the
    /// container as the run knows it.
    pub(crate) fn show(
        &self,
        host: &str,
        call: &DockerCall,
        on: Option<&str>,
        response: &mut Response,
    ) {
        let state = self.lock();
        let made = on.and_then(|on| state.made(host, state.key(host, on)));
        match (response, call) {
            (Response::Container(details), _) => {
                if let Some(made) = made {
                    made.show(details);
                }
                let id = details.id.clone();
                for planned in state.changes_of(host, &id) {
                    planned.change(details);
                    if let Change::Recreated(_) = planned.change {
                        let owner = details.network_of.take();
                        details.network_of = owner.map(|id| state.id(host, &id).to_owned());
                    }
                }
            }
            (Response::Containers(rows), DockerCall::List { all, labels }) => {
                let made: Vec<_> = state.made_on(host, labels, rows).collect();
                rows.extend(made);
                rows.retain(|row| !state.is_removed(host, &row.id));
                for row in rows.iter_mut() {
                    let id = row.id.clone();
                    for planned in state.changes_of(host, &id) {
                        row.state = planned.state(row.state);
                        if let Change::Recreated(id) = &planned.change {
                            row.id.clone_from(id);
                            let owner = row.network_of.take();
                            row.network_of = owner.map(|id| state.id(host, &id).to_owned());
                        }
                    }
                }
                if !all {
                    rows.retain(|row| runs(row.state));
                }
                rows.sort_by(|a, b| a.name.cmp(&b.name));
            }
            // It has written nothing yet.
            (Response::Text(text), _) if made.is_some() => text.clear(),
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn changes_of<'a>(
        &'a self,
        host: &'a str,
        id: &'a str,
    ) -> impl DoubleEndedIterator<Item = &'a Planned> {
        self.changes
            .iter()
            .filter(move |planned| planned.host == host && planned.id == id)
    }

    /// Under which id the changes of a container are kept: what it was called before the
    /// plan replaced it.
    fn key<'a>(&'a self, host: &str, container: &'a str) -> &'a str {
        self.changes
            .iter()
            .find(|planned| {
                planned.host == host
                    && matches!(&planned.change, Change::Recreated(id) if id == container)
            })
            .map_or(container, |planned| planned.id.as_str())
    }

    fn real<'a>(&'a self, host: &str, container: &'a str) -> &'a str {
        let key = self.key(host, container);
        match self.made(host, key) {
            Some(made) => self.real(host, &made.like),
            None => key,
        }
    }

    /// The id that the container with this key would have by now.
    fn id<'a>(&'a self, host: &'a str, key: &'a str) -> &'a str {
        let recreated = |planned: &'a Planned| match &planned.change {
            Change::Recreated(id) => Some(id.as_str()),
            _ => None,
        };
        let mut changes = self.changes_of(host, key).rev();
        changes.find_map(recreated).unwrap_or(key)
    }

    /// The container that the plan makes under this id or name.
    fn made(&self, host: &str, container: &str) -> Option<&Made> {
        self.made
            .iter()
            .rev()
            .find(|made| made.host == host && (made.id == container || made.name == container))
    }

    /// The rows of what the plan makes and these labels ask for.
    fn made_on<'a>(
        &'a self,
        host: &'a str,
        labels: &'a Labels,
        rows: &'a [ContainerSummary],
    ) -> impl Iterator<Item = ContainerSummary> + 'a {
        let wanted = move |made: &&Made| {
            made.host == host
                && labels.iter().all(|(name, value)| {
                    let found = made.labels.get(name);
                    found.is_some_and(|found| value.is_empty() || found == value)
                })
        };
        self.made.iter().filter(wanted).map(move |made| {
            let real = self.real(host, &made.like);
            let like = rows.iter().find(|row| row.id == real);
            ContainerSummary {
                id: made.id.clone(),
                name: made.name.clone(),
                image: like.map(|like| like.image.clone()).unwrap_or_default(),
                state: ContainerState::Running,
                labels: made.labels.clone(),
                network_of: like.and_then(|like| like.network_of.clone()),
            }
        })
    }

    fn is_removed(&self, host: &str, key: &str) -> bool {
        self.changes_of(host, key)
            .any(|planned| matches!(planned.change, Change::Removed))
    }

    fn is_untouched(&self) -> bool {
        self.changes.is_empty() && self.made.is_empty()
    }
}

impl Made {
    /// Turns what Docker says of the container that it is like into what it would say of
    /// this one.
    fn show(&self, details: &mut ContainerDetails) {
        details.id.clone_from(&self.id);
        details.name.clone_from(&self.name);
        details.labels.clone_from(&self.labels);
        details.state = ContainerState::Running;
        details.started_at = Some(self.at);
        details.finished_at = None;
        as_new(details);
    }
}

impl Planned {
    /// The state that follows on `before`.
    fn state(&self, before: ContainerState) -> ContainerState {
        match self.change {
            // Docker starts what does not run, and leaves the rest as it is.
            Change::Started if runs(before) => before,
            Change::Started | Change::Restarted | Change::Recreated(_) => ContainerState::Running,
            Change::Ended(_) if runs(before) => ContainerState::Exited,
            Change::Ended(_) | Change::Removed => before,
        }
    }

    fn change(&self, details: &mut ContainerDetails) {
        let before = details.state;
        details.state = self.state(before);
        match &self.change {
            Change::Started if runs(before) => {}
            Change::Started | Change::Restarted | Change::Recreated(_) => {
                if let Change::Recreated(id) = &self.change {
                    details.id.clone_from(id);
                    details.finished_at = None;
                } else if runs(before) {
                    details.finished_at = Some(self.at);
                }
                details.started_at = Some(self.at);
                as_new(details);
            }
            Change::Ended(code) if runs(before) => {
                details.finished_at = Some(self.at);
                details.exit_code = *code;
                details.oom_killed = false;
            }
            Change::Ended(_) | Change::Removed => {}
        }
    }
}

/// The labels of a container that is made like one with `labels`.
pub(super) fn overlaid(labels: &Labels, over: &Labels) -> Labels {
    let mut labels = labels.clone();
    labels.extend(
        over.iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    labels
}

/// As it is after a start that went well.
fn as_new(details: &mut ContainerDetails) {
    if details.health != ContainerHealth::None {
        details.health = ContainerHealth::Healthy;
    }
    details.failing_streak = 0;
    details.exit_code = 0;
    details.oom_killed = false;
    // Docker counts the restarts of its own policy, from the last start by hand.
    details.restart_count = 0;
}

/// Whether there is a process; Docker's own list shows these.
fn runs(state: ContainerState) -> bool {
    matches!(
        state,
        ContainerState::Running | ContainerState::Paused | ContainerState::Restarting
    )
}

/// The exit code of a process that this signal ends; none when the signal is one that
/// programs use for something else.
fn exit_code(signal: &str) -> Option<i64> {
    let number = match signal.strip_prefix("SIG").unwrap_or(signal) {
        "INT" | "2" => 2,
        "QUIT" | "3" => 3,
        "ABRT" | "6" => 6,
        "KILL" | "9" => 9,
        "TERM" | "15" => 15,
        _ => return None,
    };
    Some(128 + number)
}
