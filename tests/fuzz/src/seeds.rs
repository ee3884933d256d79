//! What fuzzing begins with: small inputs of real senders and tools, and what tests already have.

use std::fs;
use std::path::{Path, PathBuf};

use sentinel_simulation::Scenario;
use sentinel_tests::wat::{CORE, QUIET, module, resolve};

use crate::journal::Written;
use crate::root;

/// Where the program of a target writes its seeds when it starts, for libFuzzer to read.
const FOLDER: &str = "SENTINEL_FUZZ_SEEDS";

/// What stands in a seed's file for the zero byte between its parts: files are text.
const SEPARATOR: &str = "\u{2400}";

/// The seeds of a target.
#[must_use]
pub fn of(target: &str) -> Vec<Vec<u8>> {
    let own = root().join("tests/fuzz/seeds").join(target);
    let own = if own.exists() {
        files(&own)
    } else {
        Vec::new()
    };
    let mut seeds: Vec<_> = own.iter().map(|file| separated(&read(file))).collect();
    match target {
        "policy" => {
            for folder in [
                "host/core/tests/fixtures/policies",
                "host/core/tests/fixtures/mistakes",
                "stack/sentinel/policies",
                "stack/sentinel/policies-tests",
            ] {
                seeds.extend(files(&root().join(folder)).iter().map(|file| read(file)));
            }
        }
        "record" => seeds.extend(records()),
        "log" => {
            for (big, page) in [(true, 512), (false, 512), (false, 1024)] {
                seeds.push(Written::new(big, page, &[0, 2, 1]).bytes);
            }
        }
        "component" => {
            seeds.push(CORE.quiet());
            seeds.push(CORE.with_wasi());
            seeds.push(module(&resolve(QUIET), "quiet", CORE.bytes()));
            seeds.push(CORE.text().into_bytes());
        }
        _ => {}
    }
    seeds
}

/// Writes the seeds of a target into the folder that the environment names, if it names one.
pub fn lay_out(target: &str) {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    fs::create_dir_all(&folder).expect("a folder for the seeds");
    for (number, seed) in of(target).iter().enumerate() {
        fs::write(folder.join(format!("seed-{number:03}")), seed).expect("a seed");
    }
}

/// The shortest records of a simulated world or two in which each kind of event comes about.
fn records() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = (0..12)
        .flat_map(|seed| sentinel_simulation::record(&Scenario::of(seed)))
        .map(|events| {
            let lines = events
                .iter()
                .map(|event| serde_json::to_string(event).expect("a record is kept"));
            lines.collect::<Vec<_>>().join("\n").into_bytes()
        })
        .collect();
    all.sort_by_key(Vec::len);
    let kinds = |record: &[u8]| -> Vec<String> {
        let text = String::from_utf8_lossy(record);
        let kinds = text.split("\"kind\":\"").skip(1);
        kinds
            .filter_map(|rest| rest.split('"').next())
            .map(str::to_owned)
            .collect()
    };
    let mut known = std::collections::BTreeSet::new();
    // Those that bring something new.
    all.retain(|record| {
        let before = known.len();
        known.extend(kinds(record));
        known.len() > before
    });
    all
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("a file of seeds").path())
        .collect();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files.sort();
    files
}

fn read(file: &Path) -> Vec<u8> {
    fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn separated(seed: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(seed) {
        Ok(text) => {
            let text = text.strip_suffix('\n').unwrap_or(text);
            text.replace(SEPARATOR, "\0").into_bytes()
        }
        Err(_) => seed.to_vec(),
    }
}
