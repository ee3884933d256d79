//! Guests that try to break the sandbox, and what is told of it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sentinel_core::capability::{CapabilityError, Request};
use sentinel_core::event::{CallResult, FailureClass, LogLevel, RunResult};
use sentinel_sandbox::{
    Outcome, Plugin, Room, RunFailure, RunLimits, RunReport, Sandbox, SandboxConfig, Script,
};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::{Story, World, gate, guest, incident};

struct Stage {
    sandbox: Sandbox,
    plugin: Arc<Plugin>,
    world: Arc<World>,
}

impl Stage {
    async fn new() -> Self {
        Self::with(SandboxConfig::default(), "hostile", World::default()).await
    }

    async fn with(config: SandboxConfig, plugin: &str, world: World) -> Self {
        let sandbox = Sandbox::new(config).unwrap();
        let plugin = sandbox.load(guest(plugin)).await.unwrap();
        Self {
            sandbox,
            plugin,
            world: Arc::new(world),
        }
    }

    fn story(&self) -> &Story {
        &self.world.story
    }

    async fn run_with(&self, params: Value, limits: RunLimits) -> RunReport {
        let plugin = Arc::clone(&self.plugin);
        assert_eq!(plugin.validate_params(&params), []);
        self.sandbox
            .run(plugin, incident(params), gate(&self.world), limits)
            .await
    }

    async fn run(&self, behaviour: &str) -> RunReport {
        let limits = RunLimits {
            timeout: Duration::from_secs(20),
            ..RunLimits::default()
        };
        self.run_with(json!({ "behaviour": behaviour }), limits)
            .await
    }

    /// After whatever went before, a run works as if nothing had been.
    async fn still_works(&self) {
        let report = self
            .run_with(
                json!({"behaviour": "changed", "text": "all well"}),
                RunLimits::default(),
            )
            .await;
        assert_eq!(report.result, Ok(Outcome::Changed("all well".to_owned())));
    }
}

fn failure(report: &RunReport) -> (&RunFailure, String) {
    let failure = report.result.as_ref().unwrap_err();
    (failure, failure.to_string())
}

#[tokio::test]
async fn what_a_plugin_says_comes_back() {
    let stage = Stage::new().await;
    let said = async |behaviour: &str| {
        let params = json!({"behaviour": behaviour, "text": "words"});
        stage.run_with(params, RunLimits::default()).await
    };
    let words = || "words".to_owned();
    assert_eq!(said("changed").await.result, Ok(Outcome::Changed(words())));
    assert_eq!(
        said("unchanged").await.result,
        Ok(Outcome::Unchanged(words()))
    );
    for (behaviour, class) in [
        ("retryable", FailureClass::Retryable),
        ("permanent", FailureClass::Permanent),
        ("denied", FailureClass::Denied),
    ] {
        assert_eq!(
            RunResult::from(&said(behaviour).await),
            RunResult::Failed {
                class,
                message: words()
            }
        );
    }
}

#[tokio::test]
async fn an_endless_loop_is_cut_off_by_its_cpu_time() {
    let stage = Stage::new().await;
    let limits = RunLimits {
        timeout: Duration::from_secs(20),
        cpu: Duration::from_millis(300),
        ..RunLimits::default()
    };
    let report = stage.run_with(json!({"behaviour": "spin"}), limits).await;
    let (failure, text) = failure(&report);
    assert_eq!(failure, &RunFailure::OutOfCpu { limit_ms: 300 });
    assert_eq!(failure.class(), Some(FailureClass::Permanent));
    assert_eq!(
        text,
        "it used up its CPU time of 300ms and was cut off: an endless loop?"
    );
    assert_eq!(report.cpu, Duration::from_millis(301));
    stage.still_works().await;
}

#[tokio::test]
async fn an_endless_loop_is_cut_off_by_its_timeout() {
    let stage = Stage::new().await;
    let limits = RunLimits {
        timeout: Duration::from_millis(300),
        ..RunLimits::default()
    };
    let report = stage.run_with(json!({"behaviour": "spin"}), limits).await;
    assert_eq!(failure(&report).0, &RunFailure::TimedOut { limit_ms: 300 });
    assert!(report.wall < Duration::from_secs(3), "{:?}", report.wall);
    stage.still_works().await;
}

#[tokio::test]
async fn a_sleep_is_cut_off_and_costs_no_cpu_time() {
    let stage = Stage::new().await;
    let limits = RunLimits {
        timeout: Duration::from_millis(500),
        cpu: Duration::from_millis(100),
        ..RunLimits::default()
    };
    let report = stage
        .run_with(json!({"behaviour": "sleep-forever"}), limits)
        .await;
    let (failure, text) = failure(&report);
    assert_eq!(failure, &RunFailure::TimedOut { limit_ms: 500 });
    assert_eq!(failure.class(), Some(FailureClass::Retryable));
    assert_eq!(text, "it was not done within 500ms and was cut off");
    assert!(report.wall >= Duration::from_millis(500));
    assert!(report.cpu < Duration::from_millis(50), "{:?}", report.cpu);
}

#[tokio::test]
async fn a_panic_is_told_with_its_text() {
    let stage = Stage::new().await;
    let report = stage.run("panic").await;
    let (failure, text) = failure(&report);
    assert!(matches!(failure, RunFailure::Trapped { .. }), "{text}");
    assert_eq!(failure.class(), Some(FailureClass::Permanent));
    assert!(text.starts_with("it trapped: panicked at "), "{text}");
    assert!(text.contains("this plugin panics on purpose"), "{text}");
    assert!(stage.story().has("log error: panicked at"));
    stage.still_works().await;
}

/// So many MiB of memory, and else what is usual.
fn with_memory(mib: usize) -> Room {
    Room {
        memory: mib << 20,
        ..Room::default()
    }
}

#[tokio::test]
async fn memory_ends_where_the_limit_is() {
    let stage = Stage::new().await;
    let limits = RunLimits {
        timeout: Duration::from_secs(20),
        room: with_memory(16),
        ..RunLimits::default()
    };
    let report = stage
        .run_with(json!({"behaviour": "memory-bomb"}), limits)
        .await;
    let (failure, text) = failure(&report);
    assert!(matches!(failure, RunFailure::OutOfMemory { .. }), "{text}");
    assert_eq!(
        text,
        "it wanted more than the 16 MiB of memory that it may have"
    );
    assert!(report.peak_memory <= 16 * 1024 * 1024);
    assert!(report.peak_memory > 8 * 1024 * 1024);
    stage.still_works().await;
}

#[tokio::test]
async fn endless_recursion_is_told_as_such() {
    let stage = Stage::new().await;
    let report = stage.run("deep-recursion").await;
    let (failure, text) = failure(&report);
    assert!(matches!(failure, RunFailure::OutOfStack { .. }), "{text}");
    stage.still_works().await;
}

#[tokio::test]
async fn a_flood_of_lines_is_cut_and_counted() {
    let stage = Stage::new().await;
    let limits = RunLimits {
        timeout: Duration::from_secs(20),
        log_lines: 100,
        ..RunLimits::default()
    };
    let report = stage
        .run_with(json!({"behaviour": "log-flood"}), limits)
        .await;
    assert_eq!(
        failure(&report).0,
        &RunFailure::TooManyCalls { limit: 10_000 }
    );
    assert_eq!(report.calls, 10_000);
    assert_eq!(report.log_dropped, 9_900);
    assert_eq!(stage.story().lines().len(), 100);
}

#[tokio::test]
async fn a_flood_of_calls_is_cut() {
    let stage = Stage::new().await;
    let limits = RunLimits {
        timeout: Duration::from_secs(20),
        calls: 500,
        ..RunLimits::default()
    };
    let report = stage
        .run_with(json!({"behaviour": "call-flood"}), limits)
        .await;
    let (failure, text) = failure(&report);
    assert_eq!(failure, &RunFailure::TooManyCalls { limit: 500 });
    assert_eq!(text, "it made more than 500 host calls and was cut off");
    assert!(
        stage
            .story()
            .has("observed 500 docker.inspect local/nginx: ok")
    );
    assert!(!stage.story().has("observed 501"));
}

#[tokio::test]
async fn calls_beyond_the_rate_wait_for_their_turn() {
    let stage = Stage::new().await;
    let limits = RunLimits {
        calls: 30,
        call_rate: 20,
        ..RunLimits::default()
    };
    let report = stage
        .run_with(json!({"behaviour": "call-flood"}), limits)
        .await;
    let (failure, _) = failure(&report);
    assert_eq!(failure, &RunFailure::TooManyCalls { limit: 30 });
    // What a second has room for comes at once, the others one after another.
    let beyond = Duration::from_millis(9 * 50);
    assert!(report.wall >= beyond, "{:?}", report.wall);
    assert!(
        report.cpu < beyond,
        "waiting costs nothing: {:?}",
        report.cpu
    );
}

#[tokio::test]
async fn params_are_bounded() {
    let stage = Stage::new().await;
    let limits = RunLimits {
        params_bytes: 2048,
        ..RunLimits::default()
    };
    let with = |text: usize| json!({"behaviour": "changed", "text": "x".repeat(text)});
    let report = stage.run_with(with(2000), limits).await;
    assert!(report.result.is_ok(), "{report:?}");
    let report = stage.run_with(with(3000), limits).await;
    let (failure, text) = failure(&report);
    assert_eq!(text, "its params have 3 KiB, and it may have 2 KiB");
    assert_eq!(failure.class(), Some(FailureClass::Permanent));
    assert!(!failure.is_fault());
}

#[tokio::test]
async fn a_plugin_of_more_modules_than_its_limits_have_is_not_at_fault() {
    let stage = Stage::new().await;
    let limits = RunLimits {
        room: Room {
            instances: 1,
            ..Room::default()
        },
        ..RunLimits::default()
    };
    let report = stage
        .run_with(json!({"behaviour": "changed"}), limits)
        .await;
    let (failure, text) = failure(&report);
    assert!(
        text.starts_with("it needs more than its limits let it have: "),
        "{text}"
    );
    assert!(!failure.is_fault());
}

/// Notes which thread a guest asks from.
#[derive(Default)]
struct Threads(Mutex<Vec<String>>);

impl Script for Threads {
    fn answer(&self, _: &Request) -> Option<CallResult> {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or_default().to_owned();
        self.0.lock().unwrap().push(name);
        Some(Err(CapabilityError::NotFound("nothing".to_owned())))
    }

    fn logged(&self, _: LogLevel, _: &str) {}
}

#[tokio::test]
async fn a_brisk_guest_begins_where_its_caller_is_and_goes_when_it_computes() {
    let stage = Stage::with(SandboxConfig::default(), "scripted", World::default()).await;
    let limits = RunLimits {
        calls: 200_000,
        ..RunLimits::default()
    };
    let asks_from = async |script: &[&str]| {
        let threads = Arc::new(Threads::default());
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        let input = incident(json!({ "script": script }));
        let plugin = Arc::clone(&stage.plugin);
        let report = stage
            .sandbox
            .rehearse(plugin, input, threads.clone(), now, limits)
            .await;
        assert!(report.result.is_ok(), "{report:?}");
        std::mem::take(&mut *threads.0.lock().unwrap())
    };
    let short = ["inspect nginx"];
    assert_eq!(asks_from(&short).await, ["plugin"], "its first run");
    for _ in 0..3 {
        // A run that the machine held up is none of a brisk plugin.
        let mut tries = 0;
        while asks_from(&short).await == ["plugin"] {
            tries += 1;
            assert!(tries < 100, "it never begins here");
        }
        // So many calls take many ticks.
        let long = ["inspect nginx", "looks 150000", "inspect nginx"];
        let asked = asks_from(&long).await;
        assert_eq!(asked[1], "plugin", "{asked:?}");
        assert_eq!(asks_from(&short).await, ["plugin"], "the next run");
    }
}

/// How long this thread has computed.
fn computed() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanos = stat.split(' ').next().unwrap().parse().unwrap();
    Duration::from_nanos(nanos)
}

#[tokio::test]
async fn a_guest_that_was_brisk_computes_for_no_more_than_a_tick_where_its_caller_is() {
    let stage = Stage::new().await;
    for _ in 0..5 {
        stage.still_works().await;
    }
    let limits = RunLimits {
        cpu: Duration::from_millis(500),
        ..RunLimits::default()
    };
    let before = computed();
    let report = stage.run_with(json!({"behaviour": "spin"}), limits).await;
    let here = computed().checked_sub(before).unwrap();
    let (failure, _) = failure(&report);
    assert!(matches!(failure, RunFailure::OutOfCpu { .. }), "{failure}");
    assert!(here < Duration::from_millis(50), "{here:?}");
    stage.still_works().await;
}

#[tokio::test]
async fn what_crosses_the_border_is_bounded() {
    // 64 MiB of text need more than that of memory.
    let stage = Stage::with(
        SandboxConfig {
            room: with_memory(256),
            max_runs: 2,
            ..SandboxConfig::default()
        },
        "hostile",
        World::default(),
    )
    .await;
    for behaviour in ["huge-log", "huge-result"] {
        let limits = RunLimits {
            timeout: Duration::from_secs(20),
            room: with_memory(256),
            ..RunLimits::default()
        };
        let report = stage
            .run_with(json!({ "behaviour": behaviour }), limits)
            .await;
        let (failure, text) = failure(&report);
        assert!(
            matches!(failure, RunFailure::TooMuchData { limit: 1_048_576 }),
            "{behaviour}: {text}"
        );
    }
    stage.still_works().await;
}

#[tokio::test]
async fn exit_ends_the_run_and_nothing_else() {
    let stage = Stage::new().await;
    let report = stage.run("exit").await;
    let (failure, text) = failure(&report);
    assert_eq!(failure, &RunFailure::Exited);
    assert!(text.starts_with("it called the exit function"), "{text}");
    stage.still_works().await;
}

#[tokio::test]
async fn stdout_and_stderr_go_to_the_log() {
    let stage = Stage::new().await;
    assert!(stage.run("stdio").await.result.is_ok());
    assert!(stage.story().has("log info: a line on stdout"));
    assert!(stage.story().has("log warn: a line on stderr"));
}

#[tokio::test]
async fn escape_sequences_reach_no_terminal() {
    let stage = Stage::new().await;
    let Ok(Outcome::Unchanged(said)) = stage.run("terminal-escapes").await.result else {
        panic!("an outcome");
    };
    let steers = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!said.contains(steers), "{said:?}");
    assert!(stage.story().has("forged line"));
    assert!(
        !stage
            .story()
            .lines()
            .iter()
            .any(|line| line.contains(steers))
    );
}

#[tokio::test]
async fn runs_wait_for_their_turn() {
    let stage = Stage::with(
        SandboxConfig {
            max_runs: 1,
            ..SandboxConfig::default()
        },
        "hostile",
        World::default(),
    )
    .await;
    let slow = || {
        stage.run_with(
            json!({"behaviour": "slow-changed", "ms": 200}),
            RunLimits::default(),
        )
    };
    let (one, two) = tokio::join!(slow(), slow());
    assert!(one.result.is_ok() && two.result.is_ok());
    let (first, second) = (one.queued.min(two.queued), one.queued.max(two.queued));
    assert!(first < Duration::from_millis(150), "{first:?}");
    assert!(second >= Duration::from_millis(200), "{second:?}");
}

#[tokio::test]
async fn a_run_that_is_dropped_ends() {
    let stage = Stage::with(
        SandboxConfig {
            max_runs: 1,
            ..SandboxConfig::default()
        },
        "hostile",
        World::default(),
    )
    .await;
    let spin = stage.run_with(json!({"behaviour": "spin"}), RunLimits::default());
    assert!(
        tokio::time::timeout(Duration::from_millis(200), spin)
            .await
            .is_err()
    );
    // Its place is free again long before its limits would have cut it off.
    let began = Instant::now();
    stage.still_works().await;
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_restart_goes_through_the_gate_from_end_to_end() {
    let stage = Stage::with(SandboxConfig::default(), "docker-restart", World::default()).await;
    let report = stage.run_with(json!({}), RunLimits::default()).await;
    let lines = stage.story().lines();
    let place = |part: &str| {
        lines
            .iter()
            .position(|line| line.contains(part))
            .unwrap_or_else(|| panic!("no `{part}` in {lines:#?}"))
    };
    assert!(
        matches!(report.result, Ok(Outcome::Changed(_))),
        "{report:?}"
    );
    assert!(place("observed 1 docker.inspect local/nginx: ok") < place("began"));
    assert!(place("docker.restart local/nginx on nginx") < place("driver restart"));
    assert!(place("driver restart done") < place("ended"));
}

#[tokio::test]
async fn a_run_cut_off_in_an_effect_leaves_a_whole_record() {
    let stage = Stage::with(
        SandboxConfig::default(),
        "docker-restart",
        World {
            hold_restarts: Some(Notify::new()),
            ..World::default()
        },
    )
    .await;
    let limits = RunLimits {
        timeout: Duration::from_millis(500),
        ..RunLimits::default()
    };
    let report = stage.run_with(json!({}), limits).await;
    assert_eq!(failure(&report).0, &RunFailure::TimedOut { limit_ms: 500 });
    assert!(!stage.story().has("ended"));
    stage.world.hold_restarts.as_ref().unwrap().notify_one();
    stage.story().wait_for("ended 2 ok").await;
}

#[tokio::test]
async fn a_denial_reaches_the_plugin_and_the_record() {
    let stage = Stage::with(SandboxConfig::default(), "docker-restart", World::default()).await;
    let params = json!({"container": "db"});
    let report = stage.run_with(params, RunLimits::default()).await;
    let (failure, text) = failure(&report);
    assert_eq!(failure.class(), Some(FailureClass::Denied), "{text}");
    assert!(text.contains("`db`"), "{text}");
    assert!(stage.story().has("denied 1 docker.inspect local/db"));
}
