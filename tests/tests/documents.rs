//! What the pages show is what works: their policies load, their configurations are read, and
//! Alertmanager takes what is to be written into its file.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Output;

use sentinel_tests::containers::docker_ok;
use sentinel_tests::daemon::Daemon;

const PAGES: [&str; 3] = ["README.md", "docs/notify.md", "docs/configuration.md"];

/// The built-in plugins.
const PLUGINS: [&str; 4] = [
    "docker-restart",
    "ansible-playbook",
    "notify",
    "notify-email",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The examples in YAML of a page.
fn examples(page: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    text.split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap().to_owned())
        .collect()
}

/// The keys at the margin.
fn keys(example: &str) -> Vec<&str> {
    let at_margin = |line: &&str| line.starts_with(|c: char| c.is_ascii_lowercase());
    let lines = example.lines().filter(at_margin);
    lines
        .filter_map(|line| Some(line.split_once(':')?.0))
        .collect()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A policy around keys of one, which also restarts its target.
fn around(example: &str) -> String {
    const DOCKER: &str = "docker: { containers: ['nginx'], actions: [inspect, restart, start] }";
    let mut policy = "policies:
  - name: example
    match: [a=b]
    target: docker://local/nginx
    steps: [{ plugin: docker-restart }]
"
    .to_owned();
    let granted = example.contains("docker:");
    for line in example.lines() {
        let line = match line.strip_prefix("grants: {") {
            Some(rest) if !granted => format!("grants: {{ {DOCKER},{rest}"),
            _ => line.to_owned(),
        };
        writeln!(policy, "    {line}").unwrap();
    }
    policy
}

#[test]
fn what_the_pages_show_is_taken() {
    let mut taken = 0;
    for page in PAGES {
        for example in examples(page) {
            let keys = keys(&example);
            let policy = match keys.first() {
                Some(&"policies") => example.clone(),
                Some(&("grants" | "escalate")) => around(&example),
                _ => String::new(),
            };
            // Keys and certificates are of the operator's own making.
            if keys == ["receivers"] || keys.contains(&"route") || example.contains("tls: {") {
                continue;
            }
            let daemon = Daemon::prepare(&PLUGINS, &policy);
            let secrets = "http: { secrets: { chat-url: { env: PATH }, pager-key: { env: PATH }, smtp: { env: PATH } } }\n";
            if keys.contains(&"listen") {
                fs::write(daemon.path("sentinel.yaml"), &example).unwrap();
            } else if policy.is_empty() {
                daemon.write_config(&example);
            } else {
                let mail = "mail: { server: localhost, from: a@example.com, security: none }\n";
                daemon.write_config(&format!("{secrets}{mail}"));
            }
            let output = daemon.command(&["check"]).output().unwrap();
            assert!(
                output.status.success(),
                "{page}:\n{example}\n{policy}\n{}",
                text(&output)
            );
            taken += 1;
        }
    }
    assert!(taken >= 8, "{taken} examples were found");
}

#[test]
fn alertmanager_takes_its_file_as_the_readme_has_it() {
    let example = examples("README.md")
        .into_iter()
        .find(|example| example.contains("receivers:"))
        .expect("a file of Alertmanager's");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alertmanager.yml");
    fs::write(&file, &example).unwrap();
    let said = docker_ok(&[
        "run",
        "--rm",
        "--network=none",
        "--label=infra-sentinel-test=documents",
        &format!("--volume={}:/tmp/alertmanager.yml:ro", file.display()),
        "--entrypoint=/bin/amtool",
        "prom/alertmanager:v0.28.1",
        "check-config",
        "/tmp/alertmanager.yml",
    ]);
    assert!(said.contains("SUCCESS"), "{said}");
}
