//! Rehearsals: the real engine with a time of its own, a past in memory, and a script
//! for what the world would do.
//!
//! Nothing here decides anything: [`crate::engine`] does, as it does in the daemon. A
//! rehearsal only plays the parts around it. It delivers notifications and orders of
//! operators when their time has come, commits what a turn appends to [`Past`], carries
//! runs and verifications out as [`Outcomes`] says that they go, and writes a [`Trace`].
//! The same script gives the same trace, always.
//!
//! Three things are made of it: the unit tests of policies ([`suite`]), backtests over
//! what a journal holds ([`Recorded`], [`compare`]), and `sentinel explain`, which uses
//! [`look`] alone.

mod assumed;
mod compare;
mod heard;
mod look;
mod past;
mod play;
mod recorded;
pub mod suite;
mod trace;

pub use self::assumed::{Answer, Assumed, Outcomes, ScriptedLook, ScriptedRun, Verdict};
pub use self::compare::{Difference, Kind, Summary, compare, summary};
pub use self::heard::{Heard, deliveries};
pub use self::look::{Found, Look, look};
pub use self::past::Past;
pub use self::play::{Rehearsal, Which};
pub use self::recorded::Recorded;
pub use self::trace::{Decision, Trace, What};
