//! `sentinel plugin build`: calls the language's own toolchain.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output as Ran, Stdio};
use std::time::{Duration, Instant};

use sentinel_sandbox::{Anatomy, Form, Room};
use serde::Serialize;

use super::contract::WORLD;
use super::helpers;
use super::project::{Language, Project};
use crate::cli::Output;
use crate::cli::output::{Failure, print_as};

/// What was built.
#[derive(Debug, Serialize)]
pub(super) struct Built {
    /// The plugin.
    pub(super) file: PathBuf,
    /// How large it is, in bytes.
    pub(super) size: usize,
    /// What it is made of.
    #[serde(flatten)]
    pub(super) anatomy: Anatomy,
    /// How long it took, in milliseconds.
    pub(super) millis: u64,
}

pub(super) fn run(folder: &Path, to: Option<&Path>, output: Output) -> Result<(), Failure> {
    let project = Project::read(folder)?;
    let built = build(&project, to)?;
    print_as(output, &built, || text(&built))
}

/// Builds the project's plugin, and puts it where `to` says.
pub(super) fn build(project: &Project, to: Option<&Path>) -> Result<Built, Failure> {
    let began = Instant::now();
    let file = to.map_or_else(|| project.wasm(), Path::to_owned);
    let fresh = project.folder.join(".build");
    std::fs::create_dir_all(&fresh).map_err(|error| unwritable(&fresh, &error))?;
    let fresh = fresh.join(format!("{}.wasm", project.manifest.name));
    helpers::write(project)?;
    match project.manifest.lang {
        Language::Rust => rust(project, &fresh)?,
        Language::Python => python(project, &fresh)?,
        Language::Js => js(project, &fresh)?,
        Language::C => c(project, &fresh)?,
    }
    let wasm = std::fs::read(&fresh).map_err(|error| {
        Failure::given(format!(
            "the build has made no {}: {error}",
            fresh.display()
        ))
    })?;
    let anatomy = Anatomy::of(&wasm, &Room::default())
        .map_err(|error| Failure::given(format!("what was built is no plugin: {error}")))?;
    place(&wasm, &file)?;
    Ok(Built {
        size: wasm.len(),
        file,
        anatomy,
        millis: millis(began.elapsed()),
    })
}

/// Whole or not at all: a daemon may be watching the folder.
fn place(wasm: &[u8], file: &Path) -> Result<(), Failure> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    std::fs::write(&beside, wasm)
        .and_then(|()| std::fs::rename(&beside, file))
        .map_err(|error| unwritable(file, &error))
}

fn rust(project: &Project, to: &Path) -> Result<(), Failure> {
    let cargo = tool(project, "cargo", "install Rust from https://rustup.rs")?;
    let mut command = command(project, &cargo);
    command.args([
        "build",
        "--release",
        "--target",
        "wasm32-wasip2",
        "--message-format=json-render-diagnostics",
    ]);
    let ran = carry_out(command, &cargo).map_err(|failure| {
        failure.hint_where(
            &NO_TARGET,
            "the target comes with `rustup target add wasm32-wasip2`; in a checkout of Infra \
             Sentinel on Debian, `eval \"$(stack/setup/toolchains.sh env)\"` gives it",
        )
    })?;
    let made = artifacts(&ran.stdout);
    let [made] = made.as_slice() else {
        return Err(Failure::given(format!(
            "cargo has made {} components, and a plugin's project has one library with `crate-type = [\"cdylib\"]`",
            made.len()
        )));
    };
    std::fs::copy(made, to)
        .map(drop)
        .map_err(|error| unwritable(to, &error))
}

/// What cargo says where the target is missing, and not of a mistake in the plugin.
const NO_TARGET: [&str; 3] = [
    "can't find crate for `std`",
    "can't find crate for `core`",
    "target may not be installed",
];

/// The `.wasm` files that cargo says it has made.
fn artifacts(messages: &[u8]) -> Vec<PathBuf> {
    String::from_utf8_lossy(messages)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| {
            message.get("reason").and_then(|reason| reason.as_str()) == Some("compiler-artifact")
        })
        .filter_map(|message| message.get("filenames")?.as_array().cloned())
        .flatten()
        .filter_map(|name| Some(PathBuf::from(name.as_str()?)))
        .filter(|path| path.extension() == Some(OsStr::new("wasm")))
        .collect()
}

fn python(project: &Project, to: &Path) -> Result<(), Failure> {
    let tool = tool(
        project,
        "componentize-py",
        "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt",
    )?;
    let mut command = command(project, &tool);
    command
        .args(["-d", "wit", "-w", WORLD, "componentize", "app"])
        .args(["-p", ".", "-p", "bindings", "-o"])
        .arg(to);
    carry_out(command, &tool).map(drop)
}

fn js(project: &Project, to: &Path) -> Result<(), Failure> {
    let tool = tool(project, "componentize-qjs", "npm install")?;
    let node = tool_of_node(project)?;
    let mut command = match module_of(&tool) {
        Some(module) => {
            let mut command = command(project, &node);
            command.arg(module);
            command
        }
        None => command(project, &tool),
    };
    command
        .args(["--wit", "wit", "-n", WORLD, "--js", "plugin.js"])
        // The contract's functions are synchronous, and so is the host.
        .args(["--module-root", ".", "--sync", "-o"])
        .arg(to);
    carry_out(command, &tool).map(drop)
}

/// The oldest Node.js that runs componentize-qjs: Debian 12 has it.
const LEAST_NODE: u32 = 18;

/// Node.js, of a version that serves.
fn tool_of_node(project: &Project) -> Result<PathBuf, Failure> {
    let hint = format!("install Node.js {LEAST_NODE} or later: https://nodejs.org");
    let node = find(project, "node")
        .ok_or_else(|| Failure::given("there is no `node`").hint(hint.clone()))?;
    let mut asked = command(project, &node);
    asked.arg("--version");
    let said = carry_out(asked, &node)?;
    let said = String::from_utf8_lossy(&said.stdout);
    match major(&said) {
        Some(version) if version < LEAST_NODE => Err(Failure::given(format!(
            "{} is version {}, and {LEAST_NODE} is the oldest that serves",
            node.display(),
            said.trim()
        ))
        .hint(hint)),
        _ => Ok(node),
    }
}

/// The first number of `v18.20.4`.
fn major(said: &str) -> Option<u32> {
    said.trim()
        .trim_start_matches('v')
        .split('.')
        .next()?
        .parse()
        .ok()
}

/// The module behind a program of npm's: the program itself has no extension, and Node.js before 20
/// takes what has none for no module.
fn module_of(program: &Path) -> Option<PathBuf> {
    let program = std::fs::canonicalize(program).ok()?;
    let module = program.parent()?.parent()?.join("cli.mjs");
    module.is_file().then_some(module)
}

fn c(project: &Project, to: &Path) -> Result<(), Failure> {
    let clang = clang(project)?;
    let mut command = command(project, &clang.program);
    command
        .arg(format!("--target={}", clang.target))
        .args(["-mexec-model=reactor", "-Os", "-Wall", "-Wextra"])
        // A deep stack makes a plugin large for every run; what is static is not on it.
        .args(["-Wl,-z,stack-size=65536", "-Wl,--strip-debug"])
        .args(["-I", "bindings"])
        .args(sources(&project.folder)?)
        .arg("bindings/remediation.c")
        .arg("bindings/remediation_component_type.o")
        .arg("-o")
        .arg(to);
    carry_out(command, &clang.program)
        .map(drop)
        .map_err(|failure| failure.hint_where(&NO_LIBRARIES, CLANG))
}

/// What clang says where it cannot build for WASI, and not of a mistake in the plugin.
const NO_LIBRARIES: [&str; 10] = [
    "unable to find library",
    "wasm-ld: error: cannot open",
    "wasm-ld' failed",
    "invalid linker name",
    "unable to execute command",
    "unknown target triple",
    "libc-header-start.h",
    "'string.h' file not found",
    "'stdlib.h' file not found",
    "'stdio.h' file not found",
];

const CLANG: &str = "on Debian: apt-get install clang-19 lld-19 wasi-libc libclang-rt-19-dev-wasm32; \
                     elsewhere set WASI_SDK_PATH to a wasi-sdk (https://github.com/WebAssembly/wasi-sdk)";

/// A clang that builds for WASI.
struct Clang {
    program: PathBuf,
    target: &'static str,
}

fn clang(project: &Project) -> Result<Clang, Failure> {
    if let Some(sdk) = crate::cli::variable("WASI_SDK_PATH") {
        return Ok(Clang {
            program: Path::new(&sdk).join("bin/clang"),
            target: "wasm32-wasip1",
        });
    }
    // Debian's names; older ones cannot link for WASI.
    let program = ["clang-21", "clang-20", "clang-19", "clang"]
        .into_iter()
        .find_map(|name| find(project, name))
        .ok_or_else(|| Failure::given("there is no clang").hint(CLANG))?;
    let target = if Path::new("/usr/include/wasm32-wasip1").is_dir() {
        "wasm32-wasip1"
    } else {
        "wasm32-wasi"
    };
    Ok(Clang { program, target })
}

/// The `.c` files beside `plugin.yaml`.
fn sources(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = std::fs::read_dir(folder)
        .map_err(|error| Failure::given(format!("{}: {error}", folder.display())))?;
    let mut sources: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| PathBuf::from(entry.file_name()))
        .filter(|name| name.extension() == Some(OsStr::new("c")))
        .collect();
    sources.sort();
    if sources.is_empty() {
        return Err(Failure::given(format!(
            "{}: there is no .c file in it",
            folder.display()
        )));
    }
    Ok(sources)
}

/// A tool, or what to do to have it.
fn tool(project: &Project, name: &str, install: &str) -> Result<PathBuf, Failure> {
    find(project, name).ok_or_else(|| {
        Failure::given(format!("there is no `{name}`"))
            .hint(format!("in {}: {install}", project.folder.display()))
    })
}

/// Where a tool is: in the project, on the PATH, or where `stack/setup/toolchains.sh` of
/// Infra Sentinel puts it.
fn find(project: &Project, name: &str) -> Option<PathBuf> {
    let mut folders = vec![
        project.folder.join(".venv/bin"),
        project.folder.join("node_modules/.bin"),
    ];
    let path = std::env::var_os("PATH").unwrap_or_default();
    folders.extend(std::env::split_paths(&path));
    if let Some(cache) = cache() {
        let toolchains = cache.join("toolchains");
        folders.push(toolchains.join("python/bin"));
        folders.push(toolchains.join("js/node_modules/.bin"));
    }
    folders
        .into_iter()
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// Where what can be made again is kept between two calls.
pub(super) fn cache() -> Option<PathBuf> {
    let cache = crate::cli::variable("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&crate::cli::variable("HOME")?).join(".cache")))?;
    Some(cache.join("infra-sentinel"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a compiler, started by its user: no daemon runs here"
)]
fn command(project: &Project, program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(&project.folder)
        .stdin(Stdio::null())
        // Of the author's mistake, and not of the tool's own insides.
        .env("RUST_BACKTRACE", "0");
    command
}

/// Runs a tool. What it says is passed on only when it fails: the author reads that.
fn carry_out(mut command: Command, program: &Path) -> Result<Ran, Failure> {
    let ran = command
        .output()
        .map_err(|error| Failure::given(format!("{} does not run: {error}", program.display())))?;
    if ran.status.success() {
        return Ok(ran);
    }
    // Of cargo, stdout has the messages for programs; what is for people is on stderr.
    let mut said = String::from_utf8_lossy(&ran.stderr).into_owned();
    if said.trim().is_empty() {
        said = String::from_utf8_lossy(&ran.stdout).into_owned();
    }
    Err(Failure::given(format!(
        "the build failed ({}):\n{}",
        program.display(),
        said.trim_end()
    )))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::cannot_create(format!("{}: cannot be written: {error}", path.display()))
}

pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// What was built, in a few lines.
pub(super) fn text(built: &Built) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ok = writeln!(
        out,
        "built     {} ({}, in {}.{:01} s)\nform      {}\nasks for  {}",
        built.file.display(),
        super::size(built.size),
        built.millis / 1000,
        built.millis % 1000 / 100,
        match built.anatomy.form {
            Form::Component => "component",
            Form::CoreModule => "core module, made a component when it is loaded",
        },
        super::asks_for(&built.anatomy.asks_for),
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_of_a_version_is_read() {
        for (said, version) in [
            ("v18.20.4\n", Some(18)),
            ("v20.0.0-nightly", Some(20)),
            ("22", Some(22)),
            ("no version", None),
            ("", None),
        ] {
            assert_eq!(major(said), version, "{said}");
        }
    }

    #[test]
    fn a_program_of_npm_is_run_by_its_module() {
        let folder = tempfile::tempdir().expect("a folder");
        let package = folder.path().join("node_modules/componentize-qjs");
        let links = folder.path().join("node_modules/.bin");
        std::fs::create_dir_all(package.join("bin")).expect("a folder");
        std::fs::create_dir_all(&links).expect("a folder");
        std::fs::write(package.join("bin/componentize-qjs"), "").expect("a file");
        let link = links.join("componentize-qjs");
        std::os::unix::fs::symlink("../componentize-qjs/bin/componentize-qjs", &link)
            .expect("a link");
        assert_eq!(module_of(&link), None);

        std::fs::write(package.join("cli.mjs"), "").expect("a file");
        let module = package.join("cli.mjs").canonicalize().expect("it is there");
        assert_eq!(module_of(&link), Some(module));
    }
}
