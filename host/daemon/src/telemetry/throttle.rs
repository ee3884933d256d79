//! Lines of the log that outsiders can cause: so many a minute, and a count of the others.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many lines pass in each [`WINDOW`].
const LINES: u32 = 10;

/// How long a window is.
const WINDOW: Duration = Duration::from_secs(60);

/// Lets a few lines through in each minute.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    passed: u32,
    kept_back: u64,
}

impl Throttle {
    /// Whether a line may be written now; if so, how many were kept back before it.
    pub(crate) fn pass(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = window
            .began
            .is_none_or(|began| now.saturating_duration_since(began) >= WINDOW);
        if over {
            window.began = Some(now);
            window.passed = 0;
        }
        if window.passed == LINES {
            window.kept_back += 1;
            return None;
        }
        window.passed += 1;
        Some(std::mem::take(&mut window.kept_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_lines_pass_in_a_minute_and_the_next_one_says_how_many_did_not() {
        let throttle = Throttle::default();
        let start = Instant::now();
        for _ in 0..10 {
            assert_eq!(throttle.pass(start), Some(0));
        }
        for second in 0..59 {
            assert_eq!(throttle.pass(start + Duration::from_secs(second)), None);
        }
        assert_eq!(throttle.pass(start + WINDOW), Some(59));
        assert_eq!(throttle.pass(start + WINDOW), Some(0));
    }
}
