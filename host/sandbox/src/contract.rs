//! What a component says of itself before it is compiled: whether it is one, whether it
//! is a plugin, and what it asks for.

use std::collections::BTreeSet;

use sentinel_core::capability::DockerAction;
use sentinel_core::grant::Import;
use wasmparser::component_types::ComponentEntityType;
use wasmparser::types::TypesRef;
use wasmparser::{Parser, Payload, Validator, WasmFeatures};
use wasmtime::component::Component;

use crate::guest::MAX_MEMORIES;
use crate::plugin::LoadError;
use crate::run::Room;

/// The package of the contract, and the version that this sandbox serves.
const PACKAGE: &str = "sentinel:plugin";
pub(crate) const VERSION: &str = "0.1.0";
/// Both.
pub(crate) const NAME: &str = "sentinel:plugin@0.1.0";

/// The packages of WASI 0.2 that are linked.
const WASI: [&str; 6] = [
    "wasi:cli",
    "wasi:clocks",
    "wasi:filesystem",
    "wasi:io",
    "wasi:random",
    "wasi:sockets",
];

const EXPORTS: [&str; 2] = ["describe", "remediate"];

/// The interfaces of the contract.
const SERVED: [&str; 9] = [
    "types", "log", "clock", "random", "docker", "ansible", "http", "mail", "memory",
];

/// What a function asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    /// Nothing that a policy has to grant.
    Free,
    /// A capability.
    Grant(Import),
}

/// What a function of a served interface asks for; none where the contract does not have
/// the function.
fn ask(interface: &str, function: &str) -> Option<Ask> {
    let ask = match (interface, function) {
        ("log", "write")
        | ("clock", "now" | "elapsed" | "remaining" | "sleep")
        | ("random", "bits") => Ask::Free,
        ("docker", name) => {
            let named = |action: &DockerAction| action.as_str() == name;
            Ask::Grant(Import::Docker(DockerAction::ALL.into_iter().find(named)?))
        }
        ("ansible", "run") => Ask::Grant(Import::Ansible),
        ("http", "send") => Ask::Grant(Import::Http),
        ("mail", "send") => Ask::Grant(Import::Mail),
        ("memory", "get" | "set" | "forget" | "keys") => Ask::Grant(Import::Memory),
        _ => return None,
    };
    Some(ask)
}

/// Reads what `bytes` ask for, or says why they are no plugin. `room` is what a plugin may
/// take up.
pub(crate) fn inspect(bytes: &[u8], room: &Room) -> Result<BTreeSet<Import>, LoadError> {
    if bytes.is_empty() {
        return Err(LoadError::Empty);
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(LoadError::NotWasm {
            begins: bytes
                .utf8_chunks()
                .next()
                .map(|chunk| chunk.valid().chars().take(16).collect())
                .unwrap_or_default(),
        });
    }
    if Parser::is_core_wasm(bytes) {
        return Err(LoadError::CoreModule);
    }
    let surface = Surface::read(bytes).map_err(|error| LoadError::damaged(&error))?;
    // Every proposal is let in here: which of them a plugin may use is for the engine to
    // say, when it compiles.
    let types = Validator::new_with_features(WasmFeatures::all())
        .validate_all(bytes)
        .map_err(|error| LoadError::damaged(&error))?;
    surface.check_exports(types.as_ref())?;
    let imports = surface.check_imports(types.as_ref())?;
    surface.check_size(room)?;
    Ok(imports)
}

/// Whether the pool has what an instance of `component` needs. What a component declares was
/// looked at before it was compiled; it may make several instances of one module.
pub(crate) fn check_resources(component: &Component, room: &Room) -> Result<(), LoadError> {
    // None where it imports core modules, which the contract does not have.
    let Some(needs) = component.resources_required() else {
        return Ok(());
    };
    Surface {
        memories: needs.num_memories,
        tables: needs.num_tables,
        largest_memory: needs.max_initial_memory_size.unwrap_or(0),
        largest_table: needs.max_initial_table_size.unwrap_or(0),
        ..Surface::default()
    }
    .check_size(room)
}

/// The outside of a component.
#[derive(Default)]
pub(crate) struct Surface {
    pub(crate) imports: Vec<String>,
    exports: Vec<String>,
    /// Of all core modules inside, as declared.
    memories: u32,
    tables: u32,
    pub(crate) largest_memory: u64,
    pub(crate) largest_table: u64,
}

impl Surface {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, wasmparser::BinaryReaderError> {
        let mut surface = Self::default();
        let mut depth = 0_u32;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::Version { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 1 => {
                    for import in section {
                        surface.imports.push(import?.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(section) if depth == 1 => {
                    for export in section {
                        surface.exports.push(export?.name.name.to_owned());
                    }
                }
                Payload::MemorySection(section) => {
                    for memory in section {
                        let memory = memory?;
                        let page = 1_u64 << memory.page_size_log2.unwrap_or(16).min(32);
                        let bytes = memory.initial.saturating_mul(page);
                        surface.memories += 1;
                        surface.largest_memory = surface.largest_memory.max(bytes);
                    }
                }
                Payload::TableSection(section) => {
                    for table in section {
                        surface.tables += 1;
                        surface.largest_table = surface.largest_table.max(table?.ty.initial);
                    }
                }
                _ => {}
            }
        }
        Ok(surface)
    }

    fn check_exports(&self, types: TypesRef<'_>) -> Result<(), LoadError> {
        let is_function = |name: &str| {
            types
                .component_item_for_export(name)
                .is_some_and(|item| matches!(item.ty, ComponentEntityType::Func(_)))
        };
        let missing: Vec<&str> = EXPORTS
            .into_iter()
            .filter(|name| !is_function(name))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(LoadError::OtherWorld {
            missing: missing.join("` and `"),
            is_command: self
                .exports
                .iter()
                .any(|export| export.starts_with("wasi:cli/run@")),
        })
    }

    fn check_imports(&self, types: TypesRef<'_>) -> Result<BTreeSet<Import>, LoadError> {
        let mut imports = BTreeSet::new();
        for name in &self.imports {
            // Types that the world itself names come without an interface.
            if types
                .component_item_for_import(name)
                .is_some_and(|item| matches!(item.ty, ComponentEntityType::Type { .. }))
            {
                continue;
            }
            let foreign = || LoadError::ForeignImport { name: name.clone() };
            let (package, interface, version) = split(name).ok_or_else(foreign)?;
            if WASI.contains(&package) && version.starts_with("0.2.") {
                continue;
            }
            if package != PACKAGE {
                return Err(foreign());
            }
            if version != VERSION {
                return Err(LoadError::OtherVersion { name: name.clone() });
            }
            if !SERVED.contains(&interface) {
                return Err(foreign());
            }
            for function in functions(types, name) {
                match ask(interface, function) {
                    Some(Ask::Free) => {}
                    Some(Ask::Grant(import)) => {
                        imports.insert(import);
                    }
                    None => {
                        return Err(LoadError::ForeignImport {
                            name: format!("{name}#{function}"),
                        });
                    }
                }
            }
        }
        Ok(imports)
    }

    fn check_size(&self, room: &Room) -> Result<(), LoadError> {
        let demands = [
            ("bytes of memory", self.largest_memory, room.memory as u64),
            ("memories", self.memories.into(), MAX_MEMORIES.into()),
            ("tables", self.tables.into(), room.tables.into()),
            (
                "entries in a table",
                self.largest_table,
                room.table_entries.into(),
            ),
        ];
        demands
            .into_iter()
            .find(|(_, needed, limit)| needed > limit)
            .map_or(Ok(()), |(what, needed, limit)| {
                Err(LoadError::TooDemanding {
                    what,
                    needed,
                    limit,
                })
            })
    }
}

/// `namespace:package/interface@version`, taken apart.
fn split(name: &str) -> Option<(&str, &str, &str)> {
    let (path, version) = name.split_once('@')?;
    let (package, interface) = path.split_once('/')?;
    Some((package, interface, version))
}

/// The functions of an imported interface.
fn functions<'a>(types: TypesRef<'a>, import: &str) -> Vec<&'a str> {
    let Some(ComponentEntityType::Instance(id)) =
        types.component_item_for_import(import).map(|item| item.ty)
    else {
        return Vec::new();
    };
    types.get(id).map_or_else(Vec::new, |instance| {
        instance
            .exports
            .iter()
            .filter(|(_, item)| matches!(item.ty, ComponentEntityType::Func(_)))
            .map(|(name, _)| name.as_str())
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What [`ask`] knows is what `wit/` says, function by function.
    #[test]
    fn every_function_of_the_contract_is_known() {
        let mut resolve = wit_parser::Resolve::default();
        let (package, _) = resolve
            .push_dir(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit"))
            .unwrap();
        let package = &resolve.packages[package];
        assert_eq!(
            package.name.to_string(),
            format!("{PACKAGE}@{VERSION}"),
            "the contract's version"
        );
        assert_eq!(NAME, package.name.to_string());
        for (interface, id) in &package.interfaces {
            let interface = interface.as_str();
            assert!(SERVED.contains(&interface), "{interface} is not known");
            for function in resolve.interfaces[*id].functions.keys() {
                assert!(
                    ask(interface, function).is_some(),
                    "{interface}.{function} is not known"
                );
            }
        }
        assert_eq!(package.interfaces.len(), SERVED.len());
    }

    #[test]
    fn each_docker_function_asks_for_its_own_action() {
        assert_eq!(
            ask("docker", "restart"),
            Some(Ask::Grant(Import::Docker(DockerAction::Restart)))
        );
        assert_eq!(ask("docker", "exec"), None);
    }
}
