//! Mail on behalf of plugins, over SMTP, by the one server that the operator names.
//!
//! Who may be sent mail is the gate's to decide. Here a mail is made of what was asked for,
//! and handed to the server over a connection of its own. The dialogue is our own and not
//! the library's, for three reasons. A recipient that the server refuses must not keep the
//! others from being told. What came before the text went out was not sent, and may be
//! tried again at once; only after that nobody can tell. And no word of the server may carry
//! the password into the record, which a server that repeats what it was sent would do.

mod message;

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::commands;
use lettre::transport::smtp::extension::ClientId;
use sentinel_core::capability::CapabilityError;
use sentinel_core::mail::{MailReceipt, MailRefusal, MailRequest};
use sentinel_sandbox::driver::MailDriver;
use tokio::time::Instant;

use self::message::{Outgoing, address};
use crate::certificates::certificates;
use crate::client;
use crate::redact::Redactor;

pub use self::message::{Sender, SenderError};

/// How long the server may take for a mail, from the connection to its last word.
const TIMEOUT: Duration = Duration::from_secs(20);

/// How long making the connection may take of that, for each address of the server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the server is waited for when everything has been said.
const GOODBYE: Duration = Duration::from_secs(1);

/// How much of what the server says is kept, in characters.
const WORDS: usize = 300;

/// The answer after which the text is sent.
const GO_AHEAD: u16 = 354;

/// The ways to log in, the better one first. Both show the password to the server, so they
/// need a connection that nobody else reads.
const MECHANISMS: [Mechanism; 2] = [Mechanism::Plain, Mechanism::Login];

/// How the connection is kept from being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// It begins in the clear and is encrypted before anything is said that matters. A
    /// server that does not offer that gets no mail.
    StartTls,
    /// It is encrypted from the beginning.
    Tls,
    /// It is not.
    None,
}

/// Who logs in.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user's name.
    pub username: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// The server that takes mail, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailServer {
    /// Its name or address, which its certificate has to be for.
    pub host: String,
    /// Where it listens.
    pub port: u16,
    /// How the connection is kept from being read.
    pub security: Security,
    /// Who logs in; nobody where the server asks for no one.
    pub login: Option<Login>,
    /// Who mails are from.
    pub from: Sender,
    /// An authority, in PEM, that is trusted beside those of the machine.
    pub ca: Option<PathBuf>,
    /// What we call ourselves to the server.
    pub hello: String,
}

/// The mail server of the configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailConfigError {
    /// The file with the authority.
    #[error("mail.ca: {path} {reason}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is nothing to check the server's certificate against.
    #[error(
        "mail: TLS cannot be set up: {0}; install ca-certificates, or name the server's authority in `mail.ca`"
    )]
    Tls(String),
}

/// Sends mail for plugins.
pub struct Mail {
    server: MailServer,
    /// None where the connection is not encrypted.
    tls: Option<TlsParameters>,
    /// The password, as a server may repeat it.
    secrets: Redactor,
}

impl Mail {
    /// Reads the authority; connects to nobody yet.
    pub fn new(server: MailServer) -> Result<Self, MailConfigError> {
        let tls = match server.security {
            Security::None => None,
            Security::StartTls | Security::Tls => Some(tls(&server)?),
        };
        let secrets: Vec<String> = server.login.iter().flat_map(spellings).collect();
        let secrets = Redactor::new(secrets.iter().map(String::as_str));
        Ok(Self {
            server,
            tls,
            secrets,
        })
    }

    /// Connects, and logs in where that is asked for.
    async fn connect(&self) -> Result<AsyncSmtpConnection, CapabilityError> {
        let server = &self.server;
        let hello = ClientId::Domain(server.hello.clone());
        let at_once = (server.security == Security::Tls)
            .then(|| self.tls.clone())
            .flatten();
        let mut connection = AsyncSmtpConnection::connect_tokio1(
            (server.host.as_str(), server.port),
            Some(CONNECT_TIMEOUT),
            &hello,
            at_once,
            None,
        )
        .await
        .map_err(|error| self.explain("is not reached", &error))?;
        if let (Security::StartTls, Some(tls)) = (server.security, &self.tls) {
            if !connection.can_starttls() {
                return Err(CapabilityError::Failed(format!(
                    "{self} does not offer STARTTLS: set `mail.security` to tls (most often with port 465) if it speaks TLS from the beginning"
                )));
            }
            connection
                .starttls(tls.clone(), &hello)
                .await
                .map_err(|error| self.explain("does not speak TLS", &error))?;
        }
        if let Some(login) = &server.login {
            self.log_in(&mut connection, login).await?;
        }
        Ok(connection)
    }

    async fn log_in(
        &self,
        connection: &mut AsyncSmtpConnection,
        login: &Login,
    ) -> Result<(), CapabilityError> {
        if connection
            .server_info()
            .get_auth_mechanism(&MECHANISMS)
            .is_none()
        {
            return Err(CapabilityError::Failed(format!(
                "{self} offers no way to log in that is spoken here (PLAIN and LOGIN): leave `mail.username` out if it asks for no password"
            )));
        }
        let credentials = Credentials::new(login.username.clone(), login.password.clone());
        connection
            .auth(&MECHANISMS, &credentials)
            .await
            .map_err(|error| {
                self.explain(
                    "did not take the user name and the password (`mail.username`, `mail.password`)",
                    &error,
                )
            })?;
        Ok(())
    }

    /// Hands a mail over. `gone` is set when its text goes out.
    async fn hand_over(
        &self,
        mail: &Outgoing,
        gone: &AtomicBool,
    ) -> Result<(MailReceipt, AsyncSmtpConnection), CapabilityError> {
        let mut connection = self.connect().await?;
        connection
            .command(commands::Mail::new(Some(mail.from.clone()), Vec::new()))
            .await
            .map_err(|error| self.explain("refuses who it is from (`mail.from`)", &error))?;
        let refused = self.name_recipients(&mut connection, mail).await?;
        let ready = connection
            .command(commands::Data)
            .await
            .map_err(|error| self.explain("refuses the mail", &error))?;
        // Words that somebody put before TLS began would make each answer that of the command
        // before, and the last one a promise of nothing.
        if !ready.has_code(GO_AHEAD) {
            return Err(CapabilityError::Unavailable(format!(
                "{self} answers out of turn: {} where {GO_AHEAD} was due",
                ready.code()
            )));
        }
        gone.store(true, Ordering::Relaxed);
        let answer = connection.message(&mail.bytes).await.map_err(|error| {
            if error.status().is_some() {
                self.explain("refuses the mail", &error)
            } else {
                CapabilityError::TimedOut(format!(
                    "the connection to {self} broke: {}{DOUBT}",
                    self.words(&error)
                ))
            }
        })?;
        let words: Vec<&str> = answer.message().collect();
        let receipt = MailReceipt {
            message_id: mail.message_id.clone(),
            said: self.said(&format!("{} {}", answer.code(), words.join(" "))),
            refused,
        };
        Ok((receipt, connection))
    }

    /// Says whom the mail is for; who of them does not get it. An error where that is
    /// everybody.
    async fn name_recipients(
        &self,
        connection: &mut AsyncSmtpConnection,
        mail: &Outgoing,
    ) -> Result<Vec<MailRefusal>, CapabilityError> {
        let mut refused = Vec::new();
        let mut may_help = false;
        for recipient in &mail.recipients {
            let command = commands::Rcpt::new(address(recipient)?, Vec::new());
            match connection.command(command).await {
                Ok(_) => {}
                Err(error) if error.status().is_some() => {
                    may_help |= error.is_transient();
                    refused.push(MailRefusal {
                        address: recipient.clone(),
                        reason: self.words(&error),
                    });
                }
                Err(error) => return Err(self.explain("broke off", &error)),
            }
        }
        if refused.len() < mail.recipients.len() {
            return Ok(refused);
        }
        let all: Vec<String> = refused
            .iter()
            .map(|refusal| format!("{}: {}", refusal.address, refusal.reason))
            .collect();
        let text = format!("{self} takes it for no recipient: {}", all.join("; "));
        Err(if may_help {
            CapabilityError::Unavailable(text)
        } else {
            CapabilityError::Failed(text)
        })
    }

    /// What it means that something went wrong before the text went out.
    fn explain(&self, what: &str, error: &Error) -> CapabilityError {
        let text = format!("{self} {what}: {}", self.words(error));
        if error.is_permanent() {
            CapabilityError::Failed(text)
        } else if is_tls(error) {
            CapabilityError::Failed(format!(
                "{text}; its certificate has to be for `mail.server`, of an authority that this machine knows or that `mail.ca` names"
            ))
        } else {
            CapabilityError::Unavailable(text)
        }
    }

    /// An error in the server's words, where there are any.
    fn words(&self, error: &Error) -> String {
        let source = error.source().map(ToString::to_string);
        let text = match (error.status(), source) {
            (Some(code), words) => format!("{code} {}", words.unwrap_or_default()),
            (None, Some(cause)) if error.is_response() => {
                format!("it hung up, or speaks no SMTP ({cause})")
            }
            (None, Some(cause)) => cause,
            (None, None) => error.to_string(),
        };
        self.said(&text)
    }

    /// What others wrote, fit for one line of the record.
    fn said(&self, text: &str) -> String {
        let clean = self.secrets.text(text);
        let line: String = clean
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(WORDS)
            .collect();
        line.trim().to_owned()
    }
}

/// For messages.
impl fmt::Display for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the mail server {}:{}",
            self.server.host, self.server.port
        )
    }
}

/// What a missing answer means once the text has gone out.
const DOUBT: &str = "; it may have taken the mail all the same";

#[async_trait]
impl MailDriver for Mail {
    async fn send(
        &self,
        request: &MailRequest,
        id: &str,
        timeout: Duration,
    ) -> Result<MailReceipt, CapabilityError> {
        let mail = Outgoing::new(&self.server.from, request, id)?;
        let bound = TIMEOUT.min(timeout);
        let deadline = Instant::now() + bound;
        let gone = AtomicBool::new(false);
        let handed_over = tokio::time::timeout_at(deadline, self.hand_over(&mail, &gone)).await;
        match handed_over {
            Ok(Ok((receipt, mut connection))) => {
                // It has the mail. Whether it says goodbye as well is all the same.
                let polite = deadline.min(Instant::now() + GOODBYE);
                drop(tokio::time::timeout_at(polite, connection.quit()).await);
                Ok(receipt)
            }
            Ok(Err(error)) => Err(error),
            Err(_) if gone.load(Ordering::Relaxed) => Err(CapabilityError::TimedOut(format!(
                "{self} did not say within {bound:?} that it has the mail{DOUBT}"
            ))),
            Err(_) => Err(CapabilityError::Unavailable(format!(
                "{self} did not answer within {bound:?}; nothing was sent"
            ))),
        }
    }
}

/// How the server's certificate is checked.
fn tls(server: &MailServer) -> Result<TlsParameters, MailConfigError> {
    let broken = |error: Error| MailConfigError::Tls(error.to_string());
    let mut builder = TlsParameters::builder(server.host.clone());
    if let Some(path) = &server.ca {
        let authorities = certificates(path)
            .map_err(|(path, reason)| MailConfigError::Authority { path, reason })?;
        for authority in authorities {
            let authority = Certificate::from_der(authority.to_vec()).map_err(broken)?;
            builder = builder.add_root_certificate(authority);
        }
    }
    builder.build_rustls().map_err(broken)
}

/// The password as it is sent, in each way to log in, and as it is.
fn spellings(login: &Login) -> [String; 3] {
    let Login { username, password } = login;
    [
        STANDARD.encode(format!("\0{username}\0{password}")),
        STANDARD.encode(password),
        password.clone(),
    ]
}

/// Whether TLS is what went wrong.
fn is_tls(error: &Error) -> bool {
    std::iter::successors(error.source(), |&error| error.source()).any(client::is_tls)
}
