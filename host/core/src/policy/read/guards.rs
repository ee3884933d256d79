//! What each key under `guards` means.

use std::time::Duration;

use super::{DAY, PolicyReader, SECOND, is_off};
use crate::alert::Labels;
use crate::guard::settings::{
    BlastRadius, Breaker, DEFAULT_CONCURRENCY, DEFAULT_COOLDOWN, DEFAULT_FLAPPING, Day, Excess,
    Fleet, Guards, Maintenance, MaintenanceError, Moment, Rate, Share, Window,
};
use crate::policy::error::Problem;
use crate::policy::section::{Keys, Section};
use crate::policy::yaml::{Content, Node, bad_key};

const GUARDS: Keys = Keys {
    known: &[
        "cooldown",
        "rate",
        "flapping",
        "breaker",
        "concurrency",
        "blast_radius",
        "maintenance",
    ],
};
const RATE: Keys = Keys {
    known: &["max", "then"],
};
const BREAKER: Keys = Keys {
    known: &["failures", "open_for"],
};
const BLAST_RADIUS: Keys = Keys {
    known: &["max", "of", "calm"],
};
const FLEET: Keys = Keys {
    known: &["host", "labels"],
};
const MAINTENANCE: Keys = Keys {
    known: &["days", "from", "to", "zone"],
};

const MAX_CONCURRENCY: u32 = 64;
const MAX_FAILURES: u32 = 100;
const DEFAULT_CALM: Duration = Duration::from_mins(10);
const ZONE_HELP: &str =
    "name a time zone of the IANA database, such as `zone: Europe/Berlin`; without one it is UTC";
const EXCESSES: [(&str, Excess); 2] = [("queue", Excess::Queue), ("drop", Excess::Drop)];

impl PolicyReader<'_> {
    pub(super) fn guards(&mut self, node: &Node) -> Option<Guards> {
        let section = self.reader.section(node, "guards", &GUARDS)?;
        let cooldown =
            self.reader
                .duration(&section, "cooldown", DEFAULT_COOLDOWN, SECOND..=30 * DAY);
        let rate = self.optional(&section, "rate", Self::rate);
        let flapping = match section.get("flapping") {
            None => Some(Some(DEFAULT_FLAPPING)),
            Some(node) if is_off(node) => Some(None),
            Some(node) => {
                let help = "say how many incidents on one target are too many, such as `flapping: 3/30m`, or `flapping: off`";
                self.window(node, help).map(Some)
            }
        };
        let breaker = match section.get("breaker") {
            Some(node) => self.breaker(node),
            None => Some(Breaker::default()),
        };
        let concurrency = self.reader.count(
            &section,
            "concurrency",
            DEFAULT_CONCURRENCY,
            1..=MAX_CONCURRENCY,
        );
        let blast_radius = self.optional(&section, "blast_radius", Self::blast_radius);
        let maintenance = match section.get("maintenance") {
            Some(node) => self.maintenance(node),
            None => Some(Vec::new()),
        };
        Some(Guards {
            cooldown: cooldown?,
            rate: rate.ok()?,
            flapping: flapping?,
            breaker: breaker?,
            concurrency: concurrency?,
            blast_radius: blast_radius.ok()?,
            maintenance: maintenance?,
        })
    }

    fn window(&mut self, node: &Node, help: &str) -> Option<Window> {
        self.reader
            .parsed(node, "a window such as 6/1h", help, str::parse::<Window>)
    }

    fn rate(&mut self, node: &Node) -> Option<Rate> {
        let help = "say how many runs may start in how long, such as `rate: 6/1h` or `rate: { max: 6/1h, then: drop }`";
        let Content::Map(_) = &node.content else {
            let window = self.window(node, help)?;
            let then = Excess::default();
            return Some(Rate { window, then });
        };
        let section = self.reader.section(node, "rate", &RATE)?;
        let window = self.reader.required(&section, "max", help);
        let window = window.and_then(|node| self.window(node, help));
        let then = match section.get("then") {
            Some(node) => self.reader.choice(node, "reaction", &EXCESSES),
            None => Some(Excess::default()),
        };
        Some(Rate {
            window: window?,
            then: then?,
        })
    }

    fn breaker(&mut self, node: &Node) -> Option<Breaker> {
        let default = Breaker::default();
        let section = self.reader.section(node, "breaker", &BREAKER)?;
        let failures = self
            .reader
            .count(&section, "failures", default.failures, 1..=MAX_FAILURES);
        let open_for =
            self.reader
                .duration(&section, "open_for", default.open_for, SECOND..=30 * DAY);
        Some(Breaker {
            failures: failures?,
            open_for: open_for?,
        })
    }

    fn blast_radius(&mut self, node: &Node) -> Option<BlastRadius> {
        let help = "say how much of which fleet, such as `blast_radius: { max: 25%, of: { labels: { app: web } } }`";
        let section = self.reader.section(node, "blast_radius", &BLAST_RADIUS)?;
        let max = self.reader.required(&section, "max", help);
        let max = max.and_then(|node| self.share(node, help));
        let of = self.reader.required(&section, "of", help);
        let of = of.and_then(|node| self.fleet(node));
        let calm = self
            .reader
            .duration(&section, "calm", DEFAULT_CALM, SECOND..=DAY);
        Some(BlastRadius {
            max: max?,
            of: of?,
            calm: calm?,
        })
    }

    fn share(&mut self, node: &Node, help: &str) -> Option<Share> {
        let expected = "a number or a percentage";
        let Content::Number(number) = &node.content else {
            return self
                .reader
                .parsed(node, expected, help, str::parse::<Share>);
        };
        match number.to_string().parse() {
            Ok(share) => Some(share),
            Err(error) => self.reader.fail(
                &node.at,
                Problem::new(error.to_string())
                    .label(format!("expected {expected}"))
                    .help(help),
            ),
        }
    }

    fn fleet(&mut self, node: &Node) -> Option<Fleet> {
        let section = self
            .reader
            .section(node, "the fleet of blast_radius", &FLEET)?;
        let host = match section.get("host") {
            Some(node) => self
                .reader
                .text(node, "a host's name", "such as `host: local`"),
            None => Some("local"),
        };
        let host = host.and_then(|host| self.known_host(&section, host));
        let help = "say which containers belong to it, such as `labels: { app: web }`";
        let labels = self.reader.required(&section, "labels", help);
        let labels = labels.and_then(|node| self.labels(node, help));
        Some(Fleet {
            host: host?,
            labels: labels?,
        })
    }

    fn known_host(&mut self, section: &Section<'_>, host: &str) -> Option<String> {
        if self.environment.docker_hosts.contains(host) {
            return Some(host.to_owned());
        }
        let known = self.environment.known_hosts();
        let at = section
            .get("host")
            .map_or(section.key_at(""), |node| &node.at);
        let message = format!("there is no Docker host `{host}` in the configuration");
        let help = format!("{known}; a fleet without `host` is on the host `local`");
        self.reader.fail(at, Problem::new(message).help(help))
    }

    /// Labels that a container has to carry with these values.
    fn labels(&mut self, node: &Node, help: &str) -> Option<Labels> {
        let Content::Map(entries) = &node.content else {
            return self.reader.wrong_type(node, "a map of labels", help);
        };
        if entries.is_empty() {
            let problem = Problem::new("expected a map of labels, found an empty map")
                .label("empty")
                .help("without a label it would be every container of the host");
            return self.reader.fail(&node.at, problem);
        }
        let before = self.reader.errors.len();
        let mut labels = Labels::new();
        for (key, value) in entries {
            match (&key.content, &value.content) {
                (Content::Text(name), _) if name.is_empty() => {
                    let problem = Problem::new("a label has no name").help(help);
                    self.reader.fail::<()>(&key.at, problem);
                }
                (Content::Text(name), _) if labels.contains_key(name) => {
                    let problem = Problem::new(format!("duplicate label `{name}`"))
                        .label("given again")
                        .help("keep one of the two");
                    self.reader.fail::<()>(&key.at, problem);
                }
                (Content::Text(name), Content::Text(value)) => {
                    labels.insert(name.clone(), value.clone());
                }
                (Content::Text(name), Content::Number(_) | Content::Bool(_)) => {
                    let at = value.at.clone();
                    let raw = self.reader.source.text().get(at).unwrap_or_default();
                    let help = format!("quote it: `{name}: '{raw}'`");
                    self.reader.wrong_type::<()>(value, "a text", &help);
                }
                (Content::Text(_), _) => {
                    self.reader.wrong_type::<()>(value, "a text", help);
                }
                _ => {
                    let problem = bad_key(key, help);
                    self.reader.fail::<()>(&key.at, problem);
                }
            }
        }
        (self.reader.errors.len() == before).then_some(labels)
    }

    fn maintenance(&mut self, node: &Node) -> Option<Vec<Maintenance>> {
        let help = "write a list of times, such as `maintenance: [{ days: [sat, sun], from: '22:00', to: '06:00', zone: Europe/Berlin }]`";
        let items = self.reader.items(node, "a list of times", help)?;
        let times: Vec<_> = items
            .iter()
            .map(|item| self.maintenance_time(item))
            .collect();
        times.into_iter().collect()
    }

    fn maintenance_time(&mut self, node: &Node) -> Option<Maintenance> {
        let help = "two times of day, such as `{ from: '22:00', to: '06:00' }`, or two dates and times, such as `{ from: 2026-12-24T00:00:00Z, to: 2026-12-27T00:00:00Z }`";
        let section = self
            .reader
            .section(node, "the maintenance time", &MAINTENANCE)?;
        let days = self.optional(&section, "days", |this, node| {
            let help = "name the days on which it begins, such as `days: [sat, sun]`";
            let items = this.reader.items(node, "a list of days", help)?;
            let choices = Day::ALL.map(|day| (day.as_str(), day));
            let days: Vec<_> = items
                .iter()
                .map(|item| this.reader.choice(item, "day", &choices))
                .collect();
            days.into_iter().collect::<Option<Vec<_>>>()
        });
        let from = self.moment(&section, "from", help);
        let to = self.moment(&section, "to", help);
        let zone = self.optional(&section, "zone", |this, node| {
            this.reader.text(node, "a time zone", ZONE_HELP)
        });
        let days = days.ok()?.unwrap_or_default();
        match Maintenance::new(&days, from?, to?, zone.ok()?) {
            Ok(maintenance) => Some(maintenance),
            Err(error) => {
                let key = error.key();
                let at = match section.get(key).map(|node| (&node.content, &node.at)) {
                    Some((Content::Text(_), at)) => at,
                    _ => section.key_at(key),
                };
                let help = match error {
                    MaintenanceError::Zone { .. } => ZONE_HELP,
                    _ => help,
                };
                let problem = Problem::new(error.to_string()).help(help);
                self.reader.fail(at, problem)
            }
        }
    }

    fn moment(&mut self, section: &Section<'_>, key: &str, help: &str) -> Option<Moment> {
        let node = self.reader.required(section, key, help)?;
        self.reader
            .parsed(node, "a time", help, str::parse::<Moment>)
    }
}
