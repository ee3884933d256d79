//! Lines for the incident's timeline and the daemon's log. Needs no grant.
//!
//! Write with the macros [`debug!`](crate::debug!), [`info!`](crate::info!),
//! [`warn!`](crate::warn!) and [`error!`](crate::error!), which take what
//! [`format!`] takes. A run may log a limited volume (by default 64 KiB and 1,000 lines);
//! what is past it is dropped and counted. Control characters are replaced.

pub use crate::bindings::sentinel::plugin::log::Level;

use crate::bindings::sentinel::plugin::log as host;

/// Writes one entry, which may have several lines.
pub fn write(level: Level, message: &str) {
    host::write(level, message);
}

/// Logs for the plugin's author.
#[macro_export]
macro_rules! debug {
    ($($message:tt)+) => {
        $crate::log::write($crate::log::Level::Debug, &::std::format!($($message)+))
    };
}

/// Logs what an operator wants to read afterwards.
#[macro_export]
macro_rules! info {
    ($($message:tt)+) => {
        $crate::log::write($crate::log::Level::Info, &::std::format!($($message)+))
    };
}

/// Logs that something is odd and was survived.
#[macro_export]
macro_rules! warn {
    ($($message:tt)+) => {
        $crate::log::write($crate::log::Level::Warn, &::std::format!($($message)+))
    };
}

/// Logs that something is wrong and a person should know.
#[macro_export]
macro_rules! error {
    ($($message:tt)+) => {
        $crate::log::write($crate::log::Level::Error, &::std::format!($($message)+))
    };
}
