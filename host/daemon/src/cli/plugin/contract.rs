//! The contract that this binary carries, so that a plugin's project needs no registry: the
//! WIT files, narrowed to what a plugin uses, and the bindings for C.

#![expect(
    clippy::indexing_slicing,
    reason = "an arena is asked for what its own ids name"
)]

use std::collections::{BTreeMap, BTreeSet};

use wit_bindgen_core::Files;
use wit_component::WitPrinter;
use wit_parser::{PackageId, Resolve, SourceMap, WorldId, WorldItem, WorldKey};

/// The world that a plugin targets.
pub(super) const WORLD: &str = "remediation";

/// The files of `wit/`, by name.
pub(super) const WIT: [(&str, &str); 10] = [
    (
        "ansible.wit",
        include_str!("../../../../../wit/ansible.wit"),
    ),
    ("clock.wit", include_str!("../../../../../wit/clock.wit")),
    ("docker.wit", include_str!("../../../../../wit/docker.wit")),
    ("http.wit", include_str!("../../../../../wit/http.wit")),
    ("log.wit", include_str!("../../../../../wit/log.wit")),
    ("mail.wit", include_str!("../../../../../wit/mail.wit")),
    ("memory.wit", include_str!("../../../../../wit/memory.wit")),
    ("random.wit", include_str!("../../../../../wit/random.wit")),
    ("types.wit", include_str!("../../../../../wit/types.wit")),
    ("world.wit", include_str!("../../../../../wit/world.wit")),
];

/// The interfaces that need no grant: every plugin has them.
const FREE: [&str; 4] = ["types", "log", "clock", "random"];

/// The contract as one WIT file, with those of its functions that `uses` names (such as
/// `docker.restart`) and those that need no grant. Toolchains that import whole interfaces
/// then import no more than the plugin needs, and a policy need not grant more.
pub(super) fn narrowed(uses: &[String]) -> Result<String, String> {
    let mut contract = Contract::read()?;
    contract.narrow(uses)?;
    let mut printer = WitPrinter::default();
    printer
        .print(&contract.resolve, contract.package, &[])
        .map_err(|error| format!("{error:#}"))?;
    Ok(format!(
        "// Made by `sentinel plugin build` from `uses` in plugin.yaml: edit that instead.\n{}",
        printer.output
    ))
}

/// The bindings for C: a header, a source file and the object that tells the linker's output
/// which world it is for.
pub(super) fn c_bindings(uses: &[String]) -> Result<Vec<(String, Vec<u8>)>, String> {
    let mut contract = Contract::read()?;
    contract.narrow(uses)?;
    let mut files = Files::default();
    wit_bindgen_c::Opts::default()
        .build()
        .generate(&mut contract.resolve, contract.world, &mut files)
        .map_err(|error| format!("{error:#}"))?;
    Ok(files
        .iter()
        .map(|(name, bytes)| (name.to_owned(), bytes.to_vec()))
        .collect())
}

/// The contract, read.
struct Contract {
    resolve: Resolve,
    package: PackageId,
    world: WorldId,
}

impl Contract {
    fn read() -> Result<Self, String> {
        let mut resolve = Resolve::default();
        let mut files = SourceMap::default();
        for (name, text) in WIT {
            files.push_str(name, text);
        }
        let group = files.parse().map_err(|(_, error)| error.to_string())?;
        let package = resolve
            .push_group(group)
            .map_err(|error| error.to_string())?;
        let world = resolve
            .select_world(&[package], Some(WORLD))
            .map_err(|error| error.to_string())?;
        Ok(Self {
            resolve,
            package,
            world,
        })
    }

    /// Leaves of the contract what `uses` names, and what needs no grant.
    fn narrow(&mut self, uses: &[String]) -> Result<(), String> {
        let uses = self.uses(uses)?;
        let mut kept = BTreeSet::new();
        for (key, item) in &self.resolve.worlds[self.world].imports {
            let (WorldKey::Interface(_), WorldItem::Interface { id, .. }) = (key, item) else {
                continue;
            };
            let name = self.resolve.interfaces[*id]
                .name
                .clone()
                .unwrap_or_default();
            if FREE.contains(&name.as_str()) || uses.contains_key(&name) {
                kept.insert(*id);
            }
        }
        for (name, functions) in &uses {
            if let Some(id) = self.resolve.packages[self.package].interfaces.get(name) {
                self.resolve.interfaces[*id]
                    .functions
                    .retain(|function, _| functions.contains(function));
            }
        }
        self.resolve.worlds[self.world]
            .imports
            .retain(|_, item| match item {
                WorldItem::Interface { id, .. } => kept.contains(id),
                WorldItem::Function(_) | WorldItem::Type { .. } => true,
            });
        self.resolve.packages[self.package]
            .interfaces
            .retain(|_, id| kept.contains(id));
        Ok(())
    }

    /// What `uses` names, by interface.
    fn uses(&self, uses: &[String]) -> Result<BTreeMap<String, BTreeSet<String>>, String> {
        let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for text in uses {
            let (interface, function) = text.split_once('.').unwrap_or((text, ""));
            let known = self.resolve.packages[self.package]
                .interfaces
                .get(interface)
                .filter(|_| !FREE.contains(&interface))
                .map(|id| &self.resolve.interfaces[*id].functions);
            let Some(known) = known else {
                return Err(format!(
                    "`uses` names `{text}`: expected {}",
                    self.all().join(", ")
                ));
            };
            if !known.contains_key(function) {
                let functions: Vec<String> = known
                    .keys()
                    .map(|function| format!("{interface}.{function}"))
                    .collect();
                return Err(format!(
                    "`uses` names `{text}`: of {interface} there are {}",
                    functions.join(", ")
                ));
            }
            found
                .entry(interface.to_owned())
                .or_default()
                .insert(function.to_owned());
        }
        Ok(found)
    }

    /// Everything that a plugin can ask for.
    fn all(&self) -> Vec<String> {
        let package = &self.resolve.packages[self.package];
        package
            .interfaces
            .iter()
            .filter(|(name, _)| !FREE.contains(&name.as_str()))
            .flat_map(|(name, id)| {
                self.resolve.interfaces[*id]
                    .functions
                    .keys()
                    .map(move |function| format!("{name}.{function}"))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is carried is what is in the folder.
    #[test]
    fn the_binary_carries_the_whole_contract() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        assert_eq!(files, WIT.map(|(name, _)| name));
    }

    #[test]
    fn a_narrowed_contract_has_what_is_used_and_what_is_free() {
        let wit = narrowed(&["docker.inspect".to_owned(), "docker.start".to_owned()]).unwrap();
        for there in [
            "package sentinel:plugin@0.1.0;",
            "inspect: func",
            "start: func",
            "interface clock",
            "sleep: func",
            "import docker;",
            "export remediate: func",
            "/// Observation: the state of one container.",
        ] {
            assert!(wit.contains(there), "{there} is not in {wit}");
        }
        for gone in [
            "restart: func",
            "interface ansible",
            "interface memory",
            "import http;",
            "interface mail",
        ] {
            assert!(!wit.contains(gone), "{gone} is in {wit}");
        }
        let mut resolve = Resolve::default();
        resolve.push_source("narrowed.wit", &wit).unwrap();
    }

    #[test]
    fn what_the_contract_does_not_have_is_named_with_what_it_has() {
        let error = narrowed(&["docker.exec".to_owned()]).unwrap_err();
        assert!(error.contains("docker.restart"), "{error}");
        let error = narrowed(&["podman.start".to_owned()]).unwrap_err();
        assert!(error.contains("ansible.run"), "{error}");
        // What needs no grant is always there, and need not be named.
        assert!(narrowed(&["log.write".to_owned()]).is_err());
    }

    #[test]
    fn bindings_for_c_have_their_three_files() {
        let files = c_bindings(&["docker.inspect".to_owned()]).unwrap();
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "remediation.c",
                "remediation.h",
                "remediation_component_type.o"
            ]
        );
        let header = String::from_utf8(files[1].1.clone()).unwrap();
        assert!(header.contains("sentinel_plugin_docker_inspect"));
        assert!(!header.contains("sentinel_plugin_docker_restart"));
    }
}
