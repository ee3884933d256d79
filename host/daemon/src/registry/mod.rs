//! Plugins in OCI registries: what a reference names, how a registry is spoken to, whose
//! word it takes, and what a plugin is made of there.
//!
//! The client is our own, because a push and a pull are six requests: the library for it
//! brings thirty crates, and other features of those that wasmtime is compiled with.

mod artifact;
mod client;
mod credentials;
mod error;
mod proof;
mod reference;

pub(crate) use self::artifact::{Artifact, Described};
pub(crate) use self::client::Registry;
pub(crate) use self::credentials::{Credentials, DockerConfig, Source};
pub(crate) use self::error::RegistryError;
pub(crate) use self::reference::{Reference, SCHEME};
