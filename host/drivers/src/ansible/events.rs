//! Reads what the callback plugin wrote.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use sentinel_core::capability::{HostRecap, TaskResult, TaskStatus};
use serde::Deserialize;

/// How many results of tasks that went well are kept.
const RESULTS: usize = 1_000;

/// How many results of tasks that did not are kept, besides.
const FAILURES: usize = 500;

#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    Start { task: String },
    Task(TaskResult),
    Stats { hosts: BTreeMap<String, HostRecap> },
    Refused { message: String },
}

/// What is known of a run so far.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// The recap; none when the playbook did not come to its end.
    pub(super) hosts: Option<BTreeMap<String, HostRecap>>,
    /// The tasks' results, in order; bounded.
    pub(super) tasks: Vec<TaskResult>,
    /// The task that was begun last.
    pub(super) last_begun: Option<String>,
    /// Why it was ended by what it is held to.
    pub(super) refused: Option<String>,
}

/// Reads the file at `path`; blocks. No file means that nothing has happened.
pub(super) fn read(path: &Path) -> io::Result<Events> {
    match File::open(path) {
        Ok(file) => parse(BufReader::new(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Events::default()),
        Err(error) => Err(error),
    }
}

fn parse(lines: impl BufRead) -> io::Result<Events> {
    let mut events = Events::default();
    let (mut results, mut failures) = (0, 0);
    for line in lines.split(b'\n') {
        match serde_json::from_slice(&line?) {
            Ok(Event::Start { task }) => events.last_begun = Some(task),
            Ok(Event::Task(result)) => {
                let (kept, limit) = match result.status {
                    TaskStatus::Failed | TaskStatus::Unreachable => (&mut failures, FAILURES),
                    _ => (&mut results, RESULTS),
                };
                if *kept < limit {
                    *kept += 1;
                    events.tasks.push(result);
                }
            }
            Ok(Event::Stats { hosts }) => events.hosts = Some(hosts),
            Ok(Event::Refused { message }) => events.refused = Some(message),
            // The last line of a run that was ended in the middle of it.
            Err(error) => tracing::debug!(%error, "a line of a playbook's events is no event"),
        }
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_may_be_cut_off() {
        let lines = concat!(
            r#"{"event": "start", "task": "restart"}"#,
            "\n",
            r#"{"event": "task", "host": "h", "task": "restart", "status": "changed", "message": ""}"#,
            "\n",
            r#"{"event": "sta"#
        );
        let events = parse(lines.as_bytes()).unwrap();
        assert_eq!(events.last_begun.as_deref(), Some("restart"));
        assert_eq!(events.tasks.len(), 1);
        assert_eq!(events.tasks[0].status, TaskStatus::Changed);
        assert_eq!(events.hosts, None);
    }

    #[test]
    fn failures_are_kept_however_much_went_well_before() {
        let line = |status: &str| {
            format!(
                r#"{{"event": "task", "host": "h", "task": "t", "status": "{status}", "message": ""}}"#
            ) + "\n"
        };
        let lines = line("ok").repeat(5_000) + &line("failed").repeat(5_000);
        let events = parse(lines.as_bytes()).unwrap();
        assert_eq!(events.tasks.len(), RESULTS + FAILURES);
        assert_eq!(events.tasks[RESULTS].status, TaskStatus::Failed);
    }

    #[test]
    fn a_run_that_wrote_nothing_did_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let events = read(&folder.path().join("events")).unwrap();
        assert!(events.hosts.is_none() && events.tasks.is_empty());
    }
}
