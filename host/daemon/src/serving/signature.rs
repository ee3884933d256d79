//! Signatures of plugins: minisign's, in a file of their own beside the plugin.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use minisign_verify::{PublicKey, Signature};

use crate::config::{PluginsConfig, Signatures};

/// How minisign calls the signature of a file.
const ENDING: &str = "minisig";

/// Where the signature of the plugin in `file` is.
pub(crate) fn beside(file: &Path) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(".");
    name.push(ENDING);
    name.into()
}

/// What comes of looking at a signature, where the plugin may serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Judged {
    /// The configuration asks for none.
    NotAsked,
    /// It is by one of the keys; what it says of itself.
    Good(String),
    /// It is not, and the configuration asks for no more than a warning.
    Tolerated(String),
}

/// Holds the signature of `wasm` against what the configuration asks for; says what is wrong
/// where that is a reason to refuse it.
pub(crate) fn judge(
    config: &PluginsConfig,
    wasm: &[u8],
    signature: Option<&str>,
) -> Result<Judged, String> {
    if config.signatures == Signatures::Off {
        return Ok(Judged::NotAsked);
    }
    match verify(&config.keys, wasm, signature) {
        Ok(signed) => Ok(Judged::Good(signed)),
        Err(problem) if config.signatures == Signatures::Enforce => Err(problem),
        Err(problem) => Ok(Judged::Tolerated(problem)),
    }
}

/// The same for a plugin that is about to serve, which the log tells of.
pub(super) fn check(
    config: &PluginsConfig,
    file: &str,
    wasm: &[u8],
    signature: Option<&str>,
) -> Result<(), String> {
    match judge(config, wasm, signature)? {
        Judged::NotAsked => {}
        Judged::Good(signed) => tracing::debug!(file, signed, "the plugin's signature is good"),
        Judged::Tolerated(problem) => {
            tracing::warn!(file, problem, "this plugin serves without a good signature");
        }
    }
    Ok(())
}

/// What the signature says of itself, if it is by one of the keys.
fn verify(keys: &[PublicKey], wasm: &[u8], signature: Option<&str>) -> Result<String, String> {
    let Some(text) = signature else {
        return Err(format!(
            "it has no signature, and plugins.signatures asks for one: sign it with `minisign -Sm FILE` and put FILE.{ENDING} beside it"
        ));
    };
    let signature = Signature::decode(text)
        .map_err(|error| format!("its signature cannot be read ({error}): sign it again"))?;
    keys.iter()
        // Signatures over the whole file instead of its hash are minisign's of before 2020.
        .find(|key| key.verify(wasm, &signature, false).is_ok())
        .map(|_| signature.trusted_comment().to_owned())
        .ok_or_else(|| {
            "its signature is by none of plugins.keys, or the file was changed since it was signed"
                .to_owned()
        })
}
