//! Mail by a real server (aiosmtpd): what arrives, what is refused, and what is said of it.

#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers may panic like the test itself"
)]

use std::time::Duration;

use sentinel_core::capability::CapabilityError;
use sentinel_core::mail::{MailReceipt, MailRequest};
use sentinel_drivers::mail::{Login, Mail, MailConfigError, MailServer as Config, Security};
use sentinel_sandbox::driver::MailDriver as _;
use sentinel_tests::mail::{MailServer, PASSWORD, USER};
use sentinel_tests::remote::free_address;

const LONG: Duration = Duration::from_secs(30);

/// How `server` is reached by who trusts it and may log in.
fn config(server: &MailServer, security: Security) -> Config {
    let encrypted = security != Security::None;
    Config {
        host: "127.0.0.1".to_owned(),
        port: server.address.port(),
        security,
        login: Some(Login {
            username: USER.to_owned(),
            password: PASSWORD.to_owned(),
        }),
        from: "Wächter <sentinel@example.com>".parse().unwrap(),
        ca: encrypted.then(|| server.ca()),
        hello: "here.example.com".to_owned(),
    }
}

fn request(to: &[&str], cc: &[&str], text: &str) -> MailRequest {
    let owned = |list: &[&str]| {
        list.iter()
            .map(|each| (*each).to_owned())
            .collect::<Vec<_>>()
    };
    let subject = "nginx ist weg: größter Ärger";
    MailRequest::new(&owned(to), &owned(cc), subject.to_owned(), text.to_owned()).unwrap()
}

async fn send(config: Config, to: &[&str]) -> Result<MailReceipt, CapabilityError> {
    let mail = Mail::new(config).unwrap();
    mail.send(&request(to, &[], "text\n"), "42.1.abc", LONG)
        .await
}

/// The text of an error of this kind.
macro_rules! refused {
    ($kind:ident, $result:expr) => {
        match $result {
            Err(CapabilityError::$kind(text)) => {
                assert!(!text.contains("s3cr3t"), "{text}");
                assert!(!text.contains(char::is_control), "{text:?}");
                text
            }
            other => panic!("{other:?}"),
        }
    };
}

#[tokio::test]
async fn a_mail_arrives_as_it_was_meant() {
    let server = MailServer::start("starttls", true);
    let mail = Mail::new(config(&server, Security::StartTls)).unwrap();
    let text = "Straße\n.\n..\n\nFrom here\n".to_owned() + &"long ".repeat(500) + "\nend\n";
    let asked = request(
        &["oncall@example.com", "b@example.com"],
        &["c@example.com", "oncall@example.com"],
        &text,
    );
    let receipt = mail.send(&asked, "42.1.abc", LONG).await.unwrap();
    assert_eq!(receipt.message_id, "<sentinel.42.1.abc@example.com>");
    assert_eq!(receipt.said, "250 2.0.0 Ok: queued as TEST1");
    assert!(receipt.refused.is_empty());
    let mails = server.mails();
    assert_eq!(mails.len(), 1);
    let kept = &mails[0];
    assert_eq!(kept["encrypted"], true);
    assert_eq!(kept["user"], USER);
    assert_eq!(kept["hello"], "here.example.com");
    assert_eq!(kept["from"], "sentinel@example.com");
    let to = ["oncall@example.com", "b@example.com", "c@example.com"];
    assert_eq!(kept["to"], serde_json::json!(to));
    let headers = &kept["headers"];
    for (name, value) in [
        ("from", "Wächter <sentinel@example.com>"),
        ("to", "oncall@example.com, b@example.com"),
        ("cc", "c@example.com, oncall@example.com"),
        ("subject", "nginx ist weg: größter Ärger"),
        ("message-id", "<sentinel.42.1.abc@example.com>"),
        ("auto-submitted", "auto-generated"),
        ("mime-version", "1.0"),
        ("content-type", "text/plain; charset=\"utf-8\""),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
    assert!(headers["date"].is_string());
    assert_eq!(kept["text"].as_str().unwrap().trim_end(), text.trim_end());
    assert_eq!(kept["defects"], serde_json::json!([]));
    // Again, after a crash: another mail, and known for the same.
    mail.send(&asked, "42.1.abc", LONG).await.unwrap();
    let mails = server.mails();
    assert_eq!(mails.len(), 2);
    assert_eq!(mails[1]["headers"]["message-id"], headers["message-id"]);
}

#[tokio::test]
async fn tls_from_the_beginning_and_none_at_all_serve_too() {
    let server = MailServer::start("tls", true);
    let receipt = send(config(&server, Security::Tls), &["a@example.com"]).await;
    assert!(receipt.is_ok(), "{receipt:?}");
    assert_eq!(server.mails()[0]["user"], USER);
    let server = MailServer::start("none", false);
    let open = Config {
        login: None,
        ..config(&server, Security::None)
    };
    let receipt = send(open, &["a@example.com"]).await;
    assert!(receipt.is_ok(), "{receipt:?}");
    assert_eq!(server.mails()[0]["encrypted"], false);
}

#[tokio::test]
async fn a_wrong_password_is_named_and_never_shown() {
    for security in ["starttls", "tls"] {
        let server = MailServer::start(security, true);
        let word = match security {
            "tls" => Security::Tls,
            _ => Security::StartTls,
        };
        let mut config = config(&server, word);
        config.login = Some(Login {
            username: USER.to_owned(),
            password: "s3cr3t-wrong".to_owned(),
        });
        let text = refused!(Failed, send(config, &["a@example.com"]).await);
        assert!(
            text.contains("did not take the user name and the password (`mail.username`, `mail.password`): 535 5.7.8 not [secret] for sentinel"),
            "{text}"
        );
        assert!(server.mails().is_empty());
    }
    // One that wants none offers no way to give one.
    let server = MailServer::start("none", false);
    let text = refused!(
        Failed,
        send(config(&server, Security::None), &["a@example.com"]).await
    );
    assert!(text.contains("offers no way to log in"), "{text}");
}

#[tokio::test]
async fn nothing_is_said_to_who_cannot_prove_who_it_is() {
    let server = MailServer::start("starttls", true);
    let stranger = MailServer::start("tls", true);
    for (server, security) in [(&server, Security::StartTls), (&stranger, Security::Tls)] {
        let unknown = Config {
            ca: None,
            ..config(server, security)
        };
        let text = refused!(Failed, send(unknown, &["a@example.com"]).await);
        assert!(text.contains("`mail.ca`"), "{text}");
        // The certificate is for 127.0.0.1 and localhost.
        let elsewhere = Config {
            host: "127.0.0.2".to_owned(),
            ..config(server, security)
        };
        let text = refused!(Failed, send(elsewhere, &["a@example.com"]).await);
        assert!(text.contains("has to be for `mail.server`"), "{text}");
        assert!(server.mails().is_empty());
    }
    let clear = MailServer::start("none", true);
    let text = refused!(
        Failed,
        send(config(&clear, Security::StartTls), &["a@example.com"]).await
    );
    assert!(text.contains("does not offer STARTTLS"), "{text}");
    let no_file = Config {
        ca: Some("/nowhere/ca.pem".into()),
        ..config(&server, Security::Tls)
    };
    let error = Mail::new(no_file).err().unwrap();
    assert!(
        matches!(error, MailConfigError::Authority { .. }),
        "{error}"
    );
    assert!(error.to_string().starts_with("mail.ca: /nowhere/ca.pem"));
}

#[tokio::test]
async fn what_the_server_refuses_is_said_in_its_words() {
    let server = MailServer::start("starttls", true);
    let config = || config(&server, Security::StartTls);
    let text = refused!(Failed, send(config(), &["unknown@example.com"]).await);
    assert!(
        text.ends_with(
            "takes it for no recipient: unknown@example.com: 550 5.1.1 no such user here"
        ),
        "{text}"
    );
    let both = ["unknown@example.com", "later@example.com"];
    let text = refused!(Unavailable, send(config(), &both).await);
    assert!(text.contains("450 4.2.1 greylisted"), "{text}");
    let text = refused!(Failed, send(config(), &["full@example.com"]).await);
    assert!(
        text.ends_with("refuses the mail: 552 5.2.2 mailbox full"),
        "{text}"
    );
    assert!(server.mails().is_empty());
    // Who can be told is told.
    let one = ["unknown@example.com", "a@example.com"];
    let receipt = send(config(), &one).await.unwrap();
    assert_eq!(receipt.refused.len(), 1);
    assert_eq!(receipt.refused[0].address.as_str(), "unknown@example.com");
    assert_eq!(receipt.refused[0].reason, "550 5.1.1 no such user here");
    assert_eq!(
        server.mails()[0]["to"],
        serde_json::json!(["a@example.com"])
    );
}

#[tokio::test]
async fn what_was_not_sent_is_told_from_what_may_have_been() {
    let server = MailServer::start("starttls", true);
    // Nobody listens.
    let away = Config {
        port: free_address().port(),
        ..config(&server, Security::StartTls)
    };
    let text = refused!(Unavailable, send(away, &["a@example.com"]).await);
    assert!(
        text.contains("is not reached: Connection refused"),
        "{text}"
    );
    // Somebody listens and says nothing, or hangs up.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mute = Config {
        port: silent.local_addr().unwrap().port(),
        ..config(&server, Security::StartTls)
    };
    let mail = Mail::new(mute.clone()).unwrap();
    let asked = request(&["a@example.com"], &[], "text");
    let short = Duration::from_millis(500);
    let text = refused!(Unavailable, mail.send(&asked, "1.1.a", short).await);
    assert!(text.ends_with("within 500ms; nothing was sent"), "{text}");
    let (said, ()) = tokio::join!(send(mute, &["a@example.com"]), async {
        // The first connection is the one that was given up.
        drop(silent.accept().await);
        drop(silent.accept().await);
    });
    refused!(Unavailable, said);
    // Somebody takes the text and says nothing of it.
    let mail = Mail::new(config(&server, Security::StartTls)).unwrap();
    let asked = request(&["slow@example.com"], &[], "text");
    let text = refused!(
        TimedOut,
        mail.send(&asked, "1.1.a", Duration::from_secs(2)).await
    );
    assert!(
        text.ends_with("it may have taken the mail all the same"),
        "{text}"
    );
    assert_eq!(server.mails().len(), 1, "and it has");
}
