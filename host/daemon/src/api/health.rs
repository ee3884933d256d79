//! `/healthz`, `/readyz`, `/metrics`: the truth about the daemon, for machines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;

use super::Api;
use crate::telemetry::exposition::Form;

#[derive(Debug, Serialize)]
struct Health {
    ok: bool,
    checks: BTreeMap<String, String>,
}

/// Whether the process does its work at all; if not, it should be restarted.
pub(super) async fn healthz(State(api): State<Arc<Api>>) -> impl IntoResponse {
    let engine = !api.engine_gone.is_cancelled();
    let checks = BTreeMap::from([("engine".to_owned(), word(engine, "its task is gone"))]);
    answer(engine, checks)
}

/// Whether alerts should be sent here now. A Docker host that does not answer is told
/// and is no reason to send them elsewhere: what is accepted waits here safely.
pub(super) async fn readyz(State(api): State<Arc<Api>>) -> impl IntoResponse {
    let engine = !api.engine_gone.is_cancelled();
    // After a failure nobody may write for long: whether it is over is found out here.
    let journal = match api.journal.damage() {
        Some(damage) => Err(format!("it is damaged: {damage}")),
        None if api.journal.is_healthy() || writes_again(&api).await => Ok(()),
        None => Err("the last write failed; the log says why".to_owned()),
    };
    let stopping = api.stopping.is_cancelled();
    let mut checks = BTreeMap::from([
        ("engine".to_owned(), word(engine, "its task is gone")),
        (
            "journal".to_owned(),
            journal.clone().err().unwrap_or_else(|| "ok".to_owned()),
        ),
        (
            "intake".to_owned(),
            word(!stopping, "the daemon is stopping"),
        ),
    ]);
    let places = &api.places;
    let states = places.hosts.of(api.docker.hosts(), &places.tasks, |host| {
        let docker = api.docker.clone();
        async move {
            let found = docker.ping(&host).await;
            found.map_err(|error| error.to_string())
        }
    });
    let states = states.await.into_iter();
    checks.extend(states.map(|(host, state)| (format!("docker {host}"), state)));
    let problems = api.problems.get();
    if !problems.is_empty() {
        let said = format!(
            "refused, what was good serves on: {}; /api/v1/status says why",
            problems
                .iter()
                .map(|problem| problem.file.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        );
        checks.insert("files".to_owned(), said);
    }
    for full in api.metrics.budgets.used_up(api.clock.now()) {
        let said = checks
            .entry(full.key)
            .or_insert_with(|| "used up".to_owned());
        let until = full
            .until
            .map_or_else(String::new, |until| format!(" until {until}"));
        // Writing to a String cannot fail.
        let _ok = write!(
            said,
            "; policy {} waits{until}: {}",
            full.policy, full.reason
        );
    }
    let configuration = api.configuration.get();
    let said = match configuration.problem {
        Some(problem) => Some(format!("refused, what was before goes on: {problem}")),
        None if configuration.restart.is_empty() => None,
        None => Some(format!(
            "a restart would change {}",
            configuration.restart.join(", ")
        )),
    };
    checks.extend(said.map(|said| ("configuration".to_owned(), said)));
    answer(engine && journal.is_ok() && !stopping, checks)
}

/// Whether the journal can be written to after it could not.
async fn writes_again(api: &Api) -> bool {
    let places = &api.places;
    let looked = places
        .journal
        .of(["journal"].into_iter(), &places.tasks, |_| {
            let journal = api.journal.clone();
            async move {
                let probed = journal.probe().await;
                probed.map_err(|error| error.to_string())
            }
        });
    looked.await.iter().all(|(_, state)| state == "ok")
}

fn word(ok: bool, otherwise: &str) -> String {
    if ok { "ok" } else { otherwise }.to_owned()
}

fn answer(ok: bool, checks: BTreeMap<String, String>) -> impl IntoResponse {
    let status = if ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(Health { ok, checks }))
}

/// The metrics, in the form that is asked for.
pub(super) async fn metrics(State(api): State<Arc<Api>>, headers: HeaderMap) -> impl IntoResponse {
    let accept: Vec<_> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|accept| accept.to_str().ok())
        .collect();
    let form = Form::wanted(&accept.join(","));
    (
        [
            (header::CONTENT_TYPE, form.content_type()),
            (header::VARY, "accept"),
        ],
        api.metrics.write(form),
    )
}
