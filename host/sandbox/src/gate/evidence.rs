//! What is kept of a container before the first effect: a restart destroys the traces of
//! what was wrong.

use std::time::Duration;

use sentinel_core::capability::{CapabilityError, ContainerDetails, DockerCall, Request, Response};
use sentinel_core::event::Resource;
use sentinel_core::grant::Grants;
use sentinel_core::id::Target;

use crate::driver::DockerDriver;
use crate::log::{plain, settled};

/// How long the look may take. It must not hold up the remedy.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How many bytes of the container's output are kept: the last ones.
const LOG_BYTES: usize = 64 * 1024;

/// Why there is no log.
const NOT_GRANTED: &str = "its log is not kept: the policy's grant of docker does not have this container (`grants: { docker: { containers: […], actions: [logs] } }`)";

/// What to look at before the first effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvidencePlan {
    /// How many of the container's last log lines are kept; none, if 0.
    pub lines: u32,
    /// The incident's target. It is looked at when the effect itself names no container;
    /// an effect that does is about that one.
    pub target: Target,
}

/// What was seen before the first effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The container, as the effect found it; none when it could not be looked at.
    pub container: Option<Box<ContainerDetails>>,
    /// The end of its output, without what would steer a terminal.
    pub log: String,
    /// What could not be had, and why.
    pub problem: Option<String>,
}

impl Evidence {
    pub(crate) fn missing(problem: impl Into<String>) -> Self {
        Self {
            container: None,
            log: String::new(),
            problem: Some(problem.into()),
        }
    }
}

/// Looks at the container that `request` acts on; `details` is what is known of it by the
/// look that found it. It is the engine that looks, so no grant is asked for its state. Its log
/// is kept where `grants` have the container: it may hold anything, and goes to whoever is told.
/// Nothing that goes wrong here is in the way of the effect.
pub(crate) async fn capture(
    docker: &dyn DockerDriver,
    grants: &Grants,
    plan: &EvidencePlan,
    request: &Request,
    on: Option<&Resource>,
    details: Option<Box<ContainerDetails>>,
) -> Evidence {
    let look = look(docker, grants, plan, request, on, details);
    tokio::time::timeout(TIMEOUT, look)
        .await
        .unwrap_or_else(|_| Evidence::missing(format!("Docker did not answer within {TIMEOUT:?}")))
}

async fn look(
    docker: &dyn DockerDriver,
    grants: &Grants,
    plan: &EvidencePlan,
    request: &Request,
    on: Option<&Resource>,
    details: Option<Box<ContainerDetails>>,
) -> Evidence {
    let (host, container, covered) = if let (Request::Docker(asked), Some(on)) = (request, on) {
        let host = asked.host.as_str();
        let covered = grants.sees_container(host, &on.name, &on.labels);
        (host, on.id.clone(), covered)
    } else {
        let target = &plan.target;
        if target.kind() != "docker" {
            return Evidence::missing(format!("the target {target} is no container"));
        }
        match docker.resolve(target.host(), target.name()).await {
            Ok(found) => {
                let covered = grants.sees_container(target.host(), &found.name, &found.labels);
                (target.host(), found.id, covered)
            }
            Err(error) => return Evidence::missing(error.to_string()),
        }
    };
    let inspect = DockerCall::Inspect {
        container: container.clone(),
    };
    let logs = DockerCall::Logs {
        container,
        lines: plan.lines,
    };
    let look = async {
        match details {
            Some(details) => Ok(Response::Container(details)),
            None => docker.call(host, &inspect, TIMEOUT).await,
        }
    };
    let (details, log) = tokio::join!(look, async {
        if plan.lines == 0 || !covered {
            Ok(Response::Text(String::new()))
        } else {
            docker.call(host, &logs, TIMEOUT).await
        }
    });
    let mut problems = Vec::new();
    let mut had = |name: &str, result: Result<Response, CapabilityError>| match result {
        Ok(response) => Some(response),
        Err(error) => {
            problems.push(format!("{name}: {error}"));
            None
        }
    };
    let container = match had("inspect", details) {
        Some(Response::Container(details)) => Some(details),
        _ => None,
    };
    let log = match had("logs", log) {
        Some(Response::Text(text)) => ending(&text),
        _ => String::new(),
    };
    if plan.lines > 0 && !covered {
        problems.push(NOT_GRANTED.to_owned());
    }
    Evidence {
        container,
        log,
        problem: (!problems.is_empty()).then(|| problems.join("; ")),
    }
}

/// The end of `text`, from the start of a line, on at most [`LOG_BYTES`] bytes.
fn ending(text: &str) -> String {
    let text = &*settled(text);
    let mut from = text.len().saturating_sub(LOG_BYTES);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    let kept = text.get(from..).unwrap_or_default();
    let kept = match kept.split_once('\n') {
        Some((_, whole)) if from > 0 => whole,
        _ => kept,
    };
    // Replacing a control character may lengthen the text: cut once more.
    let cleaned: String = plain(kept).collect();
    if cleaned.len() <= LOG_BYTES {
        cleaned
    } else {
        ending(&cleaned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_whole() {
        assert_eq!(ending("one\ntwo\n"), "one\ntwo\n");
        let line = "é".repeat(50) + "\n";
        let text = line.repeat(1_000);
        let kept = ending(&text);
        assert!(kept.len() <= LOG_BYTES && kept.len() > LOG_BYTES - 2 * line.len());
        assert!(kept.lines().all(|kept| kept == line.trim_end()));
        // What a progress bar drew over is not kept.
        let bar: Vec<_> = (0..5_000)
            .map(|at| format!("\r{at:>5} {}", "=".repeat(60)))
            .collect();
        let bar = bar.concat();
        assert_eq!(ending(&format!("begin\n{bar}\nend\n")).lines().count(), 3);
        // One endless line has no start to go back to.
        assert_eq!(ending(&"x".repeat(LOG_BYTES + 5)).len(), LOG_BYTES);
    }

    #[test]
    fn nothing_steers_a_terminal_and_the_bound_holds() {
        assert_eq!(ending("a\u{1b}[2Jb\u{1b}]x\r\n"), "ab\u{fffd}]x\n");
        let kept = ending(&"\u{1b}\n".repeat(LOG_BYTES));
        assert!(kept.len() <= LOG_BYTES);
        assert!(kept.lines().all(|line| line == "\u{fffd}"));
    }
}
