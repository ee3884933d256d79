//! Time, as the host tells it. Needs no grant.

use std::time::Duration;

use crate::Timestamp;
use crate::bindings::sentinel::plugin::clock as host;

/// The wall clock.
#[must_use]
pub fn now() -> Timestamp {
    host::now()
}

/// How long the run has lasted; never goes back.
#[must_use]
pub fn elapsed() -> Duration {
    Duration::from_millis(host::elapsed())
}

/// How long the run may still last before it is cut off.
#[must_use]
pub fn remaining() -> Duration {
    Duration::from_millis(host::remaining())
}

/// Waits. A run that sleeps holds no thread of the host, and is cut off when its time is
/// over like any other. Parts of a millisecond are rounded up.
pub fn sleep(duration: Duration) {
    host::sleep(milliseconds(duration));
}

/// A span as the contract carries it, rounded up.
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_rounded_up_and_saturate() {
        assert_eq!(milliseconds(Duration::ZERO), 0);
        assert_eq!(milliseconds(Duration::from_nanos(1)), 1);
        assert_eq!(milliseconds(Duration::from_millis(5)), 5);
        assert_eq!(milliseconds(Duration::MAX), u64::MAX);
    }
}
