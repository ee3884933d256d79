//! Randomness, as the host gives it. Not for keys. Needs no
//! grant.

use crate::bindings::sentinel::plugin::random as host;

/// 64 random bits.
#[must_use]
pub fn bits() -> u64 {
    host::bits()
}
