//! The ansible driver with a real `ansible-playbook`.
//!
//! Needs ansible-core (`apt-get install ansible-core`). Playbooks run on this machine
//! alone, in folders of their own.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what helps tests may assume what tests may"
)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sentinel_core::capability::{
    AnsibleRequest, CapabilityError, HostRecap, PlaybookReport, TaskStatus,
};
use sentinel_core::grant::Glob;
use sentinel_drivers::ansible::{Ansible, AnsibleCheckError, AnsibleConfig, InventorySource};
use sentinel_sandbox::driver::{AnsibleDriver, PlaybookScope};
use serde_json::{Map, Value, json};

const TIMEOUT: Duration = Duration::from_mins(2);

/// A playbooks folder of one test, and what runs it.
struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(site.playbooks()).unwrap();
        site
    }

    /// With a playbook `main.yml` of these tasks on this machine.
    fn with(tasks: &str) -> Self {
        let site = Self::new();
        site.playbook("main.yml", "localhost", tasks);
        site
    }

    fn playbooks(&self) -> PathBuf {
        self.folder.path().join("playbooks")
    }

    fn work_dir(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    fn playbook(&self, name: &str, hosts: &str, tasks: &str) {
        let mut text = format!("- hosts: {hosts}\n  gather_facts: false\n  tasks:\n");
        for line in tasks.lines() {
            text.push_str("    ");
            text.push_str(line);
            text.push('\n');
        }
        fs::write(self.playbooks().join(name), text).unwrap();
    }

    fn config(&self) -> AnsibleConfig {
        AnsibleConfig::new(self.playbooks(), self.work_dir())
    }

    fn ansible(&self) -> Ansible {
        Ansible::new(self.config())
    }

    async fn run(&self, request: &AnsibleRequest) -> Result<PlaybookReport, CapabilityError> {
        self.ansible().run(request, &NOTHING, TIMEOUT).await
    }

    /// What of runs is left on disk.
    fn left(&self) -> Vec<PathBuf> {
        fs::read_dir(self.work_dir())
            .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
            .unwrap_or_default()
    }
}

/// What holds a playbook to nothing.
static NOTHING: PlaybookScope = PlaybookScope {
    incident: None,
    hosts: Vec::new(),
    digest: None,
};

/// The oldest Ansible that is served, Debian's, and the newest that this machine's Python
/// can run.
fn ansibles() -> [PathBuf; 2] {
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"),
        PathBuf::from,
    );
    let newest = cache.join("infra-sentinel/toolchains/ansible/bin/ansible-playbook");
    assert!(
        newest.exists(),
        "{} is not there: run stack/setup/toolchains.sh ansible",
        newest.display()
    );
    [PathBuf::from("ansible-playbook"), newest]
}

fn request() -> AnsibleRequest {
    AnsibleRequest {
        playbook: "main.yml".to_owned(),
        extra_vars: Map::new(),
        limit: None,
        tags: Vec::new(),
        timeout_ms: None,
    }
}

fn named(playbook: &str) -> AnsibleRequest {
    AnsibleRequest {
        playbook: playbook.to_owned(),
        ..request()
    }
}

fn with_vars(vars: Value) -> AnsibleRequest {
    let Value::Object(extra_vars) = vars else {
        panic!("{vars}")
    };
    AnsibleRequest {
        extra_vars,
        ..request()
    }
}

fn failed<T: std::fmt::Debug>(answer: Result<T, CapabilityError>) -> String {
    match answer {
        Err(CapabilityError::Failed(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn invalid<T: std::fmt::Debug>(answer: Result<T, CapabilityError>) -> String {
    match answer {
        Err(CapabilityError::Invalid(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn unavailable<T: std::fmt::Debug>(answer: Result<T, CapabilityError>) -> String {
    match answer {
        Err(CapabilityError::Unavailable(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// A number of seconds that nobody else sleeps, so that the process can be found.
fn odd_sleep() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}.{count}", 1_000_000 + std::process::id())
}

/// The command lines of all processes that hold `text`, but for ended ones.
fn processes(text: &str) -> Vec<String> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(text))
        .collect()
}

async fn wait_until(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(30), "not {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn statuses(report: &PlaybookReport) -> Vec<(&str, TaskStatus)> {
    report
        .tasks
        .iter()
        .map(|task| (task.task.as_str(), task.status))
        .collect()
}

#[tokio::test]
async fn a_playbook_that_goes_well_is_recapped() {
    let site = Site::with(
        "- {name: look, command: 'true', changed_when: false}\n\
         - {name: touch, command: 'true'}\n\
         - {name: not now, command: 'true', when: false}\n\
         - {name: say, debug: {msg: 'hello {{ who }}'}}\n",
    );
    let report = site.run(&with_vars(json!({"who": "wörld"}))).await.unwrap();
    assert_eq!(report.exit_code, 0);
    let expected = HostRecap {
        ok: 3,
        changed: 1,
        skipped: 1,
        ..HostRecap::default()
    };
    assert_eq!(report.hosts.len(), 1);
    assert_eq!(report.hosts["localhost"], expected);
    assert_eq!(
        statuses(&report),
        [
            ("look", TaskStatus::Ok),
            ("touch", TaskStatus::Changed),
            ("not now", TaskStatus::Skipped),
            ("say", TaskStatus::Ok),
        ]
    );
    assert_eq!(report.tasks[3].message, "hello wörld");
    assert_eq!(report.tasks[3].host, "localhost");
    assert!(report.output.contains("PLAY RECAP"), "{}", report.output);
    assert!(!report.output.contains('\u{1b}'), "no colours");
    assert!(report.duration_ms > 0);
    assert_eq!(site.left(), [""; 0].map(PathBuf::from));
}

#[tokio::test]
async fn a_playbook_that_fails_is_a_report() {
    let site = Site::with(
        "- {name: shrug, command: 'false', ignore_errors: true}\n\
         - name: try\n\
         \x20 block:\n\
         \x20   - {name: attempt, command: 'false'}\n\
         \x20 rescue:\n\
         \x20   - {name: recover, debug: {msg: ok}}\n\
         - {name: break, shell: 'echo it hurts >&2; exit 3'}\n\
         - {name: never, command: 'true'}\n",
    );
    let report = site.run(&request()).await.unwrap();
    assert_eq!(report.exit_code, 2);
    let recap = &report.hosts["localhost"];
    assert_eq!((recap.failed, recap.ignored, recap.rescued), (1, 1, 1));
    assert_eq!(
        statuses(&report),
        [
            ("shrug", TaskStatus::Ignored),
            ("attempt", TaskStatus::Failed),
            ("recover", TaskStatus::Ok),
            ("break", TaskStatus::Failed),
        ]
    );
    assert_eq!(report.tasks[3].message, "non-zero return code\nit hurts");
}

#[tokio::test]
async fn of_a_loop_the_failed_items_are_told() {
    let site = Site::with(
        "- name: loop\n\
         \x20 fail: {msg: 'no {{ item }}'}\n\
         \x20 when: item != 'b'\n\
         \x20 loop: [a, b, c]\n",
    );
    let report = site.run(&request()).await.unwrap();
    assert_eq!(statuses(&report), [("loop", TaskStatus::Failed)]);
    let message = &report.tasks[0].message;
    assert!(
        message.contains("no a") && message.contains("no c"),
        "{message}"
    );
}

#[tokio::test]
async fn a_host_that_cannot_be_reached_is_told() {
    let site = Site::new();
    site.playbook("main.yml", "all", "- {name: look, command: 'true'}\n");
    let inventory = site.folder.path().join("hosts");
    fs::write(
        &inventory,
        "here ansible_connection=local ansible_python_interpreter=/usr/bin/python3\n\
         gone ansible_connection=ssh ansible_host=127.0.0.1 ansible_port=1\n",
    )
    .unwrap();
    let ansible = Ansible::new(AnsibleConfig {
        inventory: vec![InventorySource::Path(inventory)],
        ..site.config()
    });
    ansible.check().await.unwrap();
    let report = ansible.run(&request(), &NOTHING, TIMEOUT).await.unwrap();
    assert_eq!(report.exit_code, 4);
    assert_eq!(report.hosts["gone"].unreachable, 1);
    assert_eq!(report.hosts["here"].changed, 1);
    let gone = report
        .tasks
        .iter()
        .find(|task| task.host == "gone")
        .unwrap();
    assert_eq!(gone.status, TaskStatus::Unreachable);

    let limited = AnsibleRequest {
        limit: Some("here".to_owned()),
        ..request()
    };
    let report = ansible.run(&limited, &NOTHING, TIMEOUT).await.unwrap();
    assert_eq!(report.exit_code, 0);
    assert_eq!(report.hosts.keys().collect::<Vec<_>>(), ["here"]);

    // Nobody of that name: it must not run on all.
    let limited = AnsibleRequest {
        limit: Some("nobody".to_owned()),
        ..request()
    };
    let text = failed(ansible.run(&limited, &NOTHING, TIMEOUT).await);
    assert!(text.contains("no hosts to target"), "{text}");
}

#[tokio::test]
async fn tags_choose_tasks() {
    let site = Site::with(
        "- {name: one, command: 'true', tags: [a]}\n\
         - {name: two, command: 'true', tags: [b]}\n\
         - {name: three, command: 'true', tags: [c]}\n",
    );
    let tagged = AnsibleRequest {
        tags: vec!["a".to_owned(), "c".to_owned()],
        ..request()
    };
    let report = site.run(&tagged).await.unwrap();
    assert_eq!(
        statuses(&report),
        [("one", TaskStatus::Changed), ("three", TaskStatus::Changed)]
    );
}

#[tokio::test]
async fn what_must_not_be_logged_is_nowhere() {
    let site = Site::with(
        "- name: login\n\
         \x20 shell: 'echo {{ password }}; echo {{ password }} >&2; exit 1'\n\
         \x20 no_log: true\n\
         \x20 ignore_errors: true\n\
         - name: items\n\
         \x20 debug: {msg: '{{ item }}'}\n\
         \x20 loop: ['{{ password }}']\n\
         \x20 no_log: true\n",
    );
    let report = site
        .run(&with_vars(json!({"password": "hunter2-hunter2"})))
        .await
        .unwrap();
    assert_eq!(report.tasks.len(), 2);
    assert!(report.tasks[0].message.contains("no_log"));
    assert!(!format!("{report:?}").contains("hunter2"), "{report:?}");
}

#[tokio::test]
async fn variables_are_private_while_it_runs() {
    let sleep = odd_sleep();
    let site = Site::with(&format!("- command: sleep {sleep}\n"));
    let ansible = site.ansible();
    let request = with_vars(json!({"password": "correct-horse-battery"}));
    let looking = async {
        wait_until("asleep", || {
            !processes(&format!("sleep {sleep}")).is_empty()
        })
        .await;
        assert!(!processes("ansible-playbook").is_empty());
        assert_eq!(processes("correct-horse"), [""; 0]);
        let runs = site.left();
        assert_eq!(runs.len(), 1);
        assert_eq!(mode(&site.work_dir()), 0o700);
        assert_eq!(mode(&runs[0]), 0o700);
        let variables = runs[0].join("variables.yml");
        assert_eq!(mode(&variables), 0o600);
        assert!(
            fs::read_to_string(variables)
                .unwrap()
                .contains("correct-horse")
        );
    };
    tokio::select! {
        answer = ansible.run(&request, &NOTHING, TIMEOUT) => panic!("{answer:?}"),
        () = looking => {}
    }
    ansible.shutdown().await;
    assert_eq!(processes(&sleep), [""; 0]);
    assert_eq!(site.left(), [""; 0].map(PathBuf::from));
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn variables_are_data_and_come_as_they_were_sent() {
    let site = Site::with(
        "- copy: {dest: '{{ playbook_dir }}/out', content: '{{ given | to_json }}'}\n\
         - debug: {msg: '{{ label }}'}\n\
         - {name: asked, debug: {msg: 'yes'}, when: given.flag and label is search('pipe')}\n",
    );
    let marker = site.folder.path().join("pwned");
    let attack = format!("{{{{ lookup('pipe', 'touch {}') }}}}", marker.display());
    let given = json!({
        "text": "line\n\"quoted\" 'single' \\ \t \u{1} \u{7f} \u{85} ä € 😀 # : - [x] {y} !tag &a *a",
        "attack": attack,
        "flag": true,
        "nothing": null,
        "whole": 42,
        "big": 9_007_199_254_740_993_i64,
        "part": -2.5,
        "large": 1e100,
        "list": [
            "yes", "no", "null", "~", "", "0x10", "0o7", "1_0", "1e+3", ".inf", "1:20", "=", "<<", "*",
            "!", "&", "2020-01-01", "2020-01-01 10:00:00.5 +1", " x ", [], {}
        ],
        "#jinja2: variable_start_string: '['": "#jinja2: variable_start_string: '['\n[ 1 ]",
        "nested": {"<<": {"a: b": "c"}, "": "empty", &"k".repeat(2_000): "long"},
    });
    let report = site
        .run(&with_vars(json!({"given": given, "label": attack})))
        .await
        .unwrap();
    assert_eq!(report.exit_code, 0, "{}", report.output);
    assert!(!marker.exists(), "a template in a variable was evaluated");
    assert_eq!(report.tasks[1].message, attack);
    assert_eq!(report.tasks[2].message, "yes");
    let out = fs::read(site.playbooks().join("out")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), given);
}

#[tokio::test]
async fn variables_that_steer_ansible_are_refused() {
    let site = Site::with("- command: 'true'\n");
    for name in ["ansible_connection", "ansible_python_interpreter", "x; y"] {
        invalid(site.run(&with_vars(json!({name: "x"}))).await);
    }
}

#[tokio::test]
async fn values_are_never_options() {
    let site = Site::with("- {name: touch, command: 'true'}\n");
    // `--check` as an option would make it a success.
    let limited = AnsibleRequest {
        limit: Some("--check".to_owned()),
        ..request()
    };
    let text = failed(site.run(&limited).await);
    assert!(text.contains("ran no task on any host"), "{text}");
    assert!(text.contains("host pattern, ignoring: --check"), "{text}");
    let tagged = AnsibleRequest {
        tags: vec!["--list-tasks".to_owned()],
        ..request()
    };
    let text = failed(site.run(&tagged).await);
    assert!(text.contains("ran no task on any host"), "{text}");
    // Ansible has them as a variable, too.
    let tagged = AnsibleRequest {
        tags: vec!["{{ lookup('pipe', 'id') }}".to_owned()],
        ..request()
    };
    invalid(site.run(&tagged).await);
    for limit in ["", " ", ",", "@/etc/passwd", "!web1", "web*", "{{ x }}"] {
        let limited = AnsibleRequest {
            limit: Some(limit.to_owned()),
            ..request()
        };
        invalid(site.run(&limited).await);
    }
    invalid(site.run(&named("--version")).await);
}

#[tokio::test]
async fn playbooks_come_from_the_folder_alone() {
    let site = Site::with("- command: 'true'\n");
    let outside = site.folder.path().join("outside.yml");
    fs::write(&outside, "- hosts: localhost\n").unwrap();
    symlink(&outside, site.playbooks().join("link.yml")).unwrap();
    symlink(site.folder.path(), site.playbooks().join("up")).unwrap();
    fs::create_dir(site.playbooks().join("web")).unwrap();
    for name in [
        "../outside.yml",
        outside.to_str().unwrap(),
        "link.yml",
        "up/outside.yml",
        "web/../main.yml",
        "web",
        "",
    ] {
        invalid(site.run(&named(name)).await);
    }
    assert!(matches!(
        site.run(&named("none.yml")).await,
        Err(CapabilityError::NotFound(_))
    ));
    let ansible = site.ansible();
    let path = ansible.playbook("main.yml").await.unwrap();
    assert_eq!(
        path,
        site.playbooks().canonicalize().unwrap().join("main.yml")
    );
}

#[tokio::test]
async fn a_timeout_leaves_nothing_behind() {
    let sleep = odd_sleep();
    // Deaf to SIGTERM, a child of a child, and one in a session of its own.
    let site = Site::with(&format!(
        "- name: hang\n\
         \x20 shell: |\n\
         \x20   trap '' TERM\n\
         \x20   setsid sh -c \"trap '' TERM; sleep {sleep}; true\" &\n\
         \x20   (sleep {sleep}; true) &\n\
         \x20   sleep {sleep}; sleep {sleep}\n"
    ));
    let request = AnsibleRequest {
        timeout_ms: Some(4_000),
        ..request()
    };
    let ansible = site.ansible();
    let seeing = async {
        wait_until("asleep", || processes(&format!("sleep {sleep}")).len() >= 3).await;
        std::future::pending::<()>().await;
    };
    let begun = Instant::now();
    let answer = tokio::select! {
        answer = ansible.run(&request, &NOTHING, TIMEOUT) => answer,
        () = seeing => unreachable!(),
    };
    let Err(CapabilityError::TimedOut(text)) = answer else {
        panic!("{answer:?}");
    };
    assert!(text.contains("in task \"hang\""), "{text}");
    assert!(begun.elapsed() >= Duration::from_secs(4));
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(processes(&sleep), [""; 0]);
    assert_eq!(site.left(), [""; 0].map(PathBuf::from));
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_the_playbook() {
    let sleep = odd_sleep();
    let site = Site::with(&format!("- command: sleep {sleep}\n"));
    let ansible = site.ansible();
    let request = request();
    tokio::select! {
        answer = ansible.run(&request, &NOTHING, TIMEOUT) => panic!("{answer:?}"),
        () = wait_until("asleep", || !processes(&format!("sleep {sleep}")).is_empty()) => {}
    }
    wait_until("ended", || processes(&sleep).is_empty()).await;
    wait_until("cleared", || site.left().is_empty()).await;
    // It takes other work all the same.
    site.playbook("other.yml", "localhost", "- command: 'true'\n");
    let report = ansible
        .run(&named("other.yml"), &NOTHING, TIMEOUT)
        .await
        .unwrap();
    assert_eq!(report.exit_code, 0);
}

#[tokio::test]
async fn a_daemon_that_stops_ends_its_playbooks() {
    let sleep = odd_sleep();
    let site = Site::with(&format!("- command: sleep {sleep}\n"));
    let ansible = site.ansible();
    let request = request();
    let (answer, ()) = tokio::join!(ansible.run(&request, &NOTHING, TIMEOUT), async {
        wait_until("asleep", || {
            !processes(&format!("sleep {sleep}")).is_empty()
        })
        .await;
        ansible.shutdown().await;
    });
    assert!(failed(answer).contains("because the daemon stops"));
    assert_eq!(processes(&sleep), [""; 0]);
    unavailable(ansible.run(&request, &NOTHING, TIMEOUT).await);
}

#[tokio::test]
async fn what_a_killed_daemon_left_is_ended_and_removed() {
    let sleep = odd_sleep();
    let site = Site::with(&format!("- command: sleep {sleep}\n"));
    let killed = site.ansible();
    let request = with_vars(json!({"password": "hunter2-hunter2"}));
    let after = async {
        wait_until("asleep", || {
            !processes(&format!("sleep {sleep}")).is_empty()
        })
        .await;
        assert_eq!(site.left().len(), 1);
        // A daemon that starts on the same folder.
        site.ansible().clear_leftovers().await.unwrap();
        wait_until("ended", || processes(&sleep).is_empty()).await;
        assert_eq!(site.left(), [""; 0].map(PathBuf::from));
    };
    let (answer, ()) = tokio::join!(killed.run(&request, &NOTHING, TIMEOUT), after);
    assert!(failed(answer).contains("from outside"));
}

#[tokio::test]
async fn a_background_process_does_not_hold_up_the_report() {
    let sleep = odd_sleep();
    // It keeps the output's pipe open, and outlives the playbook on purpose: in a session of
    // its own, because newer workers take their session along when they end.
    let site = Site::with(&format!(
        "- debug: {{msg: \"{{{{ lookup('pipe', 'setsid sleep {sleep} 1>&2 & echo $!') }}}}\"}}\n"
    ));
    let begun = Instant::now();
    let report = site.run(&request()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(report.exit_code, 0);
    assert_eq!(processes(&format!("sleep {sleep}")).len(), 1);
    let id: i32 = report.tasks[0].message.trim().parse().unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(id),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
}

#[tokio::test]
async fn a_missing_program_is_unavailable_with_the_remedy() {
    let site = Site::with("- command: 'true'\n");
    let silent = site.folder.path().join("shim");
    fs::write(
        &silent,
        "#!/bin/sh\necho 'shim: command not found' >&2\nexit 127\n",
    )
    .unwrap();
    fs::set_permissions(&silent, fs::Permissions::from_mode(0o755)).unwrap();
    for program in [
        PathBuf::from("no-such-ansible-playbook"),
        PathBuf::from("/no/such/ansible-playbook"),
        silent,
    ] {
        let ansible = Ansible::new(AnsibleConfig {
            program: program.clone(),
            ..site.config()
        });
        let text = unavailable(ansible.run(&request(), &NOTHING, TIMEOUT).await);
        assert!(
            text.contains("apt-get install ansible-core"),
            "{program:?}: {text}"
        );
        let error = ansible.check().await.unwrap_err();
        assert!(
            error.to_string().contains("apt-get install ansible-core"),
            "{error}"
        );
    }
    let ansible = Ansible::new(AnsibleConfig {
        program: site.playbooks().join("main.yml"),
        ..site.config()
    });
    let text = unavailable(ansible.run(&request(), &NOTHING, TIMEOUT).await);
    assert!(text.contains("cannot be started"), "{text}");
}

#[tokio::test]
async fn a_check_tells_the_version_or_what_is_missing() {
    let site = Site::new();
    let version = site.ansible().check().await.unwrap();
    assert!(version.starts_with("ansible-playbook"), "{version}");
    assert_eq!(site.left(), [""; 0].map(PathBuf::from));

    let missing = |change: fn(&mut AnsibleConfig)| {
        let mut config = site.config();
        change(&mut config);
        Ansible::new(config)
    };
    let ansible = missing(|config| config.playbooks_dir = "/no/such/folder".into());
    assert!(matches!(
        ansible.check().await,
        Err(AnsibleCheckError::PlaybooksDir { .. })
    ));
    unavailable(ansible.run(&request(), &NOTHING, TIMEOUT).await);
    let ansible =
        missing(|config| config.inventory = vec![InventorySource::Path("/no/such/hosts".into())]);
    assert!(matches!(
        ansible.check().await,
        Err(AnsibleCheckError::Inventory { .. })
    ));
}

#[tokio::test]
async fn a_playbook_that_is_none_fails_with_ansibles_words() {
    let site = Site::new();
    for (text, said) in [
        ("- hosts: localhost\n  tasks: [\n", "yaml"),
        (
            "- hosts: localhost\n  tasks:\n    - no_such_module: {}\n",
            "no_such_module",
        ),
        ("just words\n", "playbook"),
    ] {
        fs::write(site.playbooks().join("main.yml"), text).unwrap();
        let error = failed(site.run(&request()).await).to_lowercase();
        assert!(
            error.contains("exit code 4") || error.contains("exit code 1"),
            "{error}"
        );
        assert!(error.contains(said), "{error}");
    }
    assert_eq!(site.left(), [""; 0].map(PathBuf::from));
}

#[tokio::test]
async fn tasks_see_nothing_of_the_daemons_environment() {
    let site =
        Site::with("- {name: env, command: env, register: seen}\n- debug: {var: seen.stdout}\n");
    let report = site.run(&request()).await.unwrap();
    // Cargo sets this for tests.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    for name in ["CARGO_MANIFEST_DIR", "SENTINEL_EVENTS"] {
        assert!(!report.output.contains(name), "{name} in {}", report.output);
    }
    assert!(report.output.contains("PATH="), "{}", report.output);
}

#[tokio::test]
async fn a_config_file_beside_the_playbooks_is_used() {
    let site = Site::with("- command: 'true'\n");
    // An operator's own settings for callbacks go along with ours.
    fs::write(
        site.playbooks().join("ansible.cfg"),
        "[defaults]\ncallbacks_enabled = timer\nstdout_callback = minimal\n",
    )
    .unwrap();
    let report = site.run(&request()).await.unwrap();
    assert_eq!(report.hosts["localhost"].changed, 1);
    assert!(!report.output.contains("PLAY RECAP"), "{}", report.output);
}

/// A folder in which nothing is, unless something was evaluated that is data.
fn attack(site: &Site) -> (PathBuf, String) {
    let marker = site.folder.path().join("pwned");
    let attack = format!("{{{{ lookup('pipe', 'touch {}') }}}}", marker.display());
    (marker, attack)
}

#[tokio::test]
async fn foreign_text_is_data_in_every_place_for_every_ansible() {
    let site = Site::with(
        "- {name: pairs, debug: {msg: '{{ item.key }}={{ item.value }}'}, loop: '{{ sentinel.alert.labels | dict2items }}'}\n\
         - {name: annotations, debug: {msg: '{{ item.key }}'}, loop: '{{ sentinel.alert.annotations | dict2items }}'}\n\
         - {name: with_dict, debug: {msg: '{{ item.key }}'}, with_dict: '{{ sentinel.alert.labels }}'}\n\
         - {name: with_items, debug: {msg: '{{ item }}'}, with_items: '{{ sentinel.alert.labels.keys() | list }}'}\n\
         - {name: names, debug: {msg: '{{ item }}'}, loop: '{{ sentinel.alert.labels | list }}'}\n\
         - set_fact: {names: '{{ sentinel.alert.labels | list }}', pairs: '{{ sentinel.alert.labels | dict2items }}', whole: '{{ sentinel }}', kept: '{{ given }}'}\n\
         - {name: facts, debug: {msg: '{{ names | first }} {{ pairs[0].key }} {{ names }}'}}\n\
         - {name: fact loop, debug: {msg: '{{ item }}'}, loop: '{{ names }}'}\n\
         - {name: whole, debug: {msg: '{{ whole.alert.labels | dict2items }}'}}\n\
         - {name: later, debug: {msg: '{{ hostvars[inventory_hostname].names[0] }}'}}\n\
         - {name: condition, debug: {msg: 'yes'}, when: item.key is search('pipe') and item.value | length > 0, loop: '{{ sentinel.alert.labels | dict2items }}'}\n\
         - {name: assert, assert: {that: ['item | length > 0'], success_msg: '{{ item }}'}, loop: '{{ sentinel.alert.labels | list }}'}\n\
         - {name: nested, debug: {msg: '{{ item.key }} {{ item.value | dict2items }}'}, loop: '{{ given.map | dict2items }}'}\n\
         - {name: kept, debug: {msg: '{{ kept.map | dict2items | map(attribute=\"key\") | first }}'}}\n\
         - {name: lists, debug: {msg: '{{ item }}'}, loop: '{{ given.list | flatten }}'}\n\
         - {name: text, debug: {msg: '{{ given.text }} {{ given.map | to_json }}'}}\n\
         - {name: variable, debug: {var: given}}\n\
         - {name: environment, command: printenv NAME, environment: {NAME: '{{ names | first }}'}}\n\
         - {name: vars, debug: {msg: '{{ inner }}'}, vars: {inner: '{{ item.key }}'}, loop: '{{ sentinel.alert.labels | dict2items }}'}\n\
         - {name: include, include_tasks: inner.yml, vars: {inner: '{{ item.key }}'}, loop: '{{ sentinel.alert.labels | dict2items }}'}\n\
         - {name: yaml, copy: {dest: '{{ playbook_dir }}/out.yml', content: '{{ sentinel | to_nice_yaml }}'}}\n\
         - {name: module, template: {src: out.j2, dest: '{{ playbook_dir }}/out'}}\n\
         - {name: lookup, debug: {msg: '{{ lookup(\"template\", \"out.j2\") }}'}}\n",
    );
    fs::write(
        site.playbooks().join("inner.yml"),
        "- debug: {msg: '{{ inner }}'}\n- set_fact: {deep: '{{ inner }}'}\n- debug: {msg: '{{ deep }}'}\n",
    )
    .unwrap();
    fs::write(
        site.playbooks().join("out.j2"),
        "{% for name, value in sentinel.alert.labels.items() %}{{ name }}={{ value }}\n{% endfor %}",
    )
    .unwrap();
    let (marker, attack) = attack(&site);
    let scope = PlaybookScope {
        incident: Some(json!({
            "incident": 7,
            "target": {"uri": "docker://local/nginx", "name": "nginx"},
            "alert": {
                "labels": {&attack: &attack, "alertname": "Down"},
                "annotations": {&attack: "x", "summary": &attack},
            },
        })),
        ..PlaybookScope::default()
    };
    let request = with_vars(json!({"given": {
        "map": {&attack: {&attack: [&attack, {&attack: &attack}]}},
        "list": [&attack, [&attack]],
        "text": &attack,
    }}));
    for program in ansibles() {
        let ansible = Ansible::new(AnsibleConfig {
            program: program.clone(),
            ..site.config()
        });
        let report = ansible.run(&request, &scope, TIMEOUT).await.unwrap();
        let who = program.display();
        assert_eq!(report.exit_code, 0, "{who}: {}", report.output);
        assert!(!marker.exists(), "{who} evaluated foreign text");
        let out = fs::read_to_string(site.playbooks().join("out")).unwrap();
        assert!(
            out.contains(&format!("{attack}={attack}\n")),
            "{who}: {out}"
        );
        fs::remove_file(site.playbooks().join("out")).unwrap();
    }
}

#[tokio::test]
async fn what_a_playbook_sets_itself_is_set_by_nobody_else() {
    let site = Site::new();
    let done = site.folder.path().join("done");
    let text = "\
- hosts: localhost
  gather_facts: false
  vars: {setting: 1}
  handlers:
    - {name: after, command: 'true', register: of_handler}
  tasks:
    - {name: first, copy: {dest: DONE, content: '{{ setting }}'}}
    - {name: look, command: 'true', register: found}
    - block:
        - {name: inside, command: 'true'}
      rescue:
        - {name: rescued, command: 'true', register: of_rescue}
      vars: {of_block: 1}
    - {name: fact, set_fact: {fact: 1}}
    - {name: inner, command: 'true', vars: {of_task: 1}}
    - {name: loop, command: 'true', loop: [1], loop_control: {loop_var: each, index_var: number}}
    - {name: import, import_tasks: inner.yml}
  roles: [work]
";
    fs::write(
        site.playbooks().join("main.yml"),
        text.replace("DONE", done.to_str().unwrap()),
    )
    .unwrap();
    fs::write(
        site.playbooks().join("inner.yml"),
        "- {command: 'true', register: imported}\n",
    )
    .unwrap();
    let role = site.playbooks().join("roles/work/tasks");
    fs::create_dir_all(&role).unwrap();
    fs::write(
        role.join("main.yml"),
        "- {command: 'true', register: of_role}\n",
    )
    .unwrap();
    for program in ansibles() {
        let ansible = Ansible::new(AnsibleConfig {
            program: program.clone(),
            ..site.config()
        });
        for name in [
            "found",
            "of_handler",
            "of_rescue",
            "of_block",
            "fact",
            "of_task",
            "each",
            "number",
            "imported",
            "of_role",
        ] {
            let answer = ansible
                .run(&with_vars(json!({name: 2})), &NOTHING, TIMEOUT)
                .await;
            let Err(CapabilityError::Denied(text)) = answer else {
                panic!("{name}: {answer:?}")
            };
            assert!(
                text.contains(&format!("it sets the variable `{name}` itself")),
                "{text}"
            );
            assert!(!done.exists(), "{name}");
        }
        let report = ansible
            .run(&with_vars(json!({"setting": 2})), &NOTHING, TIMEOUT)
            .await
            .unwrap();
        assert_eq!(report.exit_code, 0, "{}", report.output);
        assert_eq!(fs::read_to_string(&done).unwrap(), "2");
        fs::remove_file(&done).unwrap();
    }
}

#[tokio::test]
async fn a_playbook_runs_on_hosts_that_are_granted() {
    let site = Site::new();
    site.playbook("main.yml", "web", "- {name: touch, command: 'true'}\n");
    site.playbook(
        "chosen.yml",
        "\"{{ chosen }}\"",
        "- {name: touch, command: 'true'}\n",
    );
    let inventory = site.folder.path().join("hosts");
    fs::write(
        &inventory,
        "[web]\nweb1\nweb2\n2001:db8::1\n[db]\ndb1\n[all:vars]\nansible_connection=local\n\
         ansible_python_interpreter=/usr/bin/python3\n",
    )
    .unwrap();
    let granted = |hosts: &[&str]| PlaybookScope {
        hosts: hosts
            .iter()
            .map(|host| host.parse::<Glob>().unwrap())
            .collect(),
        ..PlaybookScope::default()
    };
    let limited = |limit: &str| AnsibleRequest {
        limit: Some(limit.to_owned()),
        ..request()
    };
    let chosen = |hosts: &str| AnsibleRequest {
        playbook: "chosen.yml".to_owned(),
        ..with_vars(json!({"chosen": hosts}))
    };
    for program in ansibles() {
        let ansible = Ansible::new(AnsibleConfig {
            program,
            inventory: vec![InventorySource::Path(inventory.clone())],
            ..site.config()
        });
        for (request, scope, hosts) in [
            (limited("web1:9100"), granted(&[]), vec!["web1"]),
            (
                limited("[2001:db8::1]:9100"),
                granted(&[]),
                vec!["2001:db8::1"],
            ),
            (limited("2001:db8::1"), granted(&[]), vec!["2001:db8::1"]),
            (
                limited("web1,web2"),
                granted(&["web?"]),
                vec!["web1", "web2"],
            ),
            (
                limited("web"),
                granted(&["web"]),
                vec!["2001:db8::1", "web1", "web2"],
            ),
            (
                request(),
                granted(&["web"]),
                vec!["2001:db8::1", "web1", "web2"],
            ),
            (
                limited("all"),
                granted(&["all"]),
                vec!["2001:db8::1", "web1", "web2"],
            ),
            (chosen("db1"), granted(&["d*"]), vec!["db1"]),
        ] {
            let report = ansible.run(&request, &scope, TIMEOUT).await.unwrap();
            assert_eq!(
                report.hosts.keys().collect::<Vec<_>>(),
                hosts,
                "{request:?}"
            );
        }
        for (request, scope, said) in [
            (limited("all"), granted(&[]), "`all` is a group"),
            (limited("web"), granted(&[]), "`web` is a group"),
            (limited("web"), granted(&["web*"]), "`web` is a group"),
            (
                request(),
                granted(&["web?"]),
                "it would run on `2001:db8::1`",
            ),
            (chosen("all"), granted(&["web"]), "it would run on `db1`"),
            (
                chosen("web1:db1"),
                granted(&["web*"]),
                "it would run on `db1`",
            ),
        ] {
            let answer = ansible.run(&request, &scope, TIMEOUT).await;
            let Err(CapabilityError::Denied(text)) = answer else {
                panic!("{request:?}: {answer:?}")
            };
            assert!(text.contains(said), "{text}");
        }
    }
}

#[tokio::test]
async fn a_playbook_is_the_file_that_it_was() {
    let site = Site::with("- {name: touch, command: 'true'}\n");
    let ansible = site.ansible();
    let digest = ansible.identify("main.yml").await.unwrap();
    assert_eq!(digest.as_ref().map(String::len), Some(64));
    let scope = PlaybookScope {
        digest,
        ..PlaybookScope::default()
    };
    ansible.run(&request(), &scope, TIMEOUT).await.unwrap();
    site.playbook(
        "main.yml",
        "localhost",
        "- {name: other, command: 'true'}\n",
    );
    let text = failed(ansible.run(&request(), &scope, TIMEOUT).await);
    assert!(text.contains("was changed"), "{text}");
    invalid(ansible.identify("../x.yml").await);
    // What runs leave behind does not make another playbook of it, what it may use does.
    let digest = ansible.identify("main.yml").await.unwrap();
    fs::write(site.playbooks().join("main.retry"), "localhost\n").unwrap();
    assert_eq!(ansible.identify("main.yml").await.unwrap(), digest);
    fs::create_dir_all(site.playbooks().join("roles/web/tasks")).unwrap();
    let tasks = site.playbooks().join("roles/web/tasks/main.yml");
    fs::write(tasks, "- {name: role, command: 'true'}\n").unwrap();
    let scope = PlaybookScope { digest, ..scope };
    let text = failed(ansible.run(&request(), &scope, TIMEOUT).await);
    assert!(text.contains("was changed"), "{text}");
}

#[tokio::test]
async fn an_operators_configuration_stays_in_force() {
    let site = Site::with("- {name: say, debug: {msg: hello}}\n");
    // A callback of their own that prints, roles elsewhere, and an inventory.
    fs::create_dir(site.playbooks().join("callbacks")).unwrap();
    fs::write(
        site.playbooks().join("callbacks/mini.py"),
        "from ansible.plugins.callback import CallbackBase\n\
         DOCUMENTATION = 'name: mini\\ntype: stdout\\nshort_description: x\\ndescription: x\\n'\n\
         class CallbackModule(CallbackBase):\n\
         \x20   CALLBACK_VERSION = 2.0\n\
         \x20   CALLBACK_TYPE = 'stdout'\n\
         \x20   CALLBACK_NAME = 'mini'\n\
         \x20   def v2_runner_on_ok(self, result):\n\
         \x20       print('mini was here')\n",
    )
    .unwrap();
    let role = site.playbooks().join("more/work/tasks");
    fs::create_dir_all(&role).unwrap();
    fs::write(
        role.join("main.yml"),
        "- {name: of the role, debug: {msg: x}}\n",
    )
    .unwrap();
    fs::write(
        site.playbooks().join("hosts"),
        "web1 ansible_connection=local ansible_python_interpreter=/usr/bin/python3\n",
    )
    .unwrap();
    fs::write(
        site.playbooks().join("main.yml"),
        "- hosts: web1\n  gather_facts: false\n  roles: [work]\n",
    )
    .unwrap();
    fs::write(
        site.playbooks().join("ansible.cfg"),
        "[defaults]\ncallback_plugins = ./callbacks ; ours\nstdout_callback = mini\nroles_path = more\ninventory = hosts\nforce_color = true\n",
    )
    .unwrap();
    for program in ansibles() {
        let ansible = Ansible::new(AnsibleConfig {
            program,
            ..site.config()
        });
        let report = ansible.run(&request(), &NOTHING, TIMEOUT).await.unwrap();
        assert_eq!(statuses(&report), [("work : of the role", TaskStatus::Ok)]);
        assert!(report.output.contains("mini was here"), "{}", report.output);
    }
}

#[tokio::test]
async fn an_inventory_is_what_ansible_takes_for_one() {
    let site = Site::new();
    site.playbook("main.yml", "all", "- {name: say, debug: {msg: hello}}\n");
    let more = site.folder.path().join("more");
    fs::create_dir(&more).unwrap();
    fs::write(more.join("static"), "web3\n").unwrap();
    let program = site.folder.path().join("dynamic");
    fs::write(
        &program,
        "#!/bin/sh\necho '{\"all\": {\"hosts\": [\"web4\"]}, \"_meta\": {\"hostvars\": {}}}'\n",
    )
    .unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let inventory: Vec<_> = ["web1,web2", "more", "dynamic"]
        .iter()
        .map(|text| InventorySource::new(text, site.folder.path()))
        .collect();
    let ansible = Ansible::new(AnsibleConfig {
        inventory,
        ..site.config()
    });
    ansible.check().await.unwrap();
    let report = ansible.run(&request(), &NOTHING, TIMEOUT).await.unwrap();
    let hosts: Vec<_> = report.hosts.keys().map(String::as_str).collect();
    assert_eq!(hosts, ["web1", "web2", "web3", "web4"]);
}

#[tokio::test]
async fn a_daemon_with_hardly_any_environment_runs_playbooks() {
    let site =
        Site::with("- {name: env, command: env, register: seen}\n- debug: {var: seen.stdout}\n");
    let path = std::env::var("PATH").unwrap();
    let missing = site.folder.path().join("missing");
    for given in [
        vec![("PATH", path.as_str())],
        vec![
            ("PATH", path.as_str()),
            ("HOME", missing.to_str().unwrap()),
            ("LANG", "xx_XX.UTF-8"),
        ],
        vec![
            ("PATH", path.as_str()),
            ("LC_ALL", "xx_XX.UTF-8"),
            ("ANSIBLE_FORCE_COLOR", "1"),
        ],
    ] {
        for program in ansibles() {
            let config = || AnsibleConfig {
                program: program.clone(),
                ..site.config()
            };
            let environment = given
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()));
            let ansible = Ansible::with_environment(config(), environment.clone());
            ansible
                .check()
                .await
                .unwrap_or_else(|error| panic!("{given:?}: {error}"));
            // Not only after a check.
            let ansible = Ansible::with_environment(config(), environment);
            let report = ansible.run(&request(), &NOTHING, TIMEOUT).await.unwrap();
            assert_eq!(report.exit_code, 0, "{given:?}: {}", report.output);
            let home = format!("HOME={}", site.work_dir().join("home").display());
            assert!(report.output.contains(&home), "{}", report.output);
            assert!(!report.output.contains('\u{1b}'), "no colours");
        }
    }
    assert!(!missing.exists());
}
