//! A process that is ended with all its descendants.
//!
//! A process group holds most of them, and one signal reaches all of it. Newer versions
//! of Ansible start each worker in a session of its own, though, out of reach of that
//! signal; so descendants are looked up in `/proc`, too. A process id can be given to
//! another process at any time; each is known by its id and the time of its start.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use process_wrap::tokio::{ChildWrapper, CommandWrap, KillOnDrop, ProcessGroup};
use tokio::process::{ChildStderr, ChildStdout};
use tokio::time::Instant;

/// How long processes have between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// How long to wait for processes to be gone after SIGKILL, which only a process that
/// hangs in the kernel survives.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// How often to look whether they are gone.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A process that leads a group of its own. Dropped before it has ended, its group is
/// killed at once.
#[derive(Debug)]
pub(super) struct Group {
    child: Box<dyn ChildWrapper>,
    leader: Pid,
    ended: bool,
}

impl Group {
    /// Starts `program` in `folder`, with `environment` and nothing else of the
    /// daemon's, and nothing on stdin.
    pub(super) fn start(
        program: &Path,
        arguments: &[OsString],
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        folder: &Path,
    ) -> io::Result<Self> {
        let mut command = CommandWrap::with_new(program, |command| {
            command
                .args(arguments)
                .env_clear()
                .envs(environment)
                .current_dir(folder)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
        });
        let child = command
            .wrap(ProcessGroup::leader())
            .wrap(KillOnDrop)
            .spawn()?;
        let leader = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .map(Pid::from_raw)
            .ok_or_else(|| io::Error::other("the process has no id"))?;
        Ok(Self {
            child,
            leader,
            ended: false,
        })
    }

    /// The pipes, the first time.
    pub(super) fn pipes(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        (self.child.stdout().take(), self.child.stderr().take())
    }

    /// What tells this process from every other, as [`kill_noted`] reads it; none
    /// when it has ended.
    pub(super) fn note(&self) -> Option<String> {
        let leader = Process::look(self.leader.as_raw())?;
        Some(format!("{} {}", leader.id, leader.started))
    }

    /// Waits until the leader has ended.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.ended = true;
        Ok(status)
    }

    /// Ends the group and all descendants: SIGTERM, and SIGKILL for what is still
    /// there after the grace.
    pub(super) async fn end(&mut self) {
        // The leader is not waited for until all is over: as long as it is not, its
        // id, which is the group's, is given to nobody else.
        let mut family = Family::of(self.leader);
        let mut alive;
        (family, alive) = family.look().await;
        self.signal(Signal::SIGTERM, &alive);
        let killing = Instant::now() + GRACE;
        let giving_up = killing + LAST_WAIT;
        let mut killed = false;
        while !alive.is_empty() && Instant::now() < giving_up {
            if Instant::now() >= killing {
                self.signal(Signal::SIGKILL, &alive);
                killed = true;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
            (family, alive) = family.look().await;
        }
        if !alive.is_empty() {
            let ids: Vec<i32> = alive.iter().map(|process| process.id).collect();
            tracing::warn!(
                ?ids,
                killed,
                "processes of a playbook could not be ended; they may be another user's"
            );
        }
        if let Ok(status) = tokio::time::timeout(LAST_WAIT, self.wait()).await {
            tracing::debug!(?status, killed, "a playbook was ended");
        }
    }

    fn signal(&self, signal: Signal, alive: &[Process]) {
        report(killpg(self.leader, signal));
        for process in alive {
            if process.group != self.leader.as_raw() {
                report(kill(Pid::from_raw(process.id), signal));
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.ended {
            report(killpg(self.leader, Signal::SIGKILL));
        }
    }
}

fn report(sent: Result<(), Errno>) {
    if let Err(error) = sent
        && error != Errno::ESRCH
    {
        tracing::debug!(%error, "a signal was not delivered");
    }
}

/// Kills the group of the process that `note` is about, if that very process still
/// leads one. Blocks.
pub(super) fn kill_noted(note: &str) -> bool {
    let Some((id, started)) = note.trim().split_once(' ') else {
        return false;
    };
    let (Ok(id), Ok(started)) = (id.parse::<i32>(), started.parse::<u64>()) else {
        return false;
    };
    let same = Process::look(id)
        .is_some_and(|found| found.started == started && found.group == id && !found.ended);
    if !same {
        return false;
    }
    let mut family = Family::of(Pid::from_raw(id));
    for process in family.alive() {
        report(kill(Pid::from_raw(process.id), Signal::SIGKILL));
    }
    true
}

/// A line of `/proc/*/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    id: i32,
    parent: i32,
    group: i32,
    /// Clock ticks since the machine came up.
    started: u64,
    /// Ended, and kept by the kernel for its parent to see.
    ended: bool,
}

impl Process {
    fn look(id: i32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // The name is in parentheses, and can hold some itself.
        let (head, rest) = stat.rsplit_once(')')?;
        let id = head.split_once(' ')?.0.parse().ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        let started = fields.nth(16)?.parse().ok()?;
        Some(Self {
            id,
            parent,
            group,
            started,
            ended: matches!(state, "Z" | "X" | "x"),
        })
    }

    /// All of them; blocks.
    fn all() -> Vec<Self> {
        let Ok(entries) = std::fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(Self::look)
            .collect()
    }
}

/// The members of a group, and every descendant of theirs that was ever seen.
#[derive(Debug)]
struct Family {
    group: i32,
    known: HashSet<(i32, u64)>,
}

impl Family {
    fn of(leader: Pid) -> Self {
        Self {
            group: leader.as_raw(),
            known: HashSet::new(),
        }
    }

    /// Those that run; on the blocking pool.
    async fn look(mut self) -> (Self, Vec<Process>) {
        let group = self.group;
        let looking = tokio::task::spawn_blocking(move || {
            let alive = self.alive();
            (self, alive)
        });
        looking.await.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot look for a playbook's processes");
            (Self::of(Pid::from_raw(group)), Vec::new())
        })
    }

    /// Those that run; blocks.
    fn alive(&mut self) -> Vec<Process> {
        self.among(Process::all())
    }

    fn among(&mut self, mut all: Vec<Process>) -> Vec<Process> {
        let started: HashMap<i32, u64> = all.iter().map(|p| (p.id, p.started)).collect();
        loop {
            let before = self.known.len();
            for process in &all {
                let child_of_known = started
                    .get(&process.parent)
                    .is_some_and(|started| self.known.contains(&(process.parent, *started)));
                if process.group == self.group || child_of_known {
                    self.known.insert((process.id, process.started));
                }
            }
            if self.known.len() == before {
                break;
            }
        }
        all.retain(|p| !p.ended && self.known.contains(&(p.id, p.started)));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(id: i32, parent: i32, group: i32, started: u64) -> Process {
        Process {
            id,
            parent,
            group,
            started,
            ended: false,
        }
    }

    fn ids(processes: &[Process]) -> Vec<i32> {
        processes.iter().map(|process| process.id).collect()
    }

    #[test]
    fn a_name_can_look_like_anything() {
        let stat = "42 (a) S 9 (b)) R 7 41 40 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 12345 0 0";
        assert_eq!(Process::parse(stat), Some(process(42, 7, 41, 12345)));
        assert_eq!(Process::parse("nonsense"), None);
    }

    #[test]
    fn this_process_is_found() {
        let id = i32::try_from(std::process::id()).unwrap();
        let found = Process::look(id).unwrap();
        assert_eq!(found.id, id);
        assert!(
            Process::all()
                .iter()
                .any(|other| other.id == id && other.started == found.started)
        );
    }

    #[test]
    fn descendants_belong_to_the_family_whatever_their_group() {
        let mut family = Family::of(Pid::from_raw(10));
        let alive = family.among(vec![
            process(30, 20, 30, 3),
            process(20, 10, 20, 2),
            process(10, 1, 10, 1),
            process(99, 1, 99, 1),
        ]);
        assert_eq!(ids(&alive), [30, 20, 10]);
        // Their parents are gone, and they were seen before.
        let alive = family.among(vec![process(30, 1, 30, 3), process(31, 30, 31, 4)]);
        assert_eq!(ids(&alive), [30, 31]);
    }

    #[test]
    fn an_id_that_was_given_anew_is_a_stranger() {
        let mut family = Family::of(Pid::from_raw(10));
        family.among(vec![process(10, 1, 10, 1), process(20, 10, 20, 2)]);
        let alive = family.among(vec![process(20, 1, 20, 9), process(21, 20, 20, 9)]);
        assert_eq!(ids(&alive), [0; 0]);
    }

    #[test]
    fn notes_about_others_kill_nobody() {
        let id = std::process::id();
        for note in ["", "x", "1", "a b", &format!("{id} 1"), "999999999 1"] {
            assert!(!kill_noted(note), "{note:?}");
        }
    }
}
