//! Writes what a run does to the journal, as the gate reports it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use sentinel_core::capability::{Blob, CapabilityError, Request};
use sentinel_core::engine::Input;
use sentinel_core::event::{CallResult, Event, EventBody, LogLevel, PlannedEffect, Resource};
use sentinel_core::id::{Digest, PluginName, RunId};
use sentinel_journal::{Append, Journal};
use sentinel_sandbox::gate::{Evidence, RecordError, Recorder};
use tokio::sync::watch;

use super::EngineHandle;
use crate::telemetry::metrics::Metrics;

/// How many events may wait before they are written without an effect asking for it.
const BUFFER: usize = 64;

/// The recorder of one run. Observations and log lines change nothing outside, so they
/// wait for the next effect, the end of the run, or a full buffer; an effect is on the
/// disk before it is carried out.
#[derive(Debug)]
pub(super) struct RunRecorder {
    run: RunId,
    // True once the run's own start is on the disk.
    begun: watch::Receiver<bool>,
    journal: Arc<Journal>,
    engine: EngineHandle,
    metrics: Arc<Metrics>,
    waiting: Mutex<Vec<Event>>,
    // One write at a time: events keep their order, also when a write fails.
    writing: tokio::sync::Mutex<()>,
}

impl RunRecorder {
    pub(super) fn new(
        run: RunId,
        begun: watch::Receiver<bool>,
        journal: Arc<Journal>,
        engine: EngineHandle,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            run,
            begun,
            journal,
            engine,
            metrics,
            waiting: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        }
    }

    fn event(&self, body: EventBody) -> Event {
        Event {
            at: Timestamp::now(),
            incident: self.run.incident,
            body,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Event>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a run that ended well leaves to remember.
    pub(super) fn remembered(&self, plugin: &PluginName, changes: BTreeMap<String, Option<Blob>>) {
        if !changes.is_empty() {
            self.push(self.event(EventBody::Remembered {
                run: self.run,
                plugin: plugin.clone(),
                changes,
            }));
        }
    }

    /// Adds an event; true when it is time to write.
    fn push(&self, event: Event) -> bool {
        let mut waiting = self.waiting();
        waiting.push(event);
        waiting.len() >= BUFFER
    }

    /// Writes what waits.
    pub(super) async fn flush(&self) -> Result<(), RecordError> {
        let _writing = self.writing.lock().await;
        let mut begun = self.begun.clone();
        if begun.wait_for(|begun| *begun).await.is_err() {
            return Err(RecordError("its start was not written".to_owned()));
        }
        let events = std::mem::take(&mut *self.waiting());
        if events.is_empty() {
            return Ok(());
        }
        let append = Arc::new(Append {
            events,
            ..Append::default()
        });
        match self.journal.append(append.clone()).await {
            Ok(()) => {
                for event in &append.events {
                    let noted = matches!(
                        event.body,
                        EventBody::EffectBegan { .. }
                            | EventBody::Planned { .. }
                            | EventBody::EvidenceCaptured { .. }
                    );
                    if noted {
                        self.engine.input(Input::Noted(event.clone()));
                    }
                }
                Ok(())
            }
            Err(error) => {
                self.metrics.journal_failed("a run's events", &error);
                // Kept in order for the next attempt.
                self.waiting().splice(..0, append.events.iter().cloned());
                Err(RecordError(error.to_string()))
            }
        }
    }

    /// Adds an event, and writes when enough have come together.
    async fn note(&self, body: EventBody) -> Result<(), RecordError> {
        if self.push(self.event(body)) {
            self.flush().await
        } else {
            Ok(())
        }
    }
}

#[async_trait]
impl Recorder for RunRecorder {
    fn seeded(&self, run: RunId, seed: &str, clock: Timestamp) {
        self.push(self.event(EventBody::RunSeeded {
            run,
            seed: seed.to_owned(),
            clock,
        }));
    }

    fn clock_read(&self, run: RunId, readings: &[u64]) {
        self.push(self.event(EventBody::ClockRead {
            run,
            readings: readings.to_vec(),
        }));
    }

    fn evidence(&self, run: RunId, evidence: &Evidence) {
        self.push(self.event(EventBody::EvidenceCaptured {
            run,
            container: evidence.container.clone(),
            log: evidence.log.clone(),
            problem: evidence.problem.clone(),
        }));
    }

    async fn effect_began(
        &self,
        run: RunId,
        call: u32,
        request: &Request,
        on: Option<&Resource>,
    ) -> Result<(), RecordError> {
        let event = self.event(EventBody::EffectBegan {
            run,
            call,
            request: request.clone(),
            on: on.cloned(),
        });
        self.push(event.clone());
        if let Err(error) = self.flush().await {
            // Nothing will be carried out, so it must not be told that it began.
            self.waiting().retain(|waiting| *waiting != event);
            return Err(error);
        }
        self.metrics.effect_began(run, request);
        Ok(())
    }

    async fn effect_ended(
        &self,
        run: RunId,
        call: u32,
        request: &Request,
        result: &CallResult,
        settled: bool,
    ) -> Result<(), RecordError> {
        let name = request.name();
        self.metrics.effect_ended(run, name, result);
        self.push(self.event(EventBody::EffectEnded {
            run,
            call,
            name: name.to_owned(),
            result: result.clone(),
            settled,
        }));
        self.flush().await
    }

    async fn observed(
        &self,
        run: RunId,
        call: u32,
        request: &Request,
        result: &CallResult,
    ) -> Result<(), RecordError> {
        self.metrics.observed(run, request, result);
        self.note(EventBody::Observed {
            run,
            call,
            request: request.clone(),
            result: result.clone(),
        })
        .await
    }

    async fn planned(
        &self,
        run: RunId,
        call: u32,
        effect: &PlannedEffect,
        result: &CallResult,
    ) -> Result<(), RecordError> {
        self.metrics.effect_planned(run, &effect.request);
        self.note(EventBody::Planned {
            run,
            call,
            effect: effect.clone(),
            result: result.clone(),
        })
        .await
    }

    async fn denied(
        &self,
        run: RunId,
        call: u32,
        request: &Request,
        digest: Option<Digest>,
        error: &CapabilityError,
    ) -> Result<(), RecordError> {
        self.metrics.call_stopped(run, request, error);
        self.note(EventBody::Denied {
            run,
            call,
            request: request.clone(),
            digest,
            error: error.clone(),
        })
        .await
    }

    fn logged(&self, run: RunId, level: LogLevel, message: &str) {
        self.metrics.plugin_logged(run, level, message);
        self.push(self.event(EventBody::Logged {
            run,
            level,
            message: message.to_owned(),
        }));
    }
}
