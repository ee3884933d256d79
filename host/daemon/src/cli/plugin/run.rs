//! `sentinel plugin run`: one run, without a daemon.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use sentinel_core::alert::Alert;
use sentinel_core::capability::{CapabilityError, Request};
use sentinel_core::duration::HumanDuration;
use sentinel_core::event::{CallResult, LogLevel, PlannedEffect, Resource};
use sentinel_core::grant::{AnsibleGrant, DockerGrant, Grants, Import};
use sentinel_core::id::{Digest, PolicyName, RunId, Target};
use sentinel_core::incident::OnInterrupt;
use sentinel_core::policy::{Environment, PolicySet};
use sentinel_core::timeline;
use sentinel_drivers::ansible::{Ansible, AnsibleConfig};
use sentinel_drivers::docker::Docker;
use sentinel_drivers::http::Http;
use sentinel_sandbox::driver::{MailDriver, NoMail, NoPast};
use sentinel_sandbox::gate::{
    EffectGuard, Evidence, GateContext, GateLimits, GateMode, Halt, Halted, RecordError, Recorder,
};
use sentinel_sandbox::{Gate, IncidentInput, Plugin, RunLimits, RunReport};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio_util::task::TaskTracker;

use super::build::millis;
use super::cases::{GivenAlert, run_id, shown, target, told};
use super::{load, runtime, sandbox, size};
use crate::cli::output::{Failure, harmless, print_as};
use crate::config::{MailConfig, SecretSource};

/// What is run, and how.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RunArgs {
    /// The plugin, a `.wasm` file.
    file: PathBuf,
    /// The alert: JSON with its `labels`, as in Alertmanager's webhook, or a whole webhook, of
    /// which the first alert is taken.
    #[arg(long, value_name = "FILE")]
    alert: Option<PathBuf>,
    /// What to act on, such as `docker://local/web`; by default the container that the alert's
    /// label `container` names.
    #[arg(long, value_name = "URI")]
    target: Option<String>,
    /// The step's params, in YAML or JSON: `timeout: 5s`.
    #[arg(long, value_name = "PARAMS", default_value = "{}")]
    params: String,
    /// Do what the plugin asks for. Needs --grants or --policy.
    #[arg(long)]
    live: bool,
    /// What it may touch, as a policy's `grants` says it:
    /// `docker: { containers: ['web-*'], actions: [inspect, restart] }`. A dry run that is granted
    /// nothing else may look at everything.
    #[arg(long, value_name = "GRANTS", conflicts_with = "policy")]
    grants: Option<String>,
    /// Take grants, target, params and timeout from the policy in this file that matches the alert
    /// and has a step with the plugin.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// A Docker host by name.
    #[arg(
        long,
        value_name = "NAME=URL",
        default_value = "local=unix:///var/run/docker.sock"
    )]
    docker: Vec<String>,
    /// A secret by name, for requests that name it as `secret://NAME`, and the file that holds
    /// it.
    #[arg(long, value_name = "NAME=FILE")]
    secret: Vec<String>,
    /// The server that mail is sent by, as the configuration's `mail` says it:
    /// `{ server: smtp.example.com, from: sentinel@example.com }`. A password is one of --secret.
    #[arg(long, value_name = "MAIL")]
    mail: Option<String>,
    /// The folder of playbooks.
    #[arg(long, value_name = "DIR", default_value = "playbooks")]
    playbooks: PathBuf,
    /// How long the run may take.
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    timeout: HumanDuration,
    #[command(flatten)]
    output: crate::cli::OutputArgs,
}

#[derive(Debug, Serialize)]
struct Ran {
    plugin: String,
    target: String,
    live: bool,
    outcome: String,
    message: String,
    calls: Vec<Call>,
    log: Vec<Logged>,
    wall_micros: u64,
    cpu_millis: u64,
    peak_memory: u64,
    host_calls: u32,
    log_dropped: u32,
}

/// One call that the plugin made, and what became of it.
#[derive(Debug, Clone, Serialize)]
struct Call {
    number: u32,
    what: What,
    asked: String,
    request: Request,
    #[serde(skip_serializing_if = "Option::is_none")]
    on: Option<String>,
    result: CallResult,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum What {
    Observed,
    Done,
    WouldDo,
    Denied,
}

#[derive(Debug, Clone, Serialize)]
struct Logged {
    level: LogLevel,
    message: String,
}

pub(super) fn run(args: &RunArgs) -> Result<(), Failure> {
    if args.live && args.grants.is_none() && args.policy.is_none() {
        return Err(Failure::given("a live run touches what it is granted, and nothing is")
            .hint("give --grants \"docker: { containers: ['web-*'], actions: [inspect, restart] }\", or --policy FILE")
            .code(2));
    }
    let sandbox = sandbox()?;
    let runtime = runtime()?;
    let plugin = runtime.block_on(load(&sandbox, &args.file))?;
    let task = Task::read(args, &plugin)?;
    if let Some(problem) = super::test::bad_params(&plugin, &task.incident.params) {
        return Err(Failure::given(problem));
    }
    let docker = Docker::new(hosts(&args.docker)?)
        .map_err(|error| Failure::given(format!("--docker: {error}")))?;
    let work_dir = std::env::temp_dir().join(format!("sentinel-plugin-run-{}", std::process::id()));
    let ansible = Ansible::new(AnsibleConfig::new(&args.playbooks, &work_dir));
    let mut secrets = secrets(&args.secret)?;
    let mail = mail(args.mail.as_deref(), &mut secrets)?;
    let http = Http::new(secrets).map_err(|error| Failure::given(format!("--secret: {error}")))?;
    let account = Arc::new(Account::default());
    let target = task.incident.target.to_string();
    let report = runtime.block_on(async {
        let gate = Gate::new(GateContext {
            run: run_id(),
            grants: Arc::new(task.grants),
            recorder: account.clone(),
            docker: Arc::new(docker),
            ansible: Arc::new(ansible),
            http: Arc::new(http),
            mail,
            memory: Arc::new(NoPast),
            io: tokio::runtime::Handle::current(),
            effects: TaskTracker::new(),
            limits: GateLimits::default(),
            mode: if args.live {
                GateMode::Live
            } else {
                GateMode::Dry
            },
            guard: Arc::new(NoGuard),
            halt: Halt::new(),
            evidence: None,
            record: None,
            on_interrupt: OnInterrupt::Escalate,
        });
        let limits = RunLimits {
            timeout: task.timeout,
            ..RunLimits::default()
        };
        let report = sandbox
            .run(Arc::clone(&plugin), task.incident, gate.clone(), limits)
            .await;
        gate.settled().await;
        report
    });
    let ran = account.tell(&plugin, target, args.live, &report);
    print_as(args.output.output, &ran, || text(&ran))?;
    if report.result.is_ok() {
        Ok(())
    } else {
        // Everything has been said.
        Err(Failure::given(""))
    }
}

/// What the plugin is run for.
struct Task {
    incident: IncidentInput,
    grants: Grants,
    timeout: std::time::Duration,
}

impl Task {
    fn read(args: &RunArgs, plugin: &Plugin) -> Result<Self, Failure> {
        let alert = alert(args.alert.as_deref())?;
        let params = params(&args.params)?;
        let own_target =
            |alert: &Alert| target(args.target.as_deref(), alert).map_err(Failure::given);
        let whole = |policy: PolicyName, target: Target, alert: Alert, params| IncidentInput {
            incident: run_id().incident,
            run: run_id(),
            policy,
            target,
            alert,
            step: 1,
            attempt: 1,
            params,
        };
        let Some(file) = &args.policy else {
            let grants = match &args.grants {
                Some(given) => given_grants(given, plugin, &args.docker)?,
                None => whatever_it_imports(plugin)?,
            };
            let name =
                PolicyName::new("by-hand").map_err(|error| Failure::software(error.to_string()))?;
            let target = own_target(&alert)?;
            return Ok(Self {
                incident: whole(name, target, alert, params),
                grants,
                timeout: args.timeout.0,
            });
        };
        let text = std::fs::read_to_string(file).map_err(|error| {
            Failure::given(format!("{}: cannot be read: {error}", file.display()))
        })?;
        let set = policies(&file.display().to_string(), &text, &args.docker)?;
        let policy = set
            .matching(&alert.labels)
            .find(|policy| {
                policy
                    .steps
                    .iter()
                    .any(|step| step.plugin.name == plugin.name)
            })
            .ok_or_else(|| {
                Failure::given(format!(
                    "{}: no policy in it matches the alert and has a step with {}",
                    file.display(),
                    plugin.name
                ))
            })?;
        let render =
            |error: sentinel_core::template::RenderError| Failure::given(error.to_string());
        let plan = policy.plan(&alert).map_err(render)?;
        let target = match &args.target {
            Some(_) => own_target(&alert)?,
            None => policy.target(&alert).map_err(render)?,
        };
        let step = plan
            .steps
            .into_iter()
            .find(|step| step.plugin.name == plugin.name)
            .ok_or_else(|| Failure::software("the policy's step is gone"))?;
        let params = if params.is_empty() {
            step.params
        } else {
            params
        };
        Ok(Self {
            incident: whole(plan.policy, target, alert, params),
            grants: plan.grants,
            timeout: step.timeout,
        })
    }
}

/// The alert in a file, or one that says nothing.
fn alert(file: Option<&Path>) -> Result<Alert, Failure> {
    let now = Timestamp::now();
    let Some(file) = file else {
        return Ok(GivenAlert::default().alert(now));
    };
    let wrong = |problem: String| Failure::given(format!("{}: {problem}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let mut value: Value =
        serde_saphyr::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if let Some(alerts) = value.get_mut("alerts").and_then(Value::as_array_mut) {
        if alerts.is_empty() {
            return Err(wrong("the webhook has no alerts".to_owned()));
        }
        value = alerts.swap_remove(0);
    }
    let given: GivenAlert = serde_json::from_value(value)
        .map_err(|error| wrong(format!("no alert as Alertmanager writes them: {error}")))?;
    Ok(given.alert(now))
}

fn params(text: &str) -> Result<Map<String, Value>, Failure> {
    serde_saphyr::from_str(text).map_err(|error| {
        Failure::given(format!(
            "--params: expected params in YAML or JSON: {error}"
        ))
    })
}

fn hosts(given: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    given
        .iter()
        .map(|host| {
            let (name, url) = host.split_once('=').ok_or_else(|| {
                Failure::given(format!(
                    "--docker: expected NAME=URL, such as local=unix:///var/run/docker.sock, found `{host}`"
                ))
                .code(2)
            })?;
            Ok((name.to_owned(), url.to_owned()))
        })
        .collect()
}

fn secrets(given: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let sources = given
        .iter()
        .map(|secret| {
            let (name, file) = secret.split_once('=').ok_or_else(|| {
                Failure::given("--secret: expected NAME=FILE, such as chat-url=secrets/chat-url")
                    .code(2)
            })?;
            Ok((name.to_owned(), SecretSource::File(file.into())))
        })
        .collect::<Result<_, Failure>>()?;
    let (secrets, errors) = crate::secrets::read(&sources, &crate::cli::variable);
    match errors.first() {
        Some(error) => Err(Failure::given(error.to_string())),
        None => Ok(secrets.values),
    }
}

fn mail(
    given: Option<&str>,
    secrets: &mut BTreeMap<String, String>,
) -> Result<Arc<dyn MailDriver>, Failure> {
    let Some(given) = given else {
        return Ok(Arc::new(NoMail));
    };
    let wrong = |error: &dyn std::fmt::Display| Failure::given(format!("--mail: {error}"));
    let config = MailConfig::read(given, |name| secrets.contains_key(name))
        .map_err(|error| wrong(&error).code(2))?;
    let mail = crate::app::mail_server(&config, secrets).map_err(|error| wrong(&error))?;
    Ok(Arc::new(mail))
}

fn policies(name: &str, text: &str, docker: &[String]) -> Result<PolicySet, Failure> {
    let environment = Environment {
        docker_hosts: hosts(docker)?.into_keys().collect(),
        // Whether one that a call names is there is said when it is made.
        secrets: None,
        mail: None,
    };
    PolicySet::parse(&[(name, text)], &environment).map_err(|problems| {
        let problems: Vec<String> = problems
            .iter()
            .map(|problem| problem.report(false).trim_end().to_owned())
            .collect();
        Failure::given(problems.join("\n"))
    })
}

/// What `--grants` says, read as the `grants` of a policy are.
fn given_grants(given: &str, plugin: &Plugin, docker: &[String]) -> Result<Grants, Failure> {
    let grants: Value = serde_saphyr::from_str(given)
        .map_err(|error| Failure::given(format!("--grants: {error}")).code(2))?;
    let policy = serde_json::json!({ "policies": [{
        "name": "by-hand",
        "match": ["alertname=~\".*\""],
        "target": "docker://local/any",
        "steps": [{ "plugin": plugin.name }],
        "grants": grants,
    }]});
    let set = policies("--grants", &format!("{policy:#}"), docker)?;
    let alert = GivenAlert::default().alert(Timestamp::now());
    let policy = set
        .policies()
        .first()
        .ok_or_else(|| Failure::software("the grants are gone"))?;
    let plan = policy
        .plan(&alert)
        .map_err(|error| Failure::given(format!("--grants: {error}")))?;
    Ok(plan.grants)
}

/// Everything that the plugin could ask for: in a dry run nothing is done.
fn whatever_it_imports(plugin: &Plugin) -> Result<Grants, Failure> {
    let any = |pattern: &str| {
        pattern
            .parse()
            .map(|glob| vec![glob])
            .map_err(|error| Failure::software(format!("{error}")))
    };
    let mut grants = Grants::default();
    for import in &plugin.imports {
        match import {
            Import::Docker(action) => {
                let docker = match &mut grants.docker {
                    Some(docker) => docker,
                    none => none.insert(DockerGrant {
                        hosts: any("*")?,
                        containers: any("*")?,
                        labels: Vec::new(),
                        actions: [].into(),
                        new_labels: any("**")?,
                    }),
                };
                docker.actions.insert(*action);
            }
            Import::Ansible => {
                grants.ansible = Some(AnsibleGrant::anything());
            }
            // No pattern stands for every host: --grants has to name them.
            Import::Http | Import::Mail => {}
            Import::Memory => grants.memory = true,
        }
    }
    Ok(grants)
}

/// Lets everything through: no other runs are there.
struct NoGuard;

impl EffectGuard for NoGuard {
    fn admit(&self, _: RunId, _: &Request, _: Option<&Resource>) -> Result<(), Halted> {
        Ok(())
    }
}

/// What the run did, for whoever started it.
#[derive(Default)]
struct Account(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    calls: Vec<Call>,
    log: Vec<Logged>,
}

impl Account {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(
        &self,
        number: u32,
        what: What,
        request: &Request,
        on: Option<&Resource>,
        result: &CallResult,
    ) {
        self.lock().calls.push(Call {
            number,
            what,
            asked: shown(request),
            request: request.clone(),
            on: on.map(|on| on.name.clone()),
            result: result.clone(),
        });
    }

    fn tell(&self, plugin: &Plugin, target: String, live: bool, report: &RunReport) -> Ran {
        let kept = self.lock();
        let (outcome, message) = told(&report.result);
        Ran {
            plugin: plugin.to_string(),
            target,
            live,
            outcome,
            message,
            calls: kept.calls.clone(),
            log: kept.log.clone(),
            wall_micros: u64::try_from(report.wall.as_micros()).unwrap_or(u64::MAX),
            cpu_millis: millis(report.cpu),
            peak_memory: report.peak_memory,
            host_calls: report.calls,
            log_dropped: report.log_dropped,
        }
    }
}

#[async_trait]
impl Recorder for Account {
    fn seeded(&self, _: RunId, _: &str, _: Timestamp) {}

    fn clock_read(&self, _: RunId, _: &[u64]) {}

    fn evidence(&self, _: RunId, _: &Evidence) {}

    async fn effect_began(
        &self,
        _: RunId,
        _: u32,
        _: &Request,
        _: Option<&Resource>,
    ) -> Result<(), RecordError> {
        Ok(())
    }

    async fn effect_ended(
        &self,
        _: RunId,
        call: u32,
        request: &Request,
        result: &CallResult,
        _: bool,
    ) -> Result<(), RecordError> {
        self.note(call, What::Done, request, None, result);
        Ok(())
    }

    async fn observed(
        &self,
        _: RunId,
        call: u32,
        request: &Request,
        result: &CallResult,
    ) -> Result<(), RecordError> {
        self.note(call, What::Observed, request, None, result);
        Ok(())
    }

    async fn planned(
        &self,
        _: RunId,
        call: u32,
        effect: &PlannedEffect,
        result: &CallResult,
    ) -> Result<(), RecordError> {
        let (request, on) = (&effect.request, effect.on.as_ref());
        self.note(call, What::WouldDo, request, on, result);
        Ok(())
    }

    async fn denied(
        &self,
        _: RunId,
        call: u32,
        request: &Request,
        _: Option<Digest>,
        error: &CapabilityError,
    ) -> Result<(), RecordError> {
        self.note(call, What::Denied, request, None, &Err(error.clone()));
        Ok(())
    }

    fn logged(&self, _: RunId, level: LogLevel, message: &str) {
        self.lock().log.push(Logged {
            level,
            message: message.to_owned(),
        });
    }
}

fn text(ran: &Ran) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let how = if ran.live {
        "live"
    } else {
        "dry: nothing was changed"
    };
    let _ok = writeln!(
        out,
        "{} on {} ({how})",
        harmless(&ran.plugin),
        harmless(&ran.target)
    );
    for call in &ran.calls {
        let what = match call.what {
            What::Observed => "saw",
            What::Done => "did",
            What::WouldDo => "would do",
            // The gate stops what cannot be, too: nobody has refused that.
            What::Denied => match call.result {
                Err(CapabilityError::Denied(_)) => "was refused",
                _ => "asked for",
            },
        };
        let came = match (call.what, &call.result) {
            (What::WouldDo, Ok(_)) => String::new(),
            (_, result) => format!(" → {}", timeline::outcome(result)),
        };
        let _ok = writeln!(
            out,
            "{:>4}  {what:<11} {}{}",
            call.number,
            harmless(&call.asked),
            harmless(&came)
        );
    }
    for line in &ran.log {
        let _ok = writeln!(
            out,
            "      | {}: {}",
            line.level.as_str(),
            harmless(&line.message)
        );
    }
    if ran.log_dropped > 0 {
        let _ok = writeln!(out, "      | {} entries were dropped", ran.log_dropped);
    }
    let peak = usize::try_from(ran.peak_memory).unwrap_or(usize::MAX);
    let _ok = writeln!(
        out,
        "{}: {}\n{} ms, of which {} ms on the processor; {} of memory; {} host calls",
        ran.outcome,
        harmless(&ran.message),
        ran.wall_micros.div_ceil(1000),
        ran.cpu_millis,
        size(peak),
        ran.host_calls,
    );
    out
}
