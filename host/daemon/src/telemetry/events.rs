//! What is both logged and counted: one function for each, so that the log and the
//! metrics cannot tell different stories.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use sentinel_core::alert::{Alert, AlertStatus};
use sentinel_core::capability::{CapabilityError, Request};
use sentinel_core::engine::Note;
use sentinel_core::event::{CallResult, Guard, LogLevel, RunMode, RunResult, Silence};
use sentinel_core::guard::limits::NoRoom;
use sentinel_core::id::{Digest, IncidentId, PluginName, PolicyName, RunId};
use sentinel_core::incident::{End, Incident, Phase, Rung};

use super::budgets::Spent;
use super::metrics::{
    AlertLabels, CallLabels, EffectLabels, EndLabels, GuardLabels, LogLabels, Metrics,
    NoticeLabels, PluginLabels, PolicyLabels, RejectLabels, ReloadLabels, ResultLabels, RunLabels,
    SilenceLabels,
};

fn result_word<T, E>(result: &Result<T, E>) -> &'static str {
    if result.is_ok() { "ok" } else { "error" }
}

impl Metrics {
    /// A delivery was committed.
    pub(crate) fn delivery_accepted(
        &self,
        source: &str,
        statuses: impl Iterator<Item = AlertStatus>,
    ) {
        let (firing, resolved): (Vec<_>, Vec<_>) =
            statuses.partition(|status| *status == AlertStatus::Firing);
        for (status, count) in [
            (AlertStatus::Firing, firing.len()),
            (AlertStatus::Resolved, resolved.len()),
        ] {
            if count > 0 {
                self.alerts
                    .get_or_create(&AlertLabels {
                        source: source.to_owned(),
                        status: status.to_string(),
                    })
                    .inc_by(count as u64);
            }
        }
        tracing::debug!(
            source,
            alerts = firing.len() + resolved.len(),
            "delivery accepted"
        );
    }

    /// Alertmanager left alerts out of a delivery; they are never sent.
    pub(crate) fn delivery_truncated(&self, receiver: &str, group: &str, count: u32) {
        // At its end it stays there: a counter that falls says that the daemon was restarted.
        let room = u64::MAX - self.truncated.get();
        self.truncated.inc_by(u64::from(count).min(room));
        tracing::warn!(
            receiver,
            group,
            count,
            "alertmanager left alerts out of a delivery: raise `max_alerts` of this receiver"
        );
    }

    /// Annotations of alerts were longer than may be.
    pub(crate) fn annotations_cut(&self, source: &str, alerts: usize) {
        self.annotations_cut.inc_by(alerts as u64);
        tracing::info!(
            source,
            alerts,
            "annotations are cut: they are longer than 32 KiB, or than 64 KiB together"
        );
    }

    /// Alerts had nobody any more who says that they fire.
    pub(crate) fn lapsed(&self, alerts: usize) {
        self.lapsed.inc_by(alerts as u64);
        tracing::debug!(
            alerts,
            "alerts have resolved: nobody says any more that they fire"
        );
    }

    /// Alerts that led to nothing are kept no longer.
    pub(crate) fn forgotten(&self, alerts: usize) {
        self.forgotten.inc_by(alerts as u64);
        tracing::debug!(
            alerts,
            "alerts that led to no incident are forgotten (retention.alerts)"
        );
    }

    /// How large the journal's files are.
    pub(crate) fn journal_bytes(&self, bytes: u64) {
        self.journal_bytes
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Alertmanager holds an alert that it has not told of, and may mute it.
    pub(crate) fn cannot_tell_muted(alert: &str) {
        tracing::warn!(
            alert,
            "alertmanager holds alerts that it has not told of, and cannot say whether it mutes them (it can since 0.28): nothing is done about them (alertmanager.unmuted)"
        );
    }

    /// A delivery was not accepted, or not all of it.
    pub(crate) fn delivery_rejected(&self, source: &str, reason: &str, detail: &str, urgent: bool) {
        self.rejected
            .get_or_create(&RejectLabels {
                source: source.to_owned(),
                reason: reason.to_owned(),
            })
            .inc();
        if urgent {
            tracing::error!(
                source,
                reason,
                detail,
                "delivery rejected, and an urgent alert of it is lost: look at it in the journal's table dead_letters, and mend its sender"
            );
        } else {
            tracing::warn!(source, reason, detail, "delivery rejected");
        }
    }

    /// How many plans wait for approval, and since when the one that waits longest does.
    pub(crate) fn waiting(&self, plans: usize, since: Option<Timestamp>) {
        self.plans_waiting.set(plans as i64);
        self.plan_waiting_since
            .set(since.map_or(0, Timestamp::as_second));
    }

    /// A request did not get as far as a route, or did not bring what the route takes. It is counted where it may
    /// have been a delivery.
    pub(crate) fn request_refused(
        &self,
        source: Option<&str>,
        reason: &str,
        method: &str,
        path: &str,
        why: &str,
    ) {
        if let Some(source) = source {
            self.rejected
                .get_or_create(&RejectLabels {
                    source: source.to_owned(),
                    reason: reason.to_owned(),
                })
                .inc();
        }
        if let Some(more) = self.lines.refused.pass(Instant::now()) {
            let more = (more > 0).then_some(more);
            tracing::warn!(reason, method, path, why, more, "request refused");
        }
    }

    /// A connection began or ended.
    pub(crate) fn connection(&self, change: i64) {
        self.connections.inc_by(change);
    }

    /// A connection could not be taken.
    pub(crate) fn connection_refused(&self, why: &str) {
        self.connections_refused.inc();
        if let Some(more) = self.lines.connections.pass(Instant::now()) {
            let more = (more > 0).then_some(more);
            tracing::warn!(why, more, "a connection could not be taken");
        }
    }

    /// How many accepted alerts wait for the engine.
    pub(crate) fn backlog(&self, change: i64) {
        self.backlog.inc_by(change);
    }

    /// How many accepted alerts wait for the engine, without those that wait because a
    /// policy may have no more incidents open: these are nobody else's affair.
    pub(crate) fn backlog_len(&self) -> u64 {
        u64::try_from(self.backlog.get() - self.waiting.get()).unwrap_or_default()
    }

    /// How many accepted alerts wait because a policy may have no more incidents open.
    pub(crate) fn waiting_len(&self) -> u64 {
        u64::try_from(self.waiting.get()).unwrap_or_default()
    }

    /// A commit to the journal.
    pub(crate) fn committed(&self, took: Duration, operations: usize) {
        self.commits.observe(took.as_secs_f64());
        tracing::trace!(?took, operations, "journal committed");
    }

    /// The journal refused a write.
    pub(crate) fn journal_failed(&self, what: &str, error: &dyn std::fmt::Display) {
        self.journal_errors.inc();
        tracing::error!(what, %error, "the journal cannot be written: free the disk or mend its permissions");
    }

    /// An incident opened.
    fn incident_opened(&self, incident: &Incident) {
        self.open.inc();
        self.policy(&incident.plan.policy);
        self.opened
            .get_or_create(&PolicyLabels {
                policy: incident.plan.policy.to_string(),
            })
            .inc();
        tracing::info!(
            incident = %incident.id,
            policy = %incident.plan.policy,
            target = %incident.target,
            alert = incident.alert.name(),
            starts_at = %incident.alert.starts_at,
            "incident opened"
        );
    }

    /// An incident of an earlier daemon goes on.
    fn incident_recovered(&self, incident: &Incident) {
        self.open.inc();
        self.policy(&incident.plan.policy);
        tracing::info!(
            incident = %incident.id,
            policy = %incident.plan.policy,
            target = %incident.target,
            state = incident.phase.as_str(),
            "incident goes on after a restart"
        );
    }

    /// A budget that all policies draw from has no room for a policy. Told once for as long
    /// as that goes on.
    pub(crate) fn budget_used_up(&self, policy: &PolicyName, full: &NoRoom, now: Timestamp) {
        let spent = Spent {
            since: now,
            until: Some(full.until),
            reason: full.reason.clone(),
        };
        self.spent(&full.key, policy, spent, now);
    }

    /// Alerts wait because these policies may have no more incidents open; how many of each.
    pub(crate) fn wait_for_room(&self, waiting: &[(&PolicyName, usize)], now: Timestamp) {
        const KEY: &str = "limits.incidents";
        for (policy, count) in waiting {
            let reason = format!(
                "{count} alerts wait because no more incidents of policy {policy} may be open"
            );
            let spent = Spent {
                since: now,
                until: None,
                reason,
            };
            self.spent(KEY, policy, spent, now);
        }
        let over = |policy: &PolicyName| waiting.iter().all(|(waits, _)| *waits != policy);
        self.budgets.end(KEY, over, now);
        let count: usize = waiting.iter().map(|(_, count)| count).sum();
        self.waiting.set(count as i64);
    }

    fn spent(&self, key: &str, policy: &PolicyName, spent: Spent, now: Timestamp) {
        let reason = spent.reason.clone();
        if !self.budgets.spent(key, policy, spent, now) {
            return;
        }
        self.count_used_up(key, policy);
        tracing::warn!(
            key,
            %policy,
            reason,
            "a limit holds a policy back: if it is too low for what happens, raise it in the configuration"
        );
    }

    /// An incident ended.
    fn incident_ended(&self, incident: &Incident, end: End, reason: &str) {
        self.open.dec();
        self.ended
            .get_or_create(&EndLabels {
                policy: incident.plan.policy.to_string(),
                end: end.as_str().to_owned(),
            })
            .inc();
        let (id, policy, target) = (incident.id, &incident.plan.policy, &incident.target);
        match end {
            End::Escalated => {
                tracing::error!(incident = %id, %policy, %target, reason, "incident escalated: a person must look");
            }
            End::Healed => {
                if let sentinel_core::incident::Phase::Ended { at, .. } = incident.phase {
                    let took = at.duration_since(incident.accepted_at);
                    self.time_to_heal.observe(took.as_secs_f64());
                }
                tracing::info!(incident = %id, %policy, %target, reason, "incident healed");
            }
            End::Cleared | End::Suppressed | End::Cancelled => {
                tracing::info!(incident = %id, %policy, %target, end = end.as_str(), reason, "incident ended");
            }
        }
    }

    /// A person had to hear of an incident, and nobody was told.
    fn nobody_told(&self, incident: &Incident, why: Silence, reason: &str) {
        self.untold
            .get_or_create(&SilenceLabels {
                policy: incident.plan.policy.to_string(),
                why: why.as_str().to_owned(),
            })
            .inc();
        let (id, policy, target) = (incident.id, &incident.plan.policy, &incident.target);
        let alert = incident.alert.name();
        if why == Silence::Shadow {
            tracing::info!(incident = %id, %policy, %target, alert, reason, "nobody is told of an incident");
        } else {
            tracing::error!(incident = %id, %policy, %target, alert, reason, "nobody was told of an incident that a person has to look at");
        }
    }

    /// A firing notification that opens nothing: its episode has had its incident.
    fn repeat_ignored(&self, policy: &PolicyName, alert: &Alert) {
        self.repeats
            .get_or_create(&PolicyLabels {
                policy: policy.to_string(),
            })
            .inc();
        tracing::debug!(%policy, alert = alert.name(), starts_at = %alert.starts_at, "a repeated notification opens nothing new");
    }

    /// A guard holds an incident back.
    fn incident_held(
        &self,
        incident: &Incident,
        guard: Guard,
        until: Option<Timestamp>,
        reason: &str,
    ) {
        self.held
            .get_or_create(&GuardLabels {
                policy: incident.plan.policy.to_string(),
                guard: guard.as_str().to_owned(),
            })
            .inc();
        let until = until.map(tracing::field::display);
        tracing::info!(incident = %incident.id, guard = guard.as_str(), until, reason, "incident held");
    }

    /// A run began.
    fn run_started(
        &self,
        run: RunId,
        plugin: &PluginName,
        digest: Digest,
        Rung { step, attempt }: Rung,
        mode: RunMode,
    ) {
        self.runs_started
            .get_or_create(&PluginLabels {
                plugin: plugin.to_string(),
            })
            .inc();
        tracing::info!(incident = %run.incident, %run, %plugin, digest = digest.short(), step, attempt, mode = mode.as_str(), "run started");
    }

    /// A run ended.
    pub(crate) fn run_ended(
        &self,
        run: RunId,
        plugin: &PluginName,
        mode: RunMode,
        result: &RunResult,
    ) {
        let word = match result {
            RunResult::Changed { .. } => "changed",
            RunResult::Unchanged { .. } => "unchanged",
            RunResult::Failed { class, .. } => class.as_str(),
            RunResult::Stopped { .. } => "stopped",
        };
        self.runs
            .get_or_create(&RunLabels {
                plugin: plugin.to_string(),
                result: word.to_owned(),
            })
            .inc();
        match result {
            RunResult::Changed { message } | RunResult::Unchanged { message }
                if mode == RunMode::Dry =>
            {
                tracing::info!(incident = %run.incident, %run, %plugin, would_say = message, "dry run ended");
            }
            RunResult::Changed { message } | RunResult::Unchanged { message } => {
                tracing::info!(incident = %run.incident, %run, %plugin, result = word, said = message, "run ended");
            }
            RunResult::Failed { message, .. } => {
                tracing::warn!(incident = %run.incident, %run, %plugin, result = word, said = message, "run failed");
            }
            RunResult::Stopped { cause, message } => {
                tracing::info!(incident = %run.incident, %run, %plugin, cause = cause.as_str(), said = message, "run stopped");
            }
        }
    }

    /// What came of a turn of the engine.
    pub(crate) fn note(&self, note: &Note) {
        match note {
            Note::Opened(incident) => self.incident_opened(incident),
            Note::Recovered(incident) => self.incident_recovered(incident),
            Note::Unreadable(error) => {
                self.unreadable.inc();
                tracing::error!(%error, "an incident in the journal cannot be read: it is left as it is, and nobody is told of it");
            }
            Note::Waits {
                incident,
                plan,
                until,
            } => {
                let (id, policy, target) = (incident.id, &incident.plan.policy, &incident.target);
                let (alert, approve) = (incident.alert.name(), incident.approve_command(*plan));
                tracing::info!(incident = %id, %policy, %target, alert, %until, approve, "a plan waits for approval");
            }
            Note::PolicyChanged { incident, what } => {
                tracing::info!(incident = %incident.id, policy = %incident.plan.policy, target = %incident.target, what, "the policy of an open incident has changed");
            }
            Note::Tells {
                incident,
                notice,
                reason,
            } => {
                self.notices
                    .get_or_create(&NoticeLabels {
                        notice: notice.as_str().to_owned(),
                    })
                    .inc();
                tracing::info!(%incident, notice = notice.as_str(), reason, "a person is told");
            }
            Note::Untold {
                incident,
                why,
                reason,
            } => self.nobody_told(incident, *why, reason),
            Note::Held {
                incident,
                guard,
                until,
                reason,
            } => self.incident_held(incident, *guard, *until, reason),
            Note::Ended(incident) => {
                if let Phase::Ended { end, reason, .. } = &incident.phase {
                    self.incident_ended(incident, *end, reason);
                }
            }
            Note::Seen { incident, alert } => {
                tracing::info!(%incident, alert = alert.name(), status = %alert.status, "alert seen");
            }
            Note::Repeat { policy, alert } => self.repeat_ignored(policy, alert),
            Note::NothingToDo { policy, alert } => {
                tracing::info!(%policy, alert = alert.name(), starts_at = %alert.starts_at, "alert resolved, there is nothing to do");
            }
            Note::RunStarted {
                run,
                plugin,
                digest,
                rung,
                mode,
            } => self.run_started(*run, plugin, *digest, *rung, *mode),
            Note::RunNotServed {
                run,
                plugin,
                result,
            } => self.run_ended(*run, plugin, RunMode::Live, result),
            Note::RunResumed { run } => {
                self.resumed.inc();
                tracing::info!(incident = %run.incident, %run, "run goes on from its record");
            }
            Note::Verified {
                incident,
                passed,
                detail,
            } => self.verified(*incident, *passed, detail),
            Note::StormBegan { policy, reason } => {
                self.storms
                    .get_or_create(&PolicyLabels {
                        policy: policy.to_string(),
                    })
                    .inc();
                tracing::error!(%policy, reason, "storm: the policy does nothing until it is calm");
            }
            // Told of with its moment, by `budget_used_up`.
            Note::BudgetUsedUp { .. } => {}
            Note::Unidentified { target, error } => {
                tracing::warn!(%target, error, "which container this is cannot be told; nothing but one of this very name is acted on");
            }
            Note::StormEnded { policy } => {
                tracing::info!(%policy, "the storm is over");
            }
            Note::HistoryFailed(what, error) => {
                self.journal_failed(&format!("looking up {what}"), error);
            }
        }
    }

    /// Alertmanager was asked, and knew of something that no notification had told.
    pub(crate) fn reconciled(&self, missed: usize, ended: usize) {
        self.missed.inc_by(missed as u64);
        self.ends_missed.inc_by(ended as u64);
        tracing::warn!(
            missed,
            ended,
            "alertmanager knows of alerts that no notification told of, or that have ended since"
        );
    }

    /// Alertmanager did not say what fires.
    pub(crate) fn reconcile_failed(&self, error: &str) {
        self.reconcile_errors.inc();
        tracing::warn!(error, "alertmanager does not say what fires");
    }

    /// A dry run asked for an effect.
    pub(crate) fn effect_planned(&self, run: RunId, request: &Request) {
        self.planned
            .get_or_create(&CallLabels {
                call: request.name().to_owned(),
            })
            .inc();
        tracing::info!(incident = %run.incident, %run, call = request.summary(), "effect planned");
    }

    /// An observation was made.
    pub(crate) fn observed(&self, run: RunId, request: &Request, result: &CallResult) {
        self.observations
            .get_or_create(&EffectLabels {
                call: request.name().to_owned(),
                result: result_word(result).to_owned(),
            })
            .inc();
        tracing::debug!(incident = %run.incident, %run, call = request.summary(), result = result_word(result), "observed");
    }

    /// An effect is about to be carried out.
    pub(crate) fn effect_began(&self, run: RunId, request: &Request) {
        self.effects_begun
            .get_or_create(&CallLabels {
                call: request.name().to_owned(),
            })
            .inc();
        tracing::info!(incident = %run.incident, %run, call = request.summary(), "effect began");
    }

    /// An effect was carried out, or was not.
    pub(crate) fn effect_ended(&self, run: RunId, name: &str, result: &CallResult) {
        self.effects
            .get_or_create(&EffectLabels {
                call: name.to_owned(),
                result: result_word(result).to_owned(),
            })
            .inc();
        match result {
            Ok(_) => tracing::info!(incident = %run.incident, %run, call = name, "effect ended"),
            Err(error) => {
                tracing::warn!(incident = %run.incident, %run, call = name, %error, "effect failed");
            }
        }
    }

    /// A call went no further than the gate: it is not granted, or what it names cannot
    /// be found.
    pub(crate) fn call_stopped(&self, run: RunId, request: &Request, error: &CapabilityError) {
        let (incident, call) = (run.incident, request.summary());
        if let CapabilityError::Denied(_) = error {
            self.denied
                .get_or_create(&CallLabels {
                    call: request.name().to_owned(),
                })
                .inc();
            tracing::warn!(%incident, %run, call, %error, "call denied");
        } else {
            tracing::warn!(%incident, %run, call, %error, "call not carried out");
        }
    }

    /// A plugin wrote a line.
    pub(crate) fn plugin_logged(&self, run: RunId, level: LogLevel, message: &str) {
        self.log_lines
            .get_or_create(&LogLabels {
                level: level.as_str().to_owned(),
            })
            .inc();
        match level {
            LogLevel::Debug => {
                tracing::debug!(incident = %run.incident, %run, said = message, "plugin");
            }
            LogLevel::Info => {
                tracing::info!(incident = %run.incident, %run, said = message, "plugin");
            }
            LogLevel::Warn | LogLevel::Error => {
                tracing::warn!(incident = %run.incident, %run, said = message, "plugin");
            }
        }
    }

    /// A verification came to an end.
    fn verified(&self, incident: IncidentId, passed: bool, detail: &str) {
        self.verifications
            .get_or_create(&ResultLabels {
                result: if passed { "passed" } else { "failed" }.to_owned(),
            })
            .inc();
        if passed {
            tracing::info!(%incident, detail, "verification passed");
        } else {
            tracing::warn!(%incident, detail, "verification failed");
        }
    }

    /// Other plugins or policies serve, or the configuration is another one.
    pub(crate) fn reloaded(&self, what: &str, detail: &str) {
        self.reload(what, "ok");
        tracing::info!(what, detail, "now serving");
    }

    /// A change of plugins, policies or the configuration was refused; what served before serves on.
    pub(crate) fn reload_refused(&self, what: &str, file: &str, error: &str) {
        self.reload(what, "refused");
        tracing::error!(
            what,
            file,
            error,
            "change refused; what served before goes on serving"
        );
    }

    /// Nothing is wrong any more with what was refused before.
    pub(crate) fn reload_mended(&self, what: &str, file: &str) {
        self.reload(what, "mended");
        tracing::info!(what, file, "mended; nothing is wrong with it any more");
    }

    /// A new version of a plugin broke down too often, and the one before it serves again.
    pub(crate) fn plugin_rolled_back(&self, plugin: &PluginName, reason: &str, now: &str) {
        self.reload("plugin", "rolled-back");
        tracing::error!(%plugin, reason, now, "a new version of a plugin was rolled back");
    }

    fn reload(&self, what: &str, result: &str) {
        self.reloads
            .get_or_create(&ReloadLabels {
                what: what.to_owned(),
                result: result.to_owned(),
            })
            .inc();
    }
}
