//! Breaks the service of the demo and shows, live, how it is healed.
//!
//! Brings nothing up itself: it waits until the whole stack is green, orders the
//! failure from the Docker engine, asks every service many times a second what it
//! sees, and prints what happened and where the time went.

#![forbid(unsafe_code)]

mod report;
mod watch;
mod world;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Parser;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep, timeout};

use crate::report::{Mark, Moment, Outstanding, Place, Timeline};
use crate::watch::{Before, Watch, Zero};
use crate::world::{Addresses, Failure, PATIENCE, World};

/// Breaks the service of the demo and shows how it is healed
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    addresses: Addresses,
    /// How to break it
    #[arg(long, value_enum, default_value_t = Failure::Kill)]
    failure: Failure,
    /// How long the stack may take until it is green (seconds)
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    ready_within: u64,
    /// How long the loop may take, from the failure to the resolved alert (seconds)
    #[arg(long, value_name = "SECONDS", default_value_t = 90)]
    within: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut stderr = std::io::stderr().lock();
            // There is nowhere left to report to.
            let _written = writeln!(stderr, "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    // Everything is asked over plain HTTP; the client wants a provider all the same.
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow!("TLS was set up twice"))?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(drill(arguments))
}

fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()?;
    Ok(())
}

async fn drill(arguments: &Arguments) -> Result<()> {
    let world = World::new(&arguments.addresses)?;
    green(&world, Duration::from_secs(arguments.ready_within)).await?;
    let incidents = world.incidents().await?;
    let before = Before {
        incident: incidents
            .iter()
            .map(|incident| incident.id)
            .max()
            .unwrap_or(0),
        resolved: world.resolved_accepted().await?,
    };

    let mut timeline = Timeline::default();
    let closed = heal(arguments, &world, before, &mut timeline).await;
    for line in timeline.rest() {
        print(&line)?;
    }
    if let Some(outage) = timeline.outage() {
        print("")?;
        print(&report::summary(&arguments.addresses.container, &outage))?;
    }
    closed
}

/// Waits until every service is there and nothing is wrong.
async fn green(world: &World, within: Duration) -> Result<()> {
    let start = Instant::now();
    let mut told = String::new();
    let mut told_at = start;
    loop {
        let Some(missing) = not_green(world).await else {
            return print("everything is up, and no alert fires\n");
        };
        if start.elapsed() > within {
            bail!(
                "the stack is not up after {} s: {missing}",
                within.as_secs()
            );
        }
        if missing != told || told_at.elapsed() > Duration::from_secs(10) {
            print(&format!("waiting: {missing}"))?;
            told = missing;
            told_at = Instant::now();
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// The first thing that is missing for a drill.
async fn not_green(world: &World) -> Option<String> {
    if !world.nginx_answers(PATIENCE).await {
        return Some("the service does not answer".to_owned());
    }
    if !world.prometheus_sees_service().await.unwrap_or(false) {
        return Some("Prometheus has not seen the service answer".to_owned());
    }
    if !world.prometheus_has_alertmanager().await.unwrap_or(false) {
        return Some("Prometheus knows no Alertmanager".to_owned());
    }
    match world.prometheus_alerts().await {
        Ok(alerts) if alerts.is_empty() => {}
        Ok(_) => return Some("an earlier alert still fires".to_owned()),
        Err(_) => return Some("Prometheus does not answer".to_owned()),
    }
    match world.alertmanager_alerts().await {
        Ok(alerts) if alerts.is_empty() => {}
        Ok(_) => return Some("Alertmanager still has an earlier alert".to_owned()),
        Err(_) => return Some("Alertmanager does not answer".to_owned()),
    }
    match world.sentinel_is_ready().await {
        Ok(None) => {}
        Ok(Some(reason)) => return Some(format!("sentinel is not ready: {reason}")),
        Err(_) => return Some("sentinel does not answer".to_owned()),
    }
    match world.incidents().await {
        Ok(incidents) => incidents
            .iter()
            .find(|incident| incident.end.is_none())
            .map(|incident| format!("incident {} is still open", incident.id)),
        Err(error) => Some(format!("sentinel does not list its incidents: {error:#}")),
    }
}

/// Breaks the service and follows the loop until it is closed.
async fn heal(
    arguments: &Arguments,
    world: &World,
    before: Before,
    timeline: &mut Timeline,
) -> Result<()> {
    print(&report::heading())?;
    let (tell, mut moments) = mpsc::unbounded_channel();
    let zero = Zero::now();
    let failure = arguments.failure;
    timeline.add(Moment {
        after: Duration::ZERO,
        place: Place::Drill,
        mark: Mark::Note,
        text: format!(
            "docker {} {}",
            failure.as_str(),
            arguments.addresses.container
        ),
    });
    let watch = Watch {
        world,
        zero,
        before,
        tell,
    };
    let mut tick = interval(Duration::from_millis(50));
    let follow = async {
        loop {
            tokio::select! {
                Some(moment) = moments.recv() => timeline.add(moment),
                _ = tick.tick() => {
                    for line in timeline.due(zero.elapsed()) {
                        print(&line)?;
                    }
                    match timeline.outstanding() {
                        None => return Ok(()),
                        Some(Outstanding::Failed(how)) => bail!("the incident was not healed: {how}"),
                        Some(Outstanding::Waiting(_)) => {}
                    }
                }
            }
        }
    };
    let broken = async {
        world
            .break_it(failure)
            .await
            .context("nothing could be broken")?;
        // The other futures decide when it is over.
        std::future::pending::<Result<()>>().await
    };
    let limit = Duration::from_secs(arguments.within);
    let followed = timeout(limit, async {
        tokio::select! {
            done = follow => done,
            failed = broken => failed,
            () = watch.all() => Ok(()),
        }
    })
    .await;
    match (followed, timeline.outstanding()) {
        (Ok(done), _) => done,
        (Err(_), None) => Ok(()),
        (Err(_), Some(Outstanding::Waiting(what) | Outstanding::Failed(what))) => {
            bail!("the loop is not closed after {} s: {what}", limit.as_secs())
        }
    }
}
