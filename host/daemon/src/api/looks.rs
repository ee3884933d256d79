//! Looks that whoever probes shares: which Docker hosts answer, whether the journal can be
//! written again. What they cost does not grow with how often that is asked.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, join_all};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// How long an answer waits for looks, all at once: less than a prober waits.
const PATIENCE: Duration = Duration::from_millis(700);

/// How long a look counts: nobody who probes asks sooner again.
const KEPT: Duration = Duration::from_secs(1);

/// When a look was over, and what it came to.
type Seen = (Instant, String);

/// The last look at each of several things, by their names. One that is under way is
/// everybody's.
#[derive(Default)]
pub(super) struct Looks(Mutex<BTreeMap<String, Shared<BoxFuture<'static, Seen>>>>);

impl Looks {
    /// How each of the things is now, or was a moment ago: `ok`, or what is wrong. `ask` looks
    /// at one, and bounds its own time. What is not told in time is looked at on, as one of the
    /// `tasks`, for who asks next.
    pub(super) async fn of<F>(
        &self,
        things: impl Iterator<Item = &str>,
        tasks: &TaskTracker,
        ask: impl Fn(String) -> F,
    ) -> Vec<(String, String)>
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let looks = things.map(|thing| {
            let look = self.look(thing, tasks, &ask);
            async move {
                let state = match tokio::time::timeout(PATIENCE, look).await {
                    Ok((_, state)) => state,
                    Err(_) => format!("no answer within {PATIENCE:?}"),
                };
                (thing.to_owned(), state)
            }
        });
        let looks: Vec<_> = looks.collect();
        join_all(looks).await
    }

    /// The look at a thing that is under way or counts still, else a new one.
    fn look<F>(
        &self,
        thing: &str,
        tasks: &TaskTracker,
        ask: impl Fn(String) -> F,
    ) -> Shared<BoxFuture<'static, Seen>>
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(look) = looks.get(thing)
            && look.peek().is_none_or(|(at, _)| at.elapsed() < KEPT)
        {
            return look.clone();
        }
        let asked = ask(thing.to_owned());
        // A task, so that it is over in its time whether those who wait for it stay or go.
        let task = tasks.spawn(async move {
            let state = asked.await.err().unwrap_or_else(|| "ok".to_owned());
            (Instant::now(), state)
        });
        let look = task
            .map(|seen| seen.unwrap_or_else(|error| (Instant::now(), error.to_string())))
            .boxed()
            .shared();
        looks.insert(thing.to_owned(), look.clone());
        look
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A host that answers after some time, and counts how often it is asked.
    #[derive(Default)]
    struct Slow {
        looks: Looks,
        tasks: TaskTracker,
        asked: AtomicUsize,
        takes: Duration,
    }

    impl Slow {
        fn new(millis: u64) -> Self {
            Self {
                takes: Duration::from_millis(millis),
                ..Self::default()
            }
        }

        async fn ask(&self) -> String {
            let found = self.looks.of(["web1"].into_iter(), &self.tasks, |_| {
                self.asked.fetch_add(1, Ordering::Relaxed);
                let takes = self.takes;
                async move {
                    tokio::time::sleep(takes).await;
                    Ok(())
                }
            });
            let mut found = found.await;
            assert_eq!(found.len(), 1);
            found.remove(0).1
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn a_flood_of_probes_is_one_look_and_a_look_counts_for_a_moment() {
        let host = Slow::new(100);
        let all = join_all((0..10_000).map(|_| host.ask())).await;
        assert!(all.iter().all(|state| state == "ok"), "{all:?}");
        assert_eq!(host.asked(), 1);
        host.ask().await;
        assert_eq!(host.asked(), 1);
        tokio::time::sleep(KEPT).await;
        host.ask().await;
        assert_eq!(host.asked(), 2);
    }

    #[tokio::test]
    async fn a_host_that_hangs_is_told_in_time_and_is_asked_once() {
        let host = Slow::new(1_200);
        assert_eq!(host.ask().await, "no answer within 700ms");
        // What it comes to in the end is told to who asks next.
        assert_eq!((host.ask().await.as_str(), host.asked()), ("ok", 1));
    }

    #[tokio::test]
    async fn who_hangs_up_ends_nobody_elses_look() {
        let host = Slow::new(400);
        let gone = tokio::time::timeout(Duration::from_millis(100), host.ask()).await;
        assert!(gone.is_err());
        assert_eq!((host.ask().await.as_str(), host.asked()), ("ok", 1));
    }
}
