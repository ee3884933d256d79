//! What must hold of every parser of foreign bytes, whatever the bytes are.
//!
//! A target is a plain function of bytes, which panics where something does not hold. `make fuzz`
//! feeds each with what libFuzzer makes up to reach new code, and `tests/seeds.rs` with its seeds
//! and thousands of changes to them. Most of what it is to find is no crash: what is taken in is
//! within its bounds, what is written is read again as the same, work does not run away, and what
//! is said of what is refused is short.

#![forbid(unsafe_code)]

mod ansible;
mod component;
mod filled;
mod intake;
mod journal;
mod policy;
mod texts;

pub mod seeds;

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

pub use ansible::ansible;
pub use component::{component, schema};
pub use filled::{target, template, url_template};
pub use intake::{active, alerts, webhook};
pub use journal::{log, record};
pub use policy::policy;
pub use texts::{matcher, names, url};

/// A target's name, which its program, its seeds and its dictionary have too, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 15] = [
    ("webhook", webhook),
    ("alerts", alerts),
    ("active", active),
    ("matcher", matcher),
    ("template", template),
    ("target", target),
    ("url", url),
    ("url_template", url_template),
    ("names", names),
    ("policy", policy),
    ("ansible", ansible),
    ("record", record),
    ("log", log),
    ("component", component),
    ("schema", schema),
];

/// The checkout.
#[must_use]
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What some bytes may take of the processor before anything else counts: compiling an expression
/// does, and so does a build that is watched step by step.
const ALLOWANCE: Duration = Duration::from_secs(2);

/// What each byte may take beside that. Work that grows with the square of an input is past it
/// after some hundred KiB.
const PER_BYTE: Duration = Duration::from_micros(20);

/// Does some work on an input, and sees to it that it takes no more than its size allows.
fn bounded<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let begun = processor();
    let done = work();
    let taken = processor().saturating_sub(begun);
    let most = ALLOWANCE + PER_BYTE * u32::try_from(bytes).unwrap_or(u32::MAX);
    assert!(taken <= most, "{bytes} bytes took {taken:?}");
    done
}

/// What this thread has had of the processor, whatever else the machine does.
fn processor() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)
        .expect("every thread has a clock")
        .into()
}

/// Sees to it that what is said of an input of so many bytes is no longer than it deserves: it
/// may quote the input, in which a byte can become an escape, and no more.
fn said(error: &impl Display, bytes: usize) {
    let said = error.to_string();
    let most = 1000 + 12 * bytes;
    assert!(said.len() <= most, "{} bytes are said", said.len());
    assert!(!said.is_empty(), "nothing is said");
}

/// The same where the input may be large: what is said is short, however long that is.
fn said_shortly(error: &impl Display) {
    let said = error.to_string();
    assert!(said.len() <= 4096, "{} bytes are said: {said}", said.len());
    assert!(!said.is_empty(), "nothing is said");
}

/// An input as text, as whatever reads files and bodies has it.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The parts of an input, between its zero bytes; those that are missing are empty.
fn parts<const N: usize>(bytes: &[u8]) -> [String; N] {
    let mut all = bytes.splitn(N, |byte| *byte == 0).map(text);
    std::array::from_fn(|_| all.next().unwrap_or_default())
}
