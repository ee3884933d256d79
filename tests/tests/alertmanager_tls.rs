//! An Alertmanager that speaks TLS and asks who is there: Debian's own, with a web configuration, and its own amtool
//! to tell it of an alert. Only tokens are shown to a stand-in, because Alertmanager itself knows none.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use sentinel_tests::alertmanager::Alertmanager;
use sentinel_tests::daemon::{Daemon, said};
use sentinel_tests::receiver::Receiver;
use sentinel_tests::remote::Authority;
use sentinel_tests::{eventually, unpacked};

const MISSED: &str = "sentinel_alerts_missed_total";

/// What the password is kept as by Alertmanager.
fn hashed(user: &str, password: &str) -> String {
    let made = Command::new("htpasswd")
        .args(["-Bbn", user, password])
        .output()
        .expect("htpasswd: `stack/setup/packages.sh tests` installs it");
    let line = String::from_utf8(made.stdout).unwrap();
    line.trim().split_once(':').unwrap().1.to_owned()
}

/// One that lets in `sentinel` with this password, who has a certificate of `authority`; and one alert in it.
async fn guarded(authority: &Authority, password: &str) -> Alertmanager {
    authority.sign("server", "serverAuth");
    authority.sign("client", "clientAuth");
    let path = |file: &str| authority.path(file);
    let web = format!(
        "tls_server_config: {{ cert_file: {}, key_file: {}, client_auth_type: RequireAndVerifyClientCert, client_ca_file: {} }}\nbasic_auth_users: {{ sentinel: '{}' }}\n",
        path("server.pem"),
        path("server.key"),
        path("ca.pem"),
        hashed("sentinel", password)
    );
    let alertmanager = Alertmanager::start(
        "route: { receiver: sentinel, group_wait: 0s }\nreceivers: [{ name: sentinel }]\n",
        Some(&web),
    )
    .await;
    let folder = tempfile::tempdir().unwrap();
    let http = folder.path().join("http.yml");
    let login = format!(
        "basic_auth: {{ username: sentinel, password: '{password}' }}\ntls_config: {{ ca_file: {}, cert_file: {}, key_file: {} }}\n",
        path("ca.pem"),
        path("client.pem"),
        path("client.key")
    );
    fs::write(&http, login).unwrap();
    let amtool = Command::new(unpacked("prometheus-alertmanager", "amtool"))
        .args(["alert", "add", "alertname=Guarded"])
        .arg(format!("--http.config.file={}", http.display()))
        .arg(format!(
            "--alertmanager.url=https://{}",
            alertmanager.address()
        ))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let what = String::from_utf8_lossy(&amtool.stderr);
    assert!(amtool.status.success(), "{what}{}", alertmanager.log());
    alertmanager
}

/// A daemon with this section `alertmanager`.
async fn asking(section: &str, password: &str) -> Daemon {
    let mut daemon = Daemon::prepare(&[], "");
    daemon.set("AM", password);
    daemon.write_config(&format!(
        "http: {{ secrets: {{ am: {{ env: AM }} }} }}\nalertmanager: {{ every: 1s, missed_after: 0s, unmuted: true, receiver: sentinel, {section} }}\n"
    ));
    daemon.serve().await;
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_asked_by_tls_with_a_certificate_and_a_password_and_nothing_less() {
    const PASSWORD: &str = "s3cret-word";
    let (ours, others) = (Authority::new(), Authority::new());
    others.sign("client", "clientAuth");
    let alertmanager = guarded(&ours, PASSWORD).await;
    let url = format!("url: 'https://{}'", alertmanager.address());
    let ca = format!("ca: {}", ours.path("ca.pem"));
    let client = |of: &Authority| {
        format!(
            "cert: {}, key: {}",
            of.path("client.pem"),
            of.path("client.key")
        )
    };
    let mine = client(&ours);
    let login = "basic_auth: { username: sentinel, password: am }";

    // What is wrong, and what is said of it.
    let cases = [
        (
            "the machine's authorities",
            format!("{url}, tls: {{ {mine} }}, {login}"),
            PASSWORD,
            "UnknownIssuer",
        ),
        (
            "another authority",
            format!(
                "{url}, tls: {{ ca: {}, {mine} }}, {login}",
                others.path("ca.pem")
            ),
            PASSWORD,
            "invalid peer certificate",
        ),
        (
            "no certificate",
            format!("{url}, tls: {{ {ca} }}, {login}"),
            PASSWORD,
            "alertmanager is not reached",
        ),
        (
            "a certificate of another authority",
            format!("{url}, tls: {{ {ca}, {} }}, {login}", client(&others)),
            PASSWORD,
            "alertmanager is not reached",
        ),
        (
            "no password",
            format!("{url}, tls: {{ {ca}, {mine} }}"),
            PASSWORD,
            "alertmanager answered 401: it asks who is there",
        ),
        (
            "another password",
            format!("{url}, tls: {{ {ca}, {mine} }}, {login}"),
            "s3cret-guess",
            "alertmanager answered 401: it does not take `alertmanager.basic_auth`",
        ),
        (
            "without TLS",
            format!("url: 'http://{}', {login}", alertmanager.address()),
            PASSWORD,
            "alertmanager answered 400: Client sent an HTTP request to an HTTPS server",
        ),
    ];
    for (what, section, password, says) in cases {
        let daemon = asking(&section, password).await;
        eventually(what, Duration::from_secs(20), || async {
            daemon.log().contains("alertmanager").then_some(())
        })
        .await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let log = daemon.log();
        assert!(log.contains(says), "{what}: {log}");
        assert!(daemon.metric(MISSED).await < 0.1, "{what}: {log}");
        assert!(!log.contains("s3cret"), "{what}: {log}");
        // It is told once, and the daemon takes alerts all the same.
        let warnings = log.lines().filter(|line| line.contains(" WARN "));
        let told = warnings.filter(|line| line.contains(says)).count();
        assert_eq!(told, 1, "{what}: {log}");
    }

    // By its name as well as by its address.
    let port = alertmanager.address().port();
    for host in ["127.0.0.1", "localhost"] {
        let section = format!("url: 'https://{host}:{port}', tls: {{ {ca}, {mine} }}, {login}");
        let daemon = asking(&section, PASSWORD).await;
        eventually(&daemon.log(), Duration::from_secs(20), || async {
            (daemon.metric(MISSED).await >= 1.0).then_some(())
        })
        .await;
        assert!(!daemon.log().contains("s3cret"), "{}", daemon.log());
    }
    // The certificate is for these two, and no other name that leads there.
    let section = format!("url: 'https://127.0.0.2:{port}', tls: {{ {ca}, {mine} }}, {login}");
    let elsewhere = asking(&section, PASSWORD).await;
    elsewhere.wait_log("alertmanager is not reached").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_shown_to_it() {
    // Alertmanager itself knows no tokens; a proxy before it does.
    let proxy = Receiver::saying("127.0.0.1:0".parse().unwrap(), |_, told| {
        if told.headers.contains("authorization: Bearer s3cret-token") {
            (200, "[]".to_owned())
        } else {
            (401, String::new())
        }
    })
    .await;
    let section = format!("url: '{}', bearer: am", proxy.url(""));
    let daemon = asking(&section, "s3cret-token").await;
    eventually("it is asked", Duration::from_secs(20), || async {
        (proxy.told().len() >= 4).then_some(())
    })
    .await;
    assert!(
        !daemon.log().contains("401") && !daemon.log().contains("s3cret"),
        "{}",
        daemon.log()
    );
    let wrong = asking(&section, "s3cret-guess").await;
    wrong
        .wait_log("it does not take `alertmanager.basic_auth` or `alertmanager.bearer`")
        .await;
    assert!(!wrong.log().contains("s3cret"), "{}", wrong.log());
}

#[test]
fn a_file_that_tls_lacks_is_named_before_anything_starts() {
    let authority = Authority::new();
    authority.sign("client", "clientAuth");
    authority.sign("other", "clientAuth");
    let (ca, cert) = (authority.path("ca.pem"), authority.path("client.pem"));
    let daemon = Daemon::prepare(&[], "");
    let empty = daemon.path("empty.pem");
    fs::write(&empty, "").unwrap();
    for (tls, says) in [
        ("ca: nowhere.pem".to_owned(), "nowhere.pem"),
        (format!("ca: {}", empty.display()), "empty.pem"),
        (
            format!("ca: {ca}, cert: {cert}, key: {cert}"),
            "holds no private key",
        ),
        (
            format!(
                "ca: {ca}, cert: {cert}, key: {}",
                authority.path("other.key")
            ),
            "its key do not fit",
        ),
    ] {
        daemon.write_config(&format!(
            "alertmanager: {{ url: 'https://127.0.0.1:1', tls: {{ {tls} }} }}\n"
        ));
        for command in ["check", "serve"] {
            let said = said(&mut daemon.command(&[command]));
            assert!(said.code != 0, "{command} {tls}: {}{}", said.out, said.err);
            assert!(said.err.contains(says), "{command} {tls}: {}", said.err);
        }
    }
}
