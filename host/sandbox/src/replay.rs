//! Plays a run once more on its record alone: nothing outside is touched.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sentinel_core::capability::Request;
use sentinel_core::event::{CallResult, LogLevel, Resource, RunMode, RunResult};
use sentinel_core::recording::{RecordedCall, RecordedLine, RecordedOutcome, Recording};
use serde::Serialize;

use crate::clock::RunClock;
use crate::engine::Sandbox;
use crate::gate::{LEFT_OUT, in_full};
use crate::guest::{Role, Source, Stop};
use crate::log::RunLog;
use crate::playback::Playback;
use crate::plugin::Plugin;
use crate::run::{IncidentInput, Remediation, RunFailure, RunLimits};

/// What came of playing a run again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReplayReport {
    /// Whether the plugin is the very one that was recorded. Then everything must agree;
    /// another version may word its last message and its log differently, and look at the
    /// clock more often or less.
    pub same_plugin: bool,
    /// What it asked and was told, call by call, as far as it followed the record.
    pub calls: Vec<ReplayedCall>,
    /// The lines that it wrote after the last of them.
    pub lines: Vec<RecordedLine>,
    /// Where it first did something else than the record has.
    pub divergence: Option<Divergence>,
    /// How it came to its end.
    pub outcome: ReplayOutcome,
}

/// One call of a replay that followed the record.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReplayedCall {
    /// Its number, counted from 1.
    pub number: u32,
    /// The lines that it wrote before.
    pub lines: Vec<RecordedLine>,
    /// What it asked.
    pub request: Request,
    /// What the name in the request turned out to be; known of effects alone.
    pub on: Option<Resource>,
    /// What came of it when it was recorded.
    pub outcome: RecordedOutcome,
}

/// How a replay came to its end.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum ReplayOutcome {
    /// The plugin ended.
    Ended {
        /// How.
        result: RunResult,
    },
    /// The recorded run was cut off where the plugin would go on: what it would have been
    /// told is not known.
    RecordEnds {
        /// What it asked for there; none when it ended instead.
        asked: Option<Request>,
    },
    /// It asked for something that the record does not have, so it could not go on.
    Diverged,
}

/// The first thing in which a replay differs from the record.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "divergence", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Divergence {
    /// It made another call.
    OtherCall {
        /// The call's number.
        call: u32,
        /// What was recorded.
        recorded: Request,
        /// What it asked.
        asked: Request,
    },
    /// It made a call, and the recorded run had come to its end.
    MoreCalls {
        /// The call's number.
        call: u32,
        /// What it asked.
        asked: Request,
        /// How the recorded run ended.
        recorded: RunResult,
    },
    /// It came to its end, and the recorded run went on.
    FewerCalls {
        /// The number of the call that it did not make.
        call: u32,
        /// What was recorded.
        recorded: Request,
        /// How it ended.
        ended: RunResult,
    },
    /// It ended differently.
    OtherEnd {
        /// How the recorded run ended.
        recorded: RunResult,
        /// How it ended.
        ended: RunResult,
    },
    /// The very plugin that was recorded wrote another line.
    OtherLine {
        /// The line's number, counted from 1.
        line: usize,
        /// What was recorded; none when it had ended.
        recorded: Option<RecordedLine>,
        /// What it wrote; none when it wrote no more.
        written: Option<RecordedLine>,
    },
    /// The very plugin that was recorded looked at the clock more often or less.
    OtherLooks {
        /// Before which call; none when it was at the end.
        call: Option<u32>,
        /// How often the recorded run had.
        recorded: usize,
        /// How often it had.
        looked: usize,
    },
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherCall {
                call,
                recorded,
                asked,
            } => write!(
                f,
                "call {call}: recorded {}, asked {}",
                in_full(recorded),
                in_full(asked)
            ),
            Self::MoreCalls {
                call,
                asked,
                recorded,
            } => write!(
                f,
                "call {call}: the recorded run {}, asked {}",
                ending(recorded),
                in_full(asked)
            ),
            Self::FewerCalls {
                call,
                recorded,
                ended,
            } => write!(
                f,
                "call {call}: recorded {}, the replay {}",
                in_full(recorded),
                ending(ended)
            ),
            Self::OtherEnd { recorded, ended } => write!(
                f,
                "the end: the recorded run {}, the replay {}",
                ending(recorded),
                ending(ended)
            ),
            Self::OtherLine {
                line,
                recorded,
                written,
            } => {
                let tell = |line: &Option<RecordedLine>| match line {
                    Some(line) => format!("{}: {}", line.level.as_str(), line.message),
                    None => "nothing".to_owned(),
                };
                write!(
                    f,
                    "line {line}: recorded {}, written {}",
                    tell(recorded),
                    tell(written)
                )
            }
            Self::OtherLooks {
                call,
                recorded,
                looked,
            } => {
                match call {
                    Some(call) => write!(f, "call {call}: ")?,
                    None => f.write_str("the end: ")?,
                }
                write!(
                    f,
                    "the recorded run had looked at its clock {recorded} times, the replay \
                     {looked} times"
                )
            }
        }
    }
}

fn ending(result: &RunResult) -> String {
    match result {
        RunResult::Changed { message } => format!("ended `changed`: {message}"),
        RunResult::Unchanged { message } => format!("ended `unchanged`: {message}"),
        RunResult::Failed { class, message } => {
            format!("failed ({}): {message}", class.as_str())
        }
        RunResult::Stopped { cause, message } => {
            format!("was stopped ({}): {message}", cause.as_str())
        }
    }
}

impl Sandbox {
    /// Plays the run in `recording` once more, with the plugin that was recorded or with
    /// another version of it. `incident` and `limits` are those that the run had. The
    /// plugin is told what the record has, and nothing outside is touched; no sleep takes
    /// any time. It ends where it first asks for something else.
    pub async fn replay(
        &self,
        plugin: Arc<Plugin>,
        incident: IncidentInput,
        recording: Recording,
        limits: RunLimits,
    ) -> ReplayReport {
        let same_plugin = plugin.digest == recording.digest;
        let Some(origin) = recording.origin else {
            // Cut off before it had begun.
            return ReplayReport {
                same_plugin,
                calls: Vec::new(),
                lines: Vec::new(),
                divergence: None,
                outcome: ReplayOutcome::RecordEnds { asked: None },
            };
        };
        let limits = self.bounded(limits);
        let playback = Arc::new(Playback::new(recording));
        let clock = RunClock::skipping(
            origin.clock,
            limits.timeout,
            Arc::clone(&playback),
            limits.calls,
        );
        let player = Arc::new(Player {
            playback,
            clock: clock.clone(),
            same_plugin,
            played: Mutex::default(),
        });
        let sink = Arc::clone(&player);
        let remediation = Remediation {
            plugin,
            incident,
            role: Role::Replaying(Arc::clone(&player)),
            limits,
            log: RunLog::new(
                limits.log_bytes,
                limits.log_lines,
                Box::new(move |level, line| sink.logged(level, line)),
            ),
            source: Source {
                seed: origin.seed,
                clock,
            },
        };
        let report = self.run_apart(remediation).await;
        player.finish(RunResult::from(&report))
    }
}

/// Stands where a gate stands in a run that takes place.
pub(crate) struct Player {
    playback: Arc<Playback>,
    clock: RunClock,
    same_plugin: bool,
    played: Mutex<Played>,
}

#[derive(Default)]
struct Played {
    calls: Vec<ReplayedCall>,
    lines: Vec<RecordedLine>,
    lines_written: usize,
    divergence: Option<Divergence>,
    /// How it ended, if it could not go on.
    outcome: Option<ReplayOutcome>,
}

impl Player {
    /// Answers from the record, or ends the replay.
    pub(crate) fn pass(&self, asked: &Request) -> Result<CallResult, Stop> {
        let mut played = self.lock();
        let Some(recorded) = self.playback.next_call() else {
            let recording = self.playback.recording();
            let call = u32::try_from(recording.calls.len())
                .unwrap_or(u32::MAX)
                .saturating_add(1);
            let asked = asked.clone();
            match &recording.end {
                Some(end) if !was_cut_off(end) => played.diverge(
                    Divergence::MoreCalls {
                        call,
                        asked,
                        recorded: end.clone(),
                    },
                    ReplayOutcome::Diverged,
                ),
                _ => played.end(ReplayOutcome::RecordEnds { asked: Some(asked) }),
            }
            return Err(Stop::Replayed);
        };
        if !recorded.is_for(asked) {
            played.diverge(
                Divergence::OtherCall {
                    call: recorded.number,
                    recorded: recorded.request.clone(),
                    asked: asked.clone(),
                },
                ReplayOutcome::Diverged,
            );
            return Err(Stop::Replayed);
        }
        self.compare_looks(&mut played, Some(recorded));
        let lines = std::mem::take(&mut played.lines);
        played.calls.push(ReplayedCall {
            number: recorded.number,
            lines,
            // The same, but for the rest of a long one that was refused.
            request: recorded.request.clone(),
            on: recorded.on.clone(),
            outcome: recorded.outcome.clone(),
        });
        recorded.answer().ok_or_else(|| {
            played.end(ReplayOutcome::RecordEnds {
                asked: Some(asked.clone()),
            });
            Stop::Replayed
        })
    }

    fn logged(&self, level: LogLevel, message: &str) {
        let mut played = self.lock();
        let line = RecordedLine {
            level,
            message: message.to_owned(),
        };
        played.lines_written += 1;
        let recorded = self.playback.next_line();
        let record_ends = recorded.is_none() && self.ends_early();
        if self.same_plugin && !record_ends && recorded != Some(&line) {
            let divergence = Divergence::OtherLine {
                line: played.lines_written,
                recorded: recorded.cloned(),
                written: Some(line.clone()),
            };
            played.note(divergence);
        }
        played.lines.push(line);
    }

    /// What came of the replay, whose guest ended with `result`.
    fn finish(&self, result: RunResult) -> ReplayReport {
        let mut played = std::mem::take(&mut *self.lock());
        let outcome = match played.outcome.take() {
            Some(outcome) => outcome,
            None => self.compare_end(&mut played, result),
        };
        ReplayReport {
            same_plugin: self.same_plugin,
            calls: played.calls,
            lines: played.lines,
            divergence: played.divergence,
            outcome,
        }
    }

    /// The guest ended by itself: did the recorded run, too, and in the same way?
    fn compare_end(&self, played: &mut Played, result: RunResult) -> ReplayOutcome {
        let recording = self.playback.recording();
        if let Some(awaited) = self.playback.awaited_call() {
            played.note(Divergence::FewerCalls {
                call: awaited.number,
                recorded: awaited.request.clone(),
                ended: result.clone(),
            });
            return ReplayOutcome::Ended { result };
        }
        let Some(end) = recording.end.as_ref().filter(|end| !was_cut_off(end)) else {
            // What the recorded run would have come to is not known, unless it was cut off
            // in the same way.
            return if recording.end.as_ref() == Some(&result) {
                ReplayOutcome::Ended { result }
            } else {
                ReplayOutcome::RecordEnds { asked: None }
            };
        };
        let recorded = without_left_out(end, recording.mode);
        let differs = if self.same_plugin {
            recorded != result
        } else {
            kind(&recorded) != kind(&result)
        };
        if differs {
            played.note(Divergence::OtherEnd {
                recorded,
                ended: result.clone(),
            });
        }
        if self.same_plugin {
            if let Some(line) = self.playback.next_line() {
                played.note(Divergence::OtherLine {
                    line: played.lines_written + 1,
                    recorded: Some(line.clone()),
                    written: None,
                });
            }
            self.compare_looks(played, None);
        }
        ReplayOutcome::Ended { result }
    }

    fn compare_looks(&self, played: &mut Played, before: Option<&RecordedCall>) {
        let recorded = before.map_or(self.playback.recording().readings.len(), |call| call.looks);
        let looked = self.clock.looks();
        if self.same_plugin && recorded != looked {
            played.note(Divergence::OtherLooks {
                call: before.map(|call| call.number),
                recorded,
                looked,
            });
        }
    }

    /// Whether the recorded run did not come to its own end.
    fn ends_early(&self) -> bool {
        self.playback
            .recording()
            .end
            .as_ref()
            .is_none_or(was_cut_off)
    }

    fn lock(&self) -> MutexGuard<'_, Played> {
        self.played.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Played {
    /// Keeps the first divergence.
    fn note(&mut self, divergence: Divergence) {
        self.divergence.get_or_insert(divergence);
    }

    fn end(&mut self, outcome: ReplayOutcome) {
        self.outcome.get_or_insert(outcome);
    }

    fn diverge(&mut self, divergence: Divergence, outcome: ReplayOutcome) {
        self.note(divergence);
        self.end(outcome);
    }
}

/// Whether the host cut the run off at a moment that had nothing to do with what it did.
fn was_cut_off(end: &RunResult) -> bool {
    match end {
        RunResult::Changed { .. } | RunResult::Unchanged { .. } => false,
        RunResult::Failed { message, .. } => RunFailure::says_cut_off(message),
        RunResult::Stopped { .. } => true,
    }
}

/// The end as the plugin told it, without what the gate added of the approved plan.
fn without_left_out(end: &RunResult, mode: RunMode) -> RunResult {
    let mut end = end.clone();
    if let (
        RunMode::Apply,
        RunResult::Changed { message }
        | RunResult::Unchanged { message }
        | RunResult::Failed { message, .. },
    ) = (mode, &mut end)
        && let Some(own) = message.find(LEFT_OUT)
    {
        message.truncate(own);
    }
    end
}

/// How a run ended, without the words that it found for it.
fn kind(result: &RunResult) -> RunResult {
    let mut kind = result.clone();
    match &mut kind {
        RunResult::Changed { message }
        | RunResult::Unchanged { message }
        | RunResult::Failed { message, .. }
        | RunResult::Stopped { message, .. } => message.clear(),
    }
    kind
}
