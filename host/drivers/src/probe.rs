//! The HTTP probe behind `verify: {http: URL}`.

use std::time::Duration;

use reqwest::{Client, ClientBuilder, Url};

use crate::client::{self, chain};

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
    /// No connection, or one that broke, or TLS that was refused.
    #[error("{0}")]
    Unreachable(String),
    /// The client could not be made.
    #[error("no HTTP client: {0}")]
    Client(String),
}

/// Asks URLs whether they are well.
///
/// Each probe makes a connection of its own, because a connection kept from before
/// says nothing about whether new ones are taken. Redirects are followed within the
/// same scheme, host and port; one that leads elsewhere is the answer, and not a pass.
/// Proxies of the environment are not used: what is probed is the target.
#[derive(Debug, Clone)]
pub struct HttpProbe {
    client: Client,
}

impl HttpProbe {
    /// Makes the client. Where the machine has no CA certificates it is made all the
    /// same, and `https` URLs fail.
    pub fn new() -> Result<Self, ProbeError> {
        let client = client::build(adapt).map_err(ProbeError::Client)?;
        Ok(Self { client })
    }

    /// Sends a `GET`; any answer is an answer, whatever its status. Nothing of the
    /// body is read.
    pub async fn get(&self, url: &str, timeout: Duration) -> Result<ProbeAnswer, ProbeError> {
        let parsed = parse(url)?;
        let sent = self.client.get(parsed).timeout(timeout).send();
        match sent.await {
            Ok(answer) => Ok(ProbeAnswer {
                status: answer.status().as_u16(),
            }),
            Err(error) if error.is_timeout() => Err(ProbeError::TimedOut(timeout)),
            Err(error) => Err(ProbeError::Unreachable(chain(&error.without_url()))),
        }
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
            .get(url, Duration::from_secs(5))
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
            HttpProbe::new().unwrap().get(&url, bound).await,
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
