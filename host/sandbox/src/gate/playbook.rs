//! What the host itself knows of a run that has playbooks run: what it acts on, and what
//! every playbook is told of the incident.

use jiff::Timestamp;
use sentinel_core::alert::{AlertStatus, Labels};
use sentinel_core::capability::CapabilityError;
use sentinel_core::grant::INCIDENT_VARIABLE;
use sentinel_core::id::Target;
use serde_json::{Value, json};

use crate::run::IncidentInput;

/// What a run is about.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) target: Target,
    /// The incident as playbooks see it.
    pub(crate) incident: Value,
}

impl Facts {
    pub(crate) fn of(input: &IncidentInput) -> Self {
        let IncidentInput { target, alert, .. } = input;
        let status = match alert.status {
            AlertStatus::Firing => "firing",
            AlertStatus::Resolved => "resolved",
        };
        let incident = json!({
            "incident": input.incident.to_string(),
            "run": input.run.to_string(),
            "policy": input.policy.to_string(),
            "step": input.step,
            "attempt": input.attempt,
            "target": {
                "uri": target.to_string(),
                "kind": target.kind(),
                "host": target.host(),
                "name": target.name(),
            },
            "alert": {
                "fingerprint": alert.fingerprint.0,
                "status": status,
                "labels": object(&alert.labels),
                "annotations": object(&alert.annotations),
                "starts_at": alert.starts_at.to_string(),
            },
        });
        Self {
            target: target.clone(),
            incident,
        }
    }

    /// Whether what a plugin says of the incident is so: a playbook believes it.
    pub(crate) fn check(&self, said: &Value) -> Result<(), CapabilityError> {
        match contradiction(INCIDENT_VARIABLE, &self.incident, said) {
            None => Ok(()),
            Some(what) => Err(CapabilityError::Denied(format!(
                "ansible.run with another `{what}` than the incident's is not granted: the variable `{INCIDENT_VARIABLE}` tells what is so, and the daemon fills it"
            ))),
        }
    }
}

fn object(labels: &Labels) -> Value {
    labels
        .iter()
        .map(|(name, value)| (name.clone(), Value::from(value.clone())))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// The first part of `said` that is not in `known`, by its path.
fn contradiction(path: &str, known: &Value, said: &Value) -> Option<String> {
    match (known, said) {
        (Value::Object(known), Value::Object(said)) => said.iter().find_map(|(name, said)| {
            let shown: String = name.chars().take(64).flat_map(char::escape_debug).collect();
            let path = format!("{path}.{shown}");
            match known.get(name) {
                Some(known) => contradiction(&path, known, said),
                None => Some(path),
            }
        }),
        (known, said) if known == said || same_time(known, said) => None,
        _ => Some(path.to_owned()),
    }
}

/// Whether both are one moment to the second, which is as far as the SDK writes it.
fn same_time(known: &Value, said: &Value) -> bool {
    let time = |value: &Value| value.as_str()?.parse::<Timestamp>().ok();
    matches!((time(known), time(said)), (Some(known), Some(said)) if known.as_second() == said.as_second())
}
