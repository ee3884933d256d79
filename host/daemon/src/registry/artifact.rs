//! What a plugin is made of in a registry: the layout for WebAssembly that `wkg`, `oras` and
//! others read (<https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/>).
//!
//! Its signature is an annotation of the manifest. A layer of its own would keep those away
//! that expect the one; an artifact that refers to this one is not known to every registry,
//! and is left behind when this one is copied.

use std::collections::BTreeMap;

use sentinel_core::id::Digest;
use serde::{Deserialize, Serialize};
use wit_component::DecodedWasm;
use wit_parser::{IndexMap, WorldItem, WorldKey};

use super::error::RegistryError;
use super::reference::Reference;

/// What a manifest is.
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// What several manifests under one name are.
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.wasm.config.v0+json";
const LAYER: &str = "application/wasm";

/// Of when a config says that it is: never now, so that the same file comes to the same
/// digest whenever it is pushed.
const CREATED: &str = "1970-01-01T00:00:00Z";

const TITLE: &str = "org.opencontainers.image.title";
const VERSION: &str = "org.opencontainers.image.version";
const DESCRIPTION: &str = "org.opencontainers.image.description";
const ASKS_FOR: &str = "infra-sentinel.asks-for";
const SIGNATURE: &str = "infra-sentinel.minisig";

/// What a plugin says of itself, for its annotations.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Described<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Its version.
    pub(crate) version: &'a str,
    /// What it does.
    pub(crate) summary: &'a str,
    /// What a policy has to grant it.
    pub(crate) asks_for: &'a str,
    /// The signature: the whole text of its file.
    pub(crate) signature: Option<&'a str>,
}

/// A plugin, ready to be pushed.
#[derive(Debug)]
pub(crate) struct Artifact {
    /// The plugin's own bytes.
    pub(super) wasm: Vec<u8>,
    /// What describes them.
    pub(super) config: Vec<u8>,
    /// What names both.
    pub(super) manifest: Vec<u8>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WasmConfig {
    created: &'static str,
    architecture: &'static str,
    os: &'static str,
    layer_digests: [Digest; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    component: Option<Outside>,
}

/// What a component has to do with others.
#[derive(Debug, Serialize)]
struct Outside {
    exports: Vec<String>,
    imports: Vec<String>,
}

/// Of what kind something is that has a digest.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    media_type: Option<String>,
    #[serde(default)]
    manifests: Vec<serde_json::Value>,
}

/// A manifest, as far as it matters here.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

/// What names a blob.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Descriptor {
    fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: Digest::of(bytes).to_string(),
            size: bytes.len() as u64,
            annotations: BTreeMap::new(),
        }
    }
}

impl Artifact {
    /// Makes one of a plugin's bytes, or says why they are no WebAssembly.
    pub(crate) fn new(wasm: Vec<u8>, described: Described<'_>) -> Result<Self, String> {
        let component = outside(&wasm)?;
        let config = WasmConfig {
            created: CREATED,
            architecture: "wasm",
            os: if component.is_some() {
                "wasip2"
            } else {
                "wasip1"
            },
            layer_digests: [Digest::of(&wasm)],
            component,
        };
        let config = serde_json::to_vec(&config).map_err(|error| error.to_string())?;
        let mut layer = Descriptor::of(LAYER, &wasm);
        // `oras pull` writes it under this name.
        layer
            .annotations
            .insert(TITLE.to_owned(), format!("{}.wasm", described.name));
        let given = [
            (TITLE, Some(described.name)),
            (VERSION, Some(described.version)),
            (DESCRIPTION, Some(described.summary)),
            (ASKS_FOR, Some(described.asks_for)),
            (SIGNATURE, described.signature),
        ];
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(MANIFEST.to_owned()),
            config: Descriptor::of(CONFIG, &config),
            layers: vec![layer],
            annotations: given
                .into_iter()
                .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())))
                .filter(|(_, value)| !value.is_empty())
                .collect(),
        };
        let manifest = serde_json::to_vec(&manifest).map_err(|error| error.to_string())?;
        Ok(Self {
            wasm,
            config,
            manifest,
        })
    }
}

/// What a component imports and exports; none for a core module.
fn outside(wasm: &[u8]) -> Result<Option<Outside>, String> {
    // The version of the encoding stands behind the magic number; core modules have 1.
    if wasm.get(4..8) == Some(&[1, 0, 0, 0]) {
        return Ok(None);
    }
    let decoded = wit_component::decode(wasm).map_err(|error| format!("{error:#}"))?;
    let DecodedWasm::Component(resolve, world) = decoded else {
        return Err("it is a package of WIT, and no component".to_owned());
    };
    let world = resolve
        .worlds
        .get(world)
        .ok_or("it is a component without a world")?;
    let names = |items: &IndexMap<WorldKey, WorldItem>| {
        items
            .iter()
            // Types that the world itself names are nothing to link.
            .filter(|(_, item)| !matches!(item, WorldItem::Type { .. }))
            .map(|(key, _)| resolve.name_world_key(key))
            .collect()
    };
    Ok(Some(Outside {
        exports: names(&world.exports),
        imports: names(&world.imports),
    }))
}

impl Manifest {
    /// Reads the manifest of a plugin, or says what `reference` names instead.
    pub(super) fn read(reference: &Reference, bytes: &[u8]) -> Result<Self, RegistryError> {
        let no_plugin = |why: String| RegistryError::NoPlugin {
            reference: reference.to_string(),
            why,
        };
        let kind: Kind = serde_json::from_slice(bytes)
            .map_err(|error| no_plugin(format!("its manifest cannot be read ({error})")))?;
        if kind.media_type.as_deref() == Some(INDEX) || !kind.manifests.is_empty() {
            return Err(no_plugin(
                "it is a list of several, for several machines; name the one by its digest"
                    .to_owned(),
            ));
        }
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|error| no_plugin(format!("its manifest cannot be read ({error})")))?;
        let config = &manifest.config.media_type;
        if config != CONFIG {
            return Err(no_plugin(format!(
                "it is an artifact of the type `{config}`, and not `{CONFIG}`"
            )));
        }
        Ok(manifest)
    }

    /// The plugin's own bytes.
    pub(super) fn layer(&self, reference: &Reference) -> Result<&Descriptor, RegistryError> {
        match self.layers.as_slice() {
            [layer] if layer.media_type == LAYER => Ok(layer),
            layers => {
                let types: Vec<_> = layers.iter().map(|layer| &*layer.media_type).collect();
                Err(RegistryError::NoPlugin {
                    reference: reference.to_string(),
                    why: format!(
                        "expected one layer of the type `{LAYER}`, found [{}]",
                        types.join(", ")
                    ),
                })
            }
        }
    }

    /// The signature that came along.
    pub(super) fn signature(&self) -> Option<&str> {
        self.annotations.get(SIGNATURE).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(signature: Option<&str>) -> Artifact {
        let described = Described {
            name: "x",
            version: "1.0.0",
            summary: "",
            asks_for: "docker.inspect",
            signature,
        };
        Artifact::new(b"\0asm\x01\0\0\0".to_vec(), described).unwrap()
    }

    #[test]
    fn what_is_written_is_read_again_and_the_same_each_time() {
        let reference: Reference = "a.io/x:1".parse().unwrap();
        let made = artifact(Some("untrusted comment: s\nRW\n"));
        let manifest = Manifest::read(&reference, &made.manifest).unwrap();
        assert_eq!(manifest.signature(), Some("untrusted comment: s\nRW\n"));
        let layer = manifest.layer(&reference).unwrap();
        assert_eq!(layer.digest, Digest::of(&made.wasm).to_string());
        assert_eq!(layer.size, 8);
        assert!(!manifest.annotations.contains_key(DESCRIPTION));
        let config: serde_json::Value = serde_json::from_slice(&made.config).unwrap();
        assert_eq!(config["os"], "wasip1");
        assert_eq!(config["architecture"], "wasm");
        assert_eq!(config["layerDigests"][0], layer.digest.as_str());
        assert_eq!(artifact(None).manifest, artifact(None).manifest);
    }

    #[test]
    fn what_is_no_plugin_is_told_apart() {
        let reference: Reference = "a.io/x:1".parse().unwrap();
        let why = |manifest: serde_json::Value| {
            let bytes = serde_json::to_vec(&manifest).unwrap();
            let read = Manifest::read(&reference, &bytes);
            let said = read.and_then(|manifest| manifest.layer(&reference).cloned());
            said.unwrap_err().to_string()
        };
        let blob = |media_type: &str| serde_json::json!({ "mediaType": media_type, "digest": "sha256:0", "size": 1 });
        let image = serde_json::json!({
            "schemaVersion": 2,
            "config": blob("application/vnd.oci.image.config.v1+json"),
            "layers": [blob("application/vnd.oci.image.layer.v1.tar+gzip")],
        });
        assert!(why(image).contains("vnd.oci.image.config"));
        let index = serde_json::json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] });
        assert!(why(index).contains("several"));
        let two = serde_json::json!({
            "schemaVersion": 2,
            "config": blob(CONFIG),
            "layers": [blob(LAYER), blob("text/plain")],
        });
        assert!(why(two).contains("text/plain"));
    }
}
