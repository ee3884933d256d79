//! What happened as people read it: pure text, from moments that others saw.

use std::fmt::Write as _;
use std::time::Duration;

/// Something that was seen, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moment {
    /// The time since the failure was ordered.
    pub(crate) after: Duration,
    /// Where it was seen.
    pub(crate) place: Place,
    /// What the summary makes of it.
    pub(crate) mark: Mark,
    /// What happened, as one line.
    pub(crate) text: String,
}

/// Where something was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Drill,
    Nginx,
    Prometheus,
    Alertmanager,
    Sentinel,
}

impl Place {
    fn as_str(self) -> &'static str {
        match self {
            Self::Drill => "drill",
            Self::Nginx => "nginx",
            Self::Prometheus => "prometheus",
            Self::Alertmanager => "alertmanager",
            Self::Sentinel => "sentinel",
        }
    }
}

/// What a moment means for the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Nothing beyond its text.
    Note,
    /// The service does not answer.
    Down,
    /// The rule of Prometheus fires.
    Firing,
    /// Sentinel has committed the alert's delivery.
    Accepted,
    /// A guard holds the incident back.
    Held,
    /// A plugin is about to change something.
    EffectBegan,
    /// The change was carried out, or was not.
    EffectEnded,
    /// The service answers again.
    Serving,
    /// The incident is over.
    Ended {
        /// Whether it was verified.
        healed: bool,
    },
    /// The alert is gone from Prometheus.
    Quiet,
    /// Sentinel was told that the alert has resolved.
    ToldResolved,
}

/// The moments of one drill, in the order of time.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    moments: Vec<Moment>,
    shown: usize,
}

/// How long a line waits for others that were earlier and are heard of later.
const SETTLE: Duration = Duration::from_millis(200);

impl Timeline {
    /// Adds a moment; those that are already shown stay where they are.
    pub(crate) fn add(&mut self, moment: Moment) {
        let later = self
            .moments
            .iter()
            .skip(self.shown)
            .position(|other| other.after > moment.after);
        let index = later.map_or(self.moments.len(), |later| self.shown + later);
        self.moments.insert(index, moment);
    }

    /// The lines that can be shown at `now`; each is given once.
    pub(crate) fn due(&mut self, now: Duration) -> Vec<String> {
        let due: Vec<String> = self
            .moments
            .iter()
            .skip(self.shown)
            .take_while(|moment| moment.after + SETTLE <= now)
            .map(line)
            .collect();
        self.shown += due.len();
        due
    }

    /// The lines that are left.
    pub(crate) fn rest(&mut self) -> Vec<String> {
        self.due(Duration::MAX)
    }

    fn first(&self, mark: Mark) -> Option<Duration> {
        self.find(|moment| moment.mark == mark)
            .map(|moment| moment.after)
    }

    fn last(&self, mark: Mark) -> Option<Duration> {
        self.moments
            .iter()
            .rev()
            .find(|moment| moment.mark == mark)
            .map(|moment| moment.after)
    }

    fn find(&self, which: impl Fn(&Moment) -> bool) -> Option<&Moment> {
        self.moments.iter().find(|moment| which(moment))
    }

    /// When the service answered for good: nothing after it says that it does not.
    fn served_at(&self) -> Option<Duration> {
        let serving = self.last(Mark::Serving)?;
        (self.last(Mark::Down)? < serving).then_some(serving)
    }

    /// What the loop still owes, or what went wrong with it; none when it is closed.
    pub(crate) fn outstanding(&self) -> Option<Outstanding> {
        let failed = self.find(|moment| moment.mark == Mark::Ended { healed: false });
        if let Some(failed) = failed {
            return Some(Outstanding::Failed(failed.text.clone()));
        }
        let owed = if self.first(Mark::Down).is_none() {
            "the service never stopped answering".to_owned()
        } else if self.first(Mark::Firing).is_none() && self.first(Mark::Accepted).is_none() {
            "the rule of Prometheus does not fire".to_owned()
        } else if self.first(Mark::Accepted).is_none() {
            "sentinel opened no incident: either Alertmanager delivers nothing, or no policy matches"
                .to_owned()
        } else if self.first(Mark::EffectBegan).is_none() {
            self.find(|moment| moment.mark == Mark::Held).map_or_else(
                || "sentinel changed nothing".to_owned(),
                |held| format!("a guard holds the incident back: {}", held.text),
            )
        } else if self.served_at().is_none() {
            "the service does not answer".to_owned()
        } else if self.first(Mark::Ended { healed: true }).is_none() {
            "the incident is not verified".to_owned()
        } else if self.first(Mark::Quiet).is_none() {
            "the alert still fires".to_owned()
        } else if self.first(Mark::ToldResolved).is_none() {
            "sentinel was not told that the alert has resolved".to_owned()
        } else {
            return None;
        };
        Some(Outstanding::Waiting(owed))
    }

    /// The time without service, and what it was spent on.
    pub(crate) fn outage(&self) -> Option<Outage> {
        let down = self.first(Mark::Down)?;
        let served = self.served_at()?;
        // Each part ends where the next begins; what was seen late ends no later than the outage.
        let mut from = down;
        let mut part = |to: Option<Duration>| {
            let to = to.unwrap_or(from).clamp(from, served.max(from));
            let length = to.saturating_sub(from);
            from = to;
            length
        };
        let accepted = self.first(Mark::Accepted);
        // An effect that ended before the service answered; else the one that was still being waited for.
        let acted = self
            .moments
            .iter()
            .rev()
            .find(|moment| moment.mark == Mark::EffectEnded && moment.after <= served)
            .map(|moment| moment.after);
        let firing = match (self.first(Mark::Firing), accepted) {
            (Some(firing), Some(accepted)) => Some(firing.min(accepted)),
            (firing, accepted) => firing.or(accepted),
        };
        let detect = part(firing);
        let deliver = part(accepted);
        let decide = part(self.first(Mark::EffectBegan));
        let act = part(acted.or_else(|| self.first(Mark::EffectBegan).map(|_| served)));
        let start = part(Some(served));
        Some(Outage {
            total: served.saturating_sub(down),
            parts: [
                Part::new("detect", detect, "until the rule of Prometheus fired"),
                Part::new("deliver", deliver, "until sentinel had the alert on disk"),
                Part::new("decide", decide, "policy, guards, starting the plugin"),
                Part::new("act", act, "the plugin's effects"),
                Part::new("start", start, "until the service answered"),
            ],
        })
    }
}

/// Why a drill is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outstanding {
    /// Something has not happened yet.
    Waiting(String),
    /// The incident ended, and not as healed: nothing more will come.
    Failed(String),
}

/// The time without service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outage {
    /// All of it.
    pub(crate) total: Duration,
    /// What it was spent on, in order; together they are the total.
    pub(crate) parts: [Part; 5],
}

/// One part of an outage.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part {
    name: &'static str,
    length: Duration,
    meaning: &'static str,
}

impl Part {
    fn new(name: &'static str, length: Duration, meaning: &'static str) -> Self {
        Self {
            name,
            length,
            meaning,
        }
    }
}

/// The heading of the timeline.
pub(crate) fn heading() -> String {
    format!("{:>9}  {:12}  what", "seconds", "where")
}

fn line(moment: &Moment) -> String {
    format!(
        "{:>9.3}  {:12}  {}",
        moment.after.as_secs_f64(),
        moment.place.as_str(),
        moment.text
    )
}

/// The width of the bars, in characters.
const BAR: f64 = 30.0;

/// The summary of an outage.
pub(crate) fn summary(container: &str, outage: &Outage) -> String {
    let total = outage.total.as_secs_f64();
    let mut text = format!("{container} was without service for {total:.2} s\n\n");
    for part in &outage.parts {
        let share = if total > 0.0 {
            part.length.as_secs_f64() / total
        } else {
            0.0
        };
        let bar = "█".repeat((share * BAR).round() as usize);
        // Writing to a string cannot fail.
        let _written = writeln!(
            text,
            "  {:8} {:>6.3} s {:>4.0} %  {bar:30}  {}",
            part.name,
            part.length.as_secs_f64(),
            share * 100.0,
            part.meaning,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64, place: Place, mark: Mark, text: &str) -> Moment {
        Moment {
            after: Duration::from_millis(millis),
            place,
            mark,
            text: text.to_owned(),
        }
    }

    fn timeline(moments: &[(u64, Mark)]) -> Timeline {
        let mut timeline = Timeline::default();
        for (millis, mark) in moments {
            timeline.add(at(*millis, Place::Sentinel, *mark, &format!("{mark:?}")));
        }
        timeline
    }

    const CLOSED: [(u64, Mark); 9] = [
        (10, Mark::Down),
        (510, Mark::Firing),
        (530, Mark::Accepted),
        (560, Mark::EffectBegan),
        (960, Mark::EffectEnded),
        (1010, Mark::Serving),
        (1100, Mark::Ended { healed: true }),
        (1500, Mark::Quiet),
        (1600, Mark::ToldResolved),
    ];

    fn lengths(timeline: &Timeline) -> Vec<u128> {
        let outage = timeline.outage().unwrap();
        outage
            .parts
            .iter()
            .map(|part| part.length.as_millis())
            .collect()
    }

    #[test]
    fn lines_come_once_in_the_order_of_time_and_wait_for_stragglers() {
        let mut timeline = Timeline::default();
        timeline.add(at(900, Place::Nginx, Mark::Serving, "answers again"));
        timeline.add(at(650, Place::Sentinel, Mark::EffectBegan, "restart nginx"));
        assert_eq!(
            timeline.due(Duration::from_millis(700)),
            Vec::<String>::new()
        );
        assert_eq!(
            timeline.due(Duration::from_secs(1)),
            ["    0.650  sentinel      restart nginx"]
        );
        // Too late for its place: it comes next, and what was shown is not shown again.
        timeline.add(at(640, Place::Prometheus, Mark::Firing, "fires"));
        assert_eq!(
            timeline.rest(),
            [
                "    0.640  prometheus    fires",
                "    0.900  nginx         answers again"
            ]
        );
        assert_eq!(timeline.rest(), Vec::<String>::new());
    }

    #[test]
    fn a_closed_loop_owes_nothing() {
        assert_eq!(timeline(&CLOSED).outstanding(), None);
    }

    #[test]
    fn whatever_is_missing_is_named() {
        // Without the last n moments, something else is owed each time.
        let mut owed = Vec::new();
        for length in 0..CLOSED.len() {
            match timeline(&CLOSED[..length]).outstanding() {
                Some(Outstanding::Waiting(what)) => owed.push(what),
                other => panic!("{length}: {other:?}"),
            }
        }
        owed.dedup();
        assert_eq!(
            owed,
            [
                "the service never stopped answering",
                "the rule of Prometheus does not fire",
                "sentinel opened no incident: either Alertmanager delivers nothing, or no policy matches",
                "sentinel changed nothing",
                "the service does not answer",
                "the incident is not verified",
                "the alert still fires",
                "sentinel was not told that the alert has resolved",
            ]
        );
    }

    #[test]
    fn a_guard_that_holds_is_named() {
        let mut timeline = timeline(&CLOSED[..3]);
        timeline.add(at(540, Place::Sentinel, Mark::Held, "held by cooldown"));
        assert_eq!(
            timeline.outstanding(),
            Some(Outstanding::Waiting(
                "a guard holds the incident back: held by cooldown".to_owned()
            ))
        );
    }

    #[test]
    fn an_incident_that_is_not_healed_ends_the_drill() {
        let mut timeline = timeline(&CLOSED[..6]);
        timeline.add(at(
            1100,
            Place::Sentinel,
            Mark::Ended { healed: false },
            "escalated: the ladder is used up",
        ));
        assert_eq!(
            timeline.outstanding(),
            Some(Outstanding::Failed(
                "escalated: the ladder is used up".to_owned()
            ))
        );
    }

    #[test]
    fn a_service_that_fell_again_does_not_serve() {
        let mut timeline = timeline(&CLOSED[..6]);
        timeline.add(at(1200, Place::Nginx, Mark::Down, "no longer answers"));
        assert_eq!(
            timeline.outstanding(),
            Some(Outstanding::Waiting(
                "the service does not answer".to_owned()
            ))
        );
        assert_eq!(timeline.outage(), None);
    }

    #[test]
    fn the_parts_make_up_the_outage() {
        let timeline = timeline(&CLOSED);
        assert_eq!(timeline.outage().unwrap().total.as_millis(), 1000);
        assert_eq!(lengths(&timeline), [500, 20, 30, 400, 50]);
    }

    #[test]
    fn an_effect_that_is_still_being_waited_for_has_acted() {
        // The service answers before the engine says that it has started it.
        let mut moments = CLOSED;
        moments[4].0 = 1020;
        assert_eq!(lengths(&timeline(&moments)), [500, 20, 30, 450, 0]);
    }

    #[test]
    fn a_failed_step_counts_as_acting() {
        let mut timeline = timeline(&CLOSED);
        timeline.add(at(600, Place::Sentinel, Mark::EffectEnded, "failed"));
        timeline.add(at(800, Place::Sentinel, Mark::EffectBegan, "the next step"));
        assert_eq!(lengths(&timeline), [500, 20, 30, 400, 50]);
    }

    #[test]
    fn what_was_seen_late_takes_nothing_from_the_others() {
        // Prometheus was asked too rarely to see it fire before sentinel had the alert.
        let mut moments = CLOSED;
        moments[1].0 = 545;
        assert_eq!(lengths(&timeline(&moments)), [520, 0, 30, 400, 50]);
        // It was never seen to fire at all.
        moments[1].1 = Mark::Note;
        assert_eq!(lengths(&timeline(&moments)), [520, 0, 30, 400, 50]);
    }

    #[test]
    fn the_summary_shows_shares() {
        let text = summary("nginx", &timeline(&CLOSED).outage().unwrap());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "nginx was without service for 1.00 s");
        assert_eq!(
            lines[2],
            format!(
                "  detect    0.500 s   50 %  {:30}  until the rule of Prometheus fired",
                "█".repeat(15)
            )
        );
        assert_eq!(lines.len(), 7);
    }
}
