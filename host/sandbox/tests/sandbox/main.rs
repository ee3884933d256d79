//! The sandbox with real guests: what loads, what runs, what passes the gate.

#![cfg(test)]

mod compiler;
mod gate;
mod halt;
mod http;
mod load;
mod mail;
mod modes;
mod record;
mod replay;
mod resume;
mod run;
mod support;
