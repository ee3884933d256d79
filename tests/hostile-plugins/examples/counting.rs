//! A plugin that counts its runs in its memory, for tests: it says how many there were.

use sentinel_plugin::{Failure, Incident, Outcome, Remediation, memory};
use serde::Deserialize;

struct Counting;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Counts, and fails all the same.
    #[serde(default)]
    fails: bool,
}

impl Remediation for Counting {
    type Params = Params;

    const SUMMARY: &'static str = "Counts its runs.";

    const PARAMS_SCHEMA: &'static str = r#"{
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": { "fails": { "type": "boolean" } },
        "additionalProperties": false
    }"#;

    fn remediate(_incident: &Incident, params: Params) -> Result<Outcome, Failure> {
        let runs: u32 = memory::get_json("runs")?.unwrap_or(0) + 1;
        memory::set_json("runs", &runs)?;
        if params.fails {
            return Err(Failure::permanent(format!(
                "run {runs}, as it was asked to"
            )));
        }
        Ok(Outcome::changed(format!("run {runs}")))
    }
}

sentinel_plugin::plugin!(Counting, name = "counting", version = "0.1.0");
