//! Where Ansible's hosts come from.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// One of Ansible's `--inventory`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InventorySource {
    /// A file, a folder or a program.
    Path(PathBuf),
    /// A list of hosts, which has a comma: `web1,web2` or `web1,`.
    Hosts(String),
}

impl fmt::Display for InventorySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Hosts(hosts) => f.write_str(hosts),
        }
    }
}

impl InventorySource {
    /// Reads `text` as Ansible does: what has a comma is a list of hosts. A path is
    /// relative to `folder`.
    #[must_use]
    pub fn new(text: &str, folder: &Path) -> Self {
        if text.contains(',') {
            Self::Hosts(text.to_owned())
        } else {
            Self::Path(folder.join(text))
        }
    }

    /// The path, of one that is on disk.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Path(path) => Some(path),
            Self::Hosts(_) => None,
        }
    }

    pub(super) fn absolute(self) -> Self {
        match self {
            Self::Path(path) => Self::Path(std::path::absolute(&path).unwrap_or(path)),
            Self::Hosts(_) => self,
        }
    }

    /// The argument for `--inventory`.
    pub(super) fn argument(&self) -> OsString {
        match self {
            Self::Path(path) => path.clone().into(),
            Self::Hosts(hosts) => hosts.into(),
        }
    }
}
