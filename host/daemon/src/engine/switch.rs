//! The stop switch and the limits on effects, as the gate asks for them: the newest
//! state, at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use sentinel_core::capability::Request;
use sentinel_core::control::Controls;
use sentinel_core::event::{Resource, StopCause};
use sentinel_core::guard::limits::{
    EffectLimits, EffectWindows, mistaken, on_account_of, tells, tells_a_person,
};
use sentinel_core::id::{PolicyName, RunId, Target};
use sentinel_core::record::PastEffect;
use sentinel_sandbox::gate::{EffectGuard, Halted};

use crate::clock::Clock;
use crate::telemetry::metrics::Metrics;

/// What every effect of every run has to pass.
#[derive(Debug)]
pub(crate) struct Switch {
    clock: Arc<Clock>,
    controls: ArcSwap<Controls>,
    effects: Mutex<EffectWindows>,
}

impl Switch {
    /// A switch with what was before the start.
    pub(crate) fn new(clock: Arc<Clock>, controls: Controls, effects: EffectWindows) -> Self {
        Self {
            clock,
            controls: ArcSwap::from_pointee(controls),
            effects: Mutex::new(effects),
        }
    }

    /// The stop switch is as this says from now on.
    pub(super) fn set(&self, controls: &Controls) {
        self.controls.store(Arc::new(controls.clone()));
    }

    /// Effects are limited like this from now on; `past` is what the journal has of them.
    pub(crate) fn limit(&self, limits: EffectLimits, past: &[PastEffect]) {
        self.effects().relimit(limits, past);
    }

    /// The stop switch and the storms, as they are now.
    pub(crate) fn controls(&self) -> Arc<Controls> {
        self.controls.load_full()
    }

    /// What the limits on effects have seen.
    pub(super) fn effects(&self) -> MutexGuard<'_, EffectWindows> {
        self.effects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The switch, for one run.
#[derive(Debug)]
pub(super) struct RunSwitch {
    pub(super) switch: Arc<Switch>,
    pub(super) policy: PolicyName,
    pub(super) target: Target,
    /// What guards count and lock.
    pub(super) thing: Target,
    pub(super) metrics: Arc<Metrics>,
    /// The step that the run serves; 0 tells a person.
    pub(super) step: u32,
}

impl EffectGuard for RunSwitch {
    fn admit(&self, _run: RunId, request: &Request, on: Option<&Resource>) -> Result<(), Halted> {
        if let Some(message) = mistaken(&self.target, request, on) {
            return Err(Halted {
                cause: StopCause::Mistaken,
                message,
            });
        }
        let now = self.switch.clock.now();
        let controls = self.switch.controls.load();
        let account = on_account_of(&self.thing, request, on);
        let tells_a_person = tells_a_person(self.step, request);
        if let Some(pause) = controls.paused(&self.policy, &self.thing, now)
            && !tells_a_person
        {
            return Err(Halted {
                cause: StopCause::Paused,
                message: pause.to_string(),
            });
        }
        // The guards are asked about what the incident is about, and would let it go on at
        // once: so it waits like one that a limit stopped.
        if let Some(pause) = controls.paused(&self.policy, &account, now)
            && !tells_a_person
        {
            return Err(Halted {
                cause: StopCause::Rate,
                message: pause.to_string(),
            });
        }
        let effect = PastEffect {
            at: now,
            policy: self.policy.clone(),
            target: account,
            action: request.name().to_owned(),
            tells: tells(self.step, request),
        };
        self.switch
            .effects()
            .admit(&effect)
            .inspect_err(|full| self.metrics.budget_used_up(&self.policy, full, now))
            .map_err(|full| Halted {
                cause: StopCause::Rate,
                message: full.reason,
            })
    }
}
