//! What the events say of one run: everything that it was given and everything that it
//! did, so that it can be played again.
//!
//! A plugin is pure but for what the host gives it: the answers to its calls, its clock
//! and its randomness. All of that is on record, in the order in which the run had it.
//! So whatever the record holds, be it cut off anywhere, is the beginning of the run, and
//! the same plugin with the same record comes to the same place.

use jiff::Timestamp;
use serde::Serialize;

use crate::capability::{CapabilityError, Request};
use crate::event::{
    CallResult, Event, EventBody, LogLevel, PlannedEffect, Resource, RunMode, RunResult,
};
use crate::id::{Digest, PluginName, RunId};

/// The record of one run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recording {
    /// The run.
    pub run: RunId,
    /// The step that it served, counted from 1.
    pub step: u32,
    /// The attempt at the step, counted from 1.
    pub attempt: u32,
    /// The plugin that ran.
    pub plugin: PluginName,
    /// The version that it says it has.
    pub version: String,
    /// Which bytes ran.
    pub digest: Digest,
    /// What the gate did with its effects.
    pub mode: RunMode,
    /// What its clock and randomness came from; none when it was cut off before it had
    /// begun.
    pub origin: Option<Origin>,
    /// What its clock said, in nanoseconds after it began, once for each look.
    pub readings: Vec<u64>,
    /// When it went on after the daemon had been cut off, or after it had been stopped.
    pub resumptions: Vec<Resumption>,
    /// Its calls, in the order of their numbers, which count from 1.
    pub calls: Vec<RecordedCall>,
    /// The lines that it wrote.
    pub lines: Vec<RecordedLine>,
    /// Whether evidence was captured before its first effect.
    pub evidence: bool,
    /// How it ended; none when it was cut off, or still runs.
    pub end: Option<RunResult>,
}

/// What a run's clock and randomness come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// What its random numbers are computed from.
    #[serde(serialize_with = "as_hex")]
    pub seed: [u8; 32],
    /// What its clock said when it began.
    pub clock: Timestamp,
}

/// A run went on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Resumption {
    /// How many looks at the clock are on record before it.
    pub looks: usize,
    /// When.
    pub at: Timestamp,
}

/// One call of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecordedCall {
    /// Its number, counted from 1.
    pub number: u32,
    /// What was asked; of a long request that was refused the beginning.
    pub request: Request,
    /// Identifies the whole request, if only its beginning is on record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// What the name in the request turned out to be; known of effects alone.
    pub on: Option<Resource>,
    /// How many looks at the clock are on record before it.
    pub looks: usize,
    /// What came of it.
    pub outcome: RecordedOutcome,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordedOutcome {
    /// It looked at something and was told this.
    Observed(CallResult),
    /// It was to change something.
    Effect {
        /// When that began.
        began_at: Timestamp,
        /// How it went; none when that is not on record.
        ended: Option<CallResult>,
    },
    /// It would have changed something; the run was dry.
    Planned {
        /// When.
        at: Timestamp,
        /// What the run was told.
        result: CallResult,
    },
    /// The gate refused it.
    Denied(CapabilityError),
}

/// One line of a run's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecordedLine {
    /// How much it matters.
    pub level: LogLevel,
    /// The line.
    pub message: String,
}

/// The events are not the whole record of a run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordingError {
    /// None of them begins it.
    #[error("the journal knows of no run {0}")]
    NotStarted(RunId),
    /// It did something, and what its clock and randomness came from is not there.
    #[error(
        "run {0} was recorded without what its clock and randomness came from, as older versions of sentinel did"
    )]
    Unseeded(RunId),
    /// What should be the seed is none.
    #[error("the seed of run {0} is not 64 hexadecimal digits")]
    BadSeed(RunId),
    /// A call is missing.
    #[error("the record of run {run} goes from call {before} to call {call}")]
    Gap {
        /// The run.
        run: RunId,
        /// The last call before the gap; 0 when it is the first that is missing.
        before: u32,
        /// The call after it.
        call: u32,
    },
    /// An effect has no end, and something follows it.
    #[error("the record of run {run} goes on after call {call}, which has no end")]
    NoEnd {
        /// The run.
        run: RunId,
        /// The call.
        call: u32,
    },
    /// An effect has an end, and no begin.
    #[error("call {call} of run {run} has an end on record and no begin")]
    NoBegin {
        /// The run.
        run: RunId,
        /// The call.
        call: u32,
    },
    /// Something is there twice that is there once.
    #[error("the record of run {run} has {what} twice")]
    Twice {
        /// The run.
        run: RunId,
        /// What.
        what: String,
    },
}

impl Recording {
    /// What `events` say of `run`. They are those of its incident, in their order; other
    /// runs may be among them. If the run is about to be resumed, its `RunResumed` is
    /// already among them: that is when its clock goes on.
    pub fn of(events: &[Event], run: RunId) -> Result<Self, RecordingError> {
        let mut recording: Option<Self> = None;
        for event in events {
            match (&event.body, &mut recording) {
                (body, None) => {
                    if let Some(begun) = Self::begin(body, run) {
                        recording = Some(begun);
                    }
                }
                (body, Some(recording)) => recording.take(event.at, body)?,
            }
        }
        let recording = recording.ok_or(RecordingError::NotStarted(run))?;
        let did_something = !recording.calls.is_empty()
            || !recording.readings.is_empty()
            || !recording.lines.is_empty();
        if recording.origin.is_none() && did_something {
            return Err(RecordingError::Unseeded(run));
        }
        Ok(recording)
    }

    /// What a dry run planned: its effects, in order.
    #[must_use]
    pub fn plan(&self) -> Vec<PlannedEffect> {
        self.calls
            .iter()
            .filter(|call| matches!(call.outcome, RecordedOutcome::Planned { .. }))
            .map(|call| PlannedEffect {
                request: call.request.clone(),
                on: call.on.clone(),
            })
            .collect()
    }

    /// The effect that began and has no end. It is the last call.
    #[must_use]
    pub fn in_doubt(&self) -> Option<&RecordedCall> {
        self.calls.last().filter(|call| call.is_in_doubt())
    }

    /// The record that `body` begins, if it is the start of `run`.
    fn begin(body: &EventBody, run: RunId) -> Option<Self> {
        let EventBody::RunStarted {
            run: started,
            step,
            attempt,
            plugin,
            version,
            digest,
            mode,
            ..
        } = body
        else {
            return None;
        };
        (*started == run).then(|| Self {
            run,
            step: *step,
            attempt: *attempt,
            plugin: plugin.clone(),
            version: version.clone(),
            digest: *digest,
            mode: *mode,
            origin: None,
            readings: Vec::new(),
            resumptions: Vec::new(),
            calls: Vec::new(),
            lines: Vec::new(),
            evidence: false,
            end: None,
        })
    }

    fn take(&mut self, at: Timestamp, body: &EventBody) -> Result<(), RecordingError> {
        match body {
            EventBody::RunStarted { run, .. } if *run == self.run => {
                return Err(self.twice("its start"));
            }
            EventBody::RunSeeded { run, seed, clock } if *run == self.run => {
                if self.origin.is_some() {
                    return Err(self.twice("its seed"));
                }
                self.origin = Some(Origin {
                    seed: from_hex(seed).ok_or(RecordingError::BadSeed(self.run))?,
                    clock: *clock,
                });
            }
            EventBody::ClockRead { run, readings } if *run == self.run => {
                self.readings.extend_from_slice(readings);
            }
            EventBody::RunResumed { run } if *run == self.run => {
                // One that was stopped between two effects.
                self.end = None;
                self.resumptions.push(Resumption {
                    looks: self.readings.len(),
                    at,
                });
            }
            EventBody::RunEnded { run, result } if *run == self.run => {
                if self.end.is_some() {
                    return Err(self.twice("its end"));
                }
                self.end = Some(result.clone());
            }
            EventBody::EvidenceCaptured { run, .. } if *run == self.run => self.evidence = true,
            EventBody::Logged {
                run,
                level,
                message,
            } if *run == self.run => self.lines.push(RecordedLine {
                level: *level,
                message: message.clone(),
            }),
            EventBody::Observed {
                run,
                call,
                request,
                result,
            } if *run == self.run => {
                self.call(
                    *call,
                    request,
                    None,
                    RecordedOutcome::Observed(result.clone()),
                )?;
            }
            EventBody::Denied {
                run,
                call,
                request,
                digest,
                error,
            } if *run == self.run => {
                self.call(*call, request, None, RecordedOutcome::Denied(error.clone()))?;
                if let Some(recorded) = self.calls.last_mut() {
                    recorded.digest = *digest;
                }
            }
            EventBody::Planned {
                run,
                call,
                effect,
                result,
            } if *run == self.run => self.call(
                *call,
                &effect.request,
                effect.on.as_ref(),
                RecordedOutcome::Planned {
                    at,
                    result: result.clone(),
                },
            )?,
            EventBody::EffectBegan {
                run,
                call,
                request,
                on,
            } if *run == self.run => {
                // One that was in doubt may begin again under its number.
                if self.in_doubt().is_some_and(|last| last.number == *call) {
                    self.calls.pop();
                }
                let outcome = RecordedOutcome::Effect {
                    began_at: at,
                    ended: None,
                };
                self.call(*call, request, on.as_ref(), outcome)?;
            }
            EventBody::EffectEnded {
                run, call, result, ..
            } if *run == self.run => self.ended(*call, result)?,
            _ => {}
        }
        Ok(())
    }

    fn call(
        &mut self,
        number: u32,
        request: &Request,
        on: Option<&Resource>,
        outcome: RecordedOutcome,
    ) -> Result<(), RecordingError> {
        let run = self.run;
        if let Some(last) = self.in_doubt() {
            let call = last.number;
            return Err(RecordingError::NoEnd { run, call });
        }
        let before = self.calls.last().map_or(0, |last| last.number);
        if number <= before {
            return Err(self.twice(&format!("call {number}")));
        }
        if number != before + 1 {
            let call = number;
            return Err(RecordingError::Gap { run, before, call });
        }
        self.calls.push(RecordedCall {
            number,
            request: request.clone(),
            digest: None,
            on: on.cloned(),
            looks: self.readings.len(),
            outcome,
        });
        Ok(())
    }

    fn ended(&mut self, call: u32, result: &CallResult) -> Result<(), RecordingError> {
        let run = self.run;
        let found = self.calls.iter_mut().find(|known| known.number == call);
        match found.map(|known| &mut known.outcome) {
            Some(RecordedOutcome::Effect { ended, .. }) => {
                if ended.is_some() {
                    return Err(self.twice(&format!("the end of call {call}")));
                }
                *ended = Some(result.clone());
                Ok(())
            }
            _ => Err(RecordingError::NoBegin { run, call }),
        }
    }

    fn twice(&self, what: &str) -> RecordingError {
        RecordingError::Twice {
            run: self.run,
            what: what.to_owned(),
        }
    }
}

impl RecordedCall {
    /// Whether this is the record of `asked`. What is asked now is taken as the journal
    /// would give it back: a number of a playbook's variables may lose its last bit on
    /// the way through it.
    #[must_use]
    pub fn is_for(&self, asked: &Request) -> bool {
        match self.digest {
            None => is_same(&self.request, asked),
            Some(digest) => {
                let (beginning, whole) = asked.refused();
                whole == Some(digest) && is_same(&self.request, &beginning)
            }
        }
    }

    /// What the run was told; none when the effect's end is not on record.
    #[must_use]
    pub fn answer(&self) -> Option<CallResult> {
        match &self.outcome {
            RecordedOutcome::Observed(result) | RecordedOutcome::Planned { result, .. } => {
                Some(result.clone())
            }
            RecordedOutcome::Effect { ended, .. } => ended.clone(),
            RecordedOutcome::Denied(error) => Some(Err(error.clone())),
        }
    }

    /// Whether it is an effect that began and has no end.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        matches!(self.outcome, RecordedOutcome::Effect { ended: None, .. })
    }
}

/// Whether `asked` is what the journal gave back as `recorded`.
#[must_use]
pub fn is_same(recorded: &Request, asked: &Request) -> bool {
    let as_recorded =
        || -> Option<Request> { serde_json::from_str(&serde_json::to_string(asked).ok()?).ok() };
    recorded == asked || as_recorded().as_ref() == Some(recorded)
}

/// Identifies a plan: what is approved is what has this digest.
#[must_use]
pub fn plan_digest(plan: &[PlannedEffect]) -> Digest {
    // Every map in it has text for keys, so this cannot fail.
    Digest::of(&serde_json::to_vec(plan).unwrap_or_default())
}

fn as_hex<S: serde::Serializer>(seed: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&to_hex(seed))
}

/// A seed as `RunSeeded` has it: 64 hexadecimal digits.
#[must_use]
pub fn to_hex(seed: &[u8; 32]) -> String {
    use std::fmt::Write as _;
    seed.iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ok = write!(hex, "{byte:02x}");
            hex
        })
}

fn from_hex(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut seed = [0; 32];
    for (byte, pair) in seed.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(seed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::capability::{AnsibleRequest, DockerCall, DockerRequest, Response};
    use crate::id::IncidentId;

    const RUN: RunId = RunId {
        incident: IncidentId(42),
        number: 2,
    };

    fn docker(call: DockerCall) -> Request {
        Request::Docker(DockerRequest {
            host: "local".to_owned(),
            call,
        })
    }

    fn inspect() -> Request {
        docker(DockerCall::Inspect {
            container: "nginx".to_owned(),
        })
    }

    fn start() -> Request {
        docker(DockerCall::Start {
            container: "nginx".to_owned(),
        })
    }

    fn nginx() -> Resource {
        Resource {
            id: "a".repeat(64),
            name: "nginx".to_owned(),
            labels: [].into(),
        }
    }

    fn started(run: RunId) -> EventBody {
        EventBody::RunStarted {
            run,
            step: 1,
            attempt: 2,
            plugin: "docker-restart".parse().unwrap(),
            version: "0.1.0".to_owned(),
            digest: Digest::of(b"plugin"),
            pinned: false,
            mode: RunMode::Live,
        }
    }

    fn seeded() -> EventBody {
        EventBody::RunSeeded {
            run: RUN,
            seed: "0a".repeat(32),
            clock: at(1),
        }
    }

    fn observed(call: u32) -> EventBody {
        EventBody::Observed {
            run: RUN,
            call,
            request: inspect(),
            result: Ok(Response::Done),
        }
    }

    fn began(call: u32) -> EventBody {
        EventBody::EffectBegan {
            run: RUN,
            call,
            request: start(),
            on: Some(nginx()),
        }
    }

    fn ended(call: u32) -> EventBody {
        EventBody::EffectEnded {
            run: RUN,
            call,
            name: "docker.start".to_owned(),
            result: Ok(Response::Done),
            settled: false,
        }
    }

    fn read(readings: &[u64]) -> EventBody {
        EventBody::ClockRead {
            run: RUN,
            readings: readings.to_vec(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// The events, a second apart, as the journal gives them back.
    fn journal(bodies: Vec<EventBody>) -> Vec<Event> {
        let events: Vec<Event> = bodies
            .into_iter()
            .zip(0..)
            .map(|(body, second)| Event {
                at: at(second),
                incident: RUN.incident,
                body,
            })
            .collect();
        serde_json::from_str(&serde_json::to_string(&events).unwrap()).unwrap()
    }

    fn of(bodies: Vec<EventBody>) -> Result<Recording, RecordingError> {
        Recording::of(&journal(bodies), RUN)
    }

    /// A run among the events of its incident.
    fn whole() -> Vec<EventBody> {
        let other = RunId { number: 1, ..RUN };
        vec![
            started(other),
            EventBody::GuardsPassed,
            started(RUN),
            seeded(),
            read(&[3, 4]),
            observed(1),
            EventBody::Logged {
                run: RUN,
                level: LogLevel::Info,
                message: "one".to_owned(),
            },
            EventBody::Logged {
                run: other,
                level: LogLevel::Info,
                message: "of another".to_owned(),
            },
            EventBody::Denied {
                digest: None,
                run: RUN,
                call: 2,
                request: start(),
                error: CapabilityError::Denied("no".to_owned()),
            },
            EventBody::RunResumed { run: RUN },
            read(&[7]),
            EventBody::EvidenceCaptured {
                run: RUN,
                container: None,
                log: String::new(),
                problem: None,
            },
            began(3),
            EventBody::RunResumed { run: RUN },
            began(3),
            ended(3),
            EventBody::RunEnded {
                run: RUN,
                result: RunResult::Changed {
                    message: "done".to_owned(),
                },
            },
        ]
    }

    #[test]
    fn a_record_has_everything_in_its_order() {
        let recording = of(whole()).unwrap();
        assert_eq!((recording.step, recording.attempt), (1, 2));
        assert_eq!(recording.digest, Digest::of(b"plugin"));
        let origin = recording.origin.unwrap();
        assert_eq!((origin.seed, origin.clock), ([10; 32], at(1)));
        assert_eq!(to_hex(&origin.seed), "0a".repeat(32));
        assert_eq!(recording.readings, [3, 4, 7]);
        let resumptions: Vec<_> = recording
            .resumptions
            .iter()
            .map(|resumed| (resumed.looks, resumed.at))
            .collect();
        assert_eq!(resumptions, [(2, at(9)), (3, at(13))]);
        let calls: Vec<_> = recording
            .calls
            .iter()
            .map(|call| (call.number, call.looks, call.answer().is_some()))
            .collect();
        assert_eq!(calls, [(1, 2, true), (2, 2, true), (3, 3, true)]);
        assert_eq!(
            recording.calls[2].outcome,
            RecordedOutcome::Effect {
                began_at: at(14),
                ended: Some(Ok(Response::Done))
            },
            "the second begin of an effect in doubt is the one that counts"
        );
        assert_eq!(recording.calls[2].on, Some(nginx()));
        assert_eq!(recording.lines.len(), 1);
        assert!(recording.evidence);
        assert!(matches!(recording.end, Some(RunResult::Changed { .. })));
        assert_eq!(recording.in_doubt(), None);
    }

    #[test]
    fn every_beginning_of_a_record_is_one() {
        let whole = whole();
        let mut last = 0;
        for cut in 3..=whole.len() {
            let recording = of(whole[..cut].to_vec()).unwrap();
            assert!(recording.calls.len() >= last);
            last = recording.calls.len();
            let doubt = matches!(cut, 13..=15);
            assert_eq!(recording.in_doubt().is_some(), doubt, "{cut}");
        }
        let error = of(whole[..2].to_vec()).unwrap_err();
        assert_eq!(error.to_string(), "the journal knows of no run 42.2");
    }

    #[test]
    fn what_is_not_a_whole_record_is_none() {
        let wrong = |bodies: Vec<EventBody>| {
            let begin = vec![started(RUN), seeded()];
            of([begin, bodies].concat()).unwrap_err().to_string()
        };
        assert_eq!(
            wrong(vec![observed(1), observed(3)]),
            "the record of run 42.2 goes from call 1 to call 3"
        );
        assert_eq!(
            wrong(vec![observed(2)]),
            "the record of run 42.2 goes from call 0 to call 2"
        );
        assert_eq!(
            wrong(vec![began(1), observed(2)]),
            "the record of run 42.2 goes on after call 1, which has no end"
        );
        for bodies in [vec![ended(1)], vec![observed(1), ended(1)]] {
            assert_eq!(
                wrong(bodies),
                "call 1 of run 42.2 has an end on record and no begin"
            );
        }
        for (bodies, what) in [
            (vec![observed(1), observed(1)], "call 1"),
            (vec![began(1), ended(1), ended(1)], "the end of call 1"),
            (vec![began(1), ended(1), began(1)], "call 1"),
            (vec![seeded()], "its seed"),
            (vec![started(RUN)], "its start"),
        ] {
            assert_eq!(
                wrong(bodies),
                format!("the record of run 42.2 has {what} twice")
            );
        }
        let bad = EventBody::RunSeeded {
            run: RUN,
            seed: "0x".repeat(32),
            clock: at(0),
        };
        assert_eq!(
            of(vec![started(RUN), bad]).unwrap_err(),
            RecordingError::BadSeed(RUN)
        );
        // One of an older version, which began and did nothing, and one that did.
        assert_eq!(of(vec![started(RUN)]).unwrap().origin, None);
        assert_eq!(
            of(vec![started(RUN), observed(1)]).unwrap_err(),
            RecordingError::Unseeded(RUN)
        );
    }

    #[test]
    fn a_run_that_was_stopped_and_goes_on_has_no_end_yet() {
        let stopped = EventBody::RunEnded {
            run: RUN,
            result: RunResult::Stopped {
                cause: crate::event::StopCause::Paused,
                message: "paused".to_owned(),
            },
        };
        let bodies = vec![started(RUN), seeded(), observed(1), stopped.clone()];
        assert!(of(bodies.clone()).unwrap().end.is_some());
        let resumed = [bodies, vec![EventBody::RunResumed { run: RUN }]].concat();
        assert_eq!(of(resumed.clone()).unwrap().end, None);
        let twice = [resumed, vec![stopped.clone(), stopped]].concat();
        assert_eq!(
            of(twice).unwrap_err().to_string(),
            "the record of run 42.2 has its end twice"
        );
    }

    #[test]
    fn the_plan_is_what_was_planned() {
        let effect = PlannedEffect {
            request: start(),
            on: Some(nginx()),
        };
        let planned = |call| EventBody::Planned {
            run: RUN,
            call,
            effect: effect.clone(),
            result: Ok(Response::Done),
        };
        let bodies = vec![started(RUN), seeded(), planned(1), observed(2), planned(3)];
        let plan = of(bodies).unwrap().plan();
        assert_eq!(plan, [effect.clone(), effect.clone()]);
        let digest = plan_digest(&plan);
        assert_eq!(digest, plan_digest(&plan.clone()));
        assert_ne!(digest, plan_digest(&[effect]));
        assert_ne!(digest, plan_digest(&[]));
    }

    #[test]
    fn a_request_is_the_recorded_one_after_its_way_through_the_journal() {
        let asked = |number: f64| {
            Request::Ansible(AnsibleRequest {
                playbook: "a.yml".to_owned(),
                extra_vars: json!({ "number": number }).as_object().unwrap().clone(),
                limit: None,
                tags: Vec::new(),
                timeout_ms: None,
            })
        };
        // Among these are some whose text is read back as their neighbour.
        let mut neighbours = 0;
        for step in 0..20_000_u32 {
            let number = 1.0 / (f64::from(step) + 3.0) * 1.0e-7;
            let asked = asked(number);
            let text = serde_json::to_string(&asked).unwrap();
            let recorded: Request = serde_json::from_str(&text).unwrap();
            neighbours += u32::from(recorded != asked);
            assert!(is_same(&recorded, &asked), "{number}");
        }
        println!("{neighbours} numbers lost their last bit");
        assert!(!is_same(&asked(0.5), &asked(0.25)));
        assert!(!is_same(&start(), &inspect()));
    }
}
