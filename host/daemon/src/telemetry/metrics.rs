//! The metrics that `/metrics` serves. Each is counted in [`super::events`] alone, by
//! the same call that logs what it counts.

use std::fmt::Write as _;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

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

/// Every metric of the daemon.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(super) alerts: Family<AlertLabels, Counter>,
    pub(super) rejected: Family<RejectLabels, Counter>,
    pub(super) truncated: Counter,
    pub(super) opened: Family<PolicyLabels, Counter>,
    pub(super) ended: Family<EndLabels, Counter>,
    pub(super) untold: Family<SilenceLabels, Counter>,
    pub(super) unreadable: Counter,
    pub(super) notices: Family<NoticeLabels, Counter>,
    pub(super) plans_waiting: Gauge,
    pub(super) plan_waiting_since: Gauge,
    pub(super) open: Gauge,
    pub(super) backlog: Gauge,
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
    pub(super) time_to_heal: Histogram,
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
        let time_to_heal = Histogram::new(exponential_buckets(0.1, 2.0, 14));
        registry.register_with_unit(
            "time_to_heal",
            "From the commit of the delivery to the verification, for healed incidents",
            Unit::Seconds,
            time_to_heal.clone(),
        );
        registry.register(
            "build",
            "What runs here",
            Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
        );
        Self {
            registry,
            alerts,
            rejected,
            truncated,
            opened,
            ended,
            untold,
            unreadable,
            notices,
            plans_waiting,
            plan_waiting_since,
            open,
            backlog,
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
            time_to_heal,
        }
    }

    /// The metrics in the OpenMetrics text format.
    pub(crate) fn render(&self) -> String {
        let mut out = String::new();
        if let Err(error) = text::encode(&mut out, &self.registry) {
            out.clear();
            // Writing to a String cannot fail.
            let _ok = writeln!(out, "# the metrics cannot be written: {error}");
        }
        out
    }
}
