//! Plugins by OCI registries, and policies that are pinned to versions: through the real
//! command and daemon, against Debian's real registry.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use sentinel_tests::daemon::{Daemon, Said, said};
use sentinel_tests::eventually;
use sentinel_tests::keys::Keys;
use sentinel_tests::payload::Alert;
use sentinel_tests::registry::{Registry, Wants, certificate};
use serde_json::{Value, json};

/// Somebody with plugins, and no daemon.
struct Author(tempfile::TempDir);

impl Author {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(sentinel_tests::built(
            "SENTINEL_BIN",
            "target/release/sentinel",
        ));
        command
            .arg("plugin")
            .args(args)
            .current_dir(self.0.path())
            .env_remove("SENTINEL_CONFIG")
            // Nobody's real logins.
            .env("DOCKER_CONFIG", self.0.path())
            .stdin(Stdio::null());
        command
    }

    fn ask(&self, args: &[&str]) -> Said {
        said(&mut self.command(args))
    }

    fn done(&self, args: &[&str]) -> Value {
        let mut all = args.to_vec();
        all.extend(["--output", "json"]);
        let said = self.ask(&all);
        assert_eq!(said.code, 0, "{args:?}: {}", said.err);
        said.json()
    }

    fn refused(&self, args: &[&str], code: i32, parts: &[&str]) {
        let said = self.ask(args);
        assert_eq!(said.code, code, "{args:?}: {}{}", said.out, said.err);
        for part in parts {
            assert!(said.err.contains(part), "{part}: {args:?}: {}", said.err);
        }
        // Whatever went wrong, there is no file, and no half of one.
        let left = std::fs::read_dir(self.0.path()).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        let pulled = |name: &&std::ffi::OsString| name.to_string_lossy().contains("pulled");
        assert_eq!(left.iter().find(pulled), None, "{args:?}");
    }

    /// What `docker login` leaves.
    fn login(&self, host: &str, user: &str, password: &str) {
        let auth = STANDARD.encode(format!("{user}:{password}"));
        let config = json!({ "auths": { host: { "auth": auth } } });
        std::fs::write(self.path("config.json"), config.to_string()).unwrap();
    }
}

fn file(name: &str) -> String {
    sentinel_tests::plugin(name).display().to_string()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("text: {value}"))
}

fn digest_of(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("x"), bytes).unwrap();
    let sum = Command::new("sha256sum")
        .arg(folder.path().join("x"))
        .output()
        .unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    format!("sha256:{}", sum.split(' ').next().unwrap())
}

/// What a manifest says of a blob, true or not.
fn blob(media_type: &str, bytes: &[u8], size: usize) -> Value {
    json!({ "mediaType": media_type, "digest": digest_of(bytes), "size": size })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_goes_to_a_registry_and_comes_back_the_same() {
    let (author, registry) = (Author::new(), Registry::start(Wants::Nothing).await);
    let reference = registry.reference("team/docker-restart:1.2.0");
    let wasm = std::fs::read(file("docker-restart")).unwrap();
    let pushed = author.done(&["push", &file("docker-restart"), &reference]);
    assert_eq!(text(&pushed["digest"]), digest_of(&wasm));
    let by_digest = text(&pushed["reference"]);
    assert!(by_digest.starts_with(&registry.reference("team/docker-restart@sha256:")));

    for from in [&*reference, by_digest, &format!("oci://{reference}")] {
        let pulled = author.done(&["pull", from, "-o", "pulled.wasm"]);
        assert_eq!(pulled["reference"], pushed["reference"]);
        assert_eq!(pulled["digest"], pushed["digest"]);
        assert_eq!(std::fs::read(author.path("pulled.wasm")).unwrap(), wasm);
        std::fs::remove_file(author.path("pulled.wasm")).unwrap();
    }
    // By default it goes by its name.
    author.done(&["pull", &reference]);
    assert_eq!(
        std::fs::read(author.path("docker-restart.wasm")).unwrap(),
        wasm
    );
    // The same file is the same artifact, whenever it is pushed.
    let again = author.done(&["push", &file("docker-restart"), &reference]);
    assert_eq!(again["reference"], pushed["reference"]);

    // What others read of it: CNCF's layout for WebAssembly.
    let manifest = registry.manifest("team/docker-restart", "1.2.0").await;
    assert_eq!(
        manifest["config"]["mediaType"],
        "application/vnd.wasm.config.v0+json"
    );
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 1);
    assert_eq!(layers[0]["mediaType"], "application/wasm");
    assert_eq!(layers[0]["digest"], pushed["digest"]);
    let annotations = &manifest["annotations"];
    assert_eq!(
        annotations["org.opencontainers.image.title"],
        "docker-restart"
    );
    assert_eq!(annotations["org.opencontainers.image.version"], "0.1.0");
    assert!(text(&annotations["infra-sentinel.asks-for"]).contains("docker.restart"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_core_module_travels_as_what_it_is() {
    let (author, registry) = (Author::new(), Registry::start(Wants::Nothing).await);
    for args in [&["new", "small", "--lang", "c"][..], &["build", "small"]] {
        let said = author.ask(args);
        assert_eq!(said.code, 0, "{args:?}: {}", said.err);
    }
    let reference = registry.reference("small:1");
    author.done(&["push", "small/small.wasm", &reference]);
    let pulled = author.done(&["pull", &reference, "-o", "pulled.wasm"]);
    assert_eq!(pulled["name"], "small");
    let bytes = std::fs::read(author.path("pulled.wasm")).unwrap();
    assert_eq!(bytes[4..8], [1, 0, 0, 0], "a core module");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_or_lost_at_the_registry_is_refused() {
    let (author, registry) = (Author::new(), Registry::start(Wants::Nothing).await);
    let reference = registry.reference("x:1");
    let pushed = author.done(&["push", &file("docker-restart"), &reference]);
    let by_digest = text(&pushed["reference"]);
    let pull = |from: &str, code, parts: &[&str]| {
        author.refused(&["pull", from, "-o", "pulled.wasm"], code, parts);
    };
    registry.damage(text(&pushed["digest"]));
    pull(
        &reference,
        1,
        &["is something else", "push the plugin again"],
    );
    pull(by_digest, 1, &["is something else"]);
    registry.lose(text(&pushed["digest"]));
    pull(&reference, 1, &["there is no blob"]);
    let (_, manifest) = by_digest.split_once('@').unwrap();
    registry.damage(manifest);
    pull(by_digest, 1, &[]);
    pull(&reference, 1, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_plugin_or_too_large_is_refused() {
    let (author, registry) = (Author::new(), Registry::start(Wants::Nothing).await);
    let pull = |tag: &str, parts: &[&str]| {
        let from = registry.reference(&format!("any:{tag}"));
        author.refused(&["pull", &from, "-o", "pulled.wasm"], 1, parts);
    };
    let wasm = std::fs::read(file("docker-restart")).unwrap();
    let empty_module = b"\0asm\x01\0\0\0";
    for bytes in [b"{}".as_slice(), b"nonsense", empty_module, &wasm] {
        registry.put_blob("any", &digest_of(bytes), bytes).await;
    }
    let config = "application/vnd.wasm.config.v0+json";
    let cases = [
        (
            "text",
            "application/vnd.example+json",
            blob("text/plain", b"nonsense", 8),
            &["is no plugin", "application/vnd.example+json"][..],
        ),
        (
            "layer",
            config,
            blob("text/plain", b"nonsense", 8),
            &["is no plugin", "text/plain"],
        ),
        (
            "nonsense",
            config,
            blob("application/wasm", b"nonsense", 8),
            &["nothing that the daemon would take"],
        ),
        (
            "module",
            config,
            blob("application/wasm", empty_module, 8),
            &["nothing that the daemon would take"],
        ),
        // Refused by what the manifest says, before anything is read.
        (
            "large",
            config,
            blob("application/wasm", &wasm, 1 << 30),
            &["has 1073741824 bytes, and may have 67108864"],
        ),
        // And by what comes, where the manifest says less.
        (
            "larger",
            config,
            blob("application/wasm", &wasm, 100),
            &["it has more than 100 bytes"],
        ),
    ];
    for (tag, config, layer, parts) in cases {
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": blob(config, b"{}", 2),
            "layers": [layer],
        });
        registry.put_manifest("any", tag, &manifest).await;
        pull(tag, parts);
    }
    pull("none", &["there is no tag none in"]);
    // Nor is it pushed.
    std::fs::write(author.path("x.wasm"), b"nonsense").unwrap();
    let to = registry.reference("x:1");
    author.refused(&["push", "x.wasm", &to], 1, &["x.wasm"]);
    author.refused(&["pull", &to, "-o", "pulled.wasm"], 1, &["there is no"]);
    // A push that names a digest cannot know it.
    let to = format!("{}@{}", registry.reference("x"), digest_of(b"x"));
    author.refused(&["push", &file("docker-restart"), &to], 1, &["name a tag"]);
    // A folder that is not there.
    let from = registry.reference("any:module");
    author.done(&["push", &file("docker-restart"), &from]);
    let nowhere = &["pull", &from, "-o", "nowhere/pulled.wasm"];
    author.refused(nowhere, 73, &["cannot be written"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_wants_a_password_gets_one() {
    let registry = Registry::start(Wants::Password("ann", "se:cret")).await;
    let author = Author::new();
    let reference = registry.reference("team/x:1");
    let push = ["push", &file("docker-restart"), &reference];
    author.refused(
        &push,
        1,
        &["wants to know who asks", "docker login", "config.json"],
    );

    let given = |password: &str| {
        let mut args = push.to_vec();
        args.extend(["--username", "ann", "--password-stdin"]);
        let mut child = author
            .command(&args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(password.as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.contains(password.trim()) || password.is_empty());
        (output.status.code().unwrap(), said)
    };
    let (code, told) = given("guessed\n");
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("does not take the password of ann"), "{told}");
    assert_eq!(given("").0, 1);
    assert_eq!(given("se:cret\n"), (0, String::new()));

    let (host, _) = reference.split_once('/').unwrap();
    author.login(host, "ann", "guessed");
    let pull = ["pull", &reference, "-o", "pulled.wasm"];
    author.refused(&pull, 1, &["of ann", "config.json"]);
    author.login(host, "ann", "se:cret");
    author.done(&pull);

    // Docker's helpers are asked by their own protocol.
    let author = Author::new();
    let helper = author.path("docker-credential-test");
    std::fs::write(
        &helper,
        format!(
            "#!/bin/sh\n[ \"$1\" = get ] && [ \"$(cat)\" = {host} ] || exit 1\n\
             echo '{{\"ServerURL\":\"\",\"Username\":\"ann\",\"Secret\":\"se:cret\"}}'\n"
        ),
    )
    .unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&helper, mode).unwrap();
    let config = json!({ "credHelpers": { host: "test" } });
    std::fs::write(author.path("config.json"), config.to_string()).unwrap();
    author.refused(&pull, 1, &["docker-credential-test", "cannot be started"]);
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", author.0.path().display());
    let asked = said(author.command(&pull).env("PATH", path));
    assert_eq!(asked.code, 0, "{}", asked.err);
}

/// Gives tokens to ann, as the token server of a large registry does: the registry sends
/// whoever asks to it, and believes what it signs.
struct TokenServer {
    url: String,
    folder: tempfile::TempDir,
}

impl TokenServer {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificate(folder.path());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        let keys = folder.path().to_owned();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && connection.read(&mut byte).unwrap() == 1 {
                    head.extend(byte);
                }
                let head = String::from_utf8(head).unwrap();
                let (status, body) = answer(&keys, &head);
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
                connection.write_all(answer.as_bytes()).unwrap();
            }
        });
        Self { url, folder }
    }
}

fn answer(keys: &Path, head: &str) -> (&'static str, String) {
    let is = |login: &str| head.contains(&format!("Basic {}", STANDARD.encode(login)));
    let (ann, bob) = (is("ann:se:cret"), is("bob:his"));
    if head.contains("Basic ") && !ann && !bob {
        return ("401 Unauthorized", "{}".to_owned());
    }
    let path = head.split(' ').nth(1).unwrap();
    let url = reqwest::Url::parse(&format!("http://x{path}")).unwrap();
    let of = |key: &str| url.query_pairs().find(|(name, _)| name == key).unwrap().1;
    let scope = of("scope");
    let mut parts = scope.split(':');
    let (_, name, actions) = (parts.next(), parts.next().unwrap(), parts.next().unwrap());
    // Everybody may pull; ann may push.
    let actions: Vec<_> = actions
        .split(',')
        .filter(|action| ann || *action == "pull")
        .collect();
    let pem = std::fs::read_to_string(keys.join("cert.pem")).unwrap();
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let header = json!({ "alg": "RS256", "typ": "JWT", "x5c": [der] });
    let now = jiff::Timestamp::now().as_second();
    let claims = json!({
        "iss": "test", "sub": "", "aud": of("service"), "jti": "1",
        "exp": now + 60, "nbf": now - 60, "iat": now,
        "access": [{ "type": "repository", "name": name, "actions": actions }],
    });
    let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encoded(&header), encoded(&claims));
    let input = keys.join("to-sign");
    std::fs::write(&input, &signed).unwrap();
    let signature = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign"])
        .arg(keys.join("key.pem"))
        .arg(input)
        .output()
        .unwrap();
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.stdout));
    // Both names, as some registries give it.
    let body = json!({ "token": token, "access_token": token });
    ("200 OK", body.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_wants_a_token_gets_one() {
    let tokens = TokenServer::start();
    let certificate = tokens.folder.path().join("cert.pem");
    let registry = Registry::start(Wants::Token(&tokens.url, &certificate)).await;
    let author = Author::new();
    let reference = registry.reference("team/x:1");
    let push = ["push", &file("docker-restart"), &reference];
    author.refused(&push, 1, &["docker login"]);
    let (host, _) = reference.split_once('/').unwrap();
    author.login(host, "ann", "guessed");
    author.refused(&push, 1, &["does not take the password of ann"]);
    author.login(host, "bob", "his");
    author.refused(&push, 1, &["does not allow you to do that with team/x"]);
    author.login(host, "ann", "se:cret");
    author.done(&push);
    // What is public needs nobody's password.
    let anyone = Author::new();
    anyone.done(&["pull", &reference, "-o", "pulled.wasm"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_answer_or_is_not_trusted_is_told_apart() {
    let author = Author::new();
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let from = format!("{nobody}/x:1");
    let pull = |from: &str, more: &[&str], code, parts: &[&str]| {
        let mut args = vec!["pull", from, "-o", "pulled.wasm"];
        args.extend(more);
        author.refused(&args, code, parts);
    };
    pull(&from, &[], 69, &["does not answer", "refused"]);
    pull("no-host/x:1", &[], 2, &["is no registry's host"]);

    let plain = Registry::start(Wants::Nothing).await;
    let from = plain.reference("x:1");
    pull(
        &from,
        &["--plain-http=false"],
        69,
        &["no trusted connection", "--plain-http"],
    );

    let registry = Registry::start(Wants::Tls).await;
    let reference = registry.reference("x:1");
    let tls = "--plain-http=false";
    pull(
        &reference,
        &[tls],
        69,
        &["no trusted connection", "SSL_CERT_FILE"],
    );
    for args in [
        ["push", &file("docker-restart"), &reference, tls],
        ["pull", &reference, "--out=pulled.wasm", tls],
    ] {
        let mut command = author.command(&args);
        let asked = said(command.env("SSL_CERT_FILE", registry.certificate()));
        assert_eq!(asked.code, 0, "{}", asked.err);
    }
    std::fs::remove_file(author.path("pulled.wasm")).unwrap();

    // Something else answers there.
    let daemon = Daemon::start(&[], "").await;
    let from = format!("{}/x:1", daemon.address());
    pull(&from, &[], 1, &["does not answer as a registry does"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_travels_along_and_is_asked_for() {
    let registry = Registry::start(Wants::Nothing).await;
    let (author, keys, stranger) = (Author::new(), Keys::new(), Keys::new());
    let wasm = std::fs::read(file("docker-restart")).unwrap();
    std::fs::write(author.path("x.wasm"), &wasm).unwrap();
    let push = |tag: &str, signature: Option<String>| {
        let beside = author.path("x.wasm.minisig");
        match signature {
            Some(signature) => std::fs::write(&beside, signature).unwrap(),
            None => std::fs::remove_file(&beside).unwrap_or_default(),
        }
        let reference = registry.reference(&format!("x:{tag}"));
        let pushed = author.done(&["push", "x.wasm", &reference]);
        (reference, text(&pushed["signature"]).to_owned())
    };
    let (unsigned, how) = push("unsigned", None);
    assert_eq!(how, "none");
    let (strange, how) = push("strange", Some(stranger.sign(&wasm)));
    assert_eq!(how, "unchecked");
    // Signed once: a signature names its second.
    let signature = keys.sign(&wasm);
    let (signed, _) = push("signed", Some(signature.clone()));

    let operator = Author::new();
    let configure = |signatures: &str| {
        let config = format!(
            "data_dir: data\nplugins_dir: plugins\npolicies_dir: policies\n\
             plugins: {{signatures: {signatures}, keys: ['{}']}}\n",
            keys.public()
        );
        std::fs::write(operator.path("sentinel.yaml"), config).unwrap();
    };
    configure("enforce");
    let pull = |from: &str| operator.done(&["pull", from, "-o", "pulled.wasm"]);
    for (from, part) in [
        (&unsigned, "it has no signature"),
        (&strange, "by none of plugins.keys"),
    ] {
        operator.refused(&["pull", from, "-o", "pulled.wasm"], 1, &[part]);
    }
    assert_eq!(pull(&signed)["signature"], "good");
    let beside = operator.path("pulled.wasm.minisig");
    assert_eq!(std::fs::read_to_string(&beside).unwrap(), signature);
    // Nor does it leave one's own house.
    std::fs::write(operator.path("x.wasm"), &wasm).unwrap();
    let said = operator.ask(&["push", "x.wasm", &registry.reference("x:mine")]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("it has no signature"), "{}", said.err);

    configure("warn");
    assert_eq!(pull(&strange)["signature"], "bad");
    // What lay there was of another version.
    assert_eq!(pull(&unsigned)["signature"], "bad");
    assert!(!beside.exists());
    configure("off");
    assert_eq!(pull(&signed)["signature"], "unchecked");
}

/// Policies, each for the alert of its name, and the plugin that each runs.
fn policies(of: &[(&str, &str)], actions: &str) -> String {
    let policy = |(name, plugin): &(&str, &str)| {
        format!(
            r#"
  - name: {name}
    match: ['alertname="{name}"']
    target: 'docker://local/infra-sentinel-test-{{{{ labels.n }}}}'
    mode: auto
    steps:
      - plugin: {plugin}
        params: {{ behaviour: changed }}
    verify: {{ alert: resolved, within: 1s, steady: 0s }}
    guards: {{ cooldown: 1s }}
    grants:
      docker: {{ containers: ['infra-sentinel-test-*'], actions: [{actions}] }}
"#
        )
    };
    let of: Vec<_> = of.iter().map(policy).collect();
    format!("policies:\n{}", of.concat())
}

fn digest(name: &str) -> String {
    digest_of(&std::fs::read(file(name)).unwrap())
}

fn ask(daemon: &Daemon, args: &[&str]) -> Said {
    said(daemon.command(args).env("USER", "ann"))
}

/// Asks for something that is done, and gives what is said of it.
fn done(daemon: &Daemon, args: &[&str]) -> String {
    let said = ask(daemon, args);
    assert_eq!(said.code, 0, "{args:?}: {}\n{}", said.err, daemon.log());
    said.out
}

fn refused(daemon: &Daemon, args: &[&str], parts: &[&str]) {
    let said = ask(daemon, args);
    assert_eq!(said.code, 1, "{args:?}: {}", said.out);
    for part in parts {
        assert!(said.err.contains(part), "{part}: {args:?}: {}", said.err);
    }
}

fn plugin(daemon: &Daemon) -> Value {
    let list = ask(daemon, &["plugin", "list", "--output", "json"]).json();
    list["plugins"][0].clone()
}

/// Waits until the plugin's one pin is to this version.
async fn wait_pinned(daemon: &Daemon, digest: &str) {
    let what = format!("the pin is to {digest}");
    eventually(&what, Duration::from_secs(10), || async {
        (plugin(daemon)["pins"][0]["digest"] == digest).then_some(())
    })
    .await;
}

/// Waits until these policies use the plugin.
async fn wait_used_by(daemon: &Daemon, policies: &[&str]) {
    let what = format!("{policies:?} serve:\n{}", daemon.log());
    eventually(&what, Duration::from_secs(10), || async {
        (plugin(daemon)["used_by"] == json!(policies)).then_some(())
    })
    .await;
}

/// Which version runs for an alert, and whether the record says that it is pinned.
async fn ran(daemon: &Daemon, id: u64, alert: &str) -> (String, bool) {
    daemon
        .deliver(&[Alert::firing(alert, &[("n", &id.to_string())])])
        .await;
    daemon.wait_end(id).await;
    let incident = daemon.incident(id).await;
    let events = incident["events"].as_array().unwrap();
    let started = events.iter().find(|event| event["kind"] == "run-started");
    let started = started.unwrap_or_else(|| panic!("no run: {incident:#}"));
    (
        text(&started["digest"]).to_owned(),
        started["pinned"] == true,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_installed_out_of_a_registry_and_what_is_new_is_told() {
    let (author, registry) = (Author::new(), Registry::start(Wants::Nothing).await);
    for (name, tag) in [("hostile", "hostile:1"), ("hostile-v3", "hostile:3")] {
        author.done(&["push", &file(name), &registry.reference(tag)]);
    }
    let [first, third] =
        ["hostile:1", "hostile:3"].map(|tag| format!("oci://{}", registry.reference(tag)));
    let daemon = Daemon::start(&[], "").await;
    let out = done(&daemon, &["plugin", "install", &first]);
    let by_digest = registry.reference("hostile@sha256:");
    assert!(
        out.contains(&format!("pulled {by_digest}")) && out.contains("hostile 0.1.0"),
        "{out}"
    );
    // A new version that wants more than is granted is told which policy that is.
    daemon.write_policies(&policies(&[("says", "hostile")], "inspect"));
    wait_used_by(&daemon, &["says"]).await;
    refused(
        &daemon,
        &["plugin", "install", &third],
        &["docker.restart", "policy says does not grant"],
    );
    daemon.write_policies(&policies(&[("says", "hostile")], "inspect, restart"));
    let out = eventually("version 3 serves", Duration::from_secs(10), || {
        let said = ask(&daemon, &["plugin", "install", &third]);
        let served = (said.code == 0).then_some(said.out);
        async move { served }
    })
    .await;
    assert!(
        out.contains("hostile 0.3.0")
            && out.contains("instead of hostile 0.1.0")
            && out.contains("it now also asks for docker.restart"),
        "{out}"
    );
    assert_eq!(plugin(&daemon)["digest"], digest("hostile-v3"));
    let none = format!("oci://{}", registry.reference("hostile:9"));
    refused(&daemon, &["plugin", "install", &none], &["no tag 9"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_policy_stays_with_its_version_while_others_move_on() {
    let [v1, v2] = ["hostile", "hostile-v2"].map(digest);
    let [first, second] = [&v1, &v2].map(|digest| format!("hostile@{digest}"));
    let set = |free: &str| policies(&[("free", free), ("pinned", &first)], "inspect");
    let mut daemon = Daemon::start(&["hostile"], &set("hostile")).await;
    assert_eq!(ran(&daemon, 1, "free").await, (v1.clone(), false));
    assert_eq!(ran(&daemon, 2, "pinned").await, (v1.clone(), true));

    let install = [
        "plugin",
        "install",
        &file("hostile-v2"),
        "--name",
        "hostile",
    ];
    let out = done(&daemon, &install);
    assert!(
        out.contains("hostile 0.2.0") && out.ends_with("pinned to it: pinned\n"),
        "{out}"
    );
    assert_eq!(ran(&daemon, 3, "free").await, (v2.clone(), false));
    assert_eq!(ran(&daemon, 4, "pinned").await, (v1.clone(), true));
    let shown = done(&daemon, &["incidents", "show", "4"]);
    assert!(shown.contains(", pinned)"), "{shown}");
    let steps = &daemon.incident(4).await["events"][0]["plan"]["steps"];
    assert_eq!(steps[0]["plugin"], first.as_str());
    assert_eq!(
        plugin(&daemon)["pins"],
        json!([{ "policy": "pinned", "digest": v1 }])
    );
    assert!(done(&daemon, &["plugin", "list"]).contains("pinned    pinned to "));

    // Over a restart, and two versions at a time.
    daemon.terminate();
    daemon.wait();
    done(&daemon, &["check"]);
    daemon.serve().await;
    assert_eq!(ran(&daemon, 5, "pinned").await, (v1.clone(), true));
    daemon.write_policies(&set(&second));
    eventually("both are pinned", Duration::from_secs(10), || async {
        (plugin(&daemon)["pins"].as_array()?.len() == 2).then_some(())
    })
    .await;
    assert_eq!(ran(&daemon, 6, "free").await, (v2, true));
    assert_eq!(ran(&daemon, 7, "pinned").await, (v1, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_that_cannot_be_kept_changes_nothing_and_says_why() {
    let [v1, v2] = ["hostile", "hostile-v2"].map(digest);
    let pinned = |digest: &str| {
        let plugin = format!("hostile@{digest}");
        policies(&[("pinned", &plugin)], "inspect")
    };
    let install = [
        "plugin",
        "install",
        &file("hostile-v2"),
        "--name",
        "hostile",
    ];
    // Nothing ever served: the daemon says what serves, what is pinned, and what to do.
    let mut daemon = Daemon::prepare(&["hostile"], &pinned(&v2));
    let check = ask(&daemon, &["check"]);
    assert_eq!(check.code, 1);
    for part in [
        "test.yaml:8:17",
        "never served here",
        &v1,
        "sentinel plugin install",
    ] {
        assert!(check.out.contains(part), "{part}: {}", check.out);
    }
    daemon.spawn();
    assert!(!daemon.wait().success());
    assert!(daemon.log().contains("never served here"));

    // While the daemon runs, what served before serves on.
    daemon.write_policies(&pinned(&v1));
    daemon.serve().await;
    daemon.write_policies(&pinned(&v2));
    daemon.wait_log("never served here").await;
    assert_eq!(ran(&daemon, 1, "pinned").await, (v1.clone(), true));
    // Once that version serves, so does the policy that waits for it.
    done(&daemon, &install);
    wait_pinned(&daemon, &v2).await;
    assert_eq!(ran(&daemon, 2, "pinned").await, (v2.clone(), true));

    // Its version is neither taken away nor given up behind its back.
    let back = ["plugin", "rollback", "hostile", "--reason", "it is slow"];
    refused(
        &daemon,
        &back,
        &[
            "policy pinned is pinned to hostile",
            "the one to be rolled back",
        ],
    );
    refused(
        &daemon,
        &["plugin", "remove", "hostile"],
        &["there is no plugin `hostile`"],
    );
    assert_eq!(ran(&daemon, 3, "pinned").await, (v2.clone(), true));
    daemon.write_policies(&pinned(&v1));
    wait_pinned(&daemon, &v1).await;
    assert_eq!(ran(&daemon, 4, "pinned").await, (v1.clone(), true));
    done(&daemon, &back);
    // What was given up serves nobody, whoever is pinned to it.
    daemon.write_policies(&pinned(&v2));
    daemon.wait_log("was rolled back: it is slow").await;
    assert_eq!(ran(&daemon, 5, "pinned").await, (v1, true));
}
