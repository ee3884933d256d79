//! What the journal holds: its records, and the log that SQLite left.

use std::fmt::Debug;
use std::hint::black_box;
use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use sentinel_core::alert::{Alert, Episode};
use sentinel_core::control::{ControlEvent, Controls};
use sentinel_core::engine::{Engine, PluginVersion, Settings, World};
use sentinel_core::event::{Event, EventBody};
use sentinel_core::guard::limits::{EffectLimits, EffectWindows};
use sentinel_core::id::{Digest, PluginRef, PolicyName, RunId, Target};
use sentinel_core::incident::Incident;
use sentinel_core::lease::Lease;
use sentinel_core::policy::{Environment, PolicySet};
use sentinel_core::record::{
    Accepted, History, HistoryError, IncidentRow, PastEffect, Recovered, Standing,
};
use sentinel_core::recording::{Recording, plan_digest};
use sentinel_core::timeline::{annotate, briefing, timeline};
use sentinel_journal::{Log, StoredServing, read_log};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{bounded, root, said, text};

/// Records, one a line, of an incident and of whatever else there is.
pub fn record(bytes: &[u8]) {
    let text = text(bytes);
    let (mut events, mut controls, mut inbox) = (Vec::new(), Vec::new(), Vec::new());
    for line in text.lines() {
        events.extend(kept::<Event>(line));
        controls.extend(kept::<ControlEvent>(line));
        inbox.extend(kept::<Alert>(line));
        kept::<Lease>(line);
        kept::<StoredServing>(line);
    }
    bounded(bytes.len(), || {
        Controls::fold(&controls);
        if !events.is_empty() {
            looked_at(&events);
        }
        start(events, controls, inbox);
    });
}

/// Reads a record, and sees to it that what is read is written as what is read again.
fn kept<T: Serialize + DeserializeOwned + PartialEq + Debug>(line: &str) -> Option<T> {
    let value: T = serde_json::from_str(line).ok()?;
    let written = serde_json::to_string(&value).expect("a record is kept");
    match serde_json::from_str::<T>(&written) {
        Ok(again) => assert_eq!(again, value, "{written}"),
        Err(error) => panic!("{line} is kept as {written}, and {error}"),
    }
    Some(value)
}

/// Everything that is made of an incident's events when somebody looks.
fn looked_at(events: &[Event]) {
    let folded = Incident::fold(events);
    let told = timeline(events);
    match (&folded, told) {
        (Ok(incident), Ok((same, entries))) => {
            assert_eq!(incident.phase, same.phase);
            assert!(entries.len() >= events.len());
            state(incident);
        }
        (Err(error), Err(_)) => said(error, 0),
        (folded, told) => panic!("{folded:?}, and {told:?}"),
    }
    for run in events.iter().filter_map(|event| run_of(&event.body)) {
        match Recording::of(events, run) {
            Ok(recording) => {
                black_box((plan_digest(&recording.plan()), recording.in_doubt()));
            }
            Err(error) => said(&error, 4096),
        }
        if let (Ok(briefing), Ok(incident)) = (briefing(events, run), &folded) {
            let mut alert = Alert::clone(&incident.alert);
            annotate(&mut alert, briefing);
        }
    }
}

/// Everything that is asked of an incident.
fn state(incident: &Incident) {
    black_box((incident.resume(), incident.due(), incident.cut_off()));
    black_box((incident.occupies(), incident.resolved(), incident.told_at()));
    black_box((
        incident.rung().map(|rung| incident.run_mode(rung)),
        incident.holds_target(),
    ));
    assert!(!(incident.ended() && incident.waits_to_begin()));
    let row = IncidentRow::from(incident);
    assert_eq!(row.ended_at.is_some(), incident.ended());
}

fn run_of(body: &EventBody) -> Option<RunId> {
    match body {
        EventBody::RunStarted { run, .. } => Some(*run),
        _ => None,
    }
}

/// A daemon starts with whatever its journal holds.
fn start(events: Vec<Event>, controls: Vec<ControlEvent>, inbox: Vec<Alert>) {
    let last = events.iter().map(|event| event.incident.0).max();
    let last = last.unwrap_or_default();
    // The journal gives numbers out one by one.
    if last >= i64::MAX as u64 {
        return;
    }
    let owes = Incident::fold(&events).is_ok_and(|incident| incident.ended());
    let (open, owing) = if owes {
        (Vec::new(), vec![events])
    } else {
        (vec![events], Vec::new())
    };
    let inbox = inbox.into_iter().zip(1..).map(|(alert, seq)| Accepted {
        seq,
        alert: Arc::new(alert),
        received_at: now(),
        repeat: false,
    });
    let recovered = Recovered {
        open,
        owing,
        inbox: inbox.collect(),
        controls,
        last_incident: last,
    };
    let mut engine = Engine::new(Settings::default());
    let windows = EffectWindows::new(EffectLimits::default(), &[]);
    let turn = engine.recover(recovered, now(), &Serving, &windows);
    for row in &turn.append.incidents {
        assert!(!row.state.is_empty());
    }
    for event in &turn.append.events {
        let written = serde_json::to_string(event).expect("a record is kept");
        assert_eq!(kept::<Event>(&written).as_ref(), Some(event));
    }
}

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().expect("a time")
}

/// The stack's policies and plugins, and no past.
struct Serving;

static POLICIES: LazyLock<PolicySet> = LazyLock::new(|| {
    let file = root().join("stack/sentinel/policies/nginx.yaml");
    let text = std::fs::read_to_string(file).expect("the stack has policies");
    let environment = Environment {
        docker_hosts: ["local".to_owned()].into(),
        ..Environment::default()
    };
    PolicySet::parse(&[("nginx.yaml", text)], &environment).expect("they are good")
});

impl World for Serving {
    fn policies(&self) -> &PolicySet {
        &POLICIES
    }

    fn plugin(&self, plugin: &PluginRef) -> Option<PluginVersion> {
        Some(PluginVersion {
            version: "1.0.0".to_owned(),
            digest: Digest::of(plugin.name.as_str().as_bytes()),
        })
    }

    fn history(&self) -> &dyn History {
        self
    }
}

impl History for Serving {
    fn incident_of(
        &self,
        _episode: &Episode,
        _policy: &PolicyName,
        _target: &Target,
    ) -> Result<Option<IncidentRow>, HistoryError> {
        Ok(None)
    }

    fn resolved_at(&self, _episode: &Episode) -> Result<Option<Timestamp>, HistoryError> {
        Ok(None)
    }

    fn overtaken_at(&self, _episode: &Episode) -> Result<Option<Timestamp>, HistoryError> {
        Ok(None)
    }

    fn standing(&self, _policy: &PolicyName, _target: &Target) -> Result<Standing, HistoryError> {
        Ok(Standing::default())
    }

    fn opened_since(
        &self,
        _policy: &PolicyName,
        _target: &Target,
        _since: Timestamp,
    ) -> Result<Vec<Timestamp>, HistoryError> {
        Ok(Vec::new())
    }

    fn runs_since(
        &self,
        _policy: &PolicyName,
        _since: Timestamp,
    ) -> Result<Vec<Timestamp>, HistoryError> {
        Ok(Vec::new())
    }

    fn effects_since(&self, _since: Timestamp) -> Result<Vec<PastEffect>, HistoryError> {
        Ok(Vec::new())
    }
}

/// The log's own header, and the one before each page in it.
const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// A log that SQLite left; and one that it would have left, damaged somewhere: bytes say how long
/// its transactions are, and where.
pub fn log(bytes: &[u8]) {
    let found = bounded(bytes.len(), || read_log(bytes)).expect("bytes can be read");
    let frames = (bytes.len().saturating_sub(HEADER) / (FRAME_HEADER + 512)) as u64;
    match found {
        Log::Whole | Log::NoHeader => {}
        Log::CutOff { frame } | Log::Lost { frame } => assert!((1..=frames).contains(&frame)),
    }
    let ([order, size, at @ ..], transactions) = bytes.split_at(bytes.len().min(6)) else {
        return;
    };
    let (Ok(at), true) = (<[u8; 4]>::try_from(at), transactions.len() <= 64) else {
        return;
    };
    let written = Written::new(order & 1 == 1, 512 << (size % 3), transactions);
    written.damaged(u32::from_le_bytes(at) as usize);
}

/// A log as SQLite writes it.
pub(crate) struct Written {
    pub(crate) bytes: Vec<u8>,
    frame: usize,
    /// Of each frame the last one of its transaction.
    ends: Vec<usize>,
}

impl Written {
    pub(crate) fn new(big: bool, page: usize, transactions: &[u8]) -> Self {
        let word = |bytes: &[u8]| {
            let bytes = bytes.try_into().expect("four bytes");
            if big {
                u32::from_be_bytes(bytes)
            } else {
                u32::from_le_bytes(bytes)
            }
        };
        let sum = |sums: (u32, u32), bytes: &[u8]| {
            bytes.chunks(8).fold(sums, |(a, b), pair| {
                let a = a.wrapping_add(word(&pair[..4])).wrapping_add(b);
                (a, b.wrapping_add(word(&pair[4..])).wrapping_add(a))
            })
        };
        let push = |bytes: &mut Vec<u8>, (a, b): (u32, u32)| {
            bytes.extend(a.to_be_bytes());
            bytes.extend(b.to_be_bytes());
        };
        let count = |number: usize| u32::try_from(number).expect("logs here are small");
        let mut bytes = (0x377f_0682 | u32::from(big)).to_be_bytes().to_vec();
        for number in [3_007_000, count(page), 1, 0xfeed_beef, 0x0bad_cafe] {
            bytes.extend(number.to_be_bytes());
        }
        let mut sums = sum((0, 0), &bytes);
        push(&mut bytes, sums);
        let mut ends = Vec::new();
        for (number, length) in transactions
            .iter()
            .map(|byte| usize::from(byte % 4) + 1)
            .enumerate()
        {
            let end = ends.len() + length;
            for index in 1..=length {
                let size = if index == length { count(end) } else { 0 };
                let head = [count(ends.len()) + 1, size].map(u32::to_be_bytes).concat();
                let content = vec![number.to_le_bytes()[0] ^ index.to_le_bytes()[0]; page];
                sums = sum(sum(sums, &head), &content);
                bytes.extend(head);
                bytes.extend(0xfeed_beef_u32.to_be_bytes());
                bytes.extend(0x0bad_cafe_u32.to_be_bytes());
                push(&mut bytes, sums);
                bytes.extend(content);
                ends.push(end);
            }
        }
        Self {
            bytes,
            frame: FRAME_HEADER + page,
            ends,
        }
    }

    /// Damage to a page that was committed is told from a write that was cut off, wherever it is.
    fn damaged(mut self, at: usize) {
        // The end of a log may be missing, and then nothing of it is lost.
        for length in [self.bytes.len(), at % (self.bytes.len() + 1)] {
            assert_eq!(read_log(&self.bytes[..length]).expect("bytes"), Log::Whole);
        }
        let (count, page) = (self.ends.len(), self.frame - FRAME_HEADER);
        if count == 0 {
            return;
        }
        let frame = at / page % count + 1;
        self.bytes[HEADER + (frame - 1) * self.frame + FRAME_HEADER + at % page] ^= 1;
        // One of a later transaction is behind it.
        let committed = self.ends[frame - 1] < count;
        let found = read_log(&self.bytes[..]).expect("bytes");
        let frame = frame as u64;
        if committed {
            assert_eq!(found, Log::Lost { frame });
        } else {
            assert_eq!(found, Log::CutOff { frame });
        }
    }
}
