//! One run at the gate: its script, its record, and the rules that the real gate keeps.

use std::collections::VecDeque;

use sentinel_core::capability::Request;
use sentinel_core::engine::Order;
use sentinel_core::event::{CallResult, Event, EventBody, StopCause};
use sentinel_core::id::RunId;

use crate::script::Script;

/// A run that is under way.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) order: Order,
    pub(crate) script: Script,
    /// The answers that it had.
    pub(crate) answers: Vec<CallResult>,
    /// What is on record and was not played yet.
    pub(crate) record: VecDeque<Recorded>,
    /// How many effects of the approved plan were begun.
    pub(crate) applied: usize,
    pub(crate) doing: Doing,
    /// When its next step is, in microseconds.
    pub(crate) next: i64,
    /// Why it has to end.
    pub(crate) halted: Option<(StopCause, String)>,
    /// When it is cut off, in microseconds.
    pub(crate) deadline: i64,
    /// Whether evidence is still to be taken.
    pub(crate) evidence: bool,
}

/// What a run waits for.
#[derive(Debug)]
pub(crate) enum Doing {
    /// The guest thinks.
    Nothing,
    /// The driver looks at something.
    Looking { call: u32, request: Request },
    /// The driver changes something.
    Acting {
        call: u32,
        request: Request,
        /// Whether it comes to pass.
        carried_out: bool,
        result: CallResult,
    },
    /// What was changed is to be recorded.
    Ending {
        call: u32,
        name: &'static str,
        result: CallResult,
        settled: bool,
    },
}

/// One call on record.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) call: u32,
    pub(crate) request: Request,
    /// Whether it is an effect that was carried out, and not only planned.
    pub(crate) effect: bool,
    /// How it went; none when that is not on record.
    pub(crate) result: Option<CallResult>,
}

/// What is on record of a run.
pub(crate) fn record(events: &[Event], run: RunId) -> VecDeque<Recorded> {
    let mut calls: VecDeque<Recorded> = VecDeque::new();
    let mut push = |call: u32, request: &Request, effect, result: Option<&CallResult>| {
        // One that was in doubt and begun again is one call.
        calls.retain(|recorded| recorded.call != call);
        calls.push_back(Recorded {
            call,
            request: request.clone(),
            effect,
            result: result.cloned(),
        });
    };
    let mut ends = Vec::new();
    for event in events {
        match &event.body {
            EventBody::Observed {
                run: of,
                call,
                request,
                result,
            } if *of == run => push(*call, request, false, Some(result)),
            EventBody::Planned {
                run: of,
                call,
                effect,
                result,
            } if *of == run => push(*call, &effect.request, false, Some(result)),
            EventBody::EffectBegan {
                run: of,
                call,
                request,
                ..
            } if *of == run => push(*call, request, true, None),
            EventBody::EffectEnded {
                run: of,
                call,
                result,
                ..
            } if *of == run => ends.push((*call, result.clone())),
            _ => {}
        }
    }
    for (call, result) in ends {
        for recorded in calls.iter_mut().filter(|recorded| recorded.call == call) {
            recorded.result = Some(result.clone());
        }
    }
    calls
}
