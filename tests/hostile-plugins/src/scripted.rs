//! A plugin that does what its params say, one step after another, and writes down
//! everything that it sees: for tests of the gate, of records and of their replay.

use std::hash::{BuildHasher as _, RandomState};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use sentinel_plugin::ansible::Playbook;
use sentinel_plugin::docker::{self, Container, Filter, Health};
use sentinel_plugin::http;
use sentinel_plugin::serde_json::{self, Value};
use sentinel_plugin::{
    CapabilityError, Failure, Incident, Outcome, Remediation, clock, info, random,
};
use serde::Deserialize;

use crate::SECOND_VERSION;

pub(crate) struct Scripted;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    /// Each is a word and what it is about: `restart nginx`, `sleep 50`.
    script: Vec<String>,
}

const GRACE: Duration = Duration::from_secs(1);

impl Remediation for Scripted {
    type Params = Params;

    const SUMMARY: &'static str = "Does what its script says.";

    const PARAMS_SCHEMA: &'static str = r#"{
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "script": { "type": "array", "items": { "type": "string" } }
        },
        "required": ["script"],
        "additionalProperties": false
    }"#;

    fn remediate(_: &Incident, params: Params) -> Result<Outcome, Failure> {
        let mut seen = Vec::new();
        // The id of the last container that was made.
        let mut made = String::new();
        for step in &params.script {
            let (word, about) = step.split_once(' ').unwrap_or((step, ""));
            let saw = match word {
                "unchanged" => return Ok(Outcome::unchanged(about)),
                "retryable" => return Err(Failure::retryable(about)),
                _ => {
                    take(word, about, &mut made).unwrap_or_else(|error| format!("refused: {error}"))
                }
            };
            if SECOND_VERSION {
                let _looked = clock::elapsed();
            }
            info!("{step}: {saw}");
            seen.push(saw);
        }
        Ok(Outcome::changed(seen.join("; ")))
    }
}

fn play(file: &str, how: &str) -> Result<Playbook, CapabilityError> {
    let wrong = |error: serde_json::Error| CapabilityError::Invalid(error.to_string());
    let how: serde_json::Map<String, Value> = serde_json::from_str(how).map_err(wrong)?;
    let mut playbook = Playbook::new(file);
    if let Some(Value::Object(vars)) = how.get("vars") {
        playbook = playbook.vars(vars.clone());
    }
    if let Some(limit) = how.get("limit").and_then(Value::as_str) {
        playbook = playbook.limit(limit);
    }
    if let Some(Value::Array(tags)) = how.get("tags") {
        for tag in tags.iter().filter_map(Value::as_str) {
            playbook = playbook.tag(tag);
        }
    }
    Ok(playbook)
}

#[expect(clippy::panic, reason = "the script of a test is wrong")]
fn take(word: &str, about: &str, made: &mut String) -> Result<String, CapabilityError> {
    let number = || about.parse::<u64>().unwrap_or(0);
    let container = || {
        let name = if about == "made" {
            made.as_str()
        } else {
            about
        };
        Container::new("local", name)
    };
    let done = |(): ()| "done".to_owned();
    Ok(match word {
        "inspect" => tell(&container().inspect()?),
        // A name of so many letters that is nobody's.
        "inspect-long" => {
            let name = format!("z{}", "x".repeat(about.parse().unwrap_or(0)));
            tell(&Container::new("local", &name).inspect()?)
        }
        "list" => rows(&docker::list("local", &Filter::running())?),
        "list-all" => rows(&docker::list("local", &Filter::all())?),
        "logs" => container().logs(10)?,
        "start" => container().start().map(done)?,
        "stop" => container().stop(GRACE).map(done)?,
        "kill" => container().kill("SIGKILL").map(done)?,
        "restart" if SECOND_VERSION => {
            container().stop(GRACE)?;
            container().start().map(done)?
        }
        "restart" => container().restart(GRACE).map(done)?,
        // With a look at the clock right before each call.
        "timed-restart" => {
            let began = clock::elapsed();
            let before = tell(&container().inspect()?);
            let looked = clock::elapsed().saturating_sub(began);
            container().restart(GRACE)?;
            format!("{before} for {looked:?}")
        }
        "recreate" => {
            *made = container().recreate(GRACE)?;
            format!("made {made}")
        }
        "duplicate" => {
            *made = container().duplicate(&format!("{about}-2"), [("number", "2")])?;
            format!("made {made}")
        }
        "remove" => container().remove(GRACE).map(done)?,
        "playbook" => {
            let recap = Playbook::new(about).var("third", 1.0 / 3.0).run()?;
            format!("exit code {}", recap.exit_code)
        }
        // With everything that a plugin may say: `play FILE {"vars": …, "limit": …, "tags": […]}`.
        "play" => {
            let (file, how) = about.split_once(' ').unwrap_or((about, "{}"));
            let recap = play(file, how)?.run()?;
            format!("exit code {}", recap.exit_code)
        }
        "get" | "brew" | "post" | "post-secret" | "post-large" => send(word, about)?,
        // Looks until the container is healthy, at most a hundred times.
        "await" => {
            let mut looks = 1;
            while container().inspect()?.health != Health::Healthy && looks < 100 {
                clock::sleep(Duration::from_millis(5));
                looks += 1;
            }
            format!("{looks} looks")
        }
        "sleep" => {
            clock::sleep(Duration::from_millis(number()));
            "slept".to_owned()
        }
        "clock" => format!(
            "{} {:?} {:?}",
            clock::now(),
            clock::elapsed(),
            clock::remaining()
        ),
        "looks" => format!("{:?}", (0..number()).map(|_| clock::elapsed()).max()),
        "wasi-clock" | "wasi-looks" | "wasi-sleep" => by_wasi(word, number()),
        "random" => format!(
            "{:x} {:x}",
            random::bits(),
            RandomState::new().hash_one("WASI")
        ),
        // What it asks hangs on chance.
        "choose" => {
            let name = if random::bits() & 1 == 0 {
                "nginx"
            } else {
                "db"
            };
            tell(&Container::new("local", name).inspect()?)
        }
        // What it asks hangs on the clock.
        "wait-until" => {
            let mut looks = 0;
            while clock::elapsed() < Duration::from_millis(number()) {
                clock::sleep(Duration::from_millis(3));
                looks += 1;
            }
            format!("{looks} looks")
        }
        "spin" => loop {
            std::hint::black_box(about);
        },
        _ => panic!("the script has `{word}`"),
    })
}

/// What is seen of time through WASI.
#[expect(clippy::disallowed_methods, reason = "a guest waits through WASI here")]
fn by_wasi(word: &str, number: u64) -> String {
    match word {
        "wasi-clock" => {
            let before = Instant::now();
            let wall = SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default();
            format!("{wall:?} {:?}", before.elapsed())
        }
        "wasi-looks" => format!(
            "{:?}",
            (0..number).map(|_| SystemTime::now()).max().is_some()
        ),
        _ => {
            let before = Instant::now();
            thread::sleep(Duration::from_millis(number));
            format!("{:?}", before.elapsed())
        }
    }
}

fn send(word: &str, url: &str) -> Result<String, CapabilityError> {
    let post = || http::Request::post(url).body("what is posted");
    let request = match word {
        "get" => http::Request::get(url),
        "brew" => http::Request::new("BREW", url),
        // With a header that the host fills in.
        "post-secret" => post().header("authorization", "secret://key"),
        "post-large" => post().body(vec![b'x'; (512 << 10) + 1]),
        _ => post(),
    };
    let response = request.send()?;
    let text: String = response.text().chars().take(200).collect();
    Ok(format!("{} {text}", response.status))
}

fn tell(details: &docker::Details) -> String {
    let started = details.started_at.as_ref().map(ToString::to_string);
    format!(
        "{} {} {} since {} restarts {}",
        details.name,
        details.state,
        details.health,
        started.unwrap_or_default(),
        details.restart_count,
    )
}

fn rows(rows: &[docker::Summary]) -> String {
    let rows: Vec<String> = rows
        .iter()
        .map(|row| format!("{} {}", row.name, row.state))
        .collect();
    rows.join(", ")
}
