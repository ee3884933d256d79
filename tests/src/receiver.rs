//! A server that is told things, and remembers what it was told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// One request.
#[derive(Debug, Clone)]
pub struct Told {
    /// The request line, such as `POST /hook HTTP/1.1`.
    pub line: String,
    /// The headers, as they came.
    pub headers: String,
    /// The body.
    pub body: String,
}

impl Told {
    /// The body, which is JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// An HTTP server on loopback.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    told: Arc<Mutex<Vec<Told>>>,
    task: JoinHandle<()>,
}

impl Receiver {
    /// Answers the `n`th request, counted from 0, with the status that `status` gives; 0
    /// takes the request and never answers it.
    pub async fn new(status: impl Fn(usize) -> u16 + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0".parse().expect("an address"), status).await
    }

    /// The same at an address.
    pub async fn at(
        address: SocketAddr,
        status: impl Fn(usize) -> u16 + Send + Sync + 'static,
    ) -> Self {
        Self::saying(address, move |number, _| {
            (status(number), format!("answer {number}"))
        })
        .await
    }

    /// One that says what `answer` makes of each request: a status, and a body.
    pub async fn saying(
        address: SocketAddr,
        answer: impl Fn(usize, &Told) -> (u16, String) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let told = Arc::new(Mutex::new(Vec::new()));
        let (kept, answer) = (Arc::clone(&told), Arc::new(answer));
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                tokio::spawn(async move {
                    let Some(request) = read(&mut stream).await else {
                        return;
                    };
                    let number = {
                        let mut kept = kept.lock().expect("what was told");
                        kept.push(request.clone());
                        kept.len() - 1
                    };
                    match answer(number, &request) {
                        (0, _) => std::future::pending().await,
                        (status, body) => {
                            let answer = format!(
                                "HTTP/1.1 {status} Said\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                                body.len()
                            );
                            drop(stream.write_all(answer.as_bytes()).await);
                        }
                    }
                });
            }
        });
        Self {
            address,
            told,
            task,
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL of it.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What it was told so far.
    #[must_use]
    pub fn told(&self) -> Vec<Told> {
        self.told.lock().expect("what was told").clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(stream: &mut TcpStream) -> Option<Told> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 8192];
        let count = stream.read(&mut chunk).await.ok()?;
        if count == 0 {
            return None;
        }
        bytes.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().expect("a length"));
        if body.len() >= length {
            let (line, headers) = head.split_once("\r\n")?;
            return Some(Told {
                line: line.to_owned(),
                headers: headers.to_owned(),
                body: body.to_owned(),
            });
        }
    }
}
