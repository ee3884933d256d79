//! Small durable state of a plugin under a policy: what one run leaves for the next.
//!
//! A policy grants it with `memory: true`.
//!
//! Nothing is shared between policies. What is set is committed when the run ends without
//! a failure, and dropped otherwise. Keys are 1 to 128 bytes; a value is at most 16 KiB,
//! and all of one plugin's under one policy at most 256 KiB.
//!
//! ```no_run
//! use sentinel_plugin::{Failure, clock, memory};
//!
//! fn runs_so_far() -> Result<u32, Failure> {
//!     let runs: u32 = memory::get_json("runs")?.unwrap_or(0);
//!     memory::set_json("runs", &(runs + 1))?;
//!     Ok(runs)
//! }
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::CapabilityError;
use crate::bindings::sentinel::plugin::memory as host;

/// The value at `key`, if there is one.
pub fn get(key: &str) -> Result<Option<Vec<u8>>, CapabilityError> {
    Ok(host::get(key)?)
}

/// The value at `key` that [`set_json`] put there, if there is one;
/// [`CapabilityError::Invalid`] when what is there is no `T`.
pub fn get_json<T: DeserializeOwned>(key: &str) -> Result<Option<T>, CapabilityError> {
    get(key)?
        .map(|value| {
            serde_json::from_slice(&value).map_err(|error| {
                CapabilityError::Invalid(format!("the memory at {key:?}: {error}"))
            })
        })
        .transpose()
}

/// Sets the value at `key`.
pub fn set(key: &str, value: &[u8]) -> Result<(), CapabilityError> {
    Ok(host::set(key, value)?)
}

/// Sets the value at `key` to `value` as JSON; [`CapabilityError::Invalid`] when it has no
/// form in JSON.
pub fn set_json<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<(), CapabilityError> {
    let value = serde_json::to_vec(value)
        .map_err(|error| CapabilityError::Invalid(format!("the memory at {key:?}: {error}")))?;
    set(key, &value)
}

/// Forgets `key`. Forgetting what is not there is no error.
pub fn forget(key: &str) -> Result<(), CapabilityError> {
    Ok(host::forget(key)?)
}

/// The keys that begin with `prefix`, sorted.
pub fn keys(prefix: &str) -> Result<Vec<String>, CapabilityError> {
    Ok(host::keys(prefix)?)
}
