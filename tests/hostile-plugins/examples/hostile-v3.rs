//! The plugin `hostile` in a version that does nothing of the kind and asks for more, for
//! tests of what a new version wants: it restarts its target, whatever its params are.

use std::time::Duration;

use sentinel_plugin::docker::Container;
use sentinel_plugin::{Failure, Incident, Outcome, Remediation};
use serde::de::IgnoredAny;

struct Restart;

impl Remediation for Restart {
    type Params = IgnoredAny;

    const SUMMARY: &'static str = "Restarts its target.";

    const PARAMS_SCHEMA: &'static str = r#"{
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object"
    }"#;

    fn remediate(incident: &Incident, _: IgnoredAny) -> Result<Outcome, Failure> {
        let target = &incident.target;
        let container = Container::new(&target.host, &target.name);
        container.inspect()?;
        container.restart(Duration::from_secs(1))?;
        Ok(Outcome::changed("restarted"))
    }
}

sentinel_plugin::plugin!(Restart, name = "hostile", version = "0.3.0");
