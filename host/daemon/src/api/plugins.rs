//! Plugins and their versions: `GET /api/v1/plugins`, `PUT|DELETE /api/v1/plugins/{name}`,
//! `POST /api/v1/plugins/{name}/rollback` and `POST /api/v1/versions/{digest}/accept`. What
//! changes something is answered once it serves and is on the disk.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::body::{Body, HttpBody as _};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use sentinel_core::id::{Digest, PluginName, PolicyName};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::Api;
use super::given::{Given, Params, pour};
use super::operate::{Answer, Refused, Said, text};
use crate::serving::{Changed, Problem, Refusal, Request, Word};

/// How many of the versions that a plugin had are listed.
const VERSIONS: usize = 50;

/// The answer of `GET /api/v1/plugins`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PluginList {
    /// Those that serve, by name.
    pub(crate) plugins: Vec<PluginView>,
    /// Plugin files that do not serve, and why.
    pub(crate) problems: Vec<ProblemView>,
}

/// A plugin that serves.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PluginView {
    /// Its name.
    pub(crate) name: PluginName,
    /// The version that it gives itself.
    pub(crate) version: String,
    /// Which bytes serve.
    pub(crate) digest: Digest,
    /// The file that it came from.
    pub(crate) file: String,
    /// What it does.
    pub(crate) summary: String,
    /// What a policy has to grant it.
    pub(crate) asks_for: Vec<String>,
    /// The policies that run it, or tell a person by it.
    pub(crate) used_by: Vec<PolicyName>,
    /// Those of them that are pinned to a version, and to which.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) pins: Vec<PinView>,
    /// How it does, while it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) probation: Option<ProbationView>,
    /// The last fifty versions that served, the last one last.
    pub(crate) versions: Vec<VersionView>,
}

/// A policy that is pinned to a version.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PinView {
    /// The policy.
    pub(crate) policy: PolicyName,
    /// The version.
    pub(crate) digest: Digest,
}

/// How a new version does.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ProbationView {
    /// Its runs so far.
    pub(crate) runs: u32,
    /// Those in which it broke down.
    pub(crate) faults: u32,
}

/// A version that served.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct VersionView {
    /// Since when.
    pub(crate) since: Timestamp,
    /// Which.
    pub(crate) digest: Digest,
    /// Who put it there.
    pub(crate) by: String,
    /// Why it must not serve again, if it must not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rolled_back: Option<String>,
}

/// A plugin file that does not serve.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ProblemView {
    /// The file.
    pub(crate) file: String,
    /// What is wrong.
    pub(crate) message: String,
}

impl From<Problem> for ProblemView {
    fn from(problem: Problem) -> Self {
        Self {
            file: problem.file,
            message: problem.message,
        }
    }
}

/// What `PUT /api/v1/plugins/{name}` takes beside the plugin.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InstallQuery {
    /// Who.
    pub(crate) by: String,
    /// minisign's signature: the whole text of its file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) signature: Option<String>,
    /// Let it serve whatever its recorded runs say, and even if it was rolled back.
    #[serde(default)]
    pub(crate) accept: bool,
}

/// What `DELETE /api/v1/plugins/{name}` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ByQuery {
    by: String,
}

/// The body of `rollback`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RollBackBody {
    /// Which version; the one before what serves when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<Digest>,
    /// Who.
    pub(crate) by: String,
    /// Why.
    pub(crate) reason: String,
}

/// The body of `accept`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AcceptBody {
    /// Who.
    pub(crate) by: String,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.wants {
            Word::Given => StatusCode::UNPROCESSABLE_ENTITY,
            Word::Unknown => StatusCode::NOT_FOUND,
            Word::Ours => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, refusal.message)
    }
}

fn plugin(name: &str) -> Result<PluginName, Refused> {
    PluginName::new(name).map_err(|error| Refused::bad(error.to_string()))
}

/// Asks for a change. So many wait at once, and what they hold is `with` them: a change is carried out although who
/// asked for it has gone.
async fn ask(
    api: &Api,
    with: impl Send + 'static,
    request: impl FnOnce(oneshot::Sender<Result<Changed, Refusal>>) -> Request,
) -> Answer {
    let turn = turn(&api.places.changes)?;
    let (reply, replied) = oneshot::channel();
    let stopping = || {
        Refused(
            StatusCode::SERVICE_UNAVAILABLE,
            "stopping, come again".to_owned(),
        )
    };
    api.requests.send(request(reply)).map_err(|_| stopping())?;
    let done = api.places.tasks.spawn(async move {
        let replied = replied.await;
        drop((turn, with));
        replied
    });
    let changed = done.await.map_err(|_| stopping())?;
    let changed = changed.map_err(|_| stopping())??;
    tracing::info!(message = changed.message, "operator");
    Ok(Json(Said {
        message: changed.message,
    }))
}

/// A place among those that may be busy with plugins at once.
fn turn(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Refused> {
    places.clone().try_acquire_owned().map_err(|_| {
        Refused(
            StatusCode::SERVICE_UNAVAILABLE,
            "others are changing plugins, come again".to_owned(),
        )
    })
}

/// How long a plugin may take to arrive, and how long it may stand still meanwhile.
const UPLOAD: Duration = Duration::from_mins(5);
const UPLOAD_PAUSE: Duration = Duration::from_secs(10);

/// The whole of a plugin.
async fn upload(body: Body, limit: usize) -> Result<Vec<u8>, Refused> {
    let too_large = || {
        Refused(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the plugin may have {limit} bytes"),
        )
    };
    if body.size_hint().lower() > limit as u64 {
        pour(body).await;
        return Err(too_large());
    }
    let late = |_| {
        Refused(
            StatusCode::REQUEST_TIMEOUT,
            format!(
                "the plugin did not arrive within {UPLOAD:?}, or stood still for {UPLOAD_PAUSE:?}"
            ),
        )
    };
    let mut chunks = body.into_data_stream();
    let arrives = async {
        let mut wasm = Vec::new();
        while let Some(chunk) = tokio::time::timeout(UPLOAD_PAUSE, chunks.next())
            .await
            .map_err(late)?
        {
            let chunk = chunk
                .map_err(|error| Refused::bad(format!("the plugin did not arrive: {error}")))?;
            if wasm.len() + chunk.len() > limit {
                return Err(too_large());
            }
            wasm.extend_from_slice(&chunk);
        }
        Ok(wasm)
    };
    tokio::time::timeout(UPLOAD, arrives).await.map_err(late)?
}

pub(super) async fn list(State(api): State<Arc<Api>>) -> Json<PluginList> {
    let serving = api.serving.load_full();
    let versions = api
        .versions
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let plugins = serving.plugins.iter().map(|plugin| {
        let policies = serving.policies.policies().iter();
        let uses = policies
            .clone()
            .filter(|policy| policy.plugins().any(|named| named.name == plugin.name));
        let pins = policies.flat_map(|policy| {
            let named = policy
                .plugins()
                .filter(|named| named.name == plugin.name)
                .filter_map(|named| named.pin);
            let named: BTreeSet<_> = named.collect();
            named.into_iter().map(|digest| PinView {
                policy: policy.name.clone(),
                digest,
            })
        });
        PluginView {
            name: plugin.name.clone(),
            version: plugin.version.to_string(),
            digest: plugin.digest,
            file: serving.file_of(&plugin.name).unwrap_or_default(),
            summary: plugin.summary.clone(),
            asks_for: plugin.imports.iter().map(ToString::to_string).collect(),
            used_by: uses.map(|policy| policy.name.clone()).collect(),
            pins: pins.collect(),
            probation: api
                .probation
                .standing(&plugin.digest)
                .map(|(runs, faults)| ProbationView { runs, faults }),
            versions: versions
                .served(&plugin.name)
                .iter()
                .rev()
                .take(VERSIONS)
                .rev()
                .map(|served| VersionView {
                    since: served.at,
                    digest: served.digest,
                    by: served.by.clone(),
                    rolled_back: versions.rolled_back(&served.digest).map(ToOwned::to_owned),
                })
                .collect(),
        }
    });
    let problems = api.problems.get();
    let problems = problems
        .into_iter()
        .filter(|problem| problem.what == "plugin");
    Json(PluginList {
        plugins: plugins.collect(),
        problems: problems.map(ProblemView::from).collect(),
    })
}

pub(super) async fn install(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Params(query): Params<InstallQuery>,
    body: Body,
) -> Answer {
    let name = plugin(&name)?;
    let by = text("by", &query.by)?;
    let place = turn(&api.places.uploads)?;
    let wasm = upload(body, api.max_plugin_size).await?;
    ask(&api, place, |reply| Request::Install {
        name,
        wasm,
        signature: query.signature,
        accept: query.accept,
        by,
        reply,
    })
    .await
}

pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Params(query): Params<ByQuery>,
) -> Answer {
    let name = plugin(&name)?;
    let by = text("by", &query.by)?;
    ask(&api, (), |reply| Request::Remove { name, by, reply }).await
}

pub(super) async fn roll_back(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Given(body): Given<RollBackBody>,
) -> Answer {
    let name = plugin(&name)?;
    let (by, reason) = (text("by", &body.by)?, text("reason", &body.reason)?);
    ask(&api, (), |reply| Request::RollBack {
        name,
        to: body.to,
        reason,
        by,
        reply,
    })
    .await
}

pub(super) async fn accept(
    State(api): State<Arc<Api>>,
    Path(digest): Path<String>,
    Given(body): Given<AcceptBody>,
) -> Answer {
    let digest: Digest = digest
        .parse()
        .map_err(|error: sentinel_core::id::IdError| Refused::bad(error.to_string()))?;
    let by = text("by", &body.by)?;
    ask(&api, (), |reply| Request::Accept { digest, by, reply }).await
}
