//! `sentinel plugin check`.

use std::fmt::Write as _;
use std::path::Path;

use sentinel_core::id::{Digest, PluginName};
use sentinel_sandbox::{Anatomy, CONTRACT, Form, Room};
use serde::Serialize;

use super::contract::WORLD;
use super::{asks_for, read, runtime, sandbox, size};
use crate::cli::Output;
use crate::cli::output::{Failure, harmless, print_as};

#[derive(Debug, Serialize)]
struct Checked {
    ok: bool,
    file: String,
    digest: Digest,
    size: usize,
    /// The contract that this version of sentinel serves.
    serves: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(flatten)]
    anatomy: Option<Anatomy>,
    #[serde(flatten)]
    #[serde(skip_serializing_if = "Option::is_none")]
    says: Option<Says>,
    /// Why the daemon would refuse it.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// What is worth a look, and no reason to refuse it.
    notes: Vec<String>,
}

/// What it says of itself.
#[derive(Debug, Serialize)]
struct Says {
    name: PluginName,
    version: String,
    summary: String,
    /// How long it took to compile and to ask it, in milliseconds.
    load_millis: u64,
}

pub(super) fn run(file: &Path, output: Output) -> Result<(), Failure> {
    let wasm = read(file)?;
    let mut checked = Checked {
        ok: false,
        file: file.display().to_string(),
        digest: Digest::of(&wasm),
        size: wasm.len(),
        serves: CONTRACT,
        anatomy: None,
        says: None,
        problem: None,
        notes: Vec::new(),
    };
    match Anatomy::of(&wasm, &Room::default()) {
        Err(error) => checked.problem = Some(error.to_string()),
        Ok(anatomy) => {
            checked.notes = notes(&anatomy);
            checked.anatomy = Some(anatomy);
            let began = std::time::Instant::now();
            match runtime()?.block_on(sandbox()?.load(wasm)) {
                Err(error) => checked.problem = Some(error.to_string()),
                Ok(plugin) => {
                    checked.ok = true;
                    if plugin.summary.is_empty() {
                        checked
                            .notes
                            .push("it says nothing of what it does: give it a summary".to_owned());
                    }
                    checked.says = Some(Says {
                        name: plugin.name.clone(),
                        version: plugin.version.to_string(),
                        summary: plugin.summary.clone(),
                        load_millis: super::build::millis(began.elapsed()),
                    });
                }
            }
        }
    }
    print_as(output, &checked, || text(&checked))?;
    if checked.ok {
        Ok(())
    } else {
        // Everything has been said.
        Err(Failure::given(""))
    }
}

fn notes(anatomy: &Anatomy) -> Vec<String> {
    let mut notes = Vec::new();
    let docker = anatomy
        .asks_for
        .iter()
        .filter(|import| import.to_string().starts_with("docker."))
        .count();
    if docker == sentinel_core::capability::DockerAction::ALL.len() {
        notes.push(
            "it imports every function of docker, and a policy has to grant them all: name in `uses` of plugin.yaml what it needs, and build it with `sentinel plugin build`"
                .to_owned(),
        );
    }
    if anatomy.initial_memory > (Room::default().memory / 2) as u64 {
        notes.push(format!(
            "it begins with {} of the {} of memory that a run may have",
            size(usize::try_from(anatomy.initial_memory).unwrap_or(usize::MAX)),
            size(Room::default().memory),
        ));
    }
    notes
}

fn text(checked: &Checked) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let mut say = |what: &str, text: &str| {
        let _ok = writeln!(out, "{what:<9} {}", harmless(text));
    };
    say("file", &checked.file);
    say("digest", &checked.digest.to_string());
    say("size", &size(checked.size));
    say("world", &format!("{WORLD} of {}", checked.serves));
    if let Some(anatomy) = &checked.anatomy {
        say(
            "form",
            match anatomy.form {
                Form::Component => "component",
                Form::CoreModule => "core module, made a component when it is loaded",
            },
        );
        say("asks for", &asks_for(&anatomy.asks_for));
        let (wasi, own): (Vec<&String>, Vec<&String>) = anatomy
            .imports
            .iter()
            .partition(|import| import.starts_with("wasi:"));
        for import in own {
            say("imports", import);
        }
        if !wasi.is_empty() {
            let what = format!(
                "{} interfaces of WASI, as its toolchain does: they are there and lead nowhere, to no files, network or environment",
                wasi.len()
            );
            say("imports", &what);
        }
        say(
            "memory",
            &format!(
                "{} when it starts",
                size(usize::try_from(anatomy.initial_memory).unwrap_or(usize::MAX))
            ),
        );
    }
    if let Some(says) = &checked.says {
        say("plugin", &format!("{} {}", says.name, says.version));
        say("summary", &says.summary);
        say("loads in", &format!("{} ms", says.load_millis));
    }
    for note in &checked.notes {
        say("note", note);
    }
    match &checked.problem {
        Some(problem) => say("refused", problem),
        None => say("ok", "the daemon takes it"),
    }
    out
}
