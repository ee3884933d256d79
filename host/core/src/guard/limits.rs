//! The limits on effects that stand above all policies: sliding windows, per target, per
//! action and in all. Asked in advance by the guard, and exactly by the gate.

use std::collections::{BTreeMap, HashMap, VecDeque};

use jiff::Timestamp;

use super::settings::Window;
use crate::capability::Request;
use crate::duration::HumanDuration;
use crate::id::Target;
use crate::incident::later;
use crate::mutation::{Mutation, active};
use crate::record::{PastEffect, earlier};

/// How many effects there may be in which windows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EffectLimits {
    /// On one target.
    pub per_target: Option<Window>,
    /// In all.
    pub total: Option<Window>,
    /// By the call's name, such as `docker.restart`.
    pub per_action: BTreeMap<String, Window>,
}

impl EffectLimits {
    /// The longest window: what has to be known of the past.
    #[must_use]
    pub fn horizon(&self) -> Option<std::time::Duration> {
        self.per_target
            .iter()
            .chain(&self.total)
            .chain(self.per_action.values())
            .map(|window| window.per)
            .max()
    }
}

/// A window has no room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NoRoom {
    /// When the oldest leaves the window.
    pub until: Timestamp,
    /// Which window, and what fills it.
    pub reason: String,
}

/// The effects that the windows have seen. The same at the guard and at the gate: what
/// the gate admits is counted here before it is done.
#[derive(Debug, Clone, Default)]
pub struct EffectWindows {
    limits: EffectLimits,
    total: Slide,
    targets: HashMap<Target, Slide>,
    actions: HashMap<String, Slide>,
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

    /// When there is room; none when there is now.
    fn full_until(&self, window: Window, now: Timestamp) -> Option<Timestamp> {
        let max = window.max as usize + usize::from(active(Mutation::WindowHoldsOneMore));
        let horizon = earlier(now, window.per);
        let inside = self.0.iter().filter(|at| **at > horizon).count();
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

/// The target on whose account an effect is; none for what tells a person. How much was
/// done about a target is no reason to keep quiet about it.
#[must_use]
pub fn on_account_of<'a>(target: &'a Target, step: u32, request: &Request) -> Option<&'a Target> {
    (!tells_a_person(step, request)).then_some(target)
}

/// Whether a call is how a person is told: a request or a mail of `escalate`, whose step is 0.
/// The stop switch stops what acts, and not this.
#[must_use]
pub fn tells_a_person(step: u32, request: &Request) -> bool {
    step == 0 && matches!(request, Request::Http(_) | Request::Mail(_))
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
                windows.count(Some(&effect.target), &effect.action, effect.at, oldest.at);
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
        for (target, slide) in &self.targets {
            windows
                .targets
                .entry(target.clone())
                .or_default()
                .more(slide);
        }
        for (action, slide) in &self.actions {
            windows
                .actions
                .entry(action.clone())
                .or_default()
                .more(slide);
        }
        *self = windows;
    }

    /// Whether any effect on `target` has room; what the guard asks.
    pub fn check(&self, target: &Target, now: Timestamp) -> Result<(), NoRoom> {
        self.check_total(now)?;
        if let (Some(window), Some(slide)) = (self.limits.per_target, self.targets.get(target)) {
            room(slide, window, now, (&format!("on {target}"), "target_rate"))?;
        }
        Ok(())
    }

    fn check_total(&self, now: Timestamp) -> Result<(), NoRoom> {
        match self.limits.total {
            Some(window) => room(&self.total, window, now, ("in all", "total_rate")),
            None => Ok(()),
        }
    }

    /// Counts an effect if every window has room for it: those in all, and those of the
    /// target on whose account it is.
    pub fn admit(
        &mut self,
        target: Option<&Target>,
        action: &str,
        now: Timestamp,
    ) -> Result<(), NoRoom> {
        match target {
            Some(target) => self.check(target, now)?,
            None => self.check_total(now)?,
        }
        if let (Some(window), Some(slide)) =
            (self.limits.per_action.get(action), self.actions.get(action))
        {
            room(slide, *window, now, (action, "actions"))?;
        }
        self.count(target, action, now, now);
        Ok(())
    }

    /// Counts an effect that began `at`, and forgets what is in no window any more at `now`.
    fn count(&mut self, target: Option<&Target>, action: &str, at: Timestamp, now: Timestamp) {
        if let Some(window) = self.limits.total {
            self.total.forget(window, now);
            self.total.push(at);
        }
        if let (Some(window), Some(target)) = (self.limits.per_target, target) {
            let slide = self.targets.entry(target.clone()).or_default();
            slide.forget(window, now);
            slide.push(at);
            if self.targets.len() > 10_000 {
                let horizon = earlier(now, window.per);
                self.targets
                    .retain(|_, slide| slide.0.back().is_some_and(|last| *last > horizon));
            }
        }
        if let Some(window) = self.limits.per_action.get(action) {
            let slide = self.actions.entry(action.to_owned()).or_default();
            slide.forget(*window, now);
            slide.push(at);
        }
    }
}

/// Whether a window has room for what is counted, which the key of that name bounds.
fn room(
    slide: &Slide,
    window: Window,
    now: Timestamp,
    (what, key): (&str, &str),
) -> Result<(), NoRoom> {
    match slide.full_until(window, now) {
        Some(until) => Err(NoRoom {
            until,
            reason: format!(
                "there were {} effects {what} within {} (limits.guards.{key})",
                window.max,
                HumanDuration(window.per)
            ),
        }),
        None => Ok(()),
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

    #[test]
    fn a_window_slides() {
        let limits = EffectLimits {
            per_target: Some(window(2, 10)),
            ..EffectLimits::default()
        };
        let mut windows = EffectWindows::new(limits, &[]);
        let web = target("web");
        let mut admit = |second| {
            windows
                .admit(Some(&web), "docker.restart", at(second))
                .map_err(|full| full.until)
        };
        assert_eq!(admit(0), Ok(()));
        assert_eq!(admit(4), Ok(()));
        assert_eq!(admit(5), Err(at(10)));
        assert_eq!(admit(9), Err(at(10)));
        assert_eq!(admit(10), Ok(()));
        assert_eq!(admit(11), Err(at(14)));
        assert_eq!(windows.check(&target("db"), at(11)), Ok(()));
    }

    #[test]
    fn other_limits_know_what_was_before() {
        let limits = |max, seconds, stops| EffectLimits {
            total: Some(window(max, seconds)),
            per_action: BTreeMap::from([("docker.stop".to_owned(), window(stops, 600))]),
            ..EffectLimits::default()
        };
        let past = |second| PastEffect {
            at: at(second),
            target: target("web"),
            action: "docker.stop".to_owned(),
        };
        let mut windows = EffectWindows::new(
            EffectLimits {
                per_action: BTreeMap::new(),
                ..limits(9, 10, 9)
            },
            &[],
        );
        for second in [0, 8, 20, 21] {
            assert_eq!(
                windows.admit(Some(&target("web")), "docker.stop", at(second)),
                Ok(())
            );
        }
        // The last one is not written yet, the others were a moment after they were let through.
        windows.relimit(limits(5, 60, 3), &[past(0), past(8), past(20)]);
        let mut admit = |second, action| {
            let admitted = windows.admit(Some(&target("web")), action, at(second));
            admitted.map_err(|full| full.until)
        };
        assert_eq!(admit(22, "docker.stop"), Err(at(600)));
        assert_eq!(admit(22, "docker.kill"), Ok(()));
        assert_eq!(admit(23, "docker.kill"), Err(at(60)));
        assert_eq!(admit(60, "docker.kill"), Ok(()));
    }

    #[test]
    fn what_tells_a_person_is_bounded_in_all_and_not_by_its_target() {
        let web = target("web");
        let post = Request::Http(Box::new(HttpRequest {
            method: HttpMethod::Post,
            url: "http://chat/".parse().unwrap(),
            headers: Vec::new(),
            body: Blob::default(),
            secret_fields: Vec::new(),
            timeout_ms: None,
        }));
        assert_eq!(on_account_of(&web, 1, &post), Some(&web));
        assert_eq!(on_account_of(&web, 0, &post), None);
        assert!(tells_a_person(0, &post) && !tells_a_person(1, &post));
        let to = ["oncall@example.com".to_owned()];
        let mail = MailRequest::new(&to, &[], "down".to_owned(), String::new());
        let mail = Request::Mail(Box::new(mail.unwrap()));
        assert_eq!(on_account_of(&web, 1, &mail), Some(&web));
        assert_eq!(on_account_of(&web, 0, &mail), None);
        let limits = EffectLimits {
            per_target: Some(window(1, 60)),
            total: Some(window(3, 60)),
            ..EffectLimits::default()
        };
        let mut windows = EffectWindows::new(limits, &[]);
        assert_eq!(windows.admit(Some(&web), "docker.restart", at(0)), Ok(()));
        assert!(windows.admit(Some(&web), "http.send", at(1)).is_err());
        assert_eq!(windows.admit(None, "http.send", at(1)), Ok(()));
        assert_eq!(windows.admit(None, "http.send", at(1)), Ok(()));
        assert!(windows.admit(None, "http.send", at(1)).is_err());
    }

    #[test]
    fn windows_know_what_was_before_a_restart() {
        let limits = EffectLimits {
            total: Some(window(1, 60)),
            per_action: BTreeMap::from([("docker.stop".to_owned(), window(1, 600))]),
            ..EffectLimits::default()
        };
        let past = [PastEffect {
            at: at(0),
            target: target("web"),
            action: "docker.stop".to_owned(),
        }];
        let mut windows = EffectWindows::new(limits, &past);
        assert_eq!(
            windows
                .check(&target("db"), at(59))
                .map_err(|full| full.until),
            Err(at(60))
        );
        assert_eq!(
            windows
                .admit(Some(&target("db")), "docker.stop", at(60))
                .map_err(|full| full.until),
            Err(at(600))
        );
        assert_eq!(
            windows.admit(Some(&target("db")), "docker.start", at(60)),
            Ok(())
        );
    }

    #[test]
    fn a_restart_after_the_clock_was_set_back_makes_no_room() {
        let limits = EffectLimits {
            total: Some(window(2, 60)),
            ..EffectLimits::default()
        };
        let effect = |second| PastEffect {
            at: at(second),
            target: target("web"),
            action: "docker.stop".to_owned(),
        };
        // One before the clock was set back by a thousand seconds, and one after.
        let windows = EffectWindows::new(limits, &[effect(5), effect(1000)]);
        assert!(windows.check(&target("web"), at(10)).is_err());
    }

    #[test]
    fn a_clock_set_back_makes_no_room() {
        let limits = EffectLimits {
            total: Some(window(1, 60)),
            ..EffectLimits::default()
        };
        let mut windows = EffectWindows::new(limits, &[]);
        assert_eq!(
            windows.admit(Some(&target("web")), "docker.stop", at(1000)),
            Ok(())
        );
        assert!(
            windows
                .admit(Some(&target("web")), "docker.stop", at(0))
                .is_err()
        );
    }
}
