//! What a recap means for the incident, and how it reads in the timeline.

use sentinel_plugin::ansible::{HostRecap, Recap, TaskFailure};
use sentinel_plugin::{Failure, Outcome};

/// How the run ends. A playbook that failed may succeed a moment later, on the same hosts
/// or once they can be reached; how often that is tried is the policy's to say.
pub(crate) fn outcome(playbook: &str, recap: &Recap) -> Result<Outcome, Failure> {
    if recap.succeeded() {
        return Ok(if recap.hosts.is_empty() {
            Outcome::unchanged(format!("{playbook} ran on no host"))
        } else if recap.changed() == 0 {
            Outcome::unchanged(format!(
                "{playbook} found nothing to change on {}",
                names(recap.hosts.iter().map(|host| host.host.as_str()))
            ))
        } else {
            let hosts = recap.hosts.iter().filter(|host| host.changed > 0);
            Outcome::changed(format!(
                "{playbook} changed {} on {}",
                count(recap.changed(), "task"),
                names(hosts.map(|host| host.host.as_str()))
            ))
        });
    }
    let reason = if recap.unreachable().next().is_some() {
        format!("could not reach {}", names(recap.unreachable()))
    } else if let Some(first) = recap.failures.first() {
        let more = match recap.failures.len() - 1 {
            0 => String::new(),
            others => format!(" (and {})", count(others as u64, "more failure")),
        };
        format!("failed: {}{more}", failure(first))
    } else {
        format!("failed with exit code {}", recap.exit_code)
    };
    Err(Failure::retryable(format!("{playbook} {reason}")))
}

/// One host's recap, as Ansible prints it but for what is zero.
pub(crate) fn host(host: &HostRecap) -> String {
    let mut parts = vec![
        format!("{}: ok={}", host.host, host.ok),
        format!("changed={}", host.changed),
    ];
    let noteworthy = [
        ("unreachable", host.unreachable),
        ("failed", host.failed),
        ("skipped", host.skipped),
        ("rescued", host.rescued),
        ("ignored", host.ignored),
    ];
    parts.extend(
        noteworthy
            .iter()
            .filter(|(_, number)| *number > 0)
            .map(|(name, number)| format!("{name}={number}")),
    );
    parts.join(" ")
}

/// One failed task.
pub(crate) fn failure(failure: &TaskFailure) -> String {
    format!(
        "{}: task {:?}: {}",
        failure.host, failure.task, failure.message
    )
}

fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// Some names in full, many as a number.
fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.collect();
    match names.as_slice() {
        [first, second, third, rest @ ..] if rest.len() > 1 => {
            format!("{first}, {second}, {third} and {} more", rest.len())
        }
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(host: &str, changed: u32, failed: u32, unreachable: u32) -> HostRecap {
        HostRecap {
            host: host.to_owned(),
            ok: 2,
            changed,
            failed,
            skipped: 1,
            unreachable,
            rescued: 0,
            ignored: 0,
        }
    }

    fn recap(exit_code: i32, hosts: Vec<HostRecap>, failures: &[&str]) -> Recap {
        Recap {
            exit_code,
            hosts,
            failures: failures
                .iter()
                .map(|message| TaskFailure {
                    host: "web-1".to_owned(),
                    task: "Restart".to_owned(),
                    message: (*message).to_owned(),
                })
                .collect(),
            duration: 900,
        }
    }

    #[test]
    fn a_change_is_told_with_the_hosts_it_was_made_on() {
        let hosts = vec![ran("web-1", 2, 0, 0), ran("web-2", 0, 0, 0)];
        assert_eq!(
            outcome("a.yml", &recap(0, hosts, &[])),
            Ok(Outcome::changed("a.yml changed 2 tasks on web-1"))
        );
    }

    #[test]
    fn nothing_changed_is_unchanged() {
        let hosts = vec![ran("web-1", 0, 0, 0)];
        assert_eq!(
            outcome("a.yml", &recap(0, hosts, &[])),
            Ok(Outcome::unchanged("a.yml found nothing to change on web-1"))
        );
        assert_eq!(
            outcome("a.yml", &recap(0, Vec::new(), &[])),
            Ok(Outcome::unchanged("a.yml ran on no host"))
        );
    }

    #[test]
    fn a_failure_names_host_task_and_message() {
        let hosts = vec![ran("web-1", 1, 1, 0)];
        assert_eq!(
            outcome("a.yml", &recap(2, hosts.clone(), &["no such container"])),
            Err(Failure::retryable(
                r#"a.yml failed: web-1: task "Restart": no such container"#
            ))
        );
        assert_eq!(
            outcome("a.yml", &recap(2, hosts.clone(), &["x", "y", "z"])),
            Err(Failure::retryable(
                r#"a.yml failed: web-1: task "Restart": x (and 2 more failures)"#
            ))
        );
        assert_eq!(
            outcome("a.yml", &recap(4, hosts, &[])),
            Err(Failure::retryable("a.yml failed with exit code 4"))
        );
    }

    #[test]
    fn hosts_that_cannot_be_reached_are_named() {
        let hosts = (1..=6).map(|n| ran(&format!("web-{n}"), 0, 0, 1)).collect();
        assert_eq!(
            outcome("a.yml", &recap(4, hosts, &["ssh: timed out"])),
            Err(Failure::retryable(
                "a.yml could not reach web-1, web-2, web-3 and 3 more"
            ))
        );
    }

    #[test]
    fn a_recap_reads_as_ansible_prints_it() {
        assert_eq!(
            host(&ran("web-1", 1, 1, 0)),
            "web-1: ok=2 changed=1 failed=1 skipped=1"
        );
    }
}
