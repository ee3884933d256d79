//! The contract in `wit/`, as wit-bindgen renders it. Nothing here is written by hand,
//! and plugins use it only through the rest of the crate.

wit_bindgen::generate!({
    path: "../../wit",
    world: "remediation",
    additional_derives: [PartialEq, Eq, Hash],
    default_bindings_module: "sentinel_plugin::bindings",
    pub_export_macro: true,
});
