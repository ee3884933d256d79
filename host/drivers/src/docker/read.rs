//! Reads what an engine answers, whichever engine it is.
//!
//! What a library does not know must not hide what it does know: a state that is not
//! Docker's is one of a container that does not run, and where the rest of an answer cannot
//! be read, what is needed to look at a container is.

use bollard::models::{ContainerInspectResponse, ContainerSummary};
use serde_json::{Map, Value};

/// The states that Docker has.
const STATES: [&str; 8] = [
    "created",
    "running",
    "paused",
    "restarting",
    "removing",
    "exited",
    "dead",
    "stopping",
];

/// What health checks say.
const HEALTH: [&str; 4] = ["none", "starting", "healthy", "unhealthy"];

/// What is needed of an inspected container to look at it.
const LOOKED_AT: [&str; 9] = [
    "Id",
    "Name",
    "Image",
    "Created",
    "State",
    "RestartCount",
    "Config",
    "HostConfig",
    "NetworkSettings",
];
const STATE: [&str; 10] = [
    "Status",
    "Running",
    "Paused",
    "Restarting",
    "OOMKilled",
    "Dead",
    "ExitCode",
    "StartedAt",
    "FinishedAt",
    "Health",
];
const CONFIG: [&str; 5] = ["Image", "Hostname", "Labels", "StopTimeout", "Healthcheck"];
const HOST_CONFIG: [&str; 2] = ["NetworkMode", "AutoRemove"];
const ROW: [&str; 6] = ["Id", "Names", "Image", "State", "Labels", "HostConfig"];

/// An inspected container.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) container: ContainerInspectResponse,
    /// The MAC address that somebody asked for, where the engine tells.
    pub(super) mac_address: Option<String>,
}

/// The container, whole: what another one can be made of.
pub(super) fn whole(mut answer: Value) -> Result<Found, serde_json::Error> {
    tidy_container(&mut answer);
    let mac_address = answer
        .pointer("/Config/MacAddress")
        .and_then(Value::as_str)
        .filter(|address| !address.is_empty())
        .map(str::to_owned);
    Ok(Found {
        container: serde_json::from_value(answer)?,
        mac_address,
    })
}

/// The container as far as it can be read: what it can be looked at by.
pub(super) fn looked_at(mut answer: Value) -> Result<ContainerInspectResponse, serde_json::Error> {
    tidy_container(&mut answer);
    let error = match serde_json::from_value(answer.clone()) {
        Ok(container) => return Ok(container),
        Err(error) => error,
    };
    let Value::Object(mut answer) = answer else {
        return Err(error);
    };
    answer.retain(|key, _| LOOKED_AT.contains(&key.as_str()));
    answer.remove("NetworkSettings");
    for (key, known) in [
        ("State", STATE.as_slice()),
        ("Config", CONFIG.as_slice()),
        ("HostConfig", HOST_CONFIG.as_slice()),
    ] {
        keep(&mut answer, key, known);
    }
    serde_json::from_value(Value::Object(answer))
}

/// The rows of a list that can be read.
pub(super) fn rows(answer: Value) -> Vec<ContainerSummary> {
    let Value::Array(rows) = answer else {
        return Vec::new();
    };
    rows.into_iter().filter_map(row).collect()
}

fn row(mut row: Value) -> Option<ContainerSummary> {
    if let Some(object) = row.as_object_mut() {
        let up = object
            .get("Status")
            .and_then(Value::as_str)
            .is_some_and(|status| status.starts_with("Up"));
        if let Some(state) = object.get_mut("State") {
            tidy(state, &STATES, if up { "running" } else { "exited" });
        }
        // Nobody looks at it here.
        object.remove("Health");
    }
    if let Ok(row) = serde_json::from_value(row.clone()) {
        return Some(row);
    }
    let Value::Object(mut row) = row else {
        return None;
    };
    row.retain(|key, _| ROW.contains(&key.as_str()));
    keep(&mut row, "HostConfig", &["NetworkMode"]);
    serde_json::from_value(Value::Object(row)).ok()
}

/// Keeps of the object at `key` what is known.
fn keep(of: &mut Map<String, Value>, key: &str, known: &[&str]) {
    if let Some(Value::Object(object)) = of.get_mut(key) {
        object.retain(|key, _| known.contains(&key.as_str()));
    }
}

fn tidy_container(answer: &mut Value) {
    let Some(state) = answer.get_mut("State").and_then(Value::as_object_mut) else {
        return;
    };
    let says = |key: &str| state.get(key).and_then(Value::as_bool) == Some(true);
    let instead = if says("Paused") {
        "paused"
    } else if says("Restarting") {
        "restarting"
    } else if says("Running") {
        "running"
    } else {
        "exited"
    };
    if let Some(status) = state.get_mut("Status") {
        tidy(status, &STATES, instead);
    }
    if let Some(status) = state
        .get_mut("Health")
        .and_then(|health| health.get_mut("Status"))
    {
        tidy(status, &HEALTH, "none");
    }
}

/// Puts `instead` in the place of a word that is none of `known`.
fn tidy(word: &mut Value, known: &[&str], instead: &str) {
    let told = word.as_str().map(str::to_lowercase);
    let known = told.filter(|told| known.contains(&told.as_str()));
    *word = Value::from(known.as_deref().unwrap_or(instead));
}

#[cfg(test)]
mod tests {
    use bollard::models::{ContainerStateStatusEnum, ContainerSummaryStateEnum};
    use serde_json::json;

    use super::*;

    fn state_of(state: &Value) -> Option<ContainerStateStatusEnum> {
        looked_at(json!({ "Id": "a", "State": state }))
            .unwrap()
            .state?
            .status
    }

    #[test]
    fn a_state_that_nobody_knows_is_one_of_what_does_not_run() {
        for state in ["stopped", "configured", "initialized", "", "UNKNOWN"] {
            let found = state_of(&json!({ "Status": state, "Running": false }));
            assert_eq!(found, Some(ContainerStateStatusEnum::EXITED), "{state}");
        }
        for (state, is) in [
            (
                json!({ "Status": "thawing", "Running": true }),
                ContainerStateStatusEnum::RUNNING,
            ),
            (
                json!({ "Status": "frozen", "Running": true, "Paused": true }),
                ContainerStateStatusEnum::PAUSED,
            ),
            (
                json!({ "Status": "Running" }),
                ContainerStateStatusEnum::RUNNING,
            ),
            (
                json!({ "Status": "running", "Health": { "Status": "odd", "Log": null } }),
                ContainerStateStatusEnum::RUNNING,
            ),
            (json!({ "Status": null }), ContainerStateStatusEnum::EXITED),
        ] {
            assert_eq!(state_of(&state), Some(is), "{state}");
        }
    }

    #[test]
    fn what_cannot_be_read_does_not_hide_the_rest() {
        let odd = json!({
            "Id": "a",
            "State": { "Status": "running", "Pid": "none", "StartedAt": "2026-11-22T10:00:00Z" },
            "Config": { "Image": "x", "Labels": null, "StopTimeout": 30, "Env": 7 },
            "HostConfig": { "NetworkMode": "bridge", "RestartPolicy": { "Name": "sometimes" } },
            "Mounts": "many",
        });
        let found = looked_at(odd.clone()).unwrap();
        assert_eq!(found.config.unwrap().stop_timeout, Some(30));
        assert_eq!(
            found.host_config.unwrap().network_mode.as_deref(),
            Some("bridge")
        );
        // No other container can be made of that.
        assert!(whole(odd).is_err());
    }

    #[test]
    fn one_odd_row_hides_no_other() {
        let found = rows(json!([
            { "Id": "a", "Names": ["/a"], "State": "stopped", "Status": "Exited (0) 2 days ago" },
            { "Id": "b", "Names": ["/b"], "State": "odd", "Status": "Up 2 days" },
            { "Id": "c", "Names": ["/c"], "State": "running", "Mounts": "many", "Ports": {} },
            "nonsense",
        ]));
        let found: Vec<_> = found
            .into_iter()
            .map(|row| (row.id.unwrap(), row.state.unwrap()))
            .collect();
        assert_eq!(
            found,
            [
                ("a".to_owned(), ContainerSummaryStateEnum::EXITED),
                ("b".to_owned(), ContainerSummaryStateEnum::RUNNING),
                ("c".to_owned(), ContainerSummaryStateEnum::RUNNING),
            ]
        );
        assert!(rows(json!({ "message": "no" })).is_empty());
    }

    #[test]
    fn an_address_that_was_asked_for_is_found() {
        let found = whole(json!({ "Id": "a", "Config": { "MacAddress": "02:42:de:ad:be:ef" } }));
        assert_eq!(
            found.unwrap().mac_address.as_deref(),
            Some("02:42:de:ad:be:ef")
        );
        let found = whole(json!({ "Id": "a", "Config": { "MacAddress": "" } }));
        assert_eq!(found.unwrap().mac_address, None);
    }
}
