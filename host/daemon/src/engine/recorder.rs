//! Writes what a run does to the journal, as the gate reports it.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use sentinel_core::capability::{CapabilityError, Request};
use sentinel_core::event::{CallResult, Event, EventBody, LogLevel, Resource};
use sentinel_core::id::RunId;
use sentinel_journal::{Append, Journal};
use sentinel_sandbox::driver::ContainerIdentity;
use sentinel_sandbox::gate::{RecordError, Recorder};

use super::{EngineHandle, Input};
use crate::telemetry::metrics::Metrics;

/// How many events may wait before they are written without an effect asking for it.
const BUFFER: usize = 64;

/// The recorder of one run. Observations and log lines change nothing outside, so they
/// wait for the next effect, the end of the run, or a full buffer; an effect is on the
/// disk before it is carried out.
#[derive(Debug)]
pub(super) struct RunRecorder {
    run: RunId,
    journal: Arc<Journal>,
    engine: EngineHandle,
    metrics: Arc<Metrics>,
    waiting: Mutex<Vec<Event>>,
}

impl RunRecorder {
    pub(super) fn new(
        run: RunId,
        journal: Arc<Journal>,
        engine: EngineHandle,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            run,
            journal,
            engine,
            metrics,
            waiting: Mutex::default(),
        }
    }

    fn event(&self, body: EventBody) -> Event {
        Event {
            at: Timestamp::now(),
            incident: self.run.incident,
            body,
        }
    }

    /// Adds an event; true when it is time to write.
    fn push(&self, event: Event) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push(event);
        waiting.len() >= BUFFER
    }

    /// Writes what waits.
    pub(super) async fn flush(&self) -> Result<(), RecordError> {
        let events =
            std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if events.is_empty() {
            return Ok(());
        }
        let append = Arc::new(Append {
            events,
            ..Append::default()
        });
        match self.journal.append(append.clone()).await {
            Ok(()) => Ok(()),
            Err(error) => {
                self.metrics.journal_failed("a run's events", &error);
                // Kept in order for the next attempt.
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                waiting.splice(..0, append.events.iter().cloned());
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
    async fn effect_began(
        &self,
        run: RunId,
        call: u32,
        request: &Request,
        on: Option<&ContainerIdentity>,
    ) -> Result<(), RecordError> {
        let event = self.event(EventBody::EffectBegan {
            run,
            call,
            request: request.clone(),
            on: on.map(|on| Resource {
                id: on.id.clone(),
                name: on.name.clone(),
                labels: on.labels.clone(),
            }),
        });
        self.push(event.clone());
        if let Err(error) = self.flush().await {
            // Nothing will be carried out, so it must not be told that it began.
            self.waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .retain(|waiting| *waiting != event);
            return Err(error);
        }
        self.metrics.effect_began(run, request);
        self.engine.send(Input::Noted(event));
        Ok(())
    }

    async fn effect_ended(
        &self,
        run: RunId,
        call: u32,
        request: &Request,
        result: &CallResult,
    ) -> Result<(), RecordError> {
        let name = request.name();
        self.metrics.effect_ended(run, name, result);
        self.push(self.event(EventBody::EffectEnded {
            run,
            call,
            name: name.to_owned(),
            result: result.clone(),
            settled: false,
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

    async fn denied(
        &self,
        run: RunId,
        call: u32,
        request: &Request,
        error: &CapabilityError,
    ) -> Result<(), RecordError> {
        self.metrics.call_stopped(run, request, error);
        self.note(EventBody::Denied {
            run,
            call,
            request: request.clone(),
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
