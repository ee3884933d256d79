//! What the world would look like: a dry run sees its own effects, although nothing was
//! done.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use sentinel_core::capability::{
    ContainerDetails, ContainerHealth, ContainerState, DockerCall, PlaybookReport, Request,
    Response,
};
use sentinel_core::event::Resource;
use sentinel_core::http::{HttpBody, HttpResponse};

use super::plan::stand_in;

/// The effects that a dry run has planned so far.
#[derive(Default)]
pub(crate) struct Rehearsal {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    planned: usize,
    changes: Vec<Planned>,
}

/// What one effect would have changed.
struct Planned {
    host: String,
    /// The container that is really there.
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
                    body: HttpBody::default(),
                    truncated: false,
                }));
            }
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
            DockerCall::List { .. } | DockerCall::Inspect { .. } | DockerCall::Logs { .. } => {
                (None, Response::Done)
            }
        };
        if let (Some(change), Some(on)) = (change, on) {
            let id = state.real(&asked.host, &on.id).to_owned();
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

    /// The id that the container would have by now.
    pub(crate) fn id(&self, host: &str, id: String) -> String {
        let state = self.lock();
        let made = state
            .changes_of(host, &id)
            .rev()
            .find_map(|planned| match &planned.change {
                Change::Recreated(id) => Some(id.clone()),
                _ => None,
            });
        made.unwrap_or(id)
    }

    /// What to ask Docker so that [`show`](Self::show) can answer `call`: a container that
    /// does not run may be one that would by now.
    pub(crate) fn ask(&self, call: DockerCall) -> DockerCall {
        match call {
            DockerCall::List { labels, .. } if !self.lock().changes.is_empty() => {
                DockerCall::List { all: true, labels }
            }
            call => call,
        }
    }

    /// Turns what Docker says in answer to `call` into what it would say.
    pub(crate) fn show(&self, host: &str, call: &DockerCall, response: &mut Response) {
        let state = self.lock();
        match response {
            Response::Container(details) => {
                let id = details.id.clone();
                for planned in state.changes_of(host, &id) {
                    planned.change(details);
                }
            }
            Response::Containers(rows) => {
                for row in rows.iter_mut() {
                    let id = row.id.clone();
                    for planned in state.changes_of(host, &id) {
                        row.state = planned.state(row.state);
                        if let Change::Recreated(id) = &planned.change {
                            row.id.clone_from(id);
                        }
                    }
                }
                if matches!(call, DockerCall::List { all: false, .. }) {
                    rows.retain(|row| runs(row.state));
                }
            }
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

    fn real<'a>(&'a self, host: &str, container: &'a str) -> &'a str {
        self.changes
            .iter()
            .find(|planned| {
                planned.host == host
                    && matches!(&planned.change, Change::Recreated(id) if id == container)
            })
            .map_or(container, |planned| planned.id.as_str())
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
            Change::Ended(_) => before,
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
                if details.health != ContainerHealth::None {
                    details.health = ContainerHealth::Healthy;
                }
                details.failing_streak = 0;
                details.exit_code = 0;
                details.oom_killed = false;
                // Docker counts the restarts of its own policy, from the last start by hand.
                details.restart_count = 0;
            }
            Change::Ended(code) if runs(before) => {
                details.finished_at = Some(self.at);
                details.exit_code = *code;
                details.oom_killed = false;
            }
            Change::Ended(_) => {}
        }
    }
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
