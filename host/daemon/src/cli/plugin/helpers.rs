//! What a project is given beside the contract: the SDK for Rust, and a file that helps in each
//! other language. All of it is in the binary, so that it fits the contract that it serves.

use std::path::Path;

use super::contract;
use super::project::{Language, Project};
use crate::cli::output::Failure;

macro_rules! sdk {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("../../../../../plugins/sdk/src/", $name)))),+]
    };
}

/// The sources of `plugins/sdk`.
const SDK: [(&str, &str); 14] = sdk![
    "ansible.rs",
    "bindings.rs",
    "clock.rs",
    "docker.rs",
    "error.rs",
    "export.rs",
    "http.rs",
    "incident.rs",
    "lib.rs",
    "log.rs",
    "mail.rs",
    "memory.rs",
    "params.rs",
    "random.rs",
];

/// The SDK's manifest outside of this workspace.
const SDK_MANIFEST: &str = r#"# Made by `sentinel plugin build`: do not edit.
[package]
name = "sentinel-plugin"
version = "{{version}}"
edition = "2024"
license = "Apache-2.0"
publish = false
description = "Remediation plugins for Infra Sentinel, in Rust"

[dependencies]
serde = { version = "1", features = ["derive"] }
serde_json = "1"
wit-bindgen = { version = "0.61", default-features = false, features = ["macros", "realloc"] }
"#;

const PYTHON: &str = include_str!("../../../../../plugins/helpers/python/sentinel_plugin.py");
const JS: &str = include_str!("../../../../../plugins/helpers/js/sentinel.js");
const C: &str = include_str!("../../../../../plugins/helpers/c/sentinel.h");

/// Writes the project's `wit/` and `bindings/`. Files that are as they should be are not
/// touched: their times tell tools and watchers.
pub(super) fn write(project: &Project) -> Result<(), Failure> {
    let folder = &project.folder;
    let bindings = folder.join("bindings");
    let uses = &project.manifest.uses;
    let narrowed = || {
        let wit = contract::narrowed(uses).map_err(|problem| in_manifest(&problem))?;
        put(&folder.join("wit/plugin.wit"), wit.as_bytes())
    };
    match project.manifest.lang {
        Language::Rust => {
            for (name, text) in contract::WIT {
                put(&folder.join("wit").join(name), text.as_bytes())?;
            }
            let sdk = bindings.join("sentinel-plugin");
            let manifest = SDK_MANIFEST.replace("{{version}}", env!("CARGO_PKG_VERSION"));
            put(&sdk.join("Cargo.toml"), manifest.as_bytes())?;
            for (name, text) in SDK {
                put(&sdk.join("src").join(name), text.as_bytes())?;
            }
            Ok(())
        }
        Language::Python => {
            narrowed()?;
            put(&bindings.join("sentinel_plugin.py"), PYTHON.as_bytes())
        }
        Language::Js => {
            narrowed()?;
            put(&bindings.join("sentinel.js"), JS.as_bytes())
        }
        Language::C => {
            for (name, bytes) in
                contract::c_bindings(uses).map_err(|problem| in_manifest(&problem))?
            {
                put(&bindings.join(name), &bytes)?;
            }
            put(&bindings.join("sentinel.h"), C.as_bytes())
        }
    }
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if std::fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    made.and_then(|()| std::fs::write(path, bytes))
        .map_err(|error| {
            Failure::cannot_create(format!("{}: cannot be written: {error}", path.display()))
        })
}

fn in_manifest(problem: &str) -> Failure {
    Failure::given(format!("plugin.yaml: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_carries_the_whole_sdk() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/sdk/src");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        assert_eq!(files, SDK.map(|(name, _)| name));
    }

    /// What the SDK is built with here is what it is built with elsewhere.
    #[test]
    fn the_sdk_has_the_dependencies_that_it_has_here() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let here = std::fs::read_to_string(folder.join("plugins/sdk/Cargo.toml")).unwrap();
        let names = |manifest: &str| -> Vec<String> {
            let (_, dependencies) = manifest.split_once("[dependencies]\n").unwrap();
            dependencies
                .lines()
                .take_while(|line| !line.starts_with('['))
                .filter_map(|line| line.split(['.', ' ']).next())
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect()
        };
        assert_eq!(names(SDK_MANIFEST), names(&here));
        let workspace = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let wit_bindgen = SDK_MANIFEST
            .lines()
            .find(|line| line.starts_with("wit-bindgen"))
            .unwrap();
        assert!(workspace.contains(wit_bindgen));
    }
}
