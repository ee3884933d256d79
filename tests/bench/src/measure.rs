//! What is measured, each with a daemon and a journal of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::daemon::{Built, Daemon, Spent};
use crate::disk::{self, Disk};
use crate::history;
use crate::http::Connection;
use crate::load::{self, Latencies, Progress, Until};
use crate::payload::{self, Kind, Template};
use crate::report::{Aim, Row, note};

/// How long each saturating load runs.
const SATURATION: Duration = Duration::from_secs(6);

/// How many alerts the storms have.
const STORM: u64 = 100_000;

/// How many containers the alerts of a storm speak of, unless each has its own.
const STRUCK: u64 = 100;

/// How many incidents a storm opens when each alert has a container of its own.
const STORM_OF_INCIDENTS: u64 = 10_000;

/// How many critical alerts are sent into a storm.
const CRITICAL: u64 = 5;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Measure {
    /// The plain disk, which everything else is held against
    Disk,
    /// Alerts accepted in a second, one in each delivery
    Accept,
    /// Alerts accepted in a second, twenty in each delivery
    AcceptGroups,
    /// How long an answer takes at 500 deliveries a second
    Latency,
    /// How long it takes from a delivery to the first effect, at 50 a second
    Effect,
    /// Memory of a daemon that has nothing to do
    Idle,
    /// 100,000 alerts as fast as they are accepted, and critical ones among them
    Storm,
    /// The same in five deliveries of 20,000 alerts each
    StormGroups,
    /// 10,000 alerts that each open an incident, and critical ones among them
    StormIncidents,
    /// What an incident takes on the disk
    Journal,
    /// The time to start with a long past
    Start,
    /// The time to start with fifty plugins, and to take a new version of one over
    Plugins,
}

impl Measure {
    /// All of them.
    pub(crate) const ALL: [Self; 12] = [
        Self::Disk,
        Self::Accept,
        Self::AcceptGroups,
        Self::Latency,
        Self::Effect,
        Self::Idle,
        Self::Storm,
        Self::StormGroups,
        Self::StormIncidents,
        Self::Journal,
        Self::Start,
        Self::Plugins,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Accept => "accept",
            Self::AcceptGroups => "accept-groups",
            Self::Latency => "latency",
            Self::Effect => "effect",
            Self::Idle => "idle",
            Self::Storm => "storm",
            Self::StormGroups => "storm-groups",
            Self::StormIncidents => "storm-incidents",
            Self::Journal => "journal",
            Self::Start => "start",
            Self::Plugins => "plugins",
        }
    }
}

/// An alert that no policy matches: it costs its way in, and a look at every policy.
const UNMATCHED: Kind = Kind {
    name: "BenchUnmatched",
    severity: "warning",
    status: "firing",
    containers: None,
};

/// An alert of a container of its own, which is restarted.
const EFFECT: Kind = Kind {
    name: "BenchEffect",
    severity: "critical",
    status: "firing",
    containers: None,
};

/// One of many alerts of a few containers.
const STRIKE: Kind = Kind {
    name: "BenchStorm",
    severity: "warning",
    status: "firing",
    containers: Some(STRUCK),
};

/// The alert that must not wait for the others.
const UNRELATED: Kind = Kind {
    name: "BenchCritical",
    severity: "critical",
    status: "firing",
    containers: None,
};

/// A benchmark, ready to run.
#[derive(Debug)]
pub(crate) struct Bench {
    /// What is measured.
    pub(crate) built: Built,
    /// Connections of the saturating loads.
    pub(crate) connections: usize,
    /// Past incidents in the journal of `start`.
    pub(crate) incidents: u64,
}

impl Bench {
    /// Measures, one after the other.
    pub(crate) fn run(&self, measures: &[Measure]) -> Result<Vec<Row>> {
        // Always: without it the other figures say little.
        note("disk");
        let disk = disk::measure(&self.built.folder, Duration::from_secs(2))?;
        let mut rows = Vec::new();
        for measure in measures {
            if *measure != Measure::Disk {
                note(measure.name());
            }
            let mut found = self
                .one(*measure, &disk)
                .with_context(|| format!("`{}` could not be measured", measure.name()))?;
            rows.append(&mut found);
        }
        Ok(rows)
    }

    fn one(&self, measure: Measure, disk: &Disk) -> Result<Vec<Row>> {
        match measure {
            Measure::Disk => Ok(disk_rows(disk)),
            Measure::Accept => self.accept(measure, 1, 10_000.0, disk),
            Measure::AcceptGroups => self.accept(measure, 20, 100_000.0, disk),
            Measure::Latency => self.latency(disk),
            Measure::Effect => self.effect(disk),
            Measure::Idle => self.idle(),
            Measure::Storm => self.storm(measure, STRIKE, 20, STORM),
            Measure::StormGroups => self.storm(measure, STRIKE, 20_000, STORM),
            Measure::StormIncidents => {
                let kind = Kind {
                    containers: None,
                    ..STRIKE
                };
                self.storm(measure, kind, 20, STORM_OF_INCIDENTS)
            }
            Measure::Journal => self.journal(),
            Measure::Start => self.start(),
            Measure::Plugins => self.plugins(),
        }
    }

    /// As fast as the answers come, with so many alerts in each delivery.
    fn accept(&self, measure: Measure, alerts: usize, aim: f64, disk: &Disk) -> Result<Vec<Row>> {
        let daemon = Daemon::start(&self.built)?;
        let template = Template::new(daemon.address(), UNMATCHED, alerts);
        let before = daemon.usage()?;
        let progress = Arc::new(Progress::default());
        let sent = load::saturate(
            daemon.address(),
            &template,
            self.connections,
            Until::Elapsed(SATURATION),
            &progress,
        )?;
        let used = daemon.spent(&before)?;
        let drained = daemon.settle("sentinel_alerts_backlog", 0.0)?;
        let received = daemon.metric("sentinel_alerts_received_total")?;
        let accepted = sent.accepted * template.alerts();
        if (received - accepted as f64).abs() > 0.5 {
            bail!("{accepted} alerts were answered with 202, and the daemon counted {received}");
        }
        let rate = sent.rate() * template.alerts() as f64;
        let name = measure.name();
        let each = if alerts == 1 {
            "1 alert".to_owned()
        } else {
            format!("{alerts} alerts")
        };
        let in_a_commit = rate / used.commits;
        let each_thousand = used.daemon / rate * 1e3;
        Ok(vec![
            Row::new(
                name,
                &format!("alerts accepted, {each} a delivery"),
                rate,
                "/s",
            )
            .aim(Aim::AtLeast(aim))
            .limit(disk.rate * in_a_commit)
            .by(format!(
                "{}; {:.0} commits/s of {in_a_commit:.0} alerts",
                processors(&used),
                used.commits
            )),
            Row::new(name, "  and dealt with, backlog included", {
                accepted as f64 / (sent.took + drained).as_secs_f64()
            }, "/s")
            .by(format!(
                "{} refused (503); {} bytes a delivery; {each_thousand:.3} processor seconds for 1 000 alerts",
                sent.refused,
                template.len()
            )),
            Row::new(name, "  memory at its peak", daemon.peak()?, "MiB")
                .aim(Aim::AtMost(150.0))
                .by(format!("RSS {:.0} MiB after it", daemon.memory()?.0)),
        ])
    }

    /// At a rate that leaves the machine idle for the most part.
    fn latency(&self, disk: &Disk) -> Result<Vec<Row>> {
        const RATE: f64 = 500.0;
        let daemon = Daemon::start(&self.built)?;
        let template = Template::new(daemon.address(), UNMATCHED, 1);
        // The first requests find cold code and an empty journal.
        load::pace(daemon.address(), &template, RATE, 250, 16)?;
        let before = daemon.usage()?;
        let timed = load::pace(daemon.address(), &template, RATE, 4000, 16)?;
        let used = daemon.spent(&before)?;
        let latencies = Latencies::new(
            timed
                .iter()
                .map(|timed| timed.answered.saturating_duration_since(timed.due))
                .collect(),
        )?;
        let name = Measure::Latency.name();
        let floor = &disk.idle;
        Ok(vec![
            Row::new(name, "answer at 500/s, p50", latencies.at(0.5), "ms")
                .limit(floor.at(0.5))
                .by("one commit, and HTTP on loopback"),
            Row::new(name, "answer at 500/s, p99", latencies.at(0.99), "ms")
                .limit(floor.at(0.99))
                .by(format!(
                    "max {:.1} ms; {}",
                    latencies.at(1.0),
                    processors(&used)
                )),
        ])
    }

    /// From the request to what the plugin asks Docker for.
    fn effect(&self, disk: &Disk) -> Result<Vec<Row>> {
        const RATE: f64 = 50.0;
        let daemon = Daemon::start(&self.built)?;
        let template = Template::new(daemon.address(), EFFECT, 1);
        load::pace(daemon.address(), &template, RATE, 25, 8)?;
        let before = daemon.usage()?;
        let timed = load::pace(daemon.address(), &template, RATE, 500, 8)?;
        let mut delays = Vec::with_capacity(timed.len());
        for delivery in &timed {
            let at = daemon
                .docker()
                .restarted(delivery.number, Duration::from_secs(10))
                .context("a container was not restarted within 10 s")?;
            delays.push(at.saturating_duration_since(delivery.due));
        }
        let used = daemon.spent(&before)?;
        let latencies = Latencies::new(delays)?;
        let answers = Latencies::new(
            timed
                .iter()
                .map(|timed| timed.answered.saturating_duration_since(timed.due))
                .collect(),
        )?;
        let name = Measure::Effect.name();
        let floor = &disk.idle;
        Ok(vec![
            Row::new(
                name,
                "delivery to first effect at 50/s, p50",
                latencies.at(0.5),
                "ms",
            )
            .aim(Aim::AtMost(0.6))
            .limit(2.0 * floor.at(0.5))
            .by("two commits, one after the other: alert, effect begun"),
            Row::new(
                name,
                "delivery to first effect at 50/s, p99",
                latencies.at(0.99),
                "ms",
            )
            .aim(Aim::AtMost(3.0))
            .limit(3.0 * floor.at(0.99))
            .by(format!(
                "max {:.1} ms; answer p50 {:.2} ms; {}",
                latencies.at(1.0),
                answers.at(0.5),
                processors(&used)
            )),
        ])
    }

    /// Nothing to do.
    fn idle(&self) -> Result<Vec<Row>> {
        let daemon = Daemon::start(&self.built)?;
        std::thread::sleep(Duration::from_secs(1));
        let before = daemon.usage()?;
        std::thread::sleep(Duration::from_secs(2));
        let used = daemon.spent(&before)?;
        let (rss, pss) = daemon.memory()?;
        let name = Measure::Idle.name();
        Ok(vec![
            Row::new(name, "memory at idle, RSS", rss, "MiB")
                .aim(Aim::AtMost(30.0))
                .by(format!("peak {:.0} MiB at the start", daemon.peak()?)),
            Row::new(name, "memory at idle, PSS", pss, "MiB")
                .by(format!("{:.1} % of a processor", used.daemon * 100.0)),
        ])
    }

    /// As many alerts as there are, as fast as they are accepted; in the midst of them some
    /// that have nothing to do with the others.
    fn storm(&self, measure: Measure, kind: Kind, alerts: usize, total: u64) -> Result<Vec<Row>> {
        let daemon = Daemon::start(&self.built)?;
        let address = daemon.address();
        let template = Template::new(address, kind, alerts);
        let critical = Template::new(address, UNRELATED, 1);
        let requests = total / template.alerts();
        let connections = self.connections.min(requests as usize);
        let progress = Arc::new(Progress::default());
        let before = daemon.usage()?;
        let begun = Instant::now();
        let storm = {
            let (template, progress) = (template.clone(), progress.clone());
            std::thread::Builder::new()
                .name("storm".to_owned())
                .spawn(move || {
                    let until = Until::Requests(requests);
                    load::saturate(address, &template, connections, until, &progress)
                })?
        };
        let mut request = critical.request();
        let mut delays = Vec::new();
        let mut answers = Vec::new();
        for turn in 1..=CRITICAL {
            // Spread over the storm's second half, when its backlog is there.
            let due = requests / 2 + (requests / 2) * (turn - 1) / CRITICAL;
            while progress.accepted.load(Ordering::Relaxed) < due && !storm.is_finished() {
                std::thread::sleep(Duration::from_micros(200));
            }
            let number = payload::numbers(1);
            let bytes = request.patch(number);
            // One of its own: the daemon closes those that are silent for long.
            let mut connection = Connection::open(address)?;
            let sent = Instant::now();
            let (status, _) = connection.send(bytes)?;
            answers.push(sent.elapsed());
            if status != 202 {
                bail!("a critical alert was answered {status} in the storm");
            }
            let at = daemon
                .docker()
                .restarted(number, Duration::from_secs(60))
                .context("a critical alert was not acted on within a minute")?;
            delays.push(at.saturating_duration_since(sent));
        }
        let sent = storm
            .join()
            .map_err(|_| anyhow::anyhow!("the storm ended in a panic"))??;
        let accepted_in = begun.elapsed();
        daemon.settle("sentinel_alerts_backlog", 0.0)?;
        let struck = kind.containers.unwrap_or(total) + CRITICAL;
        let deadline = Instant::now() + Duration::from_secs(60);
        while (daemon.docker().count() as u64) < struck && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        if (daemon.docker().count() as u64) < struck {
            bail!(
                "{} of {struck} containers were restarted a minute after the storm",
                daemon.docker().count()
            );
        }
        let took = begun.elapsed();
        let used = daemon.spent(&before)?;
        std::thread::sleep(Duration::from_secs(1));
        let (rss, pss) = daemon.memory()?;
        let peak = daemon.peak()?;
        let delays = Latencies::new(delays)?;
        let answers = Latencies::new(answers)?;
        let name = measure.name();
        let what = match measure {
            Measure::StormGroups => "storm in deliveries of 20 000",
            Measure::StormIncidents => "storm of 10 000 incidents",
            _ => "storm of 100 000 alerts",
        };
        Ok(vec![
            Row::new(name, &format!("{what}, memory at its peak"), peak, "MiB")
                .aim(Aim::AtMost(150.0))
                .by(format!("after it RSS {rss:.0} MiB, PSS {pss:.0} MiB")),
            Row::new(
                name,
                "  unrelated critical alert acted on, worst of 5",
                delays.at(1.0),
                "ms",
            )
            .aim(Aim::AtMost(50.0))
            .by(format!(
                "median {:.1} ms; answered after {:.1} ms, worst {:.1} ms",
                delays.at(0.5),
                answers.at(0.5),
                answers.at(1.0)
            )),
            Row::new(name, "  all dealt with after", took.as_secs_f64(), "s").by(format!(
                "accepted after {:.1} s ({} refused); {}",
                accepted_in.as_secs_f64(),
                sent.refused,
                processors(&used)
            )),
        ])
    }

    /// What whole incidents, from the first alert to the end, leave on the disk.
    fn journal(&self) -> Result<Vec<Row>> {
        const INCIDENTS: u64 = 500;
        let mut daemon = Daemon::start(&self.built)?;
        daemon.stop()?;
        let empty = std::fs::metadata(daemon.journal())?.len();
        daemon.serve()?;
        heal(&daemon, INCIDENTS)?;
        let events = {
            let journal = rusqlite::Connection::open(daemon.journal())?;
            journal.query_row("SELECT count(*) FROM events", [], |row| {
                row.get::<_, i64>(0)
            })?
        };
        daemon.stop()?;
        let full = std::fs::metadata(daemon.journal())?.len();
        let each = (full - empty) as f64 / INCIDENTS as f64;
        Ok(vec![
            Row::new(
                Measure::Journal.name(),
                "journal for an incident, from alert to end",
                each,
                "bytes",
            )
            .by(format!(
                "{:.0} events, the alert firing and resolved, and their indexes",
                events as f64 / INCIDENTS as f64
            )),
        ])
    }

    /// Fifty plugins, and new versions of one of them.
    fn plugins(&self) -> Result<Vec<Row>> {
        const COUNT: usize = 50;
        const VERSIONS: usize = 20;
        let mut daemon = Daemon::prepare(&self.built)?;
        let wasm = std::fs::read(daemon.path("plugins/docker-restart.wasm"))?;
        for number in 1..COUNT {
            let name = format!("docker-rest-{number:02}");
            let copy = another(&wasm, b"docker-restart", name.as_bytes());
            std::fs::write(daemon.path(&format!("plugins/{name}.wasm")), copy)?;
        }
        note("plugins: the first start compiles them");
        let first = daemon.serve()?.as_secs_f64() * 1e3;
        daemon.stop()?;
        let kept = best(&mut daemon)?;
        daemon.serve()?;
        let mut delays = Vec::with_capacity(VERSIONS);
        for number in 0..VERSIONS {
            // Bytes that were never seen before, as those of a new build.
            let summary = format!("Starts a contain{number:02}");
            let copy = another(&wasm, b"Starts a container", summary.as_bytes());
            let (beside, there) = (
                daemon.path("plugins/.new"),
                daemon.path("plugins/docker-restart.wasm"),
            );
            std::fs::write(&beside, copy)?;
            let begun = Instant::now();
            std::fs::rename(beside, there)?;
            let mut connection = Connection::open(daemon.address())?;
            loop {
                let (_, text) = connection.get(daemon.address(), "/api/v1/plugins")?;
                if text.contains(&summary) {
                    break;
                }
                if begun.elapsed() > Duration::from_secs(30) {
                    bail!("a new version did not serve within 30 s");
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            delays.push(begun.elapsed());
        }
        let delays = Latencies::new(delays)?;
        let name = Measure::Plugins.name();
        Ok(vec![
            Row::new(name, "start with 50 plugins, compiled before", kept, "ms")
                .aim(Aim::AtMost(100.0))
                .by(format!(
                    "{first:.0} ms for the first start, which compiles them"
                )),
            Row::new(
                name,
                "a new version in its folder serves, p50",
                delays.at(0.5),
                "ms",
            )
            .aim(Aim::AtMost(200.0))
            .by("a quiet window of 20 ms, the compiler, two commits"),
            Row::new(
                name,
                "a new version in its folder serves, worst of 20",
                delays.at(1.0),
                "ms",
            )
            .aim(Aim::AtMost(200.0)),
        ])
    }

    /// With a long past.
    fn start(&self) -> Result<Vec<Row>> {
        let mut daemon = Daemon::start(&self.built)?;
        heal(&daemon, 1)?;
        daemon.stop()?;
        let young = best(&mut daemon)?;
        note(&format!("start: writing {} incidents", self.incidents));
        history::multiply(&daemon.journal(), self.incidents)?;
        let size = std::fs::metadata(daemon.journal())?.len() as f64 / 1e9;
        let old = best(&mut daemon)?;
        Ok(vec![
            Row::new(
                Measure::Start.name(),
                &format!("start with {} past incidents", self.incidents),
                old,
                "ms",
            )
            .aim(Aim::AtMost(100.0))
            .limit(young)
            .by(format!(
                "the same with one past incident is the limit; journal of {size:.1} GB"
            )),
        ])
    }
}

/// A copy of a plugin that differs from it in one word of the same length.
fn another(wasm: &[u8], word: &[u8], by: &[u8]) -> Vec<u8> {
    let mut copy = wasm.to_vec();
    let places: Vec<usize> = wasm
        .windows(word.len())
        .enumerate()
        .filter(|(_, window)| *window == word)
        .map(|(at, _)| at)
        .collect();
    for at in places {
        if let Some(place) = copy.get_mut(at..at + word.len()) {
            place.copy_from_slice(by);
        }
    }
    copy
}

/// The best of three starts, in milliseconds: the others had bad luck.
fn best(daemon: &mut Daemon) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        best = best.min(daemon.serve()?.as_secs_f64() * 1e3);
        daemon.stop()?;
    }
    Ok(best)
}

/// Lets `count` incidents begin, be acted on, and end because their alerts resolve.
fn heal(daemon: &Daemon, count: u64) -> Result<()> {
    let firing = Template::new(daemon.address(), EFFECT, 1);
    let resolved = Template::new(
        daemon.address(),
        Kind {
            status: "resolved",
            ..EFFECT
        },
        1,
    );
    let timed = load::pace(daemon.address(), &firing, 200.0, count, 8)?;
    for delivery in &timed {
        daemon
            .docker()
            .restarted(delivery.number, Duration::from_secs(10))
            .context("a container was not restarted within 10 s")?;
    }
    // The run has ended a moment after its effect; what resolves before is another story.
    std::thread::sleep(Duration::from_millis(500));
    let mut connection = Connection::open(daemon.address())?;
    let mut request = resolved.request();
    for delivery in &timed {
        let (status, _) = connection.send(request.patch(delivery.number))?;
        if status != 202 {
            bail!("a resolved alert was answered {status}");
        }
    }
    daemon.settle("sentinel_incidents_open", 0.0)?;
    Ok(())
}

/// The table's first rows.
fn disk_rows(disk: &Disk) -> Vec<Row> {
    let name = Measure::Disk.name();
    vec![
        Row::new(
            name,
            "plain disk: writes of 20 KiB, each synced",
            disk.rate,
            "/s",
        )
        .by(format!(
            "the disk: p50 {:.2} ms, p99 {:.2} ms; with pauses p50 {:.2} ms, p99 {:.2} ms",
            disk.latencies.at(0.5),
            disk.latencies.at(0.99),
            disk.idle.at(0.5),
            disk.idle.at(0.99)
        )),
    ]
}

/// Who kept the processors busy.
fn processors(used: &Spent) -> String {
    let (name, share) = &used.busiest;
    format!(
        "processors: daemon {:.2}, load {:.2} (busiest thread {name} {:.0} %)",
        used.daemon,
        used.load,
        share * 100.0
    )
}
