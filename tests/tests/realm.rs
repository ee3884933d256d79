//! Where a registry's password goes, and where not, whatever the registry says of other places. The registry is
//! Debian's real one where that can be told to say such things.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sentinel_tests::daemon::{Said, said};
use sentinel_tests::receiver::Receiver;
use sentinel_tests::registry::{Registry, Wants, certificate};
use serde_json::{Value, json};

const PASSWORD: &str = "se:cret-word";

/// Somebody who is logged in at a registry.
struct Author(tempfile::TempDir);

impl Author {
    fn new(host: &str, login: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = json!({ "auths": { host: login } });
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        Self(folder)
    }

    fn ask(&self, args: &[&str]) -> Said {
        let mut command = std::process::Command::new(sentinel_tests::built(
            "SENTINEL_BIN",
            "target/release/sentinel",
        ));
        command
            .arg("plugin")
            .args(args)
            .current_dir(self.0.path())
            .env_remove("SENTINEL_CONFIG")
            .env("DOCKER_CONFIG", self.0.path())
            .stdin(Stdio::null());
        said(&mut command)
    }
}

/// What `docker login` leaves: a password, or what is left where a registry gives a token for it.
fn logins() -> [Value; 2] {
    let auth = STANDARD.encode(format!("ann:{PASSWORD}"));
    let token = STANDARD.encode("<token>:");
    [
        json!({ "auth": auth }),
        json!({ "auth": token, "identitytoken": "se:cret-token" }),
    ]
}

fn host(reference: &str) -> &str {
    reference.split_once('/').unwrap().0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_realm_elsewhere_gets_no_password_in_clear() {
    let keys = tempfile::tempdir().unwrap();
    certificate(keys.path());
    let certificate = keys.path().join("cert.pem");
    let elsewhere = Receiver::at("0.0.0.0:0".parse().unwrap(), |_| 401).await;
    let port = elsewhere.address().port();
    let file = sentinel_tests::plugin("docker-restart")
        .display()
        .to_string();
    // Both lead to this machine here. Elsewhere the one is a name that somebody answers for.
    for realm in [
        format!("http://localhost:{port}/token"),
        format!("http://0.0.0.0:{port}/token"),
    ] {
        let registry = Registry::start(Wants::Token(&realm, &certificate)).await;
        let reference = registry.reference("team/x:1");
        for login in logins() {
            let author = Author::new(host(&reference), &login);
            for args in [
                ["pull", &*reference, "--out=pulled.wasm"],
                ["push", &*file, &*reference],
            ] {
                let said = author.ask(&args);
                assert_eq!(said.code, 1, "{args:?}: {}", said.err);
                assert!(said.err.contains("in clear to"), "{args:?}: {}", said.err);
                assert!(said.err.contains(&realm), "{args:?}: {}", said.err);
                assert!(!said.err.contains("cret"), "{args:?}: {}", said.err);
            }
        }
    }
    let told = elsewhere.told();
    assert!(told.is_empty(), "{told:?}");
    // By its address on loopback nobody is between, so it would have come.
    let realm = format!("http://127.0.0.1:{port}/token");
    let registry = Registry::start(Wants::Token(&realm, &certificate)).await;
    let reference = registry.reference("team/x:1");
    for login in logins() {
        let author = Author::new(host(&reference), &login);
        author.ask(&["pull", &reference, "--out=pulled.wasm"]);
    }
    let told = elsewhere.told();
    let basic = STANDARD.encode(format!("ann:{PASSWORD}"));
    assert!(
        told.iter().any(|told| told.headers.contains(&basic)),
        "{told:?}"
    );
    assert!(
        told.iter().any(|told| told.body.contains("cret-token")),
        "{told:?}"
    );
}

/// A server that answers every request as `answer` makes of its head: a status line and headers.
fn server(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut connection = connection;
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n")
                    && connection.read(&mut byte).is_ok_and(|read| read == 1)
                {
                    head.extend(byte);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let answer = format!(
                    "HTTP/1.1 {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
                    answer(&head)
                );
                drop(connection.write_all(answer.as_bytes()));
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_realm_sends_on_nothing_follows_that_is_secret() {
    let keys = tempfile::tempdir().unwrap();
    certificate(keys.path());
    let certificate = keys.path().join("cert.pem");
    for status in [
        "302 Found",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ] {
        let elsewhere = Receiver::new(|_| 200).await;
        let to = elsewhere.url("/token");
        let tokens = server(move |_| format!("{status}\r\nlocation: {to}"));
        let realm = format!("http://{tokens}/token");
        let registry = Registry::start(Wants::Token(&realm, &certificate)).await;
        let reference = registry.reference("team/x:1");
        for login in logins() {
            let author = Author::new(host(&reference), &login);
            let said = author.ask(&["pull", &reference, "--out=pulled.wasm"]);
            assert_eq!(said.code, 1, "{}", said.err);
            assert!(said.err.contains("sends elsewhere"), "{}", said.err);
        }
        let told = elsewhere.told();
        assert!(told.is_empty(), "{status}: {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_kept_elsewhere_is_asked_for_without_the_password() {
    // Debian's registry keeps everything itself, so this one is a stand-in.
    let elsewhere = Receiver::new(|_| 404).await;
    let to = elsewhere.url("");
    let registry = server(move |head| {
        let path = head.split(' ').nth(1).unwrap_or_default();
        if head.to_lowercase().contains("\r\nauthorization: basic ") {
            format!("307 Temporary Redirect\r\nlocation: {to}{path}")
        } else {
            "401 Unauthorized\r\nwww-authenticate: Basic realm=\"x\"".to_owned()
        }
    });
    let author = Author::new(&registry, &logins()[0]);
    let reference = format!("{registry}/team/x:1");
    let said = author.ask(&["pull", &reference, "--out=pulled.wasm"]);
    assert_eq!(said.code, 1, "{}", said.err);
    let told = elsewhere.told();
    assert!(!told.is_empty(), "it goes there: {}", said.err);
    for told in told {
        assert!(
            !told.headers.to_lowercase().contains("authorization"),
            "{}",
            told.headers
        );
    }
}
