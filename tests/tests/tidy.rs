//! The rules of the house that a machine can check.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sentinel_tests::root;
use serde_json::Value;
fn metadata() -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        // What is built here is what is looked at, and has been downloaded.
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Every package that `name` is built with, however deep; not what its tests use.
fn dependencies(metadata: &Value, name: &str) -> BTreeSet<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let nodes = list(&metadata["resolve"]["nodes"]);
    let packages = list(&metadata["packages"]);
    let name_of = |id: &str| {
        packages
            .iter()
            .find(|package| package["id"] == id)
            .and_then(|package| package["name"].as_str())
            .unwrap()
            .to_owned()
    };
    let mut found = BTreeSet::new();
    let mut open: Vec<String> = packages
        .iter()
        .filter(|package| package["name"] == name)
        .map(|package| package["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(open.len(), 1, "one package named {name}");
    while let Some(id) = open.pop() {
        let node = nodes.iter().find(|node| node["id"] == id.as_str()).unwrap();
        for dependency in list(&node["deps"]) {
            let normal = list(&dependency["dep_kinds"])
                .iter()
                .any(|kind| kind["kind"].is_null());
            let id = dependency["pkg"].as_str().unwrap();
            if normal && found.insert(name_of(id)) {
                open.push(id.to_owned());
            }
        }
    }
    found
}

#[test]
fn the_core_and_the_intake_know_no_runtime_no_wasmtime_no_disk_and_no_network() {
    let banned = [
        "tokio",
        "async-std",
        "smol",
        "futures",
        "futures-util",
        "async-trait",
        "wasmtime",
        "rusqlite",
        "hyper",
        "reqwest",
        "axum",
        "bollard",
        "notify",
        "tempfile",
        "mio",
        "socket2",
    ];
    let metadata = metadata();
    for package in ["sentinel-core", "sentinel-intake"] {
        let found = dependencies(&metadata, package);
        assert!(found.contains("serde"), "the test looks at the right place");
        for name in banned {
            assert!(!found.contains(name), "{package} depends on {name}");
        }
    }
}

#[test]
fn arrows_point_down_only() {
    let metadata = metadata();
    for (package, above) in [
        (
            "sentinel-core",
            &[
                "sentinel-intake",
                "sentinel-journal",
                "sentinel-sandbox",
                "sentinel-drivers",
                "sentinel",
            ][..],
        ),
        (
            "sentinel-intake",
            &[
                "sentinel-journal",
                "sentinel-sandbox",
                "sentinel-drivers",
                "sentinel",
            ],
        ),
        (
            "sentinel-journal",
            &["sentinel-sandbox", "sentinel-drivers", "sentinel"],
        ),
        (
            "sentinel-sandbox",
            &[
                "sentinel-journal",
                "sentinel-drivers",
                "sentinel",
                "bollard",
            ],
        ),
        ("sentinel-drivers", &["sentinel-journal", "sentinel"]),
    ] {
        let found = dependencies(&metadata, package);
        for name in above {
            assert!(!found.contains(*name), "{package} depends on {name}");
        }
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn the_core_and_the_intake_ask_no_clock() {
    let mut files = Vec::new();
    sources(&root().join("host/core/src"), &mut files);
    sources(&root().join("host/intake/src"), &mut files);
    assert!(files.len() > 5);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for banned in [
            "Timestamp::now",
            "SystemTime",
            "Instant::now",
            "std::fs",
            "std::net",
            "std::process",
            "std::thread",
            "async fn",
        ] {
            assert!(!text.contains(banned), "{banned} in {}", file.display());
        }
    }
}

#[test]
fn unsafe_code_is_forbidden_in_every_crate_of_the_host() {
    for root_file in [
        "host/core/src/lib.rs",
        "host/intake/src/lib.rs",
        "host/journal/src/lib.rs",
        "host/drivers/src/lib.rs",
        "host/daemon/src/main.rs",
        "stack/drill/src/main.rs",
        "tests/src/lib.rs",
        "tests/bench/src/main.rs",
        "tests/fuzz/src/lib.rs",
    ] {
        let text = fs::read_to_string(root().join(root_file)).unwrap();
        assert!(text.contains("#![forbid(unsafe_code)]"), "{root_file}");
    }
}

#[test]
fn what_is_unsafe_stands_in_three_places() {
    let mut files = Vec::new();
    sources(&root().join("host/sandbox/src"), &mut files);
    let mut places: Vec<_> = files
        .iter()
        .filter(|file| fs::read_to_string(file).unwrap().contains("unsafe {"))
        .map(|file| file.strip_prefix(root()).unwrap().display().to_string())
        .collect();
    places.sort();
    // A setting of the allocator, bounds of the compiler's process before it begins, and machine
    // code that is taken for what it says it is.
    assert_eq!(
        places,
        [
            "host/sandbox/src/allocator.rs",
            "host/sandbox/src/code/compiler.rs",
            "host/sandbox/src/code/mod.rs"
        ]
    );
}

#[test]
fn main_composes_and_nothing_else() {
    let text = fs::read_to_string(root().join("host/daemon/src/main.rs")).unwrap();
    assert!(text.lines().count() < 40, "main.rs grows");
}

#[test]
fn metrics_are_counted_in_one_place() {
    let mut files = Vec::new();
    sources(&root().join("host/daemon/src"), &mut files);
    for file in files {
        if file
            .parent()
            .is_some_and(|folder| folder.ends_with("telemetry"))
        {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        assert!(
            !text.contains("get_or_create(") && !text.contains("prometheus_client"),
            "{} counts by itself; add a function to telemetry/events.rs",
            file.display()
        );
    }
}

#[test]
fn every_item_of_the_contract_is_documented() {
    for file in fs::read_dir(root().join("wit")).unwrap() {
        let file = file.unwrap().path();
        let text = fs::read_to_string(&file).unwrap();
        let mut before = "";
        for line in text.lines().map(str::trim) {
            let item = [
                "interface ",
                "record ",
                "enum ",
                "variant ",
                "type ",
                "export ",
                "world ",
            ]
            .iter()
            .any(|word| line.starts_with(word))
                || line.contains(": func(");
            let field = line.ends_with(',') && !line.starts_with("///");
            if item || field {
                assert!(before.starts_with("///"), "{}: `{line}`", file.display());
            }
            before = line;
        }
    }
}

#[test]
fn no_prebuilt_binary_is_in_the_tree() {
    for folder in ["plugins", "wit", "tests", "stack", "playbooks"] {
        let mut open = vec![root().join(folder)];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    let wasm = path
                        .extension()
                        .is_some_and(|e| e == "wasm" || e == "cwasm");
                    assert!(!wasm, "{}", path.display());
                }
            }
        }
    }
}

#[test]
fn the_readme_names_what_the_makefile_has() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    for target in ["demo", "test", "bench", "down", "release-check"] {
        assert!(readme.contains(&format!("make {target}")), "{target}");
        assert!(makefile.contains(&format!("\n{target}:")), "{target}");
    }
    let ci = fs::read_to_string(root().join(".ci/run")).unwrap();
    assert!(ci.contains("stack/setup/fresh.sh make test"));
}

/// The `rust-version` of a manifest.
fn rust_version(manifest: &str) -> String {
    let text = fs::read_to_string(root().join(manifest)).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = "));
    line.unwrap_or_else(|| panic!("{manifest} has no rust-version"))
        .trim_matches('"')
        .to_owned()
}

#[test]
fn all_guests_need_the_same_rust_and_the_docs_name_it() {
    let oldest = rust_version("plugins/sdk/Cargo.toml");
    let mut manifests = vec![
        "tests/hostile-plugins/Cargo.toml".to_owned(),
        "host/daemon/templates/plugin/rust/Cargo.toml".to_owned(),
        "plugins/examples/rust-crash-loop/Cargo.toml".to_owned(),
    ];
    for folder in fs::read_dir(root().join("plugins")).unwrap() {
        let name = folder.unwrap().file_name().into_string().unwrap();
        let manifest = format!("plugins/{name}/Cargo.toml");
        if root().join(&manifest).exists() {
            manifests.push(manifest);
        }
    }
    assert!(manifests.len() > 10, "{manifests:?}");
    for manifest in manifests {
        assert_eq!(rust_version(&manifest), oldest, "{manifest}");
    }
    let docs = fs::read_to_string(root().join("docs/plugins.md")).unwrap();
    assert!(docs.contains(&format!("Rust {oldest} or later")));
}

#[test]
fn the_docs_name_the_node_that_the_setup_asks_for() {
    let script = fs::read_to_string(root().join("stack/setup/toolchains.sh")).unwrap();
    let least = script
        .lines()
        .find_map(|line| line.strip_prefix("node_least="))
        .unwrap();
    let docs = fs::read_to_string(root().join("docs/plugins.md")).unwrap();
    assert!(docs.contains(&format!("Node.js {least} or later")));
    let code = fs::read_to_string(root().join("host/daemon/src/cli/plugin/build.rs")).unwrap();
    assert!(code.contains(&format!("LEAST_NODE: u32 = {least};")));
}

#[test]
fn the_root_of_the_tree_has_nothing_that_is_not_known() {
    // A stray file in the root is in nobody's way until it is in everybody's.
    let known = [
        ".ci/run",
        ".gitignore",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "Makefile",
        "README.md",
        "SECURITY.md",
        "clippy.toml",
        "deny.toml",
    ];
    let folders = [
        "docs",
        "host",
        "playbooks",
        "plugins",
        "stack",
        "tests",
        "wit",
    ];
    let listed = std::process::Command::new("git")
        .args(["-C", root().to_str().unwrap(), "ls-files"])
        .output()
        .expect("git runs");
    assert!(listed.status.success(), "{listed:?}");
    let listed = String::from_utf8(listed.stdout).unwrap();
    let mut files = 0;
    for file in listed.lines() {
        files += 1;
        let folder = file.split('/').next().unwrap_or_default();
        assert!(known.contains(&file) || folders.contains(&folder), "{file}");
        let bytes = fs::metadata(root().join(file)).map_or(0, |file| file.len());
        assert!(bytes < 1 << 18, "{file} has {bytes} bytes");
    }
    assert!(files > 300, "{files}");
}

/// Every word of `text` that begins with `prefix` and goes on in capitals.
fn words<'a>(text: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    text.split(|c: char| !c.is_ascii_uppercase() && c != '_')
        .filter(|word| word.starts_with(prefix) && word.len() > prefix.len())
        .collect()
}

#[test]
fn every_variable_of_the_environment_is_documented() {
    let code = fs::read_to_string(root().join("host/daemon/src/config.rs")).unwrap();
    let docs = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let mut documented = words(&docs, "SENTINEL_");
    // These are the command line's.
    for name in ["SENTINEL_CONFIG", "SENTINEL_URL"] {
        assert!(documented.remove(name), "{name}");
    }
    assert_eq!(words(&code, "SENTINEL_"), documented);
}

#[test]
fn the_links_between_the_documents_lead_somewhere() {
    let mut pages: Vec<PathBuf> = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
    ]
    .map(|page| root().join(page))
    .to_vec();
    for page in fs::read_dir(root().join("docs")).unwrap() {
        pages.push(page.unwrap().path());
    }
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1) {
            let link = link.split([')', '#']).next().unwrap_or_default();
            if link.is_empty() || link.starts_with("http") {
                continue;
            }
            let target = page.parent().unwrap().join(link);
            assert!(target.exists(), "{}: {link}", page.display());
        }
    }
}
