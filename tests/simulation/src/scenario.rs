//! What befalls the system, drawn from a seed as a list, so that a story can be told by
//! leaving things out.

use std::fmt;
use std::time::Duration;

use sentinel_core::engine::Settings;

use crate::docker::{CONTAINERS, Health};
use crate::rng::Rng;
use crate::setup::{self, SETS};

/// Everything that decides a simulation.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// What everything is drawn from.
    pub seed: u64,
    /// What the configuration sets.
    pub settings: Settings,
    /// The policies that serve first.
    pub policies: usize,
    /// The alerts that can fire: a name and a container each.
    pub alerts: Vec<(usize, usize)>,
    /// How many Alertmanagers tell of each alert.
    pub replicas: u32,
    /// What happens, in order.
    pub happenings: Vec<Happening>,
    /// When the faults stop.
    pub until: Duration,
    /// What the senders do from then on.
    pub ending: Ending,
}

/// What the senders do when the faults have stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// They tell of the end of every alert.
    Resolve,
    /// They fall silent: nothing but time ends what is open.
    Silence,
}

/// Something that befalls the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// When, after the begin.
    pub at: Duration,
    /// What.
    pub what: What,
    /// What its details are drawn from.
    pub draw: u64,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// An alert fires, as a new episode or with the start that it had.
    Fire {
        /// Which.
        alert: usize,
        /// Whether it has its old start.
        again: bool,
    },
    /// An alert resolves.
    Resolve {
        /// Which.
        alert: usize,
        /// Whether anybody is told.
        told: bool,
    },
    /// A notification of long ago arrives, or arrives once more.
    Stale {
        /// Of which alert.
        alert: usize,
    },
    /// Something befalls a container.
    Afflict {
        /// Which.
        container: usize,
        /// How it is from now on.
        health: Health,
        /// How many starts more than one it takes to heal.
        stubborn: u32,
    },
    /// The daemon is killed when it has come past so many more points of its work.
    Crash {
        /// How many points.
        points: u32,
        /// How long until it starts again.
        down: Duration,
        /// How often it is killed again, each time soon after it has started.
        again: u32,
    },
    /// The daemon is told to stop, and is started again.
    Stop {
        /// How long its runs may go on.
        grace: Duration,
        /// How long until it starts again.
        down: Duration,
    },
    /// Nothing can be written.
    DiskFull {
        /// For how long.
        lasts: Duration,
    },
    /// The daemon's clock is set.
    Clock {
        /// By how many seconds.
        by: i64,
    },
    /// Other policies serve.
    Policies {
        /// Which.
        set: usize,
    },
    /// A plugin does not serve.
    PluginGone {
        /// Which.
        plugin: &'static str,
        /// For how long.
        lasts: Duration,
    },
    /// The drivers change their ways.
    Drivers {
        /// To which.
        mood: Mood,
        /// For how long.
        lasts: Duration,
    },
    /// An operator does something.
    Operator(Act),
}

/// How drivers work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// As they should.
    Good,
    /// They take long.
    Slow,
    /// They fail, some after the deed.
    Failing,
    /// They do not answer, and are given up.
    Hanging,
    /// They cannot tell what they did before the daemon was cut off.
    Blind,
}

/// What an operator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Pause,
    Resume,
    Approve,
    Deny,
    Cancel,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fire {
                alert,
                again: false,
            } => write!(f, "alert {alert} fires"),
            Self::Fire { alert, again: true } => {
                write!(f, "alert {alert} fires again with its old start")
            }
            Self::Resolve { alert, told: true } => write!(f, "alert {alert} resolves"),
            Self::Resolve { alert, told: false } => {
                write!(f, "alert {alert} resolves, and nobody is told")
            }
            Self::Stale { alert } => write!(f, "an old notification of alert {alert} is sent"),
            Self::Afflict {
                container,
                health,
                stubborn,
            } => {
                let name = CONTAINERS[*container];
                write!(f, "{name} is {health:?}")?;
                if *stubborn > 0 {
                    write!(f, ", and takes {} starts to heal", stubborn + 1)?;
                }
                Ok(())
            }
            Self::Crash {
                points,
                down,
                again,
            } => {
                write!(
                    f,
                    "the daemon will be killed after {points} more points of its work, for {down:?}"
                )?;
                if *again > 0 {
                    write!(f, ", and {again} times again")?;
                }
                Ok(())
            }
            Self::Stop { grace, down } => write!(
                f,
                "the daemon is told to stop within {grace:?}, and stays away for {down:?}"
            ),
            Self::DiskFull { lasts } => write!(f, "the disk is full for {lasts:?}"),
            Self::Clock { by } => write!(f, "the daemon's clock is set by {by} s"),
            Self::Policies { set } => write!(f, "set {set} of the policies serves"),
            Self::PluginGone { plugin, lasts } => {
                write!(f, "plugin {plugin} does not serve for {lasts:?}")
            }
            Self::Drivers { mood, lasts } => write!(f, "the drivers are {mood:?} for {lasts:?}"),
            Self::Operator(act) => write!(f, "an operator wants to {act:?}"),
        }
    }
}

impl Scenario {
    /// The scenario of a seed.
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let settings = setup::settings(&mut rng);
        let policies = rng.below(SETS as u64) as usize;
        let alerts: Vec<_> = (0..rng.between(1, 8))
            .map(|_| {
                let name = rng.below(setup::ALERTS.len() as u64) as usize;
                // Few containers, so that incidents meet on them.
                let container = rng.below(CONTAINERS.len() as u64) as usize;
                (name, container)
            })
            .collect();
        let until = Duration::from_secs(*rng.pick(&[120, 600, 1800, 3600]));
        // Not every scenario has everything: what is rare where all is possible is
        // common where little is.
        let kinds: Vec<_> = KINDS
            .into_iter()
            .filter(|(kind, _)| *kind == Kind::Alert || rng.chance(55))
            .collect();
        let total: u64 = kinds.iter().map(|(_, weight)| weight).sum();
        let mut happenings: Vec<_> = (0..rng.between(4, 60))
            .map(|_| {
                let mut left = rng.below(total);
                let kind = kinds.iter().find(|(_, weight)| {
                    let here = left < *weight;
                    left = left.saturating_sub(*weight);
                    here
                });
                let kind = kind.map_or(Kind::Alert, |(kind, _)| *kind);
                let at = Duration::from_millis(rng.below(until.as_millis() as u64));
                let what = happening(&mut rng, kind, alerts.len() as u64);
                let draw = rng.next();
                Happening { at, what, draw }
            })
            .collect();
        // Containers that are ill make alerts, and alerts that come together make crowds.
        for happening in happenings.clone() {
            if let What::Fire {
                alert,
                again: false,
            } = happening.what
                && rng.chance(60)
            {
                let (_, container) = alerts[alert];
                let health = *rng.pick(&[Health::Down, Health::Ill]);
                let stubborn = *rng.pick(&[0, 0, 1, 3]);
                let what = What::Afflict {
                    container,
                    health,
                    stubborn,
                };
                happenings.push(Happening { what, ..happening });
            }
        }
        happenings.sort_by_key(|happening| happening.at);
        Self {
            seed,
            settings,
            policies,
            alerts,
            replicas: rng.between(1, 3) as u32,
            happenings,
            until,
            ending: if rng.chance(50) {
                Ending::Resolve
            } else {
                Ending::Silence
            },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Alert,
    Crash,
    CrashLoop,
    Stop,
    Disk,
    Clock,
    Policies,
    Plugin,
    Drivers,
    Operator,
    Approve,
}

/// What can happen, and how often.
const KINDS: [(Kind, u64); 11] = [
    (Kind::Alert, 40),
    (Kind::Crash, 14),
    (Kind::CrashLoop, 6),
    (Kind::Stop, 6),
    (Kind::Disk, 6),
    (Kind::Clock, 6),
    (Kind::Policies, 6),
    (Kind::Plugin, 4),
    (Kind::Drivers, 8),
    (Kind::Operator, 20),
    (Kind::Approve, 25),
];

fn happening(rng: &mut Rng, kind: Kind, alerts: u64) -> What {
    let seconds = |rng: &mut Rng, low, high| Duration::from_secs(rng.between(low, high));
    match kind {
        Kind::Alert => {
            let alert = rng.below(alerts) as usize;
            match rng.below(10) {
                0..=4 => What::Fire {
                    alert,
                    again: false,
                },
                5 => What::Fire { alert, again: true },
                6 | 7 => What::Resolve { alert, told: true },
                8 => What::Resolve { alert, told: false },
                _ => What::Stale { alert },
            }
        }
        Kind::Crash => What::Crash {
            points: rng.below(12) as u32,
            down: {
                let most = *rng.pick(&[2, 20, 400]);
                seconds(rng, 0, most)
            },
            again: 0,
        },
        // Comes back at once, so that it meets the same run again.
        Kind::CrashLoop => What::Crash {
            points: rng.below(12) as u32,
            down: Duration::ZERO,
            again: rng.between(1, 4) as u32,
        },
        Kind::Stop => What::Stop {
            grace: seconds(rng, 0, 20),
            down: seconds(rng, 0, 120),
        },
        Kind::Disk => What::DiskFull {
            lasts: seconds(rng, 1, 60),
        },
        Kind::Clock => {
            let by = *rng.pick(&[5, 60, 300]);
            let by = rng.between(1, by) as i64;
            What::Clock {
                by: if rng.chance(50) { by } else { -by },
            }
        }
        Kind::Policies => What::Policies {
            set: rng.below(SETS as u64) as usize,
        },
        Kind::Plugin => {
            let plugins = ["restart", "cycle", "play", "tell"];
            What::PluginGone {
                plugin: rng.pick::<&str>(&plugins),
                lasts: seconds(rng, 5, 200),
            }
        }
        Kind::Drivers => What::Drivers {
            mood: *rng.pick(&[Mood::Slow, Mood::Failing, Mood::Hanging, Mood::Blind]),
            lasts: seconds(rng, 5, 300),
        },
        Kind::Operator => What::Operator(*rng.pick(&[
            Act::Pause,
            Act::Pause,
            Act::Resume,
            Act::Cancel,
            Act::Deny,
        ])),
        Kind::Approve => What::Operator(Act::Approve),
    }
}
