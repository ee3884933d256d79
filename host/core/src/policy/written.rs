//! A policy's settings in its JSON, in the words of policy files. What is journaled of
//! them has a form of its own, which does not change with the language.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::duration::human;
use crate::guard::settings::{
    BlastRadius, Breaker, Day, Excess, Fleet, Guards, Maintenance, Moment, Rate, Share,
};
use crate::incident::{Approval, DEFAULT_HELD_AFTER, StepFailure, When};

#[derive(Serialize)]
struct WrittenGuards<'a> {
    #[serde(with = "human")]
    cooldown: Duration,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<WrittenRate>,
    flapping: String,
    breaker: WrittenBreaker,
    concurrency: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    blast_radius: Option<WrittenBlastRadius<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    maintenance: Vec<WrittenMaintenance<'a>>,
}

#[derive(Serialize)]
struct WrittenRate {
    max: String,
    then: Excess,
}

#[derive(Serialize)]
struct WrittenBreaker {
    failures: u32,
    #[serde(with = "human")]
    open_for: Duration,
}

#[derive(Serialize)]
struct WrittenBlastRadius<'a> {
    max: WrittenShare,
    of: &'a Fleet,
    #[serde(with = "human")]
    calm: Duration,
}

#[derive(Serialize)]
#[serde(untagged)]
enum WrittenShare {
    Number(u32),
    Text(String),
}

#[derive(Serialize)]
struct WrittenMaintenance<'a> {
    #[serde(skip_serializing_if = "<[Day]>::is_empty")]
    days: &'a [Day],
    from: String,
    to: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<&'a str>,
}

#[derive(Serialize)]
struct WrittenApproval {
    #[serde(with = "human")]
    expires: Duration,
    people: u32,
    #[serde(skip_serializing_if = "is_true")]
    tell: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands fields over by reference"
)]
fn is_true(told: &bool) -> bool {
    *told
}

#[derive(Serialize)]
struct WrittenWhen<'a> {
    #[serde(with = "human", skip_serializing_if = "Duration::is_zero")]
    after: Duration,
    #[serde(skip_serializing_if = "<[StepFailure]>::is_empty")]
    on: &'a [StepFailure],
}

#[derive(Serialize)]
struct WrittenEvidence {
    logs: u32,
}

pub(super) fn guards<S: Serializer>(guards: &Guards, serializer: S) -> Result<S::Ok, S::Error> {
    let Guards {
        cooldown,
        rate,
        flapping,
        breaker: Breaker { failures, open_for },
        concurrency,
        blast_radius,
        maintenance,
    } = guards;
    WrittenGuards {
        cooldown: *cooldown,
        rate: rate.map(|Rate { window, then }| WrittenRate {
            max: window.to_string(),
            then,
        }),
        flapping: flapping.map_or_else(|| "off".to_owned(), |window| window.to_string()),
        breaker: WrittenBreaker {
            failures: *failures,
            open_for: *open_for,
        },
        concurrency: *concurrency,
        blast_radius: blast_radius.as_ref().map(blast_radius_as_written),
        maintenance: maintenance.iter().map(maintenance_as_written).collect(),
    }
    .serialize(serializer)
}

fn blast_radius_as_written(BlastRadius { max, of, calm }: &BlastRadius) -> WrittenBlastRadius<'_> {
    WrittenBlastRadius {
        max: match max {
            Share::Count(count) => WrittenShare::Number(*count),
            Share::Percent(_) => WrittenShare::Text(max.to_string()),
        },
        of,
        calm: *calm,
    }
}

fn maintenance_as_written(maintenance: &Maintenance) -> WrittenMaintenance<'_> {
    match maintenance {
        Maintenance::Once { from, to } => WrittenMaintenance {
            days: &[],
            from: Moment::Once(*from).to_string(),
            to: Moment::Once(*to).to_string(),
            zone: None,
        },
        Maintenance::Weekly {
            days,
            from,
            to,
            zone,
        } => WrittenMaintenance {
            days,
            from: Moment::Clock(*from).to_string(),
            to: Moment::Clock(*to).to_string(),
            zone: Some(zone),
        },
    }
}

pub(super) fn approval<S: Serializer>(
    approval: &Approval,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let Approval {
        expires,
        people,
        tell,
    } = *approval;
    WrittenApproval {
        expires,
        people,
        tell,
    }
    .serialize(serializer)
}

#[expect(clippy::ref_option, reason = "serde hands fields over by reference")]
pub(super) fn held_after<S: Serializer>(
    after: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match after {
        Some(after) => human::serialize(after, serializer),
        None => serializer.serialize_str("off"),
    }
}

/// Left out where it is what it is anyhow, so that policies keep their digests.
#[expect(clippy::ref_option, reason = "serde hands fields over by reference")]
pub(super) fn held_after_is_default(after: &Option<Duration>) -> bool {
    *after == Some(DEFAULT_HELD_AFTER)
}

pub(super) fn when<S: Serializer>(when: &When, serializer: S) -> Result<S::Ok, S::Error> {
    WrittenWhen {
        after: when.after,
        on: &when.on,
    }
    .serialize(serializer)
}

/// Whether a step has no condition.
pub(super) fn always(when: &When) -> bool {
    *when == When::default()
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands fields over by reference"
)]
pub(super) fn evidence<S: Serializer>(lines: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    match *lines {
        0 => serializer.serialize_str("off"),
        logs => WrittenEvidence { logs }.serialize(serializer),
    }
}
