//! Ends a crash loop: a container that Docker's restart policy starts again and again is
//! stopped, with its last words on record, and a person is told. One that crashed and is
//! down is started once.

use sentinel_plugin::docker::{Container, Details, OWN_GRACE, State};
use sentinel_plugin::{Failure, Incident, Outcome, Remediation, error, info};
use serde::Deserialize;

struct CrashLoop;

/// The step's params; `params.schema.json` explains each.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    #[serde(default = "five")]
    restarts: u32,
    #[serde(default = "twenty")]
    lines: u32,
}

fn five() -> u32 {
    5
}

fn twenty() -> u32 {
    20
}

/// What is to be done.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// It crashes again and again.
    Loops,
    /// It is down.
    Down,
    /// It runs, and has not been started again too often.
    Fine,
}

fn judge(details: &Details, restarts: u32) -> Verdict {
    // Docker counts from when somebody started it last.
    if details.restart_count >= restarts && details.state != State::Exited {
        Verdict::Loops
    } else if matches!(details.state, State::Exited | State::Created) {
        Verdict::Down
    } else {
        Verdict::Fine
    }
}

impl Remediation for CrashLoop {
    type Params = Params;

    const SUMMARY: &'static str =
        "Stops a container that crashes again and again, and keeps its last words.";

    const PARAMS_SCHEMA: &'static str = include_str!("../params.schema.json");

    fn remediate(incident: &Incident, params: Params) -> Result<Outcome, Failure> {
        let container = incident
            .target
            .container()
            .ok_or_else(|| Failure::permanent("the target is no container"))?;
        let details = container.inspect()?;
        match judge(&details, params.restarts) {
            Verdict::Fine => Ok(Outcome::unchanged(format!("{container} is in no crash loop"))),
            Verdict::Down => {
                container.start()?;
                Ok(Outcome::changed(format!("started {container}")))
            }
            Verdict::Loops => {
                last_words(&container, params.lines)?;
                container.stop(OWN_GRACE)?;
                // Stopped is not healed: a person has to look, and the loop is over till then.
                Err(Failure::denied(format!(
                    "{container} was in a crash loop ({} restarts, last exit code {}) and is stopped now; its last words are in the log",
                    details.restart_count, details.exit_code
                )))
            }
        }
    }
}

fn last_words(container: &Container, lines: u32) -> Result<(), Failure> {
    if lines == 0 {
        return Ok(());
    }
    let words = container.logs(lines)?;
    if words.trim().is_empty() {
        info!("{container} has said nothing");
    } else {
        error!("{container} said last:\n{}", words.trim_end());
    }
    Ok(())
}

sentinel_plugin::plugin!(CrashLoop);
