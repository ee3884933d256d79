//! What a plugin chooses, checked so that it can be nothing else.

use std::fmt::Write;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use sentinel_core::capability::{AnsibleRequest, CapabilityError};
use sentinel_core::grant::{INCIDENT_VARIABLE, limit_names, tag_problem, variable_problem};
use serde_json::{Map, Value};

/// More than any sensible value has.
const LENGTH: usize = 1_024;

/// How deep variables may nest.
const DEPTH: usize = 64;

/// The file that `name` means inside `folder`; blocks on the file system.
pub(super) fn playbook(folder: &Path, name: &str) -> Result<PathBuf, CapabilityError> {
    let invalid =
        |reason: &str| CapabilityError::Invalid(format!("playbook {:?}: {reason}", cut(name)));
    if name.is_empty() || name.len() > LENGTH || name.contains(char::is_control) {
        return Err(invalid("is no file name"));
    }
    if name.starts_with('-') {
        return Err(invalid("begins with a dash"));
    }
    // Only the plainest form, because grants are decided on the name: `x//y` and
    // `./x/y` would be other names for the same file.
    let plain: PathBuf = Path::new(name)
        .components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .collect();
    if plain.as_os_str() != name {
        return Err(invalid(
            "must be a plain path inside the playbooks folder, as in web/restart.yml",
        ));
    }
    let folder = folder.canonicalize().map_err(|error| {
        CapabilityError::Unavailable(format!(
            "playbooks folder {} cannot be read: {error}",
            folder.display()
        ))
    })?;
    let path = folder
        .join(plain)
        .canonicalize()
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => CapabilityError::NotFound(format!(
                "playbook {name:?} is not in {}",
                folder.display()
            )),
            _ => CapabilityError::Unavailable(format!("playbook {name:?}: {error}")),
        })?;
    if !path.starts_with(&folder) {
        return Err(invalid("leads out of the playbooks folder"));
    }
    if !path.is_file() {
        return Err(invalid("is no regular file"));
    }
    Ok(path)
}

/// The options for `--limit` and `--tags`, each in one argument with its value. Both are
/// names: Ansible has them as variables (`ansible_limit`, `ansible_run_tags`), in which
/// older versions evaluate templates.
pub(super) fn options(request: &AnsibleRequest) -> Result<Vec<String>, CapabilityError> {
    let mut options = Vec::new();
    if let Some(limit) = &request.limit {
        options.push(format!("--limit={}", limit_names(limit)?.join(",")));
    }
    for tag in &request.tags {
        if let Some(problem) = tag_problem(tag) {
            return Err(CapabilityError::Invalid(problem));
        }
        options.push(format!("--tags={tag}"));
    }
    Ok(options)
}

/// What the playbook is told of the incident, and what it is limited to: a playbook may
/// choose its hosts by that.
pub(super) fn incident(
    request: &AnsibleRequest,
    incident: Option<&Value>,
) -> Result<Option<Value>, CapabilityError> {
    let Some(Value::Object(incident)) = incident else {
        return Ok(None);
    };
    let mut incident = incident.clone();
    let limit = match &request.limit {
        Some(limit) => limit_names(limit)?,
        None => Vec::new(),
    };
    incident.insert("limit".to_owned(), limit.into());
    Ok(Some(Value::Object(incident)))
}

/// The variables as YAML in which texts are marked `!unsafe`, Ansible's word for a value
/// in which templates are not evaluated. (JSON has no such mark that all versions of
/// Ansible know.) Names inside of them are marked as well: a playbook that loops over a map
/// has them as values. `incident` is what the host tells of the incident, in the place of
/// what a plugin said.
pub fn variables(
    variables: &Map<String, Value>,
    incident: Option<&Value>,
) -> Result<String, CapabilityError> {
    let told = incident.map(|incident| (INCIDENT_VARIABLE, incident));
    let given = variables
        .iter()
        .map(|(name, value)| (name.as_str(), value))
        .filter(|(name, _)| told.is_none() || *name != INCIDENT_VARIABLE);
    // The dashes keep Ansible from trying JSON first.
    let mut yaml = String::from("---\n{");
    for (index, (name, value)) in given.chain(told).enumerate() {
        if let Some(problem) = variable_problem(name) {
            return Err(CapabilityError::Invalid(problem));
        }
        if index > 0 {
            yaml.push(',');
        }
        quoted(&mut yaml, name);
        yaml.push_str(": ");
        written(&mut yaml, value, 0)?;
    }
    yaml.push_str("}\n");
    Ok(yaml)
}

fn written(yaml: &mut String, value: &Value, depth: usize) -> Result<(), CapabilityError> {
    if depth > DEPTH {
        return Err(CapabilityError::Invalid(format!(
            "variables nest deeper than {DEPTH} levels"
        )));
    }
    match value {
        Value::Null => yaml.push_str("null"),
        Value::Bool(value) => yaml.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) if number.is_f64() => {
            // Ansible's YAML takes 1e100 for a text unless it is told.
            yaml.push_str("!!float \"");
            yaml.push_str(&number.to_string());
            yaml.push('"');
        }
        Value::Number(number) => yaml.push_str(&number.to_string()),
        Value::String(text) => marked(yaml, text),
        Value::Array(values) => {
            yaml.push('[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    yaml.push(',');
                }
                written(yaml, value, depth + 1)?;
            }
            yaml.push(']');
        }
        Value::Object(members) => {
            yaml.push('{');
            for (index, (name, value)) in members.iter().enumerate() {
                if index > 0 {
                    yaml.push(',');
                }
                // `? ` lifts YAML's limit of 1,024 characters on names.
                yaml.push_str("? ");
                marked(yaml, name);
                yaml.push_str(" : ");
                written(yaml, value, depth + 1)?;
            }
            yaml.push('}');
        }
    }
    Ok(())
}

/// A text that nobody evaluates.
fn marked(yaml: &mut String, text: &str) {
    if !is_harmless(text) {
        yaml.push_str("!unsafe ");
    }
    quoted(yaml, text);
}

/// Whether no character of `text` can begin a template. Such a text goes unmarked: since
/// core 2.19 Ansible takes a marked `yes`, `0x10` or `~` for what YAML would without the
/// quotes, and whatever YAML takes for no text is made of these characters.
fn is_harmless(text: &str) -> bool {
    text.chars()
        .all(|c| c.is_ascii_alphanumeric() || "+-.:_~<=!&* \t".contains(c))
}

/// A double-quoted YAML text of printable ASCII, so that no character means more than
/// itself.
fn quoted(yaml: &mut String, text: &str) {
    yaml.push('"');
    for c in text.chars() {
        match c {
            '"' => yaml.push_str("\\\""),
            '\\' => yaml.push_str("\\\\"),
            ' '..='~' => yaml.push(c),
            _ => {
                // Writing to a String cannot fail.
                let written = write!(yaml, "\\U{:08X}", u32::from(c));
                debug_assert!(written.is_ok());
            }
        }
    }
    yaml.push('"');
}

/// What a plugin gave, short enough for a message about it.
fn cut(text: &str) -> String {
    text.chars().take(128).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use serde_json::json;

    use super::*;

    fn request(limit: Option<&str>, tags: &[&str]) -> AnsibleRequest {
        AnsibleRequest {
            playbook: "x.yml".to_owned(),
            extra_vars: Map::new(),
            limit: limit.map(str::to_owned),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            timeout_ms: None,
        }
    }

    #[test]
    fn values_stay_in_their_argument() {
        assert_eq!(
            options(&request(Some("--become"), &["--check", "a b"])).unwrap(),
            ["--limit=--become", "--tags=--check", "--tags=a b"]
        );
    }

    #[test]
    fn a_limit_names_hosts_without_their_ports() {
        assert_eq!(
            options(&request(Some("web1:9100,[2001:db8::1]:9100,db"), &[])).unwrap(),
            ["--limit=web1,2001:db8::1,db"]
        );
        for limit in [
            "",
            " ",
            ",",
            "web,",
            "web::db",
            "@/etc/passwd",
            "web,@x",
            "a\nb",
            "web:!web-3",
            "~web-\\d+",
            "web[0]",
            "web*",
            "{{ x }}",
        ] {
            let error = options(&request(Some(limit), &[])).unwrap_err();
            assert!(matches!(error, CapabilityError::Invalid(_)), "{limit:?}");
        }
    }

    #[test]
    fn tags_are_one_each_and_no_templates() {
        for tag in ["", " ", "a,b", "a\0", "{{ x }}", "{% x %}", "a#b"] {
            options(&request(None, &[tag])).unwrap_err();
        }
    }

    #[test]
    fn texts_are_marked_and_numbers_are_numbers() {
        let given = json!({
            "a": "{{ x }}\n\"'\u{1}ä",
            "b": [1, -2.5, 1e100, true, null],
            "c": {"<<": {"k: v": "w?"}, "d": "yes", "{{ x }}": {"{% y %}": []}},
            "sentinel": "forged",
        });
        let incident = json!({"alert": {"labels": {"{{ z }}": "v"}}});
        let yaml = variables(given.as_object().unwrap(), Some(&incident)).unwrap();
        assert_eq!(
            yaml,
            "---\n{\"a\": !unsafe \"{{ x }}\\U0000000A\\\"'\\U00000001\\U000000E4\",\
             \"b\": [1,!!float \"-2.5\",!!float \"1e+100\",true,null],\
             \"c\": {? \"<<\" : {? \"k: v\" : !unsafe \"w?\"},? \"d\" : \"yes\",\
             ? !unsafe \"{{ x }}\" : {? !unsafe \"{% y %}\" : []}},\
             \"sentinel\": {? \"alert\" : {? \"labels\" : {? !unsafe \"{{ z }}\" : \"v\"}}}}\n"
        );
    }

    #[test]
    fn names_that_steer_ansible_are_refused() {
        for name in [
            "ansible_connection",
            "ansible_python_interpreter",
            "a-b",
            "1a",
            "",
            "ä",
            "{{ x }}",
            "hostvars",
        ] {
            let mut given = Map::new();
            given.insert(name.to_owned(), Value::Null);
            let error = variables(&given, None).unwrap_err();
            assert!(matches!(error, CapabilityError::Invalid(_)), "{name}");
        }
    }

    #[test]
    fn endless_nesting_is_refused() {
        let mut value = Value::Null;
        for _ in 0..100 {
            value = Value::Array(vec![value]);
        }
        let given = Map::from_iter([("a".to_owned(), value)]);
        variables(&given, None).unwrap_err();
    }

    #[test]
    fn playbooks_are_files_inside_the_folder() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("playbooks");
        std::fs::create_dir_all(folder.join("web")).unwrap();
        std::fs::write(outer.path().join("outside.yml"), "[]").unwrap();
        std::fs::write(folder.join("a.yml"), "[]").unwrap();
        std::fs::write(folder.join("web/b.yml"), "[]").unwrap();
        std::fs::write(folder.join("-x.yml"), "[]").unwrap();
        symlink("../outside.yml", folder.join("escape.yml")).unwrap();
        symlink("a.yml", folder.join("alias.yml")).unwrap();

        for name in ["a.yml", "web/b.yml", "alias.yml"] {
            assert!(playbook(&folder, name).unwrap().is_absolute(), "{name}");
        }
        for name in [
            "",
            "/etc/passwd",
            "../outside.yml",
            "web/../../outside.yml",
            "web/../a.yml",
            "./a.yml",
            "web//b.yml",
            "a.yml/",
            "-x.yml",
            "escape.yml",
            "web",
            ".",
            "a.yml\n",
            "a.yml\0",
        ] {
            let error = playbook(&folder, name).unwrap_err();
            assert!(
                matches!(error, CapabilityError::Invalid(_)),
                "{name:?}: {error}"
            );
        }
        for name in ["none.yml", "a.yml/b.yml"] {
            let error = playbook(&folder, name).unwrap_err();
            assert!(
                matches!(error, CapabilityError::NotFound(_)),
                "{name:?}: {error}"
            );
        }
        let error = playbook(&outer.path().join("gone"), "a.yml").unwrap_err();
        assert!(matches!(error, CapabilityError::Unavailable(_)), "{error}");
    }
}
