//! What the pages show is what works: their policies load, their configurations are read, their commands exist, and
//! Alertmanager takes what is to be written into its file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use sentinel_tests::containers::docker_ok;
use sentinel_tests::daemon::{Daemon, said};
use sentinel_tests::wat::{CORE, Core};

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

/// The pages whose policies are shown part by part.
const PARTS: [&str; 2] = ["docs/policies.md", "docs/plugins.md"];

/// What a policy has for each key that a page does not show.
const POLICY: [(&str, &str); 4] = [
    ("match", "[a=b]"),
    ("target", "docker://local/web"),
    (
        "steps",
        "[{ plugin: hostile, params: { behaviour: changed } }]",
    ),
    (
        "grants",
        "{ docker: { containers: ['web*'], actions: [inspect, restart, start, list, logs] }, ansible: { playbooks: ['*'] }, http: { urls: ['https://hooks.slack.com/services/**'], methods: [POST], secrets: ['chat-*'] } }",
    ),
];

/// The policies that a part of one stands for: each key once.
fn completed(part: &str) -> Vec<String> {
    let mut parts: Vec<Vec<&str>> = Vec::new();
    for line in part.lines() {
        match parts.last_mut() {
            Some(part) if line.starts_with([' ', '#']) => part.push(line),
            _ => parts.push(vec![line]),
        }
    }
    let of = |part: &[&str]| part[0].split(':').next().unwrap().to_owned();
    let names: BTreeSet<_> = parts.iter().map(|part| of(part)).collect();
    // Alternatives stand below each other with the same key.
    let shown: Vec<Vec<Vec<&str>>> = if names.len() == parts.len() {
        vec![parts]
    } else {
        parts.into_iter().map(|part| vec![part]).collect()
    };
    let policy = |shown: Vec<Vec<&str>>| {
        let names: Vec<_> = shown.iter().map(|part| of(part)).collect();
        let mut text = "policies:\n  - name: example\n".to_owned();
        for (key, value) in POLICY {
            if !names.iter().any(|name| name == key) {
                writeln!(text, "    {key}: {value}").unwrap();
            }
        }
        for line in shown.concat() {
            writeln!(text, "    {line}").unwrap();
        }
        text
    };
    shown.into_iter().map(policy).collect()
}

#[test]
fn what_the_pages_show_of_policies_is_taken() {
    let mut taken = BTreeMap::new();
    for page in PARTS {
        for example in examples(page) {
            let keys = keys(&example);
            let policies = match keys.first() {
                Some(&"policies") => vec![example.clone()],
                // The file of a project, and a case of it: `toolchains.rs` builds and runs such.
                Some(&("name" | "alert")) => continue,
                _ => completed(&example),
            };
            for policy in policies {
                // No plugin here has that digest: what is said must be that, and nothing else.
                let pinned = policy.contains("@sha256:");
                let mut plugins = vec!["hostile", "docker-restart", "ansible-playbook", "notify"];
                plugins.retain(|plugin| policy.contains(&format!("plugin: {plugin}")));
                let daemon = Daemon::prepare(&plugins, &policy);
                let unfreeze = Core {
                    name: "unfreeze",
                    ..CORE
                };
                daemon.install_bytes("unfreeze.wasm", &unfreeze.quiet());
                daemon.write_config(
                    "http: { secrets: { chat-url: { env: PATH } } }\nmail: { server: localhost, from: a@example.com, security: none }\n",
                );
                let output = daemon.command(&["check"]).output().unwrap();
                let said = text(&output);
                let good = if pinned {
                    !output.status.success()
                        && said.contains("sha256:265652447a2e")
                        && said.contains("1 problem")
                } else {
                    output.status.success()
                };
                assert!(good, "{page}:\n{policy}\n{said}");
                *taken.entry(page).or_insert(0) += 1;
            }
        }
    }
    assert!(
        taken["docs/policies.md"] >= 10 && taken["docs/plugins.md"] >= 1,
        "{taken:?}"
    );
}

#[test]
fn the_policy_test_that_its_page_shows_passes() {
    let page = examples("docs/policy-tests.md");
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, keys: &str| {
        let example = page.iter().find(|example| example.contains(keys)).unwrap();
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, example).unwrap();
        example.clone()
    };
    write("policies/web.yaml", "match:");
    let suite = write("tests/web.yaml", "tests:\n");
    let test = || said(sentinel(&["policy", "test", "tests/web.yaml"]).current_dir(folder.path()));
    let passed = test();
    assert_eq!(passed.code, 0, "{}{}", passed.out, passed.err);
    for test in suite
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- name: "))
    {
        assert!(passed.out.contains(test), "{test}: {}", passed.out);
    }
    // And fails as the page says when something else is expected.
    let wrong = suite.replace("until: 2m1s }", "until: 5m }");
    assert_ne!(wrong, suite);
    fs::write(folder.path().join("tests/web.yaml"), wrong).unwrap();
    let failed = test();
    assert_eq!(failed.code, 1, "{}{}", failed.out, failed.err);
    for line in [
        "-  30s      held: cooldown, until: 5m",
        "+  30s      held: cooldown, until: 2m1s",
    ] {
        assert!(failed.out.contains(line), "{line}: {}", failed.out);
    }
}

/// The command, without anything of the machine's.
fn sentinel(args: &[&str]) -> Command {
    let mut command = Command::new(sentinel_tests::built(
        "SENTINEL_BIN",
        "target/release/sentinel",
    ));
    command
        .args(args)
        .env_remove("SENTINEL_CONFIG")
        .stdin(Stdio::null());
    command
}

/// What `--help` says of a command, by its words.
fn help(words: &[&str]) -> Option<String> {
    let output = sentinel(words).arg("--help").output().unwrap();
    output.status.success().then(|| text(&output))
}

/// The options that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '-'));
    let options = words.filter(|word| word.starts_with("--") && word.len() > 3);
    options.map(ToOwned::to_owned).collect()
}

/// The options that a help is about: each has a line that begins with it.
fn defined(help: &str) -> BTreeSet<String> {
    let lines = help.lines().map(str::trim_start);
    let begin = |line: &&str| line.starts_with('-');
    lines
        .filter(begin)
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with("--")))
        .flat_map(named)
        .collect()
}

/// Every command line of `sentinel` that a text shows.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let text = text.replace("\\|", "|").replace("\\\n", " ");
    let quoted = text.split('`').skip(1).step_by(2).map(str::to_owned);
    let typed = text
        .lines()
        .filter_map(|line| line.strip_prefix("$ "))
        .map(str::to_owned);
    for line in quoted.chain(typed) {
        if line.starts_with("sentinel ") && !line.contains('\n') {
            found.push(line.split(" # ").next().unwrap().trim().to_owned());
        }
    }
    found
}

/// Holds a command line against the help of the command that it calls.
fn check_command(line: &str) -> Result<(), String> {
    let is_word = |word: &&str| {
        word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-')
    };
    let words: Vec<_> = line
        .split_whitespace()
        .skip(1)
        .take_while(is_word)
        .collect();
    let help = help(&words).ok_or_else(|| format!("`{line}`: there is no such command"))?;
    let unknown: Vec<_> = named(line).difference(&defined(&help)).cloned().collect();
    if unknown.is_empty() {
        Ok(())
    } else {
        Err(format!("`{line}`: there is no {}", unknown.join(", ")))
    }
}

#[test]
fn every_command_that_the_pages_show_is_there_with_its_options() {
    let mut pages = vec![
        "README.md".to_owned(),
        "ARCHITECTURE.md".to_owned(),
        "SECURITY.md".to_owned(),
    ];
    for page in fs::read_dir(root().join("docs")).unwrap() {
        pages.push(format!("docs/{}", page.unwrap().file_name().display()));
    }
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for page in pages {
        for line in commands(&fs::read_to_string(root().join(&page)).unwrap()) {
            if seen.insert(line.clone())
                && let Err(error) = check_command(&line)
            {
                wrong.push(format!("{page}: {error}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen.len() >= 45, "{} commands are shown", seen.len());
}

#[test]
fn every_help_speaks_of_options_that_are_there() {
    // Down from the top, by the commands that each help lists.
    let mut helps: Vec<(Vec<String>, String)> = Vec::new();
    let mut open = vec![Vec::new()];
    while let Some(words) = open.pop() {
        let arguments: Vec<_> = words.iter().map(String::as_str).collect();
        let help = help(&arguments).unwrap_or_else(|| panic!("{words:?} has no help"));
        let listed = help.split("\nCommands:\n").nth(1).unwrap_or_default();
        for line in listed.lines().take_while(|line| line.starts_with("  ")) {
            let word = line.split_whitespace().next().unwrap_or_default();
            // Others are lines that go on.
            if line.starts_with("  ") && !line.starts_with("   ") && word != "help" {
                let mut below = words.clone();
                below.push(word.to_owned());
                open.push(below);
            }
        }
        helps.push((words, help));
    }
    assert!(helps.len() > 25, "{} commands", helps.len());
    let mut wrong = Vec::new();
    let all: BTreeSet<_> = helps.iter().flat_map(|(_, help)| defined(help)).collect();
    for (words, help) in &helps {
        for option in named(help).difference(&all) {
            wrong.push(format!("{}: {option}", words.join(" ")));
        }
        for line in commands(help) {
            wrong.extend(check_command(&line).err());
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
