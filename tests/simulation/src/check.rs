//! What must hold, checked from what is committed and from nothing else.
//!
//! The checker keeps its own account of every incident, run, effect, pause and
//! notification, and reasons about limits in its own way: what the engine believes is
//! looked at only where the two are compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use sentinel_core::alert::{Alert, AlertStatus, Episode};
use sentinel_core::control::{ControlBody, ControlEvent, Scope};
use sentinel_core::engine::{Deferred, Engine, Member, Settings};
use sentinel_core::event::{Event, EventBody, Guard, PlannedEffect, RunMode, RunResult};
use sentinel_core::guard::settings::{Fleet, Maintenance};
use sentinel_core::id::{Digest, IncidentId, PluginName, PolicyName, Target};
use sentinel_core::incident::{
    End, Hold, Incident, LATE, MAX_INTERRUPTIONS, Phase, Plan, VerifyCheck, later,
};
use sentinel_core::policy::{Mode, PolicySet};
use sentinel_core::record::{Accepted, Append, Priority, earlier};
use sentinel_core::recording::plan_digest;

use crate::docker::{CallKey, named};

/// After how long of waiting it has to be on record that a policy names nobody.
const UNNAMED_WAITS: Duration = Duration::from_mins(10);

/// Something that must hold, and did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What must hold.
    pub invariant: &'static str,
    /// What was seen instead.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "violated: {}: {}", self.invariant, self.detail)
    }
}

/// Whether what was looked at holds.
pub type Checked = Result<(), Violation>;

/// A violation of `invariant`.
pub fn violation(invariant: &'static str, detail: impl Into<String>) -> Violation {
    Violation {
        invariant,
        detail: detail.into(),
    }
}

fn ensure(holds: bool, invariant: &'static str, detail: impl FnOnce() -> String) -> Checked {
    if holds {
        Ok(())
    } else {
        Err(violation(invariant, detail()))
    }
}

/// Names of what must hold.
#[expect(missing_docs, reason = "the names say it")]
pub mod invariant {
    pub const LOST: &str = "no accepted alert is lost";
    pub const REPEAT: &str = "a repetition opens nothing";
    pub const ONE_OPEN: &str = "a policy has one open incident on a target";
    pub const ONCE: &str = "an effect is carried out once";
    pub const BEGIN: &str = "an effect that is carried out has a begin on record";
    pub const RECORD: &str = "the record of a run makes sense";
    pub const PAUSE: &str = "nothing begins in a paused scope";
    pub const MAINTENANCE: &str = "no run starts in a maintenance window";
    pub const BREAKER: &str = "no run starts while the breaker is open";
    pub const FLAPPING: &str = "no run starts on a target that flaps";
    pub const COOLDOWN: &str = "a target is left alone for the cooldown";
    pub const LOCK: &str = "one incident acts on a target at a time";
    pub const CONCURRENCY: &str = "no more runs at once than may be";
    pub const RATE: &str = "no more runs in a window than may be";
    pub const EFFECTS: &str = "no more effects in a window than may be";
    pub const RADIUS: &str = "no more of a fleet is disturbed than may be";
    pub const STORM: &str = "nothing starts in a storm, and a storm lasts until the calm";
    pub const APPROVAL: &str = "what needs approval has it";
    pub const SHADOW: &str = "a shadow never acts";
    pub const RESOLVED: &str = "a resolved alert starts no run";
    pub const WORDS: &str =
        "`healed` is what was acted on or verified, `cleared` what was not acted on";
    pub const OVER: &str = "nothing is done for an incident that is over";
    pub const INTERRUPTIONS: &str = "a run that takes the daemon down does so a few times at most";
    pub const REPLAY: &str = "the state is the fold of the events";
    pub const TIMER: &str = "no timer is lost";
    pub const HELD: &str = "nothing is held for nothing";
    pub const END: &str = "every incident comes to an end";
    pub const IDENTITY: &str =
        "what is counted and locked is what is acted on, whatever it was called";
    pub const SHARE: &str = "no policy is held back by what others use of what is for all";
    pub const PANIC: &str = "the engine does not panic";
    pub const POLICY: &str = "what has not begun to act is under the policy as it is";
    pub const TOLD: &str =
        "whoever cannot be healed, a person hears of, or the record says that nobody could be told";
    pub const EXECUTOR: &str = "the engine asks for what can be done";
}

/// What a turn was made with.
#[derive(Debug, Clone)]
pub struct Given {
    /// When, by the daemon's clock.
    pub at: Timestamp,
    /// The policies that served.
    pub policies: Arc<PolicySet>,
    /// The alerts that went into it.
    pub accepted: Vec<Accepted>,
    /// The last row of the inbox by then.
    pub last_seq: u64,
    /// The looks at fleets of the last seconds.
    pub looks: Vec<(Timestamp, Fleet, Vec<Member>)>,
    /// The targets of which Docker did not say what they are.
    pub unnamed: BTreeSet<Target>,
    /// The rows of the inbox that wait until it is known what their targets are.
    pub waiting: BTreeSet<u64>,
}

/// The account of one incident.
#[derive(Debug)]
struct Track {
    folded: Incident,
    alert: Arc<Alert>,
    // The alerts, as far as this incident was told.
    heard: BTreeMap<(String, String), Heard>,
    episodes: BTreeSet<Episode>,
    // It may only go to a person.
    only_tell: bool,
    runs: BTreeMap<u32, Run>,
    last_run_at: Option<Timestamp>,
    plan: Option<Approvable>,
    interruptions: u32,
    // Whether an effect of one of its steps began.
    acted: bool,
    // When the record said last that nobody was told.
    untold: Option<Timestamp>,
    // Since when guards have held it back.
    held_since: Option<Timestamp>,
    // Whether its policy did not want to do anything any more.
    gone: bool,
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    starts_at: Timestamp,
    resolved_at: Option<Timestamp>,
}

#[derive(Debug)]
struct Run {
    step: u32,
    attempt: u32,
    mode: RunMode,
    plugin: PluginName,
    live: bool,
    calls: BTreeMap<u32, Call>,
    planned: Vec<PlannedEffect>,
    // It tells a person beside what its incident does.
    beside: bool,
    // It was under a policy that has changed since.
    before: bool,
}

#[derive(Debug, Default)]
struct Call {
    ended: bool,
}

/// A plan that a dry run made.
#[derive(Debug)]
struct Approvable {
    step: u32,
    attempt: u32,
    effects: Vec<PlannedEffect>,
    digest: Digest,
    until: Timestamp,
    by: BTreeSet<String>,
    used: bool,
}

#[derive(Debug)]
struct Effect {
    at: Timestamp,
    // Never before the one before it, whatever the clock said.
    in_order: Timestamp,
    // Whatever the clock said.
    really: Timestamp,
    policy: PolicyName,
    // None where it tells a person.
    target: Option<Target>,
    action: &'static str,
}

/// A notification that the engine was given.
#[derive(Debug, Clone)]
struct Notification {
    seq: u64,
    starts_at: Timestamp,
    status: AlertStatus,
    received_at: Timestamp,
}

#[derive(Debug, Clone, Default)]
struct Switches {
    pauses: BTreeMap<Scope, Option<Timestamp>>,
    storms: BTreeMap<PolicyName, Timestamp>,
}

/// The account; see the module.
#[derive(Debug)]
pub struct Checker {
    settings: Settings,
    // Whether policies and clock are never changed, and what is let through is written.
    stable: bool,
    policies: Arc<PolicySet>,
    tracks: BTreeMap<IncidentId, Track>,
    switches: Switches,
    // As they were in the append that is looked at, before and after each change of them:
    // what else is in it may have come before or after any.
    switches_then: Vec<Switches>,
    runs: Vec<(Timestamp, PolicyName)>,
    effects: Vec<Effect>,
    now: Timestamp,
    acting: BTreeMap<Target, (IncidentId, BTreeSet<IncidentId>)>,
    notifications: BTreeMap<(String, String), Vec<Notification>>,
    // When the end of each episode was told, and where that stood in the inbox.
    resolved: BTreeMap<Episode, Vec<(u64, Timestamp)>>,
}

impl Checker {
    /// An account of nothing.
    pub fn new(settings: Settings, stable: bool) -> Self {
        Self {
            settings,
            stable,
            policies: Arc::default(),
            tracks: BTreeMap::new(),
            switches: Switches::default(),
            switches_then: Vec::new(),
            runs: Vec::new(),
            effects: Vec::new(),
            now: Timestamp::UNIX_EPOCH,
            acting: BTreeMap::new(),
            notifications: BTreeMap::new(),
            resolved: BTreeMap::new(),
        }
    }

    /// How many incidents there were, and how many effects.
    pub fn counts(&self) -> (usize, usize) {
        (self.tracks.len(), self.effects.len())
    }

    /// The daemon's clock was set by so many seconds. What has lasted for a while has lasted
    /// no less when it was set back.
    pub fn clock_set(&mut self, by: i64) {
        let back = Duration::from_secs(by.min(0).unsigned_abs());
        for began in self.switches.storms.values_mut() {
            *began = earlier(*began, back);
        }
    }

    /// Alerts were committed.
    pub fn accepted(&mut self, accepted: &[Accepted]) {
        for one in accepted {
            if one.alert.status == AlertStatus::Resolved {
                let ends = self.resolved.entry(one.alert.episode()).or_default();
                ends.push((one.seq, one.received_at));
            }
        }
    }

    /// A run's recorder committed an event; `now` is the time, whatever the daemon's clock
    /// says.
    pub fn noted(&mut self, event: &Event, now: Timestamp) -> Checked {
        self.now = now;
        self.switches_then = vec![self.switches.clone()];
        self.event(event, None)
    }

    /// A turn was committed.
    pub fn committed(&mut self, append: &Append, deferred: &[Deferred], given: &Given) -> Checked {
        self.switches_then = vec![self.switches.clone()];
        self.policies = given.policies.clone();
        for control in &append.controls {
            self.control(control, given)?;
            self.switches_then.push(self.switches.clone());
        }
        for event in &append.events {
            self.event(event, Some(given))?;
        }
        self.somebody_hears(append)?;
        self.nothing_lost(append, deferred, given)?;
        self.room_is_shared(append, deferred, given)?;
        self.told(given);
        Ok(())
    }

    /// The engine was given these notifications, whatever it made of them.
    pub fn told(&mut self, given: &Given) {
        for one in &given.accepted {
            // Also one that waits for room: some of its policies may have had room.
            let all = self.notifications.entry(key(&one.alert)).or_default();
            if all.iter().all(|known| known.seq != one.seq) {
                all.push(Notification::from(one));
                all.sort_by_key(|notification| notification.seq);
            }
        }
    }

    fn control(&mut self, control: &ControlEvent, given: &Given) -> Checked {
        match &control.body {
            ControlBody::Paused { scope, until, .. } => {
                self.switches.pauses.insert(scope.clone(), *until);
            }
            ControlBody::Resumed { scope, .. } => {
                self.switches.pauses.remove(scope);
            }
            ControlBody::StormBegan { policy, .. } => {
                self.switches.storms.insert(policy.clone(), control.at);
            }
            ControlBody::StormEnded { policy } => {
                let began = self.switches.storms.remove(policy);
                // That of a policy that is gone, or has no bound any more, just ends.
                let bound = given.policies.get(policy);
                let bound = bound.and_then(|policy| policy.guards.blast_radius.as_ref());
                if let (Some(began), Some(bound)) = (began, bound) {
                    ensure(
                        control.at >= later(began, bound.calm),
                        invariant::STORM,
                        || format!("the storm of {policy} began at {began} and ended too soon"),
                    )?;
                }
            }
            // No plugin changes in the simulation.
            _ => {}
        }
        Ok(())
    }

    fn event(&mut self, event: &Event, given: Option<&Given>) -> Checked {
        if let EventBody::Opened { plan, target, .. } = &event.body {
            return self.opened(event, plan, target, given);
        }
        let id = event.incident;
        let Some(track) = self.tracks.get(&id) else {
            let detail = format!("incident {id} is not open");
            return Err(violation(invariant::RECORD, detail));
        };
        let over = track.folded.ended();
        match &event.body {
            EventBody::RunStarted { .. } => self.run_started(event, over, given)?,
            EventBody::RunResumed { run } => self.run_resumed(event, run.number, given)?,
            EventBody::EffectBegan {
                run, call, request, ..
            } => {
                let beside = track.runs.get(&run.number).is_some_and(|run| run.beside);
                ensure(!over || beside, invariant::OVER, || {
                    format!("run {run} begins {}", request.summary())
                })?;
                self.effect_began(event, (*run, *call))?;
            }
            _ => {}
        }
        let Some(track) = self.tracks.get_mut(&id) else {
            return Ok(());
        };
        track.take(event)?;
        let looked = matches!(track.folded.phase, Phase::Verifying { .. });
        track.folded.apply(event);
        let acted = track.acted;
        let told = |end: End| format!("incident {id} is {}, acted: {acted}", end.as_str());
        match track.folded.phase {
            Phase::Ended { end, .. } if over || end != End::Healed && end != End::Cleared => Ok(()),
            Phase::Ended { end, .. } => ensure(
                acted || looked || end == End::Cleared,
                invariant::WORDS,
                || told(end),
            )
            .and_then(|()| ensure(!acted || end == End::Healed, invariant::WORDS, || told(end))),
            _ => Ok(()),
        }
    }

    fn opened(
        &mut self,
        event: &Event,
        plan: &Arc<Plan>,
        target: &Target,
        given: Option<&Given>,
    ) -> Checked {
        let (folded, _) = Incident::open(event)
            .map_err(|error| violation(invariant::RECORD, error.to_string()))?;
        let alert = folded.alert.clone();
        let episode = alert.episode();
        let excused = given.is_some_and(|given| given.unnamed.contains(target));
        ensure(
            excused
                || !target.is_container()
                || named(target.name()).is_none_or(|name| name == target.name()),
            invariant::IDENTITY,
            || format!("incident {} opens on {target}", event.incident),
        )?;
        let earlier_ones = || {
            self.tracks.values().rev().filter(|track| {
                track.folded.plan.policy == plan.policy && track.folded.target == *target
            })
        };
        if let Some(open) = earlier_ones().find(|track| !track.folded.ended()) {
            let detail = format!(
                "incident {} opens beside {}",
                event.incident, open.folded.id
            );
            return Err(violation(invariant::ONE_OPEN, detail));
        }
        let last_seq = given.map_or(u64::MAX, |given| given.last_seq);
        let told_end = self.told_end(&episode, last_seq);
        let policy = given.and_then(|given| given.policies.get(&plan.policy));
        let names = policy.map(|policy| policy.escalate.is_some());
        ensure(
            names.is_none_or(|names| names == plan.escalate.is_some()),
            invariant::TOLD,
            || format!("incident {} forgets whom its policy tells", event.incident),
        )?;
        let told = |what: &str| {
            format!(
                "incident {} opens for {} at {} on {target}: {what}",
                event.incident,
                alert.name(),
                alert.starts_at
            )
        };
        ensure(
            !self.overtaken(&episode, last_seq, folded.accepted_at),
            invariant::REPEAT,
            || told("its notification was overtaken by the end of the alert"),
        )?;
        let known = earlier_ones().find(|track| track.episodes.contains(&episode));
        let mut only_tell = false;
        if let Some(known) = known {
            let believed = told_end.is_some_and(|end| end > known.folded.opened_at)
                || known.believed_under(plan.digest);
            if let (false, Phase::Ended { end, at, .. }) = (believed, &known.folded.phase) {
                let patience = plan.guards.cooldown + plan.verify.within;
                only_tell = *end == End::Healed && folded.opened_at > later(*at, patience);
                ensure(only_tell, invariant::REPEAT, || {
                    told(&format!(
                        "incident {} was for the same episode",
                        known.folded.id
                    ))
                })?;
            }
        }
        let heard = Heard {
            starts_at: alert.starts_at,
            resolved_at: None,
        };
        let track = Track {
            heard: [(key(&alert), heard)].into(),
            episodes: [episode].into(),
            alert,
            folded,
            only_tell,
            runs: BTreeMap::new(),
            last_run_at: None,
            plan: None,
            interruptions: 0,
            acted: false,
            untold: None,
            held_since: None,
            gone: false,
        };
        self.tracks.insert(event.incident, track);
        Ok(())
    }

    /// When the end of an episode was told last, in the rows of the inbox up to `seq`.
    fn told_end(&self, episode: &Episode, seq: u64) -> Option<Timestamp> {
        let ends = self.resolved.get(episode)?;
        let mut known = ends.iter().filter(|(at, _)| *at <= seq);
        known.next_back().map(|(_, received_at)| *received_at)
    }

    /// Whether the end of an episode or of a later one of its alert, as far as the inbox
    /// had it by row `seq`, has overtaken a notification.
    fn overtaken(&self, episode: &Episode, seq: u64, received_at: Timestamp) -> bool {
        let same_alert = self
            .resolved
            .range(episode.clone()..)
            .take_while(|(other, _)| {
                other.source == episode.source && other.fingerprint == episode.fingerprint
            });
        same_alert
            .filter_map(|(other, _)| self.told_end(other, seq))
            .any(|end| received_at < later(end, LATE))
    }

    fn run_started(&mut self, event: &Event, over: bool, given: Option<&Given>) -> Checked {
        let EventBody::RunStarted {
            run,
            step,
            attempt,
            plugin,
            mode,
            ..
        } = &event.body
        else {
            return Ok(());
        };
        let track = &self.tracks[&event.incident];
        let beside = track.tells_beside(*step);
        ensure(!over || beside, invariant::OVER, || {
            format!("run {run} starts")
        })?;
        // One that tells a person may be under way beside one that acts.
        let mut live = track.runs.values().filter(|run| run.live);
        ensure(
            track.runs.len() as u32 + 1 == run.number && !live.any(|run| run.beside == beside),
            invariant::RECORD,
            || format!("run {run} starts out of order"),
        )?;
        if beside {
            return Ok(());
        }
        if *step > 0 {
            self.may_start(event, track, given, true)?;
            let right = match track.folded.plan.mode {
                Mode::Auto => *mode == RunMode::Live,
                Mode::Approve => *mode != RunMode::Live,
                Mode::Shadow => *mode == RunMode::Dry,
                Mode::Off => false,
            };
            let name = if track.folded.plan.mode == Mode::Approve {
                invariant::APPROVAL
            } else {
                invariant::SHADOW
            };
            ensure(right, name, || format!("run {run} is {}", mode.as_str()))?;
            if *mode == RunMode::Apply {
                track.approved(*step, *attempt)?;
            }
            self.runs.push((event.at, track.folded.plan.policy.clone()));
        }
        self.room(event.incident, *step, plugin)
    }

    fn run_resumed(&mut self, event: &Event, number: u32, given: Option<&Given>) -> Checked {
        let id = event.incident;
        let track = &self.tracks[&id];
        let Some(run) = track.runs.get(&number) else {
            let detail = format!("run {id}.{number} goes on, and never began");
            return Err(violation(invariant::RECORD, detail));
        };
        if run.beside {
            return Ok(());
        }
        if run.live {
            ensure(
                track.interruptions + 1 < MAX_INTERRUPTIONS,
                invariant::INTERRUPTIONS,
                || {
                    format!(
                        "run {id}.{number} goes on after {} interruptions",
                        track.interruptions + 1
                    )
                },
            )?;
            return Ok(());
        }
        // One that was stopped between two effects: it asks the guards like a new one.
        let (step, plugin) = (run.step, run.plugin.clone());
        self.may_start(event, track, given, false)?;
        self.room(id, step, &plugin)
    }

    /// What every run that does something about the target must have.
    fn may_start(&self, event: &Event, track: &Track, given: Option<&Given>, new: bool) -> Checked {
        let (at, incident, plan) = (event.at, &track.folded, &track.folded.plan);
        let told = |why: &str| format!("a run of incident {} starts: {why}", incident.id);
        ensure(!track.only_tell, invariant::REPEAT, || {
            told("it was for a person to look at")
        })?;
        self.not_resolved(track, given)?;
        let mut then = self.switches_then.iter();
        let paused = then.all(|switches| switches.paused(incident, at));
        ensure(!paused, invariant::PAUSE, || told("paused"))?;
        ensure(!self.maintained(plan, at), invariant::MAINTENANCE, || {
            told("a window holds")
        })?;
        self.breaker(track, at)?;
        let others = || {
            self.tracks.values().filter(|other| {
                other.folded.id != incident.id
                    && other.folded.plan.policy == plan.policy
                    && other.folded.target == incident.target
            })
        };
        if let Some(last) = others().filter_map(|other| other.last_run_at).max() {
            ensure(
                later(last, plan.guards.cooldown) <= at,
                invariant::COOLDOWN,
                || told(&format!("the last run ended at {last}, and it is {at}")),
            )?;
        }
        if plan.mode != Mode::Shadow
            && let Some(other) = self.holder(&incident.target, incident.id)
        {
            let detail = told(&format!("incident {other} is acting on the target"));
            return Err(violation(invariant::LOCK, detail));
        }
        if let (Some(rate), true) = (plan.guards.rate, new) {
            let since = earlier(at, rate.window.per);
            let of_policy = self.runs.iter().filter(|(_, of)| *of == plan.policy);
            let count = of_policy.filter(|(run, _)| *run > since).count();
            ensure(count < rate.window.max as usize, invariant::RATE, || {
                told(&format!("{count} others started in the window"))
            })?;
        }
        self.radius(track, at, given)
    }

    fn breaker(&self, track: &Track, at: Timestamp) -> Checked {
        let (incident, guards) = (&track.folded, &track.folded.plan.guards);
        let same = || {
            self.tracks.values().rev().filter(|other| {
                other.folded.plan.policy == incident.plan.policy
                    && other.folded.target == incident.target
            })
        };
        let mut failed = same()
            .filter_map(|other| match &other.folded.phase {
                Phase::Ended { end, at, .. } => Some((*end, *at)),
                _ => None,
            })
            .take_while(|(end, _)| !matches!(end, End::Healed | End::Cleared))
            .filter(|(end, _)| *end == End::Escalated)
            .peekable();
        if let Some((_, last)) = failed.peek().copied() {
            let failures = failed.count();
            let breaker = guards.breaker;
            ensure(
                failures < breaker.failures as usize || later(last, breaker.open_for) <= at,
                invariant::BREAKER,
                || {
                    format!(
                        "a run of incident {} starts at {at}, after {failures} failures, the last at {last}",
                        incident.id
                    )
                },
            )?;
        }
        if let Some(window) = guards.flapping {
            let since = earlier(at, window.per);
            let opened = same()
                .filter(|other| other.folded.opened_at > since)
                .count();
            ensure(opened <= window.max as usize, invariant::FLAPPING, || {
                format!(
                    "a run of incident {} starts, and {opened} opened in the window",
                    incident.id
                )
            })?;
        }
        Ok(())
    }

    /// The incident that has begun to act on a target and is not done with it.
    fn holder(&self, target: &Target, but: IncidentId) -> Option<IncidentId> {
        let holds = |track: &&Track| {
            let incident = &track.folded;
            let begun = incident.plan.mode != Mode::Shadow
                && track.runs.values().any(|run| run.step > 0 && !run.before);
            begun
                && incident.id != but
                && incident.target == *target
                && !matches!(
                    incident.phase,
                    Phase::Ended { .. } | Phase::Escalating { back: None, .. } | Phase::Watching
                )
        };
        self.tracks
            .values()
            .find(holds)
            .map(|track| track.folded.id)
    }

    fn maintained(&self, plan: &Plan, at: Timestamp) -> bool {
        let windows = plan.guards.maintenance.iter();
        windows
            .chain(&self.settings.maintenance)
            .any(|window| match window {
                Maintenance::Once { from, to } => *from <= at && at < *to,
                // All of them are in UTC, on every day, and within one.
                Maintenance::Weekly { from, to, .. } => {
                    let time = at.to_zoned(TimeZone::UTC).time();
                    *from <= time && time < *to
                }
            })
    }

    fn radius(&self, track: &Track, at: Timestamp, given: Option<&Given>) -> Checked {
        let plan = &track.folded.plan;
        let Some(guard) = &plan.guards.blast_radius else {
            return Ok(());
        };
        let id = track.folded.id;
        let mut then = self.switches_then.iter();
        let stormy = then.all(|switches| switches.storms.contains_key(&plan.policy));
        ensure(!stormy, invariant::STORM, || {
            format!(
                "a run of incident {id} starts in a storm of {}",
                plan.policy
            )
        })?;
        let looks = given.map_or(&[][..], |given| given.looks.as_slice());
        let counts = looks
            .iter()
            .filter(|(seen, fleet, _)| {
                *fleet == guard.of && *seen <= at && *seen > earlier(at, Duration::from_secs(2))
            })
            .map(|(_, _, members)| {
                let name_of = |target: &Target| target.name().to_owned();
                let ill = members.iter().filter(|member| !member.well);
                let acted_on = self.tracks.values().filter(|other| {
                    other.folded.plan.mode != Mode::Shadow
                        && other.runs.values().any(|run| run.live && run.step > 0)
                });
                let acted_on = acted_on
                    .map(|other| name_of(&other.folded.target))
                    .filter(|name| members.iter().any(|member| member.name == *name));
                let disturbed: BTreeSet<_> = ill
                    .map(|member| member.name.clone())
                    .chain(acted_on)
                    .chain([name_of(&track.folded.target)])
                    .collect();
                (disturbed.len(), guard.max.of(members.len()))
            });
        let counts: Vec<_> = counts.collect();
        ensure(
            counts.iter().any(|(disturbed, bound)| disturbed <= bound),
            invariant::RADIUS,
            || format!("a run of incident {id} starts with (disturbed, bound) {counts:?}"),
        )
    }

    /// A run needs an alert that fires: as far as its incident was told, and as far as
    /// anybody was.
    fn not_resolved(&self, track: &Track, given: Option<&Given>) -> Checked {
        let id = track.folded.id;
        let told = track
            .heard
            .values()
            .any(|heard| heard.resolved_at.is_none());
        ensure(told, invariant::RESOLVED, || {
            format!("a run of incident {id} starts, which knows that its alerts resolved")
        })?;
        // What came in with the same turn may have come before the run or after it.
        let now = given.map_or(&[][..], |given| given.accepted.as_slice());
        let known = track.heard.keys().any(|alert| {
            let before = self.notifications.get(alert);
            let mut all = before.cloned().unwrap_or_default();
            let now = now
                .iter()
                .filter(|one| one.alert.status == AlertStatus::Firing && key(&one.alert) == *alert);
            let fired = fires(&all);
            all.extend(now.map(Notification::from));
            all.sort_by_key(|one| one.seq);
            fired || fires(&all)
        });
        ensure(known, invariant::RESOLVED, || {
            format!("a run of incident {id} starts, and the end of each of its alerts was told")
        })
    }

    /// Whether one more run is within what may run at once.
    fn room(&self, id: IncidentId, step: u32, plugin: &PluginName) -> Checked {
        let crowd = self.crowd(id, step, plugin, false);
        ensure(crowd.is_none(), invariant::CONCURRENCY, || {
            format!(
                "a run of incident {id} starts beside {}",
                crowd.unwrap_or_default()
            )
        })
    }

    /// What there is too much of for a run of an incident. A run that tells a person starts
    /// whatever its policy may do at once, so it may make the policy's runs one too many; but
    /// while it is under way (`telling`) the others wait for it.
    fn crowd(
        &self,
        id: IncidentId,
        step: u32,
        plugin: &PluginName,
        telling: bool,
    ) -> Option<String> {
        let incident = &self.tracks[&id].folded;
        let live: Vec<_> = self
            .tracks
            .values()
            .filter(|track| !track.folded.ended() && track.folded.id != id)
            .flat_map(|track| track.runs.values().map(move |run| (track, run)))
            .filter(|(_, run)| run.live && !run.beside)
            .collect();
        // A policy that has three quarters takes the last one from no other.
        let alone = self.policies.policies().len() <= 1;
        let own = |with_plugin: bool| {
            live.iter()
                .filter(|(track, run)| {
                    track.folded.plan.policy == incident.plan.policy
                        && (!with_plugin || run.plugin == *plugin)
                })
                .count()
        };
        let share = |places: u32, own: usize| {
            let most = (places - places / 4) as usize;
            match Priority::of(&incident.alert) {
                Priority::Urgent if alone || own < most => places as usize,
                _ => most,
            }
        };
        let of_plugin = live.iter().filter(|(_, run)| run.plugin == *plugin).count();
        let of_policy = live
            .iter()
            .filter(|(track, run)| {
                track.folded.plan.policy == incident.plan.policy && (telling || run.step > 0)
            })
            .count();
        if live.len() >= share(self.settings.places, own(false)) {
            Some(format!("{} others", live.len()))
        } else if of_plugin >= share(self.settings.plugin_places, own(true)) {
            Some(format!("{of_plugin} others of {plugin}"))
        } else if step > 0 && of_policy >= incident.plan.guards.concurrency as usize {
            Some(format!("{of_policy} others of the policy"))
        } else {
            None
        }
    }

    fn effect_began(&mut self, event: &Event, key: CallKey) -> Checked {
        let EventBody::EffectBegan { request, on, .. } = &event.body else {
            return Ok(());
        };
        let track = &self.tracks[&event.incident];
        let (incident, at) = (&track.folded, event.at);
        let told = || format!("run {} begins {}", key.0, request.summary());
        let Some(run) = track.runs.get(&key.0.number).filter(|run| run.live) else {
            return Err(violation(
                invariant::RECORD,
                told() + ", and is not under way",
            ));
        };
        ensure(
            run.mode != RunMode::Dry && incident.plan.mode != Mode::Shadow,
            invariant::SHADOW,
            told,
        )?;
        ensure(!self.switches.paused(incident, at), invariant::PAUSE, told)?;
        ensure(
            on.as_ref()
                .is_none_or(|on| on.name == incident.target.name()),
            invariant::IDENTITY,
            || format!("{} for {}", told(), incident.target),
        )?;
        if run.step > 0 {
            if incident.plan.mode == Mode::Approve {
                ensure(run.mode == RunMode::Apply, invariant::APPROVAL, told)?;
                let index = run.calls.keys().filter(|call| **call < key.1).count();
                let plan = track.plan.as_ref().and_then(|plan| plan.effects.get(index));
                ensure(
                    plan.is_some_and(|planned| planned.request == *request),
                    invariant::APPROVAL,
                    || format!("{}, which is not the next of the plan", told()),
                )?;
            }
            let target = incident.target.clone();
            let acting = self
                .acting
                .entry(target)
                .or_insert((incident.id, BTreeSet::new()));
            if acting.0 != incident.id {
                acting.1.insert(acting.0);
                acting.0 = incident.id;
            }
            ensure(!acting.1.contains(&incident.id), invariant::LOCK, || {
                format!("{}, and another incident acted in between", told())
            })?;
        }
        let target = (run.step > 0).then(|| incident.target.clone());
        let policy = incident.plan.policy.clone();
        self.count_effect(at, policy, target.as_ref(), request.name())
    }

    fn count_effect(
        &mut self,
        at: Timestamp,
        policy: PolicyName,
        on: Option<&Target>,
        action: &'static str,
    ) -> Checked {
        let last = self.effects.last().map_or(at, |effect| effect.in_order);
        self.effects.push(Effect {
            at,
            in_order: at.max(last),
            really: self.now,
            policy,
            target: on.cloned(),
            action,
        });
        let limits = &self.settings.effects;
        // What tells a person has its own limit, and no other.
        let windows = if on.is_some() {
            vec![
                (limits.total, None, None),
                (limits.per_target, on, None),
                (limits.per_action.get(action).copied(), None, Some(action)),
            ]
        } else {
            vec![(limits.telling, None, None)]
        };
        for (window, target, action) in windows {
            let Some(window) = window else { continue };
            let counted = |effect: &&Effect| {
                effect.target.is_none() == on.is_none()
                    && target.is_none_or(|target| effect.target.as_ref() == Some(target))
                    && action.is_none_or(|action| effect.action == action)
            };
            // Where the clock was set, its moments, their order and the time disagree, and a
            // limit may go by any of them.
            let inside = |moment: fn(&Effect) -> Timestamp| {
                let since = self.effects.last().map(moment).unwrap_or_default();
                let since = earlier(since, window.per);
                let effects = self.effects.iter().filter(counted);
                effects.filter(|effect| moment(effect) > since).count()
            };
            let count = inside(|effect| effect.at)
                .min(inside(|effect| effect.in_order))
                .min(inside(|effect| effect.really));
            ensure(count <= window.max as usize, invariant::EFFECTS, || {
                format!(
                    "{count} effects in {:?}, {} may be (target {target:?}, action {action:?})",
                    window.per, window.max
                )
            })?;
        }
        Ok(())
    }

    /// The driver is about to carry a call out; `times` is how often it did already.
    pub fn carried_out(&self, key: CallKey, times: u32, doubts: u32) -> Checked {
        let run = self
            .tracks
            .get(&key.0.incident)
            .and_then(|track| track.runs.get(&key.0.number));
        let call = run.and_then(|run| run.calls.get(&key.1));
        ensure(call.is_some(), invariant::BEGIN, || {
            format!("call {} of run {}", key.1, key.0)
        })?;
        ensure(
            !call.is_some_and(|call| call.ended) && times <= doubts,
            invariant::ONCE,
            || {
                format!(
                    "call {} of run {} is carried out once more, after {times} times",
                    key.1, key.0
                )
            },
        )
    }

    /// Whose incidents ended `escalated`.
    fn somebody_hears(&self, append: &Append) -> Checked {
        let touched: BTreeSet<_> = append.events.iter().map(|event| event.incident).collect();
        for track in touched.iter().filter_map(|id| self.tracks.get(id)) {
            let Phase::Ended {
                end: End::Escalated,
                reason,
                ..
            } = &track.folded.phase
            else {
                continue;
            };
            let tried = track.runs.values().any(|run| run.step == 0);
            ensure(tried || track.untold.is_some(), invariant::TOLD, || {
                format!("incident {} is escalated ({reason})", track.folded.id)
            })?;
        }
        Ok(())
    }

    /// Whoever waits for room has had its share: what each policy has for itself is half of all
    /// there is, evenly, and one at the least.
    fn room_is_shared(&self, append: &Append, deferred: &[Deferred], given: &Given) -> Checked {
        let policies = given.policies.policies().len();
        let room = self.settings.incidents;
        for deferred in deferred {
            let Some(policy) = &deferred.policy else {
                continue;
            };
            // One that ended in this turn took up room to its end.
            let now = |id| append.events.iter().any(|event| event.incident == id);
            let open = self
                .tracks
                .values()
                .filter(|track| !track.folded.ended() || now(track.folded.id));
            let own = open
                .filter(|track| track.folded.plan.policy == *policy)
                .count();
            ensure(
                !self.stable || policies > room || own >= (room / 2 / policies).max(1),
                invariant::SHARE,
                || format!("{own} of {policy} are open, of {room} for {policies}, and it waits"),
            )?;
        }
        Ok(())
    }

    /// Likewise whoever has no room for an effect.
    pub fn refused(&self, policy: &PolicyName, key: &str, at: Timestamp) -> Checked {
        let limits = &self.settings.effects;
        let (window, tells, action) = match key {
            "limits.guards.total_rate" => (limits.total, false, None),
            "limits.guards.telling_rate" => (limits.telling, true, None),
            _ => match key.strip_prefix("limits.guards.actions.") {
                Some(action) => (limits.per_action.get(action).copied(), false, Some(action)),
                None => return Ok(()),
            },
        };
        let Some(window) = window.filter(|_| self.stable) else {
            return Ok(());
        };
        let policies = self.policies.acting().count();
        let room = window.max as usize;
        let since = earlier(at, window.per);
        let own = self.effects.iter().filter(|effect| {
            effect.at > since
                && effect.policy == *policy
                && effect.target.is_none() == tells
                && action.is_none_or(|action| effect.action == action)
        });
        let own = own.count();
        ensure(
            policies > room || own >= (room / 2 / policies.max(1)).max(1),
            invariant::SHARE,
            || format!("{policy} had {own} effects of {room} for {policies} ({key}), and waits"),
        )
    }

    fn nothing_lost(&self, append: &Append, deferred: &[Deferred], given: &Given) -> Checked {
        for one in &given.accepted {
            let told = |why: &str| {
                format!(
                    "row {} of the inbox ({} {} since {}): {why}",
                    one.seq,
                    one.alert.name(),
                    one.alert.status,
                    one.alert.starts_at
                )
            };
            if !append.done.contains(&one.seq) {
                ensure(
                    deferred.iter().any(|other| other.accepted.seq == one.seq)
                        || given.waiting.contains(&one.seq),
                    invariant::LOST,
                    || told("neither dealt with nor kept for later"),
                )?;
                continue;
            }
            match one.alert.status {
                AlertStatus::Firing => self.firing_dealt_with(one, append, given, told)?,
                AlertStatus::Resolved => {
                    let key = key(&one.alert);
                    // One that opened in this turn may have done so after that.
                    let is_new = |id| {
                        append.events.iter().any(|event| {
                            event.incident == id && matches!(event.body, EventBody::Opened { .. })
                        })
                    };
                    let concerned = self.tracks.values().filter(|track| {
                        track.heard.contains_key(&key)
                            && !track.folded.ended()
                            && !is_new(track.folded.id)
                    });
                    for track in concerned {
                        ensure(
                            seen(append, track.folded.id, &one.alert.episode()),
                            invariant::LOST,
                            || told(&format!("incident {} is not told", track.folded.id)),
                        )?;
                    }
                }
            }
        }
        Ok(())
    }

    fn firing_dealt_with(
        &self,
        one: &Accepted,
        append: &Append,
        given: &Given,
        told: impl Fn(&str) -> String,
    ) -> Checked {
        let episode = one.alert.episode();
        let end = self.told_end(&episode, given.last_seq);
        if self.overtaken(&episode, given.last_seq, one.received_at.min(given.at)) {
            return Ok(());
        }
        for policy in given.policies.matching(&one.alert.labels) {
            // Where the policy does not fit, the target is one of its own.
            let target = policy.target(&one.alert).ok();
            let of_policy = self.tracks.values().rev().filter(|track| {
                let incident = &track.folded;
                incident.plan.policy == policy.name
                    && target.as_ref().is_none_or(|target| {
                        incident.target == *target
                            || named(target.name()) == Some(incident.target.name())
                            || incident.target.kind() == "unknown"
                    })
            });
            let dealt_with = of_policy.into_iter().any(|track| {
                seen(append, track.folded.id, &episode)
                    || (track.episodes.contains(&episode)
                        && end.is_none_or(|end| end <= track.folded.opened_at))
            });
            ensure(dealt_with, invariant::LOST, || {
                told(&format!("policy {} does nothing about it", policy.name))
            })?;
        }
        Ok(())
    }

    /// Compares the engine with the account, after a commit. What a run's recorder wrote
    /// and the engine has not been told yet is `unknown` to it.
    pub fn compare(
        &self,
        engine: &Engine,
        touched: &BTreeSet<IncidentId>,
        unknown: &BTreeMap<IncidentId, u32>,
    ) -> Checked {
        let open: BTreeSet<_> = self.open().map(|incident| incident.id).collect();
        let held: BTreeSet<_> = engine.incidents().map(|incident| incident.id).collect();
        ensure(open == held, invariant::REPLAY, || {
            format!("the engine has {held:?} open, and the events {open:?}")
        })?;
        for id in touched {
            let (Some(engine), Some(track)) = (engine.incident(*id), self.tracks.get(id)) else {
                continue;
            };
            ensure(
                unknown.contains_key(id) || *engine == track.folded,
                invariant::REPLAY,
                || {
                    format!(
                        "the engine has\n    {engine:?}\n  and the events\n    {:?}",
                        track.folded
                    )
                },
            )?;
        }
        Ok(())
    }

    /// What time alone must not forget, after a turn. Who waits for one of the looks at
    /// fleets that are `asked` for is asked again when it comes.
    pub fn waits(&self, engine: &Engine, asked: &[Fleet], now: Timestamp) -> Checked {
        let wake = engine.wake_at();
        let waits_for_look = |incident: &Incident| {
            let guard = incident.plan.guards.blast_radius.as_ref();
            guard.is_some_and(|guard| asked.contains(&guard.of))
        };
        for incident in engine.incidents() {
            if waits_for_look(incident) {
                continue;
            }
            // An alert that has resolved is watched whether it stays so.
            let by_itself = matches!(incident.phase, Phase::Verifying { .. })
                && (incident.plan.verify.check != VerifyCheck::AlertResolved
                    || incident.resolved());
            if let Some(due) = incident.due().filter(|_| !by_itself) {
                ensure(
                    wake.is_some_and(|wake| wake <= due),
                    invariant::TIMER,
                    || {
                        format!(
                            "incident {} is {:?}, due at {due}, and the engine sleeps until {wake:?}",
                            incident.id, incident.phase
                        )
                    },
                )?;
            }
            // What is due at once is a matter of the next turn.
            if wake.is_none_or(|wake| wake > now) {
                self.unnamed_is_on_record(incident, now)?;
            }
            let Phase::Held(Hold { guard, rung, until }) = &incident.phase else {
                continue;
            };
            let reason = match guard {
                Guard::Pause => self.switches.paused(incident, now),
                Guard::TargetLock => self.holder(&incident.target, incident.id).is_some(),
                Guard::Concurrency => incident.plugin(rung.step).is_some_and(|plugin| {
                    self.crowd(incident.id, rung.step, &plugin.name, true)
                        .is_some()
                }),
                // The others have their time, which a clock that is set back moves away.
                _ => until.is_none_or(|until| now < until),
            };
            ensure(reason, invariant::HELD, || {
                format!(
                    "incident {} is held by {} at {now}",
                    incident.id,
                    guard.as_str()
                )
            })?;
        }
        Ok(())
    }

    /// Of what waits for long under a policy that names nobody, the record says that nobody
    /// was told.
    fn unnamed_is_on_record(&self, incident: &Incident, now: Timestamp) -> Checked {
        let plan = &incident.plan;
        let Some(track) = self.tracks.get(&incident.id) else {
            return Ok(());
        };
        if plan.escalate.is_some() || plan.mode == Mode::Shadow || incident.resolved() {
            return Ok(());
        }
        let told_before = track.runs.values().any(|run| run.step == 0);
        let (since, on_record) = match &incident.phase {
            Phase::Held(_) => (track.held_since, track.untold.is_some() || told_before),
            Phase::AwaitingApproval { since, .. } if plan.approval.tell => {
                let untold = track.untold.is_some_and(|at| at >= *since);
                (Some(*since), untold)
            }
            _ => return Ok(()),
        };
        let for_long = since.is_some_and(|since| later(since, UNNAMED_WAITS) <= now);
        ensure(on_record || !for_long, invariant::TOLD, || {
            format!(
                "incident {} is {:?} since {since:?}, its policy names nobody, and that is not on record at {now}",
                incident.id, incident.phase
            )
        })
    }

    /// What has not begun to act is under the policies as they are, after a turn that was
    /// made with them.
    pub fn under_policies(engine: &Engine, policies: &PolicySet) -> Checked {
        for incident in engine
            .incidents()
            .filter(|incident| incident.waits_to_begin())
        {
            let policy = policies.get(&incident.plan.policy);
            let now = policy.filter(|policy| policy.mode != Mode::Off);
            ensure(
                now.is_some_and(|policy| policy.digest == incident.plan.digest),
                invariant::POLICY,
                || {
                    format!(
                        "incident {} is {:?} under policy {} as it was",
                        incident.id, incident.phase, incident.plan.policy
                    )
                },
            )?;
        }
        Ok(())
    }

    /// The incidents that have not ended.
    pub fn open(&self) -> impl Iterator<Item = &Incident> {
        self.tracks
            .values()
            .map(|track| &track.folded)
            .filter(|incident| !incident.ended())
    }
}

impl From<&Accepted> for Notification {
    fn from(accepted: &Accepted) -> Self {
        Self {
            seq: accepted.seq,
            starts_at: accepted.alert.starts_at,
            status: accepted.alert.status,
            received_at: accepted.received_at,
        }
    }
}

impl Switches {
    fn paused(&self, incident: &Incident, at: Timestamp) -> bool {
        self.pauses.iter().any(|(scope, until)| {
            let covers = match scope {
                Scope::All => true,
                Scope::Policy(policy) => *policy == incident.plan.policy,
                Scope::Target(target) => *target == incident.target,
            };
            covers && until.is_none_or(|until| at < until)
        })
    }
}

impl Track {
    /// Whether a run of `step` that starts now tells a person beside what the incident does.
    fn tells_beside(&self, step: u32) -> bool {
        step == 0 && !matches!(self.folded.phase, Phase::Escalating { run: None, .. })
    }

    /// Whether the episode that it was for is believed once more, under a policy of this
    /// version: nothing was done, and the policy is another one, or is there again.
    fn believed_under(&self, digest: Digest) -> bool {
        let escalated = matches!(
            self.folded.phase,
            Phase::Ended {
                end: End::Escalated,
                ..
            }
        );
        let other = self.folded.plan.digest != digest;
        self.gone || (escalated && !self.acted && other)
    }

    /// Whether the plan of a rung is approved, and was not carried out yet.
    fn approved(&self, step: u32, attempt: u32) -> Checked {
        let id = self.folded.id;
        let plan = self
            .plan
            .as_ref()
            .filter(|plan| plan.step == step && plan.attempt == attempt);
        let Some(plan) = plan else {
            let detail = format!("incident {id} applies a plan that was not made for this rung");
            return Err(violation(invariant::APPROVAL, detail));
        };
        let people = self.folded.plan.approval.people as usize;
        ensure(
            plan.by.len() >= people && !plan.used,
            invariant::APPROVAL,
            || {
                format!(
                    "incident {id} applies a plan that {:?} approved, used before: {}",
                    plan.by, plan.used
                )
            },
        )
    }

    fn take(&mut self, event: &Event) -> Checked {
        let at = event.at;
        match &event.body {
            EventBody::AlertSeen {
                episode, status, ..
            } => self.heard(episode, *status, at),
            EventBody::RunStarted {
                run,
                step,
                attempt,
                plugin,
                mode,
                ..
            } => {
                if *mode == RunMode::Apply
                    && let Some(plan) = &mut self.plan
                {
                    plan.used = true;
                }
                let beside = self.tells_beside(*step);
                let started = Run {
                    beside,
                    before: false,
                    step: *step,
                    attempt: *attempt,
                    mode: *mode,
                    plugin: plugin.clone(),
                    live: true,
                    calls: BTreeMap::new(),
                    planned: Vec::new(),
                };
                self.runs.insert(run.number, started);
            }
            EventBody::RunResumed { run } => {
                if let Some(known) = self.runs.get_mut(&run.number) {
                    self.interruptions += u32::from(known.live && !known.beside);
                    known.live = true;
                }
            }
            EventBody::RunEnded { run, result } => self.ended(run.number, Some(result), at),
            EventBody::RunInterrupted { run } => self.ended(run.number, None, at),
            EventBody::EffectBegan { run, call, .. } => {
                let known = self.runs.get_mut(&run.number);
                self.acted |= known.as_ref().is_some_and(|known| known.step > 0);
                let known = known.map(|known| known.calls.entry(*call).or_default());
                ensure(
                    known.is_some_and(|call| !call.ended),
                    invariant::ONCE,
                    || format!("call {call} of run {run} begins again after its end"),
                )?;
            }
            EventBody::EffectEnded { run, call, .. } => {
                let known = self.runs.get_mut(&run.number);
                let known = known.and_then(|known| known.calls.get_mut(call));
                let known = known.filter(|call| !call.ended);
                let known = known.ok_or_else(|| {
                    violation(invariant::RECORD, format!("call {call} of {run} ends"))
                })?;
                known.ended = true;
            }
            EventBody::Planned { run, effect, .. } => {
                if let Some(known) = self.runs.get_mut(&run.number) {
                    known.planned.push(effect.clone());
                }
            }
            EventBody::Untold { .. } => self.untold = Some(at),
            EventBody::GuardHeld { .. } => self.held_since = self.held_since.or(Some(at)),
            EventBody::GuardsPassed => self.held_since = None,
            EventBody::PolicyChanged { .. } => {
                self.plan = None;
                for run in self.runs.values_mut() {
                    run.before = true;
                }
            }
            EventBody::PolicyGone { .. } => self.gone = true,
            EventBody::Approved { plan, by } => {
                let requester = self.alert.annotations.get("requested_by");
                if let Some(known) = self.plan.as_mut().filter(|known| known.digest == *plan)
                    && requester != Some(by)
                    && at < known.until
                {
                    known.by.insert(by.clone());
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn heard(&mut self, episode: &Episode, status: AlertStatus, at: Timestamp) {
        if status == AlertStatus::Firing {
            self.episodes.insert(episode.clone());
        }
        let key = (episode.source.clone(), episode.fingerprint.0.clone());
        let resolved_at = (status == AlertStatus::Resolved).then_some(at);
        if let Some(known) = self.heard.get(&key) {
            let late = resolved_at.is_none()
                && known.starts_at == episode.starts_at
                && known.resolved_at.is_some_and(|end| at < later(end, LATE));
            if known.starts_at > episode.starts_at || late {
                return;
            }
        }
        let heard = Heard {
            starts_at: episode.starts_at,
            resolved_at,
        };
        self.heard.insert(key, heard);
    }

    /// A run ended; with no result it was cut off for good.
    fn ended(&mut self, number: u32, result: Option<&RunResult>, at: Timestamp) {
        let Some(run) = self.runs.get_mut(&number) else {
            return;
        };
        run.live = false;
        if run.step > 0 {
            self.last_run_at = Some(at);
        }
        let done = matches!(
            result,
            Some(RunResult::Changed { .. } | RunResult::Unchanged { .. })
        );
        match run.mode {
            RunMode::Dry if done => {
                self.plan = Some(Approvable {
                    step: run.step,
                    attempt: run.attempt,
                    digest: plan_digest(&run.planned),
                    effects: run.planned.clone(),
                    until: later(at, self.folded.plan.approval.expires),
                    by: BTreeSet::new(),
                    used: false,
                });
            }
            // What it came to is not known, and the policy says to do it again.
            RunMode::Apply if result.is_none() => {
                if let Some(plan) = &mut self.plan {
                    plan.used = false;
                }
            }
            _ => {}
        }
    }
}

/// Whether an alert fires, by all that was told of it in the order in which it came. An
/// end overtakes what came before it, and what comes within [`LATE`] after it; by the
/// daemon's clock, which is all that the engine has: where that was set back between the
/// two, what came first may count as what came last.
fn fires(all: &[Notification]) -> bool {
    let mut known: Option<Heard> = None;
    let mut last_fired: Option<Timestamp> = None;
    for one in all {
        let resolved_at = (one.status == AlertStatus::Resolved).then_some(one.received_at);
        let starts_at = one.starts_at;
        let before = known.is_some_and(|known| known.starts_at > starts_at);
        let same = known.is_some_and(|known| known.starts_at == starts_at);
        let end = known.and_then(|known| known.resolved_at);
        let believed = match one.status {
            AlertStatus::Firing => {
                last_fired = last_fired.max(Some(one.received_at));
                let late = |end| one.received_at < later(end, LATE);
                match end {
                    // A newer episode is news, any other only when it is not late.
                    Some(end) => !(before || same) || !late(end),
                    None => !before,
                }
            }
            AlertStatus::Resolved => {
                let later_by_clock = last_fired >= Some(later(one.received_at, LATE));
                !before && !later_by_clock
            }
        };
        if believed {
            known = Some(Heard {
                starts_at,
                resolved_at,
            });
        }
    }
    known.is_some_and(|known| known.resolved_at.is_none())
}

fn key(alert: &Alert) -> (String, String) {
    (alert.source.clone(), alert.fingerprint.0.clone())
}

/// Whether an append tells an incident of an episode.
fn seen(append: &Append, id: IncidentId, episode: &Episode) -> bool {
    append
        .events
        .iter()
        .filter(|event| event.incident == id)
        .any(|event| match &event.body {
            EventBody::Opened { alert, .. } => alert.episode() == *episode,
            EventBody::AlertSeen { episode: of, .. } => of == episode,
            _ => false,
        })
}
