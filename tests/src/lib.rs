//! What the end-to-end tests share: a real daemon in a folder of its own, real
//! containers, and the payloads that real senders send.
//!
//! What can be tested on the real thing is. There is one fake, a Docker Engine
//! ([`fake_docker`]) that counts what it is asked and goes wrong on demand. A test that
//! needs something that is missing fails and says what to run; it is never skipped.

#![forbid(unsafe_code)]
pub mod alertmanager;
pub mod containers;
pub mod daemon;
pub mod fake_docker;
pub mod keys;
pub mod ledger;
pub mod machine;
pub mod mail;
pub mod payload;
pub mod podman;
pub mod raw;
pub mod receiver;
pub mod registry;
pub mod remote;
pub mod steady;
pub mod wat;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A file or folder that `make` built, named by a variable of the environment or at
/// its place in the checkout.
#[must_use]
pub fn built(variable: &str, place: &str) -> PathBuf {
    let path = std::env::var_os(variable).map_or_else(|| root().join(place), PathBuf::from);
    assert!(
        path.exists(),
        "{} is missing: run the tests with `make test`, or build it first (`make build plugins`)",
        path.display()
    );
    path
}

/// A program that `stack/setup/packages.sh tests` unpacked without installing it, or the machine's own.
#[must_use]
pub fn unpacked(folder: &str, program: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"),
        PathBuf::from,
    );
    let unpacked = cache
        .join("infra-sentinel")
        .join(folder)
        .join("usr/bin")
        .join(program);
    if unpacked.exists() {
        unpacked
    } else {
        program.into()
    }
}

/// The checkout.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate is in a folder of the checkout")
        .to_owned()
}

/// A plugin that the tests install.
#[must_use]
pub fn plugin(name: &str) -> PathBuf {
    let (variable, place) = if ["hostile", "scripted", "counting"]
        .iter()
        .any(|test| name.starts_with(test))
    {
        ("SENTINEL_HOSTILE", "target/plugins/hostile")
    } else {
        ("SENTINEL_PLUGINS", "target/plugins/dist")
    };
    let path = built(variable, place).join(format!("{name}.wasm"));
    assert!(
        path.exists(),
        "{} is missing: run `make plugins`",
        path.display()
    );
    path
}

/// Looks every 20 ms until `look` finds something, or panics after `within`.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> F,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            begun.elapsed() < within,
            "waited {within:?} in vain: {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
