//! Keys that plugins are signed with.

use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A pair of keys, made and used by minisign itself.
#[derive(Debug)]
pub struct Keys(TempDir);

impl Default for Keys {
    fn default() -> Self {
        Self::new()
    }
}

impl Keys {
    /// Makes a pair.
    #[must_use]
    pub fn new() -> Self {
        let keys = Self(tempfile::tempdir().expect("a temporary folder"));
        keys.minisign(&["-G", "-W", "-p", "public", "-s", "secret"]);
        keys
    }

    fn minisign(&self, args: &[&str]) {
        let made = Command::new("minisign")
            .args(args)
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .output()
            .expect("minisign: `stack/setup/packages.sh tests` installs it");
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
    }

    /// The public key, as the configuration takes it.
    #[must_use]
    pub fn public(&self) -> String {
        let file = std::fs::read_to_string(self.0.path().join("public")).expect("a key");
        file.lines().last().expect("a line").to_owned()
    }

    /// The signature of these bytes: the text of its file.
    #[must_use]
    pub fn sign(&self, wasm: &[u8]) -> String {
        std::fs::write(self.0.path().join("file"), wasm).expect("a file");
        self.minisign(&["-S", "-s", "secret", "-m", "file", "-x", "signature"]);
        std::fs::read_to_string(self.0.path().join("signature")).expect("a signature")
    }
}
