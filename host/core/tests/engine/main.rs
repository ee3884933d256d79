//! An incident's life, the engine over all of them, and rehearsals of it, each driven from
//! outside.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers may assume what tests may"
)]

mod incident;
mod people;
mod rehearsal;
mod support;
