//! What happened, in lines that a person can follow.

use std::collections::BTreeMap;

use sentinel_core::event::Event;
use sentinel_core::id::IncidentId;
use sentinel_core::timeline::timeline;

use crate::setup::START;

/// What happened; kept only when somebody wants to read it.
#[derive(Debug, Default)]
pub struct Story {
    told: bool,
    lines: Vec<String>,
    // How much of each incident's timeline is told.
    upto: BTreeMap<IncidentId, usize>,
}

impl Story {
    /// A story that is kept.
    pub fn told() -> Self {
        Self {
            told: true,
            ..Self::default()
        }
    }

    pub(crate) fn is_told(&self) -> bool {
        self.told
    }

    pub(crate) fn tell(&mut self, now: i64, line: impl FnOnce() -> String) {
        if self.told {
            self.lines.push(format!("{} {}", clock(now), line()));
        }
    }

    /// Tells what is new of an incident.
    pub(crate) fn tell_events(&mut self, now: i64, id: IncidentId, events: &[Event]) {
        let Ok((_, entries)) = timeline(events) else {
            return;
        };
        let upto = self.upto.entry(id).or_default();
        for entry in entries.iter().skip(*upto) {
            let mark = if entry.of_phase { " -> " } else { "" };
            self.lines.push(format!(
                "{} incident {id}: {mark}{} ({})",
                clock(now),
                entry.text,
                entry.kind
            ));
        }
        *upto = entries.len();
    }

    /// The lines.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}

/// The time since the begin.
fn clock(now: i64) -> String {
    let micros = now - START;
    let seconds = micros / 1_000_000;
    format!(
        "{:02}:{:02}:{:02}.{:03}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        micros / 1000 % 1000
    )
}
