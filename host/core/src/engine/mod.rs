//! The engine: every open incident, and what is decided about them.
//!
//! Pure, like all of this crate. A turn takes inputs and the time, and answers with what
//! is to be committed and what is to be done once it is: nothing may be done before the
//! events that lead to it are on the disk. The daemon drives it with a real clock and a
//! real journal; a simulation, a backtest and the unit tests of policies drive the same
//! engine with theirs.
//!
//! What the guards count beyond the open incidents is looked up in the journal
//! ([`History`]), so nothing has to be loaded at a start and nothing is forgotten by a
//! restart.

mod ask;
mod fleet;
mod guards;
mod identity;
mod input;
mod matching;
mod news;
mod operator;
mod places;
mod policy;
mod settings;
mod tell;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;

pub use self::ask::{Considered, Course};
use self::fleet::Fleets;
pub use self::fleet::Member;
use self::identity::Identities;
pub use self::identity::Identity;
pub use self::input::{
    Action, Deferred, Finding, Input, Note, Order, PluginVersion, Turn, Untouched, VerifyOrder,
    World,
};
use self::news::{News, news, overtaken};
pub use self::operator::{Operator, OperatorError};
use self::places::Places;
pub use self::settings::Settings;
use self::tell::Tells;
use crate::alert::{AlertStatus, Episode};
use crate::control::{ControlBody, ControlEvent, Controls, Scope};
use crate::event::{Event, EventBody, FailureClass, Notice, RunMode, RunResult, StopCause};
use crate::guard::limits::EffectWindows;
use crate::guard::share::Share;
use crate::id::{Digest, IncidentId, PolicyName, RunId, Target};
use crate::incident::{
    AlertKey, Command, End, Hold, Incident, MAX_INTERRUPTIONS, OnInterrupt, Phase, Rung,
    VerifyCheck,
};
use crate::mutation::{Mutation, active};
use crate::policy::{Mode, Policy};
use crate::record::{Accepted, HistoryError, IncidentRow, Recovered, Standing};

/// The engine's state; see the module.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    // Every incident that has not ended.
    incidents: BTreeMap<IncidentId, Incident>,
    // The open incident of a policy on a target: there is at most one.
    by_target: HashMap<(PolicyName, Target), IncidentId>,
    // Which open incidents an alert belongs to.
    by_alert: HashMap<AlertKey, BTreeSet<IncidentId>>,
    // How many incidents of each policy are open.
    open: HashMap<PolicyName, usize>,
    // Which incident may act on a target, and which wait for that.
    locks: HashMap<Target, IncidentId>,
    lock_waiters: HashMap<Target, BTreeSet<IncidentId>>,
    timers: BTreeSet<(Timestamp, IncidentId)>,
    places: Places,
    // Who tells a person beside what it does.
    tells: Tells,
    // Those that have ended, and of whose end somebody is still to be told.
    owing: BTreeMap<IncidentId, Incident>,
    // Whose run goes on under a policy that has changed: looked at when it is over.
    stale: BTreeSet<IncidentId>,
    // Since when plans wait for approval.
    waiting: BTreeMap<IncidentId, Timestamp>,
    controls: Controls,
    fleets: Fleets,
    identities: Identities,
    // What this turn has and the journal does not have yet.
    fresh: Fresh,
    last: u64,
}

/// What happened in the turn that is under way: the journal cannot be asked for it.
#[derive(Debug, Default)]
struct Fresh {
    standings: HashMap<(PolicyName, Target), Standing>,
    // Those that opened; they are in memory to the end of the turn.
    opened: HashMap<(PolicyName, Target), Vec<IncidentId>>,
    runs: HashMap<PolicyName, Vec<Timestamp>>,
}

/// What a turn is made with.
pub(crate) struct Context<'a> {
    now: Timestamp,
    world: &'a dyn World,
    // What the limits on effects have seen; shared with the gate.
    effects: &'a EffectWindows,
    stopping: bool,
}

/// A policy that a notification is for.
struct Concerned<'a> {
    policy: &'a Policy,
    // The target as it was rendered, and what it is; none where the template does not fit.
    on: Option<(Target, Identity)>,
}

/// A turn that is under way.
#[derive(Default)]
struct Work {
    turn: Turn,
    commands: VecDeque<(IncidentId, Command)>,
    touched: BTreeSet<IncidentId>,
}

impl Engine {
    /// An engine that knows of nothing.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            places: Places::new(&settings),
            tells: Tells::new(&settings),
            owing: BTreeMap::new(),
            stale: BTreeSet::new(),
            waiting: BTreeMap::new(),
            settings,
            incidents: BTreeMap::new(),
            by_target: HashMap::new(),
            by_alert: HashMap::new(),
            open: HashMap::new(),
            locks: HashMap::new(),
            lock_waiters: HashMap::new(),
            timers: BTreeSet::new(),
            controls: Controls::default(),
            fleets: Fleets::default(),
            identities: Identities::default(),
            fresh: Fresh::default(),
            last: 0,
        }
    }

    /// When the next turn has to be taken if no input comes.
    #[must_use]
    pub fn wake_at(&self) -> Option<Timestamp> {
        let timer = self.timers.first().map(|(at, _)| *at);
        timer.into_iter().chain(self.fleets.next_look()).min()
    }

    /// Every open incident.
    pub fn incidents(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.values()
    }

    /// An incident that is open, or of whose end somebody is still to be told.
    #[must_use]
    pub fn incident(&self, id: IncidentId) -> Option<&Incident> {
        self.incidents.get(&id).or_else(|| self.owing.get(&id))
    }

    /// How many plans wait for approval, and since when the one that waits longest does.
    #[must_use]
    pub fn waiting(&self) -> (usize, Option<Timestamp>) {
        (self.waiting.len(), self.waiting.values().min().copied())
    }

    /// Which alerts of open incidents fire, or of those that somebody was told of, and when the incident last had word of one.
    #[must_use]
    pub fn firing(&self) -> Vec<(Episode, Timestamp)> {
        let of_incident = |incident: &Incident| {
            let last = incident.last_word_at;
            let firing = incident
                .alerts
                .iter()
                .filter(|(_, seen)| seen.resolved_at.is_none());
            firing
                .map(|(key, seen)| {
                    let episode = Episode {
                        source: key.source.clone(),
                        fingerprint: key.fingerprint.clone(),
                        starts_at: seen.starts_at,
                    };
                    (episode, last)
                })
                .collect::<Vec<_>>()
        };
        let all = self.incidents.values().chain(self.owing.values());
        all.flat_map(of_incident).collect()
    }

    /// The stop switch and the storms.
    #[must_use]
    pub fn controls(&self) -> &Controls {
        &self.controls
    }

    /// Whether a run is under way.
    #[must_use]
    pub fn running(&self) -> bool {
        !self.tells.idle()
            || self
                .incidents
                .values()
                .any(|incident| incident.cut_off().is_some())
    }

    /// Goes on with what an earlier daemon left; the first turn of all. Incidents that
    /// cannot be read are left as they are, and told of in the turn's notes.
    pub fn recover(
        &mut self,
        recovered: Recovered,
        now: Timestamp,
        world: &dyn World,
        effects: &EffectWindows,
    ) -> Turn {
        let (context, mut work) = self.begin_turn(now, world, effects, false);
        self.last = recovered.last_incident;
        self.controls = Controls::fold(&recovered.controls);
        // Nobody looked while the daemon was down: the calm begins anew.
        let storms: Vec<_> = self
            .controls
            .storms()
            .map(|(name, _)| name.clone())
            .filter(|_| !active(Mutation::StormForgottenAtStart))
            .collect();
        for policy in storms {
            self.fleets.exceeded(&policy, context.now);
        }
        for events in &recovered.open {
            match Incident::fold(events) {
                Ok(incident) => self.adopt(&mut work, incident),
                Err(error) => work.turn.notes.push(Note::Unreadable(error)),
            }
        }
        for events in &recovered.owing {
            match Incident::fold(events) {
                Ok(incident) => self.owe(incident),
                Err(error) => work.turn.notes.push(Note::Unreadable(error)),
            }
        }
        let ids: Vec<_> = self.incidents.keys().copied().collect();
        for id in ids {
            // The policy may have changed while nobody looked.
            if !self.ask_policy(&mut work, &context, id) {
                self.go_on(&mut work, &context, id);
            }
        }
        let ids: Vec<_> = self
            .incidents
            .keys()
            .chain(self.owing.keys())
            .copied()
            .collect();
        for id in ids {
            self.go_on_telling(&mut work, &context, id);
        }
        for accepted in recovered.inbox {
            // One that waited for room may have led to incidents of some of its policies.
            let accepted = Accepted {
                repeat: true,
                ..accepted
            };
            self.alert(&mut work, &context, accepted);
        }
        self.schedule_looks(&mut work, &context);
        self.finish(work, &context)
    }

    /// Takes inputs in, fires the timers that are due, and says what is to be committed
    /// and then done. What the turn before handed out is on the disk by now.
    pub fn turn(
        &mut self,
        inputs: impl IntoIterator<Item = Input>,
        now: Timestamp,
        world: &dyn World,
        effects: &EffectWindows,
        stopping: bool,
    ) -> Turn {
        let (context, mut work) = self.begin_turn(now, world, effects, stopping);
        for input in inputs {
            self.take(&mut work, &context, input);
        }
        self.fire_timers(&mut work, &context);
        self.schedule_looks(&mut work, &context);
        self.finish(work, &context)
    }

    /// What every turn begins with.
    fn begin_turn<'a>(
        &mut self,
        now: Timestamp,
        world: &'a dyn World,
        effects: &'a EffectWindows,
        stopping: bool,
    ) -> (Context<'a>, Work) {
        self.places.serve(world.policies().policies().len());
        self.fresh = Fresh::default();
        let context = Context {
            now: whole_micros(now),
            world,
            effects,
            stopping,
        };
        (context, Work::default())
    }

    fn adopt(&mut self, work: &mut Work, incident: Incident) {
        work.turn
            .notes
            .push(Note::Recovered(Box::new(incident.clone())));
        let id = incident.id;
        self.index(&incident);
        self.incidents.insert(id, incident);
        self.sync(work, id);
    }

    /// What is outstanding in a recovered incident.
    fn go_on(&mut self, work: &mut Work, context: &Context<'_>, id: IncidentId) {
        let Some(incident) = self.incidents.get(&id) else {
            return;
        };
        if let Some(run) = incident.cut_off() {
            if incident.interruptions + 1 >= MAX_INTERRUPTIONS {
                self.record(work, context, id, EventBody::RunInterrupted { run });
            } else {
                self.go_on_with(work, context, run);
            }
            return;
        }
        // What held it may be gone.
        if let Phase::Held(_) = incident.phase {
            work.commands.push_back((id, Command::AskGuards));
        }
        for command in incident.resume() {
            work.commands.push_back((id, command));
        }
    }

    fn take(&mut self, work: &mut Work, context: &Context<'_>, input: Input) {
        match input {
            Input::Accepted(accepted) => self.alert(work, context, accepted),
            // Already committed: folded in, and not written again.
            Input::Noted(event) => {
                if let Some(incident) = self.known_mut(event.incident) {
                    incident.apply(&event);
                }
            }
            Input::RunEnded { run, result } => {
                self.record(
                    work,
                    context,
                    run.incident,
                    EventBody::RunEnded { run, result },
                );
            }
            Input::RunLost { run } => {
                self.record(
                    work,
                    context,
                    run.incident,
                    EventBody::RunInterrupted { run },
                );
            }
            Input::Verified {
                incident,
                deadline,
                finding,
            } => self.verified(work, context, incident, deadline, finding),
            Input::Fleet { fleet, members } => self.fleet_seen(work, context, &fleet, members),
            Input::PoliciesChanged => self.policies_changed(work, context),
            Input::Identified { target, found } => self.identified(work, context, target, found),
            Input::Settings(settings) => {
                self.places.resize(&settings);
                self.tells.resize(&settings);
                self.settings = *settings;
                // What held them may be gone.
                self.ask_the_held(work, &Scope::All);
            }
            Input::Operator { token, operator } => {
                let reply = self.operate(work, context, operator);
                work.turn.replies.push((token, reply));
            }
        }
        self.settle(work, context);
    }

    fn alert(&mut self, work: &mut Work, context: &Context<'_>, accepted: Accepted) {
        match accepted.alert.status {
            AlertStatus::Firing => {
                let Some(concerned) = self.concerned(work, context, &accepted) else {
                    return;
                };
                let full = self.fires(work, context, &accepted, concerned);
                if let Some(policy) = full
                    && !active(Mutation::DoneThoughDeferred)
                {
                    // Some of its policies may have had room and dealt with it.
                    let accepted = Accepted {
                        repeat: true,
                        ..accepted
                    };
                    let policy = Some(policy);
                    work.turn.deferred.push(Deferred { accepted, policy });
                    return;
                }
            }
            AlertStatus::Resolved => {
                let key = AlertKey::from(&accepted.alert.episode());
                let ids = self.by_alert.get(&key).cloned().unwrap_or_default();
                if ids.is_empty() {
                    let policies = context.world.policies();
                    let policy = policies.matching(&accepted.alert.labels).next();
                    work.turn
                        .notes
                        .extend(policy.map(|policy| Note::NothingToDo {
                            policy: policy.name.clone(),
                            alert: accepted.alert.clone(),
                        }));
                }
                for id in ids {
                    self.see(work, context, id, &accepted);
                }
            }
        }
        work.turn.append.done.push(accepted.seq);
    }

    /// The policies that a firing notification is for, and what each acts on where its
    /// template fits. None when the notification waits until that is known.
    fn concerned<'c>(
        &mut self,
        work: &mut Work,
        context: &Context<'c>,
        accepted: &'c Accepted,
    ) -> Option<Vec<Concerned<'c>>> {
        let alert = AlertKey::from(&accepted.alert.episode());
        let (mut concerned, mut unknown) = (Vec::new(), Vec::new());
        for policy in context.world.policies().matching(&accepted.alert.labels) {
            let mut on = None;
            if let Ok(target) = policy.target(&accepted.alert) {
                let identity = self
                    .identity(context, &target)
                    .or_else(|| self.to_an_incident(&policy.name, &alert));
                let Some(identity) = identity else {
                    unknown.push(target);
                    continue;
                };
                on = Some((target, identity));
            }
            concerned.push(Concerned { policy, on });
        }
        if unknown.is_empty() {
            return Some(concerned);
        }
        if !self.await_identity(work, unknown, accepted) {
            work.turn.deferred.push(Deferred {
                accepted: accepted.clone(),
                policy: None,
            });
        }
        None
    }

    /// Takes a firing notification in. When it has to wait, because no more incidents of a
    /// policy may be open, that policy; the others have dealt with it.
    fn fires(
        &mut self,
        work: &mut Work,
        context: &Context<'_>,
        accepted: &Accepted,
        concerned: Vec<Concerned<'_>>,
    ) -> Option<PolicyName> {
        let episode = accepted.alert.episode();
        let (mut late, mut full) = (None, None);
        for Concerned { policy, on } in concerned {
            // Most notifications are about what is open already: what the policy would do
            // has to be known only where it is not.
            let thing = on.as_ref().map(|(_, identity)| identity.thing.clone());
            let mut open = thing.and_then(|thing| self.open_on(&policy.name, thing));
            let mut matched = None;
            if open.is_none() {
                matched = matching::matched(policy, &accepted.alert);
                if let Some(matched) = &mut matched {
                    matched.identify(on);
                    open = self.open_on(&policy.name, matched.identity.thing.clone());
                }
            }
            let news = open
                .and_then(|id| self.incidents.get(&id))
                .is_none_or(|incident| !incident.knows(&episode, AlertStatus::Firing));
            // It may have waited longer than the two minutes in which it counts as late.
            if news && *late.get_or_insert_with(|| Self::late(work, context, accepted)) {
                work.turn.notes.push(Note::Repeat {
                    policy: policy.name.clone(),
                    alert: accepted.alert.clone(),
                });
                continue;
            }
            if let Some(id) = open {
                self.see(work, context, id, accepted);
                continue;
            }
            let Some(matched) = matched else { continue };
            let matched = match self.judge(work, context, accepted, &matched) {
                News::Episode => matched,
                News::Again(of, reason) => matching::Matched {
                    again: Some((of, reason)),
                    ..matched
                },
                News::StillFiring(reason) => matching::Matched {
                    refused: Some(reason),
                    ..matched
                },
                News::Repeat => {
                    work.turn.notes.push(Note::Repeat {
                        policy: policy.name.clone(),
                        alert: accepted.alert.clone(),
                    });
                    continue;
                }
            };
            if !self.may_open(context, &policy.name) {
                full.get_or_insert_with(|| policy.name.clone());
                continue;
            }
            self.open(work, context, matched, accepted);
        }
        full
    }

    /// Whether one more incident of a policy may be open: it leaves the others their share.
    fn may_open(&self, context: &Context<'_>, policy: &PolicyName) -> bool {
        let policies = context.world.policies();
        let serves = |policy: &&Arc<Policy>| policy.mode != Mode::Off;
        let serving = policies.policies().iter().filter(serves).count();
        let share = Share::of(self.settings.incidents, serving);
        // What all have together is no more than what is for whoever comes first.
        if self.incidents.len() < share.common {
            return true;
        }
        let own = self.open.get(policy).copied().unwrap_or_default();
        let others = self.open.iter().filter(|(other, _)| *other != policy);
        let shares = |name: &PolicyName| policies.get(name).as_ref().is_some_and(serves);
        share.has_room(own, others.map(|(name, open)| (*open, shares(name))))
    }

    /// The open incident of a policy on a thing. One that ended in this very turn is still
    /// here, and takes nothing more in.
    fn open_on(&self, policy: &PolicyName, thing: Target) -> Option<IncidentId> {
        let id = self.by_target.get(&(policy.clone(), thing)).copied()?;
        let incident = self.incidents.get(&id)?;
        (!incident.ended()).then_some(id)
    }

    /// Whether a firing notification was overtaken by the end of what it tells of. On an
    /// error of the journal it counts as such, as in [`Self::judge`].
    fn late(work: &mut Work, context: &Context<'_>, accepted: &Accepted) -> bool {
        let history = context.world.history();
        let episode = accepted.alert.episode();
        match (
            history.resolved_at(&episode),
            history.overtaken_at(&episode),
        ) {
            (Ok(own), Ok(later)) => overtaken([own, later], said_at(accepted, context)),
            (Err(error), _) | (_, Err(error)) => {
                work.turn.notes.push(Note::HistoryFailed("an alert", error));
                true
            }
        }
    }

    /// What a firing notification without an open incident comes to. On an error of the
    /// journal it is nothing: it is better to leave something to the next repetition than
    /// to do it twice.
    fn judge(
        &self,
        work: &mut Work,
        context: &Context<'_>,
        accepted: &Accepted,
        matched: &matching::Matched,
    ) -> News {
        let history = context.world.history();
        let episode = accepted.alert.episode();
        let (policy, target) = (&matched.plan.policy, &matched.identity.thing);
        // One that opened and ended in this very turn is not in the journal yet.
        let ended_now = self
            .opened_now(&(policy.clone(), target.clone()))
            .rev()
            .find(|incident| incident.saw(&episode))
            .map(IncidentRow::from);
        let known = match ended_now {
            Some(row) => Ok(Some(row)),
            None if accepted.repeat && !active(Mutation::RepeatsReopen) => {
                history.incident_of(&episode, policy, target)
            }
            None => Ok(None),
        };
        match (history.resolved_at(&episode), known) {
            (Ok(resolved_at), Ok(known)) => {
                let said_at = said_at(accepted, context);
                news(&matched.plan, resolved_at, known.as_ref(), said_at)
            }
            (Err(error), _) | (_, Err(error)) => {
                work.turn.notes.push(Note::HistoryFailed("an alert", error));
                News::Repeat
            }
        }
    }

    /// The incidents of a policy on a target that opened in this turn.
    fn opened_now(&self, key: &(PolicyName, Target)) -> impl DoubleEndedIterator<Item = &Incident> {
        let ids = self.fresh.opened.get(key);
        ids.into_iter()
            .flatten()
            .filter_map(|id| self.incidents.get(id))
    }

    fn open(
        &mut self,
        work: &mut Work,
        context: &Context<'_>,
        matched: matching::Matched,
        accepted: &Accepted,
    ) {
        self.last += 1;
        let id = IncidentId(self.last);
        let event = Event {
            at: context.now,
            incident: id,
            body: EventBody::Opened {
                thing: matched.identity.other_thing(),
                plan: Arc::new(matched.plan),
                target: matched.identity.target,
                alert: accepted.alert.clone(),
                accepted_at: accepted.received_at,
            },
        };
        let Ok((incident, commands)) = Incident::open(&event) else {
            return;
        };
        work.turn
            .notes
            .push(Note::Opened(Box::new(incident.clone())));
        let key = (incident.plan.policy.clone(), incident.thing().clone());
        self.fresh.opened.entry(key).or_default().push(id);
        self.index(&incident);
        self.incidents.insert(id, incident);
        let episode = accepted.alert.episode();
        work.turn.append.episodes.push((episode, id));
        work.turn.append.events.push(event);
        work.touched.insert(id);
        if let Some((of, reason)) = matched.again {
            self.record(work, context, id, EventBody::Again { of, reason });
        }
        if let Some(reason) = matched.refused {
            self.record(work, context, id, EventBody::Refused { reason });
        } else {
            work.commands
                .extend(commands.into_iter().map(|command| (id, command)));
        }
    }

    /// Tells an open incident of a notification that concerns it.
    fn see(&mut self, work: &mut Work, context: &Context<'_>, id: IncidentId, accepted: &Accepted) {
        let episode = accepted.alert.episode();
        let status = accepted.alert.status;
        let Some(incident) = self.incident(id) else {
            return;
        };
        let repeat = incident.knows(&episode, status);
        if status == AlertStatus::Firing && !repeat {
            work.turn.append.episodes.push((episode.clone(), id));
            let key = AlertKey::from(&episode);
            self.by_alert.entry(key).or_default().insert(id);
        }
        if !repeat {
            work.turn.notes.push(Note::Seen {
                incident: id,
                alert: accepted.alert.clone(),
            });
        }
        let body = EventBody::AlertSeen {
            episode,
            status,
            repeat,
        };
        self.record(work, context, id, body);
    }

    fn index(&mut self, incident: &Incident) {
        let key = (incident.plan.policy.clone(), incident.thing().clone());
        *self.open.entry(key.0.clone()).or_default() += 1;
        self.by_target.insert(key, incident.id);
        for key in incident.alerts.keys() {
            let ids = self.by_alert.entry(key.clone()).or_default();
            ids.insert(incident.id);
        }
    }

    /// Applies an event that happens now, and queues what follows from it.
    fn record(&mut self, work: &mut Work, context: &Context<'_>, id: IncidentId, body: EventBody) {
        let Some(incident) = self.known_mut(id) else {
            // An answer that came after the end.
            return;
        };
        let event = Event {
            at: context.now,
            incident: id,
            body,
        };
        let before = incident.untold.clone();
        let commands = incident.apply(&event);
        work.touched.insert(id);
        work.turn.append.events.push(event);
        if let Some((at, why, reason)) = &incident.untold
            && incident.untold != before
        {
            work.turn.append.events.push(Event {
                at: *at,
                incident: id,
                body: EventBody::Untold {
                    why: *why,
                    reason: reason.clone(),
                },
            });
            work.turn.notes.push(Note::Untold {
                incident: Box::new(incident.clone()),
                why: *why,
                reason: reason.clone(),
            });
        }
        work.commands
            .extend(commands.into_iter().map(|command| (id, command)));
        self.sync_telling(id);
        self.sync(work, id);
    }

    fn known_mut(&mut self, id: IncidentId) -> Option<&mut Incident> {
        match self.incidents.get_mut(&id) {
            Some(incident) => Some(incident),
            None => self.owing.get_mut(&id),
        }
    }

    /// Records something that is about no single incident.
    fn control(&mut self, work: &mut Work, context: &Context<'_>, body: ControlBody) {
        let event = ControlEvent {
            at: context.now,
            body,
        };
        self.controls.apply(&event);
        work.turn.append.controls.push(event);
    }

    /// Brings the indexes in line with an incident that has changed.
    fn sync(&mut self, work: &mut Work, id: IncidentId) {
        let Some(incident) = self.incidents.get(&id) else {
            return;
        };
        self.places.sync(incident);
        let target = incident.thing().clone();
        match incident.phase {
            Phase::AwaitingApproval {
                plan, since, until, ..
            } => {
                if self.waiting.insert(id, since) != Some(since) {
                    work.turn.notes.push(Note::Waits {
                        incident: Box::new(incident.clone()),
                        plan,
                        until,
                    });
                }
            }
            _ => {
                self.waiting.remove(&id);
            }
        }
        if self.stale.contains(&id) && incident.waits_to_begin() {
            work.commands.push_back((id, Command::AskPolicy));
        }
        if incident.holds_target() {
            self.locks.entry(target).or_insert(id);
        } else if self.locks.get(&target) == Some(&id) {
            self.locks.remove(&target);
            // In the order in which they opened; the first takes the lock.
            let waiting = self.lock_waiters.remove(&target).unwrap_or_default();
            work.commands
                .extend(waiting.into_iter().map(|id| (id, Command::AskGuards)));
        }
    }

    fn verified(
        &mut self,
        work: &mut Work,
        context: &Context<'_>,
        id: IncidentId,
        deadline: Timestamp,
        finding: Finding,
    ) {
        // An answer to an earlier verification says nothing about this one.
        let current = self.incidents.get(&id).is_some_and(|incident| {
            let same =
                matches!(incident.phase, Phase::Verifying { deadline: d, .. } if d == deadline);
            let watched = incident.plan.verify.check != VerifyCheck::AlertResolved;
            // It fired again while it was watched.
            let stale = matches!(finding, Finding::Holds(_)) && !incident.resolved();
            same && (watched || !stale)
        });
        if !current {
            return;
        }
        let unknown = matches!(finding, Finding::Unknown(_));
        let (passed, detail) = match finding {
            Finding::Holds(detail) => (true, detail),
            Finding::Fails(detail) | Finding::Unknown(detail) => (false, detail),
        };
        work.turn.notes.push(Note::Verified {
            incident: id,
            passed,
            detail: detail.clone(),
        });
        let body = if passed {
            EventBody::VerificationPassed { detail }
        } else {
            EventBody::VerificationFailed { detail, unknown }
        };
        self.record(work, context, id, body);
    }

    fn fire_timers(&mut self, work: &mut Work, context: &Context<'_>) {
        let now = context.now;
        // Those that are set meanwhile are for a later turn, whatever they are set to.
        let later = self.timers.split_off(&(now, IncidentId(u64::MAX)));
        let due = std::mem::replace(&mut self.timers, later);
        for (_, id) in due {
            let Some(incident) = self.incidents.get(&id) else {
                continue;
            };
            if incident.due().is_none_or(|due| due > now) {
                // The state has moved on since the timer was set.
                let due = incident.due().map(|due| (due, id));
                let due = due.filter(|_| !active(Mutation::TimerDropped));
                self.timers.extend(due);
                continue;
            }
            if incident.outlived(now) {
                self.record(work, context, id, EventBody::Expired);
            } else {
                self.wake(work, context, id);
            }
            self.settle(work, context);
        }
    }

    fn wake(&mut self, work: &mut Work, context: &Context<'_>, id: IncidentId) {
        let Some(incident) = self.incidents.get(&id) else {
            return;
        };
        match &incident.phase {
            Phase::Held(hold) => {
                if incident.told_at().is_some_and(|at| at <= context.now) {
                    let reason = held_long(incident, hold);
                    self.record(work, context, id, EventBody::HeldLong { reason });
                }
                work.commands.push_back((id, Command::AskGuards));
            }
            Phase::BackingOff { .. } => self.record(work, context, id, EventBody::TimerFired),
            Phase::AwaitingApproval { plan, until, .. } if *until <= context.now => {
                let plan = *plan;
                self.record(work, context, id, EventBody::ApprovalExpired { plan });
            }
            Phase::AwaitingApproval { plan, since, .. } => {
                let plan = plan.short();
                let reason = format!("plan {plan} waits for approval since {since}");
                self.record(work, context, id, EventBody::HeldLong { reason });
                let due = self.incidents.get(&id).and_then(Incident::due);
                self.timers.extend(due.map(|due| (due, id)));
            }
            // Once it has resolved it is watched whether it stays so.
            Phase::Verifying { deadline, .. }
                if incident.plan.verify.check == VerifyCheck::AlertResolved
                    && !incident.resolved() =>
            {
                let within = crate::duration::HumanDuration(incident.plan.verify.within);
                let detail = format!("the alert still fires after {within}");
                let deadline = *deadline;
                self.verified(work, context, id, deadline, Finding::Fails(detail));
            }
            _ => {}
        }
    }

    /// Carries out the commands that wait, and gives free places away.
    fn settle(&mut self, work: &mut Work, context: &Context<'_>) {
        loop {
            while let Some((id, command)) = work.commands.pop_front() {
                self.carry_out(work, context, id, command);
            }
            if !context.stopping
                && let Some(id) = self.tells.next()
            {
                self.start_telling(work, context, id);
                continue;
            }
            let Some(id) = self.places.next() else { break };
            let command = self
                .incidents
                .get(&id)
                .map(|incident| match incident.phase {
                    Phase::Escalating { .. } => incident.resume(),
                    _ => vec![Command::AskGuards],
                });
            work.commands
                .extend(command.into_iter().flatten().map(|command| (id, command)));
        }
    }

    fn carry_out(
        &mut self,
        work: &mut Work,
        context: &Context<'_>,
        id: IncidentId,
        command: Command,
    ) {
        match command {
            // What was not begun is begun by the next daemon, which asks the guards anew.
            Command::AskGuards
            | Command::StartRun { .. }
            | Command::ResumeRun { .. }
            | Command::AskPolicy
                if context.stopping => {}
            // Whoever waits to be told is taken from the queue.
            Command::Tell => {}
            Command::AskPolicy => {
                self.ask_policy(work, context, id);
            }
            Command::AskGuards => self.ask_guards(work, context, id),
            Command::StartRun { run, rung, mode } => self.start(work, context, run, rung, mode),
            Command::ResumeRun { run } => {
                // An alert that resolved in this same turn has ended the incident.
                let waits = self
                    .incidents
                    .get(&id)
                    .is_some_and(|incident| matches!(incident.phase, Phase::Starting { .. }));
                if waits {
                    self.go_on_with(work, context, run);
                }
            }
            Command::StopRun { run, cause } => work.turn.actions.push(Action::Stop {
                run,
                cause,
                message: stop_message(cause).to_owned(),
            }),
            Command::Verify { deadline } => self.verify(work, id, deadline),
            Command::WakeAt(at) => {
                self.timers.insert((at, id));
            }
            Command::Release => self.release(context, work, id),
        }
    }

    fn verify(&mut self, work: &mut Work, id: IncidentId, deadline: Timestamp) {
        let Some(incident) = self.incidents.get(&id) else {
            return;
        };
        let verify = &incident.plan.verify;
        // Nothing to look at: the resolved notification is the answer.
        if verify.check == VerifyCheck::AlertResolved && !incident.resolved() {
            self.timers.insert((deadline, id));
            return;
        }
        work.turn.actions.push(Action::Verify(Box::new(VerifyOrder {
            incident: id,
            target: incident.target.clone(),
            check: verify.check.clone(),
            every: verify.every,
            deadline,
            steady: verify.steady(),
            untouched: incident.untouched(deadline),
        })));
    }

    /// Begins a run of what an incident does, if it still wants it.
    fn start(
        &mut self,
        work: &mut Work,
        context: &Context<'_>,
        run: RunId,
        rung: Rung,
        mode: RunMode,
    ) {
        let Some(incident) = self.incidents.get(&run.incident) else {
            return;
        };
        let escalating = matches!(incident.phase, Phase::Escalating { run: None, .. });
        // An alert that resolved in this same turn has ended the incident.
        if !escalating && !matches!(incident.phase, Phase::Starting { .. }) {
            return;
        }
        if escalating && !self.places.room(incident) {
            self.places.wait(incident);
            return;
        }
        self.begin(work, context, run, rung, mode);
    }

    /// Begins a run, for whatever it is.
    fn begin(
        &mut self,
        work: &mut Work,
        context: &Context<'_>,
        run: RunId,
        rung: Rung,
        mode: RunMode,
    ) {
        let id = run.incident;
        let Some(incident) = self.incident(id) else {
            return;
        };
        let Some(plugin) = incident.plugin(rung.step).cloned() else {
            return;
        };
        let version = context.world.plugin(&plugin);
        // Policies are checked against the plugins that serve: without one it was taken
        // away while this incident was open.
        let served = version.is_some();
        let version = version.unwrap_or_else(|| PluginVersion {
            version: "none".to_owned(),
            digest: incident.plan.digest,
        });
        let order = self.order(run, rung, mode, version.digest, false);
        work.turn.notes.push(Note::RunStarted {
            run,
            plugin: plugin.name.clone(),
            digest: version.digest,
            rung,
            mode,
        });
        let body = EventBody::RunStarted {
            run,
            step: rung.step,
            attempt: rung.attempt,
            plugin: plugin.name.clone(),
            version: version.version,
            digest: version.digest,
            pinned: plugin.pin.is_some(),
            mode,
        };
        self.record(work, context, id, body);
        match order {
            Some(order) if served => work.turn.actions.push(Action::Run(Box::new(order))),
            _ => {
                let result = RunResult::Failed {
                    class: FailureClass::Permanent,
                    message: format!("no plugin named {plugin} serves"),
                };
                work.turn.notes.push(Note::RunNotServed {
                    run,
                    plugin: plugin.name,
                    result: result.clone(),
                });
                self.record(work, context, id, EventBody::RunEnded { run, result });
            }
        }
    }

    /// Lets a run go on from its record.
    fn go_on_with(&mut self, work: &mut Work, context: &Context<'_>, run: RunId) {
        let id = run.incident;
        let Some(incident) = self.incidents.get(&id) else {
            return;
        };
        let (rung, mode) = match &incident.phase {
            Phase::Starting { rung, mode } | Phase::Running { rung, mode, .. } => (*rung, *mode),
            Phase::Escalating { attempt, .. } => (
                Rung {
                    step: 0,
                    attempt: *attempt,
                },
                RunMode::Live,
            ),
            _ => return,
        };
        // What happened while nobody could stop it.
        let stop = if incident.cancelled.is_some() {
            Some(StopCause::Cancelled)
        } else if incident.resolved() && rung.step > 0 {
            Some(StopCause::Cleared)
        } else {
            None
        };
        self.resume(work, context, run, rung, mode, stop);
    }

    /// Lets a run go on, for whatever it is; `stop` is why it is to end all the same.
    fn resume(
        &mut self,
        work: &mut Work,
        context: &Context<'_>,
        run: RunId,
        rung: Rung,
        mode: RunMode,
        stop: Option<StopCause>,
    ) {
        let id = run.incident;
        let Some(incident) = self.incident(id) else {
            return;
        };
        // The executor finds the version that acted in the run's own events.
        let order = self.order(run, rung, mode, incident.plan.digest, true);
        self.record(work, context, id, EventBody::RunResumed { run });
        work.turn.notes.push(Note::RunResumed { run });
        if let Some(order) = order {
            work.turn.actions.push(Action::Run(Box::new(order)));
        }
        work.turn.actions.extend(stop.map(|cause| Action::Stop {
            run,
            cause,
            message: stop_message(cause).to_owned(),
        }));
    }

    fn order(
        &self,
        run: RunId,
        rung: Rung,
        mode: RunMode,
        digest: Digest,
        resume: bool,
    ) -> Option<Order> {
        let incident = self.incident(run.incident)?;
        let plugin = incident.plugin(rung.step)?.name.clone();
        let (params, timeout, on_interrupt) = if rung.step == 0 {
            let escalate = incident.plan.escalate.as_ref()?;
            (
                escalate.params.clone(),
                escalate.timeout,
                // To be told twice is better than not at all; but for an end.
                match &incident.telling {
                    Some(telling) if telling.notice == Notice::End => OnInterrupt::Escalate,
                    _ => OnInterrupt::Rerun,
                },
            )
        } else {
            let step = incident.step(rung.step)?;
            (step.params.clone(), step.timeout, step.on_interrupt)
        };
        Some(Order {
            run,
            rung,
            mode,
            resume,
            plugin,
            digest,
            policy: incident.plan.policy.clone(),
            target: incident.target.clone(),
            thing: incident.thing().clone(),
            alert: incident.alert.clone(),
            params,
            timeout,
            on_interrupt,
            plan: incident.plan.clone(),
            effects: if mode == RunMode::Apply {
                incident.planned.clone()
            } else {
                Vec::new()
            },
            evidence: (!incident.evidence && rung.step > 0 && incident.plan.evidence > 0)
                .then_some(incident.plan.evidence),
        })
    }

    fn release(&mut self, context: &Context<'_>, work: &mut Work, id: IncidentId) {
        let Some(incident) = self.incidents.get(&id) else {
            return;
        };
        let key = (incident.plan.policy.clone(), incident.thing().clone());
        let end = match &incident.phase {
            Phase::Ended { end, .. } => *end,
            _ => return,
        };
        let last_run_at = incident.last_run_at;
        let mut standing = self.standing(work, context, &key);
        standing.last_run_at = standing.last_run_at.max(last_run_at);
        match end {
            End::Escalated => {
                standing.failures = (standing.failures + 1).min(Standing::COUNTED);
                standing.failed_at = Some(context.now);
            }
            End::Healed | End::Cleared => standing.failures = 0,
            End::Suppressed | End::Cancelled => {}
        }
        self.fresh.standings.insert(key, standing);
    }

    /// How a policy has fared on a target, this turn included. On an error of the
    /// journal as if it had acted just now: not known is not over.
    fn standing(
        &self,
        work: &mut Work,
        context: &Context<'_>,
        key: &(PolicyName, Target),
    ) -> Standing {
        if let Some(standing) = self.fresh.standings.get(key) {
            return *standing;
        }
        match context.world.history().standing(&key.0, &key.1) {
            Ok(standing) => standing,
            Err(error) => {
                work.turn
                    .notes
                    .push(Note::HistoryFailed("a standing", error));
                Standing {
                    last_run_at: Some(context.now),
                    ..Standing::default()
                }
            }
        }
    }

    /// Makes the turn ready to be committed, and takes incidents that have ended out.
    fn finish(&mut self, mut work: Work, context: &Context<'_>) -> Turn {
        self.settle(&mut work, context);
        self.tell_of_mended(&mut work, context);
        self.identities.tidy(context.now);
        for id in std::mem::take(&mut work.touched) {
            let Some(incident) = self.incident(id) else {
                continue;
            };
            let row = IncidentRow::from(incident);
            work.turn.append.incidents.push(row);
            let (ended, owes) = (incident.ended(), incident.owes_end());
            if ended && self.incidents.contains_key(&id) {
                self.forget(&mut work.turn, id);
            } else if !owes {
                self.quit(id);
            }
        }
        work.turn
    }

    /// Takes an incident that has ended out of memory.
    fn forget(&mut self, turn: &mut Turn, id: IncidentId) {
        let Some(incident) = self.incidents.remove(&id) else {
            return;
        };
        self.places.forget(id);
        self.stale.remove(&id);
        self.waiting.remove(&id);
        turn.actions.push(Action::Forget(id));
        let key = (incident.plan.policy.clone(), incident.thing().clone());
        if self.by_target.get(&key) == Some(&id) {
            self.by_target.remove(&key);
        }
        if let Some(open) = self.open.get_mut(&key.0) {
            *open -= 1;
            if *open == 0 {
                self.open.remove(&key.0);
            }
        }
        if let Some(waiting) = self.lock_waiters.get_mut(incident.thing()) {
            waiting.remove(&id);
            if waiting.is_empty() {
                self.lock_waiters.remove(incident.thing());
            }
        }
        turn.notes.push(Note::Ended(Box::new(incident.clone())));
        if incident.owes_end() {
            self.owing.insert(id, incident);
        } else {
            self.unlist(&incident);
        }
    }

    /// An alert of it is nothing to it any more.
    fn unlist(&mut self, incident: &Incident) {
        for key in incident.alerts.keys() {
            if let Some(ids) = self.by_alert.get_mut(key) {
                ids.remove(&incident.id);
                if ids.is_empty() {
                    self.by_alert.remove(key);
                }
            }
        }
    }
}

/// Why a person has to hear of an incident that a guard holds.
fn held_long(incident: &Incident, hold: &Hold) -> String {
    let (since, reason) = match &incident.held {
        Some((since, reason)) => (*since, reason.as_str()),
        None => (incident.opened_at, ""),
    };
    let until = match hold.until {
        Some(until) => format!(" until {until}"),
        None => String::new(),
    };
    format!(
        "nothing is done while the alert fires: held back since {since}, now by {}{until}: {reason}",
        hold.guard.as_str()
    )
}

fn stop_message(cause: StopCause) -> &'static str {
    match cause {
        StopCause::Paused => "paused",
        StopCause::Rate => "a limit on effects has no room",
        StopCause::Cleared => "the alert resolved",
        StopCause::Cancelled => "cancelled by an operator",
        StopCause::Deviated => "deviated from the approved plan",
        StopCause::Nondeterministic => "did something else than its record has",
        StopCause::InDoubt => "whether an effect was carried out cannot be told",
        StopCause::Mistaken => "about to act on something else than its incident is about",
    }
}

/// When a notification said what it says: when it was accepted. Where that is in the future,
/// the clock was set back.
fn said_at(accepted: &Accepted, context: &Context<'_>) -> Timestamp {
    accepted.received_at.min(context.now)
}

/// The journal keeps microseconds: what is compared with it must not be finer.
fn whole_micros(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}
