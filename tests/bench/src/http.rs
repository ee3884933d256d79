//! As much of HTTP/1.1 as the load and the questions need, without a client library's
//! cost.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// How long any answer may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The status of a complete answer at the beginning of `bytes`, and its length; none when
/// more has to be read.
pub(crate) fn answer(bytes: &[u8]) -> Option<(u16, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(bytes.get(..end)?).ok()?;
    let status = head.get(9..12)?.parse().ok()?;
    let length: usize = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or_default();
    (bytes.len() >= end + length).then_some((status, end + length))
}

/// A connection that waits for each answer.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).context("the daemon takes no connection")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(4096),
        })
    }

    /// Sends a request and waits for its answer: the status, and the body.
    pub(crate) fn send(&mut self, request: &[u8]) -> Result<(u16, Vec<u8>)> {
        self.stream.write_all(request)?;
        self.buffer.clear();
        let mut chunk = [0; 4096];
        loop {
            if let Some((status, length)) = answer(&self.buffer) {
                let head = self
                    .buffer
                    .windows(4)
                    .position(|window| window == b"\r\n\r\n")
                    .map_or(0, |at| at + 4);
                let body = self.buffer.get(head..length).unwrap_or_default();
                return Ok((status, body.to_vec()));
            }
            let read = self.stream.read(&mut chunk)?;
            if read == 0 {
                bail!("the daemon closed a connection before its answer");
            }
            self.buffer
                .extend_from_slice(chunk.get(..read).unwrap_or_default());
        }
    }

    /// GET.
    pub(crate) fn get(&mut self, address: SocketAddr, path: &str) -> Result<(u16, String)> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        let (status, body) = self.send(request.as_bytes())?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_from_a_part_of_one() {
        let text = b"HTTP/1.1 202 Accepted\r\ncontent-length: 5\r\n\r\nhello";
        assert_eq!(answer(text), Some((202, text.len())));
        assert_eq!(answer(&text[..text.len() - 1]), None);
        assert_eq!(answer(b"HTTP/1.1 503 Service"), None);
        let empty = b"HTTP/1.1 204 No Content\r\n\r\n";
        assert_eq!(answer(empty), Some((204, empty.len())));
    }
}
