//! Telling again where nobody heard.

use std::time::Duration;

use sentinel_plugin::{CapabilityError, clock, info, warn};

/// The first wait before it is tried again; each is twice as long as the one before.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// What an attempt needs at the least of the time that is left.
const LEAST: Duration = Duration::from_secs(2);

/// Why an attempt to tell somebody came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unheard {
    /// What went wrong.
    pub error: CapabilityError,
    /// How long the other side asks to be left alone.
    pub pause: Option<Duration>,
}

impl From<CapabilityError> for Unheard {
    fn from(error: CapabilityError) -> Self {
        Self { error, pause: None }
    }
}

/// Makes the attempt again and again while there is time, as long as that may help: nobody
/// else will tell the person. To be told twice is better than not at all. `how` is for the
/// log.
pub fn insist<T>(
    how: &str,
    mut attempt: impl FnMut() -> Result<T, Unheard>,
) -> Result<T, CapabilityError> {
    let mut wait = FIRST_WAIT;
    loop {
        let Unheard { error, pause } = match attempt() {
            Ok(told) => return Ok(told),
            Err(unheard) => unheard,
        };
        let may_help = matches!(
            error,
            CapabilityError::Unavailable(_) | CapabilityError::TimedOut(_)
        );
        let pause = pause.unwrap_or(wait).max(wait);
        if !may_help || clock::remaining() < pause + LEAST {
            return Err(error);
        }
        warn!("{how}: {error}; again in {} s", pause.as_secs());
        clock::sleep(pause);
        wait = (wait * 2).min(LONGEST_WAIT);
        info!("{how}: trying again");
    }
}
