//! A Docker that is none: a Unix socket that answers at once and remembers when it was
//! told to restart what. So what is measured is sentinel, and not Docker.
//!
//! It says what it is in its version, in its `Server` header and in each container's
//! labels.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

/// What was restarted first when, by the container's number.
#[derive(Debug, Default)]
struct Restarts {
    first: Mutex<HashMap<u64, Instant>>,
    changed: Condvar,
}

/// The fake Docker; it serves as long as the process lives.
#[derive(Debug, Clone)]
pub(crate) struct FakeDocker {
    restarts: Arc<Restarts>,
}

impl FakeDocker {
    /// Serves on `socket`, on a thread of its own.
    pub(crate) fn start(socket: &Path) -> Result<Self> {
        let restarts = Arc::new(Restarts::default());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = {
            let _entered = runtime.enter();
            UnixListener::bind(socket).context("the fake Docker has no socket")?
        };
        let log = restarts.clone();
        std::thread::Builder::new()
            .name("fake-docker".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    // It ends with the process, or when the socket's folder is gone.
                    while let Ok((stream, _)) = listener.accept().await {
                        tokio::spawn(serve(stream, log.clone()));
                    }
                });
            })?;
        Ok(Self { restarts })
    }

    /// Waits until the container of this number has been restarted, and says when.
    pub(crate) fn restarted(&self, number: u64, within: Duration) -> Option<Instant> {
        let first = self
            .restarts
            .first
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (first, _) = self
            .restarts
            .changed
            .wait_timeout_while(first, within, |first| !first.contains_key(&number))
            .unwrap_or_else(PoisonError::into_inner);
        first.get(&number).copied()
    }

    /// How many containers have been restarted.
    pub(crate) fn count(&self) -> usize {
        self.restarts
            .first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }
}

async fn serve(mut stream: UnixStream, restarts: Arc<Restarts>) {
    let mut buffer = Vec::with_capacity(4096);
    let mut chunk = [0; 4096];
    loop {
        while let Some((line, length)) = request(&buffer) {
            let reply = reply(&line, &restarts);
            buffer.drain(..length);
            if stream.write_all(reply.as_bytes()).await.is_err() {
                return;
            }
        }
        match stream.read(&mut chunk).await {
            Ok(read) if read > 0 => {
                buffer.extend_from_slice(chunk.get(..read).unwrap_or_default());
            }
            _ => return,
        }
    }
}

/// The first line of a complete request at the beginning of `bytes`, and its length.
fn request(bytes: &[u8]) -> Option<(String, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(bytes.get(..end)?).ok()?;
    let body: usize = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or_default();
    (bytes.len() >= end + body).then(|| (head.lines().next().unwrap_or("").to_owned(), end + body))
}

fn reply(line: &str, restarts: &Restarts) -> String {
    let mut words = line.split(' ');
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let path = path.split('?').next().unwrap_or_default();
    let found = path
        .split_once("/containers/")
        .and_then(|(_, rest)| rest.split_once('/'))
        .and_then(|(container, action)| Some((number(container)?, action)));
    match (method, found) {
        ("POST", Some((number, "restart" | "start"))) => {
            let now = Instant::now();
            restarts
                .first
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(number)
                .or_insert(now);
            restarts.changed.notify_all();
            answer("204 No Content", "")
        }
        ("GET", Some((number, "json"))) => answer("200 OK", &container(number)),
        ("GET" | "HEAD", _) if path.ends_with("/_ping") => answer("200 OK", "OK"),
        ("GET", _) if path.ends_with("/containers/json") => answer("200 OK", "[]"),
        ("GET", _) if path.ends_with("/version") => answer(
            "200 OK",
            r#"{"Platform":{"Name":"fake Docker of sentinel-bench"},"Version":"0.0.0-fake","ApiVersion":"1.41","MinAPIVersion":"1.12"}"#,
        ),
        _ => answer(
            "404 Not Found",
            r#"{"message":"the fake Docker of sentinel-bench knows nothing of this"}"#,
        ),
    }
}

/// A container's number, from its name (`svc-…`) or its id.
fn number(container: &str) -> Option<u64> {
    let digits = container
        .strip_prefix("svc-")
        .or_else(|| container.get(..16))?;
    u64::from_str_radix(digits, 16).ok()
}

/// What `inspect` tells of a container that has been running for long, without a health
/// check: the alert is believed.
fn container(number: u64) -> String {
    format!(
        r#"{{"Id":"{number:016x}000000000000000000000000000000000000000000000000","Name":"/svc-{number:016x}","Image":"fake","RestartCount":0,"State":{{"Status":"running","Running":true,"ExitCode":0,"OOMKilled":false,"StartedAt":"2025-01-01T00:00:00Z","FinishedAt":"0001-01-01T00:00:00Z"}},"Config":{{"Image":"fake","Labels":{{"sentinel-bench":"fake"}}}}}}"#
    )
}

fn answer(status: &str, body: &str) -> String {
    let length = if status.starts_with("204") {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    format!(
        "HTTP/1.1 {status}\r\nServer: sentinel-bench (fake Docker)\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\n{length}\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_remembered_by_name_and_by_id() {
        let restarts = Restarts::default();
        let by_name = "POST /v1.41/containers/svc-00000000000000ff/restart?t=2 HTTP/1.1";
        assert!(reply(by_name, &restarts).starts_with("HTTP/1.1 204"));
        let id = format!("{:016x}{}", 7, "0".repeat(48));
        reply(
            &format!("POST /containers/{id}/restart HTTP/1.1"),
            &restarts,
        );
        let first = restarts.first.lock().unwrap();
        assert!(first.contains_key(&255) && first.contains_key(&7));
    }

    #[test]
    fn it_says_that_it_is_a_fake() {
        let restarts = Restarts::default();
        for line in [
            "GET /version HTTP/1.1",
            "GET /containers/svc-1/json HTTP/1.1",
        ] {
            assert!(reply(line, &restarts).contains("fake"), "{line}");
        }
    }
}
