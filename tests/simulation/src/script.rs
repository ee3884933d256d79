//! Plugins as scripts: what a run asks for next, given the answers that it had. A plugin
//! is pure but for these, so a script is a function.

use sentinel_core::capability::{
    AnsibleRequest, CapabilityError, ContainerHealth, ContainerState, DockerCall, DockerRequest,
    Request, Response,
};
use sentinel_core::event::{CallResult, FailureClass, RunResult};
use sentinel_core::id::Target;

/// The plugin of a run.
#[derive(Debug, Clone)]
pub struct Script {
    plugin: String,
    target: Target,
    // What tells two runs of a plugin apart.
    salt: u64,
}

/// What a run does next.
#[derive(Debug, Clone)]
pub enum Next {
    /// It asks for something.
    Call(Request),
    /// It is done.
    End(RunResult),
}

impl Script {
    /// The script of `plugin`.
    pub fn new(plugin: &str, target: Target, salt: u64) -> Self {
        Self {
            plugin: plugin.to_owned(),
            target,
            salt,
        }
    }

    /// What comes after these answers.
    pub fn next(&self, answers: &[CallResult]) -> Next {
        if let Some(Err(error)) = answers.last() {
            return Next::End(failure(error));
        }
        let step = answers.len();
        match (self.plugin.as_str(), step) {
            ("restart" | "cycle" | "moody", 0) | ("cycle", 3) => self.inspect(),
            ("restart", 1) if healthy(answers) && self.salt % 4 != 0 => {
                Next::End(RunResult::Unchanged {
                    message: "it is well".to_owned(),
                })
            }
            ("restart", 1) => self.docker(|container| DockerCall::Restart {
                container,
                grace_ms: 1000,
            }),
            ("cycle", 1) => self.docker(|container| DockerCall::Stop {
                container,
                grace_ms: 1000,
            }),
            ("cycle" | "moody", 2) => self.docker(|container| DockerCall::Start { container }),
            ("moody", 1) => match self.salt % 6 {
                0 => ended(FailureClass::Retryable),
                1 => ended(FailureClass::Permanent),
                2 => ended(FailureClass::Denied),
                _ => self.docker(|container| DockerCall::Kill {
                    container,
                    signal: "TERM".to_owned(),
                }),
            },
            ("play", 0) => self.playbook("mend.yml"),
            ("tell", 0) => self.playbook("tell.yml"),
            _ => Next::End(RunResult::Changed {
                message: "done".to_owned(),
            }),
        }
    }

    fn inspect(&self) -> Next {
        self.docker(|container| DockerCall::Inspect { container })
    }

    fn docker(&self, call: impl FnOnce(String) -> DockerCall) -> Next {
        Next::Call(Request::Docker(DockerRequest {
            host: self.target.host().to_owned(),
            call: call(self.target.name().to_owned()),
        }))
    }

    fn playbook(&self, playbook: &str) -> Next {
        Next::Call(Request::Ansible(AnsibleRequest {
            playbook: playbook.to_owned(),
            extra_vars: serde_json::Map::new(),
            limit: Some(self.target.to_string()),
            tags: Vec::new(),
            timeout_ms: None,
        }))
    }
}

fn healthy(answers: &[CallResult]) -> bool {
    matches!(
        answers.first(),
        Some(Ok(Response::Container(details)))
            if details.state == ContainerState::Running
                && details.health != ContainerHealth::Unhealthy
    )
}

fn ended(class: FailureClass) -> Next {
    Next::End(RunResult::Failed {
        class,
        message: "the plugin is in a mood".to_owned(),
    })
}

fn failure(error: &CapabilityError) -> RunResult {
    let class = match error {
        CapabilityError::Unavailable(_) | CapabilityError::TimedOut(_) => FailureClass::Retryable,
        CapabilityError::Denied(_) => FailureClass::Denied,
        CapabilityError::NotFound(_) | CapabilityError::Invalid(_) | CapabilityError::Failed(_) => {
            FailureClass::Permanent
        }
    };
    RunResult::Failed {
        class,
        message: error.to_string(),
    }
}
