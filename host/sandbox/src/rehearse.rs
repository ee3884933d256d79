//! Runs a plugin against a world that answers as it is told to: what a plugin's own tests
//! are made of. Nothing outside is touched, and no sleep takes any time.

use std::sync::Arc;

use jiff::Timestamp;
use sentinel_core::capability::Request;
use sentinel_core::event::{CallResult, LogLevel, RunMode};
use sentinel_core::recording::{Origin, Recording};

use crate::clock::RunClock;
use crate::engine::Sandbox;
use crate::guest::{Role, Source};
use crate::log::RunLog;
use crate::playback::Playback;
use crate::plugin::Plugin;
use crate::run::{IncidentInput, Remediation, RunLimits, RunReport};

/// What stands where a gate stands in a run that takes place. Called on the guests'
/// threads: it must not block.
pub trait Script: Send + Sync {
    /// What the world answers. None ends the run: the script has nothing for this call.
    fn answer(&self, asked: &Request) -> Option<CallResult>;

    /// The plugin wrote a line.
    fn logged(&self, level: LogLevel, message: &str);
}

impl Sandbox {
    /// Runs `plugin` once against `script`, with a clock that says `now` when it begins and
    /// random numbers that are always the same. Limits, memory and WASI are those of a run
    /// that takes place.
    pub async fn rehearse(
        &self,
        plugin: Arc<Plugin>,
        incident: IncidentInput,
        script: Arc<dyn Script>,
        now: Timestamp,
        limits: RunLimits,
    ) -> RunReport {
        let limits = self.bounded(limits);
        let origin = Origin {
            seed: [0; 32],
            clock: now,
        };
        let nothing = Recording {
            run: incident.run,
            step: incident.step,
            attempt: incident.attempt,
            plugin: plugin.name.clone(),
            version: plugin.version.to_string(),
            digest: plugin.digest,
            mode: RunMode::Live,
            origin: Some(origin),
            readings: Vec::new(),
            resumptions: Vec::new(),
            calls: Vec::new(),
            lines: Vec::new(),
            evidence: false,
            end: None,
        };
        let playback = Arc::new(Playback::new(nothing));
        let clock = RunClock::skipping(now, limits.timeout, playback, limits.calls);
        let sink = Arc::clone(&script);
        let remediation = Remediation {
            plugin,
            incident,
            role: Role::Rehearsing(script),
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
        self.run_apart(remediation).await
    }
}
