//! Policy files as operators write them, right and wrong.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers may panic like the test itself"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use sentinel_core::alert::{Alert, AlertStatus, Fingerprint, Labels};
use sentinel_core::capability::DockerAction;
use sentinel_core::grant::Import;
use sentinel_core::id::PluginName;
use sentinel_core::incident::{OnInterrupt, VerifyCheck};
use sentinel_core::policy::{
    Environment, Mode, ParamError, PluginCatalog, PluginFacts, PolicyError, PolicySet,
};
use serde_json::{Value, json};

const NGINX: &str = include_str!("fixtures/policies/nginx.yaml");
const DEFAULTS: &str = include_str!("fixtures/policies/defaults.yaml");

fn environment() -> Environment {
    Environment {
        docker_hosts: BTreeSet::from(["local".to_owned(), "staging".to_owned()]),
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
            url: "http://nginx:80/nginx_status".to_owned()
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
    assert!(
        policy
            .plan(&evil)
            .unwrap_err()
            .to_string()
            .contains("a user or a password")
    );
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
    // Four keys are missing, and the name is taken.
    assert_eq!(
        files,
        BTreeMap::from([("broken.yaml", 1), ("wrong.yaml", 5)])
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

/// Three plugins, one of them with a schema of its own.
struct Catalog;

impl PluginCatalog for Catalog {
    fn plugin(&self, name: &PluginName) -> Option<PluginFacts> {
        let imports = match name.as_str() {
            "docker-restart" => vec![
                Import::Docker(DockerAction::Inspect),
                Import::Docker(DockerAction::Restart),
                Import::Docker(DockerAction::Start),
            ],
            "ansible-playbook" => vec![Import::Ansible],
            "notify" => vec![Import::Http, Import::Memory],
            _ => return None,
        };
        Some(PluginFacts {
            imports: imports.into_iter().collect(),
        })
    }

    fn names(&self) -> Vec<String> {
        ["ansible-playbook", "docker-restart", "notify"]
            .map(str::to_owned)
            .to_vec()
    }

    fn validate_params(&self, name: &PluginName, params: &Value) -> Vec<ParamError> {
        let mut errors = Vec::new();
        let mut error = |path: &str, keyword: &str, message: &str| {
            errors.push(ParamError {
                path: path.to_owned(),
                keyword: keyword.to_owned(),
                message: message.to_owned(),
            });
        };
        if name.as_str() != "ansible-playbook" {
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
    matchers: "matchers",
    templates: "templates",
    targets: "targets",
    modes: "modes",
    durations: "durations",
    steps: "steps",
    verify: "verify",
    not_in_this_version: "not-in-this-version",
    grants: "grants",
    duplicate_policies: "duplicate-policies",
}

proptest::proptest! {
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
