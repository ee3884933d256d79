//! What a guest writes: lines of `sentinel:plugin/log`, and of stdout and stderr.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use sentinel_core::event::LogLevel;
use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

/// A line of stdout or stderr that grows past this many bytes is broken.
const LINE_BYTES: usize = 8 * 1024;
/// What stdout and stderr take in one write.
const WRITE_BYTES: usize = 64 * 1024;
/// How many of the last lines on stderr are kept to explain a trap, and how many bytes
/// of each.
const LAST_WORDS: usize = 8;
const LAST_WORDS_BYTES: usize = 1024;

/// Where accepted lines go. Called with the log locked: it must not block.
pub(crate) type Sink = Box<dyn Fn(LogLevel, &str) + Send + Sync>;

/// The log of one run. Clones write to the same log.
#[derive(Clone)]
pub(crate) struct RunLog {
    shared: Arc<Shared>,
}

struct Shared {
    sink: Sink,
    state: Mutex<State>,
}

struct State {
    bytes_left: usize,
    lines_left: u32,
    dropped: u32,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    last_words: VecDeque<String>,
}

impl RunLog {
    pub(crate) fn new(bytes: usize, lines: u32, sink: Sink) -> Self {
        Self {
            shared: Arc::new(Shared {
                sink,
                state: Mutex::new(State {
                    bytes_left: bytes,
                    lines_left: lines,
                    dropped: 0,
                    stdout: Vec::new(),
                    stderr: Vec::new(),
                    last_words: VecDeque::new(),
                }),
            }),
        }
    }

    /// Writes one entry, which may have several lines.
    pub(crate) fn write(&self, level: LogLevel, message: &str) {
        let message = &*settled(message);
        let mut state = self.lock();
        if level == LogLevel::Error {
            message.lines().for_each(|line| state.remember(line));
        }
        self.accept(&mut state, level, message);
    }

    /// Writes what stdout and stderr hold of an unfinished line. To be called when the
    /// guest is gone.
    pub(crate) fn finish(&self) {
        let mut state = self.lock();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(state.buffer(stream));
            self.line(&mut state, stream, &rest);
        }
    }

    /// How many entries were dropped because the log was full.
    pub(crate) fn dropped(&self) -> u32 {
        self.lock().dropped
    }

    /// What the guest said last on stderr or as an error: the text of a Rust panic
    /// where there is one, else the last line.
    pub(crate) fn last_words(&self) -> Option<String> {
        let state = self.lock();
        let lines = &state.last_words;
        let panic = lines
            .iter()
            .enumerate()
            .rev()
            .find_map(|(at, line)| Some((at, line.split_once("panicked at ")?.1)));
        let Some((at, place)) = panic else {
            return lines.back().cloned();
        };
        let message: Vec<&str> = lines
            .iter()
            .skip(at + 1)
            .map(String::as_str)
            .take_while(|line| !line.starts_with("note: run with"))
            .collect();
        let place = place.trim_end_matches(':');
        Some(if message.is_empty() {
            format!("panicked at {place}")
        } else {
            format!("panicked at {place}: {}", message.join(" "))
        })
    }

    /// The guest's stdout, as a stream for WASI.
    pub(crate) fn stdout(&self) -> Capture {
        self.capture(Stream::Stdout)
    }

    /// The guest's stderr, as a stream for WASI.
    pub(crate) fn stderr(&self) -> Capture {
        self.capture(Stream::Stderr)
    }

    fn capture(&self, stream: Stream) -> Capture {
        Capture {
            log: self.clone(),
            stream,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements: a panic elsewhere does not
        // spoil it.
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(&self, state: &mut State, level: LogLevel, message: &str) {
        if state.lines_left == 0 || state.bytes_left == 0 {
            state.dropped = state.dropped.saturating_add(1);
            return;
        }
        let message = clean(message, state.bytes_left);
        state.lines_left -= 1;
        state.bytes_left = state.bytes_left.saturating_sub(message.len());
        (self.shared.sink)(level, &message);
    }

    fn bytes(&self, stream: Stream, mut bytes: &[u8]) {
        let mut state = self.lock();
        while !bytes.is_empty() {
            let buffer = state.buffer(stream);
            let room = LINE_BYTES.saturating_sub(buffer.len());
            let (taken, ends) = match bytes.iter().take(room).position(|byte| *byte == b'\n') {
                Some(end) => (end, true),
                None => (bytes.len().min(room), false),
            };
            let (line, rest) = bytes.split_at_checked(taken).unwrap_or((bytes, &[]));
            buffer.extend_from_slice(line);
            let full = buffer.len() >= LINE_BYTES;
            bytes = if ends {
                rest.get(1..).unwrap_or(&[])
            } else {
                rest
            };
            if ends || full {
                let line = std::mem::take(buffer);
                self.line(&mut state, stream, &line);
            }
        }
    }

    fn line(&self, state: &mut State, stream: Stream, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let line = settled(line.trim_end());
        let line = line.trim_end();
        if line.is_empty() {
            return;
        }
        if matches!(stream, Stream::Stderr) {
            state.remember(line);
        }
        self.accept(state, stream.level(), line);
    }
}

impl State {
    fn buffer(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn remember(&mut self, line: &str) {
        let line = line.trim();
        if line.is_empty() {
            return;
        }
        if self.last_words.len() == LAST_WORDS {
            self.last_words.pop_front();
        }
        self.last_words.push_back(clean(line, LAST_WORDS_BYTES));
    }
}

/// `text` as [`plain`] has it, on at most `max` bytes (and three for the mark of a cut).
pub(crate) fn clean(text: &str, max: usize) -> String {
    let mut cleaned = String::with_capacity(text.len().min(max));
    for c in plain(text) {
        if cleaned.len() + c.len_utf8() > max {
            cleaned.push('…');
            break;
        }
        cleaned.push(c);
    }
    cleaned
}

/// How far up something can be written over, as on a terminal of so many lines: what is
/// above stays whatever comes.
const ROWS: usize = 50;

/// `text` as a terminal would have left it: what is written over is gone, as progress bars
/// do it, also those of several lines, and so are colours. Every way to break a line is one.
pub(crate) fn settled(text: &str) -> Cow<'_, str> {
    const STEERS: [char; 8] = [
        '\r', '\u{8}', '\u{b}', '\u{c}', '\u{1b}', '\u{85}', '\u{2028}', '\u{2029}',
    ];
    if !text.contains(STEERS) {
        return Cow::Borrowed(text);
    }
    // The lines from the first on that can be written over, the cursor's among them.
    let mut lines: Vec<Vec<char>> = vec![Vec::new()];
    let (mut row, mut at) = (0_usize, 0_usize);
    let mut settled = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\n' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => {
                (row, at) = (row + 1, 0);
                if row == lines.len() {
                    lines.push(Vec::new());
                }
                if lines.len() > ROWS {
                    settled.extend(lines.remove(0));
                    settled.push('\n');
                    row -= 1;
                }
            }
            '\r' => at = 0,
            '\u{8}' => at = at.saturating_sub(1),
            '\u{1b}' => match control_sequence(rest.as_str()) {
                Some((parameters, end, behind)) => {
                    let count = || parameters.parse::<usize>().unwrap_or(1).max(1);
                    let line = lines.get_mut(row);
                    match (end, parameters, line) {
                        ('K', "" | "0", Some(line)) => line.truncate(at),
                        ('K', "2", Some(line)) => line.clear(),
                        ('J', "" | "0", Some(line)) => {
                            line.truncate(at);
                            lines.truncate(row + 1);
                        }
                        ('G', ..) => at = count() - 1,
                        ('A', ..) => row = row.saturating_sub(count()),
                        ('B', ..) => row = row.saturating_add(count()).min(lines.len() - 1),
                        ('E', ..) => {
                            (row, at) = (row.saturating_add(count()).min(lines.len() - 1), 0);
                        }
                        ('F', ..) => (row, at) = (row.saturating_sub(count()), 0),
                        _ => {}
                    }
                    at = at.min(lines.get(row).map_or(0, Vec::len));
                    rest = behind.chars();
                }
                None => put(&mut lines, row, &mut at, c),
            },
            c => put(&mut lines, row, &mut at, c),
        }
    }
    let last = lines.len() - 1;
    for (row, line) in lines.into_iter().enumerate() {
        settled.extend(line);
        if row < last {
            settled.push('\n');
        }
    }
    Cow::Owned(settled)
}

/// Writes `c` where the cursor is.
fn put(lines: &mut [Vec<char>], row: usize, at: &mut usize, c: char) {
    let Some(line) = lines.get_mut(row) else {
        return;
    };
    match line.get_mut(*at) {
        Some(there) => *there = c,
        None => line.push(c),
    }
    *at = (*at + 1).min(line.len());
}

/// The parameters and the last character of the control sequence (`[31m`) that `text` begins
/// with, and what is behind it.
fn control_sequence(text: &str) -> Option<(&str, char, &str)> {
    /// None that anybody uses is longer.
    const LONGEST: usize = 32;
    let inner = text.strip_prefix('[')?;
    let (at, end) = inner
        .char_indices()
        .take(LONGEST)
        .find(|(_, c)| !matches!(c, ' '..='?'))?;
    let behind = inner.get(at + 1..)?;
    matches!(end, '@'..='~').then_some((inner.get(..at)?, end, behind))
}

/// `text` without what would steer a terminal or reorder a line: control characters but
/// line breaks and tabs, and Unicode's bidirectional overrides.
pub(crate) fn plain(text: &str) -> impl Iterator<Item = char> {
    text.chars().map(|c| match c {
        '\n' | '\t' => c,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => char::REPLACEMENT_CHARACTER,
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    })
}

#[derive(Clone, Copy)]
enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn level(self) -> LogLevel {
        match self {
            Self::Stdout => LogLevel::Info,
            Self::Stderr => LogLevel::Warn,
        }
    }
}

/// Stdout or stderr of a guest: breaks what is written into lines of the log. It never
/// blocks, never fails, and what is not UTF-8 is replaced.
#[derive(Clone)]
pub(crate) struct Capture {
    log: RunLog,
    stream: Stream,
}

impl IsTerminal for Capture {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Capture {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Capture {
    async fn ready(&mut self) {}
}

impl OutputStream for Capture {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.len() > WRITE_BYTES {
            return Err(StreamError::trap(
                "a write of more than check-write permits",
            ));
        }
        self.log.bytes(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES)
    }
}

impl AsyncWrite for Capture {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.log.bytes(self.stream, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Lines = Arc<Mutex<Vec<(LogLevel, String)>>>;

    fn log(bytes: usize, lines: u32) -> (RunLog, Lines) {
        let written = Lines::default();
        let sink = Arc::clone(&written);
        let log = RunLog::new(
            bytes,
            lines,
            Box::new(move |level, line| sink.lock().unwrap().push((level, line.to_owned()))),
        );
        (log, written)
    }

    fn texts(lines: &Lines) -> Vec<String> {
        let lines = lines.lock().unwrap();
        lines.iter().map(|(_, text)| text.clone()).collect()
    }

    #[test]
    fn streams_are_broken_into_lines() {
        let (log, lines) = log(1000, 100);
        let mut out = log.stdout();
        let mut err = log.stderr();
        out.write(Bytes::from_static(b"one\ntw")).unwrap();
        err.write(Bytes::from_static(b"\n\nwoe\r\n")).unwrap();
        out.write(Bytes::from_static(b"o\n\nthree")).unwrap();
        assert_eq!(texts(&lines), ["one", "woe", "two"]);
        log.finish();
        assert_eq!(texts(&lines), ["one", "woe", "two", "three"]);
        assert_eq!(lines.lock().unwrap()[1].0, LogLevel::Warn);
    }

    #[test]
    fn bad_utf8_and_endless_lines_survive() {
        let (log, lines) = log(1_000_000, 100);
        let mut out = log.stdout();
        out.write(Bytes::from_static(b"a\xff\xfeb\n")).unwrap();
        out.write(Bytes::from(vec![b'x'; LINE_BYTES + 3])).unwrap();
        log.finish();
        let texts = texts(&lines);
        assert_eq!(texts[0], "a\u{fffd}\u{fffd}b");
        assert_eq!(texts[1].len(), LINE_BYTES);
        assert_eq!(texts[2], "xxx");
    }

    #[test]
    fn what_is_past_the_caps_is_dropped_and_counted() {
        let (by_lines, lines) = log(1000, 2);
        (0..5).for_each(|_| by_lines.write(LogLevel::Info, "x"));
        assert_eq!((texts(&lines).len(), by_lines.dropped()), (2, 3));

        let (by_bytes, lines) = log(5, 100);
        by_bytes.write(LogLevel::Info, "abc");
        by_bytes.write(LogLevel::Info, "déf");
        by_bytes.write(LogLevel::Info, "x");
        assert_eq!(texts(&lines), ["abc", "d…"]);
        assert_eq!(by_bytes.dropped(), 1);
    }

    #[test]
    fn control_characters_are_replaced() {
        let (log, lines) = log(1000, 100);
        log.write(LogLevel::Info, "a\u{1b}[31mred\nb\tc\r\u{202e}d\u{9b}");
        assert_eq!(texts(&lines), ["ared\n\u{fffd}d\u{fffd}"]);
    }

    #[test]
    fn what_was_written_over_is_gone() {
        for (written, left) in [
            ("plain\ntext\n", "plain\ntext\n"),
            ("a\r\nb\r\n", "a\nb\n"),
            ("10%\r20%\r100%\ndone", "100%\ndone"),
            ("working...\rok\n", "okrking...\n"),
            ("working...\r\u{1b}[Kok\n", "ok\n"),
            ("working...\u{1b}[2K\rok\n", "ok\n"),
            ("|\u{8}/\u{8}-\u{8}\\", "\\"),
            ("\u{1b}[1;31mred\u{1b}[0m", "red"),
            ("abc\u{1b}[1Gx", "xbc"),
            ("abc\u{1b}[999999999999999999999Gx", "xbc"),
            (
                "at A\u{2028}at B\u{85}at C\u{c}at D",
                "at A\nat B\nat C\nat D",
            ),
            ("\r\r\r", ""),
            ("\u{8}\u{8}a", "a"),
            ("\u{1b}]0;title\u{7}x", "\u{1b}]0;title\u{7}x"),
            ("\u{1b}[", "\u{1b}["),
            // Bars of several lines, as Docker, npm and Compose draw them.
            (
                "pull\na 1%\nb 1%\n\u{1b}[2A\u{1b}[2Ka 100%\r\u{1b}[1B\u{1b}[2Kb 50%\r\u{1b}[1B",
                "pull\na 100%\nb 50%\n",
            ),
            ("a\nb\nc\u{1b}[2Fx\u{1b}[Ey", "x\ny\nc"),
            ("up\nold\nolder\u{1b}[1A\r\u{1b}[Jnew\n", "up\nnew\n"),
            ("a\nbc\u{1b}[9Ad", "ad\nbc"),
            ("a\u{1b}[9Bb", "ab"),
            ("a\u{1b}[0Ab", "ab"),
        ] {
            assert_eq!(settled(written), left, "{written:?}");
        }
        // A bar that was drawn ten thousand times is one line, in proportionate time.
        let bar: Vec<_> = (0..10_000)
            .map(|at| format!("\r[{at:>5}] {}", "#".repeat(60)))
            .collect();
        let bar = bar.concat();
        assert_eq!(settled(&bar).len(), 68);
        let bars: Vec<_> = (0..10_000)
            .map(|at| format!("\u{1b}[2A\u{1b}[2Ka {at}\n\u{1b}[2Kb {at}\n"))
            .collect();
        let bars = format!("begin\n\n\n{}", bars.concat());
        assert_eq!(settled(&bars), "begin\na 9999\nb 9999\n");
        // Nobody writes over what stands higher than a terminal is.
        let long = "line\n".repeat(200);
        let over = settled(&format!("{long}\u{1b}[999A\u{1b}[Jgone")).into_owned();
        assert_eq!(over.lines().filter(|line| *line == "line").count(), 151);
    }

    #[test]
    fn the_lines_of_an_exception_stay_lines() {
        let (log, lines) = log(1000, 100);
        log.write(LogLevel::Error, "Oh: no\r\n\tat A\r\n\tat B");
        assert_eq!(texts(&lines), ["Oh: no\n\tat A\n\tat B"]);
        assert_eq!(log.last_words().unwrap(), "at B");
    }

    #[test]
    fn the_text_of_a_panic_is_found() {
        let (log, _) = log(0, 0);
        let mut err = log.stderr();
        err.write(Bytes::from_static(
            b"before\n\nthread '<unnamed>' panicked at src/lib.rs:5:9:\nindex out of bounds\n\
              note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n",
        ))
        .unwrap();
        assert_eq!(
            log.last_words().unwrap(),
            "panicked at src/lib.rs:5:9: index out of bounds"
        );
    }

    #[test]
    fn without_a_panic_the_last_line_is_what_was_said() {
        let (log, _) = log(1000, 100);
        assert_eq!(log.last_words(), None);
        log.write(LogLevel::Error, "one\ntwo");
        log.write(LogLevel::Info, "three");
        assert_eq!(log.last_words().unwrap(), "two");
    }
}
