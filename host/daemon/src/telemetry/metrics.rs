//! The metrics that `/metrics` serves. Each is counted in [`super::events`] alone, by
//! the same call that logs what it counts.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use sentinel_core::capability::DockerAction;
use sentinel_core::event::Silence;
use sentinel_core::id::{PluginName, PolicyName};

use super::exposition::{Form, as_text};
use super::series::Names;
use super::throttle::Throttle;

use super::budgets::Budgets;

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($field:ident),+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(crate) struct $name { $(pub(crate) $field: String),+ }
    };
}

labels!(
    /// Alerts by the door that they came through.
    AlertLabels { source, status }
);
labels!(
    /// Deliveries that were not accepted.
    RejectLabels { source, reason }
);
labels!(
    /// Incidents by policy.
    PolicyLabels { policy }
);
labels!(
    /// Ended incidents.
    EndLabels { policy, end }
);
labels!(
    /// Incidents that a guard held back.
    GuardLabels { policy, guard }
);
labels!(
    /// What people were told of, beside escalations.
    NoticeLabels { notice }
);
labels!(
    /// What nobody was told, by policy and why not.
    SilenceLabels { policy, why }
);
labels!(
    /// Runs by what they came to.
    RunLabels { plugin, result }
);
labels!(
    /// Runs by plugin.
    PluginLabels { plugin }
);
labels!(
    /// Lines that plugins wrote.
    LogLabels { level }
);
labels!(
    /// Effects by call.
    CallLabels { call }
);
labels!(
    /// Whatever passes or fails.
    ResultLabels { result }
);
labels!(
    /// Effects by call and by what they came to.
    EffectLabels { call, result }
);
labels!(
    /// Reloads by what was reloaded and by what came of it.
    ReloadLabels { what, result }
);

labels!(
    /// Limits that held a policy back.
    BudgetLabels { key, policy }
);
/// Begins a series, at 0.
fn begin<L>(family: &Family<L, Counter>, labels: &L)
where
    L: Clone + std::hash::Hash + Eq,
{
    drop(family.get_or_create(labels));
}

/// The doors.
const SOURCES: [&str; 2] = ["alertmanager", "prometheus"];

/// Why a delivery is not accepted by a door.
const REASONS: [&str; 9] = [
    "malformed",
    "bad-alert",
    "too-large",
    "too-slow",
    "broken-off",
    "overloaded",
    "stopping",
    "disk",
    "no-json",
];

/// Why one does not get as far as a door.
const STRAYS: [&str; 4] = ["no-such-path", "host", "cross-site", "too-large"];

const RELOADS: [(&str, &str); 7] = [
    ("plugin", "ok"),
    ("plugin", "refused"),
    ("plugin", "rolled-back"),
    ("policies", "ok"),
    ("policy", "refused"),
    ("configuration", "ok"),
    ("configuration", "refused"),
];

const ENDS: [&str; 5] = ["healed", "cleared", "escalated", "suppressed", "cancelled"];

const RESULTS: [&str; 6] = [
    "changed",
    "unchanged",
    "retryable",
    "permanent",
    "denied",
    "stopped",
];

const GUARDS: [&str; 10] = [
    "pause",
    "maintenance",
    "repeat",
    "breaker",
    "cooldown",
    "target-lock",
    "concurrency",
    "rate",
    "blast-radius",
    "approval",
];

fn of_end(policy: &str, end: &str) -> EndLabels {
    EndLabels {
        policy: policy.to_owned(),
        end: end.to_owned(),
    }
}

fn of_guard(policy: &str, guard: &str) -> GuardLabels {
    GuardLabels {
        policy: policy.to_owned(),
        guard: guard.to_owned(),
    }
}

fn of_result(plugin: &str, result: &str) -> RunLabels {
    RunLabels {
        plugin: plugin.to_owned(),
        result: result.to_owned(),
    }
}

/// Every metric of the daemon.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(super) alerts: Family<AlertLabels, Counter>,
    pub(super) rejected: Family<RejectLabels, Counter>,
    pub(super) truncated: Counter,
    pub(super) annotations_cut: Counter,
    pub(super) lapsed: Counter,
    pub(super) forgotten: Counter,
    pub(super) journal_bytes: Gauge,
    pub(super) opened: Family<PolicyLabels, Counter>,
    pub(super) ended: Family<EndLabels, Counter>,
    pub(super) untold: Family<SilenceLabels, Counter>,
    pub(super) unreadable: Counter,
    pub(super) notices: Family<NoticeLabels, Counter>,
    pub(super) plans_waiting: Gauge,
    pub(super) plan_waiting_since: Gauge,
    pub(super) open: Gauge,
    pub(super) backlog: Gauge,
    pub(super) waiting: Gauge,
    pub(super) repeats: Family<PolicyLabels, Counter>,
    pub(super) held: Family<GuardLabels, Counter>,
    pub(super) runs_started: Family<PluginLabels, Counter>,
    pub(super) runs: Family<RunLabels, Counter>,
    pub(super) log_lines: Family<LogLabels, Counter>,
    pub(super) observations: Family<EffectLabels, Counter>,
    pub(super) effects_begun: Family<CallLabels, Counter>,
    pub(super) effects: Family<EffectLabels, Counter>,
    pub(super) verifications: Family<ResultLabels, Counter>,
    pub(super) planned: Family<CallLabels, Counter>,
    pub(super) denied: Family<CallLabels, Counter>,
    pub(super) resumed: Counter,
    pub(super) missed: Counter,
    pub(super) ends_missed: Counter,
    pub(super) reconcile_errors: Counter,
    pub(super) storms: Family<PolicyLabels, Counter>,
    pub(super) reloads: Family<ReloadLabels, Counter>,
    pub(super) commits: Histogram,
    pub(super) journal_errors: Counter,
    pub(super) used_up: Family<BudgetLabels, Counter>,
    /// Which budgets are used up now.
    pub(crate) budgets: Budgets,
    pub(super) time_to_heal: Histogram,
    pub(super) connections: Gauge,
    pub(super) connections_refused: Counter,
    /// Lines that outsiders can cause.
    pub(super) lines: Lines,
    /// The policies and the plugins that there are series of.
    policies: Names,
    plugins: Names,
    /// The keys of limits that were used up.
    keys: Mutex<BTreeSet<String>>,
}

/// How many lines of a kind outsiders can cause.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) refused: Throttle,
    pub(super) connections: Throttle,
}

impl Metrics {
    /// All of them, at zero.
    #[expect(
        clippy::too_many_lines,
        reason = "a list, with one entry for each metric"
    )]
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("sentinel");
        macro_rules! register {
            ($name:literal, $help:literal, $metric:expr) => {{
                let metric = $metric;
                registry.register($name, $help, metric.clone());
                metric
            }};
        }
        let alerts = register!(
            "alerts_received",
            "Alerts that were committed, by the door they came through and their status",
            Family::default()
        );
        let rejected = register!(
            "deliveries_rejected",
            "Deliveries that were not accepted, by door and reason",
            Family::default()
        );
        let truncated = register!(
            "alerts_truncated",
            "Alerts that Alertmanager says it left out of a delivery (max_alerts)",
            Counter::default()
        );
        let annotations_cut = register!(
            "alerts_cut",
            "Alerts whose annotations were longer than may be, and are cut",
            Counter::default()
        );
        let lapsed = register!(
            "alerts_lapsed",
            "Alerts that resolved because nobody said any more that they fire",
            Counter::default()
        );
        let forgotten = register!(
            "alerts_forgotten",
            "Alerts that led to no incident and are kept no longer",
            Counter::default()
        );
        let journal_bytes = register!(
            "journal_bytes",
            "How large the journal's files are",
            Gauge::default()
        );
        let opened = register!(
            "incidents_opened",
            "Incidents that were opened, by policy",
            Family::default()
        );
        let ended = register!(
            "incidents_ended",
            "Incidents that ended, by policy and how",
            Family::default()
        );
        let untold = register!(
            "incidents_untold",
            "Times that a person had to hear of an incident and nobody was told, by policy and why: unnamed (no escalate), shadow, failed",
            Family::default()
        );
        let unreadable = register!(
            "incidents_unreadable",
            "Incidents in the journal that a start could not read, and left as they are",
            Counter::default()
        );
        let notices = register!(
            "notices",
            "Times that people were told of something beside an escalation: approval, held, end",
            Family::default()
        );
        let plans_waiting = register!(
            "plans_waiting",
            "Plans that wait for approval",
            Gauge::default()
        );
        let plan_waiting_since = register!(
            "plan_waiting_since_seconds",
            "When the plan that waits longest for approval began to wait, in seconds since 1970; 0 when none waits",
            Gauge::default()
        );
        let open = register!(
            "incidents_open",
            "Incidents that have not ended",
            Gauge::default()
        );
        let backlog = register!(
            "alerts_backlog",
            "Alerts that are committed and not yet matched against the policies",
            Gauge::default()
        );
        let waiting = register!(
            "alerts_waiting",
            "Alerts of the backlog that wait because their policy may have no more incidents open",
            Gauge::default()
        );
        let repeats = register!(
            "repeats_ignored",
            "Firing notifications that opened nothing because their episode had its incident",
            Family::default()
        );
        let held = register!(
            "incidents_held",
            "Times that a guard held an incident back, by policy and guard",
            Family::default()
        );
        let runs_started = register!(
            "runs_started",
            "Runs that were started, by plugin",
            Family::default()
        );
        let log_lines = register!(
            "plugin_log_lines",
            "Lines that plugins wrote, by level",
            Family::default()
        );
        let observations = register!(
            "observations",
            "Observations that were made, by call and result",
            Family::default()
        );
        let effects_begun = register!(
            "effects_begun",
            "Effects that were begun, by call",
            Family::default()
        );
        let verifications = register!(
            "verifications",
            "Verifications that came to an end, by result",
            Family::default()
        );
        let runs = register!(
            "runs",
            "Runs that ended, by plugin and result",
            Family::default()
        );
        let effects = register!(
            "effects",
            "Effects that were carried out, by call and result",
            Family::default()
        );
        let planned = register!(
            "effects_planned",
            "Effects that dry runs asked for, by call",
            Family::default()
        );
        let resumed = register!(
            "runs_resumed",
            "Runs that went on from their record",
            Counter::default()
        );
        let missed = register!(
            "alerts_missed",
            "Alerts that Alertmanager held for firing and that no notification had told of",
            Counter::default()
        );
        let ends_missed = register!(
            "alert_ends_missed",
            "Alerts of open incidents that Alertmanager did not hold for firing any more",
            Counter::default()
        );
        let reconcile_errors = register!(
            "reconcile_errors",
            "Times that Alertmanager began not to say what fires",
            Counter::default()
        );
        let storms = register!(
            "storms",
            "Times that more of a policy's fleet was disturbed than may be",
            Family::default()
        );
        let denied = register!(
            "calls_denied",
            "Calls that the gate refused, by call",
            Family::default()
        );
        let reloads = register!(
            "reloads",
            "Changes of the plugins and policies folders that were looked at, by result",
            Family::default()
        );
        let commits = Histogram::new(exponential_buckets(0.000_05, 2.0, 16));
        registry.register_with_unit(
            "journal_commit",
            "How long a commit to the journal took",
            Unit::Seconds,
            commits.clone(),
        );
        let journal_errors = register!(
            "journal_errors",
            "Writes to the journal that failed",
            Counter::default()
        );
        let used_up = register!(
            "budgets_used_up",
            "Times that a limit for all policies began to hold one back, by the configuration's key and the policy",
            Family::default()
        );
        let time_to_heal = Histogram::new(exponential_buckets(0.1, 2.0, 14));
        registry.register_with_unit(
            "time_to_heal",
            "From the commit of the delivery to the verification, for healed incidents",
            Unit::Seconds,
            time_to_heal.clone(),
        );
        let connections = register!(
            "connections_open",
            "Connections to the HTTP API that are open",
            Gauge::default()
        );
        let connections_refused = register!(
            "connections_refused",
            "Connections to the HTTP API that could not be taken",
            Counter::default()
        );
        registry.register(
            "build",
            "What runs here",
            Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
        );
        let metrics = Self {
            registry,
            alerts,
            rejected,
            truncated,
            annotations_cut,
            lapsed,
            forgotten,
            journal_bytes,
            opened,
            ended,
            untold,
            unreadable,
            notices,
            plans_waiting,
            plan_waiting_since,
            open,
            backlog,
            waiting,
            repeats,
            held,
            runs_started,
            runs,
            log_lines,
            observations,
            effects_begun,
            effects,
            verifications,
            planned,
            denied,
            resumed,
            missed,
            ends_missed,
            reconcile_errors,
            storms,
            reloads,
            commits,
            journal_errors,
            used_up,
            budgets: Budgets::default(),
            time_to_heal,
            connections,
            connections_refused,
            lines: Lines::default(),
            policies: Names::default(),
            plugins: Names::default(),
            keys: Mutex::default(),
        };
        metrics.begin();
        metrics
    }

    /// Every series that there can be, at zero: a rule on an increase does not see the first one of a series that
    /// begins with it.
    fn begin(&self) {
        let text = |text: &&str| (*text).to_owned();
        for (source, reason) in SOURCES
            .iter()
            .flat_map(|source| REASONS.map(|reason| (source, reason)))
            .chain(STRAYS.map(|reason| (&"none", reason)))
        {
            begin(
                &self.rejected,
                &RejectLabels {
                    source: text(source),
                    reason: reason.to_owned(),
                },
            );
        }
        for source in SOURCES {
            for status in ["firing", "resolved"] {
                begin(
                    &self.alerts,
                    &AlertLabels {
                        source: source.to_owned(),
                        status: status.to_owned(),
                    },
                );
            }
        }
        let docker = DockerAction::ALL.into_iter();
        let effects = docker.clone().filter(|action| action.is_effect());
        let effects = effects.map(DockerAction::call_name);
        let effects = effects.chain(["ansible.run", "http.send", "mail.send"]);
        let looks = docker.map(DockerAction::call_name);
        let looks = looks.filter(|call| !effects.clone().any(|effect| effect == *call));
        for call in effects.clone() {
            let call = CallLabels {
                call: call.to_owned(),
            };
            begin(&self.effects_begun, &call);
            begin(&self.planned, &call);
            begin(&self.denied, &call);
        }
        for result in ["ok", "error"] {
            let labels = |call: &str| EffectLabels {
                call: call.to_owned(),
                result: result.to_owned(),
            };
            for call in effects.clone() {
                begin(&self.effects, &labels(call));
            }
            for call in looks.clone() {
                begin(&self.observations, &labels(call));
            }
        }
        for call in looks {
            begin(
                &self.denied,
                &CallLabels {
                    call: call.to_owned(),
                },
            );
        }
        for result in ["passed", "failed"] {
            begin(
                &self.verifications,
                &ResultLabels {
                    result: result.to_owned(),
                },
            );
        }
        for level in ["debug", "info", "warn", "error"] {
            begin(
                &self.log_lines,
                &LogLabels {
                    level: level.to_owned(),
                },
            );
        }
        for (what, result) in RELOADS {
            begin(
                &self.reloads,
                &ReloadLabels {
                    what: what.to_owned(),
                    result: result.to_owned(),
                },
            );
        }
    }

    /// These policies and plugins serve: their series begin, and those of others go some time
    /// from now.
    pub(crate) fn serve<'a>(
        &self,
        policies: impl Iterator<Item = &'a PolicyName>,
        plugins: impl Iterator<Item = &'a PluginName>,
    ) {
        let now = Instant::now();
        let policies: BTreeSet<String> = policies.map(ToString::to_string).collect();
        let plugins: BTreeSet<String> = plugins.map(ToString::to_string).collect();
        self.policies.serve(&policies, now);
        self.plugins.serve(&plugins, now);
        for policy in policies {
            self.begin_policy(policy);
        }
        for plugin in plugins {
            self.begin_plugin(plugin);
        }
        self.tidy(now);
    }

    /// Begins the series of a policy, whether it serves or has an incident left.
    pub(crate) fn policy(&self, policy: &PolicyName) {
        let policy = policy.to_string();
        self.policies.begin(&policy, Instant::now());
        self.begin_policy(policy);
    }

    fn begin_policy(&self, policy: String) {
        for end in ENDS {
            begin(&self.ended, &of_end(&policy, end));
        }
        for guard in GUARDS {
            begin(&self.held, &of_guard(&policy, guard));
        }
        let labels = PolicyLabels { policy };
        begin(&self.opened, &labels);
        begin(&self.repeats, &labels);
        begin(&self.storms, &labels);
    }

    fn begin_plugin(&self, plugin: String) {
        for result in RESULTS {
            begin(&self.runs, &of_result(&plugin, result));
        }
        begin(&self.runs_started, &PluginLabels { plugin });
    }

    /// Drops the series of what has gone.
    fn tidy(&self, now: Instant) {
        self.policies.tidy(now, |name| self.drop_policy(name));
        self.plugins.tidy(now, |name| self.drop_plugin(name));
    }

    fn drop_policy(&self, name: &str) -> bool {
        let policy = name.to_owned();
        let labels = PolicyLabels { policy };
        let mut any = self.opened.remove(&labels);
        any |= self.repeats.remove(&labels);
        any |= self.storms.remove(&labels);
        for end in ENDS {
            any |= self.ended.remove(&of_end(name, end));
        }
        for guard in GUARDS {
            any |= self.held.remove(&of_guard(name, guard));
        }
        for why in [Silence::Unnamed, Silence::Shadow, Silence::Failed] {
            any |= self.untold.remove(&SilenceLabels {
                policy: name.to_owned(),
                why: why.as_str().to_owned(),
            });
        }
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &*keys {
            any |= self.used_up.remove(&BudgetLabels {
                key: key.clone(),
                policy: name.to_owned(),
            });
        }
        any
    }

    /// Counts that a limit is used up for a policy.
    pub(super) fn count_used_up(&self, key: &str, policy: &PolicyName) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if !keys.contains(key) {
            keys.insert(key.to_owned());
        }
        self.used_up
            .get_or_create(&BudgetLabels {
                key: key.to_owned(),
                policy: policy.to_string(),
            })
            .inc();
    }

    fn drop_plugin(&self, name: &str) -> bool {
        let plugin = name.to_owned();
        let mut any = self.runs_started.remove(&PluginLabels { plugin });
        for result in RESULTS {
            any |= self.runs.remove(&of_result(name, result));
        }
        any
    }

    /// The metrics in this form.
    pub(crate) fn write(&self, form: Form) -> String {
        self.tidy(Instant::now());
        let open = self.open_metrics();
        match form {
            Form::OpenMetrics => open,
            Form::Text => as_text(&open),
        }
    }

    fn open_metrics(&self) -> String {
        let mut out = String::new();
        if let Err(error) = text::encode(&mut out, &self.registry) {
            out.clear();
            // Writing to a String cannot fail.
            let _ok = writeln!(out, "# the metrics cannot be written: {error}");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_series_of_what_has_gone_go_and_the_others_count_on() {
        let metrics = Metrics::new();
        let name = |text: &str| text.parse::<PolicyName>().unwrap();
        let (old, kept) = (name("old"), name("kept"));
        let plugins: [PluginName; 2] = ["old-plugin", "kept-plugin"].map(|it| it.parse().unwrap());
        metrics.serve([&old, &kept].into_iter(), plugins.iter());
        for policy in [&old, &kept] {
            let policy = policy.to_string();
            metrics.opened.get_or_create(&PolicyLabels { policy }).inc();
            metrics.count_used_up("limits.incidents", &name("old"));
        }
        metrics.serve([&kept].into_iter(), plugins[1..].iter());
        let text = metrics.write(Form::Text);
        assert!(text.contains("policy=\"old\""), "not at once");
        metrics.tidy(Instant::now() + Duration::from_hours(2));
        let text = metrics.write(Form::Text);
        assert!(
            !text.contains("\"old\"") && !text.contains("\"old-plugin\""),
            "{text}"
        );
        let counted = "sentinel_incidents_opened_total{policy=\"kept\"} 1";
        assert!(text.contains(counted), "{text}");
        assert!(text.contains("plugin=\"kept-plugin\""), "{text}");
    }
}
