//! What operators have written: sets of policies with small limits, so that every guard
//! has something to do, and what the configuration sets above them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use jiff::Timestamp;
use sentinel_core::engine::Settings;
use sentinel_core::guard::limits::EffectLimits;
use sentinel_core::guard::settings::{Maintenance, Window};
use sentinel_core::policy::{Environment, PolicySet};

use crate::docker::moment;
use crate::rng::Rng;

/// When every simulation begins, in microseconds since 1970: 2026-11-23 00:00 UTC.
pub const START: i64 = 1_795_392_000_000_000;

/// How many sets of policies there are.
pub const SETS: usize = 64;

/// What alerts are called; a policy is for some of them.
pub const ALERTS: [&str; 3] = ["Down", "Sick", "Slow"];

/// The longest `ttl` that a policy has.
pub const LONGEST_TTL: Duration = Duration::from_mins(45);

static POLICIES: LazyLock<Vec<Arc<PolicySet>>> = LazyLock::new(|| {
    (0..SETS)
        .map(|index| {
            let text = policies(&mut Rng::new(index as u64 + 1));
            let environment = Environment {
                docker_hosts: ["local".to_owned()].into(),
                ..Environment::default()
            };
            match PolicySet::parse(&[("policies.yaml", &text)], &environment) {
                Ok(set) => Arc::new(set),
                Err(errors) => {
                    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
                    panic!("set {index}: {}\n{text}", errors.join("\n"));
                }
            }
        })
        .collect()
});

/// One of the sets of policies.
pub fn policy_set(index: usize) -> Arc<PolicySet> {
    POLICIES[index % SETS].clone()
}

/// The policies of a set, as their file.
fn policies(rng: &mut Rng) -> String {
    let mut text = "policies:\n".to_owned();
    let modes: [(&str, &str); 6] = [
        ("heal", "auto"),
        ("mend", "auto"),
        ("ask-one", "approve"),
        ("ask-two", "approve"),
        ("watch", "shadow"),
        ("odd", "auto"),
    ];
    for (name, mode) in modes {
        if rng.chance(15) {
            continue;
        }
        policy(&mut text, rng, name, mode);
    }
    if text.lines().count() == 1 {
        policy(&mut text, rng, "heal", "auto");
    }
    text
}

fn policy(text: &mut String, rng: &mut Rng, name: &str, mode: &str) {
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    let names: Vec<_> = ALERTS.into_iter().filter(|_| rng.chance(60)).collect();
    let names = if names.is_empty() {
        ALERTS[0].to_owned()
    } else {
        names.join("|")
    };
    line(format!("  - name: {name}"));
    line(format!("    match: ['alertname=~\"{names}\"']"));
    // No alert has this label: such a policy does not fit.
    let label = if name == "odd" {
        "instance"
    } else {
        "container"
    };
    line(format!(
        "    target: 'docker://local/{{{{ labels.{label} }}}}'"
    ));
    line(format!("    mode: {mode}"));
    if mode == "approve" {
        let people = if name == "ask-two" { 2 } else { 1 };
        let expires = rng.pick(&["1m", "3m", "10m"]);
        line(format!(
            "    approval: {{ expires: {expires}, people: {people} }}"
        ));
    }
    line(format!("    ttl: {}", rng.pick(&["5m", "20m", "45m"])));
    line(format!(
        "    evidence: {}",
        rng.pick(&["off", "{ logs: 5 }"])
    ));
    line(format!(
        "    on_interrupt: {}",
        rng.pick(&["rerun", "escalate"])
    ));
    line("    steps:".to_owned());
    for step in 0..rng.between(1, 3) {
        line(steps(rng, step == 0));
    }
    let check = rng.pick(&[
        "docker: healthy",
        "docker: healthy",
        "docker: running",
        "http: 'http://web/status'",
        "alert: resolved",
    ]);
    let within = rng.pick(&["5s", "30s", "2m"]);
    line(format!(
        "    verify: {{ {check}, within: {within}, every: 2s }}"
    ));
    line("    guards:".to_owned());
    guards(text, rng);
    text.push_str(
        "    grants:\n      docker: { containers: ['*'], actions: [inspect, logs, start, stop, restart, kill] }\n      ansible: { playbooks: ['*.yml'] }\n",
    );
    if rng.chance(60) {
        let attempts = rng.between(1, 3);
        let _ok = writeln!(
            text,
            "    escalate: {{ plugin: tell, timeout: 30s, attempts: {attempts} }}"
        );
    }
}

fn steps(rng: &mut Rng, first: bool) -> String {
    let plugin = rng.pick(&["restart", "restart", "cycle", "play", "moody"]);
    let attempts = rng.between(1, 3);
    let backoff = rng.pick(&["0s", "2s", "15s"]);
    let timeout = rng.pick(&["10s", "1m"]);
    let after = rng.pick(&["", "", "after: 20s", "after: 2m"]);
    let on = match rng.below(4) {
        _ if first => "",
        0 => "on: [unverified]",
        1 => "on: [permanent, retryable]",
        _ => "",
    };
    let when: Vec<_> = [*after, on]
        .into_iter()
        .filter(|one| !one.is_empty())
        .collect();
    format!(
        "      - {{ plugin: {plugin}, attempts: {attempts}, backoff: {backoff}, timeout: {timeout}, when: {{ {} }} }}",
        when.join(", ")
    )
}

fn guards(text: &mut String, rng: &mut Rng) {
    let mut line = |line: String| {
        text.push_str("      ");
        text.push_str(&line);
        text.push('\n');
    };
    line(format!("cooldown: {}", rng.pick(&["1s", "30s", "3m"])));
    if rng.chance(50) {
        let max = rng.pick(&["1/1m", "2/2m", "3/10m"]);
        let then = rng.pick(&["queue", "queue", "drop"]);
        line(format!("rate: {{ max: {max}, then: {then} }}"));
    }
    if rng.chance(40) {
        line(format!(
            "flapping: {}",
            rng.pick(&["1/2m", "2/5m", "3/10m"])
        ));
    }
    if rng.chance(60) {
        let failures = rng.between(1, 3);
        let open_for = rng.pick(&["1m", "5m"]);
        line(format!(
            "breaker: {{ failures: {failures}, open_for: {open_for} }}"
        ));
    }
    line(format!("concurrency: {}", rng.between(1, 3)));
    if rng.chance(40) {
        let max = rng.pick(&["1", "2", "40%"]);
        let calm = rng.pick(&["20s", "1m", "3m"]);
        line(format!(
            "blast_radius: {{ max: {max}, of: {{ labels: {{ app: web }} }}, calm: {calm} }}"
        ));
    }
    if rng.chance(25) {
        let minute = rng.between(2, 40);
        let until = minute + rng.between(1, 8);
        let window = if rng.chance(50) {
            format!("{{ from: '00:{minute:02}', to: '00:{until:02}' }}")
        } else {
            format!("{{ from: 2026-11-23T00:{minute:02}:00Z, to: 2026-11-23T00:{until:02}:00Z }}")
        };
        line(format!("maintenance: [{window}]"));
    }
}

/// What the configuration of one simulation sets above all policies.
pub fn settings(rng: &mut Rng) -> Settings {
    let places = rng.between(1, 6) as u32;
    let mut window = |percent: u64, max: u64, seconds: u64| {
        rng.chance(percent).then(|| Window {
            max: rng.between(1, max) as u32,
            per: Duration::from_secs(rng.between(10, seconds)),
        })
    };
    let effects = EffectLimits {
        per_target: window(40, 4, 300),
        total: window(40, 8, 600),
        per_action: window(40, 4, 300)
            .map(|window| BTreeMap::from([("docker.restart".to_owned(), window)]))
            .unwrap_or_default(),
        telling: window(40, 4, 300),
    };
    let maintenance = rng.chance(15).then(|| {
        let from = START + rng.between(60, 1200) as i64 * 1_000_000;
        let to = from + rng.between(30, 400) as i64 * 1_000_000;
        let (from, to): (Timestamp, Timestamp) = (moment(from), moment(to));
        Maintenance::Once { from, to }
    });
    Settings {
        places,
        plugin_places: rng.between(1, u64::from(places)) as u32,
        incidents: *rng.pick(&[2, 4, 8, 1000]),
        effects,
        maintenance: maintenance.into_iter().collect(),
    }
}
