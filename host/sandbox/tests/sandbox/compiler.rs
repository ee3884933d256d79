//! What a plugin may make of the compiler, which is the real `sentinel` in a process of its own.

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sentinel_sandbox::code::{CompileMemory, Compiler};
use sentinel_sandbox::{LoadError, Sandbox, SandboxConfig};
use sentinel_tests::wat::{CORE, greedy, slow};

const COMMAND: &str = "compile-plugin";

fn program() -> std::path::PathBuf {
    sentinel_tests::built("SENTINEL_BIN", "target/release/sentinel")
}

fn sandbox(memory: u64, limit: Duration) -> Sandbox {
    Sandbox::new(SandboxConfig {
        compile_timeout: limit,
        compiler: Compiler::Program {
            program: program(),
            arguments: vec![COMMAND.into()],
            memory: CompileMemory(memory),
        },
        ..SandboxConfig::default()
    })
    .unwrap()
}

/// Processes of this one that compile.
fn compiling() -> usize {
    let me = std::process::id().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let ours = processes.filter(|process| {
        let read =
            |file: &str| std::fs::read_to_string(process.path().join(file)).unwrap_or_default();
        let status = read("status");
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        parent.is_some_and(|parent| parent.trim() == me) && read("cmdline").contains(COMMAND)
    });
    ours.count()
}

#[tokio::test]
async fn a_plugin_that_exhausts_the_compiler_is_refused_and_the_next_one_loads() {
    let (greedy, slow) = (greedy("greedy", 50_000), slow("slow"));

    let small = sandbox(256 << 20, Duration::from_secs(120));
    let error = small.load(greedy).await.unwrap_err();
    let text = error.to_string();
    let LoadError::CompilerEnded { memory, .. } = error else {
        panic!("{text}");
    };
    assert_eq!(memory, 256 << 20);
    assert!(text.contains("it may have 256 MiB of memory"), "{text}");
    assert!(text.contains("memory allocation of"), "{text}");
    assert!(!text.contains('\n') && text.len() < 1000, "{text}");

    let limit = Duration::from_secs(3);
    let patient = sandbox(2 << 30, limit);
    let begun = Instant::now();
    let error = patient.load(slow.clone()).await.unwrap_err();
    assert!(begun.elapsed() < limit * 3, "{:?}", begun.elapsed());
    assert!(
        matches!(error, LoadError::CompileTimedOut { .. }),
        "{error}"
    );
    // Nobody goes on computing for it.
    let gone = Instant::now();
    while compiling() > 0 {
        assert!(gone.elapsed() < Duration::from_secs(5), "{}", compiling());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for sandbox in [small, patient] {
        let good = sandbox.load(CORE.quiet()).await.unwrap();
        assert_eq!(good.name.as_str(), CORE.name);
    }

    // Whose daemon was killed has nobody who ends it, and ends all the same.
    #[expect(
        clippy::disallowed_methods,
        reason = "the compiler without the sandbox that waits for it"
    )]
    let mut orphan = Command::new(program())
        .arg(COMMAND)
        .env_clear()
        .env("SENTINEL_COMPILE_MAX_MEMORY", "67108864")
        .env("SENTINEL_COMPILE_MEMORY", (2_u64 << 30).to_string())
        .env("SENTINEL_COMPILE_SECONDS", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    orphan.stdin.take().unwrap().write_all(&slow).unwrap();
    let begun = Instant::now();
    let ended = loop {
        if let Some(ended) = orphan.try_wait().unwrap() {
            break ended;
        }
        if begun.elapsed() > Duration::from_secs(60) {
            orphan.kill().unwrap();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(
        begun.elapsed() < Duration::from_secs(60),
        "{:?}",
        begun.elapsed()
    );
    // SIGXCPU, or SIGKILL where both limits are the same.
    assert!(matches!(ended.signal(), Some(24 | 9)), "{ended}");
}
