//! A body on its way to become alerts: slice by slice, so that nobody waits for a large one
//! and no more of it is in memory than is being dealt with.

use std::time::Duration;

use jiff::Timestamp;

use super::malformed::{Malformed, Places, Refused};
use super::{Delivery, Endpoint, One, Truncated, alert, lax};

/// How many alerts of a delivery are committed as one. A group of Alertmanager's can hold
/// twenty thousand: then others are served in between.
pub const ALERTS: usize = 500;

/// How much of the text is read for them, in bytes.
const TEXT: usize = 1 << 20;

/// A body, as far as it has been read.
pub struct Reading {
    endpoint: Endpoint,
    text: String,
    now: Timestamp,
    resolve_timeout: Duration,
    delivery: Delivery,
    // How many of its alerts were read.
    index: usize,
    places: Places,
    refused: Refused,
    cut: usize,
}

impl Reading {
    /// Looks whether the text is what the endpoint takes, without reading any of its alerts.
    pub fn open(
        endpoint: Endpoint,
        text: String,
        now: Timestamp,
        resolve_timeout: Duration,
    ) -> Result<Self, Malformed> {
        let delivery = endpoint.open(&text)?;
        Ok(Self {
            endpoint,
            text,
            now,
            resolve_timeout,
            delivery,
            index: 0,
            places: Places::default(),
            refused: Refused::default(),
            cut: 0,
        })
    }

    /// Set when Alertmanager says that it left alerts out; told once.
    pub fn truncated(&mut self) -> Option<Truncated> {
        self.delivery.truncated.take()
    }

    /// Whether all of it has been read.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.delivery.at.is_none()
    }

    /// The alerts that are refused so far.
    #[must_use]
    pub fn refused(&self) -> &Refused {
        &self.refused
    }

    /// Of how many alerts annotations were cut.
    #[must_use]
    pub fn cut(&self) -> usize {
        self.cut
    }

    /// The next alerts; there may be more where there are none.
    pub fn slice(&mut self) -> Vec<One> {
        let mut taken = Vec::new();
        let Some(begin) = self.delivery.at else {
            return taken;
        };
        let mut at = begin;
        while taken.len() < ALERTS && at - begin < TEXT {
            let Some((start, end)) = lax::element(&self.text, at) else {
                self.delivery.at = None;
                return taken;
            };
            at = end;
            taken.extend(self.one(start, end));
        }
        self.delivery.at = Some(at);
        taken
    }

    fn one(&mut self, start: usize, end: usize) -> Option<One> {
        let index = self.index;
        self.index += 1;
        let text = &self.text;
        let raw = text.get(start..end).unwrap_or_default();
        match self
            .endpoint
            .read(text, raw, self.now, self.resolve_timeout)
        {
            Ok(one) => {
                self.cut += usize::from(one.cut);
                Some(one)
            }
            Err(mut wrong) => {
                let urgent = !self.refused.is_urgent() && alert::cries(raw);
                let told = self.refused.tells().then(|| {
                    wrong.message.insert_str(0, &format!("alerts[{index}]: "));
                    self.places.locate(text, wrong)
                });
                self.refused.push(told, urgent);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
