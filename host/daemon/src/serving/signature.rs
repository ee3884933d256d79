//! Signatures of plugins: minisign's, in a file of their own beside the plugin.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use minisign_verify::{PublicKey, Signature};

use crate::config::{PluginsConfig, Signatures};

/// How minisign calls the signature of a file.
pub(super) const ENDING: &str = "minisig";

/// Where the signature of the plugin in `file` is.
pub(super) fn beside(file: &Path) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(".");
    name.push(ENDING);
    name.into()
}

/// Says what is wrong with the signature of `wasm`, where the configuration asks for one.
/// Where it asks for no more than a warning, that is all that comes of it.
pub(super) fn check(
    config: &PluginsConfig,
    file: &str,
    wasm: &[u8],
    signature: Option<&str>,
) -> Result<(), String> {
    if config.signatures == Signatures::Off {
        return Ok(());
    }
    match (verify(&config.keys, wasm, signature), config.signatures) {
        (Err(problem), Signatures::Enforce) => Err(problem),
        (Err(problem), _) => {
            tracing::warn!(file, problem, "this plugin serves without a good signature");
            Ok(())
        }
        (Ok(signed), _) => {
            tracing::debug!(file, signed, "the plugin's signature is good");
            Ok(())
        }
    }
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
