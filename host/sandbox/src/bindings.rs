//! The contract in `wit/`, as wasmtime sees it.

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "remediation",
    imports: {
        "sentinel:plugin/log": trappable,
        "sentinel:plugin/clock.sleep": async | trappable,
        "sentinel:plugin/clock": trappable,
        "sentinel:plugin/random": trappable,
        default: async | trappable,
    },
    exports: { default: async },
});
