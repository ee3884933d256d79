//! The clock of a run: every look that a guest takes at it is one number, and is on
//! record.
//!
//! A guest has one clock, whichever interface it looks through: the contract's and WASI's
//! wall clocks and monotonic clocks are all computed from the nanoseconds since the run
//! began. Inside a run time is steady, whatever happens to the host's clock. Each look is a
//! call to the host and counts against the run's limit of those, so that the record of a
//! guest that looks a million times stays bounded.
//!
//! When a run goes on from its record, its clock follows the record and then goes on from
//! the last reading: the time for which the daemon was down is none of the run's time. The
//! wall clock skips it, from the moment at which the run was resumed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::Pollable;

use crate::playback::Playback;

/// How many looks wait at most before they are recorded.
const BATCH: usize = 256;
/// How much later each look is that the record of a replay does not have: time moves, so
/// that a guest that waits for it comes to an end.
const STEP: u64 = 1_000;

/// Where looks are recorded. Called with the clock locked: it must not block.
pub(crate) type Sink = Box<dyn Fn(&[u64]) + Send + Sync>;

/// What a guest sees at one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// Nanoseconds since the run began.
    pub(crate) elapsed: u64,
    /// The wall clock.
    pub(crate) wall: Timestamp,
}

/// The clock of one run. Clones are the same clock.
#[derive(Clone)]
pub(crate) struct RunClock {
    shared: Arc<Shared>,
}

struct Shared {
    began_at: Timestamp,
    timeout: Duration,
    pace: Pace,
    playback: Option<Arc<Playback>>,
    /// What the wall clock has skipped, from which look on.
    skips: Vec<(usize, SignedDuration)>,
    sink: Option<Sink>,
    max_polls: u32,
    too_many: Notify,
    state: Mutex<State>,
}

/// How time goes on once the record has no more.
#[derive(Clone, Copy)]
enum Pace {
    /// As it does outside: it was `base` nanoseconds after the begin at `since`.
    Real { base: u64, since: Instant },
    /// By looks and sleeps alone: nothing is waited for.
    Skipping,
}

#[derive(Default)]
struct State {
    /// How many looks were taken.
    looks: usize,
    /// The last reading, and what skipped sleeps have added to it.
    now: u64,
    /// Looks that are not recorded yet.
    waiting: Vec<u64>,
    /// How many looks were taken by pollables, whose calls are not counted otherwise.
    polls: u32,
    /// The timers of a poll that has begun to wait: when each is due, and its number.
    armed: Vec<(u64, u64)>,
    timers: u64,
}

impl RunClock {
    /// The clock of a run that takes place. With a record, it begins by following that.
    /// `max_polls` bounds the looks that guests take through WASI's pollables.
    pub(crate) fn real(
        began_at: Timestamp,
        timeout: Duration,
        playback: Option<Arc<Playback>>,
        max_polls: u32,
        sink: Option<Sink>,
    ) -> Self {
        let base = playback
            .as_ref()
            .and_then(|playback| playback.recording().readings.last().copied())
            .unwrap_or(0);
        let since = Instant::now();
        let pace = Pace::Real { base, since };
        Self::new(began_at, timeout, playback, max_polls, sink, pace)
    }

    /// The clock of a run that is only played again: no sleep takes any time.
    pub(crate) fn skipping(
        began_at: Timestamp,
        timeout: Duration,
        playback: Arc<Playback>,
        max_polls: u32,
    ) -> Self {
        let pace = Pace::Skipping;
        Self::new(began_at, timeout, Some(playback), max_polls, None, pace)
    }

    fn new(
        began_at: Timestamp,
        timeout: Duration,
        playback: Option<Arc<Playback>>,
        max_polls: u32,
        sink: Option<Sink>,
        pace: Pace,
    ) -> Self {
        let skips = playback
            .as_ref()
            .map(|playback| skips(began_at, playback))
            .unwrap_or_default();
        Self {
            shared: Arc::new(Shared {
                began_at,
                timeout,
                pace,
                playback,
                skips,
                sink,
                max_polls,
                too_many: Notify::new(),
                state: Mutex::default(),
            }),
        }
    }

    /// When the run is cut off.
    pub(crate) fn deadline(&self) -> Instant {
        match self.shared.pace {
            Pace::Real { base, since } => {
                since
                    + self
                        .shared
                        .timeout
                        .saturating_sub(Duration::from_nanos(base))
            }
            Pace::Skipping => Instant::now() + self.shared.timeout,
        }
    }

    /// What the guest sees now.
    pub(crate) fn look(&self) -> Look {
        let mut state = self.lock();
        let look = self.shared.look(&mut state);
        if state.waiting.len() >= BATCH {
            self.shared.record(&mut state);
        }
        look
    }

    /// What `look` leaves of the time that the run has.
    pub(crate) fn left(&self, look: Look) -> Duration {
        self.shared
            .timeout
            .saturating_sub(Duration::from_nanos(look.elapsed))
    }

    /// How many looks were taken.
    pub(crate) fn looks(&self) -> usize {
        self.lock().looks
    }

    /// The wall clock, for others than the guest: no look of its.
    pub(crate) fn wall(&self) -> Timestamp {
        let state = self.lock();
        let elapsed = self.shared.outside(&state);
        self.shared.wall(state.looks, elapsed)
    }

    /// Records the looks that wait for it. To be called before anything else is recorded
    /// that the guest did after them, and when it is gone.
    pub(crate) fn flush(&self) {
        self.shared.record(&mut self.lock());
    }

    /// Waits, unless the record says how that ended.
    pub(crate) async fn sleep(&self, span: Duration) {
        match self.shared.pace {
            Pace::Real { .. } if self.is_played() => {}
            // Past the deadline the run is cut off anyway.
            Pace::Real { .. } => {
                let left = self.deadline().saturating_duration_since(Instant::now());
                tokio::time::sleep(span.min(left)).await;
            }
            Pace::Skipping => {
                let mut state = self.lock();
                state.now = state.now.saturating_add(nanos(span));
            }
        }
    }

    /// Waits until so many nanoseconds after the begin, unless the record says how that
    /// ended.
    async fn sleep_until(&self, elapsed: u64) {
        match self.shared.pace {
            Pace::Real { .. } if self.is_played() => {}
            Pace::Real { base, since } => {
                let span = Duration::from_nanos(elapsed.saturating_sub(base));
                match since.checked_add(span) {
                    Some(moment) => tokio::time::sleep_until(moment).await,
                    None => std::future::pending().await,
                }
            }
            Pace::Skipping => {
                let mut state = self.lock();
                state.now = state.now.max(elapsed);
            }
        }
    }

    /// Waits until the guest has polled too often.
    pub(crate) async fn polled_too_often(&self) {
        self.shared.too_many.notified().await;
    }

    /// Whether there is a record, and more of it to come.
    pub(crate) fn is_played(&self) -> bool {
        self.shared
            .playback
            .as_ref()
            .is_some_and(|playback| !playback.is_over())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn look(&self, state: &mut State) -> Look {
        let recorded = self
            .playback
            .as_ref()
            .and_then(|playback| playback.next_reading());
        let elapsed = match (recorded, self.pace) {
            (Some(recorded), _) => recorded,
            (None, Pace::Real { .. }) => {
                let elapsed = self.outside(state);
                if self.sink.is_some() {
                    state.waiting.push(elapsed);
                }
                elapsed
            }
            (None, Pace::Skipping) => state.now.saturating_add(STEP),
        };
        let wall = self.wall(state.looks, elapsed);
        state.looks += 1;
        state.now = elapsed;
        Look { elapsed, wall }
    }

    fn outside(&self, state: &State) -> u64 {
        match self.pace {
            Pace::Real { base, since } => base.saturating_add(nanos(since.elapsed())),
            Pace::Skipping => state.now,
        }
    }

    fn wall(&self, looks: usize, elapsed: u64) -> Timestamp {
        let skipped = self
            .skips
            .iter()
            .rev()
            .find(|(from, _)| *from <= looks)
            .map_or(SignedDuration::ZERO, |(_, skipped)| *skipped);
        after(self.began_at, elapsed, skipped)
    }

    fn record(&self, state: &mut State) {
        if let (Some(sink), false) = (&self.sink, state.waiting.is_empty()) {
            sink(&state.waiting);
            state.waiting.clear();
        }
    }
}

/// For each resumption of a run, how far the wall clock is ahead of the run's own time
/// from then on.
fn skips(began_at: Timestamp, playback: &Playback) -> Vec<(usize, SignedDuration)> {
    let recording = playback.recording();
    let mut skipped = SignedDuration::ZERO;
    recording
        .resumptions
        .iter()
        .map(|resumed| {
            let last = resumed
                .looks
                .checked_sub(1)
                .and_then(|last| recording.readings.get(last).copied())
                .unwrap_or(0);
            let left_off = after(began_at, last, skipped);
            // The host's clock may have been set back: the guest's never goes back.
            skipped = skipped.saturating_add(
                resumed
                    .at
                    .duration_since(left_off)
                    .max(SignedDuration::ZERO),
            );
            (resumed.looks, skipped)
        })
        .collect()
}

fn after(began_at: Timestamp, elapsed: u64, skipped: SignedDuration) -> Timestamp {
    let elapsed = SignedDuration::try_from(Duration::from_nanos(elapsed))
        .unwrap_or(SignedDuration::MAX)
        .saturating_add(skipped);
    began_at.checked_add(elapsed).unwrap_or(Timestamp::MAX)
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// A pollable of WASI that is ready at a moment of the run's clock.
///
/// Which pollables a poll finds ready must not hang on the host's timers, or it could not
/// be played again. So a poll takes one look at the clock for each timer; if no timer is
/// due by those, it waits for the earliest one, and finds that one ready and no other.
pub(crate) struct Timer {
    pub(crate) clock: RunClock,
    /// In nanoseconds since the run began.
    pub(crate) due: u64,
}

#[async_trait]
impl Pollable for Timer {
    async fn ready(&mut self) {
        let Some(look) = self.clock.look_in_poll() else {
            // The run is being ended for it.
            return std::future::pending().await;
        };
        if look.elapsed >= self.due {
            return;
        }
        let armed = self.clock.arm(self.due);
        // By the time that this goes on, every other timer of the same poll is armed.
        tokio::task::yield_now().await;
        if armed.is_earliest() {
            self.clock.sleep_until(self.due).await;
        } else {
            std::future::pending::<()>().await;
        }
    }
}

impl RunClock {
    fn look_in_poll(&self) -> Option<Look> {
        {
            let mut state = self.lock();
            if state.polls >= self.shared.max_polls {
                self.shared.too_many.notify_one();
                return None;
            }
            state.polls += 1;
        }
        Some(self.look())
    }

    fn arm(&self, due: u64) -> Armed<'_> {
        let mut state = self.lock();
        state.timers += 1;
        let timer = (due, state.timers);
        state.armed.push(timer);
        Armed { clock: self, timer }
    }
}

/// A timer that is waited for.
struct Armed<'a> {
    clock: &'a RunClock,
    timer: (u64, u64),
}

impl Armed<'_> {
    /// Of those that are due at the same moment it is the one that was armed first.
    fn is_earliest(&self) -> bool {
        self.clock.lock().armed.iter().min() == Some(&self.timer)
    }
}

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        self.clock.lock().armed.retain(|timer| *timer != self.timer);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn clock(max_polls: u32) -> (RunClock, Arc<Mutex<Vec<u64>>>) {
        let recorded = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&recorded);
        let clock = RunClock::real(
            "2026-01-02T03:04:05Z".parse().unwrap(),
            Duration::from_secs(30),
            None,
            max_polls,
            Some(Box::new(move |readings: &[u64]| {
                sink.lock().unwrap().extend_from_slice(readings);
            })),
        );
        (clock, recorded)
    }

    /// Waits as `poll` of WASI does: for any of them, and says which are ready then.
    async fn poll(timers: &mut [Timer]) -> Vec<usize> {
        let mut waits: Vec<_> = timers.iter_mut().map(Timer::ready).collect();
        std::future::poll_fn(|context| {
            let ready: Vec<usize> = waits
                .iter_mut()
                .enumerate()
                .filter_map(|(at, wait)| wait.as_mut().poll(context).is_ready().then_some(at))
                .collect();
            if ready.is_empty() {
                Poll::Pending
            } else {
                Poll::Ready(ready)
            }
        })
        .await
    }

    #[tokio::test]
    async fn of_the_timers_of_a_poll_the_earliest_is_ready_and_no_other() {
        let (clock, recorded) = clock(100);
        // They are so close that the host's timer finds all of them due at once.
        let due = |nanos: u64| Timer {
            clock: clock.clone(),
            due: 100_000_000 + nanos,
        };
        let mut timers = [due(7), due(5), due(5), due(6)];
        assert_eq!(poll(&mut timers).await, [1]);
        assert!(clock.look().elapsed >= 100_000_005);
        clock.flush();
        assert_eq!(
            recorded.lock().unwrap().len(),
            5,
            "one look for each timer, however often it was woken, and one to see"
        );
        assert_eq!(poll(&mut timers).await, [0, 1, 2, 3], "all are past");
        assert!(clock.lock().armed.is_empty());
    }

    #[tokio::test]
    async fn a_timer_that_is_only_asked_says_whether_it_is_due() {
        let (clock, _) = clock(3);
        let mut timer = Timer {
            clock: clock.clone(),
            due: 100_000_000,
        };
        let mut is_due = || {
            let mut context = Context::from_waker(Waker::noop());
            pin!(timer.ready()).poll(&mut context).is_ready()
        };
        assert!(!is_due());
        tokio::time::sleep(Duration::from_millis(110)).await;
        assert!(is_due() && is_due());
        assert!(!is_due(), "too often");
        clock.polled_too_often().await;
    }

    #[tokio::test]
    async fn looks_are_recorded_in_order_and_in_batches() {
        let (clock, recorded) = clock(0);
        let mut looks = Vec::new();
        for _ in 0..BATCH {
            assert_eq!(*recorded.lock().unwrap(), [0_u64; 0]);
            looks.push(clock.look().elapsed);
        }
        assert_eq!(*recorded.lock().unwrap(), looks);
        assert!(looks.is_sorted());
        let look = clock.look();
        looks.push(look.elapsed);
        clock.flush();
        clock.flush();
        assert_eq!(*recorded.lock().unwrap(), looks);
        assert_eq!(clock.looks(), BATCH + 1);
        let elapsed = Duration::from_nanos(look.elapsed);
        assert_eq!(clock.left(look) + elapsed, Duration::from_secs(30));
        let began: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        assert_eq!(look.wall, began + elapsed);
    }
}
