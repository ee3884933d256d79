//! `sentinel pause|resume|pauses|approve|deny|cancel`.

use std::fmt::Write as _;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;

use clap::Args;
use sentinel_core::control::Scope;
use sentinel_core::duration::HumanDuration;
use sentinel_core::id::{Digest, IncidentId, PolicyName, Target};
use url::Url;

use super::incidents::{fetch, second};
use super::output::{Failure, harmless, print, print_as};
use super::{Output, client};
use crate::api::{
    IncidentView, PauseBody, Pauses, PlanBody, PlanView, ReasonBody, ResumeBody, Said,
};

/// Which daemon.
#[derive(Debug, Args)]
pub(super) struct DaemonArgs {
    /// The daemon, for example `http://127.0.0.1:9095`; without it, the one that listens at the
    /// configuration's `listen`.
    #[arg(long, env = "SENTINEL_URL", value_name = "URL", value_parser = client::address)]
    pub(super) url: Option<Url>,
}

/// Who asks.
#[derive(Debug, Args)]
pub(super) struct ByArgs {
    /// Who you are; it goes on record.
    #[arg(long, env = "USER", value_name = "NAME", hide_env_values = true)]
    pub(super) by: String,
}

/// What a pause holds back.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct ScopeArgs {
    /// Everything.
    #[arg(long)]
    all: bool,
    /// One policy.
    #[arg(long, value_name = "POLICY")]
    policy: Option<PolicyName>,
    /// One target, such as `docker://local/nginx`.
    #[arg(long, value_name = "TARGET")]
    target: Option<Target>,
}

pub(super) fn pause(
    config: &Path,
    daemon: DaemonArgs,
    scope: ScopeArgs,
    duration: Option<HumanDuration>,
    by: ByArgs,
    reason: String,
) -> Result<(), Failure> {
    let body = PauseBody {
        all: scope.all,
        policy: scope.policy,
        target: scope.target,
        duration,
        by: by.by,
        reason,
    };
    let base = client::base(config, daemon.url)?;
    said(&client::post(&base, "api/v1/pauses", &body)?)
}

pub(super) fn resume(
    config: &Path,
    daemon: DaemonArgs,
    scope: ScopeArgs,
    by: ByArgs,
) -> Result<(), Failure> {
    let body = ResumeBody {
        all: scope.all,
        policy: scope.policy,
        target: scope.target,
        by: by.by,
    };
    let base = client::base(config, daemon.url)?;
    said(&client::post(&base, "api/v1/resume", &body)?)
}

pub(super) fn pauses(config: &Path, daemon: DaemonArgs, output: Output) -> Result<(), Failure> {
    let base = client::base(config, daemon.url)?;
    let pauses: Pauses = client::get(&base, "api/v1/pauses", &[])?;
    print_as(output, &pauses, || pauses_text(&pauses))
}

fn pauses_text(pauses: &Pauses) -> String {
    let mut out = String::new();
    for pause in &pauses.pauses {
        let until = pause
            .until
            .map_or_else(|| "it is resumed".to_owned(), second);
        // Writing to a String cannot fail.
        let _ok = writeln!(
            out,
            "{} is paused until {until}: {} ({}, since {})\n  release it with `sentinel resume {}`",
            harmless(&pause.scope.to_string()),
            harmless(&pause.reason),
            harmless(&pause.by),
            second(pause.since),
            flag(&pause.scope)
        );
    }
    for storm in &pauses.storms {
        let _ok = writeln!(
            out,
            "policy {} is in a storm since {}",
            storm.policy,
            second(storm.since)
        );
    }
    if out.is_empty() {
        out.push_str("nothing is paused\n");
    }
    out
}

fn flag(scope: &Scope) -> String {
    match scope {
        Scope::All => "--all".to_owned(),
        Scope::Policy(policy) => format!("--policy {policy}"),
        Scope::Target(target) => format!("--target {}", harmless(&target.to_string())),
    }
}

pub(super) fn approve(
    config: &Path,
    daemon: DaemonArgs,
    id: IncidentId,
    plan: Option<&str>,
    by: ByArgs,
) -> Result<(), Failure> {
    let base = client::base(config, daemon.url)?;
    let (view, waiting) = waiting(&base, id)?;
    let plan = match plan {
        Some(given) => named(id, given, &waiting)?,
        None => confirm(&view, &waiting)?,
    };
    let body = PlanBody {
        plan,
        by: by.by,
        reason: String::new(),
    };
    said(&client::post(
        &base,
        &format!("api/v1/incidents/{id}/approve"),
        &body,
    )?)
}

pub(super) fn deny(
    config: &Path,
    daemon: DaemonArgs,
    id: IncidentId,
    by: ByArgs,
    reason: String,
) -> Result<(), Failure> {
    let base = client::base(config, daemon.url)?;
    let body = PlanBody {
        plan: waiting(&base, id)?.1.digest,
        by: by.by,
        reason,
    };
    said(&client::post(
        &base,
        &format!("api/v1/incidents/{id}/deny"),
        &body,
    )?)
}

pub(super) fn cancel(
    config: &Path,
    daemon: DaemonArgs,
    id: IncidentId,
    by: ByArgs,
    reason: String,
) -> Result<(), Failure> {
    let base = client::base(config, daemon.url)?;
    let body = ReasonBody { by: by.by, reason };
    said(&client::post(
        &base,
        &format!("api/v1/incidents/{id}/cancel"),
        &body,
    )?)
}

/// An incident, and the plan that it waits with.
fn waiting(base: &Url, id: IncidentId) -> Result<(IncidentView, PlanView), Failure> {
    let mut view = fetch(base, id)?;
    let plan = view.plan.take().ok_or_else(|| {
        let carried_out = if view
            .events
            .iter()
            .any(|event| event.get("kind").and_then(|kind| kind.as_str()) == Some("approved"))
        {
            ", its plan has been approved already"
        } else {
            ""
        };
        Failure::given(format!(
            "incident {id} waits for no approval: it is {}{carried_out}",
            view.row.state
        ))
    })?;
    Ok((view, plan))
}

/// The plan, if it is the one that was named by its digest or the digest's beginning.
fn named(id: IncidentId, given: &str, waiting: &PlanView) -> Result<Digest, Failure> {
    let hex = given.strip_prefix("sha256:").unwrap_or(given);
    if hex.len() < 8 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Failure::given(format!(
            "`{}` names no plan: expected at least 8 hexadecimal digits",
            harmless(given)
        )));
    }
    if waiting.digest.hex().starts_with(&hex.to_lowercase()) {
        Ok(waiting.digest)
    } else {
        Err(Failure::given(format!(
            "`{}` is not the plan's digest: incident {id} waits with plan {}",
            harmless(given),
            waiting.digest.short()
        ))
        .hint(format!("look at it with `sentinel incidents show {id}`")))
    }
}

/// Shows the plan, and asks.
fn confirm(view: &IncidentView, waiting: &PlanView) -> Result<Digest, Failure> {
    let mut text = plan_text(view, waiting);
    for (number, effect) in waiting.effects.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ok = writeln!(text, "{:>4}. {}", number + 1, harmless(effect));
    }
    print(&text)?;
    if !io::stdin().is_terminal() {
        return Err(Failure::given("nobody is there to confirm the plan")
            .hint(format!("name the plan: --plan {}", waiting.digest.short())));
    }
    print("Carry it out? Only `yes` will do: ")?;
    io::stdout().flush().unwrap_or_default();
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| Failure::given(error.to_string()))?;
    match answer.trim() {
        "yes" => Ok(waiting.digest),
        "" => Err(Failure::given("not approved: nothing was answered")),
        said => Err(Failure::given(format!(
            "not approved: the answer was `{}`, and only `yes`, written out, approves",
            harmless(said)
        ))),
    }
}

/// What whoever approves has to know beside the effects.
fn plan_text(view: &IncidentView, waiting: &PlanView) -> String {
    let row = &view.row;
    let mut text = format!("plan {} of incident {}\n", waiting.digest.short(), row.id);
    let who = match (waiting.people, waiting.approved_by.as_slice()) {
        (0 | 1, _) => "one person".to_owned(),
        (people, []) => format!("{people} people, nobody so far"),
        (people, so_far) => format!("{people} people, so far {}", so_far.join(", ")),
    };
    let but = waiting
        .requested_by
        .as_ref()
        .map_or_else(String::new, |by| format!("; not {by}, who asked for it"));
    let waits = match waiting.since {
        Some(since) => format!(
            "since {}, until {}",
            second(since),
            second(waiting.expires_at)
        ),
        None => format!("until {}", second(waiting.expires_at)),
    };
    let about = waiting.about.clone().unwrap_or_default();
    for (name, value) in [
        ("alert", row.alert.as_str()),
        ("about", about.as_str()),
        ("policy", row.policy.as_str()),
        ("target", row.target.as_str()),
        ("opened", &second(row.opened_at)),
        ("waits", &waits),
        ("approves", &format!("{who}{but}")),
    ] {
        if !value.is_empty() {
            // Writing to a String cannot fail.
            let _ok = writeln!(text, "  {name:<9} {}", harmless(value));
        }
    }
    text.push_str("it would do\n");
    text
}

pub(super) fn said(said: &Said) -> Result<(), Failure> {
    print(&format!("{}\n", harmless(&said.message)))
}
