//! A run of the past, ready to be played again.

use sentinel_core::event::Event;
use sentinel_core::incident::Incident;
use sentinel_core::recording::Recording;
use sentinel_core::timeline;
use sentinel_sandbox::{IncidentInput, Plugin, RunLimits};

/// What the run was told, and what it might use: `limits`, and its step's time. An error
/// says what its record lacks. `plugin` is who plays it again.
pub(crate) fn input(
    events: &[Event],
    recording: &Recording,
    plugin: &Plugin,
    limits: RunLimits,
) -> Result<(IncidentInput, RunLimits), String> {
    let incident = Incident::fold(events).map_err(|error| error.to_string())?;
    let missing = || "the run is of no step that its incident has".to_owned();
    let (params, timeout) = if recording.step == 0 {
        let escalate = incident.plan.escalate.as_ref().ok_or_else(missing)?;
        (plugin.fitting_params(&escalate.params).0, escalate.timeout)
    } else {
        let step = incident.step(recording.step).ok_or_else(missing)?;
        (step.params.clone(), step.timeout)
    };
    let mut alert = (*incident.alert).clone();
    let briefing = timeline::briefing(events, recording.run);
    timeline::annotate(&mut alert, briefing.map_err(|error| error.to_string())?);
    let input = IncidentInput {
        incident: incident.id,
        run: recording.run,
        policy: incident.plan.policy.clone(),
        target: incident.target.clone(),
        alert,
        step: recording.step,
        attempt: recording.attempt,
        params,
    };
    Ok((input, RunLimits { timeout, ..limits }))
}
