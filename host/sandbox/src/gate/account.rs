//! The account of what passes a gate.

use async_trait::async_trait;
use jiff::Timestamp;
use sentinel_core::capability::{CapabilityError, Request};
use sentinel_core::event::{CallResult, LogLevel, PlannedEffect, Resource};
use sentinel_core::id::{Digest, RunId};

use super::evidence::Evidence;

/// Keeps the account of a run: everything that it is given and everything that it does.
/// The calls of a run are numbered from 1 in the order in which they were asked.
///
/// What is told is kept in the order in which it is told, and is durable, all of it, when
/// [`effect_began`](Recorder::effect_began) returns `Ok`: what comes after an effect can
/// only be played again with all that came before. The functions that are not async are
/// called on the guests' threads and must not block.
#[async_trait]
pub trait Recorder: Send + Sync {
    /// What the run's clock and randomness come from: `seed` is 64 hexadecimal digits,
    /// `clock` what its clock said when it began. Told first, and once; not again when a
    /// run goes on from its record.
    fn seeded(&self, run: RunId, seed: &str, clock: Timestamp);

    /// The run looked at its clock: how many nanoseconds after its begin, once for each
    /// look. Told in batches, each before whatever the run did after its last look.
    fn clock_read(&self, run: RunId, readings: &[u64]);

    /// What the first effect is about to destroy the traces of. Told right before that
    /// effect's [`effect_began`](Recorder::effect_began), to be committed with it.
    fn evidence(&self, run: RunId, evidence: &Evidence);

    /// An effect is about to be carried out. It is, only after this has returned `Ok`:
    /// the record must be durable by then. After an `Err` it must not be on record, now
    /// or later.
    async fn effect_began(
        &self,
        run: RunId,
        call: u32,
        request: &Request,
        on: Option<&Resource>,
    ) -> Result<(), RecordError>;

    /// An effect that began was carried out, or was not. `settled` says that the driver
    /// found this out after the daemon had been cut off. After an `Err` the recorder goes
    /// on trying: the effect took place.
    async fn effect_ended(
        &self,
        run: RunId,
        call: u32,
        request: &Request,
        result: &CallResult,
        settled: bool,
    ) -> Result<(), RecordError>;

    /// Something was looked at. The run is told only what was recorded; an `Err` ends it.
    async fn observed(
        &self,
        run: RunId,
        call: u32,
        request: &Request,
        result: &CallResult,
    ) -> Result<(), RecordError>;

    /// A dry run asked for an effect, was told `result`, and nothing was done. An `Err`
    /// ends the run.
    async fn planned(
        &self,
        run: RunId,
        call: u32,
        effect: &PlannedEffect,
        result: &CallResult,
    ) -> Result<(), RecordError>;

    /// A call was refused, or its container was not found, and nothing was done. Of a long
    /// request the beginning is told, and the `digest` of the whole. An `Err` ends the run.
    async fn denied(
        &self,
        run: RunId,
        call: u32,
        request: &Request,
        digest: Option<Digest>,
        error: &CapabilityError,
    ) -> Result<(), RecordError>;

    /// The plugin wrote a line.
    fn logged(&self, run: RunId, level: LogLevel, message: &str);
}

/// Something could not be recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RecordError(pub String);
