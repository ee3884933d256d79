//! The end of what `ansible-playbook` prints, for people.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt};

/// How much of stdout and stderr together is kept.
const BYTES: usize = 64 * 1024;

/// How much of stderr is kept for error messages.
const ERROR_BYTES: usize = 4 * 1024;

/// A line that is longer goes on as another line.
const LINE_BYTES: usize = 8 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// What was printed; filled by two readers at once.
#[derive(Debug, Default)]
pub(super) struct Output {
    // Held for the time of adding a line, never across an await.
    lines: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    all: Tail,
    errors: Tail,
}

impl Output {
    /// Reads to the end, line by line.
    pub(super) async fn read(&self, stream: Stream, mut from: impl AsyncRead + Unpin) {
        let mut line = Vec::new();
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut chunk).await {
            for byte in chunk.iter().take(count) {
                line.push(*byte);
                if *byte == b'\n' || line.len() >= LINE_BYTES {
                    self.add(stream, &line);
                    line.clear();
                }
            }
        }
        if !line.is_empty() {
            self.add(stream, &line);
        }
    }

    fn add(&self, stream: Stream, line: &[u8]) {
        let line = String::from_utf8_lossy(line).trim_end().to_owned();
        match stream {
            Stream::Stdout => tracing::debug!(stream = "stdout", "{line}"),
            Stream::Stderr => tracing::debug!(stream = "stderr", "{line}"),
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if stream == Stream::Stderr {
            lines.errors.push(line.clone(), ERROR_BYTES);
        }
        lines.all.push(line, BYTES);
    }

    /// The end of stdout and stderr, in the order in which they came.
    pub(super) fn text(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.all.text()
    }

    /// What went wrong, in the program's own words: stderr from where it speaks of an
    /// error, or its end, or the end of stdout.
    pub(super) fn complaint(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let errors = &lines.errors.lines;
        let start = errors
            .iter()
            .position(|line| line.starts_with("ERROR!") || line.starts_with("[ERROR]"))
            .unwrap_or_default();
        let mut said: Vec<&str> = errors.iter().skip(start).map(String::as_str).collect();
        if said.iter().all(|line| line.is_empty()) {
            let count = lines.all.lines.len();
            let last = lines.all.lines.iter().skip(count.saturating_sub(5));
            said = last.map(String::as_str).collect();
        }
        said.join("\n").trim().to_owned()
    }
}

/// The last lines within a number of bytes.
#[derive(Debug, Default)]
struct Tail {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Tail {
    fn push(&mut self, line: String, limit: usize) {
        self.bytes += line.len() + 1;
        self.lines.push_back(line);
        while self.bytes > limit
            && let Some(oldest) = self.lines.pop_front()
        {
            self.bytes -= oldest.len() + 1;
        }
    }

    fn text(&self) -> String {
        let mut text = String::with_capacity(self.bytes);
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn printed(stdout: &[u8], stderr: &[u8]) -> Output {
        let output = Output::default();
        output.read(Stream::Stdout, stdout).await;
        output.read(Stream::Stderr, stderr).await;
        output
    }

    #[tokio::test]
    async fn the_end_is_kept() {
        let text = printed("0123456789\n".repeat(20_000).as_bytes(), b"last\xff")
            .await
            .text();
        assert!(text.len() <= BYTES && text.len() > BYTES - 100);
        assert!(text.starts_with("0123456789\n"));
        assert!(text.ends_with("0123456789\nlast\u{fffd}\n"));
    }

    #[tokio::test]
    async fn an_endless_line_is_bounded() {
        let text = printed(&vec![b'x'; 1 << 20], b"").await.text();
        assert!(text.len() <= BYTES);
    }

    #[tokio::test]
    async fn complaints_begin_where_the_error_does() {
        let output = printed(b"PLAY\n", b"[WARNING]: x\nERROR! bad\n\nhere\n").await;
        assert_eq!(output.complaint(), "ERROR! bad\n\nhere");
        assert_eq!(printed(b"a\nb\n", b"\n").await.complaint(), "a\nb");
        assert_eq!(printed(b"a\n", b"no\n").await.complaint(), "no");
    }
}
