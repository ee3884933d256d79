//! `sentinel plugin new`: a project that builds and passes its own tests.

use std::path::{Path, PathBuf};

use sentinel_core::id::PluginName;

use super::helpers;
use super::project::{Language, Project};
use crate::cli::output::{Failure, print};

/// A file of a project: where it goes, and what is in it.
type File = (&'static str, &'static str);

macro_rules! template {
    ($to:literal, $from:literal) => {
        (
            $to,
            include_str!(concat!("../../../templates/plugin/", $from)),
        )
    };
}

/// What the projects of all languages have.
const COMMON: [File; 7] = [
    template!(".gitignore", "common/gitignore"),
    template!("README.md", "common/README.md"),
    template!("alert.json", "common/alert.json"),
    template!(
        "cases/docker-is-away.yaml",
        "common/cases/docker-is-away.yaml"
    ),
    template!(
        "cases/leaves-a-running-one-alone.yaml",
        "common/cases/leaves-a-running-one-alone.yaml"
    ),
    template!(
        "cases/restarts-a-sick-one.yaml",
        "common/cases/restarts-a-sick-one.yaml"
    ),
    template!(
        "cases/restarts-a-stopped-one.yaml",
        "common/cases/restarts-a-stopped-one.yaml"
    ),
];

const RUST: [File; 4] = [
    template!("plugin.yaml", "rust/plugin.yaml"),
    template!("Cargo.toml", "rust/Cargo.toml"),
    template!("params.schema.json", "rust/params.schema.json"),
    template!("src/lib.rs", "rust/src/lib.rs"),
];

const PYTHON: [File; 3] = [
    template!("plugin.yaml", "common/plugin.yaml"),
    template!("app.py", "python/app.py"),
    template!("requirements.txt", "python/requirements.txt"),
];

const JS: [File; 3] = [
    template!("plugin.yaml", "common/plugin.yaml"),
    template!("plugin.js", "js/plugin.js"),
    template!("package.json", "js/package.json"),
];

const C: [File; 2] = [
    template!("plugin.yaml", "common/plugin.yaml"),
    template!("plugin.c", "c/plugin.c"),
];

/// What the templates leave to be filled in, by language.
struct Words {
    files: &'static [File],
    language: &'static str,
    source: &'static str,
    /// What has to be installed before the first build.
    needs: &'static str,
}

fn words(lang: Language) -> Words {
    match lang {
        Language::Rust => Words {
            files: &RUST,
            language: "Rust",
            source: "src/lib.rs",
            needs: "rustup target add wasm32-wasip2",
        },
        Language::Python => Words {
            files: &PYTHON,
            language: "Python",
            source: "app.py",
            needs: "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt",
        },
        Language::Js => Words {
            files: &JS,
            language: "JavaScript",
            source: "plugin.js",
            needs: "npm install",
        },
        Language::C => Words {
            files: &C,
            language: "C",
            source: "plugin.c",
            needs: "apt-get install clang-19 lld-19 wasi-libc libclang-rt-19-dev-wasm32",
        },
    }
}

pub(super) fn run(name: &PluginName, lang: Language, to: Option<&Path>) -> Result<(), Failure> {
    let folder = to.map_or_else(|| PathBuf::from(name.as_str()), Path::to_owned);
    let is_empty = |folder: &Path| {
        std::fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
    };
    if !is_empty(&folder) {
        return Err(Failure::given(format!(
            "{}: the folder is there and not empty",
            folder.display()
        ))
        .hint("name another one with --to DIR"));
    }
    let words = words(lang);
    for (path, text) in COMMON.iter().chain(words.files) {
        write(&folder.join(path), &filled_in(text, name, lang, &words))?;
    }
    // What a build would write: editors find it at once.
    helpers::write(&Project::read(&folder)?)?;
    print(&format!(
        "made {folder}, a plugin in {language}\n\n  cd {folder}\n  {needs:<40}  # once, unless it is there\n  {test:<40}  # builds it and runs its cases\n",
        folder = folder.display(),
        language = words.language,
        needs = words.needs,
        test = "sentinel plugin test",
    ))
}

fn filled_in(text: &str, name: &PluginName, lang: Language, words: &Words) -> String {
    let uses = match lang {
        Language::Rust => "",
        Language::Python | Language::Js | Language::C => ", and what it may call",
    };
    text.replace("{{name}}", name.as_str())
        .replace("{{lang}}", &lang.to_string())
        .replace("{{language}}", words.language)
        .replace("{{source}}", words.source)
        .replace("{{needs}}", &format!("; first, once: {}", words.needs))
        .replace("{{uses}}", uses)
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    made.and_then(|()| std::fs::write(path, text))
        .map_err(|error| {
            Failure::cannot_create(format!("{}: cannot be written: {error}", path.display()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::plugin::cases::Case;

    #[test]
    fn a_project_is_whole_and_nothing_in_it_is_left_to_fill_in() {
        for lang in [Language::Rust, Language::Python, Language::Js, Language::C] {
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path().join("unfreeze");
            let name = PluginName::new("unfreeze").unwrap();
            run(&name, lang, Some(&folder)).unwrap();
            let project = Project::read(&folder).unwrap();
            assert_eq!(
                (project.manifest.name, project.manifest.lang),
                (name.clone(), lang)
            );
            let mut texts = 0;
            for (path, _) in COMMON.iter().chain(words(lang).files) {
                let text = std::fs::read_to_string(folder.join(path)).unwrap();
                assert!(!text.contains("{{"), "{path}");
                texts += 1;
            }
            assert!(texts > 8);
            for file in super::super::test::case_files(&folder.join("cases")).unwrap() {
                Case::read(&file).unwrap();
            }
            // It would overwrite somebody's work.
            assert!(run(&name, lang, Some(&folder)).is_err());
        }
    }
}
