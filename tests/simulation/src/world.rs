//! The world around the engine: a daemon that drives it as the real one does, and
//! everything that the daemon has to do with.
//!
//! There are no threads and there is no clock: what is to happen stands in one queue, by
//! time, and happens one after the other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sentinel_core::alert::{Alert, AlertStatus, Fingerprint, Labels};
use sentinel_core::capability::{CapabilityError, Request};
use sentinel_core::control::{Controls, Scope};
use sentinel_core::engine::{
    Action, Engine, Finding, Identity, Input, Member, Note, Operator, Order, PluginVersion, Turn,
    VerifyOrder, World as Outlook,
};
use sentinel_core::event::{
    CallResult, Event, EventBody, FailureClass, PlannedEffect, RunMode, RunResult, StopCause,
};
use sentinel_core::guard::limits::{EffectWindows, mistaken, on_account_of, tells};
use sentinel_core::guard::settings::Fleet;
use sentinel_core::id::{Digest, IncidentId, PluginRef, RunId, Target};
use sentinel_core::incident::{OnInterrupt, Phase};
use sentinel_core::policy::PolicySet;
use sentinel_core::record::{Accepted, Append, History, PastEffect, Priority, earlier};

use crate::check::{Checked, Checker, Given, invariant, violation};
use crate::docker::{CONTAINERS, Docker, Settled, id_of, moment, named};
use crate::journal::Journal;
use crate::rng::mix;
use crate::run::{Doing, Run, record};
use crate::scenario::{Act, Ending, Mood, Scenario, What};
use crate::script::{Next, Script};
use crate::setup::{ALERTS, LONGEST_TTL, START, policy_set};
use crate::story::Story;

const MILLIS: i64 = 1_000;
const SECOND: i64 = 1_000_000;
/// How long a driver waits for its other side.
const DRIVER_TIMEOUT: i64 = 30 * SECOND;
/// How many seconds pass until a sender says the same again.
const REMINDERS: [i64; 3] = [50, 150, 400];
const PEOPLE: [&str; 3] = ["ann", "bob", "carl"];
/// What is drawn by name; see [`mix`].
mod draw {
    pub(super) const LATENCY: u64 = 1;
    pub(super) const OUTCOME: u64 = 2;
    pub(super) const REACHED: u64 = 3;
    pub(super) const SETTLE: u64 = 4;
    pub(super) const TURN: u64 = 5;
    pub(super) const REPLICA: u64 = 6;
    pub(super) const SCRIPT: u64 = 7;
    pub(super) const LOST: u64 = 8;
    pub(super) const FLEET: u64 = 9;
    pub(super) const COPY: u64 = 10;
    pub(super) const AGAIN: u64 = 11;
    pub(super) const SPELLING: u64 = 12;
    pub(super) const IDENTITY: u64 = 13;
}

/// What is to happen.
#[derive(Debug)]
enum Task {
    Happen(usize),
    Act {
        act: Act,
        draw: u64,
    },
    Deliver(Box<Delivery>),
    Remind {
        alert: usize,
        episode: u32,
        replica: u32,
    },
    Restart,
    // The rest is the daemon's, and dies with it.
    Turn,
    Commit,
    Exit {
        down: Duration,
    },
    Step(RunId),
    Look {
        incident: IncidentId,
        deadline: Timestamp,
    },
    Fleet(Fleet),
    Identify(Target),
}

/// A notification on its way.
#[derive(Debug)]
struct Delivery {
    alerts: Vec<Arc<Alert>>,
    replica: u32,
    tries: u32,
}

#[derive(Debug)]
struct Source {
    labels: Labels,
    annotations: Labels,
    starts_at: i64,
    firing: bool,
    episode: u32,
    // What was said of it, for those who say it again.
    said: Vec<Arc<Alert>>,
}

/// The daemon's memory: gone when it is killed.
struct Daemon {
    engine: Engine,
    windows: EffectWindows,
    // What the gate goes by: as of the last commit.
    controls: Controls,
    inputs: VecDeque<Input>,
    deferred: Vec<Accepted>,
    pending: Option<Pending>,
    runs: BTreeMap<RunId, Run>,
    verifications: BTreeMap<IncidentId, Box<VerifyOrder>>,
    // Since when they hold.
    holds: BTreeMap<IncidentId, i64>,
    looks: Vec<(Timestamp, Fleet, Vec<Member>)>,
    // The looks at fleets that are on their way.
    asked: Vec<Fleet>,
    // Targets of which Docker did not say what they are when it was asked last.
    unnamed: BTreeSet<Target>,
    // Events that the journal has and the engine was not told of.
    unknown: BTreeMap<IncidentId, u32>,
    next_turn: Option<i64>,
    stopping: bool,
    // Whether the engine was told of the policies that serve.
    told_of_policies: bool,
}

struct Pending {
    turn: Turn,
    given: Given,
}

struct View<'a> {
    policies: &'a PolicySet,
    journal: &'a Journal,
    gone: &'a BTreeMap<&'static str, i64>,
    now: i64,
}

impl Outlook for View<'_> {
    fn policies(&self) -> &PolicySet {
        self.policies
    }

    fn plugin(&self, plugin: &PluginRef) -> Option<PluginVersion> {
        let name = plugin.name.as_str();
        let gone = self.gone.get(name);
        gone.is_none_or(|until| *until <= self.now)
            .then(|| PluginVersion {
                version: "1.0.0".to_owned(),
                digest: Digest::of(name.as_bytes()),
            })
    }

    fn history(&self) -> &dyn History {
        self.journal
    }
}

/// What a step of the simulation comes to.
type Step = Checked;

/// The world; see the module.
pub(crate) struct World<'a> {
    scenario: &'a Scenario,
    story: &'a mut Story,
    now: i64,
    // What the daemon's clock is ahead.
    offset: i64,
    queue: BTreeMap<(i64, u64), (u32, Task)>,
    serial: u64,
    journal: Journal,
    docker: Docker,
    checker: Checker,
    policies: Arc<PolicySet>,
    sources: Vec<Source>,
    daemon: Option<Daemon>,
    // Which daemon it is; what belongs to an earlier one is void.
    life: u32,
    // After how many more points it is killed, for how long, and how often again.
    doom: Option<(u32, Duration, u32)>,
    disk_full_until: i64,
    gone: BTreeMap<&'static str, i64>,
    mood: (Mood, i64),
    faults: bool,
    // Calls of which nobody could tell whether they were carried out, and that were
    // begun again because the policy says so.
    doubts: BTreeMap<(RunId, u32), u32>,
    steps: u64,
}

impl<'a> World<'a> {
    pub(crate) fn new(scenario: &'a Scenario, story: &'a mut Story) -> Self {
        let sources = scenario
            .alerts
            .iter()
            .enumerate()
            .map(|(index, (name, container))| {
                let severity = ["critical", "warning", "info"][index % 3];
                let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
                let labels = Labels::from([
                    pair("alertname", ALERTS[*name]),
                    pair("container", &spelled(scenario.seed, index, *container)),
                    pair("severity", severity),
                    pair("job", &index.to_string()),
                ]);
                let asked = index % 4 == 1;
                let annotations = asked.then(|| pair("requested_by", PEOPLE[0]));
                Source {
                    labels,
                    annotations: annotations.into_iter().collect(),
                    starts_at: START,
                    firing: false,
                    episode: 0,
                    said: Vec::new(),
                }
            })
            .collect();
        let mut world = Self {
            scenario,
            story,
            now: START,
            offset: 0,
            queue: BTreeMap::new(),
            serial: 0,
            journal: Journal::default(),
            docker: Docker::new(),
            checker: Checker::new(
                scenario.settings.clone(),
                !scenario.happenings.iter().any(|happening| {
                    let what = &happening.what;
                    matches!(
                        what,
                        What::Policies { .. } | What::Clock { .. } | What::DiskFull { .. }
                    )
                }),
            ),
            policies: policy_set(scenario.policies),
            sources,
            daemon: None,
            life: 0,
            doom: None,
            disk_full_until: 0,
            gone: BTreeMap::new(),
            mood: (Mood::Good, 0),
            faults: true,
            doubts: BTreeMap::new(),
            steps: 0,
        };
        for (index, happening) in scenario.happenings.iter().enumerate() {
            world.at(START + micros(happening.at), Task::Happen(index));
        }
        world.at(START, Task::Restart);
        world
    }

    /// How many incidents and effects there were, and how many steps it took.
    pub(crate) fn counts(&self) -> (usize, usize, u64) {
        let (incidents, effects) = self.checker.counts();
        (incidents, effects, self.steps)
    }

    /// The events of each incident.
    pub(crate) fn record(&self) -> Vec<Vec<Event>> {
        self.journal.record().map(<[Event]>::to_vec).collect()
    }

    /// Plays the scenario to its end.
    pub(crate) fn play(&mut self) -> Checked {
        let until = START + micros(self.scenario.until);
        self.play_until(until, false)?;
        self.story.tell(self.now, || {
            format!("the faults stop; the senders {:?}", self.scenario.ending)
        });
        self.stop_faults();
        // What waits for room comes after what waits for its time.
        let horizon = self.now + 32 * micros(LONGEST_TTL);
        self.play_until(horizon, true)?;
        self.at_the_end()
    }

    fn play_until(&mut self, until: i64, to_the_end: bool) -> Checked {
        while let Some((at, _)) = self.queue.first_key_value().map(|(key, _)| *key) {
            if at > until || (to_the_end && self.quiet()) {
                break;
            }
            let Some((_, (life, task))) = self.queue.pop_first() else {
                break;
            };
            self.now = self.now.max(at);
            let of_daemon = !matches!(
                task,
                Task::Happen(_)
                    | Task::Act { .. }
                    | Task::Deliver(_)
                    | Task::Remind { .. }
                    | Task::Restart
            );
            if of_daemon && (life != self.life || self.daemon.is_none()) {
                continue;
            }
            self.steps += 1;
            if self.steps > 100_000 {
                let detail = "the simulation goes on and on".to_owned();
                return Err(violation(invariant::END, detail));
            }
            self.carry_out(task)?;
        }
        if !to_the_end {
            self.now = until;
        }
        Ok(())
    }

    /// Whether nothing is open any more, and nothing can come.
    fn quiet(&self) -> bool {
        let idle = self.daemon.as_ref().is_some_and(|daemon| {
            daemon.inputs.is_empty()
                && daemon.deferred.is_empty()
                && daemon.pending.is_none()
                && daemon.engine.incidents().next().is_none()
        });
        let delivering = || {
            self.queue
                .values()
                .any(|(_, task)| matches!(task, Task::Deliver(_) | Task::Restart))
        };
        idle && self.journal.inbox().is_empty() && !delivering()
    }

    fn at_the_end(&self) -> Checked {
        let open: Vec<_> = self
            .checker
            .open()
            .map(|incident| format!("{} is {:?}", incident.id, incident.phase))
            .collect();
        if !open.is_empty() {
            return Err(violation(invariant::END, open.join(", ")));
        }
        let inbox = self.journal.inbox();
        if inbox.is_empty() {
            return Ok(());
        }
        let detail = format!("rows {:?} of the inbox wait for ever", inbox.keys());
        Err(violation(invariant::LOST, detail))
    }

    fn stop_faults(&mut self) {
        self.faults = false;
        self.doom = None;
        self.disk_full_until = 0;
        self.gone.clear();
        self.mood = (Mood::Good, 0);
        self.queue
            .retain(|_, (_, task)| !matches!(task, Task::Act { .. }));
        if self.scenario.ending == Ending::Resolve {
            for alert in 0..self.sources.len() {
                if self.sources[alert].episode > 0 {
                    self.sources[alert].firing = false;
                    self.announce(alert);
                }
            }
        }
    }

    fn at(&mut self, at: i64, task: Task) {
        self.serial += 1;
        self.queue.insert((at, self.serial), (self.life, task));
    }

    fn draw(&self, name: &[u64]) -> u64 {
        mix(self.scenario.seed, name)
    }

    fn wall(&self) -> Timestamp {
        moment(self.now + self.offset)
    }

    fn disk_is_full(&self) -> bool {
        self.now < self.disk_full_until
    }

    fn mood(&self) -> Mood {
        if self.now < self.mood.1 {
            self.mood.0
        } else {
            Mood::Good
        }
    }

    /// A point at which the daemon can be killed. True when it was.
    fn killed(&mut self, point: &str) -> bool {
        let Some((points, down, again)) = self.doom else {
            return false;
        };
        if points > 0 {
            self.doom = Some((points - 1, down, again));
            return false;
        }
        self.story
            .tell(self.now, || format!("KILLED {point}, for {down:?}"));
        self.doom = again.checked_sub(1).map(|again| {
            let points = self.draw(&[draw::AGAIN, u64::from(self.life)]) % 14;
            (points as u32, down, again)
        });
        self.die(down);
        true
    }

    fn die(&mut self, down: Duration) {
        // What had reached Docker is done all the same.
        let daemon = self.daemon.take();
        for (run, state) in daemon.into_iter().flat_map(|daemon| daemon.runs) {
            if let Doing::Acting {
                call,
                request,
                carried_out: true,
                ..
            } = &state.doing
            {
                let name = [draw::REACHED, run.incident.0, u64::from(run.number)];
                if self.draw(&name) % 2 == 0 {
                    self.story.tell(self.now, || {
                        format!("run {run}: {} is done", request.summary())
                    });
                    self.docker.carry_out((run, *call), request);
                }
            }
        }
        self.life += 1;
        self.at(self.now + micros(down), Task::Restart);
    }

    fn carry_out(&mut self, task: Task) -> Step {
        match task {
            Task::Happen(index) => self.happen(index),
            Task::Act { act, draw } => self.operate(act, draw),
            Task::Deliver(delivery) => self.deliver(*delivery),
            Task::Remind {
                alert,
                episode,
                replica,
            } => self.remind(alert, episode, replica),
            Task::Restart => self.start(),
            Task::Turn => self.turn(),
            Task::Commit => self.commit(),
            Task::Exit { down } => {
                self.story.tell(self.now, || "the daemon ends".to_owned());
                self.die(down);
                Ok(())
            }
            Task::Step(run) => self.step(run),
            Task::Look { incident, deadline } => self.look(incident, deadline),
            Task::Fleet(fleet) => self.fleet(fleet),
            Task::Identify(target) => self.identify(target),
        }
    }

    fn happen(&mut self, index: usize) -> Step {
        let happening = &self.scenario.happenings[index];
        let (what, number) = (happening.what.clone(), happening.draw);
        self.story.tell(self.now, || what.to_string());
        match what {
            What::Fire { alert, again } => {
                let source = &mut self.sources[alert];
                if !again || source.episode == 0 {
                    source.starts_at = self.now;
                }
                source.firing = true;
                source.episode += 1;
                self.announce(alert);
            }
            What::Resolve { alert, told } => {
                let source = &mut self.sources[alert];
                if source.firing {
                    source.firing = false;
                    if told {
                        self.announce(alert);
                    }
                }
            }
            What::Stale { alert } => {
                let said = &self.sources[alert].said;
                if !said.is_empty() {
                    let index = number as usize % said.len();
                    let alerts = vec![said[index].clone()];
                    self.send(alerts, 0, 0);
                }
            }
            What::Afflict {
                container,
                health,
                stubborn,
            } => self.docker.afflict(CONTAINERS[container], health, stubborn),
            What::Crash {
                points,
                down,
                again,
            } => self.doom = Some((points, down, again)),
            What::Stop { grace, down } => {
                if let Some(daemon) = &mut self.daemon
                    && !daemon.stopping
                {
                    daemon.stopping = true;
                    self.at(self.now + micros(grace), Task::Exit { down });
                }
            }
            What::DiskFull { lasts } => self.disk_full_until = self.now + micros(lasts),
            What::Clock { by } => {
                self.offset += by * SECOND;
                self.checker.clock_set(by);
                self.wake();
            }
            What::Policies { set } => {
                self.policies = policy_set(set);
                if let Some(daemon) = &mut self.daemon {
                    daemon.told_of_policies = false;
                    daemon.inputs.push_back(Input::PoliciesChanged);
                }
                self.wake();
            }
            What::PluginGone { plugin, lasts } => {
                self.gone.insert(plugin, self.now + micros(lasts));
            }
            What::Drivers { mood, lasts } => self.mood = (mood, self.now + micros(lasts)),
            What::Operator(act) => {
                // Who approves looks again a little later, or calls another.
                let times: &[i64] = match act {
                    Act::Approve => &[0, 15, 70],
                    _ => &[0],
                };
                for (nth, seconds) in times.iter().enumerate() {
                    let draw = mix(number, &[nth as u64]);
                    self.at(self.now + seconds * SECOND, Task::Act { act, draw });
                }
            }
        }
        Ok(())
    }

    // ---- senders

    fn alert(&self, index: usize) -> Arc<Alert> {
        let source = &self.sources[index];
        let status = if source.firing {
            AlertStatus::Firing
        } else {
            AlertStatus::Resolved
        };
        Arc::new(Alert {
            source: "alertmanager".to_owned(),
            fingerprint: Fingerprint::of(&source.labels),
            status,
            labels: source.labels.clone(),
            annotations: source.annotations.clone(),
            starts_at: moment(source.starts_at),
            ends_at: (status == AlertStatus::Resolved).then(|| moment(self.now)),
            generator_url: None,
        })
    }

    /// Every replica tells of an alert as it is now.
    fn announce(&mut self, index: usize) {
        let alert = self.alert(index);
        self.sources[index].said.push(alert.clone());
        let episode = self.sources[index].episode;
        for replica in 0..self.scenario.replicas {
            let name = [draw::REPLICA, index as u64, self.now as u64, replica.into()];
            let number = self.draw(&name);
            // The first is quick, the others now and then slow enough to be overtaken.
            let delay = match (replica, number % 4) {
                (0, 0..=2) => number % 900,
                (_, 0..=2) => number % 20_000,
                _ => number % 300_000,
            };
            self.send(vec![alert.clone()], replica, delay as i64 * MILLIS);
            if self.sources[index].firing {
                let interval = REMINDERS[(number >> 20) as usize % REMINDERS.len()];
                let remind = Task::Remind {
                    alert: index,
                    episode,
                    replica,
                };
                self.at(self.now + interval * SECOND, remind);
            }
        }
    }

    fn remind(&mut self, alert: usize, episode: u32, replica: u32) -> Step {
        let source = &self.sources[alert];
        if !source.firing || source.episode != episode || !self.faults {
            return Ok(());
        }
        let name = [draw::REPLICA, alert as u64, self.now as u64, replica.into()];
        let number = self.draw(&name);
        // Now and then with what else fires.
        let group =
            |index: &usize| *index == alert || (number % 5 == 0 && self.sources[*index].firing);
        let alerts = (0..self.sources.len()).filter(group);
        let alerts = alerts.map(|index| self.alert(index)).collect();
        self.send(alerts, replica, 0);
        let interval = REMINDERS[(number >> 8) as usize % REMINDERS.len()];
        let remind = Task::Remind {
            alert,
            episode,
            replica,
        };
        self.at(self.now + interval * SECOND, remind);
        Ok(())
    }

    fn send(&mut self, alerts: Vec<Arc<Alert>>, replica: u32, delay: i64) {
        let delivery = Delivery {
            alerts,
            replica,
            tries: 0,
        };
        self.at(self.now + delay, Task::Deliver(Box::new(delivery)));
    }

    fn deliver(&mut self, mut delivery: Delivery) -> Step {
        let open = self.daemon.as_ref().is_some_and(|daemon| !daemon.stopping);
        if !open || self.disk_is_full() {
            self.again(delivery);
            return Ok(());
        }
        let accepted = self.journal.accept(&delivery.alerts, self.wall());
        self.checker.accepted(&accepted);
        let replica = delivery.replica;
        for one in &accepted {
            self.story.tell(self.now, || {
                let repeat = if one.repeat { ", again" } else { "" };
                format!(
                    "accepted #{} from replica {replica}: {} {} of {} since {}{repeat}",
                    one.seq,
                    one.alert.name(),
                    one.alert.status,
                    one.alert.labels["container"],
                    one.alert.starts_at
                )
            });
        }
        if self.killed("after accepting, before the answer") {
            delivery.tries += 1;
            self.again(delivery);
            return Ok(());
        }
        if let Some(daemon) = &mut self.daemon {
            daemon
                .inputs
                .extend(accepted.into_iter().map(Input::Accepted));
        }
        self.wake();
        Ok(())
    }

    /// Not 2xx: the sender comes again.
    fn again(&mut self, mut delivery: Delivery) {
        delivery.tries += 1;
        let wait = (1 << delivery.tries.min(5)) * SECOND;
        if delivery.tries < 200 {
            self.at(self.now + wait, Task::Deliver(Box::new(delivery)));
        }
    }

    // ---- operators

    fn operate(&mut self, act: Act, number: u64) -> Step {
        let wall = self.wall();
        let Some(daemon) = self.daemon.as_ref().filter(|daemon| !daemon.stopping) else {
            return Ok(());
        };
        let by = PEOPLE[number as usize % PEOPLE.len()].to_owned();
        let reason = "because".to_owned();
        let open: Vec<_> = daemon.engine.incidents().collect();
        let picked = (!open.is_empty()).then(|| open[(number >> 8) as usize % open.len()]);
        let scope = match (number >> 16) % 3 {
            0 => Some(Scope::All),
            1 => picked.map(|incident| Scope::Policy(incident.plan.policy.clone())),
            _ => picked.map(|incident| Scope::Target(incident.target.clone())),
        };
        let waiting = || {
            open.iter().filter_map(|incident| match &incident.phase {
                Phase::AwaitingApproval { plan, .. } => Some((incident.id, *plan)),
                _ => None,
            })
        };
        let operators: Vec<_> = match act {
            Act::Pause => {
                let seconds = [0, 10, 60, 600][(number >> 24) as usize % 4];
                let until =
                    (seconds > 0).then(|| moment(self.now + self.offset + seconds * SECOND));
                let until = until.filter(|until| *until > wall);
                let pause = scope.map(|scope| Operator::Pause {
                    scope,
                    until,
                    by,
                    reason,
                });
                pause.into_iter().collect()
            }
            Act::Resume => daemon
                .engine
                .controls()
                .pauses(wall)
                .map(|pause| Operator::Resume {
                    scope: pause.scope.clone(),
                    by: by.clone(),
                })
                .collect(),
            Act::Approve if number % 5 == 1 => {
                // At the last moment.
                let until = open.iter().find_map(|incident| match &incident.phase {
                    Phase::AwaitingApproval { until, .. } => Some(*until),
                    _ => None,
                });
                if let Some(until) = until {
                    let early = (number >> 32) as i64 % 20;
                    let at = until.as_microsecond() - self.offset - early * MILLIS;
                    let draw = number.wrapping_add(1);
                    self.at(at.max(self.now + 1), Task::Act { act, draw });
                }
                return Ok(());
            }
            Act::Approve => waiting()
                .map(|(incident, plan)| Operator::Approve {
                    incident,
                    // Sometimes that of a page that was not loaded again.
                    plan: if number % 13 == 0 {
                        Digest::of(b"old")
                    } else {
                        plan
                    },
                    by: by.clone(),
                })
                .collect(),
            Act::Deny => waiting()
                .map(|(incident, plan)| Operator::Deny {
                    incident,
                    plan,
                    by: by.clone(),
                    reason: reason.clone(),
                })
                .take(1)
                .collect(),
            Act::Cancel => picked
                .map(|incident| Operator::Cancel {
                    incident: incident.id,
                    by,
                    reason,
                })
                .into_iter()
                .collect(),
        };
        let inputs = operators.into_iter().map(|operator| Input::Operator {
            token: number,
            operator,
        });
        let inputs: Vec<_> = inputs.collect();
        if let Some(daemon) = &mut self.daemon {
            daemon.inputs.extend(inputs);
        }
        self.wake();
        Ok(())
    }

    // ---- the daemon

    fn start(&mut self) -> Step {
        if self.daemon.is_some() {
            return Ok(());
        }
        let wall = self.wall();
        self.story.tell(self.now, || {
            format!("the daemon starts; its clock says {wall}")
        });
        let limits = self.scenario.settings.effects.clone();
        let since = limits.horizon().map(|horizon| earlier(wall, horizon));
        let past = since.and_then(|since| self.journal.effects_since(since).ok());
        let mut windows = EffectWindows::new(limits, &past.unwrap_or_default());
        windows.share_among(&self.policies);
        let recovered = self.journal.recover();
        let accepted = recovered.inbox.clone();
        let mut engine = Engine::new(self.scenario.settings.clone());
        let turn = engine.recover(recovered, wall, &self.view(), &windows);
        let given = Given {
            at: wall,
            policies: self.policies.clone(),
            accepted,
            last_seq: self.journal.last_seq(),
            looks: Vec::new(),
            unnamed: BTreeSet::new(),
            waiting: engine.unidentified().collect(),
        };
        self.daemon = Some(Daemon {
            controls: engine.controls().clone(),
            engine,
            windows,
            inputs: VecDeque::new(),
            deferred: Vec::new(),
            pending: Some(Pending { turn, given }),
            runs: BTreeMap::new(),
            verifications: BTreeMap::new(),
            holds: BTreeMap::new(),
            looks: Vec::new(),
            asked: Vec::new(),
            unnamed: BTreeSet::new(),
            unknown: BTreeMap::new(),
            next_turn: None,
            stopping: false,
            told_of_policies: true,
        });
        self.at(self.now, Task::Commit);
        Ok(())
    }

    fn view(&self) -> View<'_> {
        View {
            policies: &self.policies,
            journal: &self.journal,
            gone: &self.gone,
            now: self.now,
        }
    }

    /// Sees to it that the next turn is taken when it has to be.
    fn wake(&mut self) {
        let (now, offset) = (self.now, self.offset);
        let number = self.draw(&[draw::TURN, self.serial]);
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        if daemon.pending.is_some() {
            return;
        }
        let at = if daemon.inputs.is_empty() {
            daemon
                .engine
                .wake_at()
                .map(|at| (at.as_microsecond() - offset).max(now))
        } else {
            // What comes in meanwhile is taken in together.
            Some(now + [0, 0, 1, 30][number as usize % 4] * MILLIS)
        };
        let Some(at) = at else { return };
        if daemon.next_turn.is_none_or(|next| at < next || next < now) {
            daemon.next_turn = Some(at);
            self.at(at, Task::Turn);
        }
    }

    fn turn(&mut self) -> Step {
        let wall = self.wall();
        let number = self.draw(&[draw::TURN, self.serial, 1]);
        let now = self.now;
        let Some(daemon) = &mut self.daemon else {
            return Ok(());
        };
        if daemon.next_turn != Some(now) || daemon.pending.is_some() {
            return Ok(());
        }
        daemon.next_turn = None;
        let due = daemon.engine.wake_at().is_some_and(|at| at <= wall);
        if daemon.inputs.is_empty() && !due {
            self.wake();
            return Ok(());
        }
        // Mostly all that waits, at times a part.
        let some = if number % 4 == 0 {
            1 + (number >> 8) as usize % daemon.inputs.len().max(1)
        } else {
            usize::MAX
        };
        let mut inputs: Vec<_> = daemon
            .inputs
            .drain(..some.min(daemon.inputs.len()))
            .collect();
        if number % 3 == 0 {
            by_priority(&mut inputs);
        }
        let mut accepted = Vec::new();
        let mut named_now = BTreeSet::new();
        for input in &inputs {
            match input {
                Input::Accepted(one) => accepted.push(one.clone()),
                Input::Noted(event) => {
                    if let Some(count) = daemon.unknown.get_mut(&event.incident) {
                        *count -= 1;
                        if *count == 0 {
                            daemon.unknown.remove(&event.incident);
                        }
                    }
                }
                Input::PoliciesChanged => daemon.told_of_policies = true,
                Input::Fleet { fleet, members } => {
                    let asked = daemon.asked.iter().position(|asked| asked == fleet);
                    asked.map(|index| daemon.asked.remove(index));
                    if let Ok(members) = members {
                        daemon.looks.push((wall, fleet.clone(), members.clone()));
                    }
                }
                Input::Identified { target, found } => {
                    if found.is_ok() {
                        named_now.insert(target.clone());
                    } else {
                        daemon.unnamed.insert(target.clone());
                    }
                }
                _ => {}
            }
        }
        let keep = daemon.looks.len().saturating_sub(8);
        daemon.looks.drain(..keep);
        let mut given = Given {
            at: wall,
            policies: self.policies.clone(),
            accepted,
            last_seq: self.journal.last_seq(),
            looks: daemon.looks.clone(),
            unnamed: daemon.unnamed.clone(),
            waiting: BTreeSet::new(),
        };
        daemon.unnamed.retain(|target| !named_now.contains(target));
        let view = View {
            policies: &self.policies,
            journal: &self.journal,
            gone: &self.gone,
            now: self.now,
        };
        daemon.windows.share_among(&self.policies);
        let turn = daemon
            .engine
            .turn(inputs, wall, &view, &daemon.windows, daemon.stopping);
        given.waiting = daemon.engine.unidentified().collect();
        let empty = turn.append.is_empty();
        daemon.pending = Some(Pending { turn, given });
        let delay = if empty { 0 } else { number % 7 };
        self.at(self.now + delay as i64 * MILLIS, Task::Commit);
        Ok(())
    }

    fn commit(&mut self) -> Step {
        let Some(pending) = self
            .daemon
            .as_mut()
            .and_then(|daemon| daemon.pending.take())
        else {
            return Ok(());
        };
        if pending.turn.append.is_empty() {
            self.checker.told(&pending.given);
        } else {
            if self.killed("before a commit") {
                return Ok(());
            }
            if self.disk_is_full() {
                if let Some(daemon) = &mut self.daemon {
                    daemon.pending = Some(pending);
                }
                self.at(self.now + 300 * MILLIS, Task::Commit);
                return Ok(());
            }
            self.append(&pending)?;
            if self.killed("after a commit") {
                return Ok(());
            }
        }
        self.compare(&pending)?;
        let Pending { turn, given } = pending;
        for note in &turn.notes {
            if let Note::BudgetUsedUp { policy, full } = note {
                self.checker.refused(policy, &full.key, given.at)?;
            }
        }
        if let Some(daemon) = &mut self.daemon {
            daemon.controls = daemon.engine.controls().clone();
            let deferred = turn.deferred.into_iter();
            daemon
                .deferred
                .extend(deferred.map(|deferred| deferred.accepted));
            let ended = turn.notes.iter().any(|note| matches!(note, Note::Ended(_)));
            if ended {
                let deferred = std::mem::take(&mut daemon.deferred);
                daemon
                    .inputs
                    .extend(deferred.into_iter().map(Input::Accepted));
            }
        }
        for (_, reply) in &turn.replies {
            self.story.tell(self.now, || match reply {
                Ok(said) => format!("operator: {said}"),
                Err(error) => format!("operator: refused: {error}"),
            });
        }
        for action in turn.actions {
            if self.killed("between two actions") {
                return Ok(());
            }
            self.act(action)?;
        }
        if let Some(daemon) = self.daemon.as_ref().filter(|daemon| !daemon.stopping) {
            self.checker
                .waits(&daemon.engine, &daemon.asked, given.at)?;
            if daemon.told_of_policies {
                Checker::under_policies(&daemon.engine, &self.policies)?;
            }
        }
        self.wake();
        Ok(())
    }

    fn append(&mut self, pending: &Pending) -> Step {
        let append = &pending.turn.append;
        self.journal
            .append(append)
            .map_err(|why| violation(invariant::RECORD, why))?;
        self.tell_append(append);
        self.checker
            .committed(append, &pending.turn.deferred, &pending.given)
    }

    fn tell_append(&mut self, append: &Append) {
        if !self.story.is_told() {
            return;
        }
        for control in &append.controls {
            self.story
                .tell(self.now, || format!("committed: {:?}", control.body));
        }
        let mut to_come: BTreeMap<_, usize> = BTreeMap::new();
        for event in &append.events {
            *to_come.entry(event.incident).or_default() += 1;
        }
        for event in &append.events {
            let id = event.incident;
            let to_come = to_come.entry(id).or_default();
            *to_come -= 1;
            if let Some(kept) = self.journal.incident(id) {
                let upto = kept.events.len() - *to_come;
                self.story.tell_events(self.now, id, &kept.events[..upto]);
            }
        }
    }

    /// Holds the engine against what is committed.
    fn compare(&mut self, pending: &Pending) -> Step {
        let Some(daemon) = &self.daemon else {
            return Ok(());
        };
        let touched = pending.turn.append.events.iter();
        let touched: BTreeSet<_> = touched.map(|event| event.incident).collect();
        self.checker
            .compare(&daemon.engine, &touched, &daemon.unknown)?;
        if self.draw(&[draw::COPY, self.serial]) % 32 == 0 {
            self.recover_a_copy()?;
        }
        Ok(())
    }

    /// What another daemon would find is what this one has.
    fn recover_a_copy(&self) -> Step {
        let Some(daemon) = &self.daemon else {
            return Ok(());
        };
        let mut copy = Engine::new(self.scenario.settings.clone());
        let recovered = self.journal.recover();
        let turn = copy.recover(recovered, self.wall(), &self.view(), &daemon.windows);
        let mut found = 0;
        for note in &turn.notes {
            let Note::Recovered(incident) = note else {
                continue;
            };
            found += 1;
            let known = daemon.unknown.contains_key(&incident.id)
                || daemon.engine.incident(incident.id) == Some(incident);
            if !known {
                let detail = format!("a restart would find\n    {incident:?}");
                return Err(violation(invariant::REPLAY, detail));
            }
        }
        let open = daemon.engine.incidents().count();
        if found == open {
            return Ok(());
        }
        let detail = format!("a restart would find {found} incidents, and {open} are open");
        Err(violation(invariant::REPLAY, detail))
    }

    fn act(&mut self, action: Action) -> Step {
        match action {
            Action::Run(order) => self.run(*order),
            Action::Stop {
                run,
                cause,
                message,
            } => {
                self.story
                    .tell(self.now, || format!("run {run} is told to stop: {message}"));
                let daemon = self.daemon.as_mut();
                if let Some(state) = daemon.and_then(|daemon| daemon.runs.get_mut(&run)) {
                    state.halted.get_or_insert((cause, message));
                    // What is under way goes on to its end.
                    if matches!(state.doing, Doing::Nothing | Doing::Looking { .. }) {
                        self.step_at(run, self.now);
                    }
                }
                Ok(())
            }
            Action::Verify(order) => {
                let (incident, deadline) = (order.incident, order.deadline);
                if let Some(daemon) = &mut self.daemon {
                    daemon.verifications.insert(incident, order);
                    daemon.holds.remove(&incident);
                }
                self.at(self.now + 10 * MILLIS, Task::Look { incident, deadline });
                Ok(())
            }
            Action::LookAtFleet(fleet) => {
                if let Some(daemon) = &mut self.daemon {
                    daemon.asked.push(fleet.clone());
                }
                let number = self.draw(&[draw::FLEET, self.serial]);
                let delay = match self.mood() {
                    Mood::Slow => number % 5_000,
                    _ => number % 50,
                };
                self.at(self.now + delay as i64 * MILLIS, Task::Fleet(fleet));
                Ok(())
            }
            Action::Identify(target) => {
                let number = self.draw(&[draw::IDENTITY, self.serial]);
                let delay = match self.mood() {
                    Mood::Slow | Mood::Hanging => number % 5_000,
                    _ => number % 50,
                };
                self.at(self.now + delay as i64 * MILLIS, Task::Identify(target));
                Ok(())
            }
            Action::Forget(incident) => {
                if let Some(daemon) = &mut self.daemon {
                    daemon.verifications.remove(&incident);
                }
                Ok(())
            }
        }
    }

    fn input(&mut self, input: Input) {
        if let Some(daemon) = &mut self.daemon {
            daemon.inputs.push_back(input);
        }
        self.wake();
    }

    // ---- looks

    fn look(&mut self, incident: IncidentId, deadline: Timestamp) -> Step {
        let Some(daemon) = &mut self.daemon else {
            return Ok(());
        };
        let order = daemon.verifications.get(&incident);
        let Some(order) = order.filter(|order| order.deadline == deadline) else {
            return Ok(());
        };
        let every = micros(order.every);
        let steady = micros(order.steady);
        let now = self.now;
        let finding = match self.docker.holds(&order.check, &order.target) {
            Ok(seen) => {
                let since = *daemon.holds.entry(incident).or_insert(now);
                if now < since + steady {
                    let next = (now + every).min(since + steady);
                    self.at(next, Task::Look { incident, deadline });
                    return Ok(());
                }
                Finding::Holds(seen)
            }
            Err(seen) => {
                daemon.holds.remove(&incident);
                if self.wall() < deadline {
                    self.at(now + every, Task::Look { incident, deadline });
                    return Ok(());
                }
                Finding::Fails(seen)
            }
        };
        if let Some(daemon) = &mut self.daemon {
            daemon.verifications.remove(&incident);
            daemon.holds.remove(&incident);
        }
        self.input(Input::Verified {
            incident,
            deadline,
            finding,
        });
        Ok(())
    }

    fn fleet(&mut self, fleet: Fleet) -> Step {
        let number = self.draw(&[draw::FLEET, self.serial, 1]);
        let fails = matches!(self.mood(), Mood::Failing | Mood::Hanging) && number % 2 == 0;
        let members = if fails {
            Err("docker does not answer".to_owned())
        } else {
            Ok(self.docker.members(&fleet))
        };
        self.input(Input::Fleet { fleet, members });
        Ok(())
    }

    fn identify(&mut self, target: Target) -> Step {
        let number = self.draw(&[draw::IDENTITY, self.serial, 1]);
        let fails = matches!(self.mood(), Mood::Failing | Mood::Hanging) && number % 2 == 0;
        let found = if fails {
            Err("docker does not answer".to_owned())
        } else {
            let name = named(target.name()).unwrap_or(target.name());
            let found = Target::container(target.host(), name);
            Ok(Identity::by_name(found, target.host()))
        };
        self.story.tell(self.now, || match &found {
            Ok(identity) => format!("{target} is {}", identity.target),
            Err(error) => format!("what {target} is cannot be told: {error}"),
        });
        self.input(Input::Identified { target, found });
        Ok(())
    }

    // ---- runs

    fn run(&mut self, order: Order) -> Step {
        let run = order.run;
        let mut lost = false;
        let record = if order.resume {
            let events = self.journal.incident(run.incident);
            lost =
                self.draw(&[draw::LOST, run.incident.0, self.life.into()]) % 10 == 0 && self.faults;
            record(events.map_or(&[], |kept| &kept.events), run)
        } else {
            VecDeque::new()
        };
        self.story.tell(self.now, || {
            let how = if order.resume { "goes on" } else { "begins" };
            format!(
                "run {run} {how}: {} for {}, {}, {} calls on record",
                order.plugin,
                order.policy,
                order.mode.as_str(),
                record.len()
            )
        });
        if lost {
            self.input(Input::RunLost { run });
            return Ok(());
        }
        // Mostly a plugin does the same each time; now and then another run of it does
        // something else, and rarely even the same one when it is played again.
        let of_step = [draw::SCRIPT, run.incident.0, order.rung.step.into()];
        let mut salt = self.draw(&of_step);
        if salt % 11 == 0 {
            salt = mix(salt, &[run.number.into()]);
        }
        if salt % 97 == 0 && self.faults {
            salt = mix(salt, &[self.life.into()]);
        }
        let state = Run {
            script: Script::new(order.plugin.as_str(), order.target.clone(), salt),
            answers: Vec::new(),
            record,
            applied: 0,
            doing: Doing::Nothing,
            halted: None,
            next: 0,
            deadline: self.now + micros(order.timeout),
            evidence: order.evidence.is_some(),
            order,
        };
        let Some(daemon) = &mut self.daemon else {
            return Ok(());
        };
        if daemon.runs.insert(run, state).is_some() {
            let detail = format!("run {run} is begun twice");
            return Err(violation(invariant::EXECUTOR, detail));
        }
        self.step_at(run, self.now + MILLIS);
        Ok(())
    }

    fn state(&mut self, run: RunId) -> Option<&mut Run> {
        self.daemon
            .as_mut()
            .and_then(|daemon| daemon.runs.get_mut(&run))
    }

    /// Commits an event of a run by itself; false when the disk is full.
    fn note(&mut self, run: RunId, body: EventBody) -> Result<bool, crate::check::Violation> {
        if self.disk_is_full() {
            return Ok(false);
        }
        let event = Event {
            at: self.wall(),
            incident: run.incident,
            body,
        };
        self.journal
            .note(&event)
            .map_err(|why| violation(invariant::RECORD, why))?;
        if self.story.is_told()
            && let Some(kept) = self.journal.incident(run.incident)
        {
            self.story.tell_events(self.now, run.incident, &kept.events);
        }
        self.checker.noted(&event, moment(self.now))?;
        if let Some(daemon) = &mut self.daemon {
            *daemon.unknown.entry(run.incident).or_default() += 1;
        }
        self.input(Input::Noted(event));
        Ok(true)
    }

    fn end(&mut self, run: RunId, result: RunResult) -> Step {
        if let Some(daemon) = &mut self.daemon {
            daemon.runs.remove(&run);
        }
        self.input(Input::RunEnded { run, result });
        Ok(())
    }

    fn halt(&mut self, run: RunId, cause: StopCause, message: impl Into<String>) -> Step {
        self.end(
            run,
            RunResult::Stopped {
                cause,
                message: message.into(),
            },
        )
    }

    fn unrecorded(&mut self, run: RunId) -> Step {
        self.end(
            run,
            RunResult::Failed {
                class: FailureClass::Retryable,
                message: "the journal could not record the call".to_owned(),
            },
        )
    }

    fn step_at(&mut self, run: RunId, at: i64) {
        if let Some(state) = self.state(run) {
            state.next = at;
        }
        self.at(at, Task::Step(run));
    }

    /// The next thing that a run does.
    fn step(&mut self, run: RunId) -> Step {
        let now = self.now;
        let Some(state) = self.state(run).filter(|state| state.next == now) else {
            return Ok(());
        };
        match std::mem::replace(&mut state.doing, Doing::Nothing) {
            Doing::Nothing => {}
            Doing::Looking { call, request } => {
                // A look is cut off with its run.
                if state.halted.is_none() && now < state.deadline {
                    return self.looked(run, call, request);
                }
            }
            Doing::Acting {
                call,
                request,
                carried_out,
                result,
            } => return self.acted(run, call, &request, carried_out, result),
            Doing::Ending {
                call,
                name,
                result,
                settled,
            } => return self.ending(run, call, name, result, settled),
        }
        self.think(run)
    }

    fn think(&mut self, run: RunId) -> Step {
        let now = self.now;
        let Some(state) = self.state(run) else {
            return Ok(());
        };
        if let Some((cause, message)) = state.halted.clone() {
            return self.halt(run, cause, message);
        }
        if now >= state.deadline {
            return self.end(
                run,
                RunResult::Failed {
                    class: FailureClass::Retryable,
                    message: "it took too long".to_owned(),
                },
            );
        }
        let request = match state.script.next(&state.answers) {
            Next::Call(request) => request,
            Next::End(_) if !state.record.is_empty() => {
                return self.halt(run, StopCause::Nondeterministic, "it ended early");
            }
            Next::End(result) => return self.end(run, result),
        };
        let call = state.answers.len() as u32 + 1;
        if let Some(recorded) = state.record.pop_front() {
            if recorded.request != request || recorded.call != call {
                return self.halt(run, StopCause::Nondeterministic, "it did something else");
            }
            state.applied += usize::from(recorded.effect);
            let Some(result) = recorded.result else {
                return self.settle(run, call, request);
            };
            state.answers.push(result);
            self.step_at(run, now);
            return Ok(());
        }
        if !request.is_effect() {
            state.doing = Doing::Looking { call, request };
            let delay = self.latency(run, call);
            self.step_at(run, self.now + delay);
            return Ok(());
        }
        match state.order.mode {
            RunMode::Dry => return self.plan(run, call, request),
            RunMode::Apply => {
                let planned = state.order.effects.get(state.applied);
                let on = Docker::resource(&request);
                if planned.is_none_or(|planned| planned.request != request || planned.on != on) {
                    return self.halt(run, StopCause::Deviated, "it is not the next of the plan");
                }
                state.applied += 1;
            }
            RunMode::Live => {}
        }
        self.begin(run, call, request)
    }

    fn latency(&self, run: RunId, call: u32) -> i64 {
        let name = [
            draw::LATENCY,
            run.incident.0,
            run.number.into(),
            call.into(),
            self.life.into(),
        ];
        let number = self.draw(&name) as i64;
        let most = match self.mood() {
            Mood::Slow => 25 * SECOND,
            _ => 500 * MILLIS,
        };
        MILLIS + number.rem_euclid(most)
    }

    fn looked(&mut self, run: RunId, call: u32, request: Request) -> Step {
        let result = match self.mood() {
            Mood::Failing => Err(CapabilityError::Unavailable("no answer".to_owned())),
            _ => self.docker.answer(&request),
        };
        let body = EventBody::Observed {
            run,
            call,
            request,
            result: result.clone(),
        };
        self.recorded(run, body, result)
    }

    fn plan(&mut self, run: RunId, call: u32, request: Request) -> Step {
        let result = self.docker.answer(&request);
        let on = Docker::resource(&request);
        let body = EventBody::Planned {
            run,
            call,
            effect: PlannedEffect { request, on },
            result: result.clone(),
        };
        self.recorded(run, body, result)
    }

    /// Records a call that changed nothing, and gives the guest its answer.
    fn recorded(&mut self, run: RunId, body: EventBody, result: CallResult) -> Step {
        if self.killed("before a call is recorded") {
            return Ok(());
        }
        if !self.note(run, body)? {
            return self.unrecorded(run);
        }
        if self.killed("after a call is recorded") {
            return Ok(());
        }
        if let Some(state) = self.state(run) {
            state.answers.push(result);
        }
        self.step_at(run, self.now + MILLIS);
        Ok(())
    }

    /// The gate's last questions, and the begin on record.
    fn begin(&mut self, run: RunId, call: u32, request: Request) -> Step {
        let wall = self.wall();
        let Some(daemon) = &mut self.daemon else {
            return Ok(());
        };
        let Some(state) = daemon.runs.get_mut(&run) else {
            return Ok(());
        };
        let order = &state.order;
        let on = Docker::resource(&request);
        if let Some(message) = mistaken(&order.target, &request, on.as_ref()) {
            return self.halt(run, StopCause::Mistaken, message);
        }
        if let Some(pause) = daemon.controls.paused(&order.policy, &order.thing, wall) {
            let message = pause.to_string();
            return self.halt(run, StopCause::Paused, message);
        }
        let admitted = daemon.windows.admit(&PastEffect {
            at: wall,
            policy: order.policy.clone(),
            target: on_account_of(&order.thing, &request, on.as_ref()),
            action: request.name().to_owned(),
            tells: tells(order.rung.step, &request),
        });
        if let Err(full) = admitted {
            let policy = order.policy.clone();
            self.checker.refused(&policy, &full.key, wall)?;
            return self.halt(run, StopCause::Rate, full.to_string());
        }
        if std::mem::take(&mut state.evidence) {
            let body = EventBody::EvidenceCaptured {
                run,
                container: None,
                log: "the last line".to_owned(),
                problem: None,
            };
            if !self.note(run, body)? {
                return self.unrecorded(run);
            }
        }
        if self.killed("before an effect is recorded as begun") {
            return Ok(());
        }
        let body = EventBody::EffectBegan {
            run,
            call,
            on: Docker::resource(&request),
            request: request.clone(),
        };
        if !self.note(run, body)? {
            return self.unrecorded(run);
        }
        if self.killed("after an effect is recorded as begun, before the deed") {
            return Ok(());
        }
        let name = [
            draw::OUTCOME,
            run.incident.0,
            run.number.into(),
            call.into(),
            self.life.into(),
        ];
        let number = self.draw(&name);
        let timed_out = || Err(CapabilityError::TimedOut("no answer".to_owned()));
        let (carried_out, result, delay) = match self.mood() {
            Mood::Failing => {
                let result = if number % 3 == 0 {
                    Err(CapabilityError::Failed("it broke".to_owned()))
                } else {
                    Err(CapabilityError::Unavailable("no answer".to_owned()))
                };
                (number % 5 == 0, result, self.latency(run, call))
            }
            Mood::Hanging => (number % 2 == 0, timed_out(), DRIVER_TIMEOUT),
            _ => (true, self.docker.answer(&request), self.latency(run, call)),
        };
        if let Some(state) = self.state(run) {
            state.doing = Doing::Acting {
                call,
                request,
                carried_out,
                result,
            };
        }
        self.step_at(run, self.now + delay);
        Ok(())
    }

    /// The driver has done what it could.
    fn acted(
        &mut self,
        run: RunId,
        call: u32,
        request: &Request,
        carried_out: bool,
        result: CallResult,
    ) -> Step {
        if carried_out {
            self.story.tell(self.now, || {
                format!("run {run}: {} is done", request.summary())
            });
            self.deed((run, call), request)?;
        }
        if self.killed("after the deed, before its end is recorded") {
            return Ok(());
        }
        self.ending(run, call, request.name(), result, false)
    }

    fn deed(&mut self, key: (RunId, u32), request: &Request) -> Step {
        let doubts = self.doubts.get(&key).copied().unwrap_or_default();
        self.checker
            .carried_out(key, self.docker.times(key), doubts)?;
        self.docker.carry_out(key, request);
        Ok(())
    }

    /// Records the end of an effect, for as long as it takes.
    fn ending(
        &mut self,
        run: RunId,
        call: u32,
        name: &'static str,
        result: CallResult,
        settled: bool,
    ) -> Step {
        let body = EventBody::EffectEnded {
            run,
            call,
            name: name.to_owned(),
            result: result.clone(),
            settled,
        };
        if !self.note(run, body)? {
            if let Some(state) = self.state(run) {
                state.doing = Doing::Ending {
                    call,
                    name,
                    result,
                    settled,
                };
            }
            self.step_at(run, self.now + 200 * MILLIS);
            return Ok(());
        }
        if self.killed("after the end of an effect is recorded") {
            return Ok(());
        }
        if let Some(state) = self.state(run) {
            state.answers.push(result);
        }
        self.step_at(run, self.now + MILLIS);
        Ok(())
    }

    /// What became of an effect that was under way when the daemon was killed.
    fn settle(&mut self, run: RunId, call: u32, request: Request) -> Step {
        let key = (run, call);
        let name = [
            draw::SETTLE,
            run.incident.0,
            run.number.into(),
            call.into(),
            self.life.into(),
        ];
        let blind = self.mood() == Mood::Blind && self.draw(&name) % 2 == 0;
        let known = matches!(request, Request::Docker(_)) && !blind;
        let doubted = self.doubts.get(&key).copied().unwrap_or_default();
        let settled = if !known {
            Settled::Unknown
        } else if self.docker.times(key) > doubted {
            Settled::Done
        } else {
            Settled::NotDone
        };
        self.story.tell(self.now, || {
            format!("run {run}: {} was in doubt: {settled:?}", request.summary())
        });
        let on_interrupt = self.state(run).map(|state| state.order.on_interrupt);
        match settled {
            Settled::Done => {
                let result = self.docker.answer(&request);
                self.ending(run, call, request.name(), result, true)
            }
            Settled::Unknown if on_interrupt != Some(OnInterrupt::Rerun) => self.halt(
                run,
                StopCause::InDoubt,
                "nobody can tell whether it was done",
            ),
            Settled::Unknown => {
                self.doubts.insert(key, self.docker.times(key));
                self.begin(run, call, request)
            }
            Settled::NotDone => self.begin(run, call, request),
        }
    }
}

/// What an alert calls a container: mostly its name, else its id or the begin of it.
fn spelled(seed: u64, alert: usize, container: usize) -> String {
    let name = CONTAINERS[container];
    let number = mix(seed, &[draw::SPELLING, alert as u64]);
    let digits = match number % 10 {
        0..=5 => return name.to_owned(),
        6 => 64,
        7 => 12,
        _ => 13 + (number >> 8) as usize % 51,
    };
    id_of(name)[..digits].to_owned()
}

/// As intake hands them on when many wait: the urgent first. Only alerts change places.
fn by_priority(inputs: &mut [Input]) {
    let mut places = Vec::new();
    let mut alerts = Vec::new();
    for (index, input) in inputs.iter().enumerate() {
        if let Input::Accepted(accepted) = input {
            places.push(index);
            alerts.push(accepted.clone());
        }
    }
    alerts.sort_by_key(|accepted| Priority::of(&accepted.alert));
    for (index, accepted) in places.into_iter().zip(alerts) {
        inputs[index] = Input::Accepted(accepted);
    }
}

fn micros(duration: Duration) -> i64 {
    duration.as_micros() as i64
}
