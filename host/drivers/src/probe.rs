//! The HTTP probe behind `verify: {http: URL}`.

use std::error::Error as StdError;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, ClientBuilder, Url};

use crate::client::{self, chain};
use crate::http::{Checked, Forbidden, NoAddress, SystemLookup, may_lead_to};

/// What a probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeAnswer {
    /// The status of the answer.
    pub status: u16,
}

impl ProbeAnswer {
    /// Whether the target is well: any 2xx.
    #[must_use]
    pub fn passed(self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Why a probe found nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The URL is no absolute `http` or `https` URL with a host.
    #[error("{url:?} is no http or https URL: {reason}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No answer came in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// An address, and no connection to it, or one that broke: nobody serves there.
    #[error("{0}")]
    Unreachable(String),
    /// The look itself could not be made: a name without an address, an address without a
    /// way to it, TLS that was refused, a name that leads where it must not. That says
    /// nothing of the target.
    #[error("{0}")]
    Unknown(String),
    /// The client could not be made.
    #[error("no HTTP client: {0}")]
    Client(String),
}

impl ProbeError {
    /// Whether nothing was learnt of the target.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        match self {
            Self::Url { .. } | Self::Unknown(_) | Self::Client(_) => true,
            Self::TimedOut(_) | Self::Unreachable(_) => false,
        }
    }
}

/// Asks URLs whether they are well.
///
/// Each probe makes a connection of its own, because a connection kept from before
/// says nothing about whether new ones are taken. Redirects are followed within the
/// same scheme, host and port; one that leads elsewhere is the answer, and not a pass.
/// Proxies of the environment are not used: what is probed is the target.
#[derive(Debug, Clone)]
pub struct HttpProbe {
    /// For hosts that a policy names.
    client: Client,
    /// For hosts that an alert names.
    checked: Client,
}

impl HttpProbe {
    /// Makes the client. Where the machine has no CA certificates it is made all the
    /// same, and `https` URLs fail.
    pub fn new() -> Result<Self, ProbeError> {
        let make = |checks: bool| {
            let lookup = Arc::new(SystemLookup);
            client::build(|builder| adapt(builder).dns_resolver(Checked::new(lookup, checks)))
                .map_err(ProbeError::Client)
        };
        Ok(Self {
            client: make(false)?,
            checked: make(true)?,
        })
    }

    /// Sends a `GET`; any answer is an answer, whatever its status. Nothing of the
    /// body is read. `foreign` says that the host is one that an alert names: it must not
    /// lead to this machine or its link.
    pub async fn get(
        &self,
        url: &str,
        foreign: bool,
        timeout: Duration,
    ) -> Result<ProbeAnswer, ProbeError> {
        let parsed = parse(url)?;
        if foreign {
            check_address(&parsed)?;
        }
        let client = if foreign { &self.checked } else { &self.client };
        let sent = client.get(parsed).timeout(timeout).send();
        match sent.await {
            Ok(answer) => Ok(ProbeAnswer {
                status: answer.status().as_u16(),
            }),
            Err(error) if error.is_timeout() => Err(ProbeError::TimedOut(timeout)),
            Err(error) => Err(explain(&error.without_url())),
        }
    }
}

/// An address that an alert gives goes past the resolver.
fn check_address(url: &Url) -> Result<(), ProbeError> {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let leads_here = if let Ok(address) = bare.parse::<IpAddr>() {
        !may_lead_to(host, address)
    } else {
        let name = host.trim_end_matches('.');
        name == "localhost" || name.ends_with(".localhost")
    };
    if leads_here {
        return Err(ProbeError::Unknown(format!(
            "{host} comes from the alert, and leads to this machine or its link; if it is meant, \
             write it into the policy"
        )));
    }
    Ok(())
}

fn explain(error: &reqwest::Error) -> ProbeError {
    let text = chain(error);
    let causes = || std::iter::successors(error.source(), |&error| error.source());
    let told = causes().any(|cause| {
        if cause.is::<NoAddress>() || cause.is::<Forbidden>() || client::is_tls(cause) {
            return true;
        }
        cause.downcast_ref::<std::io::Error>().is_some_and(|io| {
            matches!(
                io.kind(),
                ErrorKind::NetworkUnreachable
                    | ErrorKind::HostUnreachable
                    | ErrorKind::NetworkDown
                    | ErrorKind::AddrNotAvailable
                    | ErrorKind::PermissionDenied
            )
        })
    });
    if told {
        ProbeError::Unknown(text)
    } else {
        ProbeError::Unreachable(text)
    }
}

fn parse(url: &str) -> Result<Url, ProbeError> {
    let wrong = |reason: &str| ProbeError::Url {
        url: url.to_owned(),
        reason: reason.to_owned(),
    };
    let parsed = Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(wrong("the scheme is another"));
    }
    Ok(parsed)
}

fn adapt(builder: ClientBuilder) -> ClientBuilder {
    builder
        .pool_max_idle_per_host(0)
        .redirect(client::within_origin())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Serves `answers` one connection each and returns the base URL.
    async fn server(answers: Vec<String>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio_util::task::TaskTracker::new().spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                assert!(stream.read(&mut request).await.unwrap() > 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        format!("http://{address}")
    }

    fn answer(status: &str, header: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n{header}\r\n")
    }

    async fn probe(url: &str) -> Result<ProbeAnswer, ProbeError> {
        HttpProbe::new()
            .unwrap()
            .get(url, false, Duration::from_secs(5))
            .await
    }

    #[tokio::test]
    async fn two_hundreds_pass_and_others_do_not() {
        for (status, passed) in [
            ("200 OK", true),
            ("204 No Content", true),
            ("404 Not Found", false),
            ("503 Service Unavailable", false),
        ] {
            let url = server(vec![answer(status, "")]).await;
            assert_eq!(probe(&url).await.unwrap().passed(), passed, "{status}");
        }
    }

    #[tokio::test]
    async fn a_redirect_is_followed_within_a_host() {
        let url = server(vec![
            answer("302 Found", "Location: /ready\r\n"),
            answer("200 OK", ""),
        ])
        .await;
        assert_eq!(probe(&url).await.unwrap().status, 200);
    }

    #[tokio::test]
    async fn a_redirect_to_another_host_is_the_answer() {
        let elsewhere = server(vec![answer("200 OK", "")]).await;
        let location = format!("Location: {elsewhere}/\r\n");
        let url = server(vec![answer("302 Found", &location)]).await;
        assert_eq!(probe(&url).await.unwrap().status, 302);
    }

    #[tokio::test]
    async fn endless_redirects_end() {
        let url = server(vec![answer("302 Found", "Location: /\r\n"); 20]).await;
        assert_eq!(probe(&url).await.unwrap().status, 302);
    }

    #[tokio::test]
    async fn silence_times_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let bound = Duration::from_millis(200);
        assert_eq!(
            HttpProbe::new().unwrap().get(&url, false, bound).await,
            Err(ProbeError::TimedOut(bound))
        );
    }

    #[tokio::test]
    async fn nobody_there_is_said() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = probe(&url).await.unwrap_err();
        assert!(error.to_string().contains("refused"), "{error}");
        assert!(!error.is_unknown());
    }

    #[tokio::test]
    async fn a_look_that_cannot_be_made_tells_nothing() {
        let plain = server(vec![answer("200 OK", "")]).await;
        let no_tls = plain.replace("http://", "https://");
        for url in ["http://no-such-host.invalid/", no_tls.as_str(), "ftp://x/"] {
            let error = probe(url).await.unwrap_err();
            assert!(error.is_unknown(), "{url}: {error}");
        }
        let error = probe("http://no-such-host.invalid/").await.unwrap_err();
        assert!(
            error
                .to_string()
                .contains("no-such-host.invalid has no address"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn an_alert_cannot_name_this_machine() {
        let url = server(vec![answer("200 OK", "")]).await;
        let port = url.rsplit_once(':').unwrap().1.to_owned();
        let probe = HttpProbe::new().unwrap();
        for host in [
            "127.0.0.1",
            "localhost",
            "x.localhost",
            "localhost.",
            "2130706433",
            "0x7f.1",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "0.0.0.0",
            "169.254.169.254",
        ] {
            let url = format!("http://{host}:{port}/");
            let error = probe
                .get(&url, true, Duration::from_secs(5))
                .await
                .unwrap_err();
            assert!(error.is_unknown(), "{host}: {error}");
            assert!(
                error.to_string().contains("write it into the policy"),
                "{host}: {error}"
            );
        }
        // What the policy itself says is meant.
        assert!(probe.get(&url, false, Duration::from_secs(5)).await.is_ok());
    }

    #[tokio::test]
    async fn other_schemes_are_refused() {
        for url in ["ftp://host/", "file:///etc/passwd", "nginx/status", ""] {
            assert!(
                matches!(probe(url).await, Err(ProbeError::Url { .. })),
                "{url}"
            );
        }
    }
}
