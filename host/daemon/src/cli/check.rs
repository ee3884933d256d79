//! `sentinel check`.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use sentinel_core::policy::{Check, PolicySet};
use sentinel_core::version::Versions;
use sentinel_drivers::alertmanager::AlertmanagerClient;
use sentinel_drivers::mail::MailConfigError;
use sentinel_journal::{OpenError, Reader};
use serde::Serialize;

use super::Output;
use super::output::{Failure, print_as};
use crate::app;
use crate::config::Config;
use crate::secrets::{self, SecretError};
use crate::serving::{Problem, Serving};

/// How long a name may take to be found, or not.
const LOOKUP: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    plugins: Vec<String>,
    policies: Vec<String>,
    problems: Vec<Problem>,
    /// What is wrong with this machine and not with the files, and what the files say that is
    /// probably not meant.
    notes: Vec<String>,
}

pub(super) fn run(config: &Path, output: Output) -> Result<(), Failure> {
    let config = Config::read(config, &super::variable)?;
    sentinel_drivers::docker::Docker::new(config.docker_hosts.clone())
        .map_err(|error| Failure::given(error.to_string()))?;
    let (mut secrets, unusable) = secrets::read(&config.secrets, &super::variable);
    let (missing, bad): (Vec<_>, Vec<_>) = unusable
        .into_iter()
        .partition(|error| matches!(error, SecretError::Missing { .. }));
    if let Some(bad) = bad.first() {
        return Err(Failure::given(bad.to_string()));
    }
    let mail = config
        .mail
        .as_ref()
        .map(|mail| app::mail_server(mail, &mut secrets.values));
    if let Some(Err(error @ MailConfigError::Authority { .. })) = &mail {
        return Err(Failure::given(error.to_string()));
    }
    if let Some(asked) = &config.alertmanager {
        AlertmanagerClient::with(asked.url.clone(), None, asked.tls.as_ref())
            .map_err(|error| Failure::given(error.to_string()))?;
    }
    let sandbox = app::sandbox(&config, None)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::software(error.to_string()))?;
    let running = Arc::new(ArcSwap::from_pointee(config.clone()));
    // Where a daemon has run, policies may be pinned to what served before.
    let past = past(&config);
    let mut loader = app::loader(&running, sandbox.clone());
    let versions = match &past {
        Ok((past, versions)) => {
            loader.past.clone_from(past);
            versions.clone()
        }
        Err(_) => Versions::default(),
    };
    let looked = runtime.block_on(loader.look(&Serving::default(), &versions));
    let serving = looked.serving.unwrap_or_default();
    // No problem of the files: they may be checked on another machine than they run on.
    let mut notes = secrets.warnings;
    notes.extend(app::open_to_others(&config));
    notes.extend(past.err());
    notes.extend(missing.iter().map(ToString::to_string));
    notes.extend(mail.and_then(Result::err).map(|error| error.to_string()));
    if serving.runs_playbooks() {
        let ansible = app::ansible(&config);
        let found = runtime.block_on(ansible.check());
        notes.extend(found.err().map(|error| error.to_string()));
    }
    notes.extend(runtime.block_on(unresolved(&serving.policies)));
    notes.extend(serving.policies.notes().iter().map(|note| {
        let help = note.help().unwrap_or_default();
        format!("{}; {help}", note.one_line())
    }));
    let mut problems = looked.problems;
    problems.sort();
    if serving.plugins.iter().next().is_none() && !problems.iter().any(|one| one.what == "plugin") {
        notes.push(format!(
            "there is no plugin (*.wasm) in {} (`plugins_dir`); those that belong to sentinel are made by \
             `make plugins`, in target/plugins/dist",
            config.plugins_dir.display()
        ));
    }
    let report = Report {
        ok: problems.is_empty(),
        plugins: serving.plugins.iter().map(ToString::to_string).collect(),
        policies: serving
            .policies
            .policies()
            .iter()
            .map(|policy| policy.name.to_string())
            .collect(),
        problems,
        notes,
    };
    print_as(output, &report, || text(&report))?;
    if report.ok {
        Ok(())
    } else {
        // Everything has been said.
        Err(Failure::given(""))
    }
}

/// What policies verify by a name that has no address on this machine.
async fn unresolved(policies: &PolicySet) -> Vec<String> {
    let mut notes = Vec::new();
    for policy in policies.policies() {
        let Check::Http(url) = &policy.verify.check else {
            continue;
        };
        let Some(host) = url.literal_host().filter(|host| !host.starts_with('[')) else {
            continue;
        };
        let look = tokio::time::timeout(LOOKUP, tokio::net::lookup_host((host.clone(), 0)));
        let found = match look.await {
            Ok(Ok(mut addresses)) => addresses.next(),
            _ => None,
        };
        if found.is_none() {
            notes.push(format!(
                "policy {}: `verify` asks {}, and {host} has no address on this machine; sentinel asks from \
                 where it runs: a published port, such as http://127.0.0.1:8080, or a name that resolves there",
                policy.name,
                url.source()
            ));
        }
    }
    notes
}

/// What the journal knows of versions, if there is one; the error is a note.
fn past(config: &Config) -> Result<(Option<Arc<Reader>>, Versions), String> {
    let unknown = |error: String| {
        format!("which versions served before is not known, the journal cannot be read: {error}")
    };
    let reader = match Reader::open(&config.data_dir) {
        Ok(reader) => reader,
        Err(OpenError::Missing { .. }) => return Ok((None, Versions::default())),
        Err(error) => return Err(unknown(error.to_string())),
    };
    let controls = reader
        .controls()
        .map_err(|error| unknown(error.to_string()))?;
    Ok((Some(Arc::new(reader)), Versions::fold(&controls)))
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    for problem in &report.problems {
        // Writing to a String cannot fail.
        let _ok = writeln!(out, "{}", problem.rendered.trim_end());
    }
    for note in &report.notes {
        let _ok = writeln!(out, "note: {note}");
    }
    let _ok = match report.problems.len() {
        0 => writeln!(
            out,
            "all good: {} and {}",
            counted(report.plugins.len(), "plugin", "plugins"),
            counted(report.policies.len(), "policy", "policies")
        ),
        count => writeln!(out, "{}", counted(count, "problem", "problems")),
    };
    out
}

fn counted(count: usize, one: &str, many: &str) -> String {
    let word = if count == 1 { one } else { many };
    format!("{count} {word}")
}
