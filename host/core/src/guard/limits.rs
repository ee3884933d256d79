//! The limits on effects that stand above all policies: sliding windows, per target, per
//! action and in all, of which each policy has its share ([`super::share`]). Asked in advance by the guard, and exactly by the gate.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use jiff::Timestamp;

use super::settings::Window;
use super::share::Share;
use crate::capability::Request;
use crate::duration::HumanDuration;
use crate::event::Resource;
use crate::id::{PolicyName, Target};
use crate::incident::later;
use crate::mutation::{Mutation, active};
use crate::policy::PolicySet;
use crate::record::{PastEffect, earlier};

/// How many effects there may be in which windows. What tells a person is bounded by
/// `telling` and by nothing else: no budget that healing uses up is the one that tells
/// people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EffectLimits {
    /// On one target.
    pub per_target: Option<Window>,
    /// In all.
    pub total: Option<Window>,
    /// By the call's name, such as `docker.restart`.
    pub per_action: BTreeMap<String, Window>,
    /// What tells a person, in all.
    pub telling: Option<Window>,
}

impl EffectLimits {
    /// The longest window: what has to be known of the past.
    #[must_use]
    pub fn horizon(&self) -> Option<std::time::Duration> {
        self.per_target
            .iter()
            .chain(&self.total)
            .chain(self.per_action.values())
            .chain(&self.telling)
            .map(|window| window.per)
            .max()
    }
}

/// A window has no room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NoRoom {
    /// The key of the configuration that sets it.
    pub key: String,
    /// When there is room again.
    pub until: Timestamp,
    /// Which window, and what fills it.
    pub reason: String,
}

/// The effects that the windows have seen. The same at the guard and at the gate: what
/// the gate admits is counted here before it is done.
#[derive(Debug, Clone, Default)]
pub struct EffectWindows {
    limits: EffectLimits,
    // The policies that share what is for all; none while nobody said.
    sharers: BTreeSet<PolicyName>,
    total: Pot,
    telling: Pot,
    targets: HashMap<Target, Slide>,
    actions: HashMap<String, Pot>,
}

/// What all policies draw from, by the policy that did.
#[derive(Debug, Clone, Default)]
struct Pot(HashMap<PolicyName, Slide>);

impl Pot {
    fn count(&mut self, policy: &PolicyName, window: Window, at: Timestamp, now: Timestamp) {
        let slide = self.0.entry(policy.clone()).or_default();
        slide.forget(window, now);
        slide.push(at);
    }

    fn more(&mut self, newer: &Self) {
        for (policy, slide) in &newer.0 {
            self.0.entry(policy.clone()).or_default().more(slide);
        }
    }

    /// Whether there is room for one more effect of a policy. `what` says of what.
    fn room(
        &self,
        policy: &PolicyName,
        sharers: &BTreeSet<PolicyName>,
        (key, window): (&str, Window),
        what: &str,
        now: Timestamp,
    ) -> Result<(), NoRoom> {
        let max = most(window);
        let share = Share::of(max, sharers.len());
        let has_room = |at: Timestamp| {
            let horizon = earlier(at, window.per);
            let used = |policy| self.0.get(policy).map_or(0, |slide| slide.after(horizon));
            let others = self.0.iter().filter(|(other, _)| *other != policy);
            let others = others.map(|(other, slide)| {
                let has_share = sharers.is_empty() || sharers.contains(other);
                (slide.after(horizon), has_share)
            });
            share.has_room(used(policy), others)
        };
        if has_room(now) {
            return Ok(());
        }
        // With each one that leaves there is more of it.
        let horizon = earlier(now, window.per);
        let inside = self.0.values().flat_map(|slide| &slide.0);
        let mut inside: Vec<_> = inside.filter(|at| **at > horizon).copied().collect();
        inside.sort_unstable();
        let leaver = inside.partition_point(|at| !has_room(later(*at, window.per)));
        let until = inside.get(leaver).or(inside.last()).copied();
        let per = HumanDuration(window.per);
        let reason = if inside.len() >= max {
            format!("there were {} {what} within {per} ({key})", window.max)
        } else {
            let own = self.0.get(policy).map_or(0, |slide| slide.after(horizon));
            format!(
                "policy {policy} had {own} of {} {what} within {per} ({key}), and the rest is kept for other policies",
                window.max
            )
        };
        Err(NoRoom {
            key: key.to_owned(),
            until: later(until.unwrap_or(now), window.per),
            reason,
        })
    }
}

/// How many a window holds.
fn most(window: Window) -> usize {
    window.max as usize + usize::from(active(Mutation::WindowHoldsOneMore))
}

/// The moments inside one sliding window, oldest first.
#[derive(Debug, Clone, Default)]
struct Slide(VecDeque<Timestamp>);

impl Slide {
    fn forget(&mut self, window: Window, now: Timestamp) {
        let horizon = earlier(now, window.per);
        while self.0.front().is_some_and(|at| *at <= horizon) {
            self.0.pop_front();
        }
    }

    /// How many there were after `horizon`.
    fn after(&self, horizon: Timestamp) -> usize {
        self.0.len() - self.0.partition_point(|at| *at <= horizon)
    }

    /// When there is room; none when there is now.
    fn full_until(&self, window: Window, now: Timestamp) -> Option<Timestamp> {
        let max = most(window);
        let horizon = earlier(now, window.per);
        let inside = self.after(horizon);
        // Room comes when the one leaves that makes it `max - 1`.
        let leaver = inside.checked_sub(max)?;
        let first = self.0.len() - inside;
        self.0.get(first + leaver).map(|at| later(*at, window.per))
    }

    /// Takes over what `newer` has seen, and keeps of its own what was before that: the two
    /// tell of the same effects, each with its own moment.
    fn more(&mut self, newer: &Self) {
        if let Some(first) = newer.0.front() {
            self.0.retain(|at| at < first);
            self.0.extend(&newer.0);
        }
    }

    fn push(&mut self, at: Timestamp) {
        // A clock that was set back must not put them out of order.
        let at = self.0.back().map_or(at, |last| at.max(*last));
        self.0.push_back(at);
    }
}

/// Whether an effect of `step` tells a person.
#[must_use]
pub fn tells(step: u32, request: &Request) -> bool {
    step == 0 && !matches!(request, Request::Docker(_))
}

/// Whether a call is how a person is told: a request or a mail of `escalate`, whose step is 0.
/// The stop switch stops what acts, and not this.
#[must_use]
pub fn tells_a_person(step: u32, request: &Request) -> bool {
    step == 0 && matches!(request, Request::Http(_) | Request::Mail(_))
}

/// What an effect is counted on: the container that it changes, whatever it was called and
/// whichever the incident is about; of anything else what the incident is about, which is
/// `thing`.
#[must_use]
pub fn on_account_of(thing: &Target, request: &Request, on: Option<&Resource>) -> Target {
    match (request, on) {
        // Its host may have another name.
        (Request::Docker(_), Some(on)) if thing.is_container() && on.name == thing.name() => {
            thing.clone()
        }
        (Request::Docker(asked), Some(on)) => Target::container(&asked.host, &on.name),
        _ => thing.clone(),
    }
}

/// Why an effect must not begin, if it must not: what its incident is about is a container
/// by its name, and by that name another one was found.
#[must_use]
pub fn mistaken(target: &Target, request: &Request, on: Option<&Resource>) -> Option<String> {
    let Request::Docker(asked) = request else {
        return None;
    };
    let (Some(container), Some(on)) = (asked.call.container(), on) else {
        return None;
    };
    let meant = target.is_container() && asked.host == target.host() && container == target.name();
    (meant && on.name != container).then(|| {
        format!(
            "no container is named `{container}`, and as an id it is that of `{}`: what the incident is about could not be told when it opened, so nothing that guards count and lock is that container",
            on.name
        )
    })
}

impl EffectWindows {
    /// Windows that have seen `past`, which is in order.
    #[must_use]
    pub fn new(limits: EffectLimits, past: &[PastEffect]) -> Self {
        let mut windows = Self {
            limits,
            ..Self::default()
        };
        // None of them is forgotten here: where the clock was set back the last ones are in
        // the future, and say nothing about what is inside a window now.
        if let Some(oldest) = past.first()
            && !active(Mutation::EffectsForgottenAtStart)
        {
            for effect in past {
                windows.count(effect, oldest.at);
            }
        }
        windows
    }

    /// Holds to other limits from now on. `past` is what the journal has in their horizon, in
    /// order: windows that were shorter, or not there, have forgotten it.
    pub fn relimit(&mut self, limits: EffectLimits, past: &[PastEffect]) {
        let mut windows = Self::new(limits, past);
        // What is not written yet is known here alone.
        windows.total.more(&self.total);
        windows.telling.more(&self.telling);
        for (target, slide) in &self.targets {
            windows
                .targets
                .entry(target.clone())
                .or_default()
                .more(slide);
        }
        for (action, pot) in &self.actions {
            windows.actions.entry(action.clone()).or_default().more(pot);
        }
        windows.sharers = std::mem::take(&mut self.sharers);
        *self = windows;
    }

    /// What is for all is shared among the policies that act from now on.
    pub fn share_among(&mut self, policies: &PolicySet) {
        let same = policies.acting().count() == self.sharers.len()
            && policies
                .acting()
                .all(|policy| self.sharers.contains(&policy.name));
        if !same {
            self.sharers = policies
                .acting()
                .map(|policy| policy.name.clone())
                .collect();
        }
    }

    /// Whether any effect of `policy` on `target` has room; what the guard asks.
    pub fn check(
        &self,
        policy: &PolicyName,
        target: &Target,
        now: Timestamp,
    ) -> Result<(), NoRoom> {
        if let Some(window) = self.limits.total {
            let set = ("limits.guards.total_rate", window);
            self.total
                .room(policy, &self.sharers, set, "effects in all", now)?;
        }
        if let (Some(window), Some(slide)) = (self.limits.per_target, self.targets.get(target))
            && let Some(until) = slide.full_until(window, now)
        {
            return Err(NoRoom {
                key: "limits.guards.target_rate".to_owned(),
                until,
                reason: format!(
                    "there were {} effects on {target} within {} (limits.guards.target_rate)",
                    window.max,
                    HumanDuration(window.per)
                ),
            });
        }
        Ok(())
    }

    /// Counts an effect that begins now if every window has room for it.
    pub fn admit(&mut self, effect: &PastEffect) -> Result<(), NoRoom> {
        let (policy, now) = (&effect.policy, effect.at);
        if effect.tells {
            if let Some(window) = self.limits.telling {
                let set = ("limits.guards.telling_rate", window);
                let what = "requests that tell a person";
                self.telling.room(policy, &self.sharers, set, what, now)?;
            }
        } else {
            self.check(policy, &effect.target, now)?;
            if let (Some(window), Some(pot)) = (
                self.limits.per_action.get(&effect.action),
                self.actions.get(&effect.action),
            ) {
                let key = format!("limits.guards.actions.{}", effect.action);
                let what = format!("{} in all", effect.action);
                pot.room(policy, &self.sharers, (&key, *window), &what, now)?;
            }
        }
        self.count(effect, now);
        Ok(())
    }

    /// Counts an effect, and forgets what is in no window any more at `now`.
    fn count(&mut self, effect: &PastEffect, now: Timestamp) {
        let (policy, at) = (&effect.policy, effect.at);
        if effect.tells {
            if let Some(window) = self.limits.telling {
                self.telling.count(policy, window, at, now);
            }
            return;
        }
        if let Some(window) = self.limits.total {
            self.total.count(policy, window, at, now);
        }
        if let Some(window) = self.limits.per_target {
            let slide = self.targets.entry(effect.target.clone()).or_default();
            slide.forget(window, now);
            slide.push(at);
            if self.targets.len() > 10_000 {
                let horizon = earlier(now, window.per);
                self.targets
                    .retain(|_, slide| slide.0.back().is_some_and(|last| *last > horizon));
            }
        }
        if let Some(window) = self.limits.per_action.get(&effect.action) {
            let pot = self.actions.entry(effect.action.clone()).or_default();
            pot.count(policy, *window, at, now);
        }
    }
}

/// Whether a window has room, given the moments inside it in order.
pub(super) fn full_until(window: Window, past: &[Timestamp], now: Timestamp) -> Option<Timestamp> {
    Slide(past.iter().copied().collect()).full_until(window, now)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::capability::{DockerCall, DockerRequest};
    use crate::http::{Blob, HttpMethod, HttpRequest};
    use crate::mail::MailRequest;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn window(max: u32, seconds: u64) -> Window {
        Window {
            max,
            per: Duration::from_secs(seconds),
        }
    }

    fn target(name: &str) -> Target {
        format!("docker://local/{name}").parse().unwrap()
    }

    fn chatty() -> PolicyName {
        "chatty".parse().unwrap()
    }

    fn effect(second: i64, name: &str, action: &str) -> PastEffect {
        PastEffect {
            at: at(second),
            policy: chatty(),
            target: target(name),
            action: action.to_owned(),
            tells: false,
        }
    }

    #[test]
    fn a_window_slides() {
        let limits = EffectLimits {
            per_target: Some(window(2, 10)),
            ..EffectLimits::default()
        };
        let mut windows = EffectWindows::new(limits, &[]);
        let mut admit = |second| {
            windows
                .admit(&effect(second, "web", "docker.restart"))
                .map_err(|full| full.until)
        };
        assert_eq!(admit(0), Ok(()));
        assert_eq!(admit(4), Ok(()));
        assert_eq!(admit(5), Err(at(10)));
        assert_eq!(admit(9), Err(at(10)));
        assert_eq!(admit(10), Ok(()));
        assert_eq!(admit(11), Err(at(14)));
        assert_eq!(windows.check(&chatty(), &target("db"), at(11)), Ok(()));
    }

    #[test]
    fn other_limits_know_what_was_before() {
        let limits = |max, seconds, stops| EffectLimits {
            total: Some(window(max, seconds)),
            per_action: BTreeMap::from([("docker.stop".to_owned(), window(stops, 600))]),
            ..EffectLimits::default()
        };
        let past = |second| effect(second, "web", "docker.stop");
        let mut windows = EffectWindows::new(
            EffectLimits {
                per_action: BTreeMap::new(),
                ..limits(9, 10, 9)
            },
            &[],
        );
        for second in [0, 8, 20, 21] {
            assert_eq!(windows.admit(&effect(second, "web", "docker.stop")), Ok(()));
        }
        // The last one is not written yet, the others were a moment after they were let through.
        windows.relimit(limits(5, 60, 3), &[past(0), past(8), past(20)]);
        let mut admit = |second, action| {
            let admitted = windows.admit(&effect(second, "web", action));
            admitted.map_err(|full| full.until)
        };
        assert_eq!(admit(22, "docker.stop"), Err(at(600)));
        assert_eq!(admit(22, "docker.kill"), Ok(()));
        assert_eq!(admit(23, "docker.kill"), Err(at(60)));
        assert_eq!(admit(60, "docker.kill"), Ok(()));
    }

    #[test]
    fn what_tells_a_person_is_told_apart() {
        let web = target("web");
        let post = Request::Http(Box::new(HttpRequest {
            method: HttpMethod::Post,
            url: "http://chat/".parse().unwrap(),
            headers: Vec::new(),
            body: Blob::default(),
            secret_fields: Vec::new(),
            timeout_ms: None,
        }));
        assert!(tells_a_person(0, &post) && !tells_a_person(1, &post));
        assert!(!tells(1, &post) && tells(0, &post));
        let to = ["oncall@example.com".to_owned()];
        let mail = MailRequest::new(&to, &[], "down".to_owned(), String::new());
        let mail = Request::Mail(Box::new(mail.unwrap()));
        assert!(!tells(1, &mail) && tells(0, &mail));
        assert_eq!(on_account_of(&web, &mail, None), web);
        assert!(!tells(0, &restart("web")));
    }

    #[test]
    fn what_tells_a_person_has_a_budget_of_its_own() {
        let limits = EffectLimits {
            per_target: Some(window(1, 60)),
            total: Some(window(1, 60)),
            per_action: BTreeMap::from([("http.send".to_owned(), window(1, 60))]),
            telling: Some(window(3, 60)),
        };
        let telling = |second| PastEffect {
            tells: true,
            ..effect(second, "web", "http.send")
        };
        let mut windows = EffectWindows::new(limits.clone(), &[]);
        // Healing uses up all that is its own.
        assert_eq!(windows.admit(&effect(0, "web", "http.send")), Ok(()));
        let full = windows.admit(&effect(1, "db", "http.send")).unwrap_err();
        assert_eq!(full.key, "limits.guards.total_rate");
        for second in [1, 2, 3] {
            assert_eq!(windows.admit(&telling(second)), Ok(()));
        }
        let full = windows.admit(&telling(4)).unwrap_err();
        assert_eq!(full.key, "limits.guards.telling_rate");
        assert_eq!(full.until, at(61));
        // Nor does telling use up what is for healing, before and after a restart.
        let past = [telling(0), telling(1), telling(2)];
        let mut windows = EffectWindows::new(limits, &past);
        assert_eq!(windows.admit(&effect(3, "web", "http.send")), Ok(()));
        assert!(windows.admit(&telling(4)).is_err());
    }

    #[test]
    fn a_policy_leaves_the_others_their_share() {
        let limits = EffectLimits {
            total: Some(window(5, 60)),
            per_action: BTreeMap::from([("docker.stop".to_owned(), window(2, 600))]),
            ..EffectLimits::default()
        };
        let quiet = |second, action| PastEffect {
            policy: "quiet".parse().unwrap(),
            ..effect(second, "db", action)
        };
        let mut windows = EffectWindows::new(limits, &[]);
        windows.sharers = [chatty(), "quiet".parse().unwrap()].into();
        for second in 0..4 {
            assert_eq!(
                windows.admit(&effect(second, "web", "docker.restart")),
                Ok(())
            );
        }
        let full = windows
            .admit(&effect(4, "web", "docker.restart"))
            .unwrap_err();
        assert_eq!(
            (full.until, full.key.as_str()),
            (at(60), "limits.guards.total_rate")
        );
        assert!(
            full.reason.contains("had 4 of 5 effects in all within 1m"),
            "{full}"
        );
        assert_eq!(windows.check(&chatty(), &target("x"), at(4)), Err(full));
        assert_eq!(windows.admit(&quiet(5, "docker.stop")), Ok(()));
        // All together are no more than there may be.
        let full = windows.admit(&quiet(6, "docker.start")).unwrap_err();
        assert!(
            full.reason.contains("there were 5 effects in all"),
            "{full}"
        );
        assert_eq!(full.until, at(60));
        // What is counted by its name is shared as well.
        assert_eq!(windows.admit(&quiet(70, "docker.start")), Ok(()));
        assert!(windows.admit(&quiet(71, "docker.stop")).is_err());
        assert_eq!(windows.admit(&effect(71, "web", "docker.stop")), Ok(()));
    }

    fn restart(container: &str) -> Request {
        Request::Docker(DockerRequest {
            host: "local".to_owned(),
            call: DockerCall::Restart {
                container: container.to_owned(),
                grace_ms: 0,
            },
        })
    }

    fn named(name: &str) -> Resource {
        Resource {
            id: "0".repeat(64),
            name: name.to_owned(),
            labels: crate::alert::Labels::new(),
        }
    }

    #[test]
    fn an_effect_is_counted_on_what_it_changes_whatever_that_was_called() {
        let counted =
            |thing: &Target, text, name| on_account_of(thing, &restart(text), Some(&named(name)));
        let web = target("web");
        for text in ["web", "0000", "000000000000"] {
            assert_eq!(counted(&web, text, "web"), web);
            assert_eq!(counted(&web, text, "db"), target("db"));
        }
        // The same engine by another name.
        let elsewhere = Target::container("elsewhere", "web");
        assert_eq!(counted(&elsewhere, "web", "web"), elsewhere);
    }

    #[test]
    fn an_id_is_no_name() {
        let meant = target("cafe");
        let is = |text, name| mistaken(&meant, &restart(text), Some(&named(name))).is_some();
        assert!(is("cafe", "web"));
        assert!(!is("cafe", "cafe"));
        // What a policy names itself is its own affair.
        assert!(!is("cafe12", "web"));
        assert!(!is("web", "web"));
    }

    #[test]
    fn windows_know_what_was_before_a_restart() {
        let limits = EffectLimits {
            total: Some(window(1, 60)),
            per_action: BTreeMap::from([("docker.stop".to_owned(), window(1, 600))]),
            ..EffectLimits::default()
        };
        let past = [effect(0, "web", "docker.stop")];
        let mut windows = EffectWindows::new(limits, &past);
        assert_eq!(
            windows
                .check(&chatty(), &target("db"), at(59))
                .map_err(|full| full.until),
            Err(at(60))
        );
        assert_eq!(
            windows
                .admit(&effect(60, "db", "docker.stop"))
                .map_err(|full| full.until),
            Err(at(600))
        );
        assert_eq!(windows.admit(&effect(60, "db", "docker.start")), Ok(()));
    }

    #[test]
    fn a_restart_after_the_clock_was_set_back_makes_no_room() {
        let limits = EffectLimits {
            total: Some(window(2, 60)),
            ..EffectLimits::default()
        };
        let effect = |second| effect(second, "web", "docker.stop");
        // One before the clock was set back by a thousand seconds, and one after.
        let windows = EffectWindows::new(limits, &[effect(5), effect(1000)]);
        assert!(windows.check(&chatty(), &target("web"), at(10)).is_err());
    }

    #[test]
    fn a_clock_set_back_makes_no_room() {
        let limits = EffectLimits {
            total: Some(window(1, 60)),
            ..EffectLimits::default()
        };
        let mut windows = EffectWindows::new(limits, &[]);
        assert_eq!(windows.admit(&effect(1000, "web", "docker.stop")), Ok(()));
        assert!(windows.admit(&effect(0, "web", "docker.stop")).is_err());
    }
}
