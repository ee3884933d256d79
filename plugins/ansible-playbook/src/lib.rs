//! Runs an Ansible playbook, and tells it why: next to what the step's params give, the
//! playbook sees the incident as variables.
//!
//! - `container`: the name of the policy's target, when that is a container;
//! - `sentinel`: `incident`, `run`, `policy`, `step`, `attempt`, `target` (`uri`, `kind`,
//!   `host`, `name`) and `alert` (`fingerprint`, `status`, `labels`, `annotations`,
//!   `starts_at`). The daemon sees to it that this is so, and adds `limit`.

#![forbid(unsafe_code)]

mod report;

use sentinel_plugin::ansible::Playbook;
use sentinel_plugin::params::Span;
use sentinel_plugin::serde_json::{Map, Value, json};
use sentinel_plugin::{AlertStatus, Failure, Incident, Label, Outcome, Remediation, info, warn};
use serde::Deserialize;

struct AnsiblePlaybook;

/// The step's params; `params.schema.json` explains each.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    playbook: String,
    #[serde(default)]
    vars: Map<String, Value>,
    limit: Option<Limit>,
    #[serde(default)]
    tags: Vec<String>,
    timeout: Option<Span>,
}

/// The hosts to run on. The schema lets nothing through that has a comma, so that a text
/// that a template filled in is one host.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Limit {
    One(String),
    Several(Vec<String>),
}

impl Params {
    fn into_playbook(self, incident: &Incident) -> Playbook {
        let mut playbook = Playbook::new(self.playbook)
            .vars(about(incident))
            .vars(self.vars);
        if let Some(limit) = self.limit {
            playbook = playbook.limit(match limit {
                Limit::One(host) => host,
                Limit::Several(hosts) => hosts.join(","),
            });
        }
        for tag in self.tags {
            playbook = playbook.tag(tag);
        }
        if let Some(timeout) = self.timeout {
            playbook = playbook.timeout(timeout);
        }
        playbook
    }
}

/// The variables that every playbook gets.
fn about(incident: &Incident) -> Map<String, Value> {
    let Incident { target, alert, .. } = incident;
    let mut vars = Map::new();
    if let Some(container) = target.container() {
        vars.insert("container".to_owned(), container.name.into());
    }
    let status = match alert.status {
        AlertStatus::Firing => "firing",
        AlertStatus::Resolved => "resolved",
    };
    vars.insert(
        "sentinel".to_owned(),
        json!({
            "incident": incident.id,
            "run": incident.run,
            "policy": incident.policy,
            "step": incident.step,
            "attempt": incident.attempt,
            "target": {
                "uri": target.uri,
                "kind": target.kind,
                "host": target.host,
                "name": target.name,
            },
            "alert": {
                "fingerprint": alert.fingerprint,
                "status": status,
                "labels": object(&alert.labels),
                "annotations": object(&alert.annotations),
                "starts_at": alert.starts_at.to_string(),
            },
        }),
    );
    vars
}

fn object(labels: &[Label]) -> Value {
    labels
        .iter()
        .map(|label| (label.name.clone(), Value::from(label.value.clone())))
        .collect::<Map<_, _>>()
        .into()
}

impl Remediation for AnsiblePlaybook {
    type Params = Params;

    const SUMMARY: &'static str = "Runs an Ansible playbook, with the incident as variables.";

    const PARAMS_SCHEMA: &'static str = include_str!("../params.schema.json");

    fn remediate(incident: &Incident, params: Params) -> Result<Outcome, Failure> {
        let name = params.playbook.clone();
        info!("running {name}");
        let recap = params.into_playbook(incident).run()?;
        for host in &recap.hosts {
            info!("{}", report::host(host));
        }
        for failure in &recap.failures {
            warn!("{}", report::failure(failure));
        }
        report::outcome(&name, &recap)
    }
}

sentinel_plugin::plugin!(AnsiblePlaybook);

#[cfg(test)]
mod tests {
    use super::*;
    use sentinel_plugin::serde_json;
    use sentinel_plugin::{Alert, Target, Timestamp};

    fn label(name: &str, value: &str) -> Label {
        Label {
            name: name.to_owned(),
            value: value.to_owned(),
        }
    }

    fn incident(kind: &str) -> Incident {
        Incident {
            id: "inc-1".to_owned(),
            run: "run-1".to_owned(),
            policy: "nginx-down".to_owned(),
            target: Target {
                uri: format!("{kind}://local/nginx"),
                kind: kind.to_owned(),
                host: "local".to_owned(),
                name: "nginx".to_owned(),
            },
            alert: Alert {
                fingerprint: "0123456789abcdef".to_owned(),
                status: AlertStatus::Firing,
                labels: vec![label("alertname", "NginxDown"), label("severity", "page")],
                annotations: vec![label("summary", "nginx is down")],
                starts_at: Timestamp {
                    seconds: 0,
                    nanoseconds: 0,
                },
                ends_at: None,
                generator_url: None,
            },
            step: 2,
            attempt: 1,
            params: "{}".to_owned(),
        }
    }

    fn params(json: Value) -> Params {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_incident_is_told_as_variables() {
        assert_eq!(
            Value::Object(about(&incident("docker"))),
            json!({
                "container": "nginx",
                "sentinel": {
                    "incident": "inc-1",
                    "run": "run-1",
                    "policy": "nginx-down",
                    "step": 2,
                    "attempt": 1,
                    "target": {
                        "uri": "docker://local/nginx",
                        "kind": "docker",
                        "host": "local",
                        "name": "nginx",
                    },
                    "alert": {
                        "fingerprint": "0123456789abcdef",
                        "status": "firing",
                        "labels": { "alertname": "NginxDown", "severity": "page" },
                        "annotations": { "summary": "nginx is down" },
                        "starts_at": "1970-01-01T00:00:00Z",
                    },
                },
            })
        );
        assert!(!about(&incident("vm")).contains_key("container"));
    }

    #[test]
    fn vars_of_the_policy_are_above_those_of_the_incident() {
        let incident = incident("docker");
        let given = params(json!({
            "playbook": "a.yml",
            "vars": { "container": "web", "retries": 3 },
            "limit": "edge",
            "tags": ["fast", "safe"],
            "timeout": "1m",
        }));
        assert_eq!(
            given.into_playbook(&incident),
            Playbook::new("a.yml")
                .vars(about(&incident))
                .var("container", "web")
                .var("retries", 3)
                .limit("edge")
                .tag("fast")
                .tag("safe")
                .timeout(std::time::Duration::from_mins(1))
        );
    }

    #[test]
    fn a_limit_is_names_and_no_pattern() {
        let schema = serde_json::from_str(AnsiblePlaybook::PARAMS_SCHEMA).unwrap();
        let schema = jsonschema::draft202012::new(&schema).unwrap();
        for limit in [
            "",
            "!web1",
            "web1,web2",
            "web:&eu",
            "~web",
            "web*",
            "@hosts",
            "web 1",
            "web1\n",
        ] {
            for limit in [json!(limit), json!([limit])] {
                let params = json!({ "playbook": "a.yml", "limit": limit });
                assert!(!schema.is_valid(&params), "{params}");
            }
        }
        assert!(!schema.is_valid(&json!({ "playbook": "a.yml", "limit": [] })));
        let several = params(json!({ "playbook": "a.yml", "limit": ["a:9100", "b"] }));
        let incident = incident("docker");
        assert_eq!(
            several.into_playbook(&incident),
            Playbook::new("a.yml")
                .vars(about(&incident))
                .limit("a:9100,b")
        );
    }

    #[test]
    fn the_schema_and_the_params_agree() {
        let schema = serde_json::from_str(AnsiblePlaybook::PARAMS_SCHEMA).unwrap();
        let schema = jsonschema::draft202012::new(&schema).unwrap();
        for (params, good) in [
            (json!({ "playbook": "a.yml" }), true),
            (
                json!({ "playbook": "a.yml", "vars": { "x": [1, { "y": null }] } }),
                true,
            ),
            (json!({ "playbook": "a.yml", "limit": "web1:9100" }), true),
            (
                json!({ "playbook": "a.yml", "limit": ["web1", "[2001:db8::1]:9100"] }),
                true,
            ),
            (json!({ "playbook": "a.yml", "tags": ["x"] }), true),
            (json!({ "playbook": "a.yml", "timeout": 90 }), true),
            (json!({}), false),
            (json!({ "playbook": 1 }), false),
            (json!({ "playbook": "a.yml", "vars": "x=1" }), false),
            (json!({ "playbook": "a.yml", "tags": "x" }), false),
            (json!({ "playbook": "a.yml", "timeout": "soon" }), false),
            (json!({ "playbook": "a.yml", "inventory": "x" }), false),
        ] {
            assert_eq!(schema.is_valid(&params), good, "{params}");
            let parsed = serde_json::from_value::<Params>(params.clone());
            assert_eq!(parsed.is_ok(), good, "{params}");
        }
    }
}
