//! What operators ask for: `POST /api/v1/pauses`, `/api/v1/resume`, and
//! `/api/v1/incidents/{id}/approve|deny|cancel`. Each is answered once it is committed.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use sentinel_core::control::{Pause, Scope};
use sentinel_core::duration::HumanDuration;
use sentinel_core::engine::{Operator, OperatorError};
use sentinel_core::id::{Digest, IncidentId, PolicyName, Target};
use sentinel_core::incident::later;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Api;
use super::given::Given;

/// How long a name or a reason may be, in bytes.
const TEXT: usize = 1000;

/// How many pauses may hold at once.
const PAUSES: usize = 1000;

/// What a pause holds back: one of the three.
fn scope(all: bool, policy: Option<PolicyName>, target: Option<Target>) -> Result<Scope, Refused> {
    match (all, policy, target) {
        (true, None, None) => Ok(Scope::All),
        (false, Some(policy), None) => Ok(Scope::Policy(policy)),
        (false, None, Some(target)) => Ok(Scope::Target(target)),
        _ => Err(Refused::bad("give one of `all`, `policy` and `target`")),
    }
}

// No `flatten` in what is read here: it would let every key through.

/// The body of `POST /api/v1/pauses`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PauseBody {
    /// Holds everything back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) all: bool,
    /// Or a policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<PolicyName>,
    /// Or a target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<Target>,
    /// For how long; until it is resumed when missing.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub(crate) duration: Option<HumanDuration>,
    /// Who.
    pub(crate) by: String,
    /// Why.
    pub(crate) reason: String,
}

/// The body of `POST /api/v1/resume`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResumeBody {
    /// The pause of everything.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) all: bool,
    /// Or that of a policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<PolicyName>,
    /// Or that of a target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<Target>,
    /// Who.
    pub(crate) by: String,
}

/// The body of `approve`, and of `deny` with a reason.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlanBody {
    /// The plan that the person saw.
    pub(crate) plan: Digest,
    /// Who.
    pub(crate) by: String,
    /// Why.
    #[serde(default)]
    pub(crate) reason: String,
}

/// The body of `cancel`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReasonBody {
    /// Who.
    pub(crate) by: String,
    /// Why.
    pub(crate) reason: String,
}

/// The answer of each.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Said {
    /// What was done.
    pub(crate) message: String,
}

/// The answer of `GET /api/v1/pauses`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Pauses {
    /// Those that hold.
    pub(crate) pauses: Vec<Pause>,
    /// The policies that are in a storm, and since when.
    pub(crate) storms: Vec<Storm>,
}

/// A policy that is in a storm.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Storm {
    /// The policy.
    pub(crate) policy: PolicyName,
    /// Since when.
    pub(crate) since: Timestamp,
}

/// An answer that is no.
pub(super) struct Refused(pub(super) StatusCode, pub(super) String);

impl Refused {
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, message.into())
    }
}

impl From<OperatorError> for Refused {
    fn from(error: OperatorError) -> Self {
        let status = match &error {
            OperatorError::NotOpen(_) | OperatorError::NotPaused(_) => StatusCode::NOT_FOUND,
            OperatorError::NotAsked { .. }
            | OperatorError::Changed { .. }
            | OperatorError::Expired(_) => StatusCode::CONFLICT,
            OperatorError::Requester(_) | OperatorError::Twice(_) => StatusCode::FORBIDDEN,
            OperatorError::Past { .. } => StatusCode::BAD_REQUEST,
            OperatorError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, error.to_string())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

pub(super) type Answer = Result<Json<Said>, Refused>;

/// A name or a reason: something, on one line.
pub(super) fn text(what: &str, text: &str) -> Result<String, Refused> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Refused::bad(format!("`{what}` is empty")));
    }
    if text.len() > TEXT || text.chars().any(char::is_control) {
        return Err(Refused::bad(format!(
            "`{what}` is at most {TEXT} bytes on one line"
        )));
    }
    Ok(text.to_owned())
}

fn incident(id: &str) -> Result<IncidentId, Refused> {
    id.parse()
        .map_err(|error: sentinel_core::id::IdError| Refused::bad(error.to_string()))
}

async fn operate(api: &Api, operator: Operator) -> Answer {
    let (incident, by, reason) = match &operator {
        Operator::Pause { by, reason, .. } => (None, by, Some(reason)),
        Operator::Resume { by, .. } => (None, by, None),
        Operator::Approve { incident, by, .. } => (Some(*incident), by, None),
        Operator::Deny {
            incident,
            by,
            reason,
            ..
        }
        | Operator::Cancel {
            incident,
            by,
            reason,
        } => (Some(*incident), by, Some(reason)),
    };
    let (by, reason) = (by.clone(), reason.cloned());
    let message = api.engine.operate(operator).await?;
    let incident = incident.map(tracing::field::display);
    tracing::info!(incident, by, reason, message, "operator");
    Ok(Json(Said { message }))
}

/// A scope by what guards count and lock: a container by its name. Where Docker does not say
/// what it is, it is what it is called: the stop switch holds whatever is down.
async fn counted(api: &Api, scope: Scope) -> Scope {
    let Scope::Target(target) = scope else {
        return scope;
    };
    let found = api.identities.identify(&target).await;
    let thing = found.map_or_else(
        |error| {
            tracing::warn!(%target, %error, "which container this is cannot be told");
            target.clone()
        },
        |identity| identity.thing,
    );
    Scope::Target(thing)
}

pub(super) async fn pause(State(api): State<Arc<Api>>, Given(body): Given<PauseBody>) -> Answer {
    let scope = scope(body.all, body.policy, body.target)?;
    if let Scope::Policy(policy) = &scope
        && api.serving.load().policies.get(policy).is_none()
    {
        return Err(Refused(
            StatusCode::NOT_FOUND,
            format!("there is no policy {policy}"),
        ));
    }
    let now = api.clock.now();
    let holds = |pause: &Pause| pause.scope == scope;
    let controls = api.switch.controls();
    if controls.pauses(now).count() >= PAUSES && !controls.pauses(now).any(holds) {
        return Err(Refused(
            StatusCode::CONFLICT,
            format!("{PAUSES} pauses hold already: resume some, or pause everything"),
        ));
    }
    let duration = body.duration.map(Duration::from);
    if duration.is_some_and(|duration| duration.is_zero()) {
        return Err(Refused::bad("a pause for no time holds nothing back"));
    }
    let operator = Operator::Pause {
        scope: counted(&api, scope).await,
        until: duration.map(|duration| later(now, duration)),
        by: text("by", &body.by)?,
        reason: text("reason", &body.reason)?,
    };
    operate(&api, operator).await
}

pub(super) async fn resume(State(api): State<Arc<Api>>, Given(body): Given<ResumeBody>) -> Answer {
    let operator = Operator::Resume {
        scope: counted(&api, scope(body.all, body.policy, body.target)?).await,
        by: text("by", &body.by)?,
    };
    operate(&api, operator).await
}

pub(super) async fn pauses(State(api): State<Arc<Api>>) -> Json<Pauses> {
    let controls = api.switch.controls();
    Json(Pauses {
        pauses: controls.pauses(api.clock.now()).cloned().collect(),
        storms: controls
            .storms()
            .map(|(policy, since)| Storm {
                policy: policy.clone(),
                since,
            })
            .collect(),
    })
}

pub(super) async fn approve(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Given(body): Given<PlanBody>,
) -> Answer {
    let incident = incident(&id)?;
    let operator = Operator::Approve {
        incident,
        plan: body.plan,
        by: text("by", &body.by)?,
    };
    operate(&api, operator).await
}

pub(super) async fn deny(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Given(body): Given<PlanBody>,
) -> Answer {
    let incident = incident(&id)?;
    let operator = Operator::Deny {
        incident,
        plan: body.plan,
        by: text("by", &body.by)?,
        reason: text("reason", &body.reason)?,
    };
    operate(&api, operator).await
}

pub(super) async fn cancel(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Given(body): Given<ReasonBody>,
) -> Answer {
    let incident = incident(&id)?;
    let operator = Operator::Cancel {
        incident,
        by: text("by", &body.by)?,
        reason: text("reason", &body.reason)?,
    };
    operate(&api, operator).await
}
