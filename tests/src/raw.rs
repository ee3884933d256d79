//! HTTP as no client writes it: whatever bytes a test wants on a connection.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Connects, with times after which reading and writing give up.
#[must_use]
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    let patience = Some(Duration::from_secs(60));
    stream.set_read_timeout(patience).expect("a time");
    stream.set_write_timeout(patience).expect("a time");
    stream
}

/// Sends this and reads what comes back until the connection is closed. The head should ask for that.
#[must_use]
pub fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = connect(address);
    // Whoever refuses may close before everything is sent.
    let sent = stream.write_all(request.as_bytes());
    drop(sent);
    rest(&mut stream)
}

/// What comes until the connection is closed.
#[must_use]
pub fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset at the end takes nothing back that was read before.
    let read = stream.read_to_end(&mut answer);
    drop(read);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status of an answer; 0 when there is none.
#[must_use]
pub fn status(answer: &str) -> u16 {
    let word = answer.split(' ').nth(1);
    word.and_then(|word| word.parse().ok()).unwrap_or_default()
}

/// Sends this head, which announces chunks, and then chunks without end, until there is an answer or the connection is
/// closed. Says what was answered, how much was sent and how long it took.
#[must_use]
pub fn endless(address: SocketAddr, head: &str, within: Duration) -> (String, usize, Duration) {
    let begun = Instant::now();
    let mut stream = connect(address);
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    stream.write_all(head.as_bytes()).expect("a head");
    stream
        .set_write_timeout(Some(Duration::from_secs(1)))
        .expect("a time");
    let mut sent = 0;
    while begun.elapsed() < within {
        // A chunk that was taken in part goes on where it was.
        let from = sent % chunk.len();
        // Whoever reads no more, or has closed, has had enough.
        let Ok(bytes) = stream.write(&chunk.as_bytes()[from..]) else {
            break;
        };
        sent += bytes;
    }
    let answer = rest(&mut stream);
    (answer, sent, begun.elapsed())
}
