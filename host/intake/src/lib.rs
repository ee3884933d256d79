//! From the bytes that senders deliver to alerts: what Alertmanager's webhook sends and what
//! resembles it, and what is posted as to an Alertmanager.
//!
//! Whatever comes is read within bounds of work and of memory, and what is said of it is
//! bounded too. This crate does no I/O and knows no clock: the time comes in with a delivery. So
//! it can be fed with anything, which the fuzz targets do.

#![forbid(unsafe_code)]

mod alert;
mod alertmanager;
mod lax;
mod malformed;
mod prometheus;
mod reading;

use std::time::Duration;

use jiff::Timestamp;
use sentinel_core::alert::Alert;
use sentinel_core::lease::Span;

pub use self::lax::{growth, text};
use self::malformed::Wrong;
pub use self::malformed::{Malformed, Refused};
pub use self::reading::{ALERTS, Reading};

/// Where alerts come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// Alertmanager's webhook, and Grafana's.
    Alertmanager,
    /// What senders post to an Alertmanager.
    Prometheus,
}

impl Endpoint {
    /// What its alerts have for their source.
    #[must_use]
    pub fn source(self) -> &'static str {
        match self {
            Self::Alertmanager => "alertmanager",
            Self::Prometheus => "prometheus",
        }
    }

    fn open(self, text: &str) -> Result<Delivery, Malformed> {
        match self {
            Self::Alertmanager => alertmanager::open(text),
            Self::Prometheus => prometheus::open(text),
        }
    }

    fn read(
        self,
        text: &str,
        alert: &str,
        now: Timestamp,
        resolve_timeout: Duration,
    ) -> Result<One, Wrong> {
        match self {
            Self::Alertmanager => alertmanager::read(text, alert),
            Self::Prometheus => prometheus::read(text, alert, now, resolve_timeout),
        }
    }
}

/// What a delivery turned out to hold.
struct Delivery {
    /// Where in the text the next of its alerts is looked for; none where it has no more.
    at: Option<usize>,
    /// Set when Alertmanager says that it left alerts out.
    truncated: Option<Truncated>,
}

impl Delivery {
    fn at(at: usize) -> Self {
        Self {
            at: Some(at),
            truncated: None,
        }
    }

    fn empty() -> Self {
        Self {
            at: None,
            truncated: None,
        }
    }
}

/// One alert of a delivery.
#[derive(Debug)]
pub struct One {
    /// The alert.
    pub alert: Alert,
    /// From when until when it holds, where a lease decides which alert it is.
    pub span: Option<Span>,
    /// Whether annotations were cut.
    pub cut: bool,
}

/// What Alertmanager says of the alerts that it left out of a delivery.
#[derive(Debug)]
pub struct Truncated {
    /// The name of its receiver.
    pub receiver: String,
    /// The key of the alerts' group.
    pub group: String,
    /// How many there are.
    pub count: u32,
}
