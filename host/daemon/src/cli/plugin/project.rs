//! A plugin's folder: `plugin.yaml`, and where its file and its cases are.

use std::fmt;
use std::path::{Path, PathBuf};

use sentinel_core::id::PluginName;
use serde::Deserialize;

use crate::cli::output::Failure;

/// The file that makes a folder a plugin's project.
pub(super) const MANIFEST: &str = "plugin.yaml";
/// Where the cases of `sentinel plugin test` are, inside the project.
pub(super) const CASES: &str = "cases";

/// A language that plugins are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli) enum Language {
    /// cargo and the target wasm32-wasip2.
    Rust,
    /// componentize-py, with `CPython` inside.
    Python,
    /// componentize-qjs, with `QuickJS` inside.
    Js,
    /// clang and wasi-libc.
    C,
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rust => "rust",
            Self::Python => "python",
            Self::Js => "js",
            Self::C => "c",
        })
    }
}

/// What `plugin.yaml` says.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// The plugin's name: the built file is `NAME.wasm`.
    pub(super) name: PluginName,
    /// What it is written in.
    pub(super) lang: Language,
    /// The functions of the contract that it imports, such as `docker.restart`. Rust finds
    /// them in the code.
    #[serde(default)]
    pub(super) uses: Vec<String>,
}

/// A plugin's folder.
#[derive(Debug, Clone)]
pub(super) struct Project {
    pub(super) folder: PathBuf,
    pub(super) manifest: Manifest,
}

impl Project {
    /// Reads the project in `folder`.
    pub(super) fn read(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(MANIFEST);
        let text = std::fs::read_to_string(&path).map_err(|error| {
            Failure::given(format!("{}: cannot be read: {error}", path.display())).hint(
                "name a plugin's folder, or make one with `sentinel plugin new NAME --lang …`",
            )
        })?;
        let manifest: Manifest = serde_saphyr::from_str(&text)
            .map_err(|error| Failure::given(format!("{}: {error}", path.display())))?;
        if manifest.lang == Language::Rust && !manifest.uses.is_empty() {
            return Err(Failure::given(format!(
                "{}: `uses` is for other languages: a plugin in Rust imports what its code calls",
                path.display()
            )));
        }
        // Tools are started in it, and told of paths in it.
        let folder = folder
            .canonicalize()
            .map_err(|error| Failure::given(format!("{}: {error}", folder.display())))?;
        Ok(Self { folder, manifest })
    }

    /// Where the built plugin is.
    pub(super) fn wasm(&self) -> PathBuf {
        self.folder.join(format!("{}.wasm", self.manifest.name))
    }
}
