//! The sandbox with real guests: what loads, what runs, what passes the gate.

#![cfg(test)]

mod gate;
mod load;
mod run;
mod support;
