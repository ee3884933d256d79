//! A policy as it was understood.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::written;
use crate::alert::{Alert, Labels};
use crate::duration::human;
use crate::grant::Grants;
use crate::guard::settings::Guards;
use crate::id::{Digest, PluginRef, PolicyName, Target};
use crate::incident::{
    Approval, OnInterrupt, Plan, PlannedEscalation, PlannedStep, PlannedVerify, VerifyCheck, When,
};
use crate::matcher::Matcher;
use crate::template::{
    Context, RenderError, TargetTemplate, UrlTemplate, render_fitting, render_map,
};

/// How long an incident waits for word of its alerts when the policy does not say.
pub const DEFAULT_TTL: Duration = Duration::from_hours(24);
/// How many of a container's last log lines are kept as evidence when the policy does
/// not say.
pub const DEFAULT_EVIDENCE: u32 = 100;
/// For how long what is verified has to hold, at the most, when the policy does not say.
const STEADY: Duration = Duration::from_secs(10);

/// One policy. Its JSON is what its digest is computed over: where it stands in which
/// file makes no difference.
#[derive(Debug, Clone, Serialize)]
pub struct Policy {
    /// Its name.
    pub name: PolicyName,
    /// What it is for, in the operator's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Which alerts it is for: all have to hold. Never empty.
    #[serde(rename = "match")]
    pub matchers: Vec<Matcher>,
    /// What it acts on.
    pub target: TargetTemplate,
    /// Whether it acts; shadow when the file does not say.
    pub mode: Mode,
    /// The ladder; never empty.
    pub steps: Vec<Step>,
    /// What decides that the target is healed.
    pub verify: Verify,
    /// What can hold it back.
    #[serde(serialize_with = "written::guards")]
    pub guards: Guards,
    /// What its plugins may touch.
    pub grants: Grants,
    /// How it is approved, in mode `approve`.
    #[serde(serialize_with = "written::approval")]
    pub approval: Approval,
    /// How long an incident waits for word of its alerts.
    #[serde(with = "human")]
    pub ttl: Duration,
    /// How many of the container's last log lines are kept before the first effect.
    #[serde(serialize_with = "written::evidence")]
    pub evidence: u32,
    /// Which plugin tells a person, when one must look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub escalate: Option<Escalation>,
    /// Where it stands.
    #[serde(skip)]
    pub location: SourceLocation,
    /// Which version it is.
    #[serde(skip)]
    pub digest: Digest,
}

/// Whether a policy acts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It acts on its own.
    Auto,
    /// It makes a plan and acts when a person approves it.
    Approve,
    /// It makes a plan, and never acts.
    #[default]
    Shadow,
    /// It is not looked at.
    Off,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Approve, Self::Shadow, Self::Off];

    /// The mode as policies write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Approve => "approve",
            Self::Shadow => "shadow",
            Self::Off => "off",
        }
    }
}

/// One rung of the ladder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// The plugin.
    pub plugin: PluginRef,
    /// What it is given; every string in it is a template.
    pub params: Map<String, Value>,
    /// How long a run may take.
    #[serde(with = "human")]
    pub timeout: Duration,
    /// How many runs the step has; at least 1.
    pub attempts: u32,
    /// The time between two attempts; the same each time.
    #[serde(with = "human")]
    pub backoff: Duration,
    /// What becomes of a run that the end of the daemon cut off, where its record does
    /// not say how far it came.
    pub on_interrupt: OnInterrupt,
    /// When it is begun.
    #[serde(
        serialize_with = "written::when",
        skip_serializing_if = "written::always"
    )]
    pub when: When,
}

/// Which plugin tells a person, when one must look.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Escalation {
    /// The plugin.
    pub plugin: PluginRef,
    /// What it is given; every string in it is a template.
    pub params: Map<String, Value>,
    /// How long a run may take.
    #[serde(with = "human")]
    pub timeout: Duration,
    /// How many runs it has; at least 1.
    pub attempts: u32,
    /// How long an incident may be held back before a person is told; for ever when none.
    #[serde(
        serialize_with = "written::held_after",
        skip_serializing_if = "written::held_after_is_default"
    )]
    pub held_after: Option<Duration>,
}

/// What decides that the target is healed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verify {
    /// What is looked at.
    pub check: Check,
    /// The time within which it has to begin to hold.
    #[serde(with = "human")]
    pub within: Duration,
    /// The time between two looks.
    #[serde(with = "human")]
    pub every: Duration,
    /// For how long it has to hold then.
    #[serde(with = "human")]
    pub steady: Duration,
}

impl Verify {
    /// For how long it has to hold when the policy does not say: ten seconds, or a third of
    /// what it has to begin in where that is shorter.
    #[must_use]
    pub fn default_steady(within: Duration) -> Duration {
        let third = u64::try_from(within.as_millis() / 3).unwrap_or(u64::MAX);
        STEADY.min(Duration::from_millis(third))
    }
}

/// What a verification looks at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// A GET of this URL is answered with 2xx.
    Http(UrlTemplate),
    /// The target's container runs and its health check passes.
    DockerHealthy,
    /// The target's container runs.
    DockerRunning,
    /// Every alert of the incident has resolved.
    AlertResolved,
}

/// A place in a policy file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceLocation {
    /// The file, by the name under which it was read.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The column, counted from 1 in characters.
    pub column: usize,
}

impl fmt::Display for SourceLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl Policy {
    /// Whether all matchers hold, whatever the mode is.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matchers.iter().all(|matcher| matcher.matches(labels))
    }

    /// What it acts on for this alert.
    pub fn target(&self, alert: &Alert) -> Result<Target, RenderError> {
        self.target.render(&Context::new(alert, &self.name))
    }

    /// The plugins that it names: its steps', and the one that tells a person.
    pub fn plugins(&self) -> impl Iterator<Item = &PluginRef> {
        let escalate = self.escalate.iter().map(|escalate| &escalate.plugin);
        self.steps.iter().map(|step| &step.plugin).chain(escalate)
    }

    /// What it does about this alert, with everything filled in.
    pub fn plan(&self, alert: &Alert) -> Result<Plan, RenderError> {
        let context = Context::new(alert, &self.name);
        let step = |step: &Step| {
            Ok(PlannedStep {
                plugin: step.plugin.clone(),
                params: render_map(&step.params, &context)?,
                timeout: step.timeout,
                attempts: step.attempts,
                backoff: step.backoff,
                on_interrupt: step.on_interrupt,
                when: step.when.clone(),
            })
        };
        let check = match &self.verify.check {
            Check::Http(template) => {
                let (url, foreign) = template.render(&context)?;
                VerifyCheck::Http { url, foreign }
            }
            Check::DockerHealthy => VerifyCheck::DockerHealthy,
            Check::DockerRunning => VerifyCheck::DockerRunning,
            Check::AlertResolved => VerifyCheck::AlertResolved,
        };
        Ok(Plan {
            policy: self.name.clone(),
            digest: self.digest,
            steps: self.steps.iter().map(step).collect::<Result<_, _>>()?,
            verify: PlannedVerify {
                check,
                within: self.verify.within,
                every: self.verify.every,
                steady: Some(self.verify.steady),
            },
            guards: self.guards.clone(),
            grants: self.grants.clone(),
            mode: self.mode,
            approval: self.approval,
            ttl: self.ttl,
            evidence: self.evidence,
            escalate: self.escalation(alert),
        })
    }

    /// Who is told of this alert when a person has to look. What of its params does not fit
    /// the alert is left out: a person who is told less is better than none.
    pub(crate) fn escalation(&self, alert: &Alert) -> Option<PlannedEscalation> {
        let escalation = self.escalate.as_ref()?;
        let context = Context::new(alert, &self.name);
        let (params, left_out) = render_fitting(&escalation.params, &context);
        Some(PlannedEscalation {
            plugin: escalation.plugin.clone(),
            params,
            timeout: escalation.timeout,
            attempts: escalation.attempts,
            held_after: escalation.held_after,
            left_out,
        })
    }
}
