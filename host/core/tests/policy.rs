//! Policy files as operators write them, right and wrong.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers may panic like the test itself"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use proptest::prelude::*;
use sentinel_core::alert::{Alert, AlertStatus, Fingerprint, Labels};
use sentinel_core::capability::DockerAction;
use sentinel_core::grant::Import;
use sentinel_core::guard::settings::{
    BlastRadius, Breaker, Day, Excess, Fleet, Guards, Maintenance, Moment, Rate, Share, Window,
};
use sentinel_core::id::{Digest, PluginName, PluginRef};
use sentinel_core::incident::{OnInterrupt, Plan, StepFailure, VerifyCheck};
use sentinel_core::policy::{
    Environment, Mode, ParamError, PluginCatalog, PluginFacts, PolicyError, PolicySet,
};
use serde_json::{Value, json};

const NGINX: &str = include_str!("fixtures/policies/nginx.yaml");
const DEFAULTS: &str = include_str!("fixtures/policies/defaults.yaml");
const MANUAL: &str = include_str!("../../../docs/policies.md");
const EVERYTHING: &str = include_str!("fixtures/policies/everything.yaml");

fn environment() -> Environment {
    Environment {
        docker_hosts: BTreeSet::from(["local".to_owned(), "staging".to_owned()]),
        secrets: Some(BTreeSet::from([
            "chat-url".to_owned(),
            "pager-key".to_owned(),
        ])),
        mail: Some(true),
    }
}

fn parse(files: &[(&str, &str)]) -> Result<PolicySet, Vec<PolicyError>> {
    PolicySet::parse(files, &environment())
}

fn good(text: &str) -> PolicySet {
    parse(&[("policies/test.yaml", text)]).unwrap_or_else(|errors| panic!("{}", reports(&errors)))
}

/// What an operator reads.
fn reports(errors: &[PolicyError]) -> String {
    let mut text = String::new();
    for error in errors {
        writeln!(text, "{}\n{}", error.one_line(), error.report(false)).unwrap();
    }
    text
}

fn alert(pairs: &[(&str, &str)]) -> Alert {
    let labels: Labels = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Alert {
        source: "alertmanager".to_owned(),
        fingerprint: Fingerprint::of(&labels),
        status: AlertStatus::Firing,
        labels,
        annotations: Labels::new(),
        starts_at: "2026-01-02T03:04:05Z".parse().unwrap(),
        ends_at: None,
        generator_url: None,
    }
}

#[test]
fn the_policy_of_the_manual_is_read() {
    let set = good(NGINX);
    let policy = set.get(&"nginx-down".parse().unwrap()).unwrap();
    insta::assert_json_snapshot!("nginx", policy.as_ref());
    assert_eq!(policy.location.to_string(), "policies/test.yaml:2:5");
}

#[test]
fn what_is_left_out_has_a_default() {
    let set = good(DEFAULTS);
    insta::assert_json_snapshot!("defaults", set.policies());
}

#[test]
fn every_key_is_read() {
    let set = good(EVERYTHING);
    insta::assert_json_snapshot!("everything", set.policies());
    assert_eq!(reports(&set.check_plugins(&Catalog)), "");
}

#[test]
fn the_examples_of_the_manual_are_read() {
    let blocks: Vec<_> = MANUAL
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        // One example has several lines for one key.
        .flat_map(|block| {
            if block.starts_with("verify:") {
                block.lines().collect()
            } else {
                vec![block]
            }
        })
        .collect();
    for key in ["verify", "grants", "steps", "guards", "escalate", "mode"] {
        let example = blocks.iter().find(|block| block.starts_with(key));
        assert!(example.is_some(), "{key}");
    }
    for block in blocks {
        let mut file = "policies:
  - name: example
    match: [a=b]
    target: docker://local/web
"
        .to_owned();
        for line in block.lines() {
            writeln!(file, "    {line}").unwrap();
        }
        if !block.contains("steps:") {
            file.push_str("    steps: [{ plugin: docker-restart }]\n");
        }
        good(&file);
    }
}

#[test]
fn a_policy_acts_only_when_it_says_so() {
    let set = good(DEFAULTS);
    let policy = set.get(&"minimal".parse().unwrap()).unwrap();
    assert_eq!(policy.mode, Mode::Shadow);
    for mode in Mode::ALL {
        let written = DEFAULTS.replace("mode: off", &format!("mode: {}", mode.as_str()));
        let set = good(&written);
        let policy = set.get(&"switched-off".parse().unwrap()).unwrap();
        assert_eq!(policy.mode, mode);
    }
}

#[test]
fn a_plan_carries_what_the_policy_says() {
    let set = good(EVERYTHING);
    let [policy, short] = set.policies() else {
        panic!("two policies")
    };
    let alert = alert(&[("alertname", "WebDown"), ("container", "web-3")]);
    let plan = policy.plan(&alert).unwrap();
    assert_eq!(plan.mode, Mode::Approve);
    assert_eq!(plan.approval.expires, Duration::from_hours(2));
    assert_eq!(plan.approval.people, 2);
    assert_eq!(plan.ttl, Duration::from_hours(7 * 24));
    assert_eq!(plan.evidence, 500);
    assert_eq!(plan.guards, policy.guards);
    // Each failure once, and in one order.
    let when = &plan.steps[1].when;
    assert_eq!(when.after, Duration::from_mins(2));
    assert_eq!(when.on, [StepFailure::Retryable, StepFailure::Unverified]);
    let escalate = plan.escalate.as_ref().unwrap();
    assert_eq!(escalate.params["playbook"], "restart-web-3.yml");
    assert_eq!(
        (escalate.timeout, escalate.attempts),
        (Duration::from_secs(30), 5)
    );
    let guards = &plan.guards;
    assert_eq!(guards.rate.unwrap().then, Excess::Drop);
    let rate = |window: &str| Rate {
        window: window.parse().unwrap(),
        then: Excess::Queue,
    };
    assert_eq!(short.guards.rate, Some(rate("6/1h")));
    assert_eq!(short.guards.breaker, Breaker::default());
    assert_eq!(short.evidence, 0);
    let radius = short.guards.blast_radius.as_ref().unwrap();
    assert_eq!(
        (radius.max, radius.of.host.as_str()),
        (Share::Count(2), "local")
    );
    // What the journal keeps of it is read as it was written.
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
}

#[test]
fn what_a_person_is_told_with_is_what_fits_the_alert() {
    let set = good(EVERYTHING);
    let plan = set.policies()[0].plan(&alert(&[("alertname", "WebDown")]));
    let left_out = plan.unwrap().escalate.unwrap().left_out.join(" ");
    assert!(left_out.contains("labels.container"), "{left_out}");
}

#[test]
fn a_plan_is_rendered_for_its_alert() {
    let set = good(NGINX);
    let [policy] = set.policies() else {
        panic!("one policy")
    };
    let alert = alert(&[
        ("alertname", "NginxDown"),
        ("severity", "page"),
        ("container", "nginx-2"),
        ("instance", "nginx:80"),
    ]);
    let target = policy.target(&alert).unwrap();
    assert_eq!(target.to_string(), "docker://local/nginx-2");
    let plan = policy.plan(&alert).unwrap();
    assert_eq!(plan.digest, policy.digest);
    assert_eq!(plan.guards.cooldown, Duration::from_mins(2));
    assert_eq!(plan.verify.every, Duration::from_millis(200));
    assert_eq!(
        plan.verify.check,
        VerifyCheck::Http {
            url: "http://nginx:80/nginx_status".to_owned(),
            foreign: true,
        }
    );
    let [restart, playbook] = plan.steps.as_slice() else {
        panic!("two steps")
    };
    assert_eq!(
        (restart.attempts, restart.timeout),
        (2, Duration::from_secs(30))
    );
    assert_eq!(restart.on_interrupt, OnInterrupt::Escalate);
    assert_eq!(playbook.on_interrupt, OnInterrupt::Rerun);
    assert_eq!(
        Value::Object(playbook.params.clone()),
        json!({
            "playbook": "restart-container.yml",
            "extra_vars": { "container": "nginx-2", "tries": 3 },
        })
    );
}

#[test]
fn what_does_not_fit_the_alert_is_an_error_and_no_plan() {
    let set = good(NGINX);
    let [policy] = set.policies() else {
        panic!("one policy")
    };
    assert_eq!(
        policy
            .plan(&alert(&[("alertname", "NginxDown")]))
            .unwrap_err()
            .to_string(),
        "the template `http://{{ labels.instance }}/nginx_status` does not fit the alert: `labels.instance` is undefined and has no default"
    );
    let evil = alert(&[
        ("instance", "user:secret@elsewhere"),
        ("container", "../prod/db"),
    ]);
    let refused = policy.plan(&evil).unwrap_err().to_string();
    assert!(refused.contains("user:secret@elsewhere"), "{refused}");
    assert!(policy.target(&evil).is_err());
}

#[test]
fn policies_that_are_off_match_nothing() {
    let set = parse(&[("a.yaml", NGINX), ("b.yaml", DEFAULTS)]).unwrap();
    assert_eq!(set.policies().len(), 3);
    let down = alert(&[("alertname", "Down")]);
    let names: Vec<_> = set
        .matching(&down.labels)
        .map(|policy| policy.name.as_str())
        .collect();
    assert_eq!(names, ["minimal"]);
    let off = set.get(&"switched-off".parse().unwrap()).unwrap();
    assert_eq!(off.mode, Mode::Off);
    assert!(off.matches(&down.labels));
    let other = alert(&[("alertname", "NginxDown"), ("severity", "info")]);
    assert_eq!(set.matching(&other.labels).count(), 0);
}

#[test]
fn a_digest_follows_the_meaning() {
    let digest = |text: &str| good(text).policies()[0].digest;
    let same = NGINX
        .replace("timeout: 30s", "timeout: 30000ms")
        .replace("mode: auto", "mode: 'auto'   # on duty")
        .replace("tries: 3", "tries: 0x3");
    assert_ne!(same, NGINX);
    assert_eq!(digest(NGINX), digest(&same));
    let other = NGINX.replace("attempts: 2", "attempts: 3");
    assert_ne!(digest(NGINX), digest(&other));
    assert_ne!(good(NGINX).digest(), good(&other).digest());
    let reordered = NGINX.replace(
        "{ container: '{{ labels.container | default(\"nginx\") }}', tries: 3 }",
        "{ tries: 3, container: '{{ labels.container | default(\"nginx\") }}' }",
    );
    assert_ne!(reordered, NGINX);
    assert_eq!(digest(NGINX), digest(&reordered));
}

#[test]
fn anchors_and_merge_keys_work() {
    let set = good(
        "policies:
  - &base
    name: one
    match: [a=b]
    target: docker://local/web
    mode: auto
    steps: &steps [{ plugin: docker-restart, params: { zero: 0755, no: no, big: 1_000 } }]
  - <<: *base
    name: two
    steps: *steps
",
    );
    let [one, two] = set.policies() else {
        panic!("two policies")
    };
    assert_eq!(one.steps, two.steps);
    assert_eq!(two.name.as_str(), "two");
    // Neither octal nor decimal, no boolean, no number: the schema will say so.
    assert_eq!(
        Value::Object(one.steps[0].params.clone()),
        json!({ "zero": "0755", "no": "no", "big": "1_000" })
    );
}

#[test]
fn an_error_in_one_file_hides_none_in_another() {
    let errors = parse(&[
        ("broken.yaml", "policies: ["),
        ("good.yaml", DEFAULTS),
        ("wrong.yaml", "policies: [{ name: minimal }]"),
    ])
    .unwrap_err();
    let files: BTreeMap<_, usize> = errors.iter().fold(BTreeMap::new(), |mut files, error| {
        *files.entry(error.file()).or_default() += 1;
        files
    });
    // Three keys are missing, and the name is taken.
    assert_eq!(
        files,
        BTreeMap::from([("broken.yaml", 1), ("wrong.yaml", 4)])
    );
}

#[test]
fn an_error_is_data_too() {
    let errors = parse(&[("a.yaml", "policies: [{ name: ä }]")]).unwrap_err();
    assert_eq!(
        serde_json::to_value(&errors[0]).unwrap(),
        json!({
            "file": "a.yaml",
            "line": 1,
            "column": 14,
            "message": errors[0].message(),
            "help": errors[0].help(),
        })
    );
}

#[test]
fn mail_is_granted_only_where_it_can_be_sent() {
    let text = "policies: [{ name: a, match: [a=b], target: docker://local/web, mode: auto, steps: [{ plugin: a }], grants: { mail: ['*@ops.example.com'] } }]";
    let parse = |mail| {
        let environment = Environment {
            mail,
            ..environment()
        };
        PolicySet::parse(&[("policies/test.yaml", text)], &environment)
    };
    assert!(parse(Some(true)).is_ok() && parse(None).is_ok());
    let errors = parse(Some(false)).unwrap_err();
    assert!(errors[0].message().contains("no server to send it by"));
    assert!(errors[0].help().unwrap().contains("mail: { server:"));
}

/// Four plugins, one of them with a schema of its own.
struct Catalog;

impl PluginCatalog for Catalog {
    fn serves(&self, name: &PluginName) -> Option<Digest> {
        let known = self.names().iter().any(|known| known == name.as_str());
        known.then(|| Digest::of(b"serves"))
    }

    fn plugin(&self, plugin: &PluginRef) -> Option<PluginFacts> {
        if !plugin.takes(&Digest::of(b"serves")) && !plugin.takes(&Digest::of(b"kept")) {
            return None;
        }
        let imports = match plugin.name.as_str() {
            "docker-restart" => vec![
                Import::Docker(DockerAction::Inspect),
                Import::Docker(DockerAction::Restart),
                Import::Docker(DockerAction::Start),
            ],
            "ansible-playbook" => vec![Import::Ansible],
            "notify" => vec![Import::Http, Import::Memory],
            "notify-email" => vec![Import::Mail],
            _ => return None,
        };
        Some(PluginFacts {
            imports: imports.into_iter().collect(),
        })
    }

    fn why_not(&self, pin: &Digest) -> Option<String> {
        (*pin == Digest::of(b"bad")).then(|| "was rolled back: it is slow".to_owned())
    }

    fn names(&self) -> Vec<String> {
        [
            "ansible-playbook",
            "docker-restart",
            "notify",
            "notify-email",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn validate_params(&self, plugin: &PluginRef, params: &Value) -> Vec<ParamError> {
        let mut errors = Vec::new();
        let mut error = |path: &str, keyword: &str, message: &str| {
            errors.push(ParamError {
                path: path.to_owned(),
                keyword: keyword.to_owned(),
                message: message.to_owned(),
            });
        };
        if plugin.name.as_str() != "ansible-playbook" {
            return Vec::new();
        }
        match params.get("playbook") {
            None => error("", "required", "\"playbook\" is a required property"),
            Some(Value::String(text)) if text.starts_with("re") => {}
            Some(Value::String(_)) => error("/playbook", "pattern", "it does not begin with re"),
            Some(_) => error("/playbook", "type", "5 is not of type \"string\""),
        }
        if params.get("limits").is_some() {
            error("", "additionalProperties", "'limits' was unexpected");
        }
        if params
            .pointer("/options/forks")
            .is_some_and(Value::is_string)
        {
            error("/options/forks", "type", "it is not of type \"integer\"");
        }
        if params
            .pointer("/options/check")
            .is_some_and(Value::is_string)
        {
            error(
                "/options/check",
                "type",
                "\"maybe\" is not of type \"boolean\"",
            );
        }
        errors
    }
}

#[test]
fn policies_are_held_against_the_plugins() {
    let text = include_str!("fixtures/mistakes/plugins.yaml");
    let set = parse(&[("policies/plugins.yaml", text)]).unwrap();
    insta::assert_snapshot!("plugins", reports(&set.check_plugins(&Catalog)));
}

#[test]
fn pins_are_held_against_the_versions() {
    let text = include_str!("fixtures/mistakes/pinned.yaml");
    let set = parse(&[("policies/pinned.yaml", text)]).unwrap();
    insta::assert_snapshot!("pinned", reports(&set.check_plugins(&Catalog)));
}

#[test]
fn what_the_plugins_take_and_the_policy_grants_is_no_error() {
    let set = good(NGINX);
    assert_eq!(reports(&set.check_plugins(&Catalog)), "");
}

macro_rules! mistakes {
    ($($test:ident: $file:literal,)*) => {$(
        #[test]
        fn $test() {
            let text = include_str!(concat!("fixtures/mistakes/", $file, ".yaml"));
            let name = concat!("policies/", $file, ".yaml");
            let errors = parse(&[("policies/defaults.yaml", DEFAULTS), (name, text)]).unwrap_err();
            insta::assert_snapshot!($file, reports(&errors));
        }
    )*};
}

mistakes! {
    syntax: "syntax",
    indentation: "indentation",
    empty: "empty",
    two_documents: "two-documents",
    no_policies: "no-policies",
    alias_bomb: "alias-bomb",
    unknown_key: "unknown-key",
    duplicate_key: "duplicate-key",
    missing_keys: "missing-keys",
    wrong_types: "wrong-types",
    names: "names",
    pins: "pins",
    matchers: "matchers",
    templates: "templates",
    targets: "targets",
    modes: "modes",
    durations: "durations",
    steps: "steps",
    verify: "verify",
    memory_grant: "memory-grant",
    grants: "grants",
    duplicate_policies: "duplicate-policies",
    approval: "approval",
    waiting: "waiting",
    conditions: "conditions",
    escalate: "escalate",
    guards: "guards",
    blast_radius: "blast-radius",
    maintenance: "maintenance",
}

#[test]
fn quotes_that_are_part_of_a_matcher_are_noted_and_no_mistake() {
    let text = r#"
policies:
  - name: quoted
    match: ["alertname='A'", '{severity=~"critical", team!="\"x\""}', 'host=“web”']
    target: docker://local/web
    steps: [{ plugin: docker-restart }]
  - name: plain
    match: ['alertname="A"', job=web, "instance=\"web1\""]
    target: docker://local/web
    steps: [{ plugin: docker-restart }]
"#;
    let set = good(text);
    assert_eq!(set.policies().len(), 2);
    insta::assert_snapshot!("quotes", reports(set.notes()));
    assert!(good(NGINX).notes().is_empty());
}

fn any_durations(range: std::ops::RangeInclusive<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_secs)
}

fn any_windows() -> impl Strategy<Value = Window> {
    (1..=10_000_u32, any_durations(1..=30 * 86_400)).prop_map(|(max, per)| Window { max, per })
}

fn any_maintenance() -> impl Strategy<Value = Maintenance> {
    let days = proptest::sample::subsequence(Day::ALL.to_vec(), 0..=7);
    let zones = proptest::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York"]);
    let time = || (0..24_i8, 0..60_i8, 0..60_i8);
    let clock = |(h, m, s)| Moment::Clock(jiff::civil::time(h, m, s, 0));
    let moment = |second| Moment::Once(jiff::Timestamp::from_second(second).unwrap());
    prop_oneof![
        (days, time(), time(), zones).prop_map(move |(days, from, to, zone)| {
            Maintenance::new(&days, clock(from), clock(to), Some(zone)).unwrap()
        }),
        (0..4_000_000_000_i64, 1..100_000_000_i64).prop_map(move |(from, length)| {
            Maintenance::new(&[], moment(from), moment(from + length), None).unwrap()
        }),
    ]
}

fn any_blast_radii() -> impl Strategy<Value = BlastRadius> {
    let share = prop_oneof![
        (1..=10_000_u32).prop_map(Share::Count),
        (1..=100_u8).prop_map(Share::Percent),
    ];
    let labels =
        proptest::collection::btree_map("[a-z][a-z.-]{0,9}", "[a-zä0-9 :{}'#%-]{0,9}", 1..4);
    let host = proptest::sample::select(vec!["local", "staging"]);
    (share, host, labels, any_durations(1..=86_400)).prop_map(|(max, host, labels, calm)| {
        let host = host.to_owned();
        let of = Fleet { host, labels };
        BlastRadius { max, of, calm }
    })
}

fn any_guards() -> impl Strategy<Value = Guards> {
    let excess = prop_oneof![Just(Excess::Queue), Just(Excess::Drop)];
    let rate = (any_windows(), excess).prop_map(|(window, then)| Rate { window, then });
    let breaker = (1..=100_u32, any_durations(1..=30 * 86_400))
        .prop_map(|(failures, open_for)| Breaker { failures, open_for });
    (
        any_durations(1..=30 * 86_400),
        proptest::option::of(rate),
        proptest::option::of(any_windows()),
        breaker,
        1..=64_u32,
        proptest::option::of(any_blast_radii()),
        proptest::collection::vec(any_maintenance(), 0..3),
    )
        .prop_map(
            |(cooldown, rate, flapping, breaker, concurrency, blast_radius, maintenance)| Guards {
                cooldown,
                rate,
                flapping,
                breaker,
                concurrency,
                blast_radius,
                maintenance,
            },
        )
}

proptest::proptest! {
    /// What a policy's JSON says of its guards means the same in a policy file.
    #[test]
    fn guards_are_printed_as_they_are_written(guards in any_guards()) {
        let mut policy = good(DEFAULTS).policies()[0].as_ref().clone();
        policy.guards = guards.clone();
        let json = serde_json::to_value(&policy).unwrap();
        let file = json!({ "policies": [{
            "name": "again",
            "match": ["a=b"],
            "target": "docker://local/web",
            "steps": [{ "plugin": "docker-restart" }],
            "guards": json["guards"],
        }] });
        let again = good(&file.to_string());
        proptest::prop_assert_eq!(&again.policies()[0].guards, &guards);
        // And the journal's form of them is read again too.
        let journaled = serde_json::to_string(&guards).unwrap();
        proptest::prop_assert_eq!(serde_json::from_str::<Guards>(&journaled).unwrap(), guards);
    }

    /// Whatever stands in a file, reading it ends, and every error has a place in it.
    #[test]
    fn any_text_is_read_or_refused(
        text in "(policies|name|match|a|nginx|&x|\\*x|<<|[-:,'\"{}\\[\\]#|>?! \n]|  ){0,40}"
    ) {
        if let Err(errors) = parse(&[("a.yaml", &text)]) {
            proptest::prop_assert!(!errors.is_empty());
            for error in errors {
                proptest::prop_assert!(error.line() >= 1 && error.column() >= 1);
                proptest::prop_assert!(error.report(false).contains(error.message().split(' ').next().unwrap()));
            }
        }
    }

    /// A good file with a piece cut out of it is read or refused, and never panics.
    #[test]
    fn a_torn_file_is_read_or_refused(from in 0..NGINX.len(), length in 0..200_usize) {
        let to = (from + length).min(NGINX.len());
        let torn = format!("{}{}", &NGINX[..from], &NGINX[to..]);
        if let Err(errors) = parse(&[("a.yaml", &torn)]) {
            proptest::prop_assert!(!errors.is_empty());
        }
    }
}

#[test]
fn what_is_wrong_with_a_file_as_yaml_is_told_with_its_place() {
    let mut bomb = "a: &a [x, x, x]\n".to_owned();
    for (before, c) in ('a'..='g').zip('b'..='h') {
        let aliases = format!("*{before}, ").repeat(9);
        writeln!(bomb, "{c}: &{c} [{aliases}]").unwrap();
    }
    for (text, (line, column), message, help) in [
        (
            "a: 1\na: 2\n",
            (2, 1),
            "duplicate key `a`",
            "stands at 1:1 already",
        ),
        (
            "a:\n  - { b: 1, b: 2 }\n",
            (2, 13),
            "duplicate key `b`",
            "stands at 2:7 already",
        ),
        (
            "\u{feff}a: 1\r\nb: 2\r\na: 3\r\n",
            (3, 1),
            "duplicate key `a`",
            "1:1 already",
        ),
        (
            "a: 1\n---\nb: 2\n",
            (3, 1),
            "more than one document",
            "remove the line `---`",
        ),
        (
            "---\n---\nb: 2\n",
            (3, 1),
            "more than one document",
            "remove the line `---`",
        ),
        ("a:\n\tb: 1\n", (2, 2), "tab", "indentation"),
        ("a: { b: 1\n", (1, 4), "unclosed bracket", "brackets"),
        ("a: 'b\n", (1, 4), "unclosed quote", "quotes"),
        (
            "a: *b\n",
            (1, 4),
            "no `&` mark of this name",
            "has to be quoted",
        ),
        (&bomb, (8, 1), "unfold to too much", "fewer aliases"),
        (
            "? [a]\n: b\n",
            (1, 3),
            "expected a text as key, found a list",
            "`log:`",
        ),
    ] {
        let error = sentinel_core::policy::check_yaml("sentinel.yaml", text).unwrap_err();
        assert!(error.message().contains(message), "{text}: {error}");
        assert!(error.help().unwrap().contains(help), "{text}: {error:?}");
        if text != bomb {
            assert_eq!(
                (error.line(), error.column()),
                (line, column),
                "{text}: {error}"
            );
        }
    }
    for text in [
        "",
        "# nothing\n",
        "\u{feff}",
        "---\na: 1\n...\n",
        "\u{feff}a: 1\r\nb: [1, 2]\r\n",
        "a: &a { b: 1 }\nc: { <<: *a, b: 2 }\n",
        "1: a\ntrue: b\n",
    ] {
        let checked = sentinel_core::policy::check_yaml("sentinel.yaml", text);
        assert!(checked.is_ok(), "{text:?}: {checked:?}");
    }
}
