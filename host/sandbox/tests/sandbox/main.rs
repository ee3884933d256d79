//! The sandbox with real guests: what loads, what runs, what passes the gate.

mod gate;
mod load;
mod run;
mod support;
