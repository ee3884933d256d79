//! What is a plugin and what is not, and what its author is told.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use sentinel_core::capability::DockerAction;
use sentinel_core::grant::Import;
use sentinel_core::id::Digest;
use sentinel_sandbox::code::CodeStore;
use sentinel_sandbox::{
    Anatomy, Form, LoadError, Room, RunFailure, RunLimits, Sandbox, SandboxConfig,
};
use sentinel_tests::wat::{self, CORE, Core};
use serde_json::json;
use wit_component::dummy_module;
use wit_parser::{LiftLowerAbi, ManglingAndAbi, Resolve};

use crate::support::guest;

fn sandbox() -> Sandbox {
    Sandbox::new(SandboxConfig {
        max_runs: 4,
        describe: RunLimits {
            timeout: Duration::from_secs(10),
            cpu: Duration::from_millis(200),
            ..RunLimits::default()
        },
        ..SandboxConfig::default()
    })
    .unwrap()
}

/// Worlds that are almost that of a plugin.
const WORLDS: &str = r"
    package test:guests;
    world quiet {
        use sentinel:plugin/types@0.1.0.{description, incident, outcome, failure};
        export describe: func() -> description;
        export remediate: func(incident: incident) -> result<outcome, failure>;
    }
    world looks { include quiet; import sentinel:plugin/docker@0.1.0; }
    world tells-time { include quiet; import sentinel:plugin/clock@0.1.0; }
    interface secrets { read: func() -> string; }
    world spies { include quiet; import secrets; }
    world half {
        use sentinel:plugin/types@0.1.0.{description};
        export describe: func() -> description;
    }
    world another { export greet: func() -> string; }
";

fn resolve() -> Resolve {
    wat::resolve(WORLDS)
}

/// A component of `core` for `world`; without a core one whose every function traps.
fn component(world: &str, core: Option<&str>) -> Vec<u8> {
    component_of(&resolve(), world, core)
}

fn component_of(resolve: &Resolve, world: &str, core: Option<&str>) -> Vec<u8> {
    let module = if let Some(core) = core {
        ::wat::parse_str(core).unwrap()
    } else {
        let mangling = ManglingAndAbi::Legacy(LiftLowerAbi::Sync);
        dummy_module(resolve, wat::world(resolve, world), mangling)
    };
    wat::component(resolve, world, module)
}

/// A core module whose `describe` has `body` before it returns what it says here.
fn describing(fields: &str, body: &str, name: &str, version: &str, schema: &str) -> String {
    let core = Core {
        fields,
        describe: body,
        name,
        version,
        schema,
        ..CORE
    };
    core.text()
}

fn good(body: &str) -> String {
    let core = Core {
        describe: body,
        ..CORE
    };
    core.text()
}

async fn refused(bytes: Vec<u8>) -> (LoadError, String) {
    let error = sandbox().load(bytes).await.unwrap_err();
    let text = error.to_string();
    for leak in [
        "matching implementation",
        "in the linker",
        "backtrace",
        "\n",
    ] {
        assert!(!text.contains(leak), "{text}");
    }
    (error, text)
}

#[tokio::test]
async fn an_empty_file() {
    let (error, text) = refused(Vec::new()).await;
    assert!(matches!(error, LoadError::Empty));
    assert!(text.starts_with("the file is empty"), "{text}");
}

#[tokio::test]
async fn a_text() {
    let (_, text) = refused(b"#!/bin/sh\necho hello".to_vec()).await;
    assert!(
        text.starts_with(r##"not WebAssembly (it begins with "#!/bin/sh\necho h")"##),
        "{text}"
    );
}

#[tokio::test]
async fn a_core_module_that_does_not_say_its_world() {
    let (error, text) = refused(::wat::parse_str("(module)").unwrap()).await;
    // Wrapped all the same, it would be an empty component.
    assert!(matches!(error, LoadError::CoreModule));
    assert!(text.contains("`component-type`"), "{text}");
    assert!(text.contains("`wit` folder"), "{text}");
}

/// A core module for `world`, as a linker leaves it: with the section that its bindings
/// put there.
fn module(world: &str, core: &str) -> Vec<u8> {
    wat::module(&resolve(), world, ::wat::parse_str(core).unwrap())
}

/// Writes a line to stderr as C's library does, and looks at the clock.
const PREVIEW1: &str = r#"
    (import "wasi_snapshot_preview1" "fd_write"
        (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get"
        (func $clock_time_get (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_open"
        (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (data (i32.const 256) "\10\01\00\00\06\00\00\00")
    (data (i32.const 272) "hello\n")
"#;

/// Traps unless all of it does what it should.
const USES_PREVIEW1: &str = "
    (if (i32.ne (call $fd_write (i32.const 2) (i32.const 256) (i32.const 1) (i32.const 300))
                (i32.const 0)) (then unreachable))
    (if (i32.ne (i32.load (i32.const 300)) (i32.const 6)) (then unreachable))
    (if (i32.ne (call $clock_time_get (i32.const 0) (i64.const 1) (i32.const 304))
                (i32.const 0)) (then unreachable))
    (if (i64.lt_u (i64.load (i32.const 304)) (i64.const 1600000000000000000))
        (then unreachable))
    (if (i32.eq (call $path_open (i32.const 3) (i32.const 0) (i32.const 272) (i32.const 5)
                    (i32.const 0) (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 320))
                (i32.const 0)) (then unreachable))
";

#[tokio::test]
async fn a_core_module_for_wasip1_is_wrapped() {
    let schema = r#"{"type": "object"}"#;
    // What is wrapped around it takes a page of its memory.
    let core = describing(PREVIEW1, USES_PREVIEW1, "wrapped", "1.2.3", schema)
        .replace("\"memory\") 1)", "\"memory\") 3)")
        .replace("i32.const 65528", "i32.const 65536");
    let module = module("quiet", &core);
    let plugin = sandbox().load(module.clone()).await.unwrap();
    assert_eq!(plugin.name.as_str(), "wrapped");
    assert_eq!(plugin.imports, BTreeSet::new());
    // The file's own, not that of what was made of it.
    assert_eq!(plugin.digest, Digest::of(&module));

    let anatomy = Anatomy::of(&module, &Room::default()).unwrap();
    assert_eq!(anatomy.form, Form::CoreModule);
    let wasi = |name: &String| name.starts_with("wasi:") && name.contains("@0.2.");
    assert!(anatomy.imports.iter().any(wasi), "{:?}", anatomy.imports);
}

#[tokio::test]
async fn what_a_core_module_imports_is_what_it_asks_for() {
    let core = format!(
        "(module {} {}",
        r#"(import "sentinel:plugin/docker@0.1.0" "start"
            (func (param i32 i32 i32 i32 i32)))"#,
        good("").trim_start_matches("(module")
    );
    let anatomy = Anatomy::of(&module("looks", &core), &Room::default()).unwrap();
    assert_eq!(
        anatomy.asks_for,
        BTreeSet::from([Import::Docker(DockerAction::Start)])
    );
}

#[tokio::test]
async fn a_program_is_no_plugin() {
    let core = describing("(func (export \"_start\"))", "", "a", "1.0.0", "{}");
    let (error, text) = refused(module("quiet", &core)).await;
    assert!(matches!(error, LoadError::Program));
    assert!(text.contains("-mexec-model=reactor"), "{text}");
}

#[tokio::test]
async fn a_core_module_that_does_not_keep_its_word() {
    let (error, text) = refused(module("quiet", "(module)")).await;
    assert!(matches!(error, LoadError::Unwrappable { .. }), "{error:?}");
    assert!(text.contains("describe"), "{text}");
    let core = describing(r#"(import "env" "exec" (func))"#, "", "a", "1.0.0", "{}");
    let (_, text) = refused(module("quiet", &core)).await;
    assert!(text.contains("env"), "{text}");
}

#[tokio::test]
async fn a_file_that_was_cut_short() {
    let whole = component("quiet", Some(&good("")));
    for length in [5, 8, whole.len() / 2, whole.len() - 1] {
        let (error, text) = refused(whole[..length].to_vec()).await;
        assert!(
            matches!(
                error,
                LoadError::Damaged { .. } | LoadError::OtherWorld { .. }
            ),
            "{length}: {text}"
        );
    }
}

#[tokio::test]
async fn a_component_for_another_world() {
    let (_, text) = refused(component("another", None)).await;
    assert!(
        text.starts_with(
            "a component for another world: it does not export `describe` and `remediate`"
        ),
        "{text}"
    );
    let (_, text) = refused(component("half", None)).await;
    assert!(text.contains("does not export `remediate`;"), "{text}");
}

#[tokio::test]
async fn imports_that_are_not_served() {
    let (_, text) = refused(component("spies", None)).await;
    assert!(
        text.starts_with("it imports `test:guests/secrets`, which is neither in"),
        "{text}"
    );
}

#[tokio::test]
async fn another_version_of_the_contract() {
    let mut resolve = Resolve::default();
    let wit = "package sentinel:plugin@0.2.0;
        interface log { write: func(message: string); }
        world w { import log; export describe: func(); export remediate: func(); }";
    resolve.push_source("w.wit", wit).unwrap();
    let (_, text) = refused(component_of(&resolve, "w", None)).await;
    assert!(
        text.starts_with("it imports `sentinel:plugin/log@0.2.0`, and this version of sentinel serves sentinel:plugin@0.1.0"),
        "{text}"
    );
}

#[tokio::test]
async fn other_types_than_those_of_the_contract() {
    for (wit, function) in [
        (
            "package sentinel:plugin@0.1.0;
            interface log { write: func(message: string); }
            world w { import log; export describe: func(); export remediate: func(); }",
            "`sentinel:plugin/log@0.1.0#write` has other types",
        ),
        (
            "package sentinel:plugin@0.1.0;
            world w { export describe: func() -> u32; export remediate: func(); }",
            "`describe` has other types",
        ),
    ] {
        let mut resolve = Resolve::default();
        resolve.push_source("w.wit", wit).unwrap();
        let (_, text) = refused(component_of(&resolve, "w", None)).await;
        assert!(text.starts_with(function), "{text}");
    }
}

/// What there is of WASI holds nothing: no environment, no folder, no socket.
#[tokio::test]
async fn wasi_is_empty() {
    let packages = [
        "package wasi:cli@0.2.0;
        interface environment { get-environment: func() -> list<tuple<string, string>>; }",
        "package wasi:filesystem@0.2.0;
        interface types { resource descriptor; }
        interface preopens {
            use types.{descriptor};
            get-directories: func() -> list<tuple<descriptor, string>>;
        }",
        "package wasi:sockets@0.2.0;
        interface network {
            enum error-code {
                unknown, access-denied, not-supported, invalid-argument, out-of-memory,
                timeout, concurrency-conflict, not-in-progress, would-block, invalid-state,
                new-socket-limit, address-not-bindable, address-in-use, remote-unreachable,
                connection-refused, connection-reset, connection-aborted,
                datagram-too-large, name-unresolvable, temporary-resolver-failure,
                permanent-resolver-failure,
            }
            enum ip-address-family { ipv4, ipv6 }
        }
        interface tcp { resource tcp-socket; }
        interface tcp-create-socket {
            use network.{error-code, ip-address-family};
            use tcp.{tcp-socket};
            create-tcp-socket: func(address-family: ip-address-family) -> result<tcp-socket, error-code>;
        }",
    ];
    let mut resolve = resolve();
    for package in packages {
        resolve.push_source("wasi.wit", package).unwrap();
    }
    let world = "package test:wasi;
        world tries {
            use sentinel:plugin/types@0.1.0.{description, incident, outcome, failure};
            import wasi:cli/environment@0.2.0;
            import wasi:filesystem/preopens@0.2.0;
            import wasi:sockets/tcp-create-socket@0.2.0;
            export describe: func() -> description;
            export remediate: func(incident: incident) -> result<outcome, failure>;
        }";
    resolve.push_source("tries.wit", world).unwrap();
    // Each traps unless its list is empty, or the socket is refused as access-denied.
    let core = describing(
        r#"(import "wasi:cli/environment@0.2.0" "get-environment" (func $environment (param i32)))
        (import "wasi:filesystem/preopens@0.2.0" "get-directories" (func $folders (param i32)))
        (import "wasi:sockets/tcp-create-socket@0.2.0" "create-tcp-socket"
            (func $socket (param i32 i32)))"#,
        "(call $environment (i32.const 0))
        (if (i32.load (i32.const 4)) (then unreachable))
        (call $folders (i32.const 0))
        (if (i32.load (i32.const 4)) (then unreachable))
        (call $socket (i32.const 0) (i32.const 0))
        (if (i32.ne (i32.load8_u (i32.const 0)) (i32.const 1)) (then unreachable))
        (if (i32.ne (i32.load8_u (i32.const 4)) (i32.const 1)) (then unreachable))",
        "good",
        "1.2.3",
        "{}",
    );
    let plugin = sandbox()
        .load(component_of(&resolve, "tries", Some(&core)))
        .await
        .unwrap();
    assert_eq!(plugin.imports, [].into());
}

#[tokio::test]
async fn instructions_that_are_switched_off() {
    let core = good("").replace("(memory ", "(tag) (memory ");
    let (error, text) = refused(component("quiet", Some(&core))).await;
    assert!(matches!(error, LoadError::Compile { .. }), "{text}");
    assert!(
        text.starts_with("it cannot be compiled: exceptions proposal not enabled"),
        "{text}"
    );
}

#[tokio::test]
async fn a_compilation_that_takes_too_long() {
    let sandbox = Sandbox::new(SandboxConfig {
        compile_timeout: Duration::from_millis(1),
        ..SandboxConfig::default()
    })
    .unwrap();
    let error = sandbox.load(guest("hostile")).await.unwrap_err();
    assert!(
        matches!(error, LoadError::CompileTimedOut { .. }),
        "{error}"
    );
}

/// No machine has room for that many runs in advance; plugins run all the same.
#[tokio::test]
async fn a_machine_without_room_for_the_pool() {
    let sandbox = Sandbox::new(SandboxConfig {
        max_runs: 1 << 24,
        ..SandboxConfig::default()
    })
    .unwrap();
    let plugin = sandbox.load(component("quiet", Some(&good("")))).await;
    assert_eq!(plugin.unwrap().name.as_str(), "good");
}

#[tokio::test]
async fn more_memory_than_any_run_gets() {
    let core = good("").replace("\"memory\") 4)", "\"memory\") 1025)");
    let (_, text) = refused(component("quiet", Some(&core))).await;
    assert!(
        text.starts_with(
            "it needs 67174400 bytes of memory from the start, and a plugin may have 67108864"
        ),
        "{text}"
    );
}

#[tokio::test]
async fn a_file_that_is_too_large() {
    let sandbox = Sandbox::new(SandboxConfig {
        max_plugin_size: 100,
        ..SandboxConfig::default()
    })
    .unwrap();
    let error = sandbox.load(vec![0; 101]).await.unwrap_err();
    assert!(matches!(
        error,
        LoadError::TooLarge {
            size: 101,
            limit: 100
        }
    ));
}

#[tokio::test]
async fn describe_that_traps() {
    let (_, text) = refused(component("quiet", None)).await;
    assert!(
        text.starts_with("it was started and asked to `describe` itself, and it trapped: wasm trap: wasm `unreachable` instruction executed"),
        "{text}"
    );
}

#[tokio::test]
async fn describe_that_does_not_end() {
    let loops = good("(loop br 0)");
    let starts = describing(
        "(func $spin (loop br 0)) (start $spin)",
        "",
        "good",
        "1.2.3",
        "{}",
    );
    for core in [loops, starts] {
        let began = Instant::now();
        let (error, text) = refused(component("quiet", Some(&core))).await;
        assert!(
            matches!(
                error,
                LoadError::Describe(RunFailure::OutOfCpu { limit_ms: 200 })
            ),
            "{text}"
        );
        assert!(began.elapsed() < Duration::from_secs(8));
    }
}

#[tokio::test]
async fn describe_may_call_nothing_but_log() {
    let core = describing(
        r#"(import "sentinel:plugin/clock@0.1.0" "elapsed" (func $elapsed (result i64)))"#,
        "call $elapsed drop",
        "good",
        "1.2.3",
        "{}",
    );
    let (_, text) = refused(component("tells-time", Some(&core))).await;
    assert!(
        text.contains("`clock.elapsed` is not served in `describe`"),
        "{text}"
    );
}

#[tokio::test]
async fn what_describe_says_is_checked() {
    let object = r#"{"type": "object"}"#;
    for (name, version, schema, expected) in [
        (
            "Bad Name",
            "1.0.0",
            object,
            "what `describe` gave as its name is none: `Bad Name` is no plugin name",
        ),
        (
            "good",
            "one",
            object,
            "`describe` gave the version `one`, which is no semantic version",
        ),
        ("good", "1.0.0", "", "it is no JSON"),
        ("good", "1.0.0", "[]", "it is no JSON object"),
        (
            "good",
            "1.0.0",
            r#"{"type": "strin"}"#,
            "no JSON Schema (draft 2020-12): at /type:",
        ),
        // Look-ahead, which only a backtracking engine has.
        (
            "good",
            "1.0.0",
            r#"{"pattern": "(?=a)b"}"#,
            "no JSON Schema",
        ),
        (
            "good",
            "1.0.0",
            r#"{"$ref": "http://localhost/schema.json"}"#,
            "leads out of it",
        ),
    ] {
        let core = describing("", "", name, version, schema);
        let (_, text) = refused(component("quiet", Some(&core))).await;
        assert!(text.contains(expected), "{text}");
    }
}

/// A schema in which each of so many definitions names the one below it twice: two to the
/// power of that many parts.
fn fan(levels: u32) -> String {
    let mut defs = serde_json::Map::new();
    defs.insert("d0".to_owned(), json!({"type": ["object", "string"]}));
    for level in 1..=levels {
        let below = json!({"$ref": format!("#/$defs/d{}", level - 1)});
        defs.insert(format!("d{level}"), json!({"allOf": [below, below]}));
    }
    json!({"type": "object", "$defs": defs, "allOf": [{"$ref": format!("#/$defs/d{levels}")}]})
        .to_string()
}

/// Twice as long a schema takes no longer, also when its machine code was kept by a version
/// that looked at no schema.
#[tokio::test]
async fn no_schema_keeps_anybody_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let store = CodeStore::open(&folder.path().join("code"), &folder.path().join("key")).unwrap();
    let sandbox = Sandbox::new(SandboxConfig {
        store: Some(store),
        ..SandboxConfig::default()
    })
    .unwrap();
    for levels in [34, 68, 136] {
        let core = describing("", "", "good", "1.0.0", &fan(levels));
        let bytes = component("quiet", Some(&core));
        // The first time it is compiled, described and kept, the second time it is found.
        for _ in 0..2 {
            let loading = sandbox.load(bytes.clone());
            let loaded = tokio::time::timeout(Duration::from_secs(60), loading).await;
            let error = loaded.expect("it does not hang").unwrap_err();
            assert!(
                matches!(error, LoadError::SchemaTooCostly { .. }),
                "{error}"
            );
        }
    }
    let core = describing("", "", "good", "1.0.0", &fan(8));
    let plugin = sandbox.load(component("quiet", Some(&core))).await.unwrap();
    assert_eq!(plugin.validate_params(&json!({})), []);
    // A run's params are looked at elsewhere when that takes a while, and refused when it would
    // take long.
    let many: serde_json::Map<String, serde_json::Value> = (0..50_000)
        .map(|at| (format!("p{at}"), json!(at)))
        .collect();
    let some: serde_json::Map<String, serde_json::Value> =
        (0..500).map(|at| (format!("p{at}"), json!(at))).collect();
    let (many, some) = (json!(many), json!(some));
    let wrong = sandbox.check_params(&plugin, &many).await.unwrap();
    assert!(wrong[0].message.contains("too large"), "{wrong:?}");
    assert_eq!(sandbox.check_params(&plugin, &some).await.unwrap(), []);
}

#[tokio::test]
async fn a_plugin_is_what_it_says() {
    let core = describing(
        r#"(import "sentinel:plugin/docker@0.1.0" "inspect"
            (func (param i32 i32 i32 i32 i32)))"#,
        "",
        "good",
        "1.2.3-rc.1",
        r#"{"type": "object", "required": ["grace"],
            "properties": {"grace": {"type": "integer"}}}"#,
    );
    let bytes = component("looks", Some(&core));
    let digest = Digest::of(&bytes);
    let plugin = sandbox().load(bytes).await.unwrap();
    assert_eq!(plugin.digest, digest);
    assert_eq!(plugin.name.as_str(), "good");
    assert_eq!(plugin.version.to_string(), "1.2.3-rc.1");
    assert_eq!(plugin.summary, "A summary.");
    assert_eq!(plugin.params_schema["required"], json!(["grace"]));
    // Function by function: the world imports all of docker, the plugin uses one.
    assert_eq!(
        plugin.imports,
        BTreeSet::from([Import::Docker(DockerAction::Inspect)])
    );

    assert_eq!(plugin.validate_params(&json!({"grace": 5})), []);
    let errors = plugin.validate_params(&json!({"grace": "5s"}));
    assert_eq!(errors.len(), 1);
    assert_eq!(
        (errors[0].path.as_str(), errors[0].keyword.as_str()),
        ("/grace", "type")
    );
    let errors = plugin.validate_params(&json!({}));
    assert_eq!(
        (errors[0].path.as_str(), errors[0].keyword.as_str()),
        ("", "required")
    );
}

#[tokio::test]
async fn the_shipped_plugins_ask_for_what_they_need() {
    let sandbox = sandbox();
    let restart = sandbox.load(guest("docker-restart")).await.unwrap();
    assert_eq!(restart.name.as_str(), "docker-restart");
    assert_eq!(
        restart.imports,
        [
            DockerAction::Inspect,
            DockerAction::Start,
            DockerAction::Restart
        ]
        .map(Import::Docker)
        .into()
    );
    let ansible = sandbox.load(guest("ansible-playbook")).await.unwrap();
    assert_eq!(ansible.imports, [Import::Ansible].into());
}

/// Dropping a runtime where async code runs panics; dropping a sandbox does not.
#[tokio::test]
async fn a_sandbox_can_be_dropped_anywhere() {
    drop(sandbox());
    tokio::task::spawn_blocking(|| drop(sandbox()))
        .await
        .unwrap();
}
