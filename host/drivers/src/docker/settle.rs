//! Whether an effect that began, and whose end nobody saw, was carried out.
//!
//! Docker finishes what it was asked whoever is there to hear the answer, so after a
//! crash of the daemon the state of the container tells. These are the rules:
//!
//! - An effect is done when what it was to bring about has come about since it began.
//!   Whoever else may have brought it about is not asked: a restart by hand in the same
//!   moment serves as well.
//! - It is not done only where carrying it out (again) is right: it has not come about,
//!   and Docker can no longer be at work on it.
//! - What is neither is unknown, with the reason.
//!
//! Moments are compared by Docker's clock alone. When the effect began is known by the
//! daemon's, so Docker is asked for its time, which puts the begin between two moments
//! of Docker's clock, as far apart as that answer took; what lies between them is
//! neither before nor after. This holds as long as no clock was set in the meantime. A
//! daemon's clock that was set back behind the begin is seen, and is unknown.

use std::time::Duration;

use bollard::models::{ContainerInspectResponse, EventMessage};
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::Signal;
use sentinel_core::capability::{
    CapabilityError, ContainerDetails, DockerCall, OWN_GRACE, Response,
};
use sentinel_sandbox::driver::Settled;
use tokio::time::Instant;

use super::details::is_up;
use super::duplicate::Sibling;
use super::host::{Ask, Host};
use super::make::short;
use super::{Grace, details, recreate};

/// How long after its begin Docker may still be at work on one request, not counting a
/// grace: far more than starting a container takes on a busy machine.
const REQUEST: Duration = Duration::from_secs(10);

/// The same for a recreate and a duplicate, which are rows of requests.
const RECREATE: Duration = Duration::from_secs(30);

/// As much of a container's own time to stop is waited for at the most.
const OWN_PATIENCE: Duration = Duration::from_mins(10);

/// How often the state is looked at while Docker may still be at work.
const POLL: Duration = Duration::from_millis(200);

/// How often Docker is asked for its time; the quickest answer counts.
const CLOCK_SAMPLES: usize = 3;

/// Settles `call`, whose container is a full id; answers within `timeout`.
pub(super) async fn settle(
    host: &Host,
    call: &DockerCall,
    began_at: Timestamp,
    timeout: Duration,
) -> Result<Settled, CapabilityError> {
    let Some(container) = call.container().filter(|_| call.action().is_effect()) else {
        // Looking again changes nothing.
        return Ok(Settled::NotDone);
    };
    let now = Timestamp::now();
    if began_at > now {
        return Ok(Settled::Unknown(host.says(&format!(
            "{} began at {began_at} by a clock that was set back since: it is {now}",
            call.action().call_name()
        ))));
    }
    let patience = match call {
        DockerCall::Recreate { .. } | DockerCall::Duplicate { .. } => RECREATE,
        // A remove is two requests.
        DockerCall::Remove { .. } => 2 * REQUEST,
        _ => REQUEST,
    } + match call.grace_ms() {
        Some(own) if own >= OWN_GRACE => match host.inspect(container, timeout).await {
            Ok(found) => details::own_grace(&found).min(OWN_PATIENCE),
            // There is nothing to wait for.
            Err(CapabilityError::NotFound(_)) => Duration::ZERO,
            Err(error) => return Err(error),
        },
        grace => Grace::of(grace.unwrap_or(0)).duration(),
    };
    let asked_at = Instant::now();
    let elapsed = now.duration_since(began_at).unsigned_abs();
    let deadline = asked_at + timeout;
    let client = host.client(timeout).await?;
    let Some(began) = window(host, &client, began_at, deadline).await? else {
        return Ok(Settled::Unknown(host.says(
            "it does not tell its time, so nothing tells what came before and what after",
        )));
    };
    let doubt = Doubt {
        host,
        client: &client,
        container,
        began,
        deadline,
    };
    doubt
        .wait(call, asked_at + patience.saturating_sub(elapsed))
        .await
}

/// When the effect began, by Docker's clock; none when Docker does not tell it.
async fn window(
    host: &Host,
    client: &bollard::Docker,
    began_at: Timestamp,
    deadline: Instant,
) -> Result<Option<Window>, CapabilityError> {
    let mut best: Option<Window> = None;
    for _ in 0..CLOCK_SAMPLES {
        let left = deadline.saturating_duration_since(Instant::now());
        let asked = Timestamp::now();
        let info = host
            .answer(Ask::observation("info"), left, client.info())
            .await?;
        let heard = Timestamp::now();
        let Some(told) = details::moment(info.system_time.as_deref()) else {
            return Ok(None);
        };
        let window = Window::new(began_at, asked, told, heard);
        if best.is_none_or(|best| window.width() < best.width()) {
            best = Some(window);
        }
    }
    Ok(best)
}

/// An effect in doubt.
struct Doubt<'a> {
    host: &'a Host,
    client: &'a bollard::Docker,
    container: &'a str,
    began: Window,
    deadline: Instant,
}

/// What one look at Docker says.
enum Look {
    /// Nothing that may still happen changes this.
    Final(Settled),
    /// This, unless Docker is still at work on the request.
    Tentative(Settled),
}

impl Look {
    const DONE: Self = Self::Final(Settled::Done(Response::Done));
}

impl Doubt<'_> {
    /// Looks until it is told, or Docker can no longer be at work on it (`over`), or
    /// the time is up.
    async fn wait(&self, call: &DockerCall, over: Instant) -> Result<Settled, CapabilityError> {
        loop {
            let looked_at = Instant::now();
            let tentative = match self.look(call).await? {
                Look::Final(settled) => return Ok(settled),
                Look::Tentative(settled) => settled,
            };
            if looked_at >= over {
                return Ok(tentative);
            }
            if looked_at + POLL >= self.deadline {
                return Ok(self.unknown(&format!(
                    "{} may still be under way",
                    call.action().call_name()
                )));
            }
            tokio::time::sleep_until(over.min(looked_at + POLL)).await;
        }
    }

    async fn look(&self, call: &DockerCall) -> Result<Look, CapabilityError> {
        match call {
            DockerCall::Recreate { .. } => return self.recreated().await,
            DockerCall::Kill { signal, .. } => return self.killed(signal).await,
            DockerCall::Duplicate { name, .. } => return self.duplicated(name).await,
            DockerCall::Remove { .. } => {
                return Ok(match self.inspect(self.container).await? {
                    None => Look::DONE,
                    Some(_) => Look::Tentative(Settled::NotDone),
                });
            }
            _ => {}
        }
        let Some(found) = self.details().await? else {
            return Ok(self.gone());
        };
        Ok(match call {
            DockerCall::Start { .. } => self.started(&found),
            DockerCall::Restart { .. } => self.restarted(&found),
            DockerCall::Stop { .. } => self.stopped(&found),
            _ => Look::Final(Settled::NotDone),
        })
    }

    fn started(&self, found: &ContainerDetails) -> Look {
        match self.began.compare(found.started_at) {
            Order::After => Look::DONE,
            // To start what runs changes nothing.
            _ if is_up(found.state) => Look::Final(Settled::NotDone),
            Order::Before => Look::Tentative(Settled::NotDone),
            Order::Close => Look::Tentative(self.too_close("was started")),
        }
    }

    fn restarted(&self, found: &ContainerDetails) -> Look {
        match self.began.compare(found.started_at) {
            Order::After => Look::DONE,
            Order::Before => Look::Tentative(Settled::NotDone),
            Order::Close => Look::Tentative(self.too_close("was started")),
        }
    }

    fn stopped(&self, found: &ContainerDetails) -> Look {
        match (is_up(found.state), self.began.compare(found.finished_at)) {
            (false, Order::After) => Look::DONE,
            // To stop what does not run changes nothing.
            (false, _) => Look::Final(Settled::NotDone),
            (true, Order::Before) => Look::Tentative(Settled::NotDone),
            (true, _) => {
                Look::Tentative(self.unknown("the container ended and was started again since"))
            }
        }
    }

    /// The state does not tell of signals that end nothing; Docker's last events do.
    async fn killed(&self, signal: &str) -> Result<Look, CapabilityError> {
        let Some(number) = signal_number(signal) else {
            return Ok(Look::Final(
                self.unknown(&format!("nothing tells whether {signal} was sent")),
            ));
        };
        // Podman's events do not say which signal was sent, and some of them are not Docker's.
        let podman = self.host.wire(self.left()).await?.is_podman();
        let events = if podman {
            Vec::new()
        } else {
            self.events().await?
        };
        let sent = events.iter().rev().find(|event| {
            let actor = event.actor.as_ref();
            let attributes = actor.and_then(|actor| actor.attributes.as_ref());
            event.action.as_deref() == Some("kill")
                && actor.and_then(|actor| actor.id.as_deref()) == Some(self.container)
                && attributes.and_then(|attributes| attributes.get("signal"))
                    == Some(&number.to_string())
        });
        let close = match sent.map(|event| self.began.compare(moment(event))) {
            Some(Order::After) => return Ok(Look::DONE),
            Some(Order::Close) => true,
            Some(Order::Before) | None => false,
        };
        let Some(found) = self.details().await? else {
            return Ok(self.gone());
        };
        let ended_by_it = !is_up(found.state)
            && found.exit_code == 128 + i64::from(number)
            && self.began.compare(found.finished_at) == Order::After;
        if ended_by_it {
            return Ok(Look::DONE);
        }
        // The list reaches back to the begin only if something older is in it.
        let complete = events
            .first()
            .is_some_and(|oldest| self.began.compare(moment(oldest)) == Order::Before);
        Ok(Look::Tentative(if close {
            self.too_close(&format!("was sent {signal}"))
        } else if complete {
            Settled::NotDone
        } else if podman {
            self.unknown(&format!("Podman does not tell whether {signal} was sent"))
        } else {
            self.unknown(&format!(
                "Docker keeps no events from so long ago, and nothing else tells whether {signal} was sent"
            ))
        }))
    }

    /// A recreate that was cut off leaves one of these: the old container untouched, or
    /// stopped, or moved aside, with or without a new one that never ran: all of them
    /// are gone on from when it is carried out again. Or a new one that was started,
    /// and then only the old one's removal may be missing.
    async fn recreated(&self) -> Result<Look, CapabilityError> {
        let left = self.left();
        let successors = recreate::successors(self.host, self.container, left).await?;
        let old = self.inspect(self.container).await?;
        let is_aside = old
            .as_ref()
            .and_then(|old| old.name.as_deref())
            .map(details::bare)
            .is_none_or(|name| recreate::own_name(self.container, name) != name);
        let ran = successors.iter().find(|successor| {
            successor.ran && is_aside && self.began.compare(successor.created) != Order::Before
        });
        if let Some(successor) = ran {
            if old.is_some() {
                tracing::warn!(
                    container = successor.name,
                    old = self.container,
                    "recreated, but the old container is still there; remove it by hand"
                );
            }
            return Ok(Look::Final(Settled::Done(Response::Created(
                successor.id.clone(),
            ))));
        }
        if old.is_none() {
            return Ok(self.gone());
        }
        Ok(Look::Tentative(Settled::NotDone))
    }

    /// A duplicate that was cut off leaves no container, or one that never ran; either is
    /// gone on from when it is carried out again.
    async fn duplicated(&self, name: &str) -> Result<Look, CapabilityError> {
        let found = self.inspect(name).await?;
        let sibling = found.and_then(|found| Sibling::of(&found, self.container));
        Ok(match sibling {
            Some(sibling)
                if sibling.ran && self.began.compare(sibling.created) != Order::Before =>
            {
                Look::Final(Settled::Done(Response::Created(sibling.id)))
            }
            _ => Look::Tentative(Settled::NotDone),
        })
    }

    async fn details(&self) -> Result<Option<ContainerDetails>, CapabilityError> {
        match self.inspect(self.container).await? {
            None => Ok(None),
            Some(found) => details::details(found)
                .map(Some)
                .ok_or_else(|| self.host.nonsense("inspect")),
        }
    }

    async fn inspect(
        &self,
        container: &str,
    ) -> Result<Option<ContainerInspectResponse>, CapabilityError> {
        match self.host.inspect(container, self.left()).await {
            Ok(found) => Ok(Some(found)),
            Err(CapabilityError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What Docker remembers of what happened, oldest first: the last 256 events of
    /// everything, and none from before it was started.
    async fn events(&self) -> Result<Vec<EventMessage>, CapabilityError> {
        // With an end that has passed, Docker tells what it has and does not wait.
        let until = self.began.at_docker(Timestamp::now());
        let until = format!("{}.{:09}", until.as_second(), until.subsec_nanosecond());
        let options = EventsOptionsBuilder::new().since("1").until(&until).build();
        self.host
            .answer(
                Ask::observation("events"),
                self.left(),
                self.client.events(Some(options)).try_collect(),
            )
            .await
    }

    fn gone(&self) -> Look {
        Look::Final(self.unknown(&format!("the container {} is gone", short(self.container))))
    }

    fn too_close(&self, what: &str) -> Settled {
        self.unknown(&format!(
            "the container {what} as the effect began, too close to tell which came first"
        ))
    }

    fn unknown(&self, reason: &str) -> Settled {
        Settled::Unknown(self.host.says(reason))
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// A moment of the daemon's clock, between two of Docker's.
#[derive(Debug, Clone, Copy)]
struct Window {
    earliest: Timestamp,
    latest: Timestamp,
    /// How far Docker's clock is ahead of the daemon's, at least.
    ahead: SignedDuration,
}

/// How a moment of Docker's clock lies to a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Before,
    Close,
    After,
}

impl Window {
    /// Docker told its time `told` between `asked` and `heard`, which are moments of
    /// the daemon's clock like `moment`.
    fn new(moment: Timestamp, asked: Timestamp, told: Timestamp, heard: Timestamp) -> Self {
        let ahead = told.duration_since(heard);
        Self {
            earliest: shifted(moment, ahead),
            latest: shifted(moment, told.duration_since(asked)),
            ahead,
        }
    }

    fn width(&self) -> SignedDuration {
        self.latest.duration_since(self.earliest)
    }

    /// What never happened was before.
    fn compare(&self, at: Option<Timestamp>) -> Order {
        match at {
            Some(at) if at > self.latest => Order::After,
            Some(at) if at >= self.earliest => Order::Close,
            Some(_) | None => Order::Before,
        }
    }

    /// The earliest that Docker's clock can show at `now`.
    fn at_docker(&self, now: Timestamp) -> Timestamp {
        shifted(now, self.ahead)
    }
}

/// `at` moved by `by`; as far as a timestamp goes.
fn shifted(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(at)
}

fn moment(event: &EventMessage) -> Option<Timestamp> {
    Timestamp::from_nanosecond(event.time_nano?.into()).ok()
}

/// The number that Docker shows for a signal; none for a name that it does not know.
fn signal_number(signal: &str) -> Option<i32> {
    let name = signal.strip_prefix("SIG").unwrap_or(signal);
    let real_time = |offset: &str| offset.parse::<i32>().ok();
    // As Docker counts them, whatever the C library keeps for itself.
    match (name, name.get(..6), name.get(6..)) {
        ("RTMIN", ..) => Some(34),
        ("RTMAX", ..) => Some(64),
        (_, Some("RTMIN+"), Some(offset)) => Some(34 + real_time(offset)?),
        (_, Some("RTMAX-"), Some(offset)) => Some(64 - real_time(offset)?),
        _ => format!("SIG{name}")
            .parse::<Signal>()
            .ok()
            .map(|signal| signal as i32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64, millisecond: i32) -> Timestamp {
        Timestamp::new(second, millisecond * 1_000_000).unwrap()
    }

    #[test]
    fn moments_are_compared_by_dockers_clock() {
        // Docker's clock is an hour ahead; its answer took 20 ms.
        let window = Window::new(at(100, 0), at(200, 0), at(3_800, 10), at(200, 20));
        for (moment, order) in [
            (None, Order::Before),
            (Some(at(150, 0)), Order::Before),
            (Some(at(3_699, 989)), Order::Before),
            (Some(at(3_699, 990)), Order::Close),
            (Some(at(3_700, 10)), Order::Close),
            (Some(at(3_700, 11)), Order::After),
        ] {
            assert_eq!(window.compare(moment), order, "{moment:?}");
        }
        assert_eq!(window.width(), SignedDuration::from_millis(20));
        assert_eq!(window.at_docker(at(200, 20)), at(3_800, 10));
        // And an hour behind.
        let window = Window::new(at(7_200, 0), at(7_300, 0), at(3_700, 0), at(7_300, 0));
        assert_eq!(window.compare(Some(at(3_599, 999))), Order::Before);
        assert_eq!(window.compare(Some(at(3_600, 1))), Order::After);
    }

    #[test]
    fn signals_have_dockers_numbers() {
        for (signal, number) in [
            ("SIGHUP", Some(1)),
            ("HUP", Some(1)),
            ("KILL", Some(9)),
            ("SIGTERM", Some(15)),
            ("SIGRTMIN", Some(34)),
            ("RTMIN+3", Some(37)),
            ("SIGRTMAX-1", Some(63)),
            ("SIGNOTHING", None),
            ("RTMIN+x", None),
            ("", None),
        ] {
            assert_eq!(signal_number(signal), number, "{signal}");
        }
    }
}
