//! New versions of plugins, watched until they have shown that they work.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sentinel_core::id::{Digest, PluginName};

use crate::config::ProbationConfig;

/// A version that broke down too often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    /// Whose version it is.
    pub(crate) name: PluginName,
    /// Which.
    pub(crate) digest: Digest,
    /// How it broke down.
    pub(crate) reason: String,
}

#[derive(Debug)]
struct Trial {
    name: PluginName,
    began: Instant,
    runs: u32,
    faults: u32,
}

/// The versions that are on probation: those that took the place of another one.
#[derive(Debug)]
pub(crate) struct Probation {
    config: Mutex<ProbationConfig>,
    trials: Mutex<HashMap<Digest, Trial>>,
}

impl Probation {
    pub(crate) fn new(config: ProbationConfig) -> Self {
        Self {
            config: Mutex::new(config),
            trials: Mutex::default(),
        }
    }

    /// Versions are watched like this from now on, those that are on probation already too.
    pub(crate) fn set(&self, config: ProbationConfig) {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
    }

    fn config(&self) -> ProbationConfig {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trials(&self) -> MutexGuard<'_, HashMap<Digest, Trial>> {
        self.trials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A version that took the place of another so long `ago` is watched from now on.
    pub(super) fn begin(&self, name: &PluginName, digest: Digest, ago: Duration) {
        let now = Instant::now();
        let trial = Trial {
            name: name.clone(),
            began: now.checked_sub(ago).unwrap_or(now),
            runs: 0,
            faults: 0,
        };
        self.trials().insert(digest, trial);
    }

    /// A version does not serve any more.
    pub(super) fn forget(&self, digest: &Digest) {
        self.trials().remove(digest);
    }

    /// The runs that a version has behind it and those in which it broke down, while it is
    /// watched.
    pub(crate) fn standing(&self, digest: &Digest) -> Option<(u32, u32)> {
        let mut trials = self.trials();
        let trial = trials.get(digest)?;
        if trial.began.elapsed() > self.config().within {
            trials.remove(digest);
            return None;
        }
        Some((trial.runs, trial.faults))
    }

    /// A run has ended; `fault` says how the plugin broke down in it, if it did. Says when
    /// that was once too often.
    pub(crate) fn ended(&self, digest: &Digest, fault: Option<&str>) -> Option<Failed> {
        let mut trials = self.trials();
        let trial = trials.get_mut(digest)?;
        if trial.began.elapsed() > self.config().within {
            trials.remove(digest);
            return None;
        }
        trial.runs += 1;
        trial.faults += u32::from(fault.is_some());
        let (runs, faults) = (trial.runs, trial.faults);
        if let Some(fault) = fault
            && (1..=faults).contains(&self.config().faults)
        {
            let failed = Failed {
                name: trial.name.clone(),
                digest: *digest,
                reason: format!(
                    "it broke down in {faults} of its first {runs} runs, last: {fault}"
                ),
            };
            trials.remove(digest);
            return Some(failed);
        }
        if runs >= self.config().runs {
            trials.remove(digest);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probation(within: Duration) -> (Probation, Digest) {
        let probation = Probation::new(ProbationConfig {
            runs: 5,
            within,
            faults: 2,
        });
        let digest = Digest::of(b"new");
        probation.begin(&PluginName::new("p").unwrap(), digest, Duration::ZERO);
        (probation, digest)
    }

    #[test]
    fn it_ends_with_too_many_faults_and_says_so_once() {
        let (probation, digest) = probation(Duration::from_mins(1));
        assert_eq!(probation.ended(&digest, Some("a trap")), None);
        assert_eq!(probation.ended(&digest, None), None);
        assert_eq!(probation.standing(&digest), Some((2, 1)));
        let failed = probation.ended(&digest, Some("a loop")).unwrap();
        assert_eq!(
            failed.reason,
            "it broke down in 2 of its first 3 runs, last: a loop"
        );
        assert_eq!(probation.ended(&digest, Some("a loop")), None);
    }

    #[test]
    fn it_ends_well_after_enough_runs_or_time() {
        let (probation, digest) = probation(Duration::from_mins(1));
        for _ in 0..5 {
            assert_eq!(probation.ended(&digest, None), None);
        }
        assert_eq!(probation.standing(&digest), None);
        assert_eq!(probation.ended(&digest, Some("late")), None);

        let (probation, digest) = self::probation(Duration::ZERO);
        for _ in 0..3 {
            assert_eq!(probation.ended(&digest, Some("late")), None);
        }
    }

    #[test]
    fn a_version_that_is_not_on_probation_is_nobodys_business() {
        let (probation, _) = probation(Duration::from_mins(1));
        let other = Digest::of(b"other");
        assert_eq!(probation.ended(&other, Some("a trap")), None);
        assert_eq!(probation.standing(&other), None);
    }
}
